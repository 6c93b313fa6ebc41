"""Bytes that somebody gave us and that no revision has yet: theirs to use, kept for a day, and so many at most.

What arrives in pieces lies in folders of its sender below UPLOAD_TMP_DIR until the pieces are a file; on the host that took it, it
counts as well.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, Sum
from django.utils import timezone

from registry import storage
from registry.models import BaseModelFile, Blob, RevisionFile, SentBlob, User
from registry.quotas import QuotaReached
from registry.rights import hold_account
from web.errors import Forbidden
from web.templatetags.formatting import size

# Stands in a folder of pieces once they have become a file.
_DONE = "done"


class TooMuchSent(QuotaReached):
    code = "too_much_sent"

    def __init__(self, *, used: int, more: int) -> None:
        most = settings.MAX_UNCOMMITTED_BYTES
        super().__init__(
            f"You have sent {size(used)} that no commit has used yet; with {size(more)} more it would be above {size(most)}, the "
            "most that is kept for one account. Commit what you have sent, or wait: files go a day after they were sent, "
            "pieces of files after an hour."
        )


def note_sent(user: User, blob: Blob) -> None:
    """From now on, for a day, this person may put these bytes into a commit.

    Raises TooMuchSent, and Forbidden for an account that was deleted or blocked meanwhile; then the bytes go too, unless something else
    wants them.
    """
    try:
        with transaction.atomic():
            hold_account(user)
            if _is_new_of(user, blob):
                require_room(user, blob.size_bytes)
            SentBlob.objects.update_or_create(user=user, blob=blob, defaults={"sent_at": timezone.now()})
    except (TooMuchSent, Forbidden):
        storage.discard([blob])
        raise


def forget_sent(user: User, blobs: Iterable[Blob]) -> None:
    """The opposite, and the bytes go too unless something else wants them."""
    blobs = list(blobs)
    SentBlob.objects.filter(user=user, blob__in=blobs).delete()
    storage.discard(blobs)


# --- How much ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """What somebody has sent and nothing refers to; the limit is 0 where there is none."""

    size_bytes: int

    @property
    def may_be(self) -> int:
        return settings.MAX_UNCOMMITTED_BYTES


def use_by(user: User) -> Use:
    """Whole files, and pieces of some."""
    waiting = Blob.objects.filter(senders__user=user).filter(_is_unused())
    pieces = settings.UPLOAD_TMP_DIR.glob(f"{_prefix(user)}*")
    return Use((waiting.aggregate(sum=Sum("size_bytes"))["sum"] or 0) + sum(map(bytes_below, pieces)))


def require_room(user: User, more: int) -> None:
    """Raises TooMuchSent where `more` bytes would be too many."""
    most = settings.MAX_UNCOMMITTED_BYTES
    if most and (used := use_by(user).size_bytes) + more > most:
        raise TooMuchSent(used=used, more=more)


def _is_new_of(user: User, blob: Blob) -> bool:
    """Whether these bytes are kept for this person alone from now on."""
    is_known = SentBlob.objects.filter(user=user, blob=blob).exists()
    return not is_known and Blob.objects.filter(_is_unused(), pk=blob.pk).exists()


def _is_unused() -> Q:
    of_a_revision = RevisionFile.objects.filter(blob=OuterRef("pk"))
    of_a_base_model = BaseModelFile.objects.filter(blob=OuterRef("pk"))
    return ~Exists(of_a_revision) & ~Exists(of_a_base_model)


# --- Pieces --------------------------------------------------------------------------------------------------


def folder_for(user: User, name: str) -> Path:
    """Where pieces of an upload called `name` lie; the hourly sweep takes what is left of them."""
    return cast(Path, settings.UPLOAD_TMP_DIR) / f"{_prefix(user)}{name}"


def bytes_below(folder: Path) -> int:
    """Of the files there; others may get their names, or go, at the same moment."""
    total = 0
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def mark_done(folder: Path) -> None:
    """The pieces there have become files; what is sent next may still name them."""
    with suppress(FileNotFoundError):  # no pieces were sent, or another commit has just let go of them
        (folder / _DONE).touch()


def let_go_of_done(user: User, name: str) -> None:
    """Remove this person's folders whose names begin with `name` and whose pieces have become files."""
    for done in settings.UPLOAD_TMP_DIR.glob(f"{_prefix(user)}{name}*/{_DONE}"):
        shutil.rmtree(done.parent, ignore_errors=True)


def _prefix(user: User) -> str:
    return f"sent-{user.pk}-"
