"""The binary formats of Xet, and the doors that take them."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from registry import sent
from registry.hub import xorbs
from registry.hub.xorbs import (
    GROUPED_LZ4,
    LZ4,
    RAW,
    BadXet,
    Xorb,
    hash_text,
    read_shard,
    ungroup,
    unpack,
    write_unpacked,
)
from registry.models import Blob, SentBlob
from tests.factories import make_adapter, make_token, make_user

NAME = bytes(range(32))


def group(raw: bytes) -> bytes:
    return b"".join(raw[first::4] for first in range(4))


def chunk(raw: bytes, scheme: int = RAW, *, said: int | None = None) -> bytes:
    packed = {
        RAW: lambda: raw,
        LZ4: lambda: lz4.frame.compress(raw),
        GROUPED_LZ4: lambda: lz4.frame.compress(group(raw)),
    }[scheme]()
    length = len(raw) if said is None else said
    return b"\0" + len(packed).to_bytes(3, "little") + bytes([scheme]) + length.to_bytes(3, "little") + packed


def unpacked(folder: Path, packed: bytes, *, piece: int = 1000) -> Xorb:
    """A xorb that came in pieces of this many bytes."""
    with (folder / "xorb").open("wb") as file:
        came = write_unpacked((packed[at : at + piece] for at in range(0, len(packed), piece)), file)
    assert came == len(packed)
    return Xorb(folder / "xorb")


def digest_as_sent(sha256: str) -> bytes:
    """The bytes whose text, as clients write it, is `sha256`."""
    return struct.pack("<4Q", *(int(sha256[place : place + 16], 16) for place in range(0, 64, 16)))


def shard(*files: tuple[bytes, list[tuple[bytes, int, int, int]]], verified: bool = True) -> bytes:
    """A shard of files, each its content and its segments (xorb, raw bytes, first chunk, end)."""
    body = b"HFRepoMetaData".ljust(32, b"\0") + struct.pack("<QQ", 2, 0)
    for content, segments in files:
        flags = (1 << 30) | ((1 << 31) if verified else 0)
        body += bytes(32) + struct.pack("<IIQ", flags, len(segments), 0)
        for xorb, size, first, end in segments:
            body += xorb + struct.pack("<IIII", 0, size, first, end)
        body += bytes(48) * (len(segments) if verified else 0)
        body += digest_as_sent(hashlib.sha256(content).hexdigest()) + bytes(16)
    return body + b"\xff" * 32 + bytes(16) + b"what follows is not read"


@given(st.binary(max_size=70))
def test_grouped_bytes_come_back_in_their_order(raw: bytes):
    assert ungroup(group(raw)) == raw


@pytest.mark.parametrize("scheme", [RAW, LZ4, GROUPED_LZ4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000, 128 * 1024])
def test_every_kind_of_chunk_is_read(tmp_path: Path, scheme: int, size: int):
    raw = (bytes(range(251)) * 600)[:size]
    packed = chunk(b"first") + chunk(raw, scheme) + chunk(b"last")
    for piece in (7, 1000, len(packed)):  # as it comes in
        found = unpacked(tmp_path, packed, piece=piece)
        assert found.size_bytes(1, 3) == size + 4
        assert b"".join(found.pieces(1, 3)) == raw + b"last"
        assert b"".join(found.pieces(0, 1)) == b"first"


@pytest.mark.parametrize(
    "raw",
    [
        b"\0",
        b"\1" + chunk(b"x")[1:],
        chunk(b"x")[:-1],
        chunk(b"abc", said=0),
        chunk(b"x" * 9, 0)[:4] + b"\7" + chunk(b"x" * 9)[5:],
        chunk(b"x", said=128 * 1024 + 1),
    ],
)
def test_a_xorb_that_is_none_is_refused(tmp_path: Path, raw: bytes):
    with pytest.raises(BadXet):
        unpacked(tmp_path, raw)


def test_a_xorb_has_no_more_bytes_or_chunks_than_clients_put_into_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    zeros = chunk(bytes(128 * 1024), LZ4)
    monkeypatch.setattr(xorbs, "MAX_XORB_BYTES", 256 * 1024)
    monkeypatch.setattr(xorbs, "MAX_XORB_CHUNKS", 3)
    assert unpacked(tmp_path, zeros * 2).size_bytes(0, 2) == 256 * 1024
    for packed in (zeros * 2 + chunk(b"x"), chunk(b"x") * 4):
        with pytest.raises(BadXet):
            unpacked(tmp_path, packed)


@pytest.mark.parametrize("scheme", [LZ4, GROUPED_LZ4])
def test_a_chunk_may_not_be_longer_or_shorter_than_it_says(scheme: int):
    bomb = lz4.frame.compress(bytes(50 * 2**20))
    for packed, length in ((bomb, 1000), (lz4.frame.compress(b"abc"), 4), (b"no frame", 4), (b"", 4)):
        with pytest.raises(BadXet):
            unpack(scheme, packed, length)


def test_hashes_are_written_as_little_endian_groups():
    assert hash_text(NAME) == "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918"


@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_of_shards_fail_otherwise(raw: bytes):
    for body in (raw, b"HFRepoMetaData".ljust(48, b"\0") + raw):
        with contextlib.suppress(BadXet):
            read_shard(body)


# --- The doors -----------------------------------------------------------------------------------------------


@pytest.fixture
def upload() -> dict[str, str]:
    ada = make_user("ada")
    make_adapter("m", owner=ada)
    return new_token(make_token(ada))


def new_token(token: str) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {token}"}
    return Client().get("/api/models/ada/m/xet-write-token/main", headers=headers).json()


def post(upload: dict[str, str], path: str, body: bytes, *, token: str | None = None) -> Any:
    return Client().post(
        f"{upload['casUrl'].removeprefix('http://testserver')}/{path}",
        body,
        content_type="application/octet-stream",
        headers={"Authorization": f"Bearer {token or upload['accessToken']}"},
    )


@pytest.mark.django_db
def test_a_file_is_put_together_from_its_chunks(upload: dict[str, str]):
    parts = [b"zeros and " * 50, b"ones" * 300, b"the end"]
    xorb = chunk(parts[0], LZ4) + chunk(parts[1], GROUPED_LZ4) + chunk(parts[2], RAW)
    assert post(upload, f"v1/xorbs/default/{hash_text(NAME)}", xorb).json() == {"was_inserted": True}
    content = parts[0] + parts[1] + parts[2] + parts[0]
    segments = [(NAME, len(b"".join(parts)), 0, 3), (NAME, len(parts[0]), 0, 1)]
    assert post(upload, "v1/shards", shard((content, segments))).json() == {"result": 1}
    assert post(upload, "v1/shards", shard((content, segments), verified=False)).status_code == 200
    blob = Blob.objects.get(sha256=hashlib.sha256(content).hexdigest())
    assert blob.size_bytes == len(content)
    assert SentBlob.objects.get(blob=blob).user.username == "ada"


@pytest.mark.django_db
def test_an_empty_file_comes_without_any_xorb(upload: dict[str, str]):
    assert post(upload, "v1/shards", shard((b"", []))).json() == {"result": 1}
    assert SentBlob.objects.filter(blob__size_bytes=0).exists()


@pytest.mark.django_db
def test_a_shard_that_lies_is_refused_for_good(upload: dict[str, str]):
    post(upload, f"v1/xorbs/default/{hash_text(NAME)}", chunk(b"abc"))
    count = Blob.objects.count()
    for content, segment in (
        (b"abd", (NAME, 3, 0, 1)),  # other bytes than its sha256
        (b"abc", (NAME, 4, 0, 1)),  # other length
        (b"abc", (NAME, 2, 0, 1)),
        (b"abc", (NAME, 3, 0, 2)),  # a chunk that is not there
        (b"abc", (bytes(32), 3, 0, 1)),  # a xorb that was not sent
        (b"abc", (NAME, 3, 1, 1)),
    ):
        answer = post(upload, "v1/shards", shard((content, [segment])))
        assert answer.status_code == 400, segment
        assert answer.json()["error"]
    assert post(upload, "v1/shards", b"no shard").status_code == 400
    assert Blob.objects.count() == count


@pytest.mark.django_db
def test_a_file_larger_than_allowed_is_refused_before_it_is_built(upload: dict[str, str], settings: Any):
    settings.MAX_FILE_BYTES = 1000
    post(upload, f"v1/xorbs/default/{hash_text(NAME)}", chunk(bytes(900), LZ4))
    many = [(NAME, 900, 0, 1)] * 200
    assert post(upload, "v1/shards", shard((bytes(900 * 200), many))).status_code == 413


@pytest.mark.django_db
def test_an_upload_is_open_to_later_tokens_of_its_person_and_repository_only(upload: dict[str, str]):
    later = new_token(
        make_token(SentBlob.objects.model._meta.apps.get_model("registry", "User").objects.get())
    )
    assert later["casUrl"] != upload["casUrl"]
    path = f"v1/xorbs/default/{hash_text(NAME)}"
    assert post(upload, path, chunk(b"abc"), token=later["accessToken"]).status_code == 200
    eve = make_user("eve")
    make_adapter("m", owner=eve)
    headers = {"Authorization": f"Bearer {make_token(eve)}"}
    foreign = Client().get("/api/models/eve/m/xet-write-token/main", headers=headers).json()
    assert post(upload, path, chunk(b"abc"), token=foreign["accessToken"]).status_code == 403
    assert post(upload, path, chunk(b"abc"), token="lr_what").status_code == 403
    assert post({**upload, "casUrl": "/xet/" + "0" * 64}, path, chunk(b"abc")).status_code == 403


@pytest.mark.django_db
def test_what_else_the_protocol_has_is_a_404_that_clients_get_over(upload: dict[str, str]):
    cas = upload["casUrl"].removeprefix("http://testserver")
    for method, path in (
        ("get", "v1/chunks/default/00"),
        ("post", "v1/xorb-grants/default/00"),
        ("post", "v2/shards"),
    ):
        assert getattr(Client(), method)(f"{cas}/{path}").status_code == 404


def test_xorbs_that_get_their_names_at_this_moment_disturb_nobody(tmp_path):
    folder = tmp_path / "upload"
    folder.mkdir()
    (folder / ("a" * 64)).write_bytes(b"12345")
    (folder / "listed-and-gone.part").symlink_to("nowhere")
    assert sent.bytes_below(folder) == 5


def test_a_shard_of_more_files_than_anybody_sends_is_refused():
    with pytest.raises(BadXet, match="more than any upload here can have"):
        read_shard(shard(*[(b"", [])] * 1001))
