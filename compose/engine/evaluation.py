"""Asking finished mixes about rows the search never saw: greedy answers, many rows and mixes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

import torch

from compose.engine.keeping import Once, always
from compose.engine.loading import LoadedBase
from compose.engine.memory import with_halving
from compose.engine.mixing import Mix, Mixer
from compose.engine.scoring import Row, pad, prompt_ids
from compose.engine.types import Example

LONGEST_ANSWER = 256  # new tokens, as in the released LoraHub code

_ROWS_AT_ONCE = {"cpu": 320, "cuda": 2048}
_PROMPT_TOKENS_AT_ONCE = {"cpu": 32_768, "cuda": 524_288}


@dataclass(frozen=True)
class Question:
    """One row for one method: what it reads, and which mix answers."""

    method: str
    row: int  # index of the test row
    mix: Mix
    prompt: tuple[int, ...]


def questions(base: LoadedBase, method: str, mix: Mix, texts: Sequence[str]) -> list[Question]:
    """One question for every text, by the same mix."""
    return [Question(method, index, mix, tuple(prompt_ids(base, text))) for index, text in enumerate(texts)]


def in_context_prompt(examples: Sequence[Example], text: str) -> str:
    """The examples with their answers, then the text, separated by empty lines."""
    shown = [f"{example.input}\n{example.output}" for example in examples]
    return "\n\n".join([*shown, text])


def answer(
    base: LoadedBase,
    mixer: Mixer,
    asked: Sequence[Question],
    *,
    max_new_tokens: int,
    on_batch: Callable[[int], None] = lambda done: None,
    once: Once = always,
) -> list[str]:
    """Greedy answers in the order of `asked`; rows of several mixes share a batch.

    `on_batch` is told after each batch how many rows are done, and may raise to end it. `once` does a batch.
    """
    texts = [""] * len(asked)
    done = 0
    for batch in _batches(base, asked, max_new_tokens):
        # Rows of one mix have to lie together.
        chosen = sorted(batch, key=lambda index: (asked[index].mix.kind, asked[index].mix.mixing_weights))
        rows = [asked[index] for index in chosen]
        written = once(
            [max_new_tokens, *((row.mix.kind, row.mix.mixing_weights, row.prompt) for row in rows)],
            partial(with_halving, partial(_generate, base, mixer, max_new_tokens), rows),
        )
        for index, text in zip(chosen, written, strict=True):
            # A vocabulary of bytes can write one that no text is stored with.
            texts[index] = text.replace("\x00", "\ufffd")
        done += len(rows)
        on_batch(done)
    return texts


def _batches(base: LoadedBase, asked: Sequence[Question], max_new_tokens: int) -> list[list[int]]:
    """Indexes of similar prompt length and equal room for the answer together, within the limits of one batch."""
    rows_limit = _ROWS_AT_ONCE[base.device.type]
    tokens_limit = _PROMPT_TOKENS_AT_ONCE[base.device.type]
    batches: list[list[int]] = []
    room = 0  # of the last batch
    for index in sorted(range(len(asked)), key=lambda i: (len(asked[i].prompt), asked[i].row)):
        longest = len(asked[index].prompt)  # sorted, so the newest is the longest
        own_room = _room(base, longest, max_new_tokens)
        full = batches and (len(batches[-1]) >= rows_limit or (len(batches[-1]) + 1) * longest > tokens_limit)
        if not batches or full or own_room != room:
            batches.append([])
        batches[-1].append(index)
        room = own_room
    return batches


def _room(base: LoadedBase, prompt_tokens: int, max_new_tokens: int) -> int:
    """New tokens for an answer to such a prompt: a base with learned positions has none beyond its context."""
    taken = prompt_tokens if base.kind == "causal" else 0
    return max(1, min(max_new_tokens, base.context_tokens - taken))


def _ends(base: LoadedBase) -> list[int]:
    """Tokens that end an answer: those the base names, and the tokenizer's own, with which every scored answer ends."""
    named = base.model.generation_config.eos_token_id
    ends = [*(named if isinstance(named, list) else [named]), base.tokenizer.eos_token_id]
    return sorted({int(token) for token in ends if token is not None})


def _generate(base: LoadedBase, mixer: Mixer, max_new_tokens: int, rows: Sequence[Question]) -> list[str]:
    groups: list[tuple[Mix, int]] = []
    for row in rows:
        if groups and groups[-1][0] == row.mix:
            groups[-1] = (row.mix, groups[-1][1] + 1)
        else:
            groups.append((row.mix, 1))
    prompts = [row.prompt for row in rows]
    left = base.kind == "causal"
    inputs = pad(prompts, base.pad_token_id, left=left).to(base.device)
    mask = pad([[1] * len(prompt) for prompt in prompts], 0, left=left).to(base.device)
    ends = _ends(base)
    with mixer.attached(fused=True), torch.inference_mode():
        mixer.assign(groups)
        tokens = base.model.generate(
            input_ids=inputs,
            attention_mask=mask,
            max_new_tokens=_room(base, inputs.shape[1], max_new_tokens),
            do_sample=False,
            num_beams=1,
            pad_token_id=base.pad_token_id,
            eos_token_id=ends or None,
        )
    # Behind the prompt, or the token that a decoder starts with.
    written = tokens[:, inputs.shape[1] if left else 1 :].tolist()
    return base.tokenizer.batch_decode([_before(ends, row) for row in written], skip_special_tokens=True)


def _before(ends: Sequence[int], tokens: list[int]) -> list[int]:
    """What stands before the first end. A batch fills up behind it, by a token that need not be a special one."""
    return list(takewhile(lambda token: token not in ends, tokens))


def out_of_reach(rows: Sequence[Row]) -> int:
    """How many of the expected answers are longer than any that is written, their end left aside."""
    return sum(len(row.labels) > LONGEST_ANSWER + 1 for row in rows)


def answer_limit(rows: Sequence[Row]) -> int:
    """New tokens to allow, the same for every method: twice the longest expected answer and some.

    A longer text matches none, and loses by every other metric too.
    """
    return min(LONGEST_ANSWER, 2 * max(len(row.labels) for row in rows) + 8)
