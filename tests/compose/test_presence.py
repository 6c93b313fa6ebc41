"""What a worker process says of itself while it is there."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from compose import jobs, presence, worker
from compose.jobs import workers
from compose.models import Worker
from compose.presence import Presence
from tests.conftest import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def counts(tmp_path, monkeypatch):
    """The kernel's, as the test writes them."""
    monkeypatch.setattr(presence, "COUNTS", tmp_path / "vmstat")
    return tmp_path / "vmstat"


def test_how_many_processes_a_kernel_killed_for_memory_is_read_where_it_tells(counts):
    assert presence.oom_kills() is None
    counts.write_text("nr_free_pages 5\noom_kill 12\nswap_ra 0\n")
    assert presence.oom_kills() == 12
    counts.write_text("nr_free_pages 5\n")
    assert presence.oom_kills() is None


def test_a_process_that_begins_notes_that_one_before_it_was_probably_killed_and_is_gone_when_it_ends(counts):
    counts.write_text("oom_kill 3\n")
    workers.report("gpu0", oom_kills=2)
    here = Presence("gpu0")
    here.start()
    try:
        wait_for(
            lambda: Worker.objects.filter(oom_kills=3, killed_for_memory_at__isnull=False).exists(),
            seconds=10,
            what="the note",
        )
    finally:
        here.end()
    assert not Worker.objects.exists()


def test_one_that_the_database_did_not_hear_says_so_again_and_what_it_had_to_give_up(
    counts, settings, monkeypatch
):
    settings.JOB_HEARTBEAT_S = 0.05
    asked: list[str] = []

    def away_at_first() -> None:
        asked.append("")
        if len(asked) < 3:
            raise OperationalError("server closed the connection")

    monkeypatch.setattr(worker, "say_given_up", away_at_first)
    here = Presence("gpu0")
    here.start()
    try:
        wait_for(lambda: len(asked) > 3, seconds=10, what="another try")
    finally:
        here.end()


def test_one_whose_disk_is_full_says_so_and_rings_for_what_waits_once_there_is_room(
    counts, settings, monkeypatch
):
    settings.JOB_HEARTBEAT_S, room = 0.05, settings.MIN_FREE_DISK_BYTES
    rung: list[str] = []
    monkeypatch.setattr(jobs, "ring_next", lambda: rung.append(""))
    settings.MIN_FREE_DISK_BYTES = 2**60
    here = Presence("gpu0")
    here.start()
    try:
        wait_for(lambda: Worker.objects.filter(is_full=True).exists(), seconds=10, what="the full disk")
        assert not rung
        settings.MIN_FREE_DISK_BYTES = room
        wait_for(lambda: rung, seconds=10, what="the bell")
    finally:
        here.end()
    assert len(rung) == 1
