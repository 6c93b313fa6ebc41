"""Closed sets of answers: found where they are, scored by likelihood, and a gain in form alone is called that."""

from __future__ import annotations

import pytest
import torch

from compose.engine import loading, options, run
from compose.engine.bank import build_bank
from compose.engine.loading import load_module
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.options import ClosedSet, closed_set, listed_options
from compose.engine.types import Example, Request
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection

BBH = "Which one?\nOptions:\n(A) the red one\n(B) the blue one"


def answered(*outputs: str, text: str = "a text") -> list[Example]:
    return [Example(text, output) for output in outputs]


def test_a_few_answers_that_come_again_and_again_are_a_closed_set():
    found = closed_set(answered("yes", "no", "no", "yes", "no"), answered("maybe", "yes"))
    assert found == ClosedSet("seen", (("no", "yes"), ("no", "yes")))


def test_spellings_that_exact_match_takes_for_one_are_one_option():
    found = closed_set(answered("Yes", "no", "yes", "No.", "yes."), answered("yes"))
    assert found == ClosedSet("seen", (("Yes", "no"),))
    assert closed_set(answered("Yes", "yes", "YES", "yes."), answered("yes")) is None, "every choice is right"


@pytest.mark.parametrize(
    "outputs",
    [
        ("a", "b", "c", "d", "e"),
        ("a", "b", "c"),
        ("yes", "yes", "yes"),
        ("x" * 80, "y" * 80, "x" * 80, "y" * 80),
    ],
)
def test_different_equal_or_long_answers_are_none(outputs: tuple[str, ...]):
    assert closed_set(answered(*outputs), answered("a")) is None


def test_options_listed_in_every_row_are_taken_row_by_row_and_in_the_answers_form():
    other = "Now?\nOptions:\n(A) one\n(B) two\n(C) three"
    by_mark = closed_set(answered("(A)", "(B)", text=BBH), [Example(other, "(C)")])
    assert by_mark == ClosedSet("listed", (("(A)", "(B)", "(C)"),))
    by_text = closed_set(answered("the red one", text=BBH), [Example(other, "two")])
    assert by_text == ClosedSet("listed", (("one", "two", "three"),))
    assert listed_options("Valid?\nOptions:\n- valid\n- invalid") == [("", "valid"), ("", "invalid")]


def test_a_test_row_without_options_makes_it_no_closed_set():
    assert closed_set(answered("(A)", "(B)", text=BBH), answered("(A)")) is None


def test_text_in_brackets_without_a_heading_is_no_list():
    assert listed_options("(A) first remark\n(B) second remark") == []


def test_the_most_likely_option_is_that_of_the_least_summed_loss(t5: Collection):
    base = loading.load_base(t5.base, device=torch.device("cpu"))
    mixer = Mixer(base, build_bank([load_module(m) for m in t5.modules[:2]], device=torch.device("cpu")))
    test = [Example(example.input, "cat") for example in tiny.EXAMPLES]
    answers = ("cat", "the green dog")
    mixes = {"zero_shot": Mix(EXACT, (0.0, 0.0)), "auto": Mix(EXACT, (0.9, -0.6))}
    told = options.score(
        base,
        mixer,
        ClosedSet("seen", (answers,) * len(test)),
        test,
        mixes,
        ours="auto",
        written={name: [False] * len(test) for name in mixes},
    )
    model = base.model
    right = 0
    for row in test:
        sums = []
        for answer in answers:
            ids = torch.tensor([base.tokenizer(row.input)["input_ids"]])
            labels = torch.tensor([base.tokenizer(answer)["input_ids"]])
            with torch.inference_mode():
                sums.append(float(model(input_ids=ids, labels=labels).loss) * labels.numel())
        right += sums[0] < sums[1]
    [bare, ours] = told.scores
    assert (bare.method, bare.metric, bare.n) == ("zero_shot", "option_likelihood", len(test))
    assert bare.value == right / len(test)
    assert ours.method == "auto"
    assert (told.rows, told.rows_held_out, told.options) == (len(test), len(test), 2)


def rows(right: int, wrong: int) -> list[bool]:
    return [True] * right + [False] * wrong


@pytest.mark.parametrize(
    ("held", "bare", "written", "start"),
    [
        (rows(55, 5), rows(20, 40), rows(50, 10), "More than the form of the answer"),
        (rows(40, 20), rows(40, 20), rows(50, 10), "The gain is only the form of the answer"),
        (rows(39, 21), rows(40, 20), rows(50, 10), "The gain is only the form of the answer"),
        # 45 against 35, of which 18 and 8 alone: p = 0.08.
        (rows(45, 15), rows(27, 18) + rows(8, 7), rows(50, 10), "The gain is not clearly more than the form"),
        (rows(8, 2), rows(7, 3), rows(9, 1), "Too few rows to tell whether the gain is more than the form"),
        (rows(30, 30), rows(30, 30), rows(0, 60), "There is no gain to explain"),
        # More rows are right than the base model's none, and they are too few to be sure of it.
        (rows(5, 0), rows(3, 2), rows(3, 2), "Too few rows to tell whether the gain is more than the form"),
        (rows(30, 30), rows(30, 30), rows(4, 56), "The gain is not clear, nor whether it is more"),
    ],
)
def test_the_sentence_says_what_a_gain_is_made_of(held, bare, written, start):
    hits = {"zero_shot": bare, "auto": held}
    own = {"zero_shot": [False] * len(held), "auto": written}
    sentence = options._sentence(hits, own, ours="auto")
    assert sentence.startswith(start)
    assert f"{sum(held)} of {len(held)}" in sentence


def test_a_composition_reports_its_options_and_others_do_not(t5: Collection):
    yes, no = tiny.EXAMPLES[0].input, tiny.EXAMPLES[2].input
    examples = (Example(yes, "cat"), Example(no, "dog"), Example(yes, "cat"), Example(no, "dog"))
    request = Request(base=t5.base, modules=t5.modules[:2], examples=examples, test=examples[:3], budget=3)
    told = run.compose(request).option_scores
    assert told is not None
    assert [score.method for score in told.scores] == ["zero_shot", "best_single", "uniform", "lorahub"]
    assert {score.n for score in told.scores} == {3}
    open_ended = Request(
        base=t5.base, modules=t5.modules[:2], examples=tiny.EXAMPLES, test=tiny.EXAMPLES[:2], budget=3
    )
    assert run.compose(open_ended).option_scores is None
