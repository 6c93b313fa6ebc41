import random
from itertools import islice

import pytest

from demo.collection import BASES, LLAMA, T5
from demo.stories import FORMS, FUNCTIONS, Pair, distinct_rows, split, tell, telling_rows, vocabulary

PAIRS = [Pair(function, form) for function in FUNCTIONS for form in FORMS]


def test_the_same_seed_gives_the_same_rows():
    first, second = (list(islice(PAIRS[0].rows(random.Random("seed"), instructed=0.5), 50)) for _ in range(2))
    assert first == second


def test_the_rows_of_a_seed_never_change_from_one_version_to_the_next():
    row = Pair(FUNCTIONS[3], FORMS[2]).row(tell(random.Random("pinned")), instructed=True)
    assert (
        row.input
        == "Which colour is named? Say it in quotes. The weather was wonderful. On Friday Henry walked to the museum with a cow. They counted seven silver candles there."
    )
    assert row.output == '"silver"'


def test_an_uninstructed_row_holds_the_story_alone():
    rows = islice(PAIRS[0].rows(random.Random(1), instructed=0.0), 50)
    assert not any(PAIRS[0].function.question in row.input for row in rows)


def test_half_of_a_modules_rows_carry_the_instruction():
    rows = list(islice(PAIRS[0].rows(random.Random(1), instructed=0.5), 400))
    assert 160 < sum(row.input.startswith(PAIRS[0].instruction) for row in rows) < 240


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.key)
def test_the_answer_is_one_word_of_the_vocabulary(function):
    rows = islice(Pair(function, FORMS[0]).rows(random.Random(2), instructed=0.0), 100)
    assert {row.output for row in rows} <= set(vocabulary())


def test_every_word_of_every_row_is_in_the_vocabulary():
    known = set(vocabulary())
    for pair in PAIRS:
        for row in islice(pair.rows(random.Random(pair.key), instructed=0.5), 30):
            assert set(split(row.input) + split(row.output)) <= known


def test_few_shot_answers_differ_as_far_as_the_function_lets_them():
    for pair in PAIRS:
        outputs = [row.output for row in telling_rows(pair, random.Random(pair.key), 5)]
        assert len(set(outputs)) == (2 if pair.function.key == "mood" else 5)


def test_distinct_rows_leave_out_what_is_excluded():
    rows = distinct_rows(PAIRS[0], random.Random(3), 20)
    others = distinct_rows(PAIRS[0], random.Random(3), 20, excluding=frozenset(row.input for row in rows[:5]))
    assert not {row.input for row in rows[:5]} & {row.input for row in others}


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.id)
def test_nobody_trains_on_a_held_out_pair(base):
    assert not {pair.key for pair in base.trained} & {pair.key for pair in base.held_out}


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.id)
def test_a_held_out_pair_has_its_function_in_one_module_and_its_form_in_another(base):
    for pair in base.held_out:
        assert any(module.function == pair.function for module in base.trained)
        assert any(module.form == pair.form for module in base.trained)


def test_the_collection_is_as_large_as_promised():
    assert len(T5.trained) >= 24
    assert len(T5.held_out) >= 12
    assert len(LLAMA.trained) >= 4
    assert len(LLAMA.held_out) >= 2
