"""Answers from a small closed set, scored by likelihood: what is left of a gain when the form of the answer is given.

A base model that knows "no" and writes "No, it is not." is wrong by exact match. Held to the options, it is right; a
composed adapter that is better only by exact match has taught the form of the answer and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from compose.engine.keeping import Once, always
from compose.engine.loading import LoadedBase
from compose.engine.metrics import EXACT_MATCH, matches, plain
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.scoring import Scorer, tokenise
from compose.engine.types import Example, OptionScores, Score
from compose.engine.verdicts import ENOUGH_ROWS, LABELS, in_words, sign_test, wilson_interval

BY_LIKELIHOOD = "option_likelihood"
MOST_OPTIONS = 20
MOST_LETTERS = 60  # a longer answer is a text, not an option
MOST_ROWS = 200  # every row costs a forward for each of its options and each mix

_ROWS_AT_ONCE = 25

_LISTED = re.compile(r"^\s*(?:[-*•]\s+|(?P<mark>\(\w\))\s*)(?P<text>\S.*?)\s*$", re.MULTILINE)
_HEADING = re.compile(r"\b(?:options|choices)\b\s*:", re.IGNORECASE)


@dataclass(frozen=True)
class ClosedSet:
    """The options of every test row, and where they are from: "listed" in the row itself, or "seen" as answers."""

    source: str
    rows: tuple[tuple[str, ...], ...]


def closed_set(examples: Sequence[Example], test: Sequence[Example]) -> ClosedSet | None:
    """The options, if the examples' answers come from a small closed set; None if they do not.

    Either every example lists its options under "Options:" and answers with one of them, and then so does every test
    row; or a few short answers come again and again. Test answers are not looked at. Spellings that are the same answer
    to exact match, as "Yes" and "yes", are one option, spelt as it is first: as two, either would be right.
    """
    listed = [listed_options(example.input) for example in examples]
    if all(_is_among(example.output, options) for example, options in zip(examples, listed, strict=True)):
        rows = [_in_the_form_of(examples, listed_options(row.input)) for row in test]
        return ClosedSet("listed", tuple(rows)) if rows and all(len(row) > 1 for row in rows) else None
    spelt: dict[str, str] = {}
    for example in examples:
        spelt.setdefault(plain(example.output), example.output.strip())
    counts = Counter(spelt[plain(example.output)] for example in examples)
    is_small = 2 <= len(counts) <= MOST_OPTIONS and 2 * len(counts) <= len(examples)
    if is_small and all(len(option) <= MOST_LETTERS for option in counts):
        return ClosedSet("seen", (tuple(sorted(counts)),) * len(test))
    return None


def listed_options(text: str) -> list[tuple[str, str]]:
    """(mark, text) of the options listed under a heading, such as ("(A)", "red"); the mark is empty after a dash."""
    heading = _HEADING.search(text)
    if heading is None:
        return []
    found = [(match["mark"] or "", match["text"]) for match in _LISTED.finditer(text, heading.end())]
    return found if 2 <= len(found) <= MOST_OPTIONS else []


def _is_among(answer: str, options: list[tuple[str, str]]) -> bool:
    return any(matches(answer, said) for option in options for said in option if said)


def _in_the_form_of(examples: Sequence[Example], options: list[tuple[str, str]]) -> tuple[str, ...]:
    """Marks where the examples answer with marks, texts where they answer with those."""
    by_mark = all(re.fullmatch(r"\(\w\)", example.output.strip().rstrip(".")) for example in examples)
    return tuple(mark if by_mark and mark else text for mark, text in options)


def score(
    base: LoadedBase,
    mixer: Mixer,
    found: ClosedSet,
    test: Sequence[Example],
    mixes: dict[str, Mix],
    *,
    ours: str,
    written: dict[str, list[bool]],
    exported: Mixer | None = None,
    once: Once = always,
    on_row: Callable[[int, int], None] = lambda done, total: None,
) -> OptionScores:
    """Every mix's most likely option for the first MOST_ROWS test rows: summed token log-likelihood, end included.

    Args:
        mixes: by method; "zero_shot" is the constrained baseline.
        written: for every method, which test rows it got right in its own words.
        exported: of the adapter that is written of `ours`, its only module; None where that acts as the mix.
        once: does some rows.
    """
    rows = list(test)[:MOST_ROWS]
    names = list(mixes)
    hits: dict[str, list[bool]] = {name: [] for name in names}

    def hits_of(part: Sequence[Example], options: Sequence[tuple[str, ...]]) -> dict[str, list[bool]]:
        pairs = [Example(row.input, option) for row, own in zip(part, options, strict=True) for option in own]
        tokens = tokenise(base, pairs, what="option of a test row, number")
        sums_of = dict(
            zip(names, Scorer(base, mixer, tokens).row_losses(list(mixes.values())).sums, strict=True)
        )
        if exported is not None:
            [sums_of[ours]] = Scorer(base, exported, tokens).row_losses([Mix(EXACT, (1.0,))]).sums
        return {
            name: [
                matches(own[int(each.argmin())], row.output)
                for row, own, each in zip(
                    part, options, sums.split([len(own) for own in options]), strict=True
                )
            ]
            for name, sums in sums_of.items()
        }

    as_they_are = [(name, mix.kind, mix.mixing_weights) for name, mix in mixes.items()]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part, options = rows[start : start + _ROWS_AT_ONCE], found.rows[start : start + _ROWS_AT_ONCE]
        for name, own in once([start, as_they_are], partial(hits_of, part, options)).items():
            hits[name] += own
        on_row(start + len(part), len(rows))
    return OptionScores(
        options=max(len(options) for options in found.rows),
        origin=found.source,
        rows=len(rows),
        rows_held_out=len(test),
        scores=[_as_score(name, own) for name, own in hits.items()],
        sentence=_sentence(hits, written, ours=ours),
    )


def _as_score(method: str, hits: list[bool]) -> Score:
    low, high = wilson_interval(sum(hits), len(hits))
    return Score(method, BY_LIKELIHOOD, sum(hits) / len(hits), low, high, len(hits), "held_out")


def _sentence(hits: dict[str, list[bool]], written: dict[str, list[bool]], *, ours: str) -> str:
    """What the gain over the bare base model is made of."""
    held, bare = hits[ours], hits["zero_shot"]
    n = len(held)
    mine, base_own = written[ours][:n], written["zero_shot"][:n]
    right = in_words(EXACT_MATCH, held)
    counts = f"held to the options, the composed adapter gets {right}, the base model alone {sum(bare)}"
    gains = sum(mine) > sum(base_own)
    is_clear = sign_test(held, bare) < 0.05
    if sum(held) > sum(bare) and is_clear:
        return f"More than the form of the answer: {counts}."
    if gains and n < ENOUGH_ROWS:
        return f"Too few rows to tell whether the gain is more than the form of the answer: {counts}."
    if gains and sign_test(mine, base_own) >= 0.05:
        return f"The gain is not clear, nor whether it is more than the form of the answer: {counts}."
    if gains and sum(held) > sum(bare):
        return f"The gain is not clearly more than the form of the answer: {counts}."
    if gains:
        return f"The gain is only the form of the answer: {counts}."
    best = max((name for name in hits if name != ours), key=lambda name: sum(hits[name]))
    other = "" if best == "zero_shot" else f", {LABELS.get(best, best)} {sum(hits[best])}"
    return f"There is no gain to explain by the form of the answer: {counts}{other}."
