from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from registry import following, publishing, webhooks
from registry.accounts import block
from registry.models import Adapter, Delivery, Membership, Revision, Webhook
from tests.factories import make_adapter, make_organisation, make_revision, make_user

pytestmark = pytest.mark.django_db
EVERYTHING = list(webhooks.EVENTS)


class Receiver(ThreadingHTTPServer):
    """A server that keeps what it is sent and answers `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.received: list[tuple[dict[str, str], bytes]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.WEBHOOK_TRUSTED_ORIGINS = [server.address]
    yield server
    server.shutdown()
    server.server_close()


def make_due() -> None:
    Delivery.objects.update(next_try_at=timezone.now() - timedelta(seconds=1))


def test_a_new_version_is_sent_once_and_signed_so_that_the_receiver_can_tell(receiver: Receiver):
    ada = make_user("ada")
    _, secret = webhooks.create(user=ada, url=f"{receiver.address}/hook", events=EVERYTHING)
    adapter = make_adapter("new", owner=ada, facts={"rank": 4})
    make_adapter("of-somebody-else", facts={"rank": 4})
    assert webhooks.announce_versions() == 1
    assert webhooks.announce_versions() == 0
    assert webhooks.deliver_due() == 1
    assert webhooks.deliver_due() == 0
    ((headers, body),) = receiver.received
    assert json.loads(body)["data"]["adapter"] == adapter.full_name
    assert headers["X-Lora-Event"] == "version.published"
    signed = webhooks.signature(secret, headers["X-Lora-Timestamp"], body)
    assert headers["X-Lora-Signature"] == f"sha256={signed}"
    assert Delivery.objects.get().status == Delivery.Status.DELIVERED


def test_what_fails_is_tried_again_ever_later_and_given_up_in_the_end(receiver: Receiver):
    ada = make_user("ada")
    webhooks.create(user=ada, url=receiver.address, events=["version.published"])
    make_adapter("new", owner=ada, facts={"rank": 4})
    webhooks.announce_versions()
    receiver.status = 503
    waits = []
    for _ in range(len(webhooks.RETRY_MINUTES)):
        make_due()
        assert webhooks.deliver_due() == 1
        waits.append(round((Delivery.objects.get().next_try_at - timezone.now()).total_seconds() / 60))
        assert Delivery.objects.get().status == Delivery.Status.WAITING
    assert tuple(waits) == webhooks.RETRY_MINUTES
    make_due()
    webhooks.deliver_due()
    given_up = Delivery.objects.get()
    assert (given_up.status, given_up.answered, given_up.problem) == ("given_up", 503, "It answered 503.")
    assert Webhook.objects.get().failures == 1
    make_due()
    assert webhooks.deliver_due() == 0


def test_a_webhook_that_fails_for_long_is_switched_off_and_on_again_by_its_owner(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    ada = make_user("ada")
    hook, _ = webhooks.create(user=ada, url=receiver.address, events=EVERYTHING)
    monkeypatch.setattr(webhooks, "RETRY_MINUTES", ())
    monkeypatch.setattr(webhooks, "FAILURES_TO_STOP", 2)
    monkeypatch.setattr(webhooks, "_claim", lambda delivery: True)
    receiver.status = 500
    for number in range(3):
        webhooks.enqueue(hook, event="module.used", key=str(number), data={})
        webhooks.deliver_due()
    assert not Webhook.objects.get().is_active
    assert len(receiver.received) == 2
    webhooks.switch_on(user=ada, pk=hook.pk)
    assert Webhook.objects.get().is_active


def test_a_server_that_is_slow_or_dead_keeps_nobody_elses_messages_waiting(receiver: Receiver, monkeypatch):
    dead, _ = webhooks.create(user=make_user("ada"), url=f"{receiver.address}/dead", events=EVERYTHING)
    alive, _ = webhooks.create(user=make_user("bob"), url=f"{receiver.address}/alive", events=EVERYTHING)
    Webhook.objects.filter(pk=dead.pk).update(url="https://localhost/dead")
    for number in range(webhooks.SENT_AT_ONCE + 5):
        webhooks.enqueue(dead, event="module.used", key=str(number), data={})
    webhooks.enqueue(alive, event="module.used", key="one", data={})
    assert webhooks.deliver_due() == 2
    assert Delivery.objects.filter(webhook=dead, attempts=1).count() == 1
    assert Delivery.objects.get(webhook=alive).status == "delivered"


def test_a_process_sends_one_round_at_a_time(receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    hook, _ = webhooks.create(user=make_user("ada"), url=receiver.address, events=EVERYTHING)
    webhooks.enqueue(hook, event="module.used", key="one", data={})
    within: list[int] = []
    send = webhooks._send

    def send_while_another_begins(delivery: Delivery) -> bool:
        within.append(webhooks.deliver_due())
        return send(delivery)

    monkeypatch.setattr(webhooks, "_send", send_while_another_begins)
    assert webhooks.deliver_due() == 1
    assert within == [0]


@pytest.mark.parametrize(
    ("status", "problem"),
    [(302, "It answered 302, and we follow no redirects"), (500, "It answered 500."), (204, "")],
)
def test_how_it_went_is_said_so_that_its_owner_knows_what_to_do(
    receiver: Receiver, status: int, problem: str
):
    hook, _ = webhooks.create(user=make_user("ada"), url=receiver.address, events=EVERYTHING)
    receiver.status = status
    webhooks.enqueue(hook, event="module.used", key="one", data={})
    webhooks.deliver_due()
    assert Delivery.objects.get().problem.startswith(problem)
    assert bool(problem) == bool(Delivery.objects.get().problem)


def test_a_server_that_does_not_answer_in_time_is_said_to_be_slow(receiver: Receiver, monkeypatch):
    hook, _ = webhooks.create(user=make_user("ada"), url=receiver.address, events=EVERYTHING)
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(_Handler, "do_POST", lambda self: time.sleep(1))
    webhooks.enqueue(hook, event="module.used", key="one", data={})
    webhooks.deliver_due()
    assert Delivery.objects.get().problem == "It did not answer within 0.2 seconds."


def test_a_server_that_drips_its_head_is_waited_for_no_longer(receiver: Receiver, monkeypatch):
    def drip(handler: _Handler) -> None:
        with suppress(OSError):
            for letter in b"HTTP/1.1 200 OK\r\nX-Long: " + b"z" * 80 + b"\r\nContent-Length: 0\r\n\r\n":
                handler.wfile.write(bytes([letter]))
                time.sleep(0.02)

    hook, _ = webhooks.create(user=make_user("ada"), url=receiver.address, events=EVERYTHING)
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(_Handler, "do_POST", drip)
    webhooks.enqueue(hook, event="module.used", key="one", data={})
    webhooks.deliver_due()
    assert Delivery.objects.get().problem == "It did not answer within 0.3 seconds."


def test_a_ping_is_sent_when_its_owner_asks_and_nothing_while_it_is_switched_off(
    receiver: Receiver, client: Client
):
    ada = make_user("ada")
    hook, _ = webhooks.create(user=ada, url=receiver.address, events=["module.used"])
    client.force_login(make_user())
    assert client.post(f"/settings/webhooks/{hook.pk}/test").status_code == 404
    client.force_login(ada)
    assert client.post(f"/settings/webhooks/{hook.pk}/test").status_code == 302
    webhooks.deliver_due()
    assert [json.loads(body)["event"] for _, body in receiver.received] == ["ping"]
    Webhook.objects.update(is_active=False)
    for address in (f"webhooks/{hook.pk}/test", f"deliveries/{Delivery.objects.get().pk}/replay"):
        refused = client.post(f"/settings/{address}")
        assert refused.status_code == 409
        assert "Switch it on first" in refused.content.decode()
    assert Delivery.objects.count() == 1


def test_a_delivery_is_sent_again_when_its_owner_asks_and_only_then(receiver: Receiver, client: Client):
    ada = make_user("ada")
    hook, _ = webhooks.create(user=ada, url=receiver.address, events=EVERYTHING)
    webhooks.enqueue(hook, event="module.used", key="one", data={"n": 1})
    webhooks.deliver_due()
    client.force_login(make_user())
    sent = Delivery.objects.get()
    assert client.post(f"/settings/deliveries/{sent.pk}/replay").status_code == 404
    client.force_login(ada)
    assert client.post(f"/settings/deliveries/{sent.pk}/replay").status_code == 302
    webhooks.deliver_due()
    assert [json.loads(body)["data"] for _, body in receiver.received] == [{"n": 1}, {"n": 1}]
    page = client.get("/settings/webhooks").content.decode()
    assert "(again)" in page


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org", "http://example.org/hook", "https://example.org:8443/x", "https://a:b@example.org/",
        "ftp://example.org", "https://" + "x" * 500, "https://example.com:99999/", "https://[::1", "https://exa mple.org/",
        "https://example.org/a b", "https://localhost/hook", "https://hook.localhost./", "https://127.0.0.1/hook",
        "https://10.1.2.3/", "https://[::1]/hook", "https://169.254.169.254/", "https://[::ffff:10.0.0.1]/",
    ],
)  # fmt: skip
def test_addresses_that_are_not_called_are_refused(client: Client, url: str):
    client.force_login(make_user())
    answer = client.post("/settings/webhooks", {"url": url, "events": EVERYTHING})
    assert answer.status_code == 400
    assert not Webhook.objects.exists()


def test_events_are_chosen_among_those_there_are():
    for events in ([], ["everything"], ["module.used", "x"]):
        with pytest.raises(webhooks.BadWebhook):
            webhooks.create(user=make_user(), url="https://example.org/hook", events=events)


def test_our_own_network_is_not_called_unless_the_site_says_so():
    hook, _ = webhooks.create(user=make_user(), url="https://inward.example/hook", events=EVERYTHING)
    Webhook.objects.update(url="https://localhost/hook")  # as a name that leads there
    webhooks.enqueue(hook, event="module.used", key="x", data={})
    webhooks.deliver_due()
    assert "open internet" in Delivery.objects.get().problem


def test_the_secret_is_shown_once_and_lies_sealed(client: Client):
    client.force_login(make_user())
    said = {"url": "https://example.org/hook", "events": EVERYTHING}
    page = client.post("/settings/webhooks", said, follow=True)
    assert page.redirect_chain == [("/settings/webhooks", 302)], "loading it again makes no second one"
    assert "whsec_" in page.content.decode()
    assert "whsec_" not in client.get("/settings/webhooks").content.decode()
    assert "whsec_" not in Webhook.objects.get().secret


def test_members_hear_of_their_organisation_and_strangers_of_nothing_private(receiver: Receiver):
    ada, bob = make_user("ada"), make_user("bob")
    lab = make_organisation("lab", members={ada: Membership.Role.READ})
    for user in (ada, bob):
        webhooks.create(user=user, url=receiver.address, events=EVERYTHING)
    make_adapter("secret", namespace=lab, visibility="private", facts={"rank": 4})
    assert webhooks.announce_versions() == 1
    assert Delivery.objects.get().webhook.user == ada


def test_followers_hear_of_what_is_opened_its_newest_version_and_once(receiver: Receiver):
    ada, bob = make_user("ada"), make_user("bob")
    for user in (ada, bob):
        webhooks.create(user=user, url=receiver.address, events=EVERYTHING)
    late = make_adapter("late", owner=ada, visibility="private", facts={"rank": 4})
    make_revision(late, facts={"rank": 4})
    following.follow(user=bob, namespace=late.namespace)
    Revision.objects.update(created_at=timezone.now() - timedelta(days=40))
    assert webhooks.announce_versions() == 0
    publishing.update_adapter(late, actor=ada, visibility="public")
    assert webhooks.announce_versions() == 1
    heard = Delivery.objects.get()
    assert (heard.webhook.user, heard.payload["data"]["revision"]) == (bob, late.head.commit)
    Delivery.objects.all().delete()  # as after a month
    Adapter.objects.update(first_public_at=timezone.now() - timedelta(days=31))
    for visibility in ("private", "public"):
        publishing.update_adapter(Adapter.objects.get(), actor=ada, visibility=visibility)
    assert webhooks.announce_versions() == 0


def test_what_was_told_already_is_not_asked_about_one_by_one(receiver: Receiver):
    ada = make_user("ada")
    webhooks.create(user=ada, url=receiver.address, events=EVERYTHING)

    def queries() -> int:
        with CaptureQueriesContext(connection) as made:
            webhooks.announce_versions()
        return len(made)

    make_adapter(owner=ada, facts={"rank": 4})
    queries()
    few = queries()
    for _ in range(6):
        make_adapter(owner=ada, facts={"rank": 4})
    queries()
    assert (queries(), Delivery.objects.count()) == (few, 7)


def test_who_is_blocked_hears_of_nothing_any_more(receiver: Receiver):
    eve = make_user("eve")
    lab = make_organisation("lab", members={eve: Membership.Role.READ})
    webhooks.create(user=eve, url=receiver.address, events=EVERYTHING)
    make_adapter("before", namespace=lab, visibility="private", facts={"rank": 4})
    assert webhooks.announce_versions() == 1
    block(eve, moderator=None)
    make_adapter("after", namespace=lab, visibility="private", facts={"rank": 4})
    assert webhooks.announce_versions() == webhooks.deliver_due() == 0
    assert receiver.received == []


def test_strangers_are_sent_to_sign_in(client: Client):
    assert "/login" in client.get("/settings/webhooks")["Location"]
    assert "/login" in client.post("/settings/webhooks/1/remove")["Location"]


def test_one_removes_ones_own_webhooks_only_and_has_at_most_ten(client: Client):
    ada = make_user("ada")
    hooks = [
        webhooks.create(user=ada, url=f"https://example.org/{n}", events=EVERYTHING)[0] for n in range(10)
    ]
    with pytest.raises(webhooks.TooManyWebhooks):
        webhooks.create(user=ada, url="https://example.org/more", events=EVERYTHING)
    client.force_login(make_user())
    assert client.post(f"/settings/webhooks/{hooks[0].pk}/remove").status_code == 404
    client.force_login(ada)
    client.post(f"/settings/webhooks/{hooks[0].pk}/remove")
    assert Webhook.objects.count() == 9


def test_old_deliveries_are_forgotten():
    hook, _ = webhooks.create(user=make_user(), url="https://example.org/", events=EVERYTHING)
    for key, status in (("a", "delivered"), ("b", "waiting")):
        webhooks.enqueue(hook, event="module.used", key=key, data={})
        Delivery.objects.filter(key=key).update(status=status, created_at=timezone.now() - timedelta(days=31))
    assert webhooks.forget_old() == 1


def test_what_was_sent_again_goes_with_its_webhook_and_its_owners_account(client: Client):
    ada = make_user("ada")
    client.force_login(ada)
    for _ in range(2):
        hook, _ = webhooks.create(user=ada, url="https://example.org/", events=EVERYTHING)
        send_again(hook, times=2)
    client.post(f"/settings/webhooks/{hook.pk}/remove")
    assert not Delivery.objects.filter(webhook=hook.pk).exists()
    assert Webhook.objects.count() == 1
    ada.delete()
    assert Delivery.objects.count() == 0


def test_an_old_delivery_stays_while_one_that_repeats_it_does():
    hook, _ = webhooks.create(user=make_user(), url="https://example.org/", events=EVERYTHING)
    first, second, third = send_again(hook, times=2)
    old = timezone.now() - timedelta(days=31)
    Delivery.objects.filter(pk__in=[first.pk, second.pk]).update(created_at=old, status="delivered")
    assert webhooks.forget_old() == 0
    Delivery.objects.filter(pk=third.pk).update(created_at=old, status="delivered")
    assert [webhooks.forget_old() for _ in range(4)] == [1, 1, 1, 0]


def send_again(hook: Webhook, *, times: int) -> list[Delivery]:
    """A delivery, one that repeats it, one that repeats that one, and so on."""
    webhooks.enqueue(hook, event="module.used", key="one", data={})
    sent = [hook.deliveries.get()]
    for _ in range(times):
        sent.append(webhooks.replay(user=hook.user, pk=sent[-1].pk))
    return sent
