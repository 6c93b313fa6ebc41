"""Telling other servers what happens: events are written down, sent signed, tried again, and can be sent once more.

The database is the truth: an event is a row before it is sent, and a unique key keeps it from being sent twice by
itself. What other servers get is a JSON object, and in the header `X-Lora-Signature` the hex HMAC-SHA256, by the
webhook's secret, of the timestamp in `X-Lora-Timestamp`, a dot, and the body as sent.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from registry import long_work, sealing
from registry.following import versions_of
from registry.guarded_http import GuardedTransport, NotPublic, is_inward, origin_of
from registry.models import Adapter, Delivery, Follow, Membership, User, Webhook
from registry.patience import Patience
from registry.rights import hold_account
from web.database import keep_from_deletion
from web.errors import Conflict, DomainError, NotFound

logger = logging.getLogger(__name__)

# Event -> what it tells, for people.
EVENTS = {
    "version.published": "A new version of an adapter in a namespace of yours, or of what you follow",
    "composition.ended": "A composition of yours succeeded, failed or was cancelled",
    "module.used": "Somebody published an adapter in which a module of yours has a weight",
}
MOST = 10
TIMEOUT_S = 10
# Minutes until the next try after each that failed; after the last one a delivery is given up.
RETRY_MINUTES = (1, 5, 30, 120, 360)
FAILURES_TO_STOP = 20  # deliveries given up in a row before the webhook is switched off
LOOK_BACK = timedelta(hours=6)
KEPT = timedelta(days=30)
KEPT_SECRET_S = 100 * 365 * 86400  # for as long as the webhook is there
SENT_AT_ONCE = 50

_delivering = threading.Lock()


class BadWebhook(DomainError):
    code = "bad_webhook"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message, fields={field: [message]})


class TooManyWebhooks(Conflict):
    code = "too_many_webhooks"

    def __init__(self) -> None:
        super().__init__(f"You have {MOST} webhooks, which is the most. Remove one first.")


class SwitchedOff(Conflict):
    code = "switched_off"

    def __init__(self) -> None:
        super().__init__("This webhook is switched off, so nothing is sent. Switch it on first.")


# --- Having them ---------------------------------------------------------------------------------------------


@transaction.atomic
def create(*, user: User, url: str, events: Sequence[str]) -> tuple[Webhook, str]:
    """A new webhook and its secret, which is shown once. Raises BadWebhook, TooManyWebhooks, Forbidden."""
    url = url.strip()
    _check_url(url)
    wanted = [name for name in EVENTS if name in events]
    if not wanted or set(events) - set(EVENTS):
        raise BadWebhook("events", f"Choose at least one of {', '.join(EVENTS)}.")
    hold_account(user)
    if Webhook.objects.filter(user=user).count() >= MOST:
        raise TooManyWebhooks
    secret = "whsec_" + secrets.token_hex(24)
    webhook = Webhook.objects.create(user=user, url=url, events=wanted, secret="")
    webhook.secret = sealing.seal(secret, purpose=_purpose(webhook))
    webhook.save(update_fields=["secret"])
    return webhook, secret


def _check_url(url: str) -> None:
    """Raises BadWebhook for an address that would never be called."""
    scheme, host, port = origin = origin_of(url)
    if len(url) > 500 or not url.isprintable() or " " in url or not host or "@" in urlsplit(url).netloc:
        raise BadWebhook(
            "url",
            "Give a whole web address, without blanks and without a password in it, such as https://example.org/hook.",
        )
    if origin in _trusted():
        return
    if scheme != "https" or port != 443:
        raise BadWebhook("url", "Only https on its usual port is called.")
    if is_inward(host):
        raise BadWebhook(
            "url", f"{host} is not on the open internet, where alone we send. Give a public address."
        )


def remove(*, user: User, pk: int) -> None:
    """Raises NotFound, also for somebody else's."""
    if not Webhook.objects.filter(user=user, pk=pk).delete()[0]:
        raise NotFound("There is no such webhook of yours.")


def switch_on(*, user: User, pk: int) -> None:
    """Send to a webhook again that was switched off for failing."""
    if not Webhook.objects.filter(user=user, pk=pk).update(is_active=True, failures=0):
        raise NotFound("There is no such webhook of yours.")


def replay(*, user: User, pk: int) -> Delivery:
    """Send a delivery once more, with the same payload. Raises NotFound, SwitchedOff."""
    found = Delivery.objects.filter(webhook__user=user, pk=pk).select_related("webhook").first()
    if found is None:
        raise NotFound("There is no such delivery of yours.")
    if not found.webhook.is_active:
        raise SwitchedOff
    return Delivery.objects.create(
        webhook_id=found.webhook_id, event=found.event, key=found.key, payload=found.payload, replay_of=found
    )


def send_test(*, user: User, pk: int) -> None:
    """Write down a `ping`, so that somebody can try their server. Raises NotFound, SwitchedOff."""
    hook = Webhook.objects.filter(user=user, pk=pk).first()
    if hook is None:
        raise NotFound("There is no such webhook of yours.")
    if not hook.is_active:
        raise SwitchedOff
    enqueue(hook, event="ping", key=f"ping {secrets.token_hex(4)}", data={"events": hook.events})


def _purpose(webhook: Webhook) -> str:
    return f"webhook {webhook.pk}"


def _trusted() -> set[tuple[str, str, int]]:
    """Origins in our own network that the people who run this site let webhooks call."""
    return {origin_of(address) for address in settings.WEBHOOK_TRUSTED_ORIGINS}


# --- Writing events down ---------------------------------------------------------------------------------------


def enqueue(webhook: Webhook, *, event: str, key: str, data: dict[str, Any]) -> bool:
    """Write an event down for a webhook, unless it is there already; whether it is new."""
    payload = {"event": event, "key": key, "data": data}
    same = Webhook.objects.filter(pk=webhook.pk)
    with transaction.atomic():
        keep_from_deletion(same)
        if not same.exists():
            return False  # removed at this moment, perhaps with its owner's account; the round goes on for the others
        _, is_new = Delivery.objects.get_or_create(
            webhook=webhook, key=key, replay_of=None, defaults={"event": event, "payload": payload}
        )
    return is_new


def listening_for(event: str) -> list[Webhook]:
    """Active webhooks that want this event. Asked in Python: SQLite cannot look into a JSON list.

    Nothing is sent for people who are blocked.
    """
    hooks = Webhook.objects.filter(is_active=True, user__is_active=True).select_related("user")
    return [hook for hook in hooks if event in hook.events]


def heard_since(webhook: Webhook) -> datetime:
    """What has happened from then on is told to it, if it was not."""
    return max(webhook.created_at, timezone.now() - LOOK_BACK)


def announce_versions() -> int:
    """Write down what has been published lately for those who want to hear of it; how many events that were."""
    count = 0
    for hook in listening_for("version.published"):
        since = heard_since(hook)
        mine = Membership.objects.filter(user=hook.user).values("namespace_id")
        follows = Follow.objects.filter(user=hook.user)
        visible = Adapter.objects.visible_to(hook.user)
        adapters = (
            visible.filter(namespace__in=mine)
            | visible.filter(pk__in=follows.filter(adapter__isnull=False).values("adapter_id"))
            | visible.filter(namespace__in=follows.filter(namespace__isnull=False).values("namespace_id"))
        )
        # Whoever is no member hears of what was private when it is opened, and then of its newest version alone.
        opened = Q(pk=F("adapter__head"), adapter__first_public_at__gte=since) & ~Q(
            adapter__namespace__in=mine
        )
        lately = versions_of(adapters.filter(renewed_at__gte=since)).filter(Q(created_at__gte=since) | opened)
        deliveries = Delivery.objects.filter(webhook=hook, replay_of=None, created_at__gte=since)
        told = set(deliveries.values_list("key", flat=True))
        for revision in lately:
            key = f"version {revision.commit}"
            if key in told:
                continue
            data = {
                "adapter": revision.adapter.full_name,
                "revision": revision.commit,
                "message": revision.message,
                "author": revision.author.username if revision.author else None,
                "path": revision.adapter.get_absolute_url(),
                "created_at": revision.created_at.isoformat(),
            }
            count += enqueue(hook, event="version.published", key=key, data=data)
    return count


# --- Sending -----------------------------------------------------------------------------------------------------


def deliver_due() -> int:
    """Send what is waiting and due, once each; how many were tried. At once 0 if this process is at it already.

    A server that did not take a message gets no other one in this round, and a process does one round at a time: servers
    that are dead or slow keep neither others' messages waiting nor the threads of the sweeps. Harmless if two processes
    do it at once.
    """
    with long_work.alone(_delivering) as may_deliver:
        return _deliver_round() if may_deliver else 0


def _deliver_round() -> int:
    due = (
        Delivery.objects.filter(
            status=Delivery.Status.WAITING,
            next_try_at__lte=timezone.now(),
            webhook__is_active=True,
            webhook__user__is_active=True,
        )
        .select_related("webhook")
        .order_by("next_try_at", "pk")
    )
    tried = 0
    failing: set[int] = set()
    while tried < SENT_AT_ONCE:
        delivery = due.exclude(webhook__in=failing).first()
        if delivery is None:
            break
        if _claim(delivery):
            tried += 1
            if not _send(delivery):
                failing.add(delivery.webhook_id)
    return tried


def forget_old() -> int:
    """Remove deliveries that are over and older than KEPT, and stay while one that repeats them does."""
    old = Delivery.objects.filter(created_at__lt=timezone.now() - KEPT, replays=None)
    is_due = Q(status=Delivery.Status.WAITING, webhook__is_active=True, webhook__user__is_active=True)
    return old.exclude(is_due).delete()[0]


def _claim(delivery: Delivery) -> bool:
    """Whether this try is ours: the next one is put off first, so that one who dies while sending loses nothing."""
    later = timezone.now() + timedelta(minutes=RETRY_MINUTES[min(delivery.attempts, len(RETRY_MINUTES) - 1)])
    return bool(
        Delivery.objects.filter(
            pk=delivery.pk, status=Delivery.Status.WAITING, attempts=delivery.attempts
        ).update(attempts=F("attempts") + 1, next_try_at=later)
    )


def _send(delivery: Delivery) -> bool:
    """Whether it was taken."""
    secret = sealing.unseal(delivery.webhook.secret, purpose=_purpose(delivery.webhook), kept_s=KEPT_SECRET_S)
    if not secret:
        _note(delivery, None, "Its secret cannot be opened any more; make a new webhook.", is_final=True)
        return False
    body = json.dumps(delivery.payload, separators=(",", ":"), ensure_ascii=False).encode()
    timestamp = str(int(timezone.now().timestamp()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "lora-commons-webhook/1",
        "X-Lora-Event": delivery.event,
        "X-Lora-Delivery": str(delivery.pk),
        "X-Lora-Timestamp": timestamp,
        "X-Lora-Signature": "sha256=" + signature(secret, timestamp, body),
    }
    try:
        with (
            httpx2.Client(
                transport=GuardedTransport(_trusted(), patience=Patience(head_s=TIMEOUT_S)),
                timeout=TIMEOUT_S,
                follow_redirects=False,
                trust_env=False,
            ) as client,
            client.stream("POST", delivery.webhook.url, content=body, headers=headers) as answer,
        ):
            status = answer.status_code
    except NotPublic:
        _note(
            delivery,
            None,
            "Its name cannot be looked up, or does not lead to the open internet, where alone we send.",
        )
    except httpx2.TimeoutException:
        _note(delivery, None, f"It did not answer within {TIMEOUT_S} seconds.")
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        _note(delivery, None, f"It could not be reached ({type(error).__name__}).")
    else:
        _note(delivery, status, _problem_of(status))
        return not _problem_of(status)
    return False


def _problem_of(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"It answered {status}, and we follow no redirects: give the address that it leads to."
    return f"It answered {status}."


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Hex HMAC-SHA256 of the timestamp, a dot and the body, as receivers compute it to know that we sent this."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _note(delivery: Delivery, answered: int | None, problem: str, *, is_final: bool = False) -> None:
    """Write down how a try went, and switch a webhook off that has failed for long."""
    hook = Webhook.objects.filter(pk=delivery.webhook_id)
    row = Delivery.objects.filter(pk=delivery.pk)
    if not problem:
        row.update(
            status=Delivery.Status.DELIVERED, answered=answered, problem="", delivered_at=timezone.now()
        )
        hook.update(failures=0)
        return
    row.update(answered=answered, problem=problem[:300])
    if is_final or delivery.attempts + 1 > len(RETRY_MINUTES):
        row.update(status=Delivery.Status.GIVEN_UP)
        hook.update(failures=F("failures") + 1)
        if hook.filter(failures__gte=FAILURES_TO_STOP).update(is_active=False):
            logger.warning(
                "webhook %s was switched off after %s failures", delivery.webhook_id, FAILURES_TO_STOP
            )


def latest_deliveries(user: User, limit: int) -> Iterable[Delivery]:
    """The newest deliveries of all webhooks of a person."""
    return Delivery.objects.filter(webhook__user=user).select_related("webhook")[:limit]
