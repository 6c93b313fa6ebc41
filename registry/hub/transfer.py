"""Git LFS: files sent to a signed address, one request each, before the commit that names them by sha256."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import reverse

from registry import sent, storage
from registry.hub import errors, sending
from registry.hub.bodies import BadRequest, body_of
from registry.hub.doors import Caller, door, freely
from registry.hub.writing import writable
from registry.models import Adapter, Blob, SentBlob, User
from registry.rights import may_read_blob
from registry.storage import HashMismatch
from web.errors import DomainError, NotFound

MAX_OBJECTS = 1000
CONTENT_TYPE = "application/vnd.git-lfs+json"
SHA256_NAMES = ("sha256", "sha_256")  # the second is what the Hub's client for JavaScript says
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class OtherBytes(HashMismatch):
    """422, which no client repeats."""

    status = 422


class OtherSize(DomainError):
    code = "other_size"
    status = 422

    def __init__(self, *, found: object, expected: object) -> None:
        super().__init__(f"The file has {found} bytes, not {expected} as was said. Send it again.")


@door("POST")
def batch(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    """Where to send each object; nothing for those that are here and that the caller may read."""
    person, adapter, _ = writable(caller, repo)
    body = body_of(request)
    if body.get("operation") != "upload":
        raise BadRequest("Only uploads go through Git LFS here; download files by their addresses.")
    if body.get("hash_algo", "sha256") not in SHA256_NAMES:
        raise BadRequest("Only sha256 names objects here.")
    objects = body.get("objects")
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise BadRequest("'objects' is missing or no list.")
    if len(objects) > MAX_OBJECTS:
        raise BadRequest(f"There are {len(objects)} objects; ask about {MAX_OBJECTS} at a time.")
    takes_parts = isinstance(body.get("transfers"), list) and "multipart" in body["transfers"]
    in_parts = takes_parts and bool(settings.LFS_PART_BYTES)
    found = [_how_to_send(request, person, adapter, item, in_parts=in_parts) for item in objects]
    answer = {"transfer": "multipart" if in_parts else "basic", "objects": found, "hash_algo": "sha256"}
    return JsonResponse(answer, content_type=CONTENT_TYPE)


def _how_to_send(
    request: HttpRequest, person: User, adapter: Adapter, item: dict[str, Any], *, in_parts: bool
) -> dict[str, Any]:
    oid, size = item.get("oid"), item.get("size")
    row: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
    problem = _problem(oid, size)
    if problem:
        return {**row, "error": {"code": 422, "message": problem}}
    blob = Blob.objects.filter(sha256=oid).first()
    if blob is not None and blob.size_bytes == size and may_read_blob(person, blob):
        sent.note_sent(person, blob)  # keeps it until the commit
        return row
    assert isinstance(size, int)  # or it would be a problem
    try:
        sent.require_room(person, size)
    except sent.TooMuchSent as error:
        return {**row, "error": {"code": error.status, "message": errors.in_ascii(error.message)}}
    ticket = sending.ticket("lfs", person=person, adapter=adapter, oid=oid, size=size)
    upload = {"href": request.build_absolute_uri(reverse("hub_lfs_put", args=[ticket]))}
    if in_parts and size:
        from registry.hub import parts  # it needs this module itself

        upload = parts.upload_action(request, ticket, size)
    verify = request.build_absolute_uri(reverse("hub_lfs_verify", args=[adapter.full_name]))
    return {**row, "actions": {"upload": upload, "verify": {"href": verify}}}


def _problem(oid: object, size: object) -> str:
    if not isinstance(oid, str) or not _SHA256.match(oid):
        return "The oid of an object is its sha256 in 64 hex digits."
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return "The size of an object is its number of bytes."
    if size > settings.MAX_FILE_BYTES:
        return f"The file has {size:,} bytes; one file may have {settings.MAX_FILE_BYTES:,}."
    return ""


@freely("PUT")
def put(request: HttpRequest, caller: Caller, ticket: str) -> JsonResponse:
    """The bytes of one object. The address itself carries the right; clients send no token here."""
    said = sending.read_ticket("lfs", ticket)
    person = sending.sender(said)
    length = sending.length_of(request, most=settings.MAX_FILE_BYTES)
    if length != said["size"]:
        raise OtherSize(found=length, expected=said["size"])
    sent.require_room(person, length)
    try:
        blob = storage.store_stream(sending.pieces_of(request), size_bytes=length, sha256=said["oid"])
    except HashMismatch as error:
        raise OtherBytes(found=error.found, expected=error.expected) from error
    sent.note_sent(person, blob)
    return JsonResponse({})


@door("POST")
def verify(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    """Whether an object has arrived; it was checked when it did."""
    person, _, _ = writable(caller, repo)
    body = body_of(request)
    rows = SentBlob.objects.filter(user=person, blob__sha256=str(body.get("oid")))
    row = rows.select_related("blob").first()
    if row is None:
        raise NotFound("You have sent no such object.")
    if row.blob.size_bytes != body.get("size"):
        raise OtherSize(found=row.blob.size_bytes, expected=str(body.get("size"))[:20])
    return JsonResponse({"oid": row.blob.sha256, "size": row.blob.size_bytes})
