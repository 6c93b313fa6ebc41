"""Organisations: founding, asking people, roles, leaving, deleting; by function, page, API and Hub protocol."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
from django.test import Client

from registry import accounts, moving, organisations, publishing, rights
from registry.models import Adapter, AdapterScore, AuditEntry, Membership, Namespace, Task, User
from registry.names import InvalidName
from tests.beside import after
from tests.factories import make_adapter, make_organisation, make_task, make_token, make_user, publish_fake
from tests.visitors import client_of
from web.errors import DomainError, Forbidden, NotFound

pytestmark = pytest.mark.django_db


@pytest.fixture
def lab(ada) -> Namespace:
    return organisations.create_organisation(founder=ada, name="story-lab", full_name="Story Lab")


def api(secret: str, method: str, path: str, body: Any = None) -> Any:
    return Client().generic(
        method,
        f"/api/v1/{path}",
        json.dumps(body) if body is not None else "",
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
    )


def join(lab: Namespace, by: User, person: User, role: str) -> None:
    organisations.invite(lab, actor=by, username=person.username, role=role)
    organisations.accept(lab.name, person=person)


# --- Rules -------------------------------------------------------------------------------------------------


def test_a_founder_is_its_admin_and_its_names_are_checked(ada, lab):
    assert rights.is_admin(ada, lab)
    with pytest.raises(DomainError) as taken:
        organisations.create_organisation(founder=ada, name="STORY-lab")
    assert taken.value.code == "name_taken"
    for name in ("", "settings", "a b", "x" * 97, "-a", "a--b"):
        with pytest.raises(InvalidName):
            organisations.create_organisation(founder=ada, name=name)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("\u202eevil", "The name to show holds the character U+202E, which no text here may."),
        ("\u200b \u3164\u0301", "The name to show has no character that can be seen."),
    ],
)
def test_a_name_to_show_can_be_seen(ada, lab, shown, said):
    for address in ("/settings", "/story-lab/settings"):
        answer = client_of(ada).post(address, {"full_name": shown})
        assert (answer.status_code, said in answer.content.decode()) == (400, True)
    assert Namespace.objects.get(pk=lab.pk).full_name == "Story Lab"


def test_who_is_asked_belongs_only_once_they_accept(ada, bob, lab):
    organisations.invite(lab, actor=ada, username="BOB", role="write")
    assert not rights.is_member(bob, lab)
    with pytest.raises(organisations.AlreadyThere):
        organisations.invite(lab, actor=ada, username="bob", role="read")
    organisations.accept("story-lab", person=bob)
    assert rights.may_write(bob, lab)
    assert not rights.is_admin(bob, lab)
    with pytest.raises(NotFound):
        organisations.accept("story-lab", person=bob)
    with pytest.raises(organisations.NoSuchPerson):
        organisations.invite(lab, actor=ada, username="nobody", role="read")


def test_who_is_asked_is_told_by_mail_once_a_day_and_at_home(ada, lab, mailoutbox, settings):
    bob = make_user("bob", email="bob@example.org")
    client = client_of(ada)
    for _ in range(2):
        said = client.post("/story-lab/settings/invite", {"username": "bob", "role": "write"}, follow=True)
        organisations.withdraw_invitation(lab, actor=ada, username="bob")
    [mail] = mailoutbox
    assert (mail.subject, mail.to) == ("[LoRA Commons] Join story-lab?", ["bob@example.org"])
    assert "ada asks you to join story-lab on LoRA Commons. You could publish there." in mail.body
    assert "http://testserver/settings/organizations" in mail.body
    assert "No mail goes to them; it is on their start page." in said.content.decode()
    carl = make_user("carl", email="carl@example.org")
    answer = api(make_token(ada), "POST", "organizations/story-lab/members/", {"username": "carl"})
    assert answer.status_code == 201
    assert mailoutbox[1].to == ["carl@example.org"]
    home = Client()
    assert "to join <a" not in home.get("/").content.decode()
    home.force_login(carl)
    assert 'ada asks you to join <a href="/story-lab">story-lab</a>' in home.get("/").content.decode()
    organisations.accept("story-lab", person=carl)
    assert "to join <a" not in home.get("/").content.decode()
    assert not rights.is_member(bob, lab)


def test_however_many_ask_one_to_join_the_start_page_shows_a_few(ada, bob):
    for number in range(5):
        one = organisations.create_organisation(founder=ada, name=f"lab-{number}")
        organisations.invite(one, actor=ada, username="bob", role="read")
    assert client_of(bob).get("/").content.decode().count("asks you to join <a") == 3


def test_who_declines_or_is_no_longer_asked_stays_out(ada, bob, lab):
    organisations.invite(lab, actor=ada, username="bob", role="read")
    organisations.decline("story-lab", person=bob)
    organisations.invite(lab, actor=ada, username="bob", role="read")
    organisations.withdraw_invitation(lab, actor=ada, username="bob")
    with pytest.raises(NotFound):
        organisations.accept("story-lab", person=bob)
    assert not rights.is_member(bob, lab)


@pytest.mark.parametrize("role", ["read", "write"])
def test_only_an_admin_changes_people(ada, bob, lab, role):
    join(lab, ada, bob, role)
    for act in (
        lambda: organisations.invite(lab, actor=bob, username="ada", role="read"),
        lambda: organisations.change_role(lab, actor=bob, username="bob", role="admin"),
        lambda: organisations.remove(lab, actor=bob, username="ada"),
        lambda: organisations.describe(lab, actor=bob, full_name="Mine"),
        lambda: organisations.delete_organisation(lab, actor=bob),
    ):
        with pytest.raises(Forbidden):
            act()
    assert Membership.objects.filter(namespace=lab).count() == 2


def test_an_invitation_that_is_taken_back_at_this_moment_lets_nobody_in(ada, bob, lab, monkeypatch):
    eve = make_user("eve")
    organisations.invite(lab, actor=ada, username="eve", role="admin")
    hold = organisations._held

    def late(organisation):
        monkeypatch.setattr(organisations, "_held", hold)
        organisations.withdraw_invitation(lab, actor=ada, username="eve")
        return hold(organisation)

    monkeypatch.setattr(organisations, "_held", late)
    with pytest.raises(NotFound, match="no invitation"):
        organisations.accept("story-lab", person=eve)
    assert not rights.is_member(eve, lab)


def test_the_last_admin_neither_leaves_nor_steps_down(ada, bob, lab):
    join(lab, ada, bob, "write")
    for act in (
        lambda: organisations.remove(lab, actor=ada, username="ada"),
        lambda: organisations.change_role(lab, actor=ada, username="ada", role="write"),
    ):
        with pytest.raises(organisations.LastAdmin):
            act()
    organisations.change_role(lab, actor=ada, username="bob", role="admin")
    organisations.remove(lab, actor=ada, username="ada")
    assert not rights.is_member(ada, lab)
    with pytest.raises(organisations.LastAdmin):
        organisations.remove(lab, actor=bob, username="bob")


def test_an_admin_whose_account_is_blocked_does_not_count_and_is_shown_to_be(ada, bob, lab):
    join(lab, ada, bob, "admin")
    assert "account blocked" not in client_of(ada).get("/story-lab/settings").content.decode()
    accounts.block(bob, moderator=None)
    with pytest.raises(organisations.LastAdmin):
        organisations.change_role(lab, actor=ada, username="ada", role="read")
    assert "account blocked" in client_of(ada).get("/story-lab/settings").content.decode()


def test_a_change_of_role_counts_for_the_next_request(tmp_path, ada, bob, lab):
    join(lab, ada, bob, "read")
    adapter = publish_fake(tmp_path, "m", owner=ada, namespace=lab, visibility="private")
    page = client_of(bob)
    secret = make_token(bob)
    assert page.get("/story-lab/m").status_code == 200
    assert api(secret, "PATCH", "adapters/story-lab/m/", {"description": "x"}).status_code == 403
    organisations.change_role(lab, actor=ada, username="bob", role="write")
    assert api(secret, "PATCH", "adapters/story-lab/m/", {"description": "x"}).status_code == 200
    organisations.remove(lab, actor=ada, username="bob")
    assert page.get("/story-lab/m").status_code == 404
    file = f"/story-lab/m/download/{adapter.head.commit}/adapter_model.safetensors"
    assert page.get(file, headers={"Range": "bytes=0-3"}).status_code == 404
    assert api(secret, "GET", "adapters/story-lab/m/").status_code == 404


def test_its_settings_say_how_many_modules_go_with_it_and_how_many_tasks_stay(ada, bob, lab):
    for name in ("one", "two"):
        make_adapter(name, namespace=lab)
    client = Client()
    client.force_login(ada)
    page = client.get("/story-lab/settings").content.decode()
    assert "with 2 modules and their cards and files." in page
    assert "with all rows" not in page
    used, scored, _, _ = (make_task(name, owner=lab) for name in ("used", "scored", "own", "unused"))
    make_task("private", owner=lab, is_private=True)
    make_adapter("trained", owner=bob, task=used)
    AdapterScore.objects.create(adapter=make_adapter("best"), task=scored, source="reported", value=0.5)
    own = make_adapter("ours", namespace=lab, task=Task.objects.get(slug="own"))
    AdapterScore.objects.create(adapter=own, task=Task.objects.get(slug="own"), source="reported", value=0.5)
    page = client.get("/story-lab/settings").content.decode()
    assert "2 tasks stay with leaderboard and rows, for the scores of others." in page
    assert "3 tasks go with all rows, being private or used by nobody." in page
    organisations.delete_organisation(lab, actor=ada)
    assert list(Task.objects.filter(owner=lab).values_list("slug", flat=True)) == ["scored", "used"]


def test_a_deleted_organisation_takes_its_modules_along_and_leaves_its_name(ada, bob, lab):
    adapter = make_adapter("m", namespace=lab)
    secret = make_token(ada, namespace=lab)
    organisations.delete_organisation(lab, actor=ada)
    adapter.refresh_from_db()
    assert adapter.deleted_at
    for address in (
        "/story-lab",
        "/story-lab/m",
        "/story-lab/settings",
        "/api/organizations/story-lab/overview",
    ):
        assert client_of(ada).get(address).status_code == 404, address
    assert api(secret, "GET", "whoami/").status_code == 401
    for person in (ada, bob):
        with pytest.raises(DomainError):
            organisations.create_organisation(founder=person, name="Story-Lab")
    answer = Client().post(
        "/accounts/signup/",
        {"username": "story-LAB", "password1": "correct horse battery", "password2": "correct horse battery"},
    )
    assert "not handed out twice" in answer.content.decode()
    assert not User.objects.filter(username__iexact="story-lab").exists()


def test_what_is_in_quarantine_does_not_vanish_with_its_organisation(ada, lab):
    make_adapter("m", namespace=lab, quarantined_at="2026-01-01T00:00Z")
    with pytest.raises(DomainError):
        organisations.delete_organisation(lab, actor=ada)
    assert Adapter.objects.alive().count() == 1


def test_every_act_is_in_the_book(ada, bob, lab):
    join(lab, ada, bob, "read")
    organisations.change_role(lab, actor=ada, username="bob", role="write")
    organisations.remove(lab, actor=bob, username="bob")
    organisations.describe(lab, actor=ada, full_name="Tale Lab")
    organisations.describe(lab, actor=ada, full_name="Tale Lab")  # changes nothing
    organisations.describe(lab, actor=ada, full_name="Tale Lab", about="Tells tales.")
    organisations.delete_organisation(lab, actor=ada)
    entries = AuditEntry.objects.order_by("id").values_list("actor_name", "action")
    assert list(entries) == [
        ("ada", "found"),
        ("ada", "invite"),
        ("bob", "join"),
        ("ada", "change role"),
        ("bob", "leave"),
        ("ada", "rename"),
        ("ada", "describe"),
        ("ada", "delete"),
    ]
    assert AuditEntry.objects.get(action="rename").detail == "from 'Story Lab' to 'Tale Lab'"
    assert AuditEntry.objects.get(action="describe").detail == "about"


def test_a_limited_or_reading_token_changes_no_people(ada, lab):
    for fields, code in (({"scope": "read"}, 403), ({"namespace": lab}, 403)):
        secret = make_token(ada, **fields)
        assert (
            api(secret, "POST", "organizations/story-lab/members/", {"username": "bob"}).status_code == code
        )
        assert api(secret, "DELETE", "organizations/story-lab/").status_code == code
        assert api(secret, "DELETE", "organizations/story-lab/members/ada/").status_code == code


# --- Doors -------------------------------------------------------------------------------------------------


def test_the_whole_life_of_an_organisation_by_pages(ada, bob):
    founder, other = client_of(ada), client_of(bob)
    answer = founder.post("/organizations/new", {"name": "lab", "full_name": "The Lab"})
    assert answer["Location"] == "/lab/settings"
    assert founder.post("/lab/settings/invite", {"username": "bob", "role": "read"}).status_code == 302
    assert "bob" in founder.get("/lab/settings").content.decode()
    assert "lab" in other.get("/settings/organizations").content.decode()
    assert other.post("/settings/organizations/lab/answer", {"answer": "perhaps"}).status_code == 400
    other.post("/settings/organizations/lab/answer", {"answer": "accept"})
    assert other.get("/lab/settings").status_code == 200
    assert other.post("/lab/settings/invite", {"username": "ada", "role": "read"}).status_code == 403
    founder.post("/lab/settings/members/bob", {"role": "admin"})
    founder.post("/lab/settings", {"full_name": "Another"})
    assert "Another" in Client().get("/lab").content.decode()
    assert founder.post("/settings/organizations/lab/leave").status_code == 302
    assert other.post("/lab/settings/delete", {"confirm": "la"}).status_code == 400
    assert other.post("/lab/settings/delete", {"confirm": "lab"}).status_code == 302
    assert Client().get("/lab").status_code == 404


def test_pages_refuse_strangers_and_bad_input(ada, lab):
    stranger = client_of(make_user("eve"))
    assert stranger.get("/story-lab/settings").status_code == 403
    assert stranger.get("/nobody/settings").status_code == 404
    assert Client().get("/story-lab/settings").status_code == 302
    assert stranger.post("/settings/organizations/story-lab/answer", {"answer": "accept"}).status_code == 404
    admin = client_of(ada)
    assert admin.post("/organizations/new", {"name": "a b"}).status_code == 400
    assert admin.post("/story-lab/settings/invite", {"username": "nobody", "role": "read"}).status_code == 400
    assert admin.post("/story-lab/settings/invite", {"username": "eve", "role": "king"}).status_code == 400
    assert admin.post("/story-lab/settings/members/ada", {"role": "king"}).status_code == 400
    assert admin.post("/story-lab/settings/members/ada", {"action": "remove"}).status_code == 409
    assert admin.post("/story-lab/settings", {"full_name": "x" * 201}).status_code == 400
    assert admin.get("/ada/settings")["Location"] == "/settings"


def test_the_api_does_the_same(ada, bob):
    first, second = make_token(ada), make_token(bob)
    founded = api(first, "POST", "organizations/", {"name": "lab"})
    assert founded.status_code == 201
    assert founded.json()["members"] == [{"username": "ada", "role": "admin"}]
    assert api(first, "POST", "organizations/lab/members/", {"username": "bob"}).json()["invited"]
    assert api(second, "GET", "invitations/").json() == [{"organization": "lab", "role": "write"}]
    assert api(second, "GET", "organizations/lab/").status_code == 403
    assert api(second, "POST", "invitations/lab/").json()["your_role"] == "write"
    assert api(second, "GET", "organizations/").json()[0]["name"] == "lab"
    assert api(second, "PATCH", "organizations/lab/members/bob/", {"role": "admin"}).status_code == 403
    assert api(first, "PATCH", "organizations/lab/members/bob/", {"role": "king"}).status_code == 400
    assert api(first, "PATCH", "organizations/lab/members/bob/", {"role": "admin"}).status_code == 200
    assert api(second, "DELETE", "organizations/lab/members/ada/").status_code == 204
    assert api(second, "DELETE", "organizations/lab/members/bob/").status_code == 409
    assert api(second, "PATCH", "organizations/lab/", {"full_name": "L"}).json()["full_name"] == "L"
    said = {"about": "Short tales.", "website": "https://lab.example"}
    changed = api(second, "PATCH", "organizations/lab/", said).json()
    assert {name: changed[name] for name in ("full_name", *said)} == {"full_name": "L", **said}
    assert api(second, "GET", "organizations/").json()[0]["about"] == "Short tales."
    assert api(second, "DELETE", "organizations/lab/").status_code == 204
    assert Client().get("/api/v1/organizations/").status_code == 401


def test_a_name_of_two_lines_is_refused_when_it_is_founded_as_it_is_later(ada):
    token = make_token(ada)
    answer = api(token, "POST", "organizations/", {"name": "lab", "full_name": "One\nTwo"})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["full_name"])
    assert not Namespace.objects.filter(name="lab").exists()


def test_the_hubs_clients_see_their_organisations_with_their_role(ada):
    make_organisation("lab", members={ada: "write"})
    answer = Client().get("/api/whoami-v2", headers={"Authorization": f"Bearer {make_token(ada)}"}).json()
    assert [(org["name"], org["roleInOrg"]) for org in answer["orgs"]] == [("lab", "write")]


@pytest.mark.parametrize(("role", "may"), [("read", False), ("write", True)])
def test_who_may_write_deletes_and_renames_as_the_settings_say(ada, bob, lab, role, may):
    join(lab, ada, bob, role)
    adapter = make_adapter("m", namespace=lab)
    page = client_of(bob).get("/story-lab/settings").content.decode()
    assert "write publishes, changes, renames and deletes modules" in page
    for act in (
        lambda: moving.move(adapter, actor=bob, namespace=lab, name="other"),
        lambda: publishing.withdraw(adapter, actor=bob),
    ):
        with nullcontext() if may else pytest.raises(Forbidden):
            act()


@pytest.mark.parametrize(("role", "may"), [("write", False), ("admin", True)])
def test_out_of_an_organisation_its_admins_alone_move_what_is_its_own(ada, bob, lab, role, may):
    join(lab, ada, bob, role)
    adapter = make_adapter("m", namespace=lab, visibility="private")
    client = client_of(bob)
    form = client.get("/story-lab/m/settings").content.decode()
    assert ('<option value="bob">' in form) is may
    assert ("Out of an organisation its admins alone move a module." in form) is not may
    answer = api(make_token(bob), "POST", "adapters/story-lab/m/move/", {"namespace": "bob"})
    adapter.refresh_from_db()
    if may:
        assert (answer.status_code, adapter.full_name) == (200, "bob/m")
        return
    assert (answer.status_code, adapter.full_name) == (403, "story-lab/m")
    assert "Only an admin of story-lab may move its modules to another namespace." in answer.json()["message"]
    hub = Client().post(
        "/api/repos/move", {"fromRepo": "story-lab/m", "toRepo": "bob/m"}, "application/json",
        headers={"Authorization": f"Bearer {make_token(bob)}"},
    )  # fmt: skip
    assert hub.status_code == 403
    assert client.post("/story-lab/m/move", {"move-namespace": "bob", "move-name": "m"}).status_code == 400
    assert Adapter.objects.get(pk=adapter.pk).full_name == "story-lab/m"


def test_who_was_no_admin_any_more_when_their_turn_came_changes_nothing(ada, bob, lab, monkeypatch):
    join(lab, ada, bob, "admin")
    demote = lambda: Membership.objects.filter(namespace=lab, user=ada).update(role="read")  # noqa: E731
    after(organisations, "_check_role", demote, monkeypatch)
    with pytest.raises(Forbidden):
        organisations.change_role(lab, actor=ada, username="bob", role="read")
    assert Membership.objects.get(namespace=lab, user=bob).role == "admin"


def test_who_is_taken_out_while_they_are_answered_is_told_so(ada, bob, lab, monkeypatch):
    join(lab, ada, bob, "admin")
    secret = make_token(bob)
    original = organisations.members_of

    def members_without_bob(organisation):
        Membership.objects.filter(user=bob, namespace=lab).delete()
        return original(organisation)

    monkeypatch.setattr(organisations, "members_of", members_without_bob)
    answer = api(secret, "get", "organizations/story-lab/")
    assert (answer.status_code, answer.json()["message"]) == (403, "You are not a member of story-lab.")
