"""Git LFS in parts, for proxies that take small bodies only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from registry.models import Adapter, Blob, User
from tests.factories import make_adapter, make_base_model, make_token, make_user
from tests.registry.hub.clients import run
from tests.registry.hub.test_clients_write import wide_adapter

CONTENT = bytes(range(256)) * 10
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def ada(db: None, settings: Any) -> User:
    settings.LFS_PART_BYTES = 1000
    ada = make_user("ada")
    make_adapter("m", owner=ada)
    return ada


def batch(user: User, *transfers: str) -> dict[str, Any]:
    """What the batch answers for CONTENT: the answer, with `upload` of its one object."""
    body = {
        "operation": "upload",
        "transfers": list(transfers),
        "objects": [{"oid": SHA256, "size": len(CONTENT)}],
    }
    headers = {"Authorization": f"Bearer {make_token(user)}"}
    path = "/ada/m.git/info/lfs/objects/batch"
    answer: dict[str, Any] = Client().post(path, body, "application/json", headers=headers).json()
    return {**answer, "upload": answer["objects"][0]["actions"]["upload"]}


def put(url: str, content: bytes) -> Any:
    return Client().put(url, content, "application/octet-stream")


def complete(url: str, oid: str = SHA256) -> Any:
    return Client().post(url, {"oid": oid, "parts": []}, "application/json")


def test_parts_are_put_together_in_their_order_whatever_the_order_they_came_in(ada: User, data_dir: Path):
    found = batch(ada, "basic", "multipart")
    assert found["transfer"] == "multipart"
    urls = found["upload"]["header"]
    assert urls.pop("chunk_size") == "1000"
    assert sorted(urls) == ["1", "2", "3"]
    for number in (3, 1, 2, 1):
        answer = put(urls[str(number)], CONTENT[(number - 1) * 1000 : number * 1000])
        assert answer.status_code == 200
        assert answer["ETag"]
    assert complete(found["upload"]["href"]).status_code == 200
    assert Blob.objects.get(sha256=SHA256).size_bytes == len(CONTENT)
    assert not list((data_dir / "tmp").glob("lfs-*"))


def test_who_does_not_ask_for_parts_gets_one_address(ada: User, settings: Any):
    assert "header" not in batch(ada, "basic")["upload"]
    settings.LFS_PART_BYTES = 0
    found = batch(ada, "basic", "multipart")
    assert (found["transfer"], "header" in found["upload"]) == ("basic", False)


@pytest.mark.django_db
def test_what_is_wrong_with_a_part_is_refused(ada: User):
    found = batch(ada, "multipart")
    urls, end = found["upload"]["header"], found["upload"]["href"]
    assert put(urls["1"], CONTENT[:999]).status_code == 422
    assert put(urls["3"], CONTENT[:1000]).status_code == 422  # the last one has 560 bytes
    assert put(urls["1"].replace("/parts/1", "/parts/4"), CONTENT[:1000]).status_code == 404
    assert put(urls["1"].replace("/lfs/", "/lfs/x"), CONTENT[:1000]).status_code == 403
    assert complete(end).status_code == 404
    for number in (1, 2, 3):
        put(urls[str(number)], bytes(len(CONTENT[(number - 1) * 1000 : number * 1000])))
    assert complete(end, "0" * 64).status_code == 400
    assert complete(end).status_code == 422  # other bytes than the sha256 says
    assert not Blob.objects.filter(sha256=SHA256).exists()
    ada.is_active = False
    ada.save()
    assert put(urls["1"], CONTENT[:1000]).status_code == 403


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_real_client_sends_a_file_in_parts(live_server: Any, tmp_path: Path, settings: Any):
    settings.LFS_PART_BYTES = 10 * 2**20
    make_base_model()
    folder = wide_adapter(tmp_path / "adapter", megabytes=36)
    run(
        f"""
        api.create_repo("ada/wide")
        api.upload_folder(repo_id="ada/wide", folder_path={str(folder)!r})
        """,
        live_server.url,
        tmp_path / "home",
        token=make_token(make_user("ada")),
        HF_HUB_DISABLE_XET="1",
    )
    weights = folder / "adapter_model.safetensors"
    blob = Adapter.objects.get(name="wide").head.files.get(is_lfs=True).blob
    assert blob.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
