from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from registry import tokens
from registry.authentication import find_token
from registry.models import Token
from tests.factories import make_user
from web.errors import DomainError, NotFound

pytestmark = pytest.mark.django_db


def test_only_the_hash_of_a_token_is_kept():
    token, secret = tokens.issue_token(user=make_user(), name="laptop", scope="write")
    assert secret.startswith("lr_")
    assert find_token(secret) == token
    assert secret not in str(Token.objects.values().get())


def test_a_token_may_have_the_beginning_that_the_hubs_client_for_javascript_wants():
    token, secret = tokens.issue_token(user=make_user(), name="laptop", scope="write")
    assert find_token(f"hf_{secret}") == token
    assert find_token(f"hf_hf_{secret}") is None


def test_a_token_is_useless_once_revoked_or_expired():
    user = make_user()
    first, first_secret = tokens.issue_token(user=user, name="a", scope="read")
    tokens.revoke_token(user=user, token_id=first.pk)
    assert find_token(first_secret) is None
    second, second_secret = tokens.issue_token(user=user, name="b", scope="read", days=1)
    assert find_token(second_secret) == second
    Token.objects.filter(pk=second.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert find_token(second_secret) is None
    assert len(tokens.tokens_of(user)) == 2


def test_nobody_revokes_anothers_token():
    token, secret = tokens.issue_token(user=make_user(), name="a", scope="read")
    with pytest.raises(NotFound):
        tokens.revoke_token(user=make_user(), token_id=token.pk)
    assert find_token(secret) == token


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"scope": "admin"}, "scope"),
        ({"days": 0}, "days"),
        ({"days": 10**9}, "days"),
    ],
)
def test_what_can_be_no_token_is_refused_by_field(said, field):
    with pytest.raises(DomainError) as caught:
        tokens.issue_token(user=make_user(), **{"name": "a", "scope": "read", **said})
    assert field in caught.value.fields


def test_a_person_has_a_limited_number_of_working_tokens(monkeypatch):
    monkeypatch.setattr(tokens, "MAX_TOKENS", 1)
    user = make_user()
    first, _ = tokens.issue_token(user=user, name="a", scope="read")
    with pytest.raises(tokens.TooManyTokens):
        tokens.issue_token(user=user, name="b", scope="read")
    tokens.revoke_token(user=user, token_id=first.pk)
    tokens.issue_token(user=user, name="b", scope="read")
