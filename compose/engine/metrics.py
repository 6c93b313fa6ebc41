"""How right an answer is, from 0 to 1, by each metric a composition can be scored by; pure Python, so the web side may import it.

A metric compares what was written with what was expected, one row at a time. A score is the mean over the rows.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

EXACT_MATCH = "exact_match"
TOKEN_F1 = "token_f1"  # noqa: S105 - no password, words in common
ROUGE_L = "rouge_l"

_FULL_STOPS = re.compile(r"\.(?!\d)")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
# Written without spaces between words, as Unicode names their letters; Korean has spaces.
_UNSPACED = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
)


def matches(written: str, expected: str) -> bool:
    """Exact match as the released LoraHub code counts it: edges stripped, lower case, full stops dropped.

    But for a point before a digit: that code takes 3.5 for 35.
    """
    return plain(written) == plain(expected)


def plain(text: str) -> str:
    """What exact match compares."""
    return _FULL_STOPS.sub("", text.strip().lower())


def exact_match(written: str, expected: str) -> float:
    return float(matches(written, expected))


def token_f1(written: str, expected: str) -> float:
    """F1 of the words in common, whatever their order, each as often as it stands in both.

    Lower case, without punctuation and English articles. For text in ASCII it is the official SQuAD script's number,
    but for answers that are nothing besides punctuation and articles: those are right by exact match alone, here and
    in `rouge_l`. Source: Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250, section 6.1.

    Scripts that are written without spaces (Chinese, Japanese, Thai and others) would make a sentence one word, and F1
    an exact match: there every character counts as a word, and punctuation of every script is dropped, as in MLQA
    (Lewis et al. 2020, arXiv:1910.07475).
    """
    got, wanted = answer_words(written), answer_words(expected)
    if not got and not wanted:
        return exact_match(written, expected)
    shared = sum((Counter(got) & Counter(wanted)).values())
    return _f_measure(shared, len(got), len(wanted))


def rouge_l(written: str, expected: str) -> float:
    """F-measure of the longest common subsequence of words, the whole answer taken as one sentence.

    Words are runs of letters and digits in lower case, not stemmed; precision and recall weigh the same (beta = 1).
    For text in ASCII it is the number of the package rouge-score without its stemmer. Scripts without spaces: as in
    `token_f1`. Source: Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, section 3.1.
    """
    got, wanted = alphanumeric_words(written), alphanumeric_words(expected)
    if not got and not wanted:
        return exact_match(written, expected)
    return _f_measure(longest_common_subsequence(got, wanted), len(got), len(wanted))


def _f_measure(shared: int, got: int, wanted: int) -> float:
    # 2PR / (P + R) with P = shared / got and R = shared / wanted; both texts cannot be empty here.
    return 2 * shared / (got + wanted)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length. A row of the table is one integer, so that 10,000 words against 10,000 take a fraction of a second.

    Source: Hyyro 2004, Bit-parallel LCS-length computation revisited, figure 4.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(first)) - 1
    row = whole
    for word in second:
        if found := places.get(word, 0) & row:
            row = (row + found | row - found) & whole
    return len(first) - row.bit_count()


# --- Words ---------------------------------------------------------------------------------------------------------


class _Table(dict[int, str]):
    """For `str.translate`: asks `rule` what a character becomes, once for each."""

    def __init__(self, rule: Callable[[str, str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        kind = unicodedata.category(letter)
        # "HALFWIDTH KATAKANA LETTER KA", "KATAKANA-HIRAGANA PROLONGED SOUND MARK"
        script = re.split("[ -]", unicodedata.name(letter, ""))[:2]
        is_word = kind[0] in "LM" and not _UNSPACED.isdisjoint(script)
        found = f" {letter} " if is_word else self._rule(letter, kind)
        self[code] = found
        return found


def _without_punctuation(letter: str, kind: str) -> str:
    if letter in string.punctuation or kind[0] == "P" or kind == "Cf":
        return ""  # not a space: "it's" becomes "its", as SQuAD has it
    return " " if kind == "Cc" else letter


def _letters_and_digits(letter: str, kind: str) -> str:
    if kind == "Cf":
        return ""  # joiners inside words of Persian or Hindi, soft hyphens
    return letter if kind[0] in "LMN" else " "


_ANSWER, _ALPHANUMERIC = _Table(_without_punctuation), _Table(_letters_and_digits)


def _lower(text: str) -> str:
    # One form for letters with accents, which may come as one character or as two.
    return unicodedata.normalize("NFC", text.lower())


def answer_words(text: str) -> list[str]:
    """Words as SQuAD compares them: lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", _lower(text).translate(_ANSWER)).split()


def alphanumeric_words(text: str) -> list[str]:
    """Runs of letters and digits, lower case."""
    return _lower(text).translate(_ALPHANUMERIC).split()


# --- Those one can choose ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """One way to score a row. `label` stands in tables, `choice` explains it to somebody who chooses."""

    name: str
    label: str
    choice: str
    meaning: str
    of_row: Callable[[str, str], float]  # what was written, what was expected


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            EXACT_MATCH,
            "exact match",
            "Exact match – each answer right or wrong",
            "The share of answers that are the same text, but for capitals and full stops.",
            exact_match,
        ),
        Metric(
            TOKEN_F1,
            "token F1",
            "Token F1 – words in common, for answers of a few words",
            "How many words an answer has in common with the expected text (F1, as for SQuAD), from 0 to 1, on average.",
            token_f1,
        ),
        Metric(
            ROUGE_L,
            "ROUGE-L",
            "ROUGE-L – words in common in their order, for summaries and translations",
            "How long a sequence of words an answer shares with the expected text (ROUGE-L, F-measure), from 0 to 1, on "
            "average.",
            rouge_l,
        ),
    )
}


def label_of(name: str) -> str:
    """A metric's name for people; one that is not ours, which others reported, keeps its own."""
    return METRICS[name].label if name in METRICS else name


def unknown(name: object) -> str:
    """The sentence for a metric that there is not."""
    return f"There is no metric {str(name)[:40]!r} here; choose one of: {', '.join(METRICS)}."


def values_of_rows(metric: str, written: Sequence[str], expected: Sequence[str]) -> list[float]:
    """What each answer is worth by this metric."""
    of_row = METRICS[metric].of_row
    return [of_row(got, wanted) for got, wanted in zip(written, expected, strict=True)]


def mean(values: Sequence[float]) -> float:
    """The same whatever the order of the rows."""
    return math.fsum(values) / len(values)


def best_of(values: Mapping[str, float]) -> list[str]:
    """The names of the highest value, in their order: several where they tie."""
    highest = max(values.values(), default=0.0)
    return [name for name, value in values.items() if math.isclose(value, highest, abs_tol=1e-12)]
