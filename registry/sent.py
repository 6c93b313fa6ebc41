"""Bytes that somebody gave us and that no revision has yet: theirs to use, kept for a day."""

from __future__ import annotations

from collections.abc import Iterable

from django.utils import timezone

from registry import storage
from registry.models import Blob, SentBlob, User


def note_sent(user: User, blob: Blob) -> None:
    """From now on, for a day, this person may put these bytes into a commit."""
    SentBlob.objects.update_or_create(user=user, blob=blob, defaults={"sent_at": timezone.now()})


def forget_sent(user: User, blobs: Iterable[Blob]) -> None:
    """The opposite, and the bytes go too unless something else wants them."""
    blobs = list(blobs)
    SentBlob.objects.filter(user=user, blob__in=blobs).delete()
    storage.discard(blobs)
