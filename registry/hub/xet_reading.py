"""The read half of the Xet protocol, for the few that ask for it.

Before clients have us copy weights from one repository to another (`hf cp`), they want a Xet hash of each file, and what has
one HfFileSystem reads by Xet. Everybody else downloads by plain HTTP: no other answer names a hash.

Nothing of Xet is stored. The hash that we name is the file's sha256, and a file is cut as it lies there, into chunks of one
length that travel as they are. Clients take what comes: nothing in the protocol lets them compute another hash.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from registry import downloads, storage
from registry.hub import repositories
from registry.hub.doors import Caller, by_ticket, door, freely
from registry.hub.errors import RepositoryNotFound
from registry.models import Adapter, BaseModelFile, Blob, Revision, RevisionFile, Token
from registry.rights import Person
from web.errors import Forbidden, NotFound

CHUNK_BYTES = 64 * 1024
CHUNK_HEADER_BYTES = 8
CHUNKS_PER_XORB = 512  # a xorb has at most 64 MiB
FILE_TICKET_S = 3600
_TOKEN_SALT, _FILE_SALT = "hub xet-read", "hub xet-file"


@door("GET", bucket="resolvers")
def read_token(request: HttpRequest, caller: Caller, repo: str, revision: str) -> JsonResponse:
    """An address and a token for reading files of this revision by Xet."""
    snapshot = repositories.find(caller.person, repo).snapshot(revision)
    said = {
        "token": caller.token.pk if caller.token else None,
        "name": snapshot.repository.name,
        "revision": snapshot.revision.pk if snapshot.revision else None,
    }
    url = request.build_absolute_uri("/xet/read")
    token = signing.dumps(said, salt=_TOKEN_SALT)
    until = int(time.time()) + settings.HUB_TICKET_S
    response = JsonResponse({"casUrl": url, "accessToken": token, "exp": until})
    for name, value in (("Cas-Url", url), ("Access-Token", token), ("Token-Expiration", str(until))):
        response[f"X-Xet-{name}"] = value  # where a part of the clients looks
    return response


@by_ticket("GET")
def reconstruction(request: HttpRequest, ticket: str, sha256: str) -> JsonResponse:
    """Of which chunks a file, or the range of it that is asked for, consists, and where each is."""
    person, blob, revision = _asked(ticket, sha256)
    part = downloads.parse_range(request.headers.get("Range", ""), blob.size_bytes)
    start, length = (part.start, part.length) if part else (0, blob.size_bytes)
    if revision is not None and start == 0:
        downloads.count_download(request, revision, person=person)
    signed = signing.dumps({"blob": blob.pk}, salt=_FILE_SALT)
    url = request.build_absolute_uri(reverse("hub_xet_file", args=[signed]))
    first, end = start // CHUNK_BYTES, -(-(start + length) // CHUNK_BYTES)
    terms: list[dict[str, Any]] = []
    where: dict[str, list[dict[str, Any]]] = {}
    while first < end:
        xorb, inside = divmod(first, CHUNKS_PER_XORB)
        count = min(end - first, CHUNKS_PER_XORB - inside)
        name = hashlib.sha256(f"{sha256} {xorb}".encode()).hexdigest()
        chunks = {"start": inside, "end": inside + count}
        behind = min((first + count) * CHUNK_BYTES, blob.size_bytes)
        terms.append({"hash": name, "unpacked_length": behind - first * CHUNK_BYTES, "range": chunks})
        ends = behind + (first + count) * CHUNK_HEADER_BYTES
        url_range = {"start": first * (CHUNK_BYTES + CHUNK_HEADER_BYTES), "end": ends - 1}
        where[name] = [{"range": chunks, "url": url, "url_range": url_range}]
        first += count
    content = {"offset_into_first_range": start % CHUNK_BYTES, "terms": terms, "fetch_info": where}
    return JsonResponse(content)


@freely("GET")
def chunks(request: HttpRequest, caller: Caller, ticket: str) -> HttpResponseBase:
    """The chunks of a file one after the other, each behind its header; clients ask for ranges of them."""
    try:
        said = signing.loads(ticket, salt=_FILE_SALT, max_age=FILE_TICKET_S)
    except signing.BadSignature as error:
        raise Forbidden("This address is not ours or has expired. Start the download again.") from error
    blob = Blob.objects.filter(pk=said["blob"]).first()
    if blob is None:
        raise NotFound("This file is not kept any more.")
    storage.require_bytes(blob)
    size = blob.size_bytes + CHUNK_HEADER_BYTES * -(-blob.size_bytes // CHUNK_BYTES)
    part = downloads.parse_range(request.headers.get("Range", ""), size)
    start, length = (part.start, part.length) if part else (0, size)
    response = StreamingHttpResponse(_packed(blob, start, length), content_type="application/octet-stream")
    response["Content-Length"] = str(length)
    response["Accept-Ranges"] = "bytes"
    response["Cache-Control"] = downloads.ASK_AGAIN
    if part:
        response.status_code = 206
        response["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    return response


def _packed(blob: Blob, start: int, length: int) -> Iterator[bytes]:
    """`length` bytes from `start` of the file's chunks with their headers."""
    first, skipped = divmod(start, CHUNK_BYTES + CHUNK_HEADER_BYTES)
    end = -(-(start + length) // (CHUNK_BYTES + CHUNK_HEADER_BYTES))
    # Whole chunks: the header of one names its length, also where the range ends inside of it.
    offset, behind = first * CHUNK_BYTES, min(end * CHUNK_BYTES, blob.size_bytes)
    pieces = storage.read_range(blob, offset, behind - offset)
    for chunk in _of_one_length(pieces):
        packed_size = len(chunk).to_bytes(3, "little")
        piece = (b"\0" + packed_size + b"\0" + packed_size + chunk)[skipped : skipped + length]
        skipped, length = 0, length - len(piece)
        yield piece
        if not length:
            return


def _of_one_length(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of CHUNK_BYTES; the last may be shorter."""
    rest = bytearray()
    for piece in pieces:
        rest += piece
        whole = len(rest) - len(rest) % CHUNK_BYTES
        for place in range(0, whole, CHUNK_BYTES):
            yield bytes(rest[place : place + CHUNK_BYTES])
        del rest[:whole]
    if rest:
        yield bytes(rest)


def _asked(ticket: str, sha256: str) -> tuple[Person, Blob, Revision | None]:
    """Who asks, for which file, of which revision of an adapter. Raises Forbidden, RepositoryNotFound and NotFound."""
    try:
        said = signing.loads(ticket, salt=_TOKEN_SALT, max_age=settings.HUB_TICKET_S)
    except signing.BadSignature as error:
        raise Forbidden("This token is not ours or has expired. Start the download again.") from error
    person: Person = AnonymousUser()
    if said["token"] is not None:
        tokens = Token.objects.usable().select_related("user", "namespace", "adapter__namespace")
        token = tokens.filter(pk=said["token"]).first()
        if token is None:
            raise Forbidden("The token that this was asked with is good for nothing any more.")
        person = token.user
        person.acting_token = token
    if said["revision"] is None:
        file = BaseModelFile.objects.filter(base_model__name=said["name"], blob__sha256=sha256)
        base_file = file.select_related("blob").first()
        if base_file is None:
            raise NotFound(f"{said['name']} has no such file.")
        return person, base_file.blob, None
    seen = Adapter.objects.visible_to(person)
    revision = Revision.objects.filter(pk=said["revision"], adapter__in=seen).defer("facts").first()
    if revision is None:
        raise RepositoryNotFound(said["name"])
    row = RevisionFile.objects.filter(revision=revision, blob__sha256=sha256).select_related("blob").first()
    if row is None:
        raise NotFound(f"{said['name']} has no such file in this revision.")
    return person, row.blob, revision
