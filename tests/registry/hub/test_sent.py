"""What was sent and is in no commit yet: so much for one account, whatever way it came, and told in words."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from registry import sent, storage
from registry.models import Adapter, Blob, SentBlob, User
from registry.sweeping import sweep_storage
from tests.beside import Beside, after
from tests.factories import make_adapter, make_token, make_user
from tests.registry.hub.test_writing import batch, commit, line, send
from tests.registry.hub.test_xorbs import NAME, RAW, chunk, hash_text, new_token, post, shard

pytestmark = pytest.mark.django_db
LIMIT = 1000
TOO_MUCH = "that no commit has used yet"


@pytest.fixture
def adapter(ada: User) -> Adapter:
    return make_adapter("m", owner=ada, files={"README.md": b"# M"}, rank=None)


@pytest.fixture
def token(ada: User, adapter: Adapter, settings: Any) -> str:
    settings.MAX_UNCOMMITTED_BYTES = LIMIT
    return make_token(ada)


def content_of(letter: str, length: int) -> tuple[bytes, str]:
    content = letter.encode() * length
    return content, hashlib.sha256(content).hexdigest()


def put(token: str, letter: str, length: int) -> Any:
    """The answer to the bytes, or to the question where to send them if that is refused."""
    content, oid = content_of(letter, length)
    found = batch(token, oid, length)
    if "actions" not in found:
        return found
    address = found["actions"]["upload"]["href"]
    return send("put", address, content, content_type="application/octet-stream")


def test_more_than_an_account_may_have_waiting_is_refused_before_it_travels(token: str):
    assert put(token, "a", 600).status_code == 200
    refused = put(token, "b", 500)
    assert refused["error"]["code"] == 403
    assert refused["error"]["message"].startswith(f"You have sent 600 bytes {TOO_MUCH}; with 500 bytes more")
    assert "actions" not in batch(token, content_of("a", 600)[1], 600)  # what is there may be committed
    assert put(token, "c", 400).status_code == 200


def test_an_address_that_was_given_before_takes_no_more_either_and_nothing_stays(token: str, data_dir: Path):
    content, oid = content_of("b", 500)
    address = batch(token, oid, 500)["actions"]["upload"]["href"]
    put(token, "a", 600)
    refused = send("put", address, content, content_type="application/octet-stream")
    assert refused.status_code == 403
    assert TOO_MUCH in refused["X-Error-Message"]
    assert not Blob.objects.filter(sha256=oid).exists()
    assert not list((data_dir / "tmp").iterdir())


def test_what_is_committed_or_somebody_elses_does_not_count(token: str, ada: User):
    put(token, "a", 900)
    oid = content_of("a", 900)[1]
    assert commit(token, line("lfsFile", path="a.txt", algo="sha256", oid=oid, size=900)).status_code == 200
    assert sent.use_by(ada).size_bytes == 0
    sent.note_sent(make_user("bob"), storage.store_stream([b"x" * 900]))
    assert put(token, "b", 900).status_code == 200


def test_the_sweep_makes_room_again(token: str, ada: User):
    put(token, "a", 900)
    old = timezone.now() - timedelta(days=2)
    SentBlob.objects.update(sent_at=old)
    Blob.objects.update(last_stored_at=old)
    sweep_storage()
    assert sent.use_by(ada).size_bytes == 0
    assert put(token, "b", 900).status_code == 200


def test_bytes_that_are_refused_at_the_end_stay_where_somebody_else_has_them(ada: User, settings: Any):
    settings.MAX_UNCOMMITTED_BYTES = 10
    blob = storage.store_stream([b"of ada and of bob"])
    SentBlob.objects.create(user=make_user("bob"), blob=blob)
    with pytest.raises(sent.TooMuchSent):
        sent.note_sent(ada, blob)
    assert storage.has_bytes(Blob.objects.get())
    SentBlob.objects.all().delete()
    with pytest.raises(sent.TooMuchSent):
        sent.note_sent(ada, blob)
    assert not Blob.objects.exists()


def test_pieces_of_a_xet_upload_count_until_it_is_committed(token: str, ada: User, data_dir: Path):
    upload = new_token(token)
    content = b"x" * 400
    assert post(upload, f"v1/xorbs/default/{hash_text(NAME)}", chunk(content, RAW)).status_code == 200
    assert sent.use_by(ada).size_bytes >= 400
    assert post(upload, "v1/shards", shard((content, [(NAME, 400, 0, 1)]))).status_code == 200
    assert sent.use_by(ada).size_bytes >= 800  # the file, and the pieces that more of it could name
    refused = post(upload, f"v1/xorbs/default/{'ab' * 32}", chunk(content, RAW))
    assert (refused.status_code, TOO_MUCH in refused["X-Error-Message"]) == (403, True)
    oid = hashlib.sha256(content).hexdigest()
    assert commit(token, line("lfsFile", path="a.txt", algo="sha256", oid=oid)).status_code == 200
    assert sent.use_by(ada).size_bytes == 0
    assert not list((data_dir / "tmp").glob("sent-*"))


def test_a_client_of_xet_is_told_in_words_before_it_begins(token: str):
    put(token, "a", LIMIT)
    answer = Client().get(
        "/api/models/ada/m/xet-write-token/main", headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 403
    assert TOO_MUCH in answer["X-Error-Message"]


def test_parts_count(token: str, ada: User, settings: Any):
    settings.LFS_PART_BYTES = 300
    content, oid = content_of("a", 600)
    body = {"operation": "upload", "transfers": ["multipart"], "objects": [{"oid": oid, "size": 600}]}
    answer = send("post", "/ada/m.git/info/lfs/objects/batch", body, token=token).json()
    action = answer["objects"][0]["actions"]["upload"]
    kind = {"content_type": "application/octet-stream"}
    assert send("put", action["header"]["1"], content[:300], **kind).status_code == 200
    assert sent.use_by(ada).size_bytes == 300
    settings.MAX_UNCOMMITTED_BYTES = 599
    refused = send("put", action["header"]["2"], content[300:], **kind)
    assert (refused.status_code, TOO_MUCH in refused["X-Error-Message"]) == (403, True)
    settings.MAX_UNCOMMITTED_BYTES = 600
    assert send("put", action["header"]["2"], content[300:], **kind).status_code == 200
    assert send("post", action["href"], {"oid": oid, "parts": []}).status_code == 200
    assert sent.use_by(ada).size_bytes == 600


def test_no_limit_is_no_limit(token: str, settings: Any):
    settings.MAX_UNCOMMITTED_BYTES = 0
    assert put(token, "a", 5 * LIMIT).status_code == 200


def test_who_sent_it_sees_it_beside_what_is_kept_and_nobody_else(token: str, ada: User):
    client = Client()
    client.force_login(ada)
    assert "in no version yet" not in client.get("/ada").content.decode()
    put(token, "a", 600)
    assert "600\u202fbytes of 1\u202fkB sent and in no version yet" in client.get("/ada").content.decode()
    client.force_login(make_user("bob"))
    assert "in no version yet" not in client.get("/ada").content.decode()
    assert "not committed yet" in client.get("/docs/limits").content.decode()


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_two_files_at_once_do_not_both_take_the_last_place(ada: User, settings: Any, monkeypatch: Any):
    settings.MAX_UNCOMMITTED_BYTES = 100
    first, second = storage.store_stream([b"a" * 60]), storage.store_stream([b"b" * 60])
    beside = Beside()
    after(sent, "require_room", lambda: beside.start(lambda: sent.note_sent(ada, second)), monkeypatch)
    sent.note_sent(ada, first)
    assert isinstance(beside.error(), sent.TooMuchSent)
    assert sent.use_by(ada).size_bytes == 60
