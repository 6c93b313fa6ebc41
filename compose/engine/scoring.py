"""Token losses of many mixes on the few-shot examples, several mixes to a forward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from compose.engine.errors import EmptyExample, ExamplesTooLong, OutOfMemory
from compose.engine.loading import LoadedBase
from compose.engine.mixing import Mix, Mixer
from compose.engine.types import Example

IGNORED = -100
T = TypeVar("T")

# Limits of one forward: tokens of inputs and outputs, and bytes of float32 logits.
_TOKENS = {"cpu": 16_384, "cuda": 262_144}
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
    longest = max(len(row.inputs), len(row.labels)) if base.kind == "seq2seq" else row.tokens
    if longest > limit:
        raise ExamplesTooLong(
            f"{name} has {longest} tokens; the base model takes {limit}. Shorten it or leave it out."
        )


class Scorer:
    """Scores mixes on a fixed set of examples; the base is hooked only while it works."""

    def __init__(
        self, base: LoadedBase, mixer: Mixer, rows: Sequence[Row], *, tokens_per_forward: int | None = None
    ) -> None:
        self._base = base
        self._mixer = mixer
        self._rows = list(rows)
        self.evaluations = 0  # mixes scored
        self.forwards = 0
        self._limit = tokens_per_forward or _TOKENS[base.device.type]

    @property
    def row_count(self) -> int:
        return len(self._rows)

    def row_losses(self, mixes: Sequence[Mix]) -> RowLosses:
        """Score every mix on every row; the numbers do not depend on how rows are batched (1e-5 relative)."""
        sums = torch.zeros(len(mixes), len(self._rows), dtype=torch.float64)
        with self._mixer.attached(), torch.inference_mode():
            for chosen in self._row_batches():
                rows = [self._rows[index] for index in chosen]
                size = max(1, self._limit // self._cost(rows))
                for start in range(0, len(mixes), size):
                    part = mixes[start : start + size]
                    sums[start : start + len(part), chosen] = self._forward(part, rows)
        self.evaluations += len(mixes)
        tokens = torch.tensor([len(row.labels) for row in self._rows], dtype=torch.float64)
        return RowLosses(sums=sums, tokens=tokens)

    def losses(self, mixes: Sequence[Mix]) -> list[float]:
        """Mean token loss of every mix over all rows as one batch, in nats."""
        if len(mixes) == 1 and len(self._row_batches()) == 1:
            return [self._batch_mean(mixes[0])]
        return self.row_losses(mixes).means()

    def _batch_mean(self, mix: Mix) -> float:
        """The loss as the model itself computes it, in one float32 mean: `lorahub` must not differ by a rounding."""
        try:
            with self._mixer.attached(), torch.inference_mode():
                self._mixer.assign([(mix, len(self._rows))])
                logits, labels = self._logits(self._rows, repeats=1)
                flat = logits.float().reshape(-1, logits.shape[-1])
                loss = functional.cross_entropy(flat, labels.reshape(-1), ignore_index=IGNORED)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return self.row_losses([mix]).means()[0]
        self.evaluations += 1
        self.forwards += 1
        return float(loss)

    def _row_batches(self) -> list[list[int]]:
        """Rows of one forward. All together, as the reference does, unless that is more than one forward takes."""
        everything = list(range(len(self._rows)))
        if self._cost(self._rows) <= self._limit:
            return [everything]
        by_length = sorted(everything, key=lambda index: self._rows[index].tokens)
        batches: list[list[int]] = [[]]
        for index in by_length:
            if batches[-1] and self._cost([self._rows[i] for i in [*batches[-1], index]]) > self._limit:
                batches.append([])
            batches[-1].append(index)
        return batches

    def _cost(self, rows: Sequence[Row]) -> int:
        """Padded tokens of these rows, or more where the vocabulary makes logits the larger part."""
        inputs, labels = max(len(r.inputs) for r in rows), max(len(r.labels) for r in rows)
        kept = labels if self._base.kind == "seq2seq" else _kept_positions(rows)
        logit_bytes = kept * self._base.model.config.get_text_config().vocab_size * 4
        by_logits = logit_bytes * self._limit / _LOGIT_BYTES[self._base.device.type]
        return len(rows) * max(inputs + labels, int(by_logits))

    def _forward(self, mixes: Sequence[Mix], rows: Sequence[Row]) -> Tensor:
        """(mixes, rows) summed token losses; halves the batch when memory runs out."""
        try:
            return self._one_forward(mixes, rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(mixes) > 1:
            half = len(mixes) // 2
            return torch.cat([self._forward(mixes[:half], rows), self._forward(mixes[half:], rows)], dim=0)
        if len(rows) > 1:
            half = len(rows) // 2
            return torch.cat([self._forward(mixes, rows[:half]), self._forward(mixes, rows[half:])], dim=1)
        raise OutOfMemory(
            f"Scoring one example of {rows[0].tokens} tokens needs more memory than the worker has. "
            "Use shorter examples, fewer modules or a smaller base model."
        )

    def _one_forward(self, mixes: Sequence[Mix], rows: Sequence[Row]) -> Tensor:
        self.forwards += 1
        self._mixer.assign([(mix, len(rows)) for mix in mixes])
        logits, labels = self._logits(rows, repeats=len(mixes))
        token_losses = functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return token_losses.view(len(mixes), len(rows), -1).double().sum(-1).cpu()

    def _logits(self, rows: Sequence[Row], *, repeats: int) -> tuple[Tensor, Tensor]:
        """Logits and the labels they predict, (repeats * rows, positions[, vocabulary])."""
        device = self._base.device
        if self._base.kind == "seq2seq":
            inputs = pad([row.inputs for row in rows], self._base.pad_token_id)
            mask = pad([[1] * len(row.inputs) for row in rows], 0)
            labels = pad([row.labels for row in rows], IGNORED)
            shifted = self._base.model.prepare_decoder_input_ids_from_labels(labels=labels)
            outputs = self._base.model(
                input_ids=inputs.repeat(repeats, 1).to(device),
                attention_mask=mask.repeat(repeats, 1).to(device),
                decoder_input_ids=shifted.repeat(repeats, 1).to(device),
                use_cache=False,
            )
            return outputs.logits, labels.repeat(repeats, 1).to(device)
        inputs = pad([[*row.inputs, *row.labels] for row in rows], self._base.pad_token_id)
        mask = pad([[1] * row.tokens for row in rows], 0)
        labels = pad([[*[IGNORED] * len(row.inputs), *row.labels] for row in rows], IGNORED)
        kept = _kept_positions(rows)
        takes_limit = "logits_to_keep" in inspect.signature(self._base.model.forward).parameters
        outputs = self._base.model(
            input_ids=inputs.repeat(repeats, 1).to(device),
            attention_mask=mask.repeat(repeats, 1).to(device),
            use_cache=False,
            **({"logits_to_keep": kept} if takes_limit else {}),
        )
        logits = outputs.logits[:, -kept:]
        # The logits at a position predict the next one.
        return logits[:, :-1], labels[:, inputs.shape[1] - kept + 1 :].repeat(repeats, 1).to(device)


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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: its own class on a GPU, an allocator's message on a CPU."""
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError) or "not enough memory" in text or "can't allocate" in text
    )


def with_halving(work: Callable[[Sequence[T]], list[str]], items: Sequence[T]) -> list[str]:
    """`work(items)`, in halves where memory runs out. Raises OutOfMemory at a single item."""
    try:
        return work(items)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    if len(items) <= 1:
        raise OutOfMemory(
            "Generating an answer for one row needs more memory than the worker has. "
            "Use shorter rows, fewer modules or a smaller base model."
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(items) // 2
    return with_halving(work, items[:middle]) + with_halving(work, items[middle:])
