"""Deleting one's account: what is said before, what goes, what stays, and that nothing is left over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.http import StreamingHttpResponse
from django.test import Client
from django.utils import timezone

from compose import jobs, leaving, lineage, own_data, recipes
from compose.errors import LeaseLost
from compose.models import Audition, Composition, Tryout
from registry import likes, moving, organisations, publishing, storage, sweeping
from registry.accounts import NameTaken, create_account
from registry.leaving import HoldsQuarantined, OnlyAdmin
from registry.models import (
    Adapter,
    AdapterScore,
    AdapterText,
    AuditEntry,
    Blob,
    Follow,
    IdempotentAnswer,
    ImportJob,
    Invitation,
    Like,
    Membership,
    Namespace,
    NewsMail,
    PushJob,
    Report,
    Revision,
    SavedSearch,
    SentBlob,
    Task,
    TaskRow,
    Token,
    User,
    Webhook,
)
from registry.rights import NoWriter
from tests.compose.factories import finish, make_composition, make_examples, make_trials
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_token,
    make_user,
    namespace_of,
)

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
NEEDLE = "blue-needle"  # in every text that belongs to the person alone


@pytest.fixture(autouse=True)
def _rung(rung: list[Any]) -> list[Any]:
    return rung


@pytest.fixture
def ada() -> User:
    return make_user("ada", email=f"{NEEDLE}@lora.example")


def browser_of(person: User) -> Client:
    client = Client()
    client.post("/accounts/login/", {"login": person.username, "password": PASSWORD})
    return client


def delete_by_page(client: Client, name: str) -> Any:
    """Type the name, give the password, and follow to where that leads."""
    asked = client.post("/settings/delete", {"confirm": name})
    assert asked["Location"].startswith("/accounts/reauthenticate/?next=%2Fsettings%2Fdelete"), asked
    return client.post(asked["Location"], {"password": PASSWORD})


def composed_into(composition: Composition, namespace: Namespace, name: str) -> Adapter:
    """An adapter that this composition is published as, as rows."""
    adapter = make_adapter(
        name,
        namespace=namespace,
        base_model=composition.base_model,
        kind="composed",
        created_by=composition.owner,
    )
    Composition.objects.filter(pk=composition.pk).update(adapter=adapter)
    return adapter


# --- By the page -------------------------------------------------------------------------------------------------


def test_an_account_is_deleted_once_its_name_is_typed_and_the_password_given(ada: User):
    make_adapter("colour", owner=ada)
    client, other_browser = browser_of(ada), browser_of(ada)
    token = make_token(ada)
    wrong = client.post("/settings/delete", {"confirm": "ad"})
    assert wrong["Location"].startswith("/accounts/reauthenticate/")
    refused = client.post(wrong["Location"], {"password": PASSWORD})
    assert (refused.status_code, "Type ada to delete" in refused.content.decode()) == (400, True)
    done = client.post("/settings/delete", {"confirm": "ada"}, follow=True)
    assert "The account ada is deleted." in done.content.decode()
    assert not User.objects.exists()
    assert other_browser.get("/settings")["Location"].startswith("/accounts/login/")
    assert Client().get("/api/v1/whoami/", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert not Session.objects.filter(session_key=other_browser.session.session_key).exists()
    for gone in ("/ada", "/ada/colour", "/api/v1/adapters/ada/colour/", "/api/users/ada/overview"):
        assert Client().get(gone).status_code == 404
    assert Client().post("/accounts/login/", {"login": "ada", "password": PASSWORD}).status_code == 200


def test_a_wrong_password_deletes_nothing(ada: User):
    client = browser_of(ada)
    asked = client.post("/settings/delete", {"confirm": "ada"})
    assert client.post(asked["Location"], {"password": "wrong"}).status_code == 200
    assert User.objects.filter(username="ada", is_active=True).exists()
    assert delete_by_page(client, "ada")["Location"] == "/"
    assert not User.objects.exists()


def test_who_has_no_password_types_the_name_alone():
    client = Client()
    client.force_login(make_user("ada", password=None), backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/settings/delete", {"confirm": "ada"})["Location"] == "/"
    assert not User.objects.exists()


def test_an_account_that_was_made_in_a_shell_has_its_pages_and_is_deleted_as_any():
    ada = User.objects.create_user("ada", password=PASSWORD)
    client = browser_of(ada)
    assert client.get("/ada").status_code == 200
    assert client.post("/settings", {"full_name": "Ada L."})["Location"] == "/settings"
    assert 'value="Ada L."' in client.get("/settings").content.decode()
    assert delete_by_page(client, "ada")["Location"] == "/"
    assert not User.objects.exists()


def test_an_account_whose_name_is_an_organisations_takes_nothing_of_it_along():
    make_organisation("lab")
    User.objects.create_user("LAB", password=PASSWORD)
    with pytest.raises(CommandError, match="Ask the people who run this site"):
        call_command("delete_account", "LAB", "--yes")
    call_command("rename_account", "LAB", "eve", stdout=StringIO())
    call_command("delete_account", "eve", "--yes", stdout=StringIO())
    assert not User.objects.exists()
    assert Namespace.objects.get(name="lab").deleted_at is None


def test_an_account_that_was_made_under_a_name_that_is_taken_gets_another_and_keeps_the_rest():
    make_organisation("ada")
    other = User.objects.create_user("ADA", password=PASSWORD)
    client = browser_of(other)
    said = StringIO()
    call_command("rename_account", "ADA", "eve", stdout=said)
    assert said.getvalue() == "ADA is eve now. Password, tokens and sessions stay.\n"
    other.refresh_from_db()
    assert (other.username, other.check_password(PASSWORD)) == ("eve", True)
    assert client.get("/eve").status_code == 200
    assert client.post("/settings", {"full_name": "Eve"})["Location"] == "/settings"
    assert Namespace.objects.get(full_name="Eve").name == "eve"
    entry = AuditEntry.objects.get(action="rename")
    assert (entry.actor_name, entry.subject_name, entry.detail) == ("the machine", "ADA", "eve")


@pytest.mark.parametrize(
    ("name", "new", "why"),
    [
        ("ada", "eve", "this account's own"),
        ("shell", "eve", "this account's own"),  # nobody else's: it gets its namespace when it is looked for
        ("Ada", "eve", "nobody called exactly 'Ada'"),
        ("LAB", "bob", "'bob' is taken"),
        ("LAB", "BOB", "'BOB' is taken"),
        ("LAB", "SHELL", "'SHELL' is taken"),
        ("LAB", "a b", "a b"),
    ],
)
def test_other_accounts_keep_their_names_and_no_name_is_handed_out_twice(name: str, new: str, why: str):
    make_user("ada")
    make_user("bob")
    User.objects.create_user("shell")
    make_organisation("lab")
    User.objects.create_user("LAB")
    with pytest.raises(CommandError, match=why):
        call_command("rename_account", name, new)
    assert {person.username for person in User.objects.all()} == {"ada", "bob", "shell", "LAB"}
    assert not AuditEntry.objects.filter(action="rename").exists()


@pytest.mark.parametrize("whose", ["an organisation's", "nobody's any more"])
def test_an_account_that_was_made_under_a_name_that_is_taken_is_told_so(whose: str):
    if whose == "an organisation's":
        make_organisation("ada")
    else:
        leaving.delete_account(make_user("ada"), actor=None)
    other = User.objects.create_user("ADA", password=PASSWORD)
    client = browser_of(other)
    for page in (client.get("/settings/delete"), client.post("/settings", {"full_name": "Eve"})):
        assert page.status_code == 409
        assert "Ask the people who run this site for another name" in page.content.decode()
    with pytest.raises(NameTaken):
        leaving.delete_account(other, actor=None)
    assert not Namespace.objects.filter(full_name="Eve").exists()


def test_the_page_says_in_true_numbers_what_will_happen(ada: User):
    lab = make_organisation("lab", members={ada: "write"})
    base_model = make_base_model()
    used = make_adapter("used", owner=ada, base_model=base_model)
    make_adapter("unused", owner=ada, visibility="private")
    make_composition(owner=make_user("bob"), base_model=base_model, modules=0)
    composed_into(finish(make_composition(owner=ada, base_model=base_model)), lab, "kept")
    make_composition(owner=ada, base_model=base_model)
    liked = make_adapter("liked")
    likes.like(liked, actor=ada)
    Token.issue(user=ada, name="one", scope="read")
    page = browser_of(ada).get("/settings/delete").content.decode()
    size = used.size_bytes + Adapter.objects.get(name="unused").size_bytes
    assert f"2 modules (1 private) with {size}" in page.replace("\u202f", " ").replace("\u2009", " ")
    assert "Others have composed with 1 of them" in page
    assert (
        "Of 2, 1 is removed with examples, answers and scores. Of these 1 has not ended and is cancelled."
        in page
    )
    assert "1 stays, without your name" in page
    assert "You leave 1 organisation." in page
    assert "Removed: 1 like." in page
    assert "Ended or removed: 1 session, 1 access token and 1 e-mail address." in page
    assert 'href="/ada/used/settings#move"' in page


def test_the_page_of_an_empty_account_promises_nothing(ada: User):
    page = browser_of(ada).get("/settings/delete").content.decode()
    assert page.count("You have none.") == 3
    assert "You belong to none." in page
    assert "Before you go" not in page


def test_the_people_who_run_the_site_delete_an_account_by_a_command(ada: User):
    make_adapter("colour", owner=ada)
    said = StringIO()
    call_command("delete_account", "ada", stdout=said)
    assert said.getvalue() == (
        "ada has 1 adapter and 0 compositions, of which 0 stay without an owner, and 0 tasks, of which 0 go.\n"
        "Nothing was deleted. Add --yes to do it.\n"
    )
    with pytest.raises(CommandError, match="There is nobody called 'eve' here"):
        call_command("delete_account", "eve", "--yes")
    make_organisation("lab", members={ada: "admin"})
    call_command("delete_account", "ada", stdout=said)
    assert "Nobody else is admin of lab" in said.getvalue()
    assert said.getvalue().endswith("First do what stands above.\n")
    with pytest.raises(CommandError, match="Nobody else is admin of lab"):
        call_command("delete_account", "ada", "--yes")
    Membership.objects.filter(namespace__name="lab").delete()
    call_command("delete_account", "ADA", "--yes", stdout=said)
    assert not User.objects.exists()
    assert AuditEntry.objects.get(action="delete account").actor_name == "the machine"


# --- What stands against it --------------------------------------------------------------------------------------


def test_the_only_admin_of_an_organisation_is_told_which_and_what_to_do(ada: User):
    bob = make_user("bob")
    for name in ("forms-lab", "story-lab"):
        make_organisation(name, members={ada: "admin", bob: "write"})
    make_organisation("shared", members={ada: "admin", bob: "admin"})
    make_organisation("theirs", members={ada: "write", bob: "admin"})
    client = browser_of(ada)
    page = client.get("/settings/delete").content.decode()
    assert (
        "Nobody else is admin of forms-lab, story-lab. Make another member admin there, or delete them"
        in page
    )
    assert 'href="/forms-lab/settings"' in page
    assert "Delete my account" not in page
    assert delete_by_page(client, "ada").status_code == 409
    Membership.objects.filter(user=bob, namespace__name__endswith="-lab").update(role="admin")
    leaving.delete_account(ada, actor=ada)
    assert not Membership.objects.filter(namespace__name="story-lab").exclude(user=bob).exists()


def test_a_blocked_admin_is_no_other_admin(ada: User):
    make_organisation("lab", members={ada: "admin", make_user("bob", is_active=False): "admin"})
    with pytest.raises(OnlyAdmin, match="Nobody else is admin of lab"):
        leaving.delete_account(ada, actor=ada)


def test_what_is_in_quarantine_does_not_vanish_with_an_account(ada: User):
    make_adapter("odd", owner=ada, quarantined_at=timezone.now())
    with pytest.raises(HoldsQuarantined, match="ada/odd is in quarantine"):
        leaving.delete_account(ada, actor=ada)
    assert Adapter.objects.alive().get().name == "odd"


# --- What stays --------------------------------------------------------------------------------------------------


def test_what_others_composed_keeps_its_lineage_and_its_recipe(ada: User):
    bob = make_user("bob")
    base_model = make_base_model()
    make_adapter("part", owner=ada, base_model=base_model)
    secret = make_adapter("secret", owner=ada, base_model=base_model)
    composition = finish(make_composition(owner=bob, base_model=base_model))
    Adapter.objects.filter(pk=secret.pk).update(visibility="private")
    adapter = composed_into(composition, namespace_of(bob), "mixed")
    composition.refresh_from_db()
    before = recipes.recipe(composition)
    leaving.delete_account(ada, actor=ada)
    family = lineage.family(adapter, bob)
    parents = {relation.parent.title or relation.parent.name for relation in family.relations}
    assert any("ada/part" in name for name in parents)
    assert not any("secret" in name for name in parents)
    assert recipes.recipe(composition) == before
    assert Client().get("/bob/mixed/lineage").status_code == 200
    assert Client().get(composition.get_absolute_url()).status_code == 200


def test_what_the_person_composed_for_an_organisation_stays_without_them(ada: User):
    bob = make_user("bob")
    lab = make_organisation("lab", members={ada: "write", bob: "admin"})
    composition = finish(make_composition(owner=ada, examples=make_examples(6)))
    jobs.share(composition, ada)
    adapter = composed_into(composition, lab, "mixed")
    leaving.delete_account(ada, actor=ada)
    kept = Composition.objects.get()
    assert (kept.owner, kept.adapter, kept.share_key, kept.predictions) == (None, adapter, None, [])
    assert kept.examples == [{"input": "", "output": ""}] * 6
    assert kept.scores.exists()
    assert not kept.log.exists()
    page = Client().get(kept.get_absolute_url()).content.decode()
    assert "by somebody whose account is deleted" in page
    answer = Client().get(f"/api/v1/compositions/{kept.pk}/").json()
    assert (answer["owner"], answer["adapter"]) == (None, "lab/mixed")
    bobs = browser_of(bob)
    for path in ("", "/recipe.json", "/trials.json", "/progress"):
        assert bobs.get(f"{kept.get_absolute_url()}{path}").status_code == 200
    assert Client().get("/lab/mixed").status_code == 200
    assert Client().get("/lab/mixed/lineage").status_code == 200


def test_what_was_moved_to_an_organisation_is_found_by_its_old_name_for_good(ada: User):
    lab = make_organisation("lab", members={ada: "write", make_user("bob"): "admin"})
    adapter = make_adapter("colour", owner=ada)
    moving.move(adapter, actor=ada, namespace=lab, name="colour")
    leaving.delete_account(ada, actor=ada)
    assert Client().get("/ada/colour")["Location"] == "/lab/colour"
    assert Client().get("/lab/colour").status_code == 200
    assert Client().get("/lab/colour/versions").status_code == 200


def test_the_name_is_never_handed_out_again(ada: User):
    leaving.delete_account(ada, actor=ada)
    for name in ("ada", "ADA"):
        with pytest.raises(NameTaken):
            create_account(username=name, password=None)
    Client().post("/accounts/signup/", {"username": "ada", "password1": PASSWORD, "password2": PASSWORD})
    assert not User.objects.exists()


def test_the_book_says_who_deleted_what(ada: User):
    make_adapter("colour", owner=ada)
    leaving.delete_account(ada, actor=ada)
    entry = AuditEntry.objects.get(action="delete account")
    assert (entry.actor_name, entry.subject_name) == ("ada", "ada")
    assert (
        entry.detail == "1 adapter and 0 compositions deleted; 0 compositions kept for what is made of them"
    )


def test_likes_are_counted_without_those_of_who_is_gone(ada: User):
    adapter = make_adapter("liked")
    for person in (ada, make_user("bob")):
        likes.like(adapter, actor=person)
    leaving.delete_account(ada, actor=ada)
    adapter.refresh_from_db()
    assert adapter.likes == Like.objects.count() == 1


# --- What goes ---------------------------------------------------------------------------------------------------


def test_a_worker_at_a_composition_finds_that_it_holds_nothing_any_more(ada: User):
    waiting = make_composition(owner=ada)
    running = jobs.claim(make_composition(owner=ada).pk, "worker")
    assert running is not None
    jobs.record_trials(running, make_trials(3))
    leaving.delete_account(ada, actor=ada)
    assert not Composition.objects.exists()
    assert jobs.claim(waiting.pk, "worker") is None
    with pytest.raises(LeaseLost):
        jobs.beat(running)
    with pytest.raises(LeaseLost):
        jobs.record_trials(running, make_trials(2, start=4))
    assert not jobs.fail(running, "x")
    jobs.sweep()


def test_the_bytes_of_what_nobody_composed_with_are_swept_and_those_of_the_rest_stay(ada: User):
    base_model = make_base_model()
    files = {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": b"of part",
        "README.md": b"card of part",
    }
    make_adapter("part", owner=ada, base_model=base_model, files=files)
    make_composition(owner=make_user("bob"), base_model=base_model, modules=0)
    make_adapter("alone", owner=ada, files={"adapter_model.safetensors": b"of alone"})
    finish(make_composition(owner=ada, base_model=base_model))
    leaving.delete_account(ada, actor=ada)
    Blob.objects.update(last_stored_at=timezone.now() - timedelta(days=2))
    sweeping.sweep_storage()
    left = set()
    for blob in Blob.objects.all():
        with storage.open_blob(blob) as stream:
            left.add(stream.read())
    assert left == {b"{}", b"of part"}


def test_an_upload_under_way_publishes_nothing_for_somebody_who_is_gone(
    ada: User, tmp_path: Any, monkeypatch: Any
):
    from tests.factories import publish_fake

    namespace = namespace_of(ada)
    prepare = publishing._store

    def store(files: Any) -> Any:
        blobs = prepare(files)
        leaving.delete_account(ada, actor=ada)
        return blobs

    monkeypatch.setattr(publishing, "_store", store)
    with pytest.raises(NoWriter):
        publish_fake(tmp_path, "late", owner=ada, namespace=namespace)
    assert not Adapter.objects.exists()


def test_a_task_that_somebody_else_trained_for_stays(ada: User):
    task = make_task("shared", owner=namespace_of(ada))
    make_adapter("mine", owner=ada, task=task)
    make_adapter("theirs", task=task)
    leaving.delete_account(ada, actor=ada)
    assert Client().get("/tasks/shared").status_code == 200


def test_a_task_that_they_made_goes_with_its_rows_unless_somebody_composed_for_it(ada: User):
    base_model = make_base_model()
    made: dict[str, Any] = {
        "rows": 5,
        "test_rows": 20,
        "is_held_out": True,
        "owner": namespace_of(ada),
        "created_by": ada,
    }
    unused, used = (make_task(name, base_model=base_model, **made) for name in ("unused", "used"))
    make_composition(owner=make_user("bob"), base_model=base_model, task=used, examples=())
    leaving.delete_account(ada, actor=ada)
    assert Client().get(unused.get_absolute_url()).status_code == 404
    assert not TaskRow.objects.filter(task__slug="unused").exists()
    page = Client().get(used.get_absolute_url()).content.decode()
    assert "By somebody who is gone" in page


def test_tasks_of_an_organisation_go_with_it_unless_somebody_composed_for_them(ada: User):
    lab = make_organisation("lab", members={ada: Membership.Role.ADMIN})
    make_task("unused", owner=lab)
    make_composition(task=make_task("used", owner=lab, rows=5, is_held_out=True))
    said = browser_of(ada).get("/lab/settings").content.decode()
    assert "1 task stays with leaderboard and rows" in said
    assert "1 task goes with all rows" in said
    organisations.delete_organisation(lab, actor=ada)
    assert Task.objects.get().slug == "used"


def test_a_score_of_a_module_that_goes_keeps_no_task(ada: User):
    task = make_task("mine", owner=namespace_of(ada))
    own = make_adapter("own", owner=ada, task=task)
    AdapterScore.objects.create(adapter=own, task=task, source="reported", value=0.5)
    page = browser_of(ada).get("/settings/delete").content.decode()
    assert "Of 1 task, 1 is removed with the rows." in page
    leaving.delete_account(ada, actor=ada)
    assert not Task.objects.exists()


def test_the_page_counts_the_tasks_that_go_and_those_that_stay_as_the_deletion_does(ada: User):
    base_model = make_base_model()
    made: dict[str, Any] = {
        "rows": 5, "test_rows": 20, "is_held_out": True, "owner": namespace_of(ada), "created_by": ada,
        "base_model": base_model,
    }  # fmt: skip
    client = browser_of(ada)
    assert "<dt>Tasks</dt>" not in client.get("/settings/delete").content.decode()
    unused, mine, trained, used, named = (
        make_task(name, **made) for name in ("unused", "mine", "trained", "used", "named")
    )
    make_adapter("own", owner=ada, base_model=base_model, task=trained)
    make_composition(owner=ada, base_model=base_model, task=mine, examples=(), modules=0)
    make_composition(owner=make_user("bob"), base_model=base_model, task=used, examples=(), modules=0)
    make_adapter("theirs", task=named)
    page = client.get("/settings/delete").content.decode()
    said = "Of 5 tasks, 3 are removed with the rows. 2 stay, without your name, since somebody uses them."
    assert said in page
    leaving.delete_account(ada, actor=ada)
    assert set(Task.objects.values_list("slug", flat=True)) == {"used", "named"}
    assert not Task.objects.filter(pk=unused.pk).exists()


# --- Nothing is left over ----------------------------------------------------------------------------------------


def fill(ada: User) -> None:
    """A row of everything that can point to a person, with the needle in what is theirs alone."""
    bob = make_user("bob")
    lab = make_organisation("lab", members={ada: "admin", bob: "admin"})
    Namespace.objects.filter(name="ada").update(
        full_name=NEEDLE, about=NEEDLE, website=f"https://{NEEDLE}.example"
    )
    User.objects.filter(pk=ada.pk).update(first_name=NEEDLE, last_name=NEEDLE)
    ada.groups.add(Group.objects.create(name="some"))
    ada.user_permissions.add(Permission.objects.all()[0])
    Invitation.objects.create(namespace=lab, user=make_user("carl"), role="read", invited_by=ada)
    Invitation.objects.create(namespace=make_organisation("other"), user=ada, role="read")
    Token.issue(user=ada, name=NEEDLE, scope="read")
    IdempotentAnswer.objects.create(user=ada, key=NEEDLE, request_sha256="0" * 64)
    base_model = make_base_model()
    mine = make_adapter(
        "mine", owner=ada, base_model=base_model, created_by=ada, description=NEEDLE, dataset=NEEDLE,
        training=NEEDLE, leakage=NEEDLE, prompt_template=NEEDLE, base_model_label=NEEDLE, tags=[NEEDLE],
        task=make_task(f"{NEEDLE}-task", owner=namespace_of(ada), created_by=ada),
    )  # fmt: skip
    assert mine.head is not None
    Revision.objects.filter(pk=mine.head.pk).update(author=ada, message=NEEDLE, description=NEEDLE)
    AdapterText.objects.filter(adapter=mine).update(card=NEEDLE)
    theirs = make_adapter("theirs", namespace=lab, created_by=ada)
    Revision.objects.filter(adapter=theirs).update(author=ada)
    likes.like(theirs, actor=ada)
    SentBlob.objects.create(user=ada, blob=Blob.objects.all()[0])
    SavedSearch.objects.create(user=ada, name=NEEDLE, parameters=f"q={NEEDLE}")
    NewsMail.objects.create(user=ada, origin=f"https://{NEEDLE}")
    AdapterScore.objects.create(
        adapter=theirs, task=make_task(), source="reported", value=0.5, reported_by=ada
    )
    Follow.objects.create(user=ada, adapter=theirs)
    Webhook.objects.create(user=ada, url=f"https://{NEEDLE}.example", events=[], secret=NEEDLE)
    ImportJob.objects.create(
        owner=ada, endpoint=NEEDLE, namespace=namespace_of(ada), sources=[NEEDLE], visibility="public"
    )
    PushJob.objects.create(
        owner=ada, endpoint=NEEDLE, adapter=mine, revision=mine.head, target=NEEDLE, visibility="public"
    )
    Report.objects.create(adapter=theirs, reason="spam", reporter=ada, closed_by=ada)
    texts = [
        example.__class__(f"{NEEDLE} {number}", NEEDLE) for number, example in enumerate(make_examples(5))
    ]
    finish(make_composition(owner=ada, base_model=base_model, examples=texts, title=NEEDLE))
    kept = finish(make_composition(owner=ada, base_model=base_model, examples=texts, title="Kept"))
    Composition.objects.filter(pk=kept.pk).update(
        notice_origin=f"https://{NEEDLE}", pinned=[NEEDLE], excluded=[NEEDLE], predictions=[{"input": NEEDLE}]
    )
    composed_into(kept, lab, "kept")
    Tryout.objects.create(asked_by=ada, composition=kept, text=NEEDLE)
    Audition.objects.create(
        asked_by=ada, base_model=base_model, examples=[{"input": NEEDLE, "output": ""}], fitting=0
    )
    LogEntry.objects.create(user=ada, action_flag=1, object_repr=NEEDLE)
    EmailAddress.objects.create(user=ada, email=ada.email, primary=True)
    Authenticator.objects.create(user=ada, type="totp", data={"secret": NEEDLE})
    session = Client()
    session.force_login(ada, backend=django_settings.AUTHENTICATION_BACKENDS[0])
    session.get("/")
    UserSession.objects.get_or_create(
        session_key=session.session.session_key,
        defaults={"user": ada, "ip": "127.0.0.1", "user_agent": NEEDLE},
    )
    SocialAccount.objects.create(user=ada, provider="oidc", uid=NEEDLE, extra_data={"email": NEEDLE})


def pointing_to_a_person() -> Iterator[tuple[Any, str]]:
    """(model, name of its field) of every relation to an account that there is."""
    for relation in User._meta.get_fields(include_hidden=True):
        if relation.auto_created and relation.is_relation and not relation.concrete:
            yield relation.related_model, relation.remote_field.name


def rows_of(person_id: int) -> dict[str, int]:
    return {
        f"{model._meta.label}.{name}": model._base_manager.filter(**{f"{name}_id": person_id}).count()
        for model, name in pointing_to_a_person()
    }


def test_no_row_points_to_somebody_who_is_gone_and_no_text_of_theirs_is_left(ada: User):
    fill(ada)
    before = rows_of(ada.pk)
    assert all(before.values()), (
        f"fill() makes none of these: {[name for name in before if not before[name]]}"
    )
    assert found_in_all_tables(NEEDLE)
    person_id = ada.pk
    leaving.delete_account(ada, actor=ada)
    assert set(rows_of(person_id).values()) == {0}
    assert not User.objects.filter(pk=person_id).exists()
    assert found_in_all_tables(NEEDLE) == []


def found_in_all_tables(text: str) -> list[str]:
    """Where any column of any row holds this text."""
    return [
        f"{model._meta.label}.{name}"
        for model in apps.get_models()
        for row in model._base_manager.values()
        for name, value in row.items()
        if text in (value if isinstance(value, str) else json.dumps(value, default=str))
    ]


# --- One's own data ----------------------------------------------------------------------------------------------

# What points to a person and is not in what they download, with the reason.
NOT_IN_THE_FILE = {
    "registry.User_groups.user": "set by the people who run the site",
    "registry.User_user_permissions.user": "set by the people who run the site",
    "registry.Invitation.invited_by": "an act for an organisation",
    "registry.IdempotentAnswer.user": "answers that are repeated for a day",
    "registry.Adapter.created_by": "versions_by_you says it",
    "registry.SentBlob.user": "bytes on their way, for a day",
    "registry.Report.closed_by": "an act for the site",
    "admin.LogEntry.user": "an act for the site",
}
IN_THE_FILE = {
    "registry.Membership.user": "organisations",
    "registry.Invitation.user": "invitations",
    "registry.Token.user": "tokens",
    "registry.Revision.author": "versions_by_you",
    "registry.Task.created_by": "tasks_by_you",
    "registry.Like.user": "likes",
    "registry.SavedSearch.user": "saved_searches",
    "registry.NewsMail.user": "mails_of_what_is_new",
    "registry.AdapterScore.reported_by": "scores_by_you",
    "registry.Follow.user": "follows",
    "registry.Webhook.user": "webhooks",
    "registry.ImportJob.owner": "imports",
    "registry.PushJob.owner": "pushes",
    "registry.Report.reporter": "reports_by_you",
    "compose.Composition.owner": "compositions",
    "compose.Tryout.asked_by": "tryouts",
    "compose.Audition.asked_by": "auditions",
    "account.EmailAddress.user": "email_addresses",
    "mfa.Authenticator.user": "second_factors",
    "usersessions.UserSession.user": "sessions",
    "socialaccount.SocialAccount.user": "linked_accounts",
}


def test_the_file_of_ones_own_data_holds_something_of_everything_and_no_secret(ada: User):
    fill(ada)
    secret = make_token(ada, name="script")
    client = Client()  # with a second factor now
    client.force_login(ada, backend=django_settings.AUTHENTICATION_BACKENDS[0])
    answer = client.get("/settings/data.json")
    assert answer["Content-Disposition"] == 'attachment; filename="ada-lora-commons.json"'
    assert isinstance(answer, StreamingHttpResponse)
    text = answer.getvalue().decode()
    data = json.loads(text)
    assert data["account"]["email"] == ada.email
    assert data["account"]["name"] == data["account"]["about"] == NEEDLE
    assert data["account"]["website"] == f"https://{NEEDLE}.example"
    assert [row["name"] for row in data["adapters"]] == ["mine"]
    assert len(data["compositions"][0]["examples"]) == 5
    kinds = {f"{model._meta.label}.{name}" for model, name in pointing_to_a_person()}
    assert kinds == set(NOT_IN_THE_FILE) | set(IN_THE_FILE), "say whether it is in the file, or why not"
    assert [name for name in IN_THE_FILE.values() if not data[name]] == []
    person = User.objects.get(pk=ada.pk)
    for hidden in (secret, Token.digest(secret), person.password, '"secret"', client.session.session_key):
        assert hidden
        assert hidden not in text


def test_hidden_rows_of_a_task_and_what_others_hide_are_not_in_the_file(ada: User):
    base_model = make_base_model()
    task = make_task("hidden", rows=5, test_rows=20, is_held_out=True, base_model=base_model)
    make_composition(owner=ada, base_model=base_model, task=task, examples=())
    liked = make_adapter("liked")
    likes.like(liked, actor=ada)
    Adapter.objects.filter(pk=liked.pk).update(visibility="private", name="renamed-secretly")
    text = "".join(own_data.as_json(ada))
    [composition] = json.loads(text)["compositions"]
    assert (composition["has_hidden_test"], composition["test_examples"]) == (True, [])
    assert "test question 15" not in text
    assert "renamed-secretly" not in text


def test_an_empty_account_has_a_file_too(ada: User):
    data = json.loads("".join(own_data.as_json(ada)))
    assert data["adapters"] == data["compositions"] == []
    assert data["format"] == "lora-commons/own-data"
