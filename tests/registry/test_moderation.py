"""Reports of anybody, the queue of moderators, and quarantine: hidden, frozen, undone, written down."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client

from registry import commits, moderation, moving, publishing, refs
from registry.models import Adapter, AuditEntry, Report, User
from registry.rights import Quarantined
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_token,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.fake_adapters import files_of
from tests.fake_adapters import make_adapter as make_adapter_folder
from tests.visitors import client_of
from web.errors import Conflict, DomainError, Forbidden

pytestmark = pytest.mark.django_db


@pytest.fixture
def sam() -> User:
    return make_user("sam", is_staff=True)


@pytest.fixture
def module(tmp_path, ada) -> Adapter:
    return publish_fake(tmp_path, "m", owner=ada)


def report(module: Adapter, **said: Any) -> Report:
    return moderation.report(
        module, **{"reporter": None, "address": "10.0.0.1", "reason": "spam", "text": "", **said}
    )


# --- Reports -----------------------------------------------------------------------------------------------


def test_anybody_reports_and_the_moderator_sees_it(module, sam):
    assert Client().get("/ada/m/report").status_code == 200
    answer = Client().post("/ada/m/report", {"reason": "malicious", "text": "It opens\na shell <b>"})
    assert answer.status_code == 302
    page = client_of(sam).get("/moderation").content.decode()
    assert "It opens a shell &lt;b&gt;" in page
    assert "ada/m" in page


def test_the_start_page_tells_moderators_alone_that_reports_wait(module, ada, sam, tmp_path):
    gone = publish_fake(tmp_path, "gone", owner=ada)
    report(gone)
    publishing.withdraw(gone, actor=ada)
    assert "looked at" not in client_of(sam).get("/").content.decode()
    report(module)
    assert "1 report waits to be looked at." in client_of(sam).get("/").content.decode()
    assert "looked at" not in client_of(ada).get("/").content.decode()
    moderation.dismiss(module, moderator=sam)
    assert "looked at" not in client_of(sam).get("/").content.decode()


def test_a_report_says_what_is_wrong(module):
    for said in ({"reason": "king"}, {"reason": ""}, {"reason": "other", "text": " "}, {"text": "x" * 2001}):
        with pytest.raises(DomainError):
            report(module, **said)
    assert Client().post("/ada/m/report", {"reason": "king"}).status_code == 400
    assert not Report.objects.exists()


def test_what_somebody_cannot_see_they_cannot_report(module):
    Adapter.objects.update(visibility="private")
    assert Client().post("/ada/m/report", {"reason": "spam"}).status_code == 404


def test_reports_are_limited_by_address_and_by_person(module, tmp_path):
    for _ in range(moderation.MAX_REPORTS_PER_ADDRESS):
        report(module)
    with pytest.raises(moderation.TooManyReports):
        report(module)
    report(module, address="10.0.0.2")
    bob = make_user("bob")
    report(module, reporter=bob)
    with pytest.raises(moderation.ReportedAlready):
        report(module, reporter=bob)
    assert client_of(bob).post("/ada/m/report", {"reason": "spam"}).status_code == 409


def test_a_moderator_closes_reports_and_leaves_the_module(module, sam):
    report(module)
    told = client_of(sam).post("/ada/m/moderate", {"action": "dismiss", "reason": "fine"}, follow=True)
    assert "1 report of it is closed; ada/m stays as it is." in told.content.decode()
    assert Report.objects.get().outcome == "dismissed"
    assert not moderation.queue().exists()
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.detail) == ("dismiss reports", "1 report. fine")


def test_what_cannot_be_done_is_said_in_the_queue_beside_the_words_that_were_sent(module, sam):
    report(module)
    moderator = client_of(sam)
    for sent, why in (("", "Say what is wrong"), ("x" * 501, "has 501 characters")):
        answer = moderator.post("/ada/m/moderate", {"action": "quarantine", "reason": sent})
        page = answer.content.decode()
        assert answer.status_code == 400
        assert why in page
        assert f'value="{sent}" aria-invalid="true"' in page
    assert moderation.queue().count() == 1
    moderation.quarantine(module, moderator=None, reason="x")
    answer = moderator.post("/ada/m/moderate", {"action": "quarantine", "reason": "y"})
    assert answer.status_code == 409
    assert "ada/m is in quarantine already" in answer.content.decode()
    assert moderator.post("/ada/m/moderate", {"action": "burn"}).status_code == 400


# --- Quarantine ----------------------------------------------------------------------------------------------


def test_quarantine_hides_from_all_but_members_and_says_why(module, ada, sam):
    report(module)
    moderation.quarantine(
        module, moderator=sam, reason="Its card phishes. Take the link out and write to us."
    )
    for address in (
        "/ada/m",
        "/api/v1/adapters/ada/m/",
        "/api/models/ada/m",
        "/ada/m/resolve/main/adapter_config.json",
    ):
        assert Client().get(address).status_code == 404, address
        assert client_of(make_user()).get(address).status_code == 404, address
    assert b"ada/m" not in Client().get("/modules").content
    assert Client().get("/api/v1/adapters/").json()["results"] == []
    assert "Its card phishes." in client_of(ada).get("/ada/m").content.decode()
    assert client_of(sam).get("/ada/m").status_code == 200
    assert Report.objects.get().outcome == "quarantined"


def test_its_members_are_told_in_lists_too_and_that_nobody_composes_with_it(ada):
    made = make_adapter("held", owner=ada, base_model=make_base_model(), facts={"rank": 4})
    moderation.quarantine(made, moderator=None, reason="x")
    member = client_of(ada)
    for page in ("/ada", "/modules?namespace=ada", "/ada/held"):
        shown = member.get(page).content.decode()
        assert "in quarantine" in shown, page
        assert not re.search("omposes with [0-9]", shown), page
        assert "/ada/held/feed.atom" not in shown, "there is none"


def test_quarantine_freezes_behind_every_door(module, ada, sam, tmp_path):
    moderation.quarantine(module, moderator=sam, reason="x")
    module.refresh_from_db()
    again = files_of(make_adapter_folder(tmp_path / "again", seed=7))
    for act in (
        lambda: publishing.publish(author=ada, namespace=namespace_of(ada), name="m", files=again),
        lambda: publishing.update_adapter(module, actor=ada, description="x"),
        lambda: publishing.withdraw(module, actor=ada),
        lambda: moving.move(module, actor=ada, namespace=namespace_of(ada), name="n"),
        lambda: refs.create(module, actor=ada, kind="tag", name="v1", revision=module.head),
        lambda: commits.commit(module, actor=ada, operations=[], message="x"),
    ):
        with pytest.raises(Quarantined):
            act()
    secret = make_token(ada)
    for method, address, body in (
        ("PATCH", "/api/v1/adapters/ada/m/", {"description": "x"}),
        ("DELETE", "/api/v1/adapters/ada/m/", {}),
        ("PUT", "/api/models/ada/m/settings", {"private": True}),
        ("POST", "/api/models/ada/m/preupload/main", {"files": []}),
    ):
        answer = Client().generic(
            method, address, json.dumps(body), content_type="application/json",
            headers={"Authorization": f"Bearer {secret}"},
        )  # fmt: skip
        assert answer.status_code == 403, address
    assert client_of(ada).post("/ada/m/settings", {"visibility": "private"}).status_code == 403
    assert Adapter.objects.get().revisions.count() == 1


def test_release_shows_it_as_it_was_and_both_acts_are_in_the_book(module, sam):
    moderation.quarantine(module, moderator=sam, reason="x")
    with pytest.raises(Conflict):
        moderation.quarantine(module, moderator=sam, reason="x")
    client_of(sam).post("/ada/m/moderate", {"action": "release", "reason": "mended"})
    assert Client().get("/ada/m").status_code == 200
    with pytest.raises(Conflict):
        moderation.release(Adapter.objects.get(), moderator=sam)
    entries = AuditEntry.objects.order_by("id").values_list("actor_name", "action", "detail")
    assert list(entries) == [("sam", "quarantine", "x"), ("sam", "release", "mended")]


def test_only_staff_who_are_here_themselves_moderate(module, ada):
    lab = make_organisation("lab", members={ada: "admin"})
    for person in (ada, make_user()):
        with pytest.raises(Forbidden):
            moderation.quarantine(module, moderator=person, reason="x")
        assert client_of(person).get("/moderation").status_code == 403
        assert client_of(person).post("/ada/m/moderate", {"action": "quarantine"}).status_code == 403
    assert Client().get("/moderation").status_code == 302
    assert lab.name == "lab"
    assert not Adapter.objects.exclude(quarantined_at=None).exists()


def test_a_private_module_is_decided_about_once_a_member_reported_it_and_never_shown(module, ada, sam):
    Adapter.objects.update(visibility="private")
    browser = client_of(sam)
    close = {"action": "dismiss", "reason": "fine"}
    assert browser.post("/ada/m/moderate", close).status_code == 404
    assert client_of(ada).post("/ada/m/report", {"reason": "spam"}).status_code == 302
    page = browser.get("/moderation").content.decode()
    assert "ada/m" in page
    assert 'href="/ada/m"' not in page
    assert browser.post("/ada/m/moderate", close).status_code == 302
    assert Report.objects.get().outcome == "dismissed"
    assert browser.post("/ada/m/moderate", close).status_code == 404
    moderation.quarantine(module, moderator=None, reason="x")
    assert browser.get("/ada/m").status_code == 404
    assert browser.post("/ada/m/moderate", {"action": "release"}).status_code == 302
    assert Adapter.objects.get().quarantined_at is None


def test_a_quarantine_without_a_reason_is_refused(module, sam):
    assert client_of(sam).post("/ada/m/moderate", {"action": "quarantine", "reason": " "}).status_code == 400
    assert client_of(sam).post("/ada/m/moderate", {"action": "burn"}).status_code == 400
