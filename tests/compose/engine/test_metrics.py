"""What single answers are worth."""

from __future__ import annotations

import random

import pytest

from compose.engine import metrics
from compose.engine.metrics import matches, rouge_l, token_f1


@pytest.mark.parametrize(("written", "expected"), [(" The cat.", "the cat"), ("A.B", "ab "), ("", ".")])
def test_case_edges_and_full_stops_do_not_matter_to_exact_match(written: str, expected: str):
    assert matches(written, expected)


def test_other_differences_do():
    assert not matches("the cat!", "the cat")


@pytest.mark.parametrize(
    ("written", "expected"), [("3.5", "35"), (".5", "5"), ("1.000", "1000"), ("v1.2", "v12")]
)
def test_a_point_in_a_number_is_no_full_stop(written: str, expected: str):
    assert not matches(written, expected)
    assert matches(f"{written}.", written)


@pytest.mark.parametrize(
    ("written", "expected", "f1"),
    [
        ("The cat, that sat!", "a cat that sat", 1.0),
        ("the dog", "a cat", 0.0),
        ("in the red house", "the red house on a hill", 4 / 7),  # red and house, of 3 and 4 words
        ("to be or not to be", "to be to", 6 / 9),  # each as often as it stands in both
        ("state-of-the-art", "state of the art", 0.0),  # as SQuAD: punctuation goes and leaves no space
        ("It's $5.", "its 5", 1.0),
    ],
)
def test_token_f1_is_that_of_squad(written: str, expected: str, f1: float):
    assert token_f1(written, expected) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("written", "expected", "f"),
    [
        # The example of the package rouge-score: precision 5/8, recall 5/9.
        ("The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog", 10 / 17),
        # Lin 2004, section 3.1: the second keeps fewer words in their order.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("state-of-the-art, 2x", "State of the art 2x", 1.0),
        ("nothing of it", "police", 0.0),
    ],
)
def test_rouge_l_has_the_published_numbers(written: str, expected: str, f: float):
    assert rouge_l(written, expected) == pytest.approx(f)


@pytest.mark.parametrize("metric", [token_f1, rouge_l])
@pytest.mark.parametrize(
    ("written", "expected", "value"),
    [
        ("", "", 1.0),
        ("", "a word", 0.0),
        ("a word", "", 0.0),
        ("!", "?", 0.0),  # nothing to count: exact match decides
        ("?", "?", 1.0),
        ("Café", "cafe\u0301", 1.0),  # one letter, or two code points
        ("ÉCOLE", "école", 1.0),
        ("हिन्दी", "हिन्दी।", 1.0),  # vowel signs are part of a word
        ("हिन्दी", "हिन्द", 0.0),
        ("red\x00blue", "red blue", 1.0),
        ("\x00", "", 0.0),
        ("soft\u00adly", "softly", 1.0),
        # Without spaces every character is a word: 東京 of 東京に and of 東京へ.
        ("東京に", "東京へ", 4 / 6),
        ("コーヒー。", "コーヒー", 1.0),
        ("ｺｰﾋ", "ｺｰ", 4 / 5),
        ("ไทย", "ไท", 4 / 5),
        ("GPT模型", "GPT 模型", 1.0),
        ("안녕 하세요", "안녕", 2 / 3),  # Korean has spaces
    ],
)
def test_both_read_every_script_and_empty_texts(metric, written: str, expected: str, value: float):
    assert metric(written, expected) == pytest.approx(value)


def test_only_the_sequence_depends_on_the_order():
    assert token_f1("blue red", "red blue") == 1.0
    assert rouge_l("blue red", "red blue") == 0.5


def test_symbols_count_as_words_for_one_and_not_for_the_other():
    assert token_f1("👍", "👎") == rouge_l("👍", "👎") == 0.0
    assert token_f1("ok 👍", "ok 👎") == 0.5
    assert rouge_l("ok 👍", "ok 👎") == 1.0


def test_the_longest_common_subsequence_is_that_of_the_textbook():
    generator = random.Random(1)
    for _ in range(50):
        first, second = (generator.choices("abcd", k=generator.randint(0, 40)) for _ in range(2))
        assert metrics.longest_common_subsequence(first, second) == by_the_table(first, second)


def by_the_table(first: list[str], second: list[str]) -> int:
    row = [0] * (len(first) + 1)
    for letter in second:
        above, row = row, [0]
        for place, own in enumerate(first, 1):
            row.append(above[place - 1] + 1 if own == letter else max(above[place], row[-1]))
    return row[-1]


def test_answers_of_ten_thousand_words_are_compared():
    # A table of 100 million cells would take a minute here.
    generator = random.Random(2)
    first, second = (" ".join(generator.choices("abcdefgh", k=10_000)) for _ in range(2))
    assert rouge_l(first, first) == token_f1(second, second) == 1.0
    assert 0.4 < rouge_l(first, second) < token_f1(first, second) <= 1.0


def test_every_metric_says_what_it_is_and_an_unknown_one_names_them_all():
    for name, metric in metrics.METRICS.items():
        assert metric.name == name
        assert all((metric.label, metric.choice, metric.meaning))
    assert metrics.unknown("bleu") == (
        "There is no metric 'bleu' here; choose one of: exact_match, token_f1, rouge_l."
    )
    assert metrics.label_of("word_error_rate") == "word_error_rate"
