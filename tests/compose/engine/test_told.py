"""What the site says of the engine without importing it is as it is there."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from compose import jobs
from compose.engine.loading import LONGEST_SEQ2SEQ_INPUT
from compose.engine.methods import METHODS
from compose.engine.types import Example
from compose.models import Composition
from compose.token_counts import SEQ2SEQ_LIMIT, count_tokens
from tests.compose.test_token_counts import STORY, hosted
from tests.conftest import ROOT


def test_methods_and_their_budgets_are_the_engines():
    assert {name: method.usual_budget for name, method in METHODS.items()} == jobs.USUAL_BUDGETS
    assert set(Composition.Method.values) == set(METHODS)


@pytest.mark.django_db
def test_counts_of_tokens_are_those_of_the_engine():
    engine = AutoTokenizer.from_pretrained(ROOT / "demo/story-t5")
    counts = count_tokens(hosted(), [STORY, Example("one", "two three")])
    assert counts is not None
    assert counts.longest_input == len(engine(STORY.input)["input_ids"])
    assert counts.longest_output == len(engine("two three")["input_ids"])
    assert (counts.limit, counts.too_long) == (SEQ2SEQ_LIMIT, [])
    assert SEQ2SEQ_LIMIT == LONGEST_SEQ2SEQ_INPUT
