from __future__ import annotations

import importlib
import random
import re
from datetime import datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client
from django.utils import timezone

from registry import commits, following, publishing, refs, storage
from registry.models import Adapter, Revision
from tests.factories import make_adapter, make_revision, make_user, namespace_of, publish_fake

pytestmark = pytest.mark.django_db
ATOM = "{http://www.w3.org/2005/Atom}"


def titles(address: str) -> list[str]:
    answer = Client().get(address)
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"].startswith("application/atom+xml")
    feed = ElementTree.fromstring(answer.content)
    return [entry.findtext(f"{ATOM}title", "") for entry in feed.findall(f"{ATOM}entry")]


def times(address: str) -> list[datetime]:
    feed = ElementTree.fromstring(Client().get(address).content)
    return [
        datetime.fromisoformat(entry.findtext(f"{ATOM}published", ""))
        for entry in feed.findall(f"{ATOM}entry")
    ]


def test_feeds_tell_of_public_versions_and_of_nothing_private():
    ada = make_user("ada")
    make_adapter("seen", owner=ada, facts={"rank": 4}, language="de")
    make_adapter("hidden", owner=ada, facts={"rank": 4}, visibility="private")
    assert titles("/ada/feed.atom") == ["ada/seen: Upload"]
    assert titles("/ada/seen/feed.atom") == ["ada/seen: Upload"]
    assert titles("/modules/feed.atom?language=de") == ["ada/seen: Upload"]
    assert titles("/modules/feed.atom?language=fr") == []


def test_a_description_is_text_in_every_reader_and_what_has_not_changed_is_not_sent_again():
    make_adapter("seen", owner=make_user("ada"), facts={"rank": 4}, description="a < b & <b>c</b>")
    answer = Client().get("/ada/feed.atom")
    summary = ElementTree.fromstring(answer.content).find(f"{ATOM}entry/{ATOM}summary")
    assert (summary.get("type"), summary.text) == ("html", "a &lt; b &amp; &lt;b&gt;c&lt;/b&gt;")
    again = Client().get("/ada/feed.atom", headers={"If-None-Match": answer["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_no_character_breaks_a_feed_for_its_readers():
    seen = make_adapter("seen", owner=make_user("ada"), facts={"rank": 4}, description="a\ufffeb\x01c")
    seen.revisions.update(message="one\uffff\U0001f600")
    assert titles("/ada/feed.atom") == ["ada/seen: one\ufffd\U0001f600"]


def test_two_searches_have_feeds_of_their_own():
    ids = set()
    for query in ("?language=de", "?language=fr", ""):
        feed = ElementTree.fromstring(Client().get(f"/modules/feed.atom{query}").content)
        assert feed.find(f"{ATOM}link[@rel='alternate']").get("href") == f"http://testserver/modules{query}"
        ids.add(feed.findtext(f"{ATOM}id"))
    assert len(ids) == 3
    feed = ElementTree.fromstring(Client().get("/modules/feed.atom?q=colour&rank=8").content)
    assert feed.findtext(f"{ATOM}title") == "New LoRA modules: colour, rank 8 · LoRA Commons"


def test_what_is_gone_is_no_longer_shown_as_followed(client: Client):
    gone, bob = make_adapter("gone", facts={"rank": 4}), make_user("bob")
    following.follow(user=bob, adapter=gone)
    client.force_login(bob)
    assert gone.full_name in client.get("/settings/following").content.decode()
    Adapter.objects.update(visibility="private")
    page = client.get("/settings/following").content.decode()
    assert gone.full_name not in page
    assert "You follow nothing yet" in page


def test_what_is_opened_is_new_to_everybody_then_and_only_the_first_time(client: Client):
    ada = make_user("ada")
    late = make_adapter("late", owner=ada, facts={"rank": 4}, visibility="private")
    make_revision(late, facts={"rank": 4})
    long_ago = timezone.now() - timedelta(days=40)
    Adapter.objects.update(created_at=long_ago)
    Revision.objects.update(created_at=long_ago)
    late.refresh_from_db()
    make_adapter("early", owner=ada, facts={"rank": 4})

    def newest() -> list[str]:
        return [row["name"] for row in Client().get("/api/v1/adapters/").json()["results"]]

    assert newest() == ["early"]
    publishing.update_adapter(late, actor=ada, visibility="public")
    assert newest() == ["late", "early"]
    assert re.findall("/ada/(late|early)", Client().get("/").content.decode()) == ["late", "early"]
    # Its newest version is new; the one before is as old as it is.
    assert titles("/ada/feed.atom") == ["ada/late: Upload", "ada/early: Upload", "ada/late: Upload"]
    assert [when.date() for when in times("/ada/feed.atom")][::2] == [timezone.now().date(), long_ago.date()]
    assert times("/modules/feed.atom")[0] == times("/ada/feed.atom")[0]

    opened_at = Adapter.objects.get(name="late").published_at
    publishing.update_adapter(late, actor=ada, visibility="private")
    make_adapter("last", owner=ada, facts={"rank": 4})
    publishing.update_adapter(late, actor=ada, visibility="public")
    assert newest() == ["last", "late", "early"]
    assert Adapter.objects.get(name="late").published_at == opened_at


def test_feeds_of_nothing_are_not_found_and_of_bad_searches_refused():
    owner = make_user("ada")
    make_adapter("hidden", owner=owner, visibility="private")
    assert Client().get("/nobody/feed.atom").status_code == 404
    assert Client().get("/ada/hidden/feed.atom").status_code == 404
    assert Client().get("/modules/feed.atom?colour=red").status_code == 400
    member = Client()
    member.force_login(owner)
    assert member.get("/ada/hidden/feed.atom").status_code == 404


def test_pages_lead_to_their_feeds_and_following_shows_what_is_new(client: Client):
    adapter, bob = make_adapter("seen", owner=make_user("ada"), facts={"rank": 4}), make_user("bob")
    for page in ("/modules", "/ada", "/ada/seen"):
        assert 'type="application/atom+xml"' in client.get(page).content.decode()
    assert "/login" in client.get("/settings/following")["Location"]
    client.force_login(bob)
    assert "You follow nothing yet" in client.get("/settings/following").content.decode()
    client.post("/ada/follow")
    assert following.follows(bob, namespace=namespace_of(adapter.namespace.memberships.get().user))
    assert "seen" in client.get("/settings/following").content.decode()


def test_the_newest_versions_are_found_by_indexes():
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # so few rows are read as they lie
            cursor.execute("SET LOCAL enable_sort = off")
    newest = Adapter.objects.visible_to(None).filter(rank__isnull=False).order_by("-renewed_at", "-pk")
    assert "adapter_renewed" in newest[:30].explain()
    assert "adapter_renewed_in" in newest.filter(namespace=1)[:30].explain()


def test_versions_of_a_branch_are_news_too(tmp_path: Path):
    ada = make_user("ada")
    for name in ("branched", "later"):
        publish_fake(tmp_path, name, owner=ada)
    branched = Adapter.objects.get(name="branched")
    assert branched.head is not None
    refs.create(branched, actor=ada, kind="branch", name="try", revision=branched.head)
    card = commits.Put("README.md", storage.store_stream([b"# Try"]))
    tried = commits.commit(branched, actor=ada, operations=[card], message="Try", branch="try")
    assert following.newest_of(Adapter.objects.all(), count=1) == [tried.revision]


@pytest.mark.parametrize("count", [1, 3, 7, 40])
def test_the_newest_versions_are_those_that_sorting_all_would_begin_with(count: int):
    """Made, opened and renewed in any order; one that was opened late is new, its older versions are not."""
    chance = random.Random(count)
    start = timezone.now() - timedelta(days=100)
    for _ in range(12):
        adapter = make_adapter(facts={"rank": 4})
        for _ in range(chance.randrange(3)):
            make_revision(adapter, facts={"rank": 4})
            adapter.refresh_from_db()
        for revision in adapter.revisions.all():
            Revision.objects.filter(pk=revision.pk).update(
                created_at=start + timedelta(days=chance.randrange(90))
            )
        Adapter.objects.filter(pk=adapter.pk).update(
            first_public_at=start + timedelta(days=chance.randrange(90))
        )
    renewing = importlib.import_module("registry.migrations.0027_adapter_renewed_at")
    renewing.write_renewed_at(apps, None)
    everything = following.versions_of(Adapter.objects.all())
    wanted = sorted(everything, key=lambda one: (one.published_at, one.created_at, one.pk), reverse=True)
    assert following.newest_of(Adapter.objects.all(), count=count) == wanted[:count]
