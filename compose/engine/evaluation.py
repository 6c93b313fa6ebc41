"""Asking finished mixes about rows the search never saw: greedy answers, many rows and mixes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

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
) -> list[str]:
    """Greedy answers in the order of `asked`; rows of several mixes share a batch.

    `on_batch` is told after each batch how many rows are done, and may raise to end it.
    """
    texts = [""] * len(asked)
    done = 0
    for batch in _batches(base, asked):
        # Rows of one mix have to lie together.
        chosen = sorted(batch, key=lambda index: (asked[index].mix.kind, asked[index].mix.mixing_weights))
        rows = [asked[index] for index in chosen]
        written = with_halving(partial(_generate, base, mixer, max_new_tokens), rows)
        for index, text in zip(chosen, written, strict=True):
            texts[index] = text
        done += len(rows)
        on_batch(done)
    return texts


def _batches(base: LoadedBase, asked: Sequence[Question]) -> list[list[int]]:
    """Indexes of similar prompt length together, within the limits of one batch."""
    rows_limit = _ROWS_AT_ONCE[base.device.type]
    tokens_limit = _PROMPT_TOKENS_AT_ONCE[base.device.type]
    batches: list[list[int]] = []
    for index in sorted(range(len(asked)), key=lambda i: (len(asked[i].prompt), asked[i].row)):
        longest = len(asked[index].prompt)  # sorted, so the newest is the longest
        full = batches and (len(batches[-1]) >= rows_limit or (len(batches[-1]) + 1) * longest > tokens_limit)
        if not batches or full:
            batches.append([])
        batches[-1].append(index)
    return batches


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
    with mixer.attached(), torch.inference_mode():
        mixer.assign(groups)
        tokens = base.model.generate(
            input_ids=inputs,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=base.pad_token_id,
        )
    if left:
        tokens = tokens[:, inputs.shape[1] :]
    return base.tokenizer.batch_decode(tokens, skip_special_tokens=True)


def answer_limit(rows: Sequence[Row]) -> int:
    """New tokens to allow, the same for every method: twice the longest expected answer and some.

    A longer text matches none, and loses by every other metric too.
    """
    return min(LONGEST_ANSWER, 2 * max(len(row.labels) for row in rows) + 8)
