"""A disk that is full or fails, in words: 507 or 503 instead of "something broke on our side"."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import BadRequest

from web.errors import DomainError

logger = logging.getLogger(__name__)


class StorageFull(DomainError, BadRequest):
    """Also a BadRequest: where Django itself reads a form, only that gets through to the error page."""

    code = "storage_full"
    status = 507

    def __init__(self) -> None:
        super().__init__(
            "There is not enough space left on this server to take these files. Nothing was kept; "
            "try again later or tell the people who run it."
        )


class StorageBroken(DomainError, BadRequest):
    code = "storage_broken"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The disk of this server could not be written. Nothing was kept; try again later or tell the people "
            "who run it."
        )


def refusal_of(error: BaseException) -> DomainError | None:
    """What to tell about a failed file operation if it was the disk's fault; it is logged here."""
    if not isinstance(error, OSError):
        return None
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        logger.error("The disk is full: %s", error)
        return StorageFull()
    if error.errno in {errno.EIO, errno.EROFS}:
        logger.error("The disk fails: %s", error)
        return StorageBroken()
    return None


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Raises StorageFull or StorageBroken in place of an OSError that says so."""
    try:
        yield
    except OSError as error:
        refusal = refusal_of(error)
        if refusal is None:
            raise
        raise refusal from error
