"""Trying a composed adapter on a text of one's own: asked on the page, answered by a worker that is free.

    waiting -> running -> done | failed

As with compositions the row is the truth and the broker a doorbell, but a try-out is small: it is answered once or told
that nobody was free, nothing is resumed, and its text goes after a day.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from compose.errors import BadTryout, NoSuchComposition, TooManyTryouts, WrongState
from compose.models import Composition, Tryout
from registry.models import User
from registry.rights import Person

logger = logging.getLogger(__name__)
MAX_TEXT_BYTES = 8 * 1024
MAX_UNFINISHED = 2  # of one person
MAX_AN_HOUR = 60
# A free worker answers in seconds; one that is at a composition comes when that is done.
WAITS_AT_MOST = timedelta(minutes=3)
RUNS_AT_MOST = timedelta(minutes=2)
KEPT = timedelta(days=1)
Status = Tryout.Status


def ask(composition: Composition, person: User, text: str) -> Tryout:
    """Queue a text for the adapter of a finished composition that this person may see.

    Raises BadTryout, TooManyTryouts or WrongState, and then nothing is saved.
    """
    if composition.weights_blob_id is None:
        raise WrongState("This composition has no adapter, so there is nothing to try.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    _check(text)
    with transaction.atomic():
        # The person's row first, so that two requests at once do not both take the last place.
        list(User.objects.select_for_update().filter(pk=person.pk).values_list("pk"))
        _require_room(person)
        tryout = Tryout.objects.create(composition=composition, asked_by=person, text=text)
        transaction.on_commit(partial(ring, tryout.pk))
    return tryout


def _check(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if not text.strip():
        raise BadTryout("Write something for the adapter to read.")
    if size > MAX_TEXT_BYTES:
        raise BadTryout(f"The text has {size:,} bytes; at most {MAX_TEXT_BYTES:,} are read. Shorten it.")
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadTryout(
            "The text holds a character that is none (a NUL or half a surrogate pair); take it out."
        )


def _require_room(person: User) -> None:
    own = Tryout.objects.filter(asked_by=person)
    if own.filter(status__in=[Status.WAITING, Status.RUNNING]).count() >= MAX_UNFINISHED:
        raise TooManyTryouts(f"You have {MAX_UNFINISHED} texts waiting for an answer; wait for one of them.")
    if own.filter(created_at__gte=timezone.now() - timedelta(hours=1)).count() >= MAX_AN_HOUR:
        raise TooManyTryouts(f"You tried {MAX_AN_HOUR} texts in the last hour, the most one person may.")


def ring(tryout_id: str) -> None:
    """Tell a worker. A broker that is down is no failure: the sweep rings again."""
    from compose.tasks import answer_tryouts

    try:
        answer_tryouts.apply_async([tryout_id], retry=False)
    except Exception as error:  # whatever the broker's client raises
        logger.warning("The broker could not be told about try-out %s: %s", tryout_id, error)


def seen_by(person: Person, composition: Composition, tryout_id: str) -> Tryout:
    """A try-out of this person's own. Raises NoSuchComposition."""
    found = None
    if person is not None and person.is_authenticated:
        found = Tryout.objects.filter(pk=tryout_id, composition=composition, asked_by_id=person.pk).first()
    if found is None:
        raise NoSuchComposition
    found.composition = composition
    return found


# --- A worker's part -----------------------------------------------------------------------------------------


def take_next() -> Tryout | None:
    """The oldest that waits, now running; None if there is none."""
    while True:
        waiting = Tryout.objects.filter(status=Status.WAITING).order_by("created_at", "pk")
        first = waiting.values_list("pk", flat=True).first()
        if first is None:
            return None
        taken = Tryout.objects.filter(pk=first, status=Status.WAITING)
        if taken.update(status=Status.RUNNING, taken_at=timezone.now()):
            return Tryout.objects.select_related("composition__base_model").get(pk=first)


def finish(tryout: Tryout, answers: dict[str, str], seconds: float) -> None:
    _running(tryout).update(status=Status.DONE, answers=answers, seconds=seconds)


def fail(tryout: Tryout, message: str) -> None:
    _running(tryout).update(status=Status.FAILED, error=message[:500])


def _running(tryout: Tryout) -> QuerySet[Tryout]:
    return Tryout.objects.filter(pk=tryout.pk, status=Status.RUNNING)


# --- The sweep -----------------------------------------------------------------------------------------------


def sweep() -> None:
    """Ring for what waits, tell those nobody came for, forget what is old."""
    now = timezone.now()
    unfinished = Tryout.objects.filter(status__in=[Status.WAITING, Status.RUNNING])
    unfinished.filter(status=Status.WAITING, created_at__lt=now - WAITS_AT_MOST).update(
        status=Status.FAILED,
        error="No worker was free within three minutes. Ask again when the queue is short.",
    )
    unfinished.filter(status=Status.RUNNING, taken_at__lt=now - RUNS_AT_MOST).update(
        status=Status.FAILED, error="The worker was lost while it wrote the answer. Ask again."
    )
    waiting = Tryout.objects.filter(status=Status.WAITING, created_at__lt=now - timedelta(seconds=3))
    oldest = waiting.order_by("created_at").values_list("pk", flat=True).first()
    if oldest is not None:
        ring(oldest)
    Tryout.objects.filter(created_at__lt=now - KEPT).delete()
