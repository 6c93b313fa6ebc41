"""The write half of the Xet protocol, without which a default client cannot send a large file.

A client gets an address of its own for each upload (`scope`), puts xorbs there and then a shard; the files it describes
become blobs like any other, known by the sha256 that is computed here. Xorbs are seen by nobody else and go with the
hourly sweep of temporary files; nothing of Xet is left once the file is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, JsonResponse

from registry import sent, storage
from registry.hub import sending
from registry.hub.doors import Caller, by_ticket, door
from registry.hub.writing import writable
from registry.hub.xorbs import (
    MAX_SHARD_BYTES,
    MAX_XORB_BYTES,
    BadXet,
    XetFile,
    Xorb,
    read_shard,
    write_unpacked,
)
from registry.models import User
from registry.storage import HashMismatch
from registry.uploads import UploadTooLarge
from web.errors import Forbidden, NotFound

logger = logging.getLogger(__name__)

_HASH = re.compile(r"[0-9a-f]{64}\Z")


@door("GET")
def write_token(request: HttpRequest, caller: Caller, repo: str, revision: str) -> JsonResponse:
    """An address and a token for one upload to this repository.

    The address is new each time: clients remember for weeks which chunks they sent to an address, and would never
    send them again after ours are swept.
    """
    person, adapter, repository = writable(caller, repo)
    repository.snapshot(revision)
    # Here it can be said: of what is refused later clients show the status alone.
    sent.require_room(person, 1)
    nonce = secrets.token_hex(16)
    scope = f"{nonce}{_seal(nonce, {'user': person.pk, 'adapter': adapter.pk})}"
    return JsonResponse(
        {
            "casUrl": request.build_absolute_uri(f"/xet/{scope}"),
            "accessToken": sending.ticket("xet", person=person, adapter=adapter),
            "exp": int(time.time()) + settings.HUB_TICKET_S,
        }
    )


@by_ticket("POST")
def put_xorb(request: HttpRequest, ticket: str, scope: str, xorb: str) -> JsonResponse:
    """One xorb, kept unpacked until the shard that names it."""
    person, folder = _upload(ticket, scope)
    if not _HASH.match(xorb):
        raise BadXet("The name of a xorb is 64 hex digits.")
    length = sending.length_of(request, most=MAX_XORB_BYTES)
    place = folder / xorb
    if place.exists():
        return JsonResponse({"was_inserted": False})
    folder.mkdir(exist_ok=True)
    if sent.bytes_below(folder) + length > settings.MAX_ADAPTER_BYTES:
        raise UploadTooLarge("The upload", settings.MAX_ADAPTER_BYTES)
    sent.require_room(person, length)
    storage.require_free_space(MAX_XORB_BYTES)  # so much a short one can become
    beside = storage.part_beside(place)
    try:
        with storage.failures_in_words(), beside.open("wb") as file:
            came = write_unpacked(sending.pieces_of(request), file)
        if came != length:
            raise BadXet("The xorb did not arrive whole. Send it again.")
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    return JsonResponse({"was_inserted": True})


@by_ticket("POST")
def put_shard(request: HttpRequest, ticket: str, scope: str) -> JsonResponse:
    """The files that the xorbs make, each checked against its sha256 and stored."""
    person, folder = _upload(ticket, scope)
    sending.length_of(request, most=MAX_SHARD_BYTES)
    files = read_shard(b"".join(sending.pieces_of(request)))
    xorbs: dict[str, Xorb] = {}
    for file in files:
        _store(file, folder, xorbs, person)
    sent.mark_done(folder)
    return JsonResponse({"result": 1})


@by_ticket("GET", "POST", "PUT", "DELETE")
def not_needed(request: HttpRequest, ticket: str, rest: str) -> JsonResponse:
    """What else the protocol has; clients do without it when it is not there."""
    raise NotFound("This part of the Xet protocol is not used here.")


def _store(file: XetFile, folder: Path, xorbs: dict[str, Xorb], person: User) -> None:
    size = file.size_bytes
    if size > settings.MAX_FILE_BYTES:
        raise UploadTooLarge("The file", settings.MAX_FILE_BYTES)
    storage.require_free_space(size)
    try:
        blob = storage.store_stream(_bytes_of(file, folder, xorbs), size_bytes=size, sha256=file.sha256)
    except HashMismatch as error:
        raise BadXet(f"{error.message} (It came through Xet.)") from error
    sent.note_sent(person, blob)
    logger.info("took %d bytes through Xet from %s", size, person)


def _bytes_of(file: XetFile, folder: Path, xorbs: dict[str, Xorb]) -> Iterator[bytes]:
    for segment in file.segments:
        xorb = xorbs.get(segment.xorb)
        if xorb is None:
            path = folder / segment.xorb
            if not path.exists():
                raise BadXet("The shard names a xorb that was not sent. Start the upload again.")
            xorb = xorbs[segment.xorb] = Xorb(path)
        if xorb.size_bytes(segment.first, segment.end) != segment.size_bytes:
            raise BadXet("A segment of the shard has another size than its chunks.")
        yield from xorb.pieces(segment.first, segment.end)


def _upload(ticket: str, scope: str) -> tuple[User, Path]:
    """Who uploads, and the folder of their xorbs. A later token for the same repository opens the same folder."""
    said = sending.read_ticket("xet", ticket)
    if len(scope) != 64 or not hmac.compare_digest(_seal(scope[:32], said), scope[32:]):
        raise Forbidden("This token is for another address. Start the upload again.")
    person = sending.sender(said)
    return person, sent.folder_for(person, f"{sending.xorbs_for(said['adapter'])}{scope}")


def _seal(nonce: str, said: dict[str, int]) -> str:
    """Ties an address to one person and repository, without a row in the database."""
    text = f"{nonce} {said['user']} {said['adapter']}".encode()
    return hmac.new(f"xet {settings.SECRET_KEY}".encode(), text, hashlib.sha256).hexdigest()[:32]
