"""Lengths in tokens, counted without torch as the engine counts them."""

from __future__ import annotations

import pytest

from compose.engine.types import Example
from compose.token_counts import SEQ2SEQ_LIMIT, count_tokens
from registry import storage
from registry.models import BaseModel, BaseModelFile
from tests.conftest import ROOT
from tests.factories import make_base_model

pytestmark = pytest.mark.django_db
STORY = Example("On Monday Anna walked to the castle. Who?", "Anna")


def hosted(name: str = "story-t5", *, tokenizer: bytes | None = None, **fields) -> BaseModel:
    """A base model of the demo as far as its tokenizer."""
    content = (ROOT / "demo" / name / "tokenizer.json").read_bytes() if tokenizer is None else tokenizer
    model = make_base_model(f"demo/{name}", kind="hosted", commit="c" * 40, **fields)
    blob = storage.store_stream([content])
    BaseModelFile.objects.create(base_model=model, path="tokenizer.json", blob=blob)
    return model


def test_the_counts_are_those_of_the_engine():
    from transformers import AutoTokenizer

    from compose.engine.loading import LONGEST_SEQ2SEQ_INPUT

    engine = AutoTokenizer.from_pretrained(ROOT / "demo/story-t5")
    counts = count_tokens(hosted(), [STORY, Example("one", "two three")])
    assert counts is not None
    assert counts.longest_input == len(engine(STORY.input)["input_ids"])
    assert counts.longest_output == len(engine("two three")["input_ids"])
    assert (counts.limit, counts.too_long) == (SEQ2SEQ_LIMIT, [])
    assert SEQ2SEQ_LIMIT == LONGEST_SEQ2SEQ_INPUT


def test_rows_that_the_base_model_cannot_take_are_named():
    model = hosted("story-llama", task_type="CAUSAL_LM", config={"max_position_embeddings": 12})
    counts = count_tokens(model, [Example("one two", "three"), Example("one " * 12, "two")])
    assert counts is not None
    assert (counts.limit, counts.too_long) == (12, [2])


def test_nothing_is_counted_without_a_tokenizer_at_hand():
    assert count_tokens(None, [STORY]) is None
    assert count_tokens(make_base_model("far/away"), [STORY]) is None
    assert count_tokens(make_base_model("demo/bare", kind="hosted"), [STORY]) is None
    assert count_tokens(hosted(tokenizer=b"{}"), [STORY]) is None
    assert count_tokens(hosted("story-llama"), []) is None


def test_too_much_text_is_not_counted_while_somebody_types():
    assert count_tokens(hosted(), [Example("word " * 100_000, "two")]) is None
