"""Losses of modules as the real engine finds them."""

from __future__ import annotations

import pytest

from compose import auditions, running_errands, worker
from compose.engine.types import Example
from registry import storage
from registry.models import BaseModelFile
from tests.conftest import ROOT
from tests.factories import make_adapter, make_base_model


@pytest.mark.django_db(transaction=True)
def test_the_demos_modules_are_really_measured(ada):
    """The demo's base model and two of its modules on one's task: the right one has the lowest loss."""
    base_model = make_base_model("demo/story-t5", kind="hosted", commit="d" * 40)
    folder = ROOT / "demo/story-t5"
    for path in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                 "tokenizer_config.json"):  # fmt: skip
        blob = storage.store_stream([(folder / path).read_bytes()])
        BaseModelFile.objects.create(base_model=base_model, path=path, blob=blob)
    for name in ("colour-twice", "mood-twice"):
        adapter = make_adapter(name, base_model=base_model)
        for path in ("adapter_config.json", "adapter_model.safetensors"):
            blob = storage.store_stream([(ROOT / "demo/modules/story-lab" / name / path).read_bytes()])
            adapter.head.files.update_or_create(path=path, defaults={"blob": blob})
    rows = [
        Example(
            "On Monday Anna walked to the castle with a cat. There they saw three green pens.", "green green"
        ),
        Example("On Friday Liam walked to the mill with a hen. There they saw two red cups.", "red red"),
    ]
    worker._draining.clear()
    audition = auditions.ask(person=ada, base_model=base_model, examples=rows)
    assert running_errands.run_waiting() == 1
    audition.refresh_from_db()
    assert audition.error == ""
    first, second = auditions.modules_of(audition, ada)
    assert first.revision.adapter.name == "colour-twice"
    assert None not in (first.loss, second.loss, audition.base_loss)
    assert first.loss < 0.2  # type: ignore[operator]
    assert first.loss < second.loss  # type: ignore[operator]
    assert first.loss < audition.base_loss  # type: ignore[operator]
