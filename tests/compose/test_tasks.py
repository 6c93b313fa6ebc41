"""Celery's door: who loads the engine, and when."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from compose import presence, tasks, worker
from tests.conftest import ROOT, clean_environment


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


@pytest.mark.slow
def test_in_a_worker_no_bar_of_the_libraries_becomes_a_warning_of_the_log(tmp_path):
    show = (
        "import django; django.setup(); from compose import worker; worker.import_engine();"
        "from transformers.utils import logging; from huggingface_hub.utils import are_progress_bars_disabled;"
        "print(logging.is_progress_bar_enabled(), are_progress_bars_disabled())"
    )
    environment = {
        **clean_environment(),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "LORA_DATA_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", show], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
