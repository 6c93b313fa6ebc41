"""What Prometheus is told of requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.conftest import ROOT


def test_requests_are_counted_over_processes_by_route(tmp_path):
    """Two processes one after the other on the same folder: the second tells of both."""
    environment = {
        **os.environ,
        "METRICS_TOKEN": "t",
        "LORA_DATA_DIR": str(tmp_path),
        "DATABASE_URL": "",
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    ask = (
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "from django.test import Client\n"
        "c = Client(headers={'Authorization': 'Bearer t'})\n"
        "c.get('/robots.txt', SERVER_NAME='localhost')\n"
        "c.patch('/robots.txt', SERVER_NAME='localhost')\n"
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "r = CollectorRegistry(); multiprocess.MultiProcessCollector(r)\n"
        "import json; print(json.dumps(generate_latest(r).decode()))"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", ask], cwd=ROOT, env=environment, capture_output=True, text=True
        )
    text = json.loads(done.stdout.splitlines()[-1])
    assert 'lora_http_requests_total{method="GET",route="robots.txt",status="200"} 2.0' in text, done.stderr
    assert 'lora_http_requests_total{method="PATCH",route="robots.txt",status="200"} 2.0' in text
