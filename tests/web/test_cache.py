"""A cache server that is away takes nothing with it but what was cached."""

from __future__ import annotations

import pytest
from django.core.cache import cache

from tests.conftest import free_port


def use(settings, url: str) -> None:
    options = {"socket_connect_timeout": 1, "socket_timeout": 1}
    backend = "web.cache.ForgivingRedisCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": url, "OPTIONS": options}}


@pytest.fixture
def away(settings) -> None:
    """A cache at an address where nobody listens."""
    use(settings, f"redis://127.0.0.1:{free_port()}/0")


def test_a_cache_that_is_there_keeps_what_it_is_given(settings, redis_url: str):
    use(settings, redis_url)
    cache.set("a", 1)
    assert cache.get("a") == 1
    assert cache.add("a", 2) is False
    assert cache.incr("a") == 2
    assert cache.delete("a") is True
    assert cache.get_many(["a"]) == {}


def test_a_cache_that_is_away_is_an_empty_one(away: None):
    cache.set("a", 1)
    assert cache.get("a", "nothing") == "nothing"
    assert cache.add("a", 1) is True
    assert cache.incr("a") == 1
    assert cache.get_many(["a"]) == {}
    assert cache.has_key("a") is False
    assert cache.touch("a") is False
    assert cache.delete("a") is False
    assert cache.set_many({"a": 1}) == ["a"]
    cache.delete_many(["a"])


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/", "/modules", "/accounts/login/", "/api/v1/adapters/"])
def test_pages_and_api_answer_while_the_cache_is_away(away: None, client, address: str):
    assert client.get(address).status_code == 200
