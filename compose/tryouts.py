"""Trying a composed adapter on a text of one's own: an errand, asked on the page and answered by a free worker."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from compose import errands
from compose.errors import BadTryout, NoSuchComposition, TooManyTryouts, WrongState
from compose.models import Composition, Tryout
from registry.models import User
from registry.rights import Person

MAX_TEXT_BYTES = 8 * 1024
MAX_UNFINISHED = 2  # of one person
MAX_AN_HOUR = 60
KIND = errands.Kind(
    name="try-outs",
    model=Tryout,
    most_unfinished=MAX_UNFINISHED,
    most_an_hour=MAX_AN_HOUR,
    # A free worker answers in seconds; one that is at a composition comes when that is done.
    waits_at_most=timedelta(minutes=3),
    # A base model that is not on the machine any more is fetched first.
    runs_at_most=timedelta(minutes=15),
    nobody_came="No worker could take it within three minutes. Ask again later.",
    worker_lost="The worker was lost twice while it wrote the answer. Ask again later.",
    took_too_long=(
        "The answer took longer than fifteen minutes, most likely because the base model had to be fetched first. Ask again "
        "later, or tell the people who run this site."
    ),
    our_error="The answer stopped because of an error on our side. It has been logged; try again.",
)


def ask(composition: Composition, person: User, text: str) -> Tryout:
    """Queue a text for the adapter of a finished composition that this person may see.

    Raises BadTryout, TooManyTryouts or WrongState, and then nothing is saved.
    """
    if composition.weights_blob_id is None:
        raise WrongState("This composition has no adapter, so there is nothing to try.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    _check(text)
    with transaction.atomic():
        KIND.require_room(person, TooManyTryouts, "texts")
        tryout = Tryout.objects.create(composition=composition, asked_by=person, text=text)
        errands.ring_after_commit(tryout)
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


def seen_by(person: Person, composition: Composition, tryout_id: str) -> Tryout:
    """A try-out of this person's own. Raises NoSuchComposition."""
    found = None
    if person is not None and person.is_authenticated:
        found = Tryout.objects.filter(pk=tryout_id, composition=composition, asked_by_id=person.pk).first()
    if found is None:
        raise NoSuchComposition
    found.composition = composition
    return found
