"""Token losses of many mixes on the few-shot examples, several mixes to a forward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compose.engine import slopes
from compose.engine.bank import Bank
from compose.engine.errors import EmptyExample, ExamplesTooLong, UnusableBase
from compose.engine.graphs import Graphs
from compose.engine.loading import LoadedBase, linear_shape
from compose.engine.memory import in_halves, is_out_of_memory
from compose.engine.mixing import PAPER, Mix, Mixer
from compose.engine.responses import Responses, choose_classes, log_probs_of
from compose.engine.types import Example

IGNORED = -100
_BATCHES_KEPT = 64

# Limits of one forward: tokens of inputs and outputs, and bytes of float32 logits.
_TOKENS = {"cpu": 16_384, "cuda": 262_144}
# Beyond so many tokens, or so many float32 bytes of a layer's output, another mix joins no forward on a CPU: it would
# fall out of the caches, and the C library gives tensors of more than 32 MiB back at once and asks for them anew.
_TOKENS_OF_MIXES = 5_600
_LAYER_BYTES = 6 * 2**20
# A recording on a CPU keeps tensors of all its tokens, and beyond so many the Python it saves is not felt.
_MOST_RECORDED_TOKENS = 6_000
# A differentiated forward keeps what its layers gave until it has gone back through them: so many bytes at most on a CPU,
# whose system ends the process instead of saying that it was too much. Of each layer about so many times its output.
_DIFFERENTIATED_BYTES = 2 * 2**30
_KEPT_TIMES = 2
_LOGIT_BYTES = {"cpu": 256 * 2**20, "cuda": 4 * 2**30}


@dataclass(frozen=True)
class Row:
    """One tokenised example. For a causal base `inputs` is the prompt and `labels` what follows it."""

    inputs: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return len(self.inputs) + len(self.labels)


@dataclass(frozen=True)
class RowLosses:
    """Summed token loss (nats) of every mix on every row, and the tokens it is summed over."""

    sums: Tensor  # (mixes, rows) float64, on the CPU
    tokens: Tensor  # (rows,) float64

    def means(self, rows: Sequence[int] | None = None) -> list[float]:
        """Mean token loss of every mix over the rows as one batch, as the model itself would return it."""
        chosen = list(range(len(self.tokens))) if rows is None else list(rows)
        return (self.sums[:, chosen].sum(1) / self.tokens[chosen].sum()).tolist()


def tokenise(base: LoadedBase, examples: Sequence[Example], *, what: str = "example") -> list[Row]:
    """Token ids of the examples. Raises EmptyExample or ExamplesTooLong, naming the row (counted from 1)."""
    make = _seq2seq_row if base.kind == "seq2seq" else _causal_row
    rows = [make(base, example) for example in examples]
    for number, row in enumerate(rows, start=1):
        _check(base, row, f"The {what} {number}")
    return rows


def _seq2seq_row(base: LoadedBase, example: Example) -> Row:
    return Row(
        inputs=tuple(base.tokenizer(example.input)["input_ids"]),
        labels=tuple(base.tokenizer(example.output)["input_ids"]),
    )


def _causal_row(base: LoadedBase, example: Example) -> Row:
    """Prompt and continuation; the continuation is what the whole text has beyond the prompt's own tokens."""
    prompt = prompt_ids(base, example.input)
    gap = "" if _prompt_text(example.input).endswith("\n") else " "
    whole = _plain_ids(base, _prompt_text(example.input) + gap + example.output)
    shared = 0
    while shared < min(len(prompt), len(whole)) and prompt[shared] == whole[shared]:
        shared += 1
    answer = whole[shared:]
    end = base.tokenizer.eos_token_id
    if answer and end is not None:
        answer = [*answer, end]
    return Row(inputs=tuple(whole[:shared]), labels=tuple(answer))


def prompt_ids(base: LoadedBase, text: str) -> list[int]:
    """Token ids a row is generated from."""
    if base.kind == "seq2seq":
        return list(base.tokenizer(text)["input_ids"])
    return _plain_ids(base, _prompt_text(text))


def _prompt_text(text: str) -> str:
    # Trailing spaces belong to the answer's first token in most vocabularies; line ends stay.
    return text.rstrip(" \t")


def _plain_ids(base: LoadedBase, text: str) -> list[int]:
    ids = list(base.tokenizer(text)["input_ids"])
    # Some tokenizers close every text; a prompt has to stay open.
    if ids and ids[-1] == base.tokenizer.eos_token_id:
        ids.pop()
    return ids


def _check(base: LoadedBase, row: Row, name: str) -> None:
    special = set(base.tokenizer.all_special_ids) - {base.tokenizer.unk_token_id}
    for part, ids in (("input", row.inputs), ("output", row.labels)):
        if not any(token not in special for token in ids):
            raise EmptyExample(
                f"{name} has an {part} without any token of the base model; give it some text."
            )
    limit = base.context_tokens
    if base.kind == "seq2seq":
        longest, part = max((len(row.inputs), "input"), (len(row.labels), "output"))
        what = f"The {part} of {name[:1].lower()}{name[1:]}"
    else:
        longest, what = row.tokens, f"{name}, input and output together,"
    if longest > limit:
        raise ExamplesTooLong(
            f"{what} has {longest:,} tokens; the base model takes {limit:,}. Shorten it or leave it out."
        )


class Scorer:
    """Scores mixes on a fixed set of examples; the base is hooked only during its own forwards, not while recordings replay."""

    def __init__(
        self,
        base: LoadedBase,
        mixer: Mixer,
        rows: Sequence[Row],
        *,
        tokens_per_forward: int | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        """`graphs`: None means recordings where the device has them."""
        self._base = base
        self._mixer = mixer
        self._rows = list(rows)
        self.evaluations = 0  # mixes scored
        self.forwards = 0
        self._batches: dict[tuple[int, ...], _Batch] = {}
        self._graphs = graphs if graphs is not None else Graphs.for_device(base.device)
        self._limit = tokens_per_forward or _TOKENS[base.device.type]
        self._tokens_of_mixes = _tokens_of_mixes(base)
        self._tokens_of_gradients = min(self._limit, _tokens_of_gradients(base))
        self._vocabulary = base.model.config.get_text_config().vocab_size
        self._all_rows = self._row_batches(range(len(self._rows)), self._limit)

    @property
    def row_count(self) -> int:
        return len(self._rows)

    def row_losses(self, mixes: Sequence[Mix]) -> RowLosses:
        """Score every mix on every row; the numbers do not depend on how rows are batched (1e-5 relative)."""
        # They stay on the device until the end, so that no forward waits for the one before it.
        sums = torch.zeros(len(self._rows), len(mixes), dtype=torch.float64, device=self._base.device)
        with torch.inference_mode():
            for chosen in self._all_rows:
                rows = [self._rows[index] for index in chosen]
                size = self._mixes_at_once(rows)
                for start in range(0, len(mixes), size):
                    part = mixes[start : start + size]
                    losses = in_halves(self._one_forward, part, rows, _too_long(rows))
                    for index, own in zip(chosen, losses.T, strict=True):
                        sums[index, start : start + len(part)] = own
        self.evaluations += len(mixes)
        tokens = torch.tensor([len(row.labels) for row in self._rows], dtype=torch.float64)
        return RowLosses(sums=sums.T.cpu(), tokens=tokens)

    def losses(self, mixes: Sequence[Mix]) -> list[float]:
        """Mean token loss of every mix over all rows as one batch, in nats."""
        if len(mixes) == 1 and len(self._all_rows) == 1:
            return [self._batch_mean(mixes[0])]
        return self.row_losses(mixes).means()

    def bare_forward(self) -> None:
        """One forward of the base over all rows with nothing mixed in: what a trial costs at the least."""
        with torch.inference_mode():
            self._logits(self._rows, repeats=1)

    def _batch_mean(self, mix: Mix) -> float:
        """The loss as the model itself computes it, in one float32 mean: `lorahub` must not differ by a rounding."""
        try:
            with torch.inference_mode():
                logits, labels = self._mixed_logits([mix], self._rows)
                flat = logits.float().reshape(-1, logits.shape[-1])
                loss = functional.cross_entropy(flat, labels.reshape(-1), ignore_index=IGNORED)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return self.row_losses([mix]).means()[0]
        self.evaluations += 1
        self.forwards += 1
        return float(loss)

    def responses(self, mixes: Sequence[Mix]) -> Responses:
        """What every mix says at every token of the answers; the first mix chooses which tokens are told apart."""
        classes: dict[int, Tensor] = {}  # by row; chosen when the first mix meets it
        parts, examples = [], []
        respond = partial(self._respond, classes=classes)
        with torch.inference_mode():
            for chosen in self._all_rows:
                rows = [self._rows[index] for index in chosen]
                size = self._mixes_at_once(rows)
                told = [
                    in_halves(respond, mixes[start : start + size], chosen, _too_long(rows))
                    for start in range(0, len(mixes), size)
                ]
                parts.append(torch.cat(told))
                examples += [index for index in chosen for _ in self._rows[index].labels]
        self.evaluations += len(mixes)
        return Responses(log_probs=torch.cat(parts, dim=1).numpy(), examples=np.array(examples))

    def _respond(self, mixes: Sequence[Mix], chosen: Sequence[int], classes: dict[int, Tensor]) -> Tensor:
        """(mixes, label tokens of the chosen rows, classes)."""
        rows = [self._rows[index] for index in chosen]
        self.forwards += 1
        logits, labels = self._mixed_logits(mixes, rows)
        wanted = labels[: len(rows)] != IGNORED
        logits = logits.view(len(mixes), *wanted.shape, -1)[:, wanted]  # (mixes, positions, vocabulary)
        if chosen[0] not in classes:
            ids = choose_classes(logits[0], labels[: len(rows)][wanted])
            lengths = [len(row.labels) for row in rows]
            classes.update(zip(chosen, ids.split(lengths), strict=True))
        return log_probs_of(logits, torch.cat([classes[index] for index in chosen])).cpu()

    def gradient(
        self, bank: Bank, mixing_weights: Sequence[float], examples: Sequence[int]
    ) -> tuple[float, list[float]]:
        """Mean token loss of the exact mix over these examples, and its derivative by every weight."""
        weights = torch.tensor(mixing_weights, dtype=torch.float32, device=self._base.device).requires_grad_()
        tokens = sum(len(self._rows[index].labels) for index in examples)
        loss, total = 0.0, torch.zeros_like(weights)
        with slopes.attached(self._base, bank, weights), torch.enable_grad():
            for chosen in self._row_batches(examples, self._tokens_of_gradients):
                rows = [self._rows[index] for index in chosen]
                found = in_halves(self._slope, [weights], rows, _too_long(rows)).sum((0, 1))  # (1 + n,)
                loss, total = loss + found[0].item(), total + found[1:]
        self.evaluations += 1
        return loss / tokens, (total / tokens).tolist()

    def _slope(self, weights: Sequence[Tensor], rows: Sequence[Row]) -> Tensor:
        """Summed token loss of these rows and its derivative by every weight, (1, 1, 1 + n)."""
        self.forwards += 1
        logits, labels = self._logits(rows, repeats=1)
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        [slope] = torch.autograd.grad(loss, weights)
        return torch.cat([loss.detach().view(1), slope]).view(1, 1, -1)

    def _row_batches(self, examples: Sequence[int], limit: int) -> list[list[int]]:
        """Rows of one forward. All together, as the reference does, unless that is more than one forward takes."""
        everything = list(examples)
        if self._cost([self._rows[index] for index in everything]) <= limit:
            return [everything]
        by_length = sorted(everything, key=lambda index: self._rows[index].tokens)
        batches: list[list[int]] = [[]]
        for index in by_length:
            if batches[-1] and self._cost([self._rows[i] for i in [*batches[-1], index]]) > limit:
                batches.append([])
            batches[-1].append(index)
        return batches

    def _mixes_at_once(self, rows: Sequence[Row]) -> int:
        """How many mixes of these rows make one forward."""
        return max(1, min(self._limit, self._tokens_of_mixes) // self._cost(rows))

    def _cost(self, rows: Sequence[Row]) -> int:
        """Padded tokens of these rows, or more where the vocabulary makes logits the larger part."""
        inputs, labels = max(len(r.inputs) for r in rows), max(len(r.labels) for r in rows)
        kept = labels if self._base.kind == "seq2seq" else _kept_positions(rows)
        logit_bytes = kept * self._vocabulary * 4
        by_logits = logit_bytes * self._limit / _LOGIT_BYTES[self._base.device.type]
        return len(rows) * max(inputs + labels, int(by_logits))

    def _one_forward(self, mixes: Sequence[Mix], rows: Sequence[Row]) -> Tensor:
        self.forwards += 1
        logits, labels = self._mixed_logits(mixes, rows)
        token_losses = functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return token_losses.view(len(mixes), len(rows), -1).double().sum(-1)

    def _mixed_logits(self, mixes: Sequence[Mix], rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """What `_logits` gives for every mix on these rows, from a recording where there is one."""
        if self._graphs is not None and self._may_be_recorded(mixes, rows):
            batch, kind = self._batch(rows), mixes[0].kind

            def prepared(groups: int) -> Callable[[Tensor], Tensor]:
                inputs = {name: tensor.repeat(groups, 1) for name, tensor in batch.inputs.items()}

                def forward(weights: Tensor) -> Tensor:
                    with self._mixer.attached(fused=True):
                        self._mixer.assign_weights(kind, weights, rows=len(rows))
                        outputs = self._base.model(**inputs, use_cache=False, **batch.options)
                    return self._wanted(outputs.logits, batch)

                return forward

            weights = torch.tensor([mix.mixing_weights for mix in mixes], dtype=torch.float32)
            logits = self._graphs.logits((kind, *map(id, rows)), weights, prepared)
            if logits is not None:
                labels = self._wanted_labels(batch)
                return logits, labels if len(mixes) == 1 else labels.repeat(len(mixes), 1)
        with self._mixer.attached(fused=True):
            self._mixer.assign([(mix, len(rows)) for mix in mixes], once=True)
            return self._logits(rows, repeats=len(mixes))

    def _may_be_recorded(self, mixes: Sequence[Mix], rows: Sequence[Row]) -> bool:
        """Whether the mixes are of one kind and use most of the modules; those of a few have a cheaper way.

        On a CPU only where Python is felt: what a recording keeps grows with the tokens.
        """
        if self._base.device.type == "cpu" and self._cost(rows) * len(mixes) > _MOST_RECORDED_TOKENS:
            return False
        if any(mix.kind == PAPER for mix in mixes):
            return len(mixes) == 1 and not mixes[0].is_base
        widest = max(sum(map(bool, mix.mixing_weights)) for mix in mixes)
        return 2 * widest > len(mixes[0].mixing_weights)

    def _logits(self, rows: Sequence[Row], *, repeats: int) -> tuple[Tensor, Tensor]:
        """Logits and the labels they predict, (repeats * rows, positions[, vocabulary])."""
        batch = self._batch(rows)
        logits = self._base.model(
            **{name: tensor.repeat(repeats, 1) for name, tensor in batch.inputs.items()},
            use_cache=False,
            **batch.options,
        ).logits
        return self._wanted(logits, batch), self._wanted_labels(batch).repeat(repeats, 1)

    def _wanted(self, logits: Tensor, batch: _Batch) -> Tensor:
        # In a causal model the logits at a position predict the next one.
        return logits if self._base.kind == "seq2seq" else logits[:, -batch.kept : -1]

    def _wanted_labels(self, batch: _Batch) -> Tensor:
        labels = batch.labels
        return labels if self._base.kind == "seq2seq" else labels[:, labels.shape[1] - batch.kept + 1 :]

    def _batch(self, rows: Sequence[Row]) -> _Batch:
        """The rows as tensors on the device; those of the last rows asked for are still there."""
        key = tuple(map(id, rows))
        if key not in self._batches:
            if len(self._batches) >= _BATCHES_KEPT:
                self._batches.clear()
            with torch.inference_mode(False):  # gradients may be wanted through what uses them later
                self._batches[key] = _batch(self._base, rows)
        return self._batches[key]


@dataclass(frozen=True)
class _Batch:
    """Rows as a model takes them; `kept` is the number of last positions whose logits are needed."""

    inputs: dict[str, Tensor]  # (rows, positions) each
    labels: Tensor  # (rows, positions)
    kept: int
    options: dict[str, int]


def _batch(base: LoadedBase, rows: Sequence[Row]) -> _Batch:
    if base.kind == "seq2seq":
        labels = pad([row.labels for row in rows], IGNORED)
        inputs = {
            "input_ids": pad([row.inputs for row in rows], base.pad_token_id),
            "attention_mask": pad([[1] * len(row.inputs) for row in rows], 0),
            "decoder_input_ids": _decoder_inputs(base, labels),
        }
        kept, options = labels.shape[1], {}
    else:
        inputs = {
            "input_ids": pad([[*row.inputs, *row.labels] for row in rows], base.pad_token_id),
            "attention_mask": pad([[1] * row.tokens for row in rows], 0),
        }
        labels = pad([[*[IGNORED] * len(row.inputs), *row.labels] for row in rows], IGNORED)
        kept = _kept_positions(rows)
        takes_limit = "logits_to_keep" in inspect.signature(base.model.forward).parameters
        options = {"logits_to_keep": kept} if takes_limit else {}
    on_device = {name: tensor.to(base.device) for name, tensor in inputs.items()}
    return _Batch(on_device, labels.to(base.device), kept, options)


def _decoder_inputs(base: LoadedBase, labels: Tensor) -> Tensor:
    """What the decoder reads to write the labels, (rows, positions): a start, then each label but the last."""
    prepare = getattr(base.model, "prepare_decoder_input_ids_from_labels", None)
    if prepare is not None:
        return cast(Tensor, prepare(labels=labels))
    # M2M100, NLLB and Blenderbot do it inside their forward alone.
    start = base.model.config.decoder_start_token_id
    if start is None:
        raise UnusableBase(
            "The base model does not say which token its answers start with; "
            "give its config.json a decoder_start_token_id."
        )
    shifted = torch.cat([labels.new_full((len(labels), 1), start), labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORED, base.pad_token_id)


def _tokens_of_mixes(base: LoadedBase) -> int:
    """Tokens of one forward of several mixes."""
    if base.device.type != "cpu":
        return _TOKENS[base.device.type]
    widest = max((max(sizes) for sizes in _matrices(base)), default=1)
    return min(_TOKENS_OF_MIXES, _LAYER_BYTES // (4 * widest))


def _tokens_of_gradients(base: LoadedBase) -> int:
    """Tokens of one differentiated forward."""
    if base.device.type != "cpu":
        return _TOKENS[base.device.type]
    widths = sum(output for _, output in _matrices(base))
    return max(1, _DIFFERENTIATED_BYTES // (4 * _KEPT_TIMES * max(1, widths)))


def _matrices(base: LoadedBase) -> list[tuple[int, int]]:
    """(in_features, out_features) of the linear layers, but for those that give or take a vocabulary."""
    vocabulary = base.model.config.get_text_config().vocab_size
    sizes = (linear_shape(base.model, name) for name, _ in base.model.named_modules())
    return [each for each in sizes if each is not None and vocabulary not in each]


def _too_long(rows: Sequence[Row]) -> str:
    longest = max(row.tokens for row in rows)
    return (
        f"Scoring one example of {longest} tokens needs more memory than the worker has. "
        "Use shorter examples, fewer modules or a smaller base model."
    )


def _kept_positions(rows: Sequence[Row]) -> int:
    """Last positions of the padded batch whose logits are needed: from one before the first label on."""
    length = max(row.tokens for row in rows)
    first_label = min(len(row.inputs) for row in rows)
    return length - max(first_label - 1, 0)


def pad(lists: Sequence[Sequence[int]], filler: int, *, left: bool = False) -> Tensor:
    """(rows, longest) of the lists, filled up on the right, or on the left."""
    longest = max(len(items) for items in lists)
    fillers = [[filler] * (longest - len(items)) for items in lists]
    pairs = zip(lists, fillers, strict=True)
    return torch.tensor([[*extra, *items] if left else [*items, *extra] for items, extra in pairs])
