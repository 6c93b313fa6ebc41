"""Lengths in tokens, counted without torch as the engine counts them."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from compose import jobs, token_counts
from compose.engine.types import Example
from compose.errors import FewShotProblem
from compose.models import Composition, KeptTokenizer
from compose.token_counts import SEQ2SEQ_LIMIT, count_tokens, keep_tokenizer
from registry import storage
from registry.models import BaseModel, BaseModelFile
from tests.compose.factories import make_examples, make_modules
from tests.conftest import ROOT
from tests.factories import make_base_model, make_user

pytestmark = pytest.mark.django_db
STORY = Example("On Monday Anna walked to the castle. Who?", "Anna")


def hosted(name: str = "story-t5", *, tokenizer: bytes | None = None, **fields) -> BaseModel:
    """A base model of the demo as far as its tokenizer."""
    content = (ROOT / "demo" / name / "tokenizer.json").read_bytes() if tokenizer is None else tokenizer
    model = make_base_model(f"demo/{name}", kind="hosted", commit="c" * 40, **fields)
    blob = storage.store_stream([content])
    BaseModelFile.objects.create(base_model=model, path="tokenizer.json", blob=blob)
    return model


def test_rows_that_the_base_model_cannot_take_are_named():
    model = hosted("story-llama", task_type="CAUSAL_LM", config={"max_position_embeddings": 12})
    counts = count_tokens(model, [Example("one two", "three"), Example("one " * 12, "two")])
    assert counts is not None
    assert (counts.limit, counts.too_long) == (12, [2])


def test_a_row_that_is_too_long_is_called_by_the_number_beside_it(client):
    model = hosted("story-llama", task_type="CAUSAL_LM", config={"max_position_embeddings": 12})
    given = {
        "base_model": model.name,
        "example_input": ["", "one", "one " * 12],
        "example_output": ["", "two", "two"],
        "examples_text": "one\ttwo\n" + "one " * 12 + "\ttwo",
    }
    page = client.post("/compose/check", given).content.decode()
    assert "Rows 3, 2 (pasted) are longer than the 12 tokens" in page


@pytest.mark.parametrize("single", [[], ["<s>"], ["</s>"], ["<s>", "</s>"]], ids=" ".join)
def test_a_causal_row_is_one_text_with_one_end_whatever_the_tokenizer_adds(single: list[str]):
    content = json.loads((ROOT / "demo/story-llama/tokenizer.json").read_bytes())
    tokenizer = Tokenizer.from_str(json.dumps(content | {"post_processor": None}))
    marks = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    around = " ".join(["$A", *single] if single == ["</s>"] else [*single[:1], "$A", *single[1:]])
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=marks)
    whole = 4 + len({"<s>"} & set(single)) + 1  # one two three four, the beginning, the end
    for limit, too_long in ((whole, []), (whole - 1, [1])):
        config = {"max_position_embeddings": limit, "eos_token_id": dict(marks)["</s>"]}
        model = hosted(
            f"model-{limit}", tokenizer=tokenizer.to_str().encode(), task_type="CAUSAL_LM", config=config
        )
        counts = count_tokens(model, [Example("one two", "three four")])
        assert counts is not None
        assert (counts.limit, counts.too_long) == (limit, too_long)


def test_nothing_is_counted_without_a_tokenizer_at_hand():
    assert count_tokens(None, [STORY]) is None
    assert count_tokens(make_base_model("demo/bare", kind="hosted"), [STORY]) is None
    assert count_tokens(hosted(tokenizer=b"{}"), [STORY]) is None
    assert count_tokens(hosted("story-llama"), []) is None


def test_a_storage_that_does_not_answer_once_is_asked_again(monkeypatch):
    model = hosted()
    token_counts._tokenizer.cache_clear()
    with monkeypatch.context() as away:
        away.setattr(storage, "open_blob", lambda blob: (_ for _ in ()).throw(OSError("away")))
        assert count_tokens(model, [STORY]) is None
    assert count_tokens(model, [STORY]) is not None


def test_too_much_text_is_not_counted_while_somebody_types():
    assert count_tokens(hosted(), [Example("word " * 100_000, "two")]) is None


def test_of_a_base_model_elsewhere_lengths_are_estimated_until_a_worker_kept_its_tokenizer():
    model = make_base_model("far/away")
    guess = count_tokens(model, [STORY, Example("x" * 40, "two three")])
    assert guess is not None
    assert guess.is_estimate
    assert (guess.longest_input, guess.longest_output, guess.too_long) == (11, 3, [])
    keep_tokenizer(model, "c" * 40, ROOT / "demo/story-t5")
    counts = count_tokens(model, [STORY])
    assert counts is not None
    assert not counts.is_estimate
    assert counts == count_tokens(hosted(), [STORY])


def test_a_tokenizer_is_kept_once_for_each_commit_and_never_of_a_hosted_model(tmp_path):
    model = make_base_model("far/away")
    keep_tokenizer(model, "c" * 40, tmp_path)
    assert not KeptTokenizer.objects.exists(), "a model without tokenizer.json"
    for commit in ("c" * 40, "c" * 40, "d" * 40):
        keep_tokenizer(model, commit, ROOT / "demo/story-t5")
    assert KeptTokenizer.objects.get().commit == "d" * 40
    keep_tokenizer(hosted(), "c" * 40, ROOT / "demo/story-t5")
    assert KeptTokenizer.objects.count() == 1


def test_words_that_are_not_in_the_vocabulary_are_told_before_a_job_is_made(client):
    model = hosted()
    make_modules(model)
    rows = [
        Example("Anna saw a 🍎 and a shelf.", '{"colour": [red]}'),
        Example("Anna saw.", "{"),
    ]
    request = jobs.CompositionRequest(owner=make_user(), base_model=model, examples=rows)
    said = " ".join(jobs.dry_run(request)["warnings"])
    assert "no word for “{”, “}” in the outputs" in said
    assert "“🍎”, “shelf” in the inputs" in said
    given = {"base_model": model.name, "example_input": "Anna saw a shelf.", "example_output": "red"}
    page = client.post("/compose/check", given).content.decode()
    assert "does not know “shelf” in the inputs" in page
    assert "no word for" not in page


def test_a_vocabulary_of_bytes_knows_every_word():
    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel()
    bytewise.train_from_iterator(
        ["some text"], trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    counts = count_tokens(hosted(tokenizer=bytewise.to_str().encode()), [Example("🍎 שלום", "{")])
    assert counts is not None
    assert counts.warnings == []


def test_pieces_that_sentencepiece_does_not_know_are_named_as_they_were_written():
    pieces = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -2.0), ("a", -1.0)], unk_id=0))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    counts = count_tokens(hosted(tokenizer=pieces.to_str().encode()), [Example("a a", "a {a")])
    assert counts is not None
    assert (counts.unknown_inputs, counts.unknown_outputs) == ((), ("{",))


def test_the_form_says_that_it_estimates(client):
    model = make_base_model("far/away")
    given = {"base_model": model.name, "example_input": "Anna saw a hen.", "example_output": "a hen"}
    page = client.post("/compose/check", given).content.decode()
    assert "about 4 tokens" in page
    assert "estimated from the letters" in page


@pytest.mark.parametrize("field", ["examples", "test_examples"])
def test_what_the_base_model_cannot_take_is_refused_before_a_job_is_made(field: str):
    model = hosted()
    make_modules(model)
    long = Example("one " * (SEQ2SEQ_LIMIT + 1), "two")
    rows = {"examples": make_examples(5), "test_examples": make_examples(3, start=50)}
    rows[field] = [*rows[field], long]
    request = jobs.CompositionRequest(
        owner=make_user(), base_model=model, examples=rows["examples"], test_examples=rows["test_examples"]
    )
    with pytest.raises(FewShotProblem) as refused:
        jobs.request_composition(request)
    assert refused.value.fields == {
        field: [
            f"Row {len(rows[field])} is longer than the 2,048 tokens that {model.name} takes. Shorten it or leave it out."
        ]
    }
    assert not jobs.dry_run(request)["ok"]
    assert not Composition.objects.exists()
