"""Bytes on their way into a commit: a body taken in pieces, and the tickets of those who send without a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import signing
from django.http import HttpRequest

from registry import rights, storage
from registry.models import Adapter, Token, User
from registry.uploads import UploadTooLarge
from web.errors import Forbidden, LengthNeeded


def length_of(request: HttpRequest, *, most: int, what: str = "The file") -> int:
    """The length of the body in bytes. Raises LengthNeeded, UploadTooLarge or StorageFull before any of it is read."""
    given = request.META.get("CONTENT_LENGTH") or ""
    if not (given.isascii() and given.isdigit()):
        raise LengthNeeded
    if int(given) > most:
        raise UploadTooLarge(what, most)
    storage.require_free_space(int(given))
    return int(given)


def pieces_of(request: HttpRequest) -> Iterator[bytes]:
    while piece := request.read(storage.CHUNK_BYTES):
        yield piece


def xorbs_for(adapter_id: int) -> str:
    """What the names of the folders (`sent.folder_for`) of all Xet uploads to one repository begin with."""
    return f"xorbs-{adapter_id}-"


def ticket(purpose: str, *, person: User, adapter: Adapter, **said: Any) -> str:
    """A signed text for an address: whoever has it may do this one thing for some hours, while `person` may write."""
    token = rights.token_of(person)
    said = {**said, "user": person.pk, "adapter": adapter.pk, "token": token.pk if token else None}
    return signing.dumps(said, salt=f"hub {purpose}")


def read_ticket(purpose: str, text: str) -> dict[str, Any]:
    """What a ticket says. Raises Forbidden if it is not ours or too old."""
    try:
        found = signing.loads(text, salt=f"hub {purpose}", max_age=settings.HUB_TICKET_S)
    except signing.BadSignature as error:
        raise Forbidden("This address is not ours or has expired. Start the upload again.") from error
    return dict(found)


def sender(said: dict[str, Any]) -> User:
    """Who sends by this ticket. Raises Forbidden once they, or the token it was given to, may no longer write there."""
    token = (
        Token.objects.usable()
        .select_related("user", "namespace", "adapter__namespace")
        .filter(pk=said["token"], user=said["user"])
        .first()
    )
    adapter = Adapter.objects.alive().select_related("namespace").filter(pk=said["adapter"]).first()
    if token is None or adapter is None:
        raise Forbidden("You may no longer write to this repository.")
    token.user.acting_token = token
    if not rights.may_change(token.user, adapter):
        raise Forbidden("You may no longer write to this repository.")
    return token.user
