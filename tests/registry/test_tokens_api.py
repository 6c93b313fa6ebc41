"""One's own tokens by script: seen and revoked, never made, and never with their secrets."""

from __future__ import annotations

import pytest
from django.utils import timezone

from registry import tokens
from registry.authentication import find_token
from registry.models import Adapter, Membership, Token
from tests.factories import make_adapter, make_organisation, make_token, make_user, namespace_of
from tests.registry.test_api import Script, assert_refused
from tests.visitors import client_of

pytestmark = pytest.mark.django_db


def test_tokens_are_listed_without_their_secrets_and_revoked_at_once():
    ada = make_user("ada")
    adapter = make_adapter("m", owner=ada)
    script = Script(make_token(ada, name="ci"))
    old, secret = tokens.issue_token(user=ada, name="laptop", scope="read", days=3, limit="ada/m")
    answer = script.get("tokens/")
    told = {row["name"]: row for row in answer.json()["results"]}
    assert secret not in answer.content.decode()
    assert old.secret_sha256 not in answer.content.decode()
    row = told["laptop"]
    assert (row["scope"], row["limit"], row["hint"]) == ("read", adapter.full_name, secret[:8])
    assert (row["revoked_at"], row["last_used_at"]) == (None, None)
    assert told["ci"]["id"] == script.get("whoami/").json()["token"]["id"]
    assert told["ci"]["last_used_at"] is not None
    for _ in range(2):
        assert script.send("DELETE", f"tokens/{old.pk}/", {}).status_code == 204
    assert find_token(secret) is None
    assert script.get("tokens/").json()["results"][0]["revoked_at"] is not None


@pytest.mark.parametrize("hidden", [{"visibility": "private"}, {"quarantined_at": timezone.now()}])
def test_who_left_reads_no_name_of_what_a_token_was_for(hidden):
    ada, ben = make_user("ada"), make_user("ben")
    lab = make_organisation("lab", members={ada: "admin", ben: "write"})
    adapter = make_adapter("plans", namespace=lab)
    _, secret = tokens.issue_token(user=ben, name="ci", scope="read", limit="lab/plans")
    Adapter.objects.filter(pk=adapter.pk).update(name="merger", **hidden)
    whole = make_token(ben)

    def is_told() -> bool:
        pages = [
            client_of(ben).get("/settings/tokens"),
            Script(whole).get("tokens/"),
            Script(secret).get("whoami/"),
        ]
        assert [page.status_code for page in pages] == [200, 200, 200]
        told = {"lab/merger" in page.content.decode() for page in pages}
        assert len(told) == 1
        return told.pop()

    assert is_told()
    Membership.objects.filter(user=ben).delete()
    assert not is_told()


def test_a_token_may_end_itself():
    script = Script(make_token(make_user("ada")))
    pk = script.get("whoami/").json()["token"]["id"]
    assert script.send("DELETE", f"tokens/{pk}/", {}).status_code == 204
    assert_refused(script.get("whoami/"), 401)


def test_a_token_makes_none_and_changes_none():
    script = Script(make_token(make_user("ada")))
    pk = Token.objects.get().pk
    assert_refused(script.send("POST", "tokens/", {"name": "more", "scope": "write"}), 405)
    assert_refused(script.send("PATCH", f"tokens/{pk}/", {"scope": "write"}), 405)
    assert Token.objects.count() == 1


def test_a_weaker_token_neither_lists_nor_revokes_more_than_it_may():
    ada = make_user("ada")
    pk = Token.issue(user=ada, name="laptop", scope="write")[0].pk
    reading = Script(make_token(ada, "read"))
    assert len(reading.get("tokens/").json()["results"]) == 2
    assert_refused(reading.send("DELETE", f"tokens/{pk}/", {}), 403)
    limited = Script(make_token(ada, namespace=namespace_of(ada)))
    assert_refused(limited.get("tokens/"), 403)
    assert_refused(limited.send("DELETE", f"tokens/{pk}/", {}), 403)
    eve = Script(make_token(make_user("eve")))
    assert_refused(eve.send("DELETE", f"tokens/{pk}/", {}), 404)
    assert_refused(Script().get("tokens/"), 401)
    assert Token.objects.get(pk=pk).is_usable
