"""Serving files: whole or in ranges, as attachments that no browser runs, and counted once a client and day."""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import F
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from registry import storage
from registry.models import Adapter, BaseModel, BaseModelFile, Blob, Download, Revision, RevisionFile
from registry.rights import Person
from web import api_errors
from web.addresses import client_address
from web.errors import DomainError, NotFound

logger = logging.getLogger(__name__)

# For browsers and proxies that keep an answer; of a commit's files too: what is public today may be private tomorrow.
ASK_AGAIN = "private, no-cache"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the same revision makes the same bytes
_TEXT_TYPES = {
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class ByteRange:
    start: int
    length: int


class UnsatisfiableRange(DomainError):
    """The Range header names no byte of the file."""

    code = "range_outside"
    status = 416

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"The range lies outside of the file, which has {size_bytes:,} bytes.")


def file_response(
    request: HttpRequest, blob: Blob, filename: str, *, etag: str | None = None
) -> HttpResponseBase:
    """The answer to GET or HEAD for a blob: 200, 206 for one range, 304, or 416.

    The bytes are an attachment in a sandbox whatever they are, and are never held in memory. With
    X_ACCEL_REDIRECT_PREFIX nginx sends them, with S3_SIGNED_DOWNLOADS the store does. `etag` is without quotes;
    the blob's sha256 unless given. Raises BytesMissing.
    """
    if storage.is_on_disk():
        storage.require_bytes(blob)
    quoted_etag = f'"{etag or blob.sha256}"'
    if knows(request, quoted_etag):
        response: HttpResponseBase = HttpResponse(status=304)
    elif request.method == "GET" and (handed_over := _hand_over(blob, filename)) is not None:
        response = handed_over
    else:
        response = _serve(request, blob, quoted_etag)
    response["ETag"] = quoted_etag
    response["Accept-Ranges"] = "bytes"
    return _as_attachment(response, filename)


def archive_response(request: HttpRequest, revision: Revision) -> HttpResponseBase:
    """All files of a revision as a zip without compression, made while it is sent; equal for every request. Or 304."""
    adapter = revision.adapter
    folder = adapter.name
    quoted_etag = f'"{revision.commit}-{folder}"'  # another name makes other bytes
    if knows(request, quoted_etag):
        return HttpResponse(status=304, headers={"ETag": quoted_etag})
    files = revision.files_by_path()
    body = iter(()) if request.method == "HEAD" else _zip(files, folder)
    response = StreamingHttpResponse(body, content_type="application/zip")
    response["ETag"] = quoted_etag
    return _as_attachment(response, f"{adapter.namespace.name}--{adapter.name}-{revision.short_commit}.zip")


def base_model_archive_response(base_model: BaseModel, *, head: bool = False) -> HttpResponseBase:
    """All files of a base model that is hosted here as a zip; see `archive_response`."""
    files = list(base_model.files.select_related("blob").order_by("path"))
    body = iter(()) if head else _zip(files, base_model.short_name)
    response = StreamingHttpResponse(body, content_type="application/zip")
    return _as_attachment(response, f"{base_model.name.replace('/', '--')}.zip")


def revision_called(adapter: Adapter, name: str = "") -> Revision:
    """The revision of this branch, tag or commit (7 or more of its digits); the newest of main for "". Raises NotFound."""
    if not name and adapter.head is not None:
        adapter.head.adapter = adapter
        return adapter.head
    revisions = adapter.revisions.select_related("author", "parent")
    found = None
    if re.fullmatch(r"[0-9a-f]{40}", name):  # as our own pages ask
        found = revisions.filter(commit=name).first()
    found = found or revisions.filter(refs__name=name).first()
    if found is None and re.fullmatch(r"[0-9a-f]{7,39}", name):
        by_commit = list(revisions.filter(commit__startswith=name)[:2])
        found = by_commit[0] if len(by_commit) == 1 else None
    if found is None:
        shown = f"revision {name[:60]!r}" if name else "revision yet"
        raise NotFound(f"{adapter.full_name} has no {shown}.", fields={"revision": ["Unknown."]})
    return found


def file_called(revision: Revision, path: str) -> RevisionFile:
    """The file at `path` in a revision, with its blob. Raises NotFound."""
    file = revision.files.select_related("blob").filter(path=path).first()
    if file is None:
        raise NotFound(f"Revision {revision.short_commit} has no file of this name.")
    return file


def brings_the_file(request: HttpRequest, response: HttpResponseBase, blob: Blob) -> bool:
    """Whether this answer is a download: the whole file, or its end, as after a cut. A few bytes are only looked at."""
    if request.method != "GET" or response.status_code not in {200, 206, 302}:
        return False
    if response.status_code == 200 and "X-Accel-Redirect" not in response:
        return True  # whatever part was asked for
    try:  # where another sends the bytes, it reads the range as we do
        part = parse_range(request.headers.get("Range", ""), blob.size_bytes)
    except UnsatisfiableRange:
        return False
    return part is None or (part.start + part.length == blob.size_bytes and part.length > 1)


def knows(request: HttpRequest, quoted_etag: str) -> bool:
    """Whether the client has this state already: then it gets a 304."""
    known = request.headers.get("If-None-Match", "")
    return known == "*" or quoted_etag in (tag.strip().removeprefix("W/") for tag in known.split(","))


def count_download(request: HttpRequest, revision: Revision, *, person: Person = None) -> None:
    """Count that this client fetched a revision's weights, once a day.

    `person` where a token says who it is; the request's own user unless given. Counting never stands in the way of a download.
    """
    day = timezone.now().date()
    client = _client(request, person or getattr(request, "user", None), day.isoformat())
    try:
        with transaction.atomic():
            _, is_new = Download.objects.get_or_create(revision=revision, client_sha256=client, day=day)
            if is_new:
                Adapter.objects.filter(pk=revision.adapter_id).update(downloads=F("downloads") + 1)
    except DatabaseError:
        logger.warning("a download of revision %s was not counted", revision.pk, exc_info=True)


def _client(request: HttpRequest, person: Person, day: str) -> str:
    """A name for the client that means nothing tomorrow, nor to anybody without our secret."""
    if person is not None and person.is_authenticated:
        who = f"user {person.pk}"
    else:
        who = f"{client_address(request)} {request.META.get('HTTP_USER_AGENT', '')}"
    secret = f"{settings.SECRET_KEY} downloads {day}".encode()
    return hmac.new(secret, who.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


# --- One file ------------------------------------------------------------------------------------------------


def parse_range(header: str, size: int) -> ByteRange | None:
    """The one range that a Range header asks for; None for no, several or unreadable ranges: then all is sent.

    Raises UnsatisfiableRange. Source: RFC 9110, section 14.
    """
    match = _RANGE.match(header.strip())
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        length = min(int(last), size)
        if length == 0:
            raise UnsatisfiableRange(size)
        return ByteRange(size - length, length)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableRange(size)
    return ByteRange(start, end - start + 1)


def _serve(request: HttpRequest, blob: Blob, quoted_etag: str) -> HttpResponseBase:
    size = blob.size_bytes
    header = request.headers.get("Range", "") if request.method in {"GET", "HEAD"} else ""
    condition = request.headers.get("If-Range", "")
    if condition and condition != quoted_etag:
        header = ""
    try:
        wanted = parse_range(header, size)
    except UnsatisfiableRange as error:
        response: HttpResponseBase = api_errors.json_error(error)
        response["Content-Range"] = f"bytes */{size}"
        return response
    part = wanted or ByteRange(0, size)
    if request.method == "HEAD":
        response = HttpResponse()
    elif storage.is_on_disk():
        response = FileResponse(storage.open_part(blob, part.start, part.length))
        response.block_size = storage.CHUNK_BYTES  # where the kernel does not send it
    else:
        response = StreamingHttpResponse(storage.read_range(blob, part.start, part.length))
    response["Content-Length"] = str(part.length)
    if wanted:
        response.status_code = 206
        response["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{size}"
    return response


def _hand_over(blob: Blob, filename: str) -> HttpResponseBase | None:
    """An answer without bytes, where the server before us or the object store sends them."""
    if settings.X_ACCEL_REDIRECT_PREFIX and storage.is_on_disk():
        response = HttpResponse()
        del response["Content-Type"]
        prefix = settings.X_ACCEL_REDIRECT_PREFIX.rstrip("/")
        response["X-Accel-Redirect"] = f"{prefix}/{storage.key(blob.sha256)}"
        return response
    if settings.S3_SIGNED_DOWNLOADS and not storage.is_on_disk():
        return HttpResponseRedirect(storage.signed_url(blob, filename=filename))
    return None


def _as_attachment(response: HttpResponseBase, filename: str) -> HttpResponseBase:
    """Headers that keep a browser from doing anything with the bytes but save them."""
    name = filename.rsplit("/", 1)[-1]
    if response.status_code in {200, 206} and not isinstance(response, HttpResponseRedirect):
        suffix = "." + name.rsplit(".", 1)[-1].lower()
        if response.headers.get("Content-Type") != "application/zip":
            response["Content-Type"] = _TEXT_TYPES.get(suffix, "application/octet-stream")
    plain = re.sub(r'[^\x20-\x7e]|["\\]', "_", name)
    response["Content-Disposition"] = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = ASK_AGAIN
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


# --- A whole revision ---------------------------------------------------------------------------------------


class _Collector(io.RawIOBase):
    """What a ZipFile writes to: keeps the bytes until they are sent, and cannot seek."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        chunk = bytes(cast(bytes, data))
        self.chunks.append(chunk)
        return len(chunk)

    def take(self) -> bytes:
        taken = b"".join(self.chunks)
        self.chunks.clear()
        return taken


def _zip(files: Sequence[RevisionFile | BaseModelFile], folder: str) -> Iterator[bytes]:
    """Raises BytesMissing before the first byte where bytes lie on disk."""
    if storage.is_on_disk():
        for file in files:
            storage.require_bytes(file.blob)
    return _zip_of(files, folder)


def _zip_of(files: Sequence[RevisionFile | BaseModelFile], folder: str) -> Iterator[bytes]:
    collector = _Collector()
    with zipfile.ZipFile(collector, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(f"{folder}/{file.path}", date_time=_ZIP_DATE)
            entry.external_attr = 0o644 << 16
            entry.file_size = file.blob.size_bytes
            with archive.open(entry, "w", force_zip64=file.blob.size_bytes >= 2**31 - 1) as target:
                for chunk in storage.read_range(file.blob, 0, file.blob.size_bytes):
                    target.write(chunk)
                    yield collector.take()
    yield collector.take()
