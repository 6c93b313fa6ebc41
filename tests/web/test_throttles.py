"""How many requests the API takes from one client, and how long a body it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from huggingface_hub.utils import parse_ratelimit_headers

from tests.factories import make_token, make_user
from web.rate_limits import Rate

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def few(settings: Any) -> None:
    settings.REQUEST_RATES = {
        **settings.REQUEST_RATES, "api": {"anonymous": "3/5m", "user": "4/30s"},
    }  # fmt: skip


def ask(token: str = "", **extra: Any) -> Any:
    return Client().get(
        "/api/v1/adapters/", headers={"Authorization": f"Bearer {token}"} if token else {}, **extra
    )


def test_too_many_are_told_when_to_go_on_and_no_header_makes_another_client_of_one():
    assert [ask(HTTP_X_FORWARDED_FOR=f"10.0.0.{number}").status_code for number in range(3)] == [200] * 3
    answer = ask(HTTP_X_FORWARDED_FOR="10.0.0.9")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
    assert 0 < int(answer["Retry-After"]) <= 301
    assert ask(REMOTE_ADDR="10.0.0.1").status_code == 200


def test_every_answer_says_what_is_left():
    answers = [ask() for _ in range(4)]
    left = [parse_ratelimit_headers(answer.headers) for answer in answers]
    assert [info.remaining for info in left if info] == [2, 1, 0, 0]
    assert {(info.resource_type, info.limit, info.window_seconds) for info in left if info} == {
        ("rest", 3, 300)
    }
    assert "more than 3 requests in 5 minutes" in answers[-1].json()["message"]
    assert answers[-1]["Retry-After"] in answers[-1].json()["message"]
    ada = make_token(make_user("ada"))
    known = ask(ada)["ETag"]
    again = Client().get(
        "/api/v1/adapters/", headers={"Authorization": f"Bearer {ada}", "If-None-Match": known}
    )
    assert (again.status_code, again["RateLimit"].split(";")[1]) == (304, "r=2")


def test_behind_our_own_proxy_the_address_that_it_saw_counts(settings: Any):
    settings.HTTPS = True
    for number in range(3):
        assert ask(HTTP_X_FORWARDED_FOR=f"1.1.1.{number}, 10.0.0.1").status_code == 200
    assert ask(HTTP_X_FORWARDED_FOR="1.1.1.9, 10.0.0.1").status_code == 429
    assert ask(HTTP_X_FORWARDED_FOR="10.0.0.1, 10.0.0.2").status_code == 200


def test_a_person_is_counted_whatever_token_they_send():
    ada = make_user("ada")
    assert [ask(make_token(ada)).status_code for _ in range(5)] == [200] * 4 + [429]
    assert ask().status_code == 200


def test_who_tries_tokens_without_end_is_told_to_stop_and_nobody_else_is():
    answers = [ask(f"lr_{number:040}") for number in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert [answer["RateLimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert answers[-1].json()["code"] == "too_many_requests"
    assert answers[-1]["Retry-After"] in answers[-1].json()["message"]
    assert ask().status_code == 429  # a guest of that address is the same
    assert ask(make_token(make_user())).status_code == 200
    assert ask("lr_wrong", REMOTE_ADDR="10.0.0.1").status_code == 401


def test_what_a_guest_or_a_token_may_not_do_counts_as_what_they_may():
    guest = [Client().post("/api/v1/adapters/") for _ in range(4)]
    assert [answer.status_code for answer in guest] == [401, 401, 401, 429]
    reads = {"Authorization": f"Bearer {make_token(make_user(), 'read')}"}
    person = [Client().post("/api/v1/adapters/", headers=reads) for _ in range(5)]
    assert [answer.status_code for answer in person] == [403, 403, 403, 403, 429]


def test_a_refusal_that_was_counted_is_not_counted_again():
    answers = [Client().get("/api/v1/adapters/no/where/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 404]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("500/5m", "500 requests in 5 minutes"),
        ("1000/m", "1,000 requests in 1 minute"),
        ("1/90s", "1 request in 90 seconds"),
        ("20/2h", "20 requests in 2 hours"),
    ],
)
def test_a_rate_is_said_as_it_is(text: str, words: str):
    assert str(Rate.parse(text)) == words


def test_a_body_of_any_length_is_not_read_into_memory(settings: Any):
    settings.MAX_JSON_BYTES = 1000
    headers = {"Authorization": f"Bearer {make_token(make_user())}"}
    for size, status in ((100, 400), (2000, 413)):
        body = json.dumps({"name": "x" * size})
        answer = Client().post("/api/v1/base-models/", body, "application/json", headers=headers)
        assert answer.status_code == status, answer.content
    assert answer.json()["message"].startswith("The body is larger than 1,000 bytes")
