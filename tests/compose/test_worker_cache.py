"""What a worker keeps on its disk: up to a limit, what was used longest ago goes first, and nothing that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose import bases, worker_cache
from registry import storage
from registry.models import BaseModelFile
from tests.factories import make_base_model

DAY_S = 24 * 3600


@pytest.fixture
def cache(settings: Any) -> Path:
    settings.WORKER_CACHE_BYTES = 2500
    return Path(settings.WORKER_CACHE_DIR)


def keep_commit(cache: Path, name: str, commit: str, *, used_days_ago: float, files: dict[str, str]) -> Path:
    """A commit as the hub's client keeps it: `files` are names and the content's key, of 1,000 bytes each."""
    repository = cache / "hub" / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    for file, content in files.items():
        (repository / "blobs" / content).write_bytes(b"w" * 1000)
        (folder / file).symlink_to(Path("../../blobs", content))
    set_used(folder, used_days_ago)
    return folder


def keep_two(cache: Path) -> list[Path]:
    """Two commits of 1,000 bytes each, the one that was used longer ago first."""
    return [
        keep_commit(cache, f"a/{name}", name, used_days_ago=days_ago, files={"model.safetensors": name})
        for name, days_ago in (("x", 2), ("y", 1))
    ]


def set_used(path: Path, days_ago: float) -> None:
    when = time.time() - days_ago * DAY_S
    os.utime(path, (when, when))


def test_what_killed_workers_left_half_written_goes_and_what_is_being_written_stays(cache: Path):
    kept = keep_commit(cache, "a/x", "1", used_days_ago=9, files={"model.safetensors": "one"})
    blobs = kept.parent.parent / "blobs"
    part = cache / "blobs" / "ab" / "cd" / "abcd.1234.part"
    part.parent.mkdir(parents=True)
    old, new = [[blobs / f"two.{n}.incomplete", part.with_stem(f"abcd.{n}")] for n in ("killed", "at-work")]
    for path in [*old, *new]:
        path.write_bytes(b"w")
    for path in old:
        set_used(path, days_ago=1 / 23)
    worker_cache.make_room()
    assert [path.exists() for path in [*old, *new, kept]] == [False, False, True, True, True]


def test_the_commit_that_was_used_longest_ago_goes_first_and_no_more_than_needed(cache: Path):
    newest = keep_commit(cache, "a/x", "1", used_days_ago=1, files={"model.safetensors": "one"})
    oldest = keep_commit(cache, "a/y", "2", used_days_ago=9, files={"model.safetensors": "two"})
    middle = keep_commit(cache, "b/z", "3", used_days_ago=5, files={"model.safetensors": "three"})
    assert worker_cache.make_room() >= 1000
    assert newest.exists()
    assert middle.exists()
    assert not oldest.parent.parent.exists()
    assert worker_cache.make_room() == 0


def test_files_that_a_newer_commit_shares_stay_with_it(cache: Path, settings: Any):
    files = {"model.safetensors": "weights", "config.json": "old"}
    old = keep_commit(cache, "a/x", "1", used_days_ago=9, files=files)
    new = keep_commit(cache, "a/x", "2", used_days_ago=1, files={**files, "config.json": "new"})
    worker_cache.make_room()
    assert not old.exists()
    assert sorted(path.name for path in (new.parent.parent / "blobs").iterdir()) == ["new", "weights"]
    assert (new / "model.safetensors").read_bytes()


def test_what_this_or_another_process_works_with_stays(cache: Path, settings: Any):
    settings.WORKER_CACHE_BYTES = 1
    ours = keep_commit(cache, "a/ours", "1", used_days_ago=9, files={"model.safetensors": "one"})
    theirs = keep_commit(cache, "a/theirs", "1", used_days_ago=9, files={"model.safetensors": "one"})
    hold = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_SH); print(flush=True); input()"
    lock = worker_cache._lock_of("a--theirs")
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdin
    assert other.stdout
    with other:
        other.stdout.readline()
        with worker_cache.holding("a/ours"):
            assert worker_cache.make_room() == 0
        assert worker_cache.make_room() >= 1000
        assert (ours.exists(), theirs.exists()) == (False, True)
        other.kill()
    worker_cache.make_room()
    assert not theirs.exists()


def test_what_a_fetch_left_that_broke_off_goes_too(cache: Path, settings: Any):
    kept = keep_commit(cache, "a/x", "1", used_days_ago=1, files={"model.safetensors": "one"})
    (kept.parent.parent / "blobs" / "two.incomplete").write_bytes(b"w" * 900)
    alone = cache / "hub" / "models--a--y"
    (alone / "blobs").mkdir(parents=True)
    (alone / "blobs" / "three.incomplete").write_bytes(b"w" * 2000)
    set_used(alone, 3)
    worker_cache.make_room()
    assert kept.exists()
    assert not alone.exists()


def test_copies_from_an_object_store_count_and_those_just_used_stay(cache: Path):
    base = keep_commit(cache, "a/x", "1", used_days_ago=1, files={"model.safetensors": "one"})
    old, used = (cache / "blobs" / "ab" / "cd" / name for name in ("old", "used"))
    old.parent.mkdir(parents=True)
    for path, days_ago in ((old, 3.0), (used, 0.0)):
        path.write_bytes(b"w" * 1000)
        set_used(path, days_ago)
    worker_cache.make_room()
    assert (base.exists(), old.exists(), used.exists()) == (True, False, True)


def test_what_is_about_to_come_has_its_room_before(cache: Path):
    oldest, newest = keep_two(cache)
    worker_cache.make_room(coming=300)
    assert oldest.exists()
    worker_cache.make_room(coming=1400)
    assert (oldest.exists(), newest.exists()) == (False, True)


def test_a_disk_that_is_nearly_full_is_a_limit_too(
    cache: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
):
    settings.WORKER_CACHE_BYTES = 0
    settings.MIN_FREE_DISK_BYTES = 5000
    monkeypatch.setattr(worker_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=5100))
    oldest, newest = keep_two(cache)
    worker_cache.make_room(coming=100)
    assert oldest.exists()
    worker_cache.make_room(coming=200)
    assert (oldest.exists(), newest.exists()) == (False, True)


def test_no_limit_is_none(cache: Path, settings: Any):
    settings.WORKER_CACHE_BYTES = 0
    kept = keep_commit(cache, "a/x", "1", used_days_ago=900, files={"model.safetensors": "one"})
    worker_cache.make_room()
    assert kept.exists()


@pytest.mark.django_db
def test_links_to_a_hosted_base_that_nobody_used_for_a_week_go(cache: Path):
    base_model = make_base_model("demo/tiny-t5", kind="hosted", commit="a" * 40)
    blob = storage.store_stream([b"{}"])
    BaseModelFile.objects.create(base_model=base_model, path="config.json", blob=blob)
    with bases.at_hand(base_model) as (folder, _):
        before = folder.parent / "before"
        before.mkdir()
        set_used(before, 8)
        worker_cache.make_room()
        assert before.exists(), "a state of a base model that is in use"
        assert (folder / "config.json").read_bytes() == b"{}"
    assert folder.exists()
    assert not before.exists()
