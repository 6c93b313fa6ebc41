"""What others do to an adapter between the moment somebody looked at it and the moment they change it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F, QuerySet

from compose.leaving import delete_account
from registry import (
    commits,
    import_jobs,
    leaving,
    likes,
    moderation,
    moving,
    organisations,
    preparing,
    publishing,
    refs,
    sent,
    standing,
    storage,
    tombstones,
    webhooks,
)
from registry.models import Adapter, AdapterText, Blob, Namespace, Ref, Revision, SearchRow, User, Webhook
from registry.rights import Quarantined
from registry.search import upkeep
from tests.beside import Beside, after
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.fake_adapters import files_of
from tests.fake_adapters import make_adapter as make_adapter_folder
from web.errors import Conflict, Forbidden, NotFound

pytestmark = pytest.mark.django_db


@pytest.fixture
def seen(ada: User) -> Adapter:
    """As ada's request has read it, before others do something to it."""
    return make_adapter("m", owner=ada)


def test_what_others_changed_since_stays(ada: User, seen: Adapter):
    Adapter.objects.update(downloads=F("downloads") + 7, likes=3, description="theirs")
    changed = publishing.update_adapter(seen, actor=ada, license="apache-2.0")
    now = Adapter.objects.get()
    assert (now.downloads, now.likes, now.description, now.license) == (7, 3, "theirs", "apache-2.0")
    assert changed.description == "theirs"


def head_of(adapter: Adapter) -> Revision:
    assert adapter.head is not None
    return adapter.head


ACTS: dict[str, Callable[[Adapter, User], Any]] = {
    "said otherwise": lambda adapter, ada: publishing.update_adapter(adapter, actor=ada, description="x"),
    "deleted": lambda adapter, ada: publishing.withdraw(adapter, actor=ada),
    "tagged": lambda adapter, ada: refs.create(
        adapter, actor=ada, kind="tag", name="v1", revision=head_of(adapter)
    ),
    "untagged": lambda adapter, ada: refs.delete(adapter, actor=ada, kind="branch", name="dev"),
    "renamed": lambda adapter, ada: moving.move(adapter, actor=ada, namespace=adapter.namespace, name="n"),
}


@pytest.mark.parametrize("act", ACTS)
def test_what_was_put_into_quarantine_since_is_left_as_it_is(ada: User, seen: Adapter, act: str):
    refs.create(seen, actor=ada, kind="branch", name="dev", revision=head_of(seen))
    moderation.quarantine(Adapter.objects.get(), moderator=None, reason="Looked into.")
    before = Adapter.objects.values().get(), sorted(Ref.objects.values_list("name"))
    with pytest.raises(Quarantined):
        ACTS[act](seen, ada)
    assert before == (Adapter.objects.values().get(), sorted(Ref.objects.values_list("name")))


@pytest.mark.parametrize("act", ACTS)
def test_what_was_deleted_since_is_not_changed(ada: User, seen: Adapter, act: str):
    publishing.withdraw(Adapter.objects.get(), actor=ada)
    before = Adapter.objects.values().get()
    with pytest.raises(NotFound, match="deleted meanwhile"):
        ACTS[act](seen, ada)
    assert before == Adapter.objects.values().get()


def test_a_commit_whose_files_are_read_while_moderators_act_is_refused(ada: User, seen: Adapter, monkeypatch):
    hide = lambda: moderation.quarantine(Adapter.objects.get(), moderator=None, reason="Looked into.")  # noqa: E731
    after(preparing, "require_size", hide, monkeypatch)
    card = commits.Put("README.md", storage.store_stream([b"# New"]))
    gone = [commits.Delete("adapter_config.json"), commits.Delete("adapter_model.safetensors")]
    with pytest.raises(Quarantined):
        commits.commit(seen, actor=ada, operations=[card, *gone], message="x")
    assert Revision.objects.count() == 1


def again(tmp_path: Path, author: User, namespace: Namespace) -> Adapter:
    files = files_of(make_adapter_folder(tmp_path / "again", seed=7))
    return publishing.publish(author=author, namespace=namespace, name="m", files=files)


def test_a_version_does_not_follow_an_adapter_to_where_its_author_may_not_write(
    tmp_path, ada: User, monkeypatch
):
    make_base_model()
    bob = make_user("bob")
    lab = make_organisation("lab", members={ada: "admin", bob: "write"})
    adapter = publish_fake(tmp_path, "m", owner=ada)
    adapter = moving.move(adapter, actor=ada, namespace=lab, name="m")
    take = lambda: moving.move(adapter, actor=ada, namespace=namespace_of(ada), name="m")  # noqa: E731
    after(preparing, "require_size", take, monkeypatch)
    with pytest.raises(Forbidden):
        again(tmp_path, bob, lab)
    assert adapter.revisions.count() == 1


def test_a_version_of_what_was_renamed_meanwhile_is_told_so(tmp_path, ada: User, monkeypatch):
    make_base_model()
    adapter = publish_fake(tmp_path, "m", owner=ada)
    rename = lambda: moving.move(adapter, actor=ada, namespace=adapter.namespace, name="n")  # noqa: E731
    after(preparing, "require_size", rename, monkeypatch)
    with pytest.raises(publishing.NameMoved):
        again(tmp_path, ada, adapter.namespace)
    assert adapter.revisions.count() == 1


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["published", "moved"])
def test_nothing_comes_into_an_organisation_while_it_is_deleted(tmp_path, ada: User, way: str, monkeypatch):
    make_base_model()
    lab = make_organisation("lab", members={ada: "admin"})
    mine = publish_fake(tmp_path, "m", owner=ada)
    comes = {
        "published": lambda: again(tmp_path, ada, lab),
        "moved": lambda: moving.move(mine, actor=ada, namespace=lab, name="m"),
    }
    beside = Beside()
    after(organisations.tombstones, "close_namespace", lambda: beside.start(comes[way]), monkeypatch)
    organisations.delete_organisation(lab, actor=ada)
    assert isinstance(beside.error(), Forbidden)
    assert not Adapter.objects.alive().filter(namespace=lab).exists()


def put(path: str, content: bytes) -> commits.Put:
    return commits.Put(path, storage.store_stream([content]))


def edit_card(adapter: Adapter, actor: User) -> None:
    commits.commit(adapter, actor=actor, operations=[put("README.md", b"# Words\n")], message="Edit")


def test_an_edit_of_a_card_leaves_the_base_model_that_another_commit_named(ada: User, tmp_path: Path):
    make_base_model()
    newer = make_base_model("demo/newer-t5")
    publish_fake(tmp_path, "m", owner=ada)
    read_before = Adapter.objects.get()
    folder = make_adapter_folder(tmp_path / "newer", base_model_name_or_path=newer.name)
    config = put("adapter_config.json", (folder / "adapter_config.json").read_bytes())
    commits.commit(Adapter.objects.get(), actor=ada, operations=[config], message="Say which")
    edit_card(read_before, ada)
    now = Adapter.objects.get()
    assert (now.base_model, now.base_model_label) == (newer, newer.name)


def test_an_edit_of_a_card_leaves_the_base_model_that_was_set_while_it_was_read(
    ada: User, tmp_path: Path, monkeypatch
):
    make_base_model()
    newer = make_base_model("demo/newer-t5")
    adapter = publish_fake(tmp_path, "m", owner=ada)

    def set_newer() -> None:
        publishing.update_adapter(Adapter.objects.get(), actor=ada, base_model=newer.name)

    after(commits, "blobs_of", set_newer, monkeypatch)
    edit_card(adapter, ada)
    now = Adapter.objects.get()
    assert (now.base_model, now.base_model_label) == (newer, newer.name)
    assert commits.branch_head(now, "main").files.filter(path="README.md").exists()


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_nothing_is_taken_out_of_an_organisation_that_is_deleted_meanwhile(ada: User, monkeypatch):
    lab = make_organisation("lab", members={ada: "admin"})
    adapter = make_adapter("m", namespace=lab)
    beside = Beside()
    take = lambda: moving.move(adapter, actor=ada, namespace=namespace_of(ada), name="m")  # noqa: E731
    after(organisations, "require_admin", lambda: beside.start(take), monkeypatch)
    organisations.delete_organisation(lab, actor=ada)
    assert isinstance(beside.error(), NotFound)
    assert not Adapter.objects.alive().exists()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_held_while_the_card_of_the_version_before_is_read(tmp_path, ada: User, monkeypatch):
    """It may be in S3."""
    make_base_model()
    publish_fake(tmp_path, "m", owner=ada, config={"card": "---\nlicense: mit\n---\n# Before\n"})
    held: list[bool] = []
    after(storage, "open_blob", lambda: held.append(connection.in_atomic_block), monkeypatch)
    again = publish_fake(tmp_path, "m", owner=ada, config={"card": "---\nlicense: cc0-1.0\n---\n# After\n"})
    assert (again.license, held) == ("cc0-1.0", [False])


# --- Two connections: whoever deletes more than one row takes them in the order of everybody else ---------------------


@pytest.fixture
def beside() -> Beside:
    return Beside()


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_what_is_moved_while_it_is_waited_for_is_found(ada: User, beside: Beside, monkeypatch):
    lab = make_organisation("lab", members={ada: "admin"})
    adapter = make_adapter("m", namespace=lab)
    head = adapter.revisions.get()
    tag = lambda: refs.create(adapter, actor=ada, kind="tag", name="v1", revision=head)  # noqa: E731
    after(publishing, "require_showable", lambda: beside.start(tag), monkeypatch)
    moving.move(adapter, actor=ada, namespace=namespace_of(ada), name="m")
    assert beside.error() is None
    assert adapter.refs.filter(name="v1").exists()


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_who_deletes_what_is_moved_at_that_moment_is_told(ada: User, beside: Beside, monkeypatch):
    lab = make_organisation("lab", members={ada: "admin"})
    adapter = make_adapter("m", namespace=lab)
    delete = lambda: publishing.withdraw(adapter, actor=ada)  # noqa: E731
    after(publishing, "require_showable", lambda: beside.start(delete), monkeypatch)
    moving.move(adapter, actor=ada, namespace=namespace_of(ada), name="n")
    refusal = beside.error()
    assert isinstance(refusal, Conflict)
    assert refusal.message == "lab/m was moved to ada/n at this moment. Try again there."
    assert Adapter.objects.alive().filter(name="n").exists()


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["a new task", "a deletion"])
def test_the_deletion_of_an_organisation_waits_for_a_change_in_it(
    what: str, ada: User, beside: Beside, monkeypatch
):
    lab = make_organisation("lab", members={ada: "admin"})
    adapter = make_adapter("m", namespace=lab)
    delete = lambda: organisations.delete_organisation(lab, actor=ada)  # noqa: E731
    if what == "a new task":
        after(publishing, "_task_called", lambda: beside.start(delete), monkeypatch)
        publishing.update_adapter(adapter, actor=ada, task="Something new")
    else:
        after(tombstones, "_clear", lambda: beside.start(delete), monkeypatch)
        publishing.withdraw(adapter, actor=ada)
    assert beside.error() is None
    assert not Adapter.objects.alive().exists()


ASKED: dict[str, Callable[[Adapter, User], object]] = {
    "a report": lambda adapter, person: moderation.report(
        adapter, reporter=person, address="", reason="spam"
    ),
    "a webhook": lambda adapter, person: webhooks.create(
        user=person, url="https://example.org/hook", events=["version.published"]
    ),
    "an import": lambda adapter, person: import_jobs.request_import(
        owner=person, namespace=adapter.namespace, sources=["a/b"]
    ),
    "bytes": lambda adapter, person: sent.note_sent(person, storage.store_stream([b"sent"])),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("how", ["deleted", "blocked"])
def test_who_asks_with_an_account_that_is_deleted_or_blocked_meanwhile_is_told(
    how: str, what: str, ada: User
):
    adapter = make_adapter("m")
    if how == "deleted":
        User.objects.filter(pk=ada.pk).delete()
    else:
        User.objects.filter(pk=ada.pk).update(is_active=False)
    before = Blob.objects.count()
    with pytest.raises(Forbidden, match=f"account is {how}"):
        ASKED[what](adapter, ada)
    assert Blob.objects.count() == before


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ASKED)
def test_who_asks_while_their_account_is_deleted_waits_and_is_told(
    what: str, ada: User, beside: Beside, monkeypatch
):
    adapter = make_adapter("m")
    after(tombstones, "close_namespace", lambda: beside.start(lambda: ASKED[what](adapter, ada)), monkeypatch)
    delete_account(ada, actor=ada)
    assert isinstance(beside.error(), Forbidden)


@pytest.mark.django_db(transaction=True)
def test_who_likes_with_an_account_that_is_deleted_meanwhile_is_told(ada: User):
    adapter = make_adapter("m")
    User.objects.filter(pk=ada.pk).delete()
    with pytest.raises(Forbidden, match="account is deleted"):
        likes.like(adapter, actor=ada)


@pytest.mark.django_db(transaction=True)
def test_nothing_is_written_down_for_a_webhook_that_is_removed_meanwhile(ada: User):
    webhook, _ = webhooks.create(user=ada, url="https://example.org/hook", events=["version.published"])
    Webhook.objects.all().delete()
    assert not webhooks.enqueue(webhook, event="version.published", key="version 1", data={})


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_a_card_is_read_while_its_adapter_is_deleted(ada: User, beside: Beside, monkeypatch):
    adapter = make_adapter("m", owner=ada, files={"README.md": b"# Words"})
    read = lambda: upkeep.read_card(adapter.pk, head_of(adapter).pk)  # noqa: E731
    clear = tombstones._clear

    def clear_beside(adapters: QuerySet[Adapter]) -> int:
        beside.start(read)
        return clear(adapters)

    monkeypatch.setattr(tombstones, "_clear", clear_beside)
    publishing.withdraw(adapter, actor=ada)
    assert beside.error() is None
    assert AdapterText.objects.get(adapter=adapter).card == ""


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_who_invites_somebody_who_deletes_the_account_at_that_moment_is_told(
    ada: User, beside: Beside, monkeypatch
):
    lab = make_organisation("lab", members={ada: "admin"})
    bob = make_user("bob")
    invite = lambda: organisations.invite(lab, actor=ada, username="bob", role="read")  # noqa: E731
    after(leaving, "hold_wholly", lambda: beside.start(invite), monkeypatch)
    delete_account(bob, actor=bob)
    assert isinstance(beside.error(), organisations.NoSuchPerson)


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_standing_is_written_down_while_somebody_writes_to_two_adapters(ada: User, beside: Beside):
    first, second = (make_adapter(name, owner=ada) for name in ("first", "second"))
    for adapter in (first, second):
        likes.like(adapter, actor=ada)
    with transaction.atomic():
        Adapter.objects.filter(pk=second.pk).update(description="Theirs.")
        beside.start(standing.refresh)
        Adapter.objects.filter(pk=first.pk).update(description="Theirs.")
    assert beside.error() is None
    standing.refresh()
    assert {row.trending > 0 for row in SearchRow.objects.all()} == {True}
