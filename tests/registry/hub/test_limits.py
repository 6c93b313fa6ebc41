"""How often a client may ask, as the Hub's headers tell it and its clients read it."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from huggingface_hub.utils import parse_ratelimit_headers

from registry.models import User
from tests.factories import make_adapter, make_token, make_user
from tests.registry.hub.clients import run
from web import rate_limits

pytestmark = pytest.mark.django_db
FILE = "/ada/m/resolve/main/README.md"


@pytest.fixture
def ada(settings: Any) -> User:
    settings.REQUEST_RATES = {
        "api": {"anonymous": "3/5m", "user": "5/5m"},
        "resolvers": {"anonymous": "4/5m", "user": "4/5m"},
    }
    ada = make_user("ada")
    make_adapter("m", owner=ada, files={"README.md": b"# A card"})
    return ada


def ask(path: str = "/api/models/ada/m", token: str = "", **extra: Any) -> Any:
    return Client().get(path, headers={"Authorization": f"Bearer {token}"} if token else {}, **extra)


def test_every_answer_says_what_is_left_and_too_many_are_told_when_to_go_on(ada: User):
    answers = [ask() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    left = [parse_ratelimit_headers(answer.headers) for answer in answers]
    assert [info.remaining for info in left if info] == [2, 1, 0, 0]
    assert {(info.resource_type, info.limit, info.window_seconds) for info in left if info} == {
        ("api", 3, 300)
    }
    last = answers[-1]
    assert left[-1] is not None
    assert 0 < int(last["Retry-After"]) <= 300
    assert int(last["Retry-After"]) == left[-1].reset_in_seconds
    assert "more than 3 requests in 5 minutes" in last.json()["error"]
    assert last["X-Error-Message"] == last.json()["error"]


def test_files_people_and_addresses_have_budgets_of_their_own(ada: User):
    assert [ask().status_code for _ in range(4)][-1] == 429
    assert ask(FILE).status_code == 200
    assert "resolvers" in ask(FILE)["RateLimit"]
    assert ask(token=make_token(ada)).status_code == 200
    assert ask(REMOTE_ADDR="10.9.8.7").status_code == 200
    # Another address in a header is believed only behind our own proxy.
    assert ask(HTTP_X_FORWARDED_FOR="10.9.8.6").status_code == 429


def test_a_refusal_counts_and_says_what_is_left_as_well(ada: User):
    answer = ask("/api/models/ada/none")
    assert answer.status_code == 404
    assert "r=2" in answer["RateLimit"]


@pytest.mark.parametrize("path", ["/api/models/ada/m", FILE, "/v1/telemetry"])
def test_who_tries_tokens_without_end_is_told_to_stop_and_nobody_else_is(ada: User, path: str):
    ask = Client().post if path == "/v1/telemetry" else Client().get
    wrong, right = ({"Authorization": f"Bearer {token}"} for token in ("lr_wrong", make_token(ada)))
    answers = [ask(path, headers=wrong) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert "r=0" in answers[-1]["RateLimit"]
    assert answers[-1]["Retry-After"] in answers[-1]["X-Error-Message"]
    assert ask(path, headers={"Authorization": "lr_" + "0" * 40}).status_code == 429  # no Bearer before it
    assert ask(path, headers=right).status_code in {200, 204}
    assert ask(path, headers=wrong, REMOTE_ADDR="10.9.8.7").status_code == 401


def test_a_new_window_begins_anew(ada: User, monkeypatch: pytest.MonkeyPatch):
    assert [ask().status_code for _ in range(4)][-1] == 429
    now = rate_limits.time.time()
    monkeypatch.setattr(rate_limits.time, "time", lambda: now + 300)
    assert ask().status_code == 200


def test_a_cache_that_is_away_keeps_nobody_out(ada: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(cache._connections["default"]), "incr", lambda *_: 1)  # type: ignore[attr-defined]
    assert {ask().status_code for _ in range(5)} == {200}


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_real_client_waits_for_its_turn(live_server: Any, tmp_path: Any, settings: Any):
    make_adapter("m", owner=make_user("ada"), files={"README.md": b"# A card"})
    settings.REQUEST_RATES = {
        "api": {"anonymous": "2/3s", "user": "2/3s"},
        "resolvers": {"anonymous": "9/1s", "user": "9/1s"},
    }
    said = run(
        """
        say(names=[api.repo_exists("ada/m") and next(iter(api.list_models())).id for _ in range(3)])
        """,
        live_server.url,
        tmp_path / "home",
    )
    assert said["names"] == ["ada/m"] * 3
    assert "Rate limited. Waiting" in said["stderr"]
