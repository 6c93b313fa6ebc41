"""Commits that were refused, known for a while: a client that sends the same files again in smaller parts leaves nothing.

huggingface_hub takes any refusal of more than twenty files for one of their number, and would have those kept that nothing
is wrong with: a part of an adapter that nobody asked for. Every upload begins with a `preupload`, its parts do not.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.core.cache import cache

from registry.commits import Operation, Put
from registry.hub import errors
from registry.hub.bodies import BadRequest
from registry.models import Revision, User
from web.errors import DomainError

SENT_WHOLE = 20  # files that the client does not divide
KNOWN_S = 5 * 60


def remember(error: DomainError, *, person: User, head: Revision, operations: Iterable[Operation]) -> None:
    """That these changes of the branch's newest revision `head` were refused."""
    files = _files(operations)
    if len(files) > SENT_WHOLE:
        cache.set(_key(person, head), (files, errors.sentence(error)), KNOWN_S)


def forget(*, person: User, head: Revision) -> None:
    """A new upload begins, which may be right."""
    cache.delete(_key(person, head))


def require_no_part(*, person: User, head: Revision, operations: Iterable[Operation]) -> None:
    """Raises BadRequest, by what was wrong with the whole, for files that all were in a commit that was refused."""
    whole, sentence = cache.get(_key(person, head), (frozenset(), ""))
    files = _files(operations)
    if files and files <= whole:
        raise BadRequest(f"{sentence}\nNothing of this upload was kept.")


def _files(operations: Iterable[Operation]) -> frozenset[tuple[str, str]]:
    return frozenset((put.path, put.blob.sha256) for put in operations if isinstance(put, Put))


def _key(person: User, head: Revision) -> str:
    return f"refused-commit:{person.pk}:{head.pk}"
