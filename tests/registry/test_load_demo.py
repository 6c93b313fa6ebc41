from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from registry import shapes
from registry.models import Adapter, BaseModel, Blob, Namespace, Revision, Task, TaskRow
from tests.fake_adapters import TINY_MATRICES, make_adapter

pytestmark = pytest.mark.django_db


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every config.json whose sizes were computed, without starting transformers for it."""
    configs: list[bytes] = []

    def fake(config: bytes) -> shapes.BaseShapes:
        configs.append(config)
        return shapes.BaseShapes(
            "T5ForConditionalGeneration", "SEQ_2_SEQ_LM", dict(TINY_MATRICES), parameters=1000
        )

    monkeypatch.setattr(shapes, "compute_shapes", fake)
    return configs


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A demo collection of one base, two modules and two tasks."""
    folder = tmp_path / "demo"
    base = folder / "tiny-t5"
    base.mkdir(parents=True)
    (base / "config.json").write_text('{"model_type": "t5"}')
    (base / "model.safetensors").write_bytes(b"weights")
    (base / "tokenizer.json").write_text("{}")
    modules = []
    for number, name in enumerate(["who-plain", "where-plain"]):
        make_adapter(folder / "modules" / "plain-tools" / name, seed=number, card="---\nlicense: mit\n---\n")
        modules.append(
            {
                "namespace": "plain-tools",
                "name": name,
                "path": f"modules/plain-tools/{name}",
                "base_model": "demo/tiny-t5",
                "task": "who-plain",
                "title": "Who",
                "description": "Says who.",
                "license": "apache-2.0",
                "tags": ["demo"],
            }
        )
    rows = [{"input": f"Story {number}", "output": str(number)} for number in range(3)]
    (folder / "tasks").mkdir()
    for slug, held_out in (("who-plain", False), ("who-twice", True)):
        task = {
            "slug": slug,
            "title": slug,
            "base_model": "demo/tiny-t5",
            "held_out": held_out,
            "few_shot": rows[:2],
        }
        (folder / "tasks" / f"{slug}.json").write_text(
            json.dumps(task | ({"test": rows} if held_out else {}))
        )
    (folder / "collection.json").write_text(
        json.dumps(
            {
                "base_models": [{"id": "demo/tiny-t5", "path": "tiny-t5", "license": "apache-2.0"}],
                "modules": modules,
                "tasks": ["who-plain", "who-twice"],
            }
        )
    )
    return folder


def load(folder: Path) -> str:
    out = StringIO()
    call_command("load_demo", folder=folder, stdout=out)
    return out.getvalue()


def test_the_demo_is_published_like_anybodys_modules(collection, computed):
    said = load(collection)
    assert "2 modules, 2 of them new" in said
    base = BaseModel.objects.get(name="demo/tiny-t5")
    assert base.is_hosted
    assert {file.path for file in base.files.all()} == {"config.json", "model.safetensors", "tokenizer.json"}
    adapter = Adapter.objects.get(name="who-plain")
    assert (adapter.base_model, adapter.is_composable, adapter.head.base_fit) == (base, True, "fits")
    assert adapter.namespace.kind == Namespace.Kind.ORGANISATION
    assert adapter.task.slug == "who-plain"
    held_out = Task.objects.held_out().get()
    assert (held_out.slug, held_out.rows.filter(split=TaskRow.Split.TEST).count()) == ("who-twice", 3)
    assert (collection / "modules" / "plain-tools" / "who-plain" / "adapter_config.json").exists()


def test_loading_the_demo_again_changes_nothing_and_reads_no_model(collection, computed):
    load(collection)
    before = (Blob.objects.count(), Revision.objects.count(), TaskRow.objects.count(), len(computed))
    assert "2 modules, 0 of them new" in load(collection)
    assert before == (Blob.objects.count(), Revision.objects.count(), TaskRow.objects.count(), len(computed))


def test_a_changed_module_becomes_a_new_revision(collection, computed):
    load(collection)
    make_adapter(
        collection / "modules" / "plain-tools" / "who-plain", seed=9, card="---\nlicense: mit\n---\n"
    )
    assert "2 modules, 1 of them new" in load(collection)
    assert Adapter.objects.get(name="who-plain").revisions.count() == 2


def test_a_missing_collection_is_said_in_words(tmp_path):
    with pytest.raises(CommandError, match="Build the collection first"):
        load(tmp_path)
