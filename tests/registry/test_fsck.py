"""`manage.py fsck`: what it finds, what it repairs, and how it ends; on disk and on S3."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.utils import timezone

from registry import fsck, storage, sweeping
from registry.models import Blob
from tests.factories import make_revision

pytestmark = pytest.mark.django_db
OLD_S = 3 * 24 * 3600


@pytest.fixture(params=["disk", "s3"])
def blobs(request: pytest.FixtureRequest) -> str:
    if request.param == "s3":
        request.getfixturevalue("s3_storage")
    return str(request.param)


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    code = 0
    try:
        call_command("fsck", *options)
    except SystemExit as ended:
        code = int(str(ended.code))
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def overwrite(blob: Blob, content: bytes) -> None:
    store = storages["blobs"]
    name = storage.key(blob.sha256)
    store.delete(name)
    store.save(name, ContentFile(content))


def make_all_old() -> None:
    Blob.objects.update(last_stored_at=timezone.now() - timedelta(seconds=OLD_S))
    for path in Path(storages["blobs"].location).rglob("*"):  # type: ignore[attr-defined]
        os.utime(path, (time.time() - OLD_S,) * 2)


def test_a_sound_registry_is_clean(blobs, capsys):
    make_revision()
    assert run(capsys) == (0, f"{Blob.objects.count()} blobs, hashes compared: nothing is wrong.\n")
    assert run(capsys, "--quick")[1].endswith("sizes compared: nothing is wrong.\n")


def test_missing_bytes_are_named_with_what_wants_them(blobs, capsys):
    blob = make_revision().files.first().blob
    storages["blobs"].delete(storage.key(blob.sha256))
    code, text = run(capsys, "--repair")
    assert code == 1, "what somebody wants cannot be repaired"
    assert f"missing: {storage.key(blob.sha256)}, wanted by 1 revision file" in text


@pytest.mark.parametrize(
    ("content", "kind", "quick_finds_it"), [(b"wrong!", "wrong hash", False), (b"short", "wrong size", True)]
)
def test_damaged_bytes_are_found_put_aside_and_healed_by_the_next_upload(
    blobs, capsys, content, kind, quick_finds_it
):
    blob = storage.store_stream([b"right!"])
    overwrite(blob, content)
    assert run(capsys, "--quick")[0] == int(quick_finds_it)
    _, text = run(capsys, "--repair")
    assert f"{kind}: " in text
    assert "put aside" in text
    assert not storage.has_bytes(blob)
    storage.store_stream([b"right!"])
    assert run(capsys)[0] == 0


def test_bytes_without_a_row_are_removed_once_they_are_a_day_old(capsys):
    store = storages["blobs"]
    name = storage.key("ab" * 32)
    store.save(name, ContentFile(b"nobody's"))
    code, text = run(capsys, "--repair")
    assert (code, f"orphan: {name}" in text) == (1, True), "an upload may be about to write its row"
    make_all_old()
    assert run(capsys, "--repair")[0] == 0
    assert not store.exists(name)
    assert not Blob.objects.exists()


def test_the_sweep_takes_old_bytes_without_a_row_and_leaves_those_of_others(data_dir):
    store = storages["blobs"]
    orphan, note = storage.key("ab" * 32), "readme.txt"
    for name in (orphan, note):
        store.save(name, ContentFile(b"x"))
    wanted = make_revision().files.first().blob
    make_all_old()
    sweeping.sweep_storage()
    assert not store.exists(orphan)
    assert store.exists(note)
    assert storage.has_bytes(wanted)


def test_an_upload_that_meets_the_sweep_of_old_bytes_without_a_row_keeps_them(monkeypatch):
    blob = storage.store_stream([b"mine"])
    Blob.objects.all().delete()
    make_all_old()
    adopt = sweeping.adopt

    def adopt_and_be_overtaken(orphan: sweeping.StoredObject) -> None:
        adopt(orphan)
        storage.store_stream([b"mine"])

    monkeypatch.setattr(sweeping, "adopt", adopt_and_be_overtaken)
    sweeping.sweep_storage()
    assert storage.has_bytes(Blob.objects.get(sha256=blob.sha256))


def test_a_row_without_bytes_that_nobody_wants_goes(capsys):
    blob = storage.store_stream([b"gone"])
    make_all_old()
    storages["blobs"].delete(storage.key(blob.sha256))
    assert run(capsys)[0] == 1
    assert run(capsys, "--repair")[0] == 0
    assert not Blob.objects.exists()


def test_what_could_not_be_checked_is_not_called_clean(capsys, monkeypatch):
    def fail(**_: object) -> None:
        raise OSError("the bucket does not answer")

    monkeypatch.setattr(fsck, "check", fail)
    code, text = run(capsys)
    assert code == 2
    assert "did not come to its end" in text
