"""A real worker process with the fake engine, for tests that kill it.

`python -m tests.compose.worker_process` looks at the queue itself; with `celery` as first argument it is a Celery
worker that waits for messages.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from compose import engine
    from tests import fakes

    engine.run = engine.warm = fakes  # type: ignore[attr-defined]
    sys.modules["compose.engine.run"] = sys.modules["compose.engine.warm"] = fakes
    if sys.argv[1:2] == ["celery"]:
        from config.celery import app

        app.worker_main(
            ["worker", "--pool", "threads", "-c", "1", "-Q", "compositions", "-n", "tested@%h", "-l", "INFO"]
        )
    else:
        from django.core.management import execute_from_command_line

        execute_from_command_line(["manage.py", "work_compositions", "--every", "0.2", *sys.argv[1:]])
