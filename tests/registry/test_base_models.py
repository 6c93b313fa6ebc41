from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from registry import base_models, shapes
from registry.errors import ConfigRefused
from registry.models import BaseModel
from tests.factories import make_base_model, publish_fake
from tests.fake_adapters import TINY_MATRICES
from web.errors import DomainError

pytestmark = pytest.mark.django_db

TINY_T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 8,
    "d_kv": 3,
    "num_heads": 2,
    "d_ff": 16,
    "num_layers": 2,
    "vocab_size": 32,
    "is_encoder_decoder": True,
}


@pytest.fixture
def quick_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of the tiny base without starting transformers."""
    found = shapes.BaseShapes("T5ForConditionalGeneration", "SEQ_2_SEQ_LM", dict(TINY_MATRICES), parameters=9)
    monkeypatch.setattr(shapes, "compute_shapes", lambda config: found)


def load_catalogue() -> str:
    out = StringIO()
    call_command("load_catalogue", stdout=out)
    return out.getvalue()


def test_the_catalogue_holds_at_least_forty_models_and_loads_twice_without_change():
    load_catalogue()
    assert BaseModel.objects.count() >= 40
    flan = BaseModel.objects.named("google/flan-t5-large")
    assert flan.sizes()["encoder.block.23.layer.0.SelfAttention.q"] == (1024, 1024)
    assert ", 0 of them new" in load_catalogue()


def test_the_catalogue_does_not_overwrite_a_model_that_is_hosted_here():
    make_base_model("google/flan-t5-large", kind=BaseModel.Kind.HOSTED)
    load_catalogue()
    assert BaseModel.objects.named("google/flan-t5-large").is_hosted


def test_a_base_model_is_added_by_command_and_found_in_any_case_and_by_alias(tmp_path, quick_shapes):
    waiting = publish_fake(tmp_path, config={"base_model_name_or_path": "Tiny"})
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY_T5))
    out = StringIO()
    call_command("add_base_model", "Lab/tiny-t5", config, "--alias", "tiny", stdout=out)
    assert "1 adapters here" in out.getvalue()
    waiting.refresh_from_db()
    assert waiting.is_composable
    assert BaseModel.objects.named("lab/TINY-t5") == BaseModel.objects.named("TINY")
    with pytest.raises(CommandError, match="already known"):
        call_command("add_base_model", "lab/Tiny-T5", config)
    with pytest.raises(CommandError, match="another name of Lab/tiny-t5"):
        call_command("add_base_model", "tiny", config)
    with pytest.raises(CommandError):
        call_command("add_base_model", "other", tmp_path / "none.json")


@pytest.mark.parametrize("name", ["", "a/b/c", "/abs", "a b", "-x", "x" * 201, "a//b", "../x", "x/"])
def test_names_that_no_hub_has_are_refused(name, quick_shapes):
    with pytest.raises(DomainError, match="named as on its hub"):
        base_models.add_base_model(name=name, config=TINY_T5)


def test_a_config_that_is_none_is_refused_and_nothing_kept():
    with pytest.raises(ConfigRefused):
        base_models.add_base_model(name="a/b", config={"peft_type": "LORA"})
    assert not BaseModel.objects.exists()


def test_the_modules_that_wait_are_compared_by_a_worker_and_what_came_of_it_is_told(
    tmp_path, quick_shapes, rung, django_capture_on_commit_callbacks
):
    bad = {"encoder.block.0.layer.0.SelfAttention.q": (9, 6)}
    fitting = publish_fake(tmp_path)
    publish_fake(tmp_path, config={"base_matrices": bad})
    hidden = publish_fake(tmp_path, visibility="private")
    client = Client()
    way = 'href="/base-models/new?name=demo%2Ftiny-t5">Add the base model</a>'
    assert way in client.get(fitting.get_absolute_url()).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        base = base_models.add_base_model(name="demo/tiny-t5", config=TINY_T5)
    fitting.refresh_from_db()
    assert fitting.base_model is None
    page = client.get("/base-models/demo/tiny-t5").content.decode()
    assert "are being compared with it" in page
    assert 'hx-trigger="every' in page
    assert "django_htmx/htmx" in page  # without which nothing would ask again
    told = client.get("/api/v1/base-models/demo/tiny-t5/").json()
    assert (told["recheck_wanted_at"] is None, told["rechecked_at"]) == (False, None)

    assert [ring.task for ring in rung] == ["registry.tasks.recheck_adapters"]
    rung[0].answer()
    fitting.refresh_from_db()
    assert (fitting.base_model, fitting.is_composable) == (base, True)
    page = client.get("/base-models/demo/tiny-t5").content.decode()
    assert "1 fits, 1 differs, 0 could not be compared" in page
    assert "hx-trigger" not in page
    assert "django_htmx/htmx" not in page
    told = client.get("/api/v1/base-models/demo/tiny-t5/").json()
    assert told["recheck_wanted_at"] is None
    assert told["rechecked_at"] is not None
    assert told["adapters_by_fit"] == {"fits": 1, "unchecked": 0, "differs": 1}
    hidden.refresh_from_db()
    assert hidden.is_composable
    assert base_models.recheck_wanted() == 0


def test_a_broker_that_is_down_stops_no_new_base_model(
    quick_shapes, monkeypatch, django_capture_on_commit_callbacks
):
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no broker")

    monkeypatch.setattr("celery.app.task.Task.apply_async", fail)
    with django_capture_on_commit_callbacks(execute=True):
        base = base_models.add_base_model(name="demo/tiny-t5", config=TINY_T5)
    assert base.recheck_wanted_at is not None
    assert base_models.recheck_wanted() == 1  # the clock rings again


@pytest.mark.slow
def test_the_sizes_of_a_real_config_are_computed_and_an_adapter_for_it_fits(tmp_path):
    pytest.importorskip("transformers")
    base = base_models.add_base_model(name="demo/tiny-t5", config=TINY_T5)
    assert base.architecture == "T5ForConditionalGeneration"
    assert base.sizes()["encoder.block.1.layer.0.SelfAttention.q"] == (8, 6)
    adapter = publish_fake(tmp_path, config={"targets": ("q", "v")})
    assert (adapter.base_model, adapter.head.base_fit) == (base, "fits")


def test_a_hosted_base_model_is_read_again_only_when_its_files_change(tmp_path: Path, quick_shapes):
    folder = tmp_path / "base"
    folder.mkdir()
    for file, lacking in (("config.json", "config.json"), ("tokenizer.json", "a tokenizer")):
        with pytest.raises(DomainError, match=f"The folder of demo/tiny lacks {lacking}"):
            base_models.host_base_model(name="demo/tiny", folder=folder)
        (folder / file).write_text(json.dumps(TINY_T5))
    first, is_new = base_models.host_base_model(name="demo/tiny", folder=folder, license="mit")
    assert is_new
    assert base_models.host_base_model(name="demo/tiny", folder=folder) == (first, False)
    (folder / "model.safetensors").write_bytes(b"w")
    again, is_new = base_models.host_base_model(name="demo/tiny", folder=folder)
    assert (again.pk, is_new, again.files.count()) == (first.pk, True, 3)
    assert again.commit != first.commit
