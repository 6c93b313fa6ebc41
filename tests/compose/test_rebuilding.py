"""Recipes with the real engine: they give the same bytes again."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from compose import bases, jobs, publishing, recipes, worker
from compose.engine.types import Example, ExportForm
from compose.errors import RecipeProblem
from compose.models import Composition
from registry import moving, storage
from registry.filenames import MODULE_FILES
from registry.models import Adapter, BaseModel, BaseModelFile, Revision, User
from tests.factories import make_base_model, make_user, namespace_of
from tests.fake_adapters import files_of


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory) -> tuple[Path, list[Path], dict[str, list[int]]]:
    """A random T5 base, three modules for it, and the sizes of its matrices."""
    from tests.compose.engine.tiny import new_model, save_collection

    base, modules = save_collection(tmp_path_factory.mktemp("tiny"), "t5", 3)
    sizes = {
        path: [matrix.in_features, matrix.out_features]
        for path, matrix in new_model("t5").named_modules()
        if hasattr(matrix, "in_features")
    }
    return base, [module.path for module in modules], sizes


@pytest.fixture
def tiny(tiny_folders, transactional_db) -> tuple[BaseModel, User]:
    """The same in the registry, the modules under their publisher's name."""
    from registry.publishing import publish

    base, modules, sizes = tiny_folders
    # Not by host_base_model: it works out the sizes in a process of its own, which takes many seconds.
    base_model = make_base_model("tiny/t5", kind="hosted", commit="a" * 40, matrices=sizes)
    BaseModelFile.objects.bulk_create(
        BaseModelFile(base_model=base_model, path=path, blob=storage.store_file(file))
        for path, file in files_of(base).items()
    )
    maker = make_user("maker")
    for path in modules:
        adapter = publish(
            author=maker,
            namespace=namespace_of(maker),
            name=path.name,
            files=files_of(path),
            base_model="tiny/t5",
            license="mit",
        )
        assert adapter.is_composable
    return base_model, maker


ROWS = [
    Example("the red cat sat on the box who", "cat"),
    Example("the dog ran under a tree where", "under a tree"),
    Example("a green dog sat on a red box", "the green dog"),
]
TEST_ROWS = [
    Example("the green cat sat under the box who", "cat"),
    Example("the red dog ran on a tree where", "on a tree"),
]


def loads_so_far() -> dict[str, int]:
    from compose.engine.warm import WarmCache

    cache = worker.warm_cache()
    assert isinstance(cache, WarmCache)
    return dict(cache.loads)


def compose(base_model: BaseModel, owner: User, **options):
    composition = jobs.request_composition(
        jobs.CompositionRequest(
            owner=owner, base_model=base_model, examples=ROWS, budget=6, **{"method": "lorahub", **options}
        )
    )
    assert worker.run_next("worker")
    composition.refresh_from_db()
    assert composition.status == "succeeded", composition.error
    return composition


def test_the_whole_way_with_the_real_engine(tiny, tmp_path):
    base_model, _ = tiny
    owner = make_user("ann")
    composition = compose(base_model, owner, test_examples=TEST_ROWS)
    assert composition.trials.count() == 6
    assert {"zero_shot", "best_single", "uniform", "lorahub"} <= {s.method for s in composition.scores.all()}
    loads = loads_so_far()
    again = compose(base_model, owner, test_examples=TEST_ROWS)
    assert loads_so_far() == loads, "the second job loads nothing again"
    assert again.weights_blob == composition.weights_blob

    adapter = publishing.publish_composition(
        composition, actor=owner, namespace=namespace_of(owner), name="mixed", visibility="public"
    )
    assert adapter.is_composable
    assert adapter.head
    recipe = tmp_path / "recipe.json"
    recipe.write_bytes(storage.open_blob(adapter.head.files.get(path="recipe.json").blob).read())
    call_command("rebuild_recipe", recipe, tmp_path / "out", stdout=io.StringIO())
    for name in MODULE_FILES:
        published = storage.open_blob(adapter.head.files.get(path=name).blob).read()
        assert (tmp_path / "out" / name).read_bytes() == published
    loads_in_peft(base_model, tmp_path)


def made_in(folder: Path) -> bytes:
    return (folder / "out" / "adapter_model.safetensors").read_bytes()


def weights_of(composition: Composition) -> bytes:
    assert composition.weights_blob
    return storage.open_blob(composition.weights_blob).read()


def test_an_exact_mix_is_rebuilt_too(tiny, tmp_path):
    base_model, _ = tiny
    composition = compose(base_model, make_user("ann"), method="auto")
    recipe = recipes.recipe(composition)
    assert recipe["mix"] == "exact"
    recipes.rebuild(recipes.read(recipes.as_text(recipe)), tmp_path / "out")
    assert made_in(tmp_path) == weights_of(composition)


def test_a_recipe_finds_its_modules_whatever_they_are_called_since(tiny, tmp_path):
    base_model, maker = tiny
    composition = compose(base_model, make_user("ann"), method="auto")
    recipe = recipes.recipe(composition)
    for module in Adapter.objects.all():
        moving.move(module, actor=maker, namespace=module.namespace, name=f"{module.name}-renamed")
    recipes.rebuild(recipes.read(recipes.as_text(recipe)), tmp_path / "out")
    assert made_in(tmp_path) == weights_of(composition)


def test_a_cut_and_rounded_adapter_is_rebuilt_too_and_says_how_far_it_is(tiny, tmp_path):
    base_model, _ = tiny
    form = ExportForm(rank=2, dtype="bfloat16")
    composition = compose(base_model, make_user("ann"), method="auto", export=form)
    assert composition.result
    told = composition.result["exported"]
    assert (told["kind"], told["rank"], told["dtype"]) == ("truncated", 2, "bfloat16")
    assert 0 < told["relative_error"] < 1
    recipe = recipes.read(recipes.as_text(recipes.recipe(composition)))
    assert recipe["export"] == {"rank": 2, "dtype": "bfloat16"}
    recipes.rebuild(recipe, tmp_path / "out")
    assert made_in(tmp_path) == weights_of(composition)


def loads_in_peft(base_model: BaseModel, folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    with bases.at_hand(base_model) as (base_folder, _):
        base = AutoModelForSeq2SeqLM.from_pretrained(base_folder)
    model = PeftModel.from_pretrained(base, folder / "out")
    assert model.peft_config["default"].to_dict()["r"] == 4


def test_a_recipe_whose_parts_are_gone_or_changed_is_not_followed(tiny, tmp_path, monkeypatch):
    base_model, _ = tiny
    recipe = recipes.recipe(compose(base_model, make_user("ann")))

    def refusal(changed: dict) -> str:
        with pytest.raises(RecipeProblem) as found:
            recipes.rebuild(changed, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return found.value.message

    wrong = json.loads(json.dumps(recipe))
    wrong["modules"][0]["mixing_weight"] += 0.25
    assert "came out different from what the recipe promises" in refusal(wrong)
    assert "The base model no/such is not known here." in refusal(
        recipe | {"base_model": {"name": "no/such", "commit": ""}}
    )
    monkeypatch.setattr(bases, "at_hand", lambda *_: pytest.fail("the base model was fetched"))
    Revision.objects.filter(commit=recipe["modules"][1]["revision"]).update(tensor_sha256="0" * 64)
    assert "has other weights here" in refusal(recipe)
    missing = json.loads(json.dumps(recipe))
    missing["modules"][2]["revision"] = "0" * 40
    missing["modules"][1]["tensor_sha256"] = "0" * 64
    assert "at 00000000 is not here." in refusal(missing)
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(CommandError, match="not JSON"):
        call_command("rebuild_recipe", path, tmp_path / "out")
