"""Scoring finished mixes on rows the search never saw: greedy answers, exact match, intervals, a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from compose.engine.loading import LoadedBase
from compose.engine.memory import with_halving
from compose.engine.mixing import Mix, Mixer
from compose.engine.scoring import Row, pad, prompt_ids
from compose.engine.types import Example, Score

EXACT_MATCH = "exact_match"
LONGEST_ANSWER = 256  # new tokens, as in the released LoraHub code
# Fewer rows than this cannot separate two methods at the 5 % level unless they differ nearly everywhere.
ENOUGH_ROWS = 30

_ROWS_AT_ONCE = {"cpu": 320, "cuda": 2048}
_PROMPT_TOKENS_AT_ONCE = {"cpu": 32_768, "cuda": 524_288}

LABELS = {
    "zero_shot": "the base model alone",
    "best_single": "the best single module",
    "uniform": "the uniform average of the modules",
    "in_context": "the examples put in front of the question",
    "lorahub": "LoraHub as published",
}


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
    """New tokens to allow: twice the longest expected answer and some, since a longer text matches none anyway."""
    return min(LONGEST_ANSWER, 2 * max(len(row.labels) for row in rows) + 8)


def matches(written: str, expected: str) -> bool:
    """Exact match as the released LoraHub code counts it: edges stripped, lower case, full stops dropped."""
    return _normalised(written) == _normalised(expected)


def _normalised(text: str) -> str:
    return text.strip().lower().replace(".", "")


def exact_match_score(method: str, hits: Sequence[bool], *, split: str) -> Score:
    """Share of hits with its 95 % Wilson interval."""
    low, high = wilson_interval(sum(hits), len(hits))
    return Score(method, EXACT_MATCH, sum(hits) / len(hits), low, high, len(hits), split)


def wilson_interval(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a share, by default 95 %."""
    share = hits / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def sign_test(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact p-value (McNemar) that two methods are right equally often, on the rows where they differ."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differing = only_first + only_second
    tail = sum(math.comb(differing, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**differing)


def verdict(method: str, hits: dict[str, list[bool]], *, split: str, single: str = "") -> str:
    """One plain sentence: is the method better than the strongest baseline on these rows?

    Args:
        method: the method that ran; every other key of `hits` is a baseline.
        hits: for every method, which rows it got right.
        single: name of the best single module, for the sentence.
    """
    ours = hits[method]
    n = len(ours)
    baseline = max((name for name in hits if name != method), key=lambda name: sum(hits[name]))
    theirs = hits[baseline]
    label = LABELS.get(baseline, baseline) + (f" ({single})" if baseline == "best_single" and single else "")
    counts = f"{sum(ours)} of {n} rows right, against {sum(theirs)} for {label}"
    where = "held-out" if split == "held_out" else "few-shot"
    clear = sign_test(ours, theirs) < 0.05
    if split != "held_out":
        return (
            f"Not scored on held-out rows: predicting each few-shot example without having seen it, {counts}. "
            "Give test rows to know more."
        )
    if clear:
        how = "Better" if sum(ours) > sum(theirs) else "Worse"
        return f"{how}: the composed adapter gets {counts} on {where} rows."
    if n >= ENOUGH_ROWS:
        how = "Not clearly better" if sum(ours) > sum(theirs) else "No better"
        return f"{how}: the composed adapter gets {counts} on {where} rows."
    return f"Too few rows to tell: the composed adapter gets {counts} on {where} rows."
