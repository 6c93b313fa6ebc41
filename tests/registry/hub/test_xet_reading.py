"""Reading by Xet, and copies of weights from one repository to another, which want a Xet hash first."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from registry import publishing
from registry.hub import xet_reading
from registry.hub.xorbs import unpack
from registry.models import Adapter, Download, Token, User
from registry.storage import store_stream
from tests.factories import make_adapter, make_base_model, make_token, make_user, publish_fake
from tests.registry.hub.clients import hf, run

CONTENT = bytes(range(256)) * 2000 + b"and the end"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def adapter(ada: User) -> Adapter:
    return make_adapter("m", owner=ada, files={"adapter_model.safetensors": CONTENT, "README.md": b"# M"})


def begin(token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Client().get("/api/models/ada/m/xet-read-token/main", headers=headers)


def plan(said: dict[str, Any], *, ranged: str = "", sha256: str = SHA256) -> Any:
    headers = {"Authorization": f"Bearer {said['accessToken']}", **({"Range": ranged} if ranged else {})}
    return Client().get(f"{said['casUrl']}/v1/reconstructions/{sha256}", headers=headers)


def read(found: dict[str, Any], tmp_path: Path) -> bytes:
    """What a client makes of a plan: each term's chunks, fetched by their ranges and unpacked."""
    content = b""
    for term in found["terms"]:
        (place,) = found["fetch_info"][term["hash"]]
        assert place["range"] == term["range"]
        span = "bytes={start}-{end}".format(**place["url_range"])
        answer = Client().get(place["url"], headers={"Range": span})
        assert answer.status_code == 206
        packed = answer.getvalue()
        chunks = 0
        raw = b""
        while packed:
            length = int.from_bytes(packed[1:4], "little")
            raw += unpack(packed[4], packed[8 : 8 + length], int.from_bytes(packed[5:8], "little"))
            packed = packed[8 + length :]
            chunks += 1
        assert chunks == term["range"]["end"] - term["range"]["start"]
        assert len(raw) == term["unpacked_length"]
        content += raw
    return content[found["offset_into_first_range"] :]


@pytest.mark.parametrize("per_xorb", [1, 3, 512])
@pytest.mark.parametrize(
    "ranged", ["", "bytes=0-99", "bytes=100000-300000", "bytes=511999-9999999", "bytes=5-"]
)
def test_a_file_or_a_range_of_it_is_told_as_chunks(
    adapter: Adapter, tmp_path: Path, per_xorb: int, ranged: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(xet_reading, "CHUNKS_PER_XORB", per_xorb)
    said = begin()
    assert said["X-Xet-Cas-Url"] == said.json()["casUrl"]
    found = read(plan(said.json(), ranged=ranged).json(), tmp_path)
    start, _, end = ranged.removeprefix("bytes=").partition("-")
    wanted = CONTENT[int(start or 0) : int(end) + 1 if end else None]
    assert found[: len(wanted)] == wanted
    assert Download.objects.count() == (1 if start in {"", "0"} else 0)


@pytest.mark.parametrize("start", [0, 1, 65_535, 65_543, 65_544, 70_000])
@pytest.mark.parametrize("length", [1, 8, 65_544, 131_085])
def test_any_range_of_the_chunks_is_cut_out_of_the_same_bytes(adapter: Adapter, start: int, length: int):
    """Also one that begins inside of a chunk, as when a download goes on where it was broken off."""
    (places,) = plan(begin().json()).json()["fetch_info"].values()
    whole = Client().get(places[0]["url"]).getvalue()
    span = f"bytes={start}-{start + length - 1}"
    part = Client().get(places[0]["url"], headers={"Range": span})
    assert part.getvalue() == whole[start : start + length]
    assert part["Cache-Control"] == "private, no-cache"  # as of any file


def test_a_range_behind_the_end_is_416(adapter: Adapter):
    assert plan(begin().json(), ranged=f"bytes={len(CONTENT)}-").status_code == 416


def test_only_who_sees_the_file_reads_it(adapter: Adapter, ada: User):
    publishing.update_adapter(adapter, actor=ada, visibility="private")
    assert begin()["X-Error-Code"] == "RepoNotFound"
    assert begin(make_token(make_user("bob")))["X-Error-Code"] == "RepoNotFound"
    said = begin(make_token(ada, "read")).json()
    assert plan(said).status_code == 200
    assert plan(said, sha256="ab" * 32).status_code == 404
    assert plan({**said, "accessToken": "x"}).status_code == 403
    assert plan({**said, "accessToken": begin_other(ada)}).status_code == 404
    Token.objects.all().delete()
    assert plan(said).status_code == 403
    assert Client().get("/xet/read/files/x").status_code == 403


def begin_other(ada: User) -> str:
    """A good token for another repository."""
    make_adapter("other", owner=ada)
    headers = {"Authorization": f"Bearer {make_token(ada)}"}
    answer = Client().get("/api/models/ada/other/xet-read-token/main", headers=headers)
    token: str = answer.json()["accessToken"]
    return token


def test_what_becomes_private_is_read_no_more(adapter: Adapter, ada: User):
    said = begin().json()
    publishing.update_adapter(adapter, actor=ada, visibility="private")
    assert plan(said)["X-Error-Code"] == "RepoNotFound"


def test_files_of_a_base_model_that_is_hosted_here_are_read_the_same_way(db: None, tmp_path: Path):
    base = make_base_model("ada/m", kind="hosted", commit="c" * 40)
    base.files.create(path="model.safetensors", blob=store_stream([CONTENT]))
    assert read(plan(begin().json()).json(), tmp_path) == CONTENT
    assert plan(begin().json(), sha256="ab" * 32).status_code == 404
    assert not Download.objects.exists()


def test_only_paths_info_names_a_hash_and_only_of_weights(adapter: Adapter):
    body = {"paths": ["README.md", "adapter_model.safetensors"]}
    rows = Client().post("/api/models/ada/m/paths-info/main", body).json()
    assert [row.get("xetHash") for row in rows] == [None, SHA256]
    assert "xetHash" not in json.dumps(Client().get("/api/models/ada/m/tree/main").json())
    assert "X-Xet-Hash" not in Client().head("/ada/m/resolve/main/adapter_model.safetensors")


def copy(token: str, **body: Any) -> Any:
    said = {"target": {"type": "model", "name": "bob/n"}, "files": [{"sha256": SHA256}], **body}
    headers = {"Authorization": f"Bearer {token}"}
    path = "/api/models/ada/m/lfs-files/duplicate"
    return Client().post(path, said, "application/json", headers=headers)


def test_weights_are_copied_by_who_reads_the_one_and_writes_the_other(adapter: Adapter, ada: User):
    bob = make_user("bob")
    make_adapter("n", owner=bob)
    token = make_token(bob)
    assert copy(token).json() == {"failed": []}
    (failed,) = copy(token, files=[{"sha256": "ab" * 32}]).json()["failed"]
    assert failed == {"sha256": "ab" * 32, "error": "ada/m has no such file."}
    for body in (
        {"files": "x"},
        {"files": [1]},
        {"target": {"type": "dataset", "name": "bob/n"}},
        {"target": 1},
    ):
        assert copy(token, **body).status_code == 400
    assert copy(token, target={"type": "model", "name": "ada/m"}).status_code == 403
    assert copy(make_token(bob, "read")).status_code == 403
    Adapter.objects.filter(pk=adapter.pk).update(visibility="private")
    assert copy(token)["X-Error-Code"] == "RepoNotFound"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_real_client_copies_weights_and_reads_them_by_xet(live_server: Any, tmp_path: Path):
    make_base_model()
    ada, bob = make_user("ada"), make_user("bob")
    source = publish_fake(tmp_path, "m", owner=ada)
    make_adapter("n", owner=bob, files={"README.md": b"# N"}, rank=None)
    token = make_token(bob)
    done = hf("cp", "hf://ada/m/", "hf://bob/n/", site=live_server.url, home=tmp_path / "home", token=token)
    assert done.returncode == 0, done.stdout + done.stderr
    copied = Adapter.objects.get(name="n")
    assert source.head is not None
    assert copied.head is not None
    assert copied.head.tensor_sha256 == source.head.tensor_sha256
    assert copied.is_composable
    large = make_adapter("large", owner=ada, files={"adapter_model.safetensors": CONTENT * 200})
    said = run(
        f"""
        import hashlib
        fs = hub.HfFileSystem(expand_info=True)
        fs.get_file("ada/large/adapter_model.safetensors", {str(tmp_path / "got")!r})
        say(xet=bool(fs.info("ada/large/adapter_model.safetensors")["xet_hash"]),
            sha256=hashlib.sha256(open({str(tmp_path / "got")!r}, "rb").read()).hexdigest())
        """,
        live_server.url,
        tmp_path / "home",
    )
    assert (said["xet"], said["sha256"]) == (True, hashlib.sha256(CONTENT * 200).hexdigest())
    large.refresh_from_db()
    assert large.downloads == 1
