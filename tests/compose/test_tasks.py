"""Celery's door: who loads the engine, and when."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from compose import presence, tasks, worker


@pytest.mark.parametrize(("queues", "loads"), [({"compositions"}, True), ({"default"}, False)])
def test_only_a_worker_of_compositions_loads_the_engine_when_it_starts(monkeypatch, queues, loads):
    loaded = threading.Event()
    monkeypatch.setattr(worker, "import_engine", loaded.set)
    monkeypatch.setattr(presence.Presence, "start", lambda self: None)
    consumer = SimpleNamespace(
        hostname="tested@here",
        app=SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=queues))),
    )

    tasks.begin(sender=consumer)

    assert loaded.wait(5 if loads else 0.2) is loads
