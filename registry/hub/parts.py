"""Git LFS in parts: for sites behind a proxy that takes only small bodies (LFS_PART_BYTES).

The parts of one object lie in a folder of their own until the completion puts them together; what is never completed
goes with the hourly sweep of temporary files.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import reverse

from registry import sent, storage
from registry.hub import sending
from registry.hub.bodies import BadRequest, body_of
from registry.hub.doors import Caller, freely
from registry.hub.transfer import OtherBytes, OtherSize
from registry.models import User
from registry.storage import HashMismatch
from web.errors import NotFound


def upload_action(request: HttpRequest, ticket: str, size: int) -> dict[str, Any]:
    """Where each part goes and where the completion, in the form that the Hub's clients read. At least one part."""
    count = -(-size // settings.LFS_PART_BYTES)
    urls = {
        str(number): request.build_absolute_uri(reverse("hub_lfs_part", args=[ticket, number]))
        for number in range(1, count + 1)
    }
    complete = request.build_absolute_uri(reverse("hub_lfs_complete", args=[ticket]))
    return {"href": complete, "header": {"chunk_size": str(settings.LFS_PART_BYTES), **urls}}


@freely("PUT")
def put_part(request: HttpRequest, caller: Caller, ticket: str, number: int) -> JsonResponse:
    """The bytes of one part; sent again they replace what came before. Its ETag goes into the completion."""
    said = sending.read_ticket("lfs", ticket)
    person = sending.sender(said)
    wanted = _length_of_part(said["size"], number)
    length = sending.length_of(request, most=settings.LFS_PART_BYTES)
    if length != wanted:
        raise OtherSize(found=length, expected=wanted)
    sent.require_room(person, length)
    folder = _folder(person, ticket)
    folder.mkdir(exist_ok=True)
    beside = folder / f"{number}.{secrets.token_hex(8)}.part"
    digest = hashlib.sha256()
    try:
        with storage.failures_in_words(), beside.open("wb") as file:
            for piece in sending.pieces_of(request):
                digest.update(piece)
                file.write(piece)
        if beside.stat().st_size != wanted:
            raise BadRequest("The part did not arrive whole. Send it again.")
        beside.replace(folder / str(number))
    finally:
        beside.unlink(missing_ok=True)
    response = JsonResponse({})
    response["ETag"] = f'"{digest.hexdigest()}"'
    return response


@freely("POST")
def complete(request: HttpRequest, caller: Caller, ticket: str) -> JsonResponse:
    """Put the parts together; the whole has to have the sha256 that was said."""
    said = sending.read_ticket("lfs", ticket)
    person = sending.sender(said)
    if body_of(request).get("oid") != said["oid"]:
        raise BadRequest("The completion is for another object than the address.")
    folder = _folder(person, ticket)
    count = -(-said["size"] // settings.LFS_PART_BYTES)
    missing = [number for number in range(1, count + 1) if not (folder / str(number)).exists()]
    if missing:
        raise NotFound(f"Part {missing[0]} of {count} has not arrived. Send it, then complete again.")
    try:
        blob = storage.store_stream(_bytes_of(folder, count), size_bytes=said["size"], sha256=said["oid"])
    except HashMismatch as error:
        raise OtherBytes(found=error.found, expected=error.expected) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sent.note_sent(person, blob)
    return JsonResponse({})


def _length_of_part(size: int, number: int) -> int:
    """In bytes; the last part has what is left. Raises NotFound for a part that the object has not."""
    start = (number - 1) * settings.LFS_PART_BYTES
    if number < 1 or start >= size:
        raise NotFound(f"The object has no part {number}.")
    return int(min(settings.LFS_PART_BYTES, size - start))


def _bytes_of(folder: Path, count: int) -> Iterator[bytes]:
    for number in range(1, count + 1):
        with (folder / str(number)).open("rb") as file:
            while piece := file.read(storage.CHUNK_BYTES):
                yield piece


def _folder(person: User, ticket: str) -> Path:
    return sent.folder_for(person, f"lfs-{hashlib.sha256(ticket.encode()).hexdigest()[:40]}")
