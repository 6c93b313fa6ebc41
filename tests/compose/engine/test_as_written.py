"""What a lower rank or a shorter float type costs is in the scores: they are of the adapter that is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from compose.engine import export, run
from compose.engine.evaluation import answer_limit, questions
from compose.engine.metrics import matches
from compose.engine.mixing import EXACT, Mix
from compose.engine.scoring import pad, tokenise
from compose.engine.types import Example, ExportForm
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_run import TEST_ROWS, request_for, undisturbed
from tests.compose.engine.test_scoring import load


def answers_in_peft(collection: Collection, folder: Path) -> list[str]:
    """Of the exported adapter, loaded as anybody loads it, one row at a time."""
    base = load(collection.base)
    model = PeftModel.from_pretrained(base.model, folder).eval()
    limit = answer_limit(tokenise(base, TEST_ROWS))
    told = []
    for question in questions(base, "", Mix(EXACT, ()), [row.input for row in TEST_ROWS]):
        ids = pad([question.prompt], base.pad_token_id, left=False)
        with torch.inference_mode():
            tokens = model.generate(
                input_ids=ids, max_new_tokens=limit, do_sample=False, pad_token_id=base.pad_token_id
            )
        if base.kind == "causal":
            tokens = tokens[:, ids.shape[1] :]
        told.append(base.tokenizer.decode(tokens[0], skip_special_tokens=True).strip())
    return told


@pytest.mark.parametrize("method", ["lorahub", "auto"])
@pytest.mark.parametrize("form", [ExportForm(rank=1), ExportForm(rank=2, dtype="bfloat16")])
def test_the_scores_are_of_the_adapter_that_is_written(
    collection: Collection, tmp_path: Path, method: str, form: ExportForm
):
    as_mixed = undisturbed(request_for(collection, method=method, budget=30, seed=3))
    cut = run.compose(request_for(collection, method=method, budget=30, seed=3, out=tmp_path, export=form))
    assert cut.mixing_weights == as_mixed.mixing_weights
    assert cut.exported is not None
    assert cut.exported.kind == "truncated"
    told = answers_in_peft(collection, tmp_path)
    assert [each.outputs[method] for each in cut.predictions] == told
    right = sum(matches(text, row.output) for text, row in zip(told, TEST_ROWS, strict=True))
    before = next(round(9 * score.value) for score in as_mixed.scores if score.method == method)
    assert [score.method for score in cut.scores] == [score.method for score in as_mixed.scores]
    for score, other in zip(cut.scores, as_mixed.scores, strict=True):
        assert score == other if score.method != method else round(9 * score.value) == right
    assert any(
        note.startswith("The scores are those of the adapter as it is written, cut to rank")
        and f"{right} of 9 rows right; the mix itself gets {before}." in note
        for note in cut.notes
    )
    assert not any("as it is written" in note for note in as_mixed.notes)


def test_a_cut_that_is_felt_is_in_the_answers(t5: Collection, tmp_path: Path):
    request = {"method": "lorahub", "budget": 30, "seed": 3}
    cut = run.compose(request_for(t5, **request, out=tmp_path, export=ExportForm(rank=1)))
    whole = undisturbed(request_for(t5, **request))
    assert [p.outputs["lorahub"] for p in cut.predictions] != [
        p.outputs["lorahub"] for p in whole.predictions
    ]


def test_score_and_file_are_of_one_cut_and_the_file_is_as_if_it_were_cut_alone(
    t5: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cuts: list[int] = []
    cut_one = export.truncated

    def count(a: torch.Tensor, b: torch.Tensor, *, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        cuts.append(rank)
        return cut_one(a, b, rank=rank)

    monkeypatch.setattr(export, "truncated", count)
    request = request_for(
        t5, method="auto", budget=30, seed=3, out=tmp_path / "composed", export=ExportForm(rank=2)
    )
    composed = run.compose(request)
    in_all = len(cuts)
    again = run.export_weights(
        request.base, request.modules, composed.mixing_weights, EXACT, tmp_path / "again", form=request.export
    )
    assert len(cuts) == 2 * in_all > 0
    assert again == composed.exported
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "composed" / name).read_bytes()


def test_a_rank_that_cuts_nothing_changes_nothing(t5: Collection):
    whole = undisturbed(request_for(t5))
    same = run.compose(request_for(t5, export=ExportForm(rank=1024)))
    assert (same.scores, same.predictions, same.notes) == (whole.scores, whole.predictions, whole.notes)


def test_what_is_only_rounded_is_not_called_cut(t5: Collection):
    [note] = run.compose(request_for(t5, export=ExportForm(rank=1024, dtype="bfloat16"))).notes
    assert note.startswith("The scores are those of the adapter as it is written, in bfloat16: ")


def test_without_test_rows_each_fold_is_cut_too(t5: Collection):
    request = {"test": (), "method": "lorahub", "budget": 20}
    cut = run.compose(request_for(t5, **request, export=ExportForm(rank=1)))
    [note] = [note for note in cut.notes if "as it is written" in note]
    assert "cut to rank 1" in note
    assert f"of {len(tiny.EXAMPLES)} rows" in note


def test_options_are_chosen_by_the_adapter_that_is_written(t5: Collection):
    animals = ("cat", "dog") * 3
    examples = tuple(Example(f"the {a} sat on the box who", a) for a in animals)
    test = tuple(
        Example(f"the {c} {a} ran under a tree who", a)
        for c in ("red", "green", "blue")
        for a in ("cat", "dog")
    )
    request = {"examples": examples, "test": test, "method": "lorahub", "budget": 20}
    whole = run.compose(request_for(t5, **request)).option_scores
    cut = run.compose(request_for(t5, **request, export=ExportForm(rank=1))).option_scores
    assert whole is not None
    assert cut is not None
    assert [s.method for s in cut.scores] == [s.method for s in whole.scores]
    assert [s for s in cut.scores if s.method != "lorahub"] == [
        s for s in whole.scores if s.method != "lorahub"
    ]
