"""Webhooks by script: whatever their page does, and for nobody but their owner."""

from __future__ import annotations

from typing import Any

import pytest

from registry import webhooks
from registry.models import Delivery, Webhook
from tests.factories import make_token, make_user
from tests.registry.test_api import Script

pytestmark = pytest.mark.django_db
ADDRESS = "https://example.org/hook"


@pytest.fixture
def script() -> Script:
    return Script(make_token(make_user("ada")))


def make(script: Script, **said: Any) -> Any:
    return script.send("POST", "webhooks/", {"url": ADDRESS, **said})


def test_a_new_one_tells_its_secret_once(script: Script):
    answer = make(script, events=["composition.ended"])
    made = answer.json()
    assert (answer.status_code, made["events"], made["active"]) == (201, ["composition.ended"], True)
    assert answer["Location"].endswith(f"/api/v1/webhooks/{made['id']}/")
    assert made["secret"].startswith("whsec_")
    assert Webhook.objects.get().secret != made["secret"], "the row has it sealed"
    [listed] = script.get("webhooks/").json()["results"]
    assert listed == script.get(f"webhooks/{made['id']}/").json()
    assert "secret" not in listed
    assert make(script).json()["events"] == list(webhooks.EVENTS)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"url": "http://example.org/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": 5, "events": [{}]}, "events"),
        ({"events": ["beauty"]}, "events"),
        ({"events": []}, "events"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_what_cannot_be_told_is_refused_by_field(script: Script, said: dict[str, Any], field: str):
    answer = make(script, **said)
    assert answer.status_code == 400
    assert field in "".join(answer.json()["fields"])
    assert not Webhook.objects.exists()


def test_a_test_is_among_its_deliveries_and_can_be_sent_again(script: Script):
    pk = make(script).json()["id"]
    assert script.send("POST", f"webhooks/{pk}/test/", {}).status_code == 202
    [ping] = script.get(f"webhooks/{pk}/deliveries/").json()["results"]
    assert (ping["event"], ping["status"], ping["payload"]["event"]) == ("ping", "waiting", "ping")
    again = script.send("POST", f"deliveries/{ping['id']}/replay/", {})
    assert (again.status_code, again.json()["payload"]) == (202, ping["payload"])
    assert Delivery.objects.count() == 2


def test_only_what_will_be_tried_again_says_when(script: Script):
    pk = make(script).json()["id"]
    script.send("POST", f"webhooks/{pk}/test/", {})

    def next_try_at() -> str | None:
        return script.get(f"webhooks/{pk}/deliveries/").json()["results"][0]["next_try_at"]

    assert next_try_at() is not None
    Webhook.objects.update(is_active=False)
    assert next_try_at() is None
    Webhook.objects.update(is_active=True)
    for status in ("delivered", "given_up"):
        Delivery.objects.update(status=status)
        assert next_try_at() is None


def test_one_that_was_switched_off_is_switched_on_and_then_removed(script: Script):
    pk = make(script).json()["id"]
    Webhook.objects.update(is_active=False, failures=20)
    refused = script.send("POST", f"webhooks/{pk}/test/", {})
    assert (refused.status_code, refused.json()["code"]) == (409, "switched_off")
    on = script.send("POST", f"webhooks/{pk}/on/", {}).json()
    assert (on["active"], on["failures"]) == (True, 0)
    assert script.send("DELETE", f"webhooks/{pk}/", {}).status_code == 204
    assert script.get(f"webhooks/{pk}/").status_code == 404


def test_nobody_else_sees_or_uses_it(script: Script):
    pk = make(script).json()["id"]
    script.send("POST", f"webhooks/{pk}/test/", {})
    delivery = Delivery.objects.get().pk
    eve = Script(make_token(make_user("eve")))
    assert eve.get("webhooks/").json()["results"] == []
    asked = [
        eve.get(f"webhooks/{pk}/"),
        eve.get(f"webhooks/{pk}/deliveries/"),
        eve.send("DELETE", f"webhooks/{pk}/", {}),
        eve.send("POST", f"webhooks/{pk}/on/", {}),
        eve.send("POST", f"webhooks/{pk}/test/", {}),
        eve.send("POST", f"deliveries/{delivery}/replay/", {}),
    ]
    assert [answer.status_code for answer in asked] == [404] * 6
    assert Webhook.objects.count() == Delivery.objects.count() == 1
