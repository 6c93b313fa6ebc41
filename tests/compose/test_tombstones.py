"""What is left of an adapter, of an organisation and its adapters, once they are deleted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from compose import recipes
from compose.models import Composition
from registry import fsck, organisations, publishing, storage, sweeping, tombstones
from registry.models import Adapter, AdapterText, Blob, Namespace, Ref, Revision, RevisionFile, User
from registry.publishing import NameNotFree
from registry.search import upkeep
from tests.compose.factories import finish, make_composition
from tests.compose.test_leaving import composed_into, found_in_all_tables
from tests.factories import make_adapter, make_base_model, make_organisation, make_revision, make_user

pytestmark = pytest.mark.django_db
NEEDLE = "zanzibar"


@pytest.fixture
def lab(ada: User) -> Namespace:
    lab = make_organisation("lab", members={ada: "admin"})
    Namespace.objects.filter(pk=lab.pk).update(full_name=NEEDLE, about=NEEDLE)
    return lab


@pytest.fixture
def module(lab: Namespace, ada: User) -> Adapter:
    """Two versions, with the needle in every text and in the card."""
    said: dict[str, Any] = dict.fromkeys(
        ("description", "dataset", "training", "leakage", "prompt_template", "base_model_label"), NEEDLE
    )
    card = {"README.md": f"# {NEEDLE}".encode(), "adapter_config.json": b"{}"}
    module = make_adapter(
        "part", namespace=lab, base_model=make_base_model(), created_by=ada, tags=[NEEDLE], **said,
        files={**card, "adapter_model.safetensors": b"first weights"},
    )  # fmt: skip
    make_revision(module, files={**card, "adapter_model.safetensors": b"second weights"})
    Revision.objects.update(message=NEEDLE, description=NEEDLE, warnings=[NEEDLE], author=ada)
    Ref.objects.create(adapter=module, kind="tag", name=NEEDLE, revision=module.revisions.all()[0])
    upkeep.read_cards()
    assert AdapterText.objects.get(adapter=module).card
    module.refresh_from_db()
    return module


@pytest.fixture(params=["the adapter", "its organisation"])
def delete(request: pytest.FixtureRequest, module: Adapter, lab: Namespace, ada: User) -> Callable[[], None]:
    if request.param == "the adapter":
        return lambda: publishing.withdraw(module, actor=ada)
    return lambda: organisations.delete_organisation(lab, actor=ada)


def swept() -> set[bytes]:
    """What the storage holds after a sweep of all that was stored long ago."""
    Blob.objects.update(last_stored_at=timezone.now() - timedelta(days=2))
    sweeping.sweep_storage()
    return {b"".join(storage.read_range(blob, 0, blob.size_bytes)) for blob in Blob.objects.all()}


def test_texts_files_and_bytes_go_and_the_name_stays(module, delete, lab, ada):
    delete()
    if Namespace.objects.get(pk=lab.pk).deleted_at is None:
        Namespace.objects.update(full_name="", about="")
    upkeep.read_cards()
    assert found_in_all_tables(NEEDLE) == []
    assert not RevisionFile.objects.exists()
    assert swept() == set()
    assert list(fsck.check()) == []
    left = Adapter.objects.get()
    assert (left.full_name, left.created_by, left.revisions.count()) == ("lab/part", ada, 2)
    assert all(revision.commit and revision.author == ada for revision in left.revisions.all())
    with pytest.raises(NameNotFree):
        publishing.find_by_name(lab, "PART")


def test_what_was_composed_of_it_works_on_and_says_that_it_is_deleted(module, delete):
    bob = make_user("bob")
    composition = finish(make_composition(owner=bob, base_model=module.base_model, modules=0))
    adapter = composed_into(composition, make_organisation("other", members={bob: "admin"}), "mixed")
    weights = {"adapter_config.json", "adapter_model.safetensors"}
    delete()
    files = RevisionFile.objects.filter(revision=module.head)
    assert set(files.values_list("path", flat=True)) == weights  # the card is not what it was made of
    assert swept() >= {b"{}", b"second weights"}
    assert b"first weights" not in swept()
    assert list(fsck.check()) == []
    recipe = recipes.recipe(Composition.objects.get(pk=composition.pk))
    assert set(recipe["modules"][0]["files"]) == weights
    client = Client()
    assert client.get("/api/v1/adapters/other/mixed/files/adapter_model.safetensors").status_code == 200
    page = client.get("/other/mixed/lineage").content.decode()
    assert '<th scope="row" class="break">lab/part<span class="muted">, deleted</span></th>' in page
    assert "<title>lab/part, deleted</title>" in page
    assert adapter.deleted_at is None


def test_what_nothing_is_made_of_any_more_goes_at_the_next_sweep(module, delete):
    composition = make_composition(owner=make_user("bob"), base_model=module.base_model, modules=0)
    delete()
    assert RevisionFile.objects.count() == 2
    composition.delete()
    assert tombstones.sweep() == 2
    assert swept() == set()


def test_what_was_deleted_when_more_was_kept_is_cleared_by_the_sweep(module, ada):
    Adapter.objects.update(deleted_at=timezone.now())
    Namespace.objects.update(full_name="", about="")
    assert tombstones.sweep() == 6
    assert found_in_all_tables(NEEDLE) == []
    assert tombstones.sweep() == 0
