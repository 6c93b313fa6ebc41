from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from registry import publishing, storage
from registry.errors import InspectionRefused
from registry.models import Adapter, BaseModel, Blob, Revision, Task
from registry.preparing import validate
from registry.publishing import publish, recheck_adapters, update_adapter, withdraw
from tests.factories import (
    make_base_model,
    make_organisation,
    make_task,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.fake_adapters import files_of
from tests.fake_adapters import make_adapter as make_folder
from web.errors import Conflict, DomainError, Forbidden

pytestmark = pytest.mark.django_db

CARD = """---
license: apache-2.0
language: [en, de]
tags: [Stories, lora]
base_model: demo/tiny-t5
---
# A module
"""


def nothing_is_left() -> bool:
    """No row, no blob, no file, neither in its place nor half-way."""
    blobs = Path(str(getattr(storage.storages["blobs"], "location", "")))
    files = [path for path in blobs.rglob("*") if path.is_file()]
    left = [path for path in settings.UPLOAD_TMP_DIR.rglob("*") if path.is_file()]
    return not (
        files or left or Blob.objects.exists() or Revision.objects.exists() or Adapter.objects.exists()
    )


def test_publishing_makes_an_adapter_with_a_revision_that_holds_the_exact_files(tmp_path):
    base = make_base_model()
    folder = make_folder(tmp_path / "a", rank=4, card=CARD)
    user = make_user("ada")
    adapter = publish(author=user, namespace=namespace_of(user), name="colours", files=files_of(folder))
    adapter.refresh_from_db()
    head = adapter.head
    assert adapter.full_name == "ada/colours"
    assert {file.path: storage.local_path(file.blob).read_bytes() for file in head.files.all()} == {
        name: path.read_bytes() for name, path in files_of(folder).items()
    }
    assert len(head.commit) == 40
    assert adapter.refs.get(name="main").revision == head
    assert (adapter.base_model, adapter.rank, adapter.is_composable) == (base, 4, True)
    assert (head.base_fit, head.facts["rank"], head.composable_reason) == ("fits", 4, "")
    assert adapter.size_bytes == sum(path.stat().st_size for path in files_of(folder).values())
    assert head.tensor_sha256 == head.facts["tensor_hash"] != ""


def test_what_the_uploader_leaves_open_comes_from_the_card(tmp_path):
    make_base_model()
    adapter = publish_fake(tmp_path, config={"card": CARD, "base_model_name_or_path": ""}, license="mit")
    assert adapter.license == "mit"
    assert adapter.language == "en, de"
    assert adapter.tags == ["stories", "lora"]
    assert adapter.base_model.name == "demo/tiny-t5"


def test_a_second_upload_is_a_second_revision_and_keeps_what_was_said(tmp_path):
    make_base_model()
    user = make_user()
    first = publish_fake(tmp_path, "m", owner=user, visibility="private", description="First", tags=["a"])
    second = publish_fake(tmp_path, "m", owner=user, config={"seed": 2}, message="Better weights")
    assert second.pk == first.pk
    assert second.visibility == "private"
    assert (second.description, second.tags) == ("First", ["a"])
    assert second.head.parent_id == first.head_id
    assert second.head.message == "Better weights"
    assert second.refs.get(name="main").revision_id == second.head_id
    assert Revision.objects.filter(pk=first.head.pk).exists()


def test_the_same_files_again_make_no_new_revision(tmp_path):
    user = make_user()
    first = publish_fake(tmp_path, "m", owner=user)
    again = publish_fake(tmp_path, "m", owner=user, description="New words")
    assert again.head_id == first.head_id
    assert again.description == "New words"
    assert Revision.objects.count() == 1


def test_a_file_that_breaks_a_rule_is_refused_in_words_and_leaves_nothing(tmp_path):
    make_base_model()
    folder = make_folder(tmp_path / "a", lora_alpha=-1)
    user = make_user()
    with pytest.raises(InspectionRefused) as caught:
        publish(author=user, namespace=namespace_of(user), name="m", files=files_of(folder))
    assert caught.value.problems[0].where == "lora_alpha"
    assert caught.value.status == 400
    assert nothing_is_left()


def test_an_error_in_the_last_step_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(publishing, "_repeat_facts", broken)
    with pytest.raises(RuntimeError):
        publish_fake(tmp_path)
    assert nothing_is_left()


def test_shapes_that_do_not_fit_the_known_base_are_refused(tmp_path):
    make_base_model()
    with pytest.raises(InspectionRefused, match="base model"):
        publish_fake(tmp_path, config={"base_matrices": {"encoder.block.0.layer.0.SelfAttention.q": (9, 6)}})
    assert nothing_is_left()


def test_an_adapter_for_an_unknown_base_is_kept_unchecked_and_checked_once_the_base_is_known(tmp_path):
    fitting = publish_fake(tmp_path)
    other = publish_fake(
        tmp_path, config={"base_matrices": {"encoder.block.0.layer.0.SelfAttention.q": (9, 6)}}
    )
    assert fitting.head.base_fit == "unchecked"
    assert not fitting.is_composable
    assert "not known" in fitting.head.composable_reason
    assert fitting.base_model_label == "demo/tiny-t5"

    base = make_base_model()
    assert recheck_adapters(base) == {"fits": 1, "differs": 1}
    for adapter in (fitting, other):
        adapter.refresh_from_db()
    assert (fitting.base_model, fitting.head.base_fit, fitting.is_composable) == (base, "fits", True)
    assert (other.head.base_fit, other.is_composable) == ("differs", False)
    assert "base model" in other.head.composable_reason


def test_what_a_worker_found_not_to_fit_stays_so_until_weights_or_base_are_others(tmp_path):
    base = make_base_model("demo/tiny-t5", kind="hosted", commit="1" * 40)
    ada = make_user("ada")
    adapter = publish_fake(tmp_path, "odd", owner=ada)

    def found_not_to_fit() -> None:
        assert adapter.head is not None
        publishing.note_misfit(adapter.head, base, "It adapts a router.")

    def told() -> tuple[bool, str]:
        adapter.refresh_from_db()
        assert adapter.head is not None
        return adapter.is_composable, adapter.head.composable_reason

    found_not_to_fit()
    assert told() == (False, "It adapts a router.")
    recheck_adapters(base)
    assert told() == (False, "It adapts a router.")
    publish_fake(tmp_path, "odd", owner=ada, config={"card": CARD})
    assert told() == (False, "It adapts a router.")
    publish_fake(tmp_path, "odd", owner=ada, config={"card": CARD, "seed": 5})
    assert told() == (True, "")
    found_not_to_fit()
    BaseModel.objects.update(commit="2" * 40)
    recheck_adapters(BaseModel.objects.get())
    assert told() == (True, "")


def test_what_the_card_said_follows_a_new_card_and_what_a_person_said_stays(tmp_path):
    make_base_model()
    ada = make_user("ada")
    before = "---\nlicense: mit\nlanguage: en\ntags: [old]\n---\n# Before\n"
    after = "---\nlicense: cc-by-nc-4.0\ntags: [new]\n---\n# After\n"
    publish_fake(tmp_path, "m", owner=ada, config={"card": before})
    again = publish_fake(tmp_path, "m", owner=ada, config={"card": after})
    assert (again.license, again.language, again.tags) == ("cc-by-nc-4.0", "en", ["new"])
    publish_fake(tmp_path, "n", owner=ada, license="apache-2.0", tags=["mine"], config={"card": before})
    kept = publish_fake(tmp_path, "n", owner=ada, config={"card": after})
    assert (kept.license, kept.tags) == ("apache-2.0", ["mine"])
    given = publish_fake(tmp_path, "n", owner=ada, license="mit", config={"card": after, "seed": 5})
    assert given.license == "mit"


def test_a_base_model_that_somebody_named_is_that_of_the_next_version_too(tmp_path):
    """Where its config names none that is known, such as a folder of whoever trained it."""
    base, other = make_base_model(), make_base_model("demo/other-t5")
    unnamed = {"base_model_name_or_path": "/tmp/x"}
    ada = make_user("ada")
    said = publish_fake(tmp_path, "said", owner=ada, base_model=base.name, config=unnamed)
    corrected = publish_fake(tmp_path, "corrected", owner=ada, config=unnamed)
    update_adapter(corrected, actor=ada, base_model=base.name)
    for adapter in (said, corrected):
        again = publish_fake(tmp_path, adapter.name, owner=ada, config={**unnamed, "seed": 5})
        assert (again.base_model, again.is_composable, again.revisions.count()) == (base, True, 2)
    named = publish_fake(
        tmp_path, "said", owner=ada, config={"base_model_name_or_path": other.name, "seed": 6}
    )
    assert named.base_model == other


def test_the_uploader_is_believed_before_the_config(tmp_path):
    make_base_model()
    adapter = publish_fake(
        tmp_path, config={"base_model_name_or_path": "/home/me/model"}, base_model="Demo/Tiny-T5"
    )
    assert adapter.base_model.name == "demo/tiny-t5"
    unknown = publish_fake(tmp_path, base_model="somebody/else")
    assert unknown.base_model is None
    assert unknown.base_model_label == "somebody/else"


def test_a_local_path_as_base_is_kept_as_text_with_a_warning(tmp_path):
    adapter = publish_fake(tmp_path, config={"base_model_name_or_path": "C:\\models\\t5"})
    assert adapter.base_model_label == "C:\\models\\t5"
    assert any("local path" in warning for warning in adapter.head.warnings)


def test_a_base_model_is_found_by_its_alias(tmp_path):
    base = make_base_model("google/tiny")
    base.aliases.create(text="demo/tiny-t5")
    assert publish_fake(tmp_path).base_model == base


def test_strangers_publish_nothing_in_a_namespace(tmp_path):
    lab = make_organisation(members={make_user(): "admin"})
    with pytest.raises(Forbidden):
        publish_fake(tmp_path, owner=make_user(), namespace=lab)
    reader = make_user()
    lab.memberships.create(user=reader, role="read")
    with pytest.raises(Forbidden):
        publish_fake(tmp_path, owner=reader, namespace=lab)
    assert nothing_is_left()


def test_a_deleted_name_is_not_handed_out_again(tmp_path):
    user = make_user()
    adapter = publish_fake(tmp_path, "gone", owner=user)
    withdraw(adapter, actor=user)
    assert Revision.objects.filter(adapter=adapter).exists()
    with pytest.raises(publishing.NameNotFree, match="not handed out twice"):
        publish_fake(tmp_path, "Gone", owner=user)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"description": "x" * 501}, "description"),
        ({"description": "a\x00b"}, "description"),
        ({"license": "x" * 101}, "license"),
        ({"visibility": "secret"}, "visibility"),
        ({"tags": ["x" * 51]}, "tags"),
        ({"tags": [str(number) for number in range(31)]}, "tags"),
        ({"base_model": "\u202eevil"}, "base_model"),
        ({"name": "no/slash"}, "name"),
        ({"task_title": "x" * 201}, "task"),
    ],
)
def test_words_that_cannot_be_kept_are_refused_by_field_and_leave_nothing(tmp_path, options, field):
    with pytest.raises(DomainError) as caught:
        publish_fake(tmp_path, **options)
    assert field in caught.value.fields
    assert nothing_is_left()


def test_a_task_is_found_by_slug_or_title_and_made_if_new(tmp_path):
    known = make_task("story-colours", title="Story colours")
    assert publish_fake(tmp_path, task_title="story-colours").task == known
    assert publish_fake(tmp_path, task_title="Story Colours").task == known
    new = publish_fake(tmp_path, task_title="Färben").task
    assert (new.slug, new.title) == ("farben", "Färben")
    assert Task.objects.count() == 2


def test_files_too_many_or_too_large_are_refused(tmp_path, settings):
    settings.MAX_FILES_PER_ADAPTER = 1
    with pytest.raises(InspectionRefused, match="2 files"):
        publish_fake(tmp_path)
    settings.MAX_FILES_PER_ADAPTER, settings.MAX_FILE_BYTES = 100, 100
    with pytest.raises(InspectionRefused, match="one file may have 100"):
        publish_fake(tmp_path)
    settings.MAX_FILE_BYTES, settings.MAX_ADAPTER_BYTES = 10**6, 100
    with pytest.raises(InspectionRefused, match="together"):
        publish_fake(tmp_path)
    assert nothing_is_left()


def test_unknown_binaries_are_left_out_with_a_warning(tmp_path):
    user = make_user()
    folder = make_folder(tmp_path / "a")
    (folder / "optimizer.pt").write_bytes(b"\x80\x02pickle")
    adapter = publish(author=user, namespace=namespace_of(user), name="m", files=files_of(folder))
    assert not adapter.head.files.filter(path="optimizer.pt").exists()
    assert any("optimizer.pt" in warning for warning in adapter.head.warnings)


def test_validating_reports_facts_and_keeps_nothing(tmp_path):
    make_base_model()
    publish_fake(tmp_path, "other")
    before = Blob.objects.count(), Revision.objects.count()
    folder = make_folder(tmp_path / "a", card=CARD, seed=5)
    report = validate(author=make_user(), files=files_of(folder))
    assert report.is_publishable
    assert report.is_composable
    assert report.composes_with == 1
    assert report.facts["rank"] == 2
    assert report.defaults["license"] == "apache-2.0"
    assert before == (Blob.objects.count(), Revision.objects.count())


def test_validating_reports_every_problem(tmp_path):
    folder = make_folder(tmp_path / "a", lora_alpha=0)
    (folder / "adapter_model.safetensors").unlink()
    report = validate(author=make_user(), files=files_of(folder))
    assert not report.is_publishable
    assert {problem["file"] for problem in report.problems} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_details_are_changed_by_members_only(tmp_path):
    user = make_user()
    adapter = publish_fake(tmp_path, owner=user)
    update_adapter(
        adapter, actor=user, description="Better", visibility="private", tags=["B", "b"], task="Telling time"
    )
    adapter.refresh_from_db()
    assert (adapter.description, adapter.visibility, adapter.tags) == ("Better", "private", ["b"])
    assert adapter.task.slug == "telling-time"
    with pytest.raises(Forbidden):
        update_adapter(adapter, actor=make_user(), description="Worse")
    with pytest.raises(DomainError, match="visibility"):
        update_adapter(adapter, actor=user, visibility="hidden")


def test_a_base_model_named_later_is_compared(tmp_path):
    user = make_user()
    adapter = publish_fake(tmp_path, owner=user, config={"base_model_name_or_path": "./here"})
    base = make_base_model()
    make_base_model("demo/other", matrices={"encoder.block.0.layer.0.SelfAttention.q": [3, 3]})
    with pytest.raises(DomainError, match="base model"):
        update_adapter(adapter, actor=user, base_model="demo/other")
    adapter.refresh_from_db()
    assert adapter.base_model is None
    update_adapter(adapter, actor=user, base_model="demo/tiny-t5")
    adapter.refresh_from_db()
    assert (adapter.base_model, adapter.is_composable, adapter.head.base_fit) == (base, True, "fits")


def test_a_legacy_bin_is_converted_and_only_the_safetensors_kept(tmp_path):
    torch = pytest.importorskip("torch")
    from tests.fake_adapters import fake_config, fake_tensors

    folder = tmp_path / "legacy"
    folder.mkdir()
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in fake_tensors().items()}
    torch.save(tensors, folder / "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps(fake_config()))
    user = make_user()
    adapter = publish(author=user, namespace=namespace_of(user), name="legacy", files=files_of(folder))
    assert set(adapter.head.files.values_list("path", flat=True)) == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert [path for path in settings.UPLOAD_TMP_DIR.rglob("*") if path.is_file()] == []


@pytest.mark.django_db(transaction=True)
def test_of_two_who_publish_one_name_at_once_one_wins_and_the_other_is_told(tmp_path):
    user = make_user()
    start = threading.Barrier(2)
    outcomes: list[object] = []
    folders = [make_folder(tmp_path / str(number), seed=number) for number in range(2)]
    really_store = publishing._store

    def store_together(files: Mapping[str, Path]) -> dict[str, Blob]:
        start.wait(timeout=20)
        return really_store(files)

    publishing._store = store_together

    def upload(folder: Path) -> None:
        try:
            outcomes.append(
                publish(author=user, namespace=namespace_of(user), name="race", files=files_of(folder))
            )
        except Exception as error:
            outcomes.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=upload, args=[folder]) for folder in folders]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        publishing._store = really_store
    winners = [outcome for outcome in outcomes if isinstance(outcome, Adapter)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert (len(winners), len(losers)) == (1, 1), outcomes
    assert Revision.objects.count() == 1
    held = {file.blob_id for file in Revision.objects.get().files.all()}
    assert set(Blob.objects.values_list("pk", flat=True)) == held
