"""Copies of adapters that are made here: what comes along, who may make one, and who reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from registry import commits, duplicating, moderation, publishing, quotas, search
from registry.models import Adapter, Blob, Task, User
from registry.rights import visible_adapter
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_token,
    namespace_of,
    publish_fake,
)
from web.errors import DomainError, Forbidden, NotFound

pytestmark = pytest.mark.django_db
CARD = "---\nlicense: mit\ntags: [colour]\n---\n# Says the colour\n"


@pytest.fixture
def source(tmp_path: Path, ada: User) -> Adapter:
    make_base_model()
    publish_fake(tmp_path, "colour", owner=ada, config={"card": CARD, "seed": 1})
    adapter = publish_fake(tmp_path, "colour", owner=ada, config={"card": CARD, "seed": 2})
    said = {"training": "3 epochs", "leakage": "None known.", "description": "Says the colour."}
    return publishing.update_adapter(adapter, actor=ada, task=make_task("colours").title, **said)


def copy_of(source: Adapter, actor: User, name: str = "mine", **options: Any) -> Adapter:
    return duplicating.duplicate(
        source,
        actor=actor,
        namespace=options.pop("namespace", None) or namespace_of(actor),
        name=name,
        **options,
    )


def post(person: User, source: str, body: dict[str, Any], scope: str = "write") -> Any:
    headers = {"Authorization": f"Bearer {make_token(person, scope)}"}
    return Client().post(f"/api/models/{source}/duplicate", body, "application/json", headers=headers)


def test_a_copy_has_the_newest_files_and_what_is_said_and_stores_no_byte_twice(
    source: Adapter, bob: User, data_dir: Path
):
    blobs = Blob.objects.count()
    copy = copy_of(source, bob)
    assert Blob.objects.count() == blobs
    assert not list((data_dir / "tmp").iterdir())
    assert source.head is not None
    assert copy.head is not None
    kept = (
        "license",
        "tags",
        "description",
        "training",
        "leakage",
        "task",
        "base_model",
        "rank",
        "is_composable",
    )
    assert {name: getattr(copy, name) for name in kept} == {name: getattr(source, name) for name in kept}
    assert copy.license == "mit"
    files = [sorted(one.head.files.values_list("path", "blob")) for one in (source, copy) if one.head]
    assert files[0] == files[1]
    assert (copy.revisions.count(), copy.downloads, copy.created_by) == (1, 0, bob)
    assert copy.head.message == f"Duplicate of ada/colour at {source.head.commit}"
    assert search.first_with_weights_of(copy.head, person=None) == source


def test_what_is_private_stays_so_and_its_copy_does_not_name_it(source: Adapter, ada: User):
    publishing.update_adapter(source, actor=ada, visibility="private")
    source.refresh_from_db()
    copy = copy_of(source, ada)
    assert copy.is_private
    assert copy.head is not None
    assert copy.head.message == "Duplicate of a private module"
    shown = copy_of(source, ada, "shown", visibility="public")
    assert "colour" not in str(shown.head and shown.head.message)


def test_a_private_module_is_copied_for_others_only_by_who_may_write_to_it(ada: User, bob: User):
    lab = make_organisation("lab", members={ada: "write", bob: "read"})
    source = make_adapter("m", namespace=lab, files={"README.md": b"# M"}, rank=None, visibility="private")
    other = make_organisation("other", members={ada: "write", bob: "write"})
    for options in ({"visibility": "public"}, {"namespace": other}):
        with pytest.raises(duplicating.NotToBeCopied, match="only who may write to it"):
            copy_of(source, bob, **options)
    assert copy_of(source, bob).is_private
    assert not copy_of(source, ada, visibility="public").is_private


def test_what_is_in_quarantine_is_not_copied_also_if_it_got_there_meanwhile(
    source: Adapter, ada: User, monkeypatch: Any
):
    moderation.quarantine(Adapter.objects.get(), moderator=None, reason="Looked into.")
    seen = visible_adapter(ada, "ada", "colour")
    for read in (seen, source):  # `source` as it was before
        with pytest.raises(duplicating.NotToBeCopied, match="in quarantine"):
            copy_of(read, ada)
    assert Adapter.objects.count() == 1


def test_what_was_deleted_meanwhile_leaves_no_copy(source: Adapter, ada: User, bob: User):
    publishing.withdraw(Adapter.objects.get(), actor=ada)
    with pytest.raises((NotFound, DomainError)):
        copy_of(source, bob)
    assert not Adapter.objects.alive().exists()


def test_names_quotas_and_rights_hold(source: Adapter, ada: User, bob: User, settings: Any):
    with pytest.raises(commits.NameTaken):
        copy_of(source, ada, "colour")
    with pytest.raises(Forbidden):
        copy_of(source, bob, namespace=namespace_of(ada))
    settings.MAX_BYTES_PER_NAMESPACE = 1
    with pytest.raises(quotas.QuotaReached):
        copy_of(source, bob)
    settings.MAX_BYTES_PER_NAMESPACE, settings.MAX_ADAPTERS_PER_NAMESPACE = 0, 1
    with pytest.raises(quotas.QuotaReached):
        copy_of(source, ada)
    assert Adapter.objects.count() == 1


def test_a_repository_without_weights_is_copied_as_it_is(ada: User, bob: User):
    source = make_adapter("m", owner=ada, files={"README.md": b"# M"}, rank=None)
    copy = copy_of(source, bob)
    assert copy.head is not None
    assert [file.path for file in copy.head.files.all()] == ["README.md"]
    assert not copy.is_composable


def test_a_private_task_stays_with_its_members(source: Adapter, ada: User, bob: User):
    Task.objects.update(is_private=True, first_public_at=None, owner=namespace_of(ada))
    source.refresh_from_db()
    assert copy_of(source, bob).task is None


def test_the_hubs_door_answers_as_its_clients_read_it(source: Adapter, ada: User, bob: User):
    answer = post(bob, "ada/colour", {"repository": "bob/colour"})
    page = "http://testserver/bob/colour"
    assert answer.json() == {
        "url": page,
        "id": "bob/colour",
        "name": "bob/colour",
        "filesCopyPending": False,
    }
    again = post(bob, "ada/colour", {"repository": "bob/colour"})
    assert (again.status_code, again.json()["url"]) == (409, page)
    hidden = post(bob, "ada/colour", {"repository": "bob/hidden", "visibility": "private"})
    assert hidden.status_code == 200
    assert Adapter.objects.get(name="hidden").is_private
    for body, status in (
        ({}, 400),
        ({"repository": "bob/x", "visibility": "protected"}, 400),
        ({"repository": "bob/not a name"}, 400),
        ({"repository": "ada/x"}, 403),
        ({"repository": "nobody/x"}, 403),
    ):
        refused = post(bob, "ada/colour", body)
        assert (refused.status_code, refused["X-Error-Message"] != "") == (status, True)
    assert post(bob, "ada/colour", {"repository": "bob/y"}, scope="read").status_code == 403
    assert post(bob, "ada/none", {"repository": "bob/y"})["X-Error-Code"] == "RepoNotFound"
    publishing.update_adapter(source, actor=ada, visibility="private")
    assert post(bob, "ada/colour", {"repository": "bob/y"})["X-Error-Code"] == "RepoNotFound"
    assert Client().post("/api/models/bob/colour/duplicate").status_code == 401


def test_a_base_model_is_not_duplicated_and_that_is_said(bob: User):
    make_base_model("demo/host", kind="hosted", commit="a" * 40)
    answer = post(bob, "demo/host", {"repository": "bob/host"})
    assert answer.status_code == 400
    assert "only LoRA modules are duplicated" in answer["X-Error-Message"]
