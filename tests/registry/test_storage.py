from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.conf import settings as django_settings
from django.core.files.storage import storages
from django.db import OperationalError, connection
from django.utils import timezone

from compose.models import KeptTokenizer
from registry import storage, sweeping
from registry.management.commands.set_up import ensure_bucket
from registry.models import BaseModelFile, Blob
from tests.compose.factories import make_composition
from tests.factories import make_base_model, make_revision

pytestmark = pytest.mark.django_db


def temp_file(content: bytes) -> Path:
    path = storage.temp_path()
    path.write_bytes(content)
    return path


def stored_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").rglob("*") if path.is_file()]


def make_old(blob: Blob, days: int = 2) -> None:
    Blob.objects.filter(pk=blob.pk).update(last_stored_at=timezone.now() - timedelta(days=days))


def test_a_stored_file_lies_under_its_sha256_and_its_temporary_name_is_gone(data_dir):
    path = temp_file(b"weights")
    blob = storage.store_file(path)
    assert blob.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert blob.size_bytes == 7
    assert storage.local_path(blob).read_bytes() == b"weights"
    assert storage.local_path(blob) in stored_files(data_dir)
    assert not path.exists()


def test_the_git_blob_id_is_what_git_says():
    blob = storage.store_stream([b"hello ", b"git\n"])
    said = subprocess.run(
        ["git", "hash-object", "--stdin"], input=b"hello git\n", capture_output=True, check=True
    )
    assert blob.git_sha1 == said.stdout.decode().strip()


def test_a_large_file_is_known_by_its_sha256_alone_whatever_way_it_came(monkeypatch):
    monkeypatch.setattr(storage, "MAX_GIT_BYTES", 10)
    streamed = storage.store_stream([b"eleven ", b"byte"], size_bytes=11)
    assert (streamed.git_sha1, storage.store_file(temp_file(b"other bytes")).git_sha1) == ("", "")
    assert storage.digest(temp_file(b"eleven byte"), git_sha1=True).git_sha1
    assert storage.store_file(temp_file(b"ten bytes!")).git_sha1


def test_chunks_of_any_size_are_hashed_in_their_order():
    pieces = [bytes([number]) * size for number, size in enumerate((1, 2**20, 5, 2**19, 2**18, 2**18 - 1))]
    whole = b"".join(pieces)
    blob = storage.store_stream(pieces, size_bytes=len(whole))
    assert blob.sha256 == hashlib.sha256(whole).hexdigest()
    assert blob.git_sha1 == hashlib.sha1(b"blob %d\0" % len(whole) + whole, usedforsecurity=False).hexdigest()
    assert storage.local_path(blob).read_bytes() == whole


def test_the_same_bytes_are_stored_once(data_dir):
    first = storage.store_stream([b"same"])
    second = storage.store_stream([b"sa", b"me"])
    assert first.pk == second.pk
    assert len(stored_files(data_dir)) == 1


def test_a_file_that_is_not_ours_is_copied_and_stays(tmp_path):
    path = tmp_path / "theirs.bin"
    path.write_bytes(b"before")
    blob = storage.store_file(path)
    path.write_bytes(b"after!")
    assert storage.local_path(blob).read_bytes() == b"before"


def test_bytes_with_another_hash_than_announced_are_refused_and_leave_nothing(data_dir):
    with pytest.raises(storage.HashMismatch, match="Send the file again"):
        storage.store_file(temp_file(b"x"), sha256="0" * 64)
    assert not Blob.objects.exists()
    assert stored_files(data_dir) == []


def test_a_blob_that_lost_its_bytes_is_healed_by_the_next_upload():
    blob = storage.store_stream([b"lost"])
    storage.local_path(blob).unlink()
    storage.store_stream([b"lost"])
    assert storage.local_path(blob).read_bytes() == b"lost"


def test_a_full_disk_is_said_in_words_and_leaves_nothing(data_dir, monkeypatch):
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(storage.StorageFull) as caught:
        storage.store_stream([b"too much"])
    assert caught.value.status == 507
    assert not Blob.objects.exists()
    assert stored_files(data_dir) == []
    assert list((data_dir / "tmp").iterdir()) == []


def test_free_space_is_asked_for_before_anything_is_written(settings):
    settings.MIN_FREE_DISK_BYTES = 2**60
    with pytest.raises(storage.StorageFull):
        storage.require_free_space(1)


def test_a_range_is_read_without_the_rest():
    blob = storage.store_stream([bytes(range(100))])
    assert b"".join(storage.read_range(blob, 10, 5)) == bytes(range(10, 15))
    assert b"".join(storage.read_range(blob, 0, 0)) == b""


def test_files_are_laid_out_under_their_names_twice_as_well_as_once(tmp_path):
    blob = storage.store_stream([b"{}"])
    for _ in range(2):
        folder = storage.lay_out([("adapter_config.json", blob), ("extra/a.txt", blob)], tmp_path / "out")
    assert (folder / "extra" / "a.txt").read_bytes() == b"{}"
    with pytest.raises(ValueError, match="leads out"):
        storage.lay_out([("../a", blob)], folder)


def test_the_sweep_removes_old_blobs_that_nothing_refers_to(data_dir):
    blob = storage.store_stream([b"orphan"])
    assert sweeping.sweep_storage() == (0, 0)
    make_old(blob)
    assert sweeping.sweep_storage() == (0, 1)
    assert not Blob.objects.exists()
    assert stored_files(data_dir) == []


def test_the_sweep_keeps_what_a_revision_holds():
    revision = make_revision()
    for blob in Blob.objects.all():
        make_old(blob)
    assert sweeping.sweep_storage() == (0, 0)
    assert all(storage.local_path(file.blob).exists() for file in revision.files.all())


def test_the_sweep_keeps_what_a_base_model_and_a_composition_hold():
    held = [storage.store_stream([content]) for content in (b"base", b"weights", b"config", b"tokenizer")]
    base_model = make_base_model(kind="hosted")
    BaseModelFile.objects.create(base_model=base_model, path="config.json", blob=held[0])
    composition = make_composition(base_model=base_model)
    composition.weights_blob, composition.config_blob = held[1:3]
    composition.save(update_fields=["weights_blob", "config_blob"])
    KeptTokenizer.objects.create(base_model=base_model, commit="c" * 40, blob=held[3])
    long_ago = timezone.now() - timedelta(days=2)
    Blob.objects.all().update(last_stored_at=long_ago)
    orphan = storage.store_stream([b"nobody's"])
    Blob.objects.filter(pk=orphan.pk).update(last_stored_at=long_ago)
    assert sweeping.sweep_storage() == (0, 1)
    assert Blob.objects.filter(pk__in=[blob.pk for blob in held]).count() == 4


def test_the_sweep_keeps_a_blob_that_was_stored_again_meanwhile(monkeypatch):
    blob = storage.store_stream([b"wanted"])
    make_old(blob)
    really_remove = storage.remove

    def upload_first(pk: int, *, stored_until: object) -> bool:
        storage.store_stream([b"wanted"])
        return really_remove(pk, stored_until=stored_until)

    monkeypatch.setattr(storage, "remove", upload_first)
    assert sweeping.sweep_storage() == (0, 0)
    assert storage.local_path(blob).exists()


def test_a_refused_upload_leaves_what_somebody_with_a_slower_clock_has_stored_since(monkeypatch):
    refused = storage.store_stream([b"both sent it"])
    earlier = timezone.now() - timedelta(seconds=2)
    monkeypatch.setattr(storage.timezone, "now", lambda: earlier)
    wanted = storage.store_stream([b"both sent it"])
    storage.discard([refused])
    assert storage.local_path(Blob.objects.get(pk=wanted.pk)).read_bytes() == b"both sent it"
    storage.discard([wanted])
    assert not Blob.objects.exists()


def test_an_upload_that_the_sweep_overtakes_puts_the_bytes_again(monkeypatch):
    blob = storage.store_stream([b"raced"])
    make_old(blob)
    really_say = storage._say_stored

    def sweep_first(digests: storage.Digests) -> Blob:
        sweeping.sweep_storage()
        return really_say(digests)

    monkeypatch.setattr(storage, "_say_stored", sweep_first)
    again = storage.store_stream([b"raced"])
    assert storage.local_path(again).read_bytes() == b"raced"
    assert Blob.objects.filter(pk=again.pk).exists()


def test_bytes_stay_where_the_database_cannot_forget_their_row(data_dir, monkeypatch):
    """As where the disk is full, or the database goes away, at the very commit."""
    blob = storage.store_stream([b"wanted by nobody"])
    really_atomic = storage.transaction.atomic

    @contextmanager
    def failing():
        with really_atomic():
            yield
            raise OperationalError("database or disk is full")

    monkeypatch.setattr(storage, "transaction", SimpleNamespace(atomic=failing))
    with pytest.raises(OperationalError):
        storage.discard([blob])
    monkeypatch.undo()
    assert storage.has_bytes(Blob.objects.get(pk=blob.pk))
    assert [path.name for path in (data_dir / "blobs").rglob("*") if path.is_file()] == [blob.sha256]
    storage.discard([blob])
    assert not Blob.objects.exists()
    assert not [path for path in (data_dir / "blobs").rglob("*") if path.is_file()]


def test_the_sweep_removes_temporary_files_after_an_hour_and_not_before(data_dir):
    old, new = temp_file(b"old"), temp_file(b"new")
    os.utime(old, times=(time.time() - 3700,) * 2)
    listed_and_gone = django_settings.WORKER_CACHE_DIR / "blobs" / "ab" / "cd" / "ef"
    listed_and_gone.parent.mkdir(parents=True)
    listed_and_gone.symlink_to("nowhere")  # as where a sweep beside this one was quicker
    assert sweeping.sweep_storage() == (1, 0)
    assert not old.exists()
    assert new.exists()


def test_discarding_spares_what_others_refer_to_or_stored_since(data_dir):
    mine = storage.store_stream([b"mine"])
    shared = storage.store_stream([b"shared"])
    storage.store_stream([b"shared"])
    storage.discard([mine, shared])
    assert list(Blob.objects.values_list("sha256", flat=True)) == [shared.sha256]
    assert len(stored_files(data_dir)) == 1


@pytest.mark.django_db(transaction=True)
def test_eight_uploads_of_the_same_bytes_at_once_make_one_blob(data_dir):
    problems: list[Exception] = []
    start = threading.Barrier(8)

    def upload() -> None:
        try:
            start.wait()
            storage.store_stream([b"same bytes"] * 1000)
        except Exception as error:
            problems.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=upload) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert Blob.objects.count() == 1
    assert len(stored_files(data_dir)) == 1


@pytest.mark.services
def test_on_s3_blobs_are_stored_read_in_ranges_fetched_once_and_swept(s3_storage, tmp_path):
    blob = storage.store_stream([b"0123456789"])
    assert storages["blobs"].exists(storage.key(blob.sha256))
    assert list((django_settings.UPLOAD_TMP_DIR).iterdir()) == []
    assert b"".join(storage.read_range(blob, 2, 3)) == b"234"
    with storage.open_blob(blob) as file:
        assert file.read() == b"0123456789"
    path = storage.local_path(blob)
    stamp = path.stat().st_mtime_ns
    assert storage.local_path(blob).stat().st_mtime_ns == stamp
    assert (storage.lay_out([("a.txt", blob)], tmp_path / "out") / "a.txt").read_bytes() == b"0123456789"
    url = storage.signed_url(blob, filename="a.txt")
    assert "Signature" in url
    assert "attachment" in url
    make_old(blob)
    assert sweeping.sweep_storage() == (0, 1)
    assert not storages["blobs"].exists(storage.key(blob.sha256))


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_a_bucket_is_made_where_there_is_none(s3_storage, settings, region):
    options = settings.STORAGES["blobs"]["OPTIONS"] | {"bucket_name": f"new-{region}", "region_name": region}
    settings.STORAGES = {**settings.STORAGES, "blobs": settings.STORAGES["blobs"] | {"OPTIONS": options}}
    assert ensure_bucket()
    assert not ensure_bucket()


@pytest.mark.services
def test_copies_of_blobs_are_dropped_after_a_week_without_use(s3_storage):
    used, unused = storage.store_stream([b"used"]), storage.store_stream([b"unused"])
    for blob in (used, unused):
        path = storage.local_path(blob)
        os.utime(path, times=(time.time() - 8 * 86_400, path.stat().st_mtime))
    kept = storage.local_path(used)
    assert sweeping.sweep_storage() == (1, 0)
    assert kept.exists()
    assert storage.local_path(unused).read_bytes() == b"unused"
