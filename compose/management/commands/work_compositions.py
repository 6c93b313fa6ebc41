"""A worker without a broker: looks at the queue itself."""

from __future__ import annotations

import os
import signal
import socket
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = (
        "Work on compositions, and sweep, without a broker: one process that looks at the queue every second."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--until-empty", action="store_true", help="End when nothing waits and nothing runs."
        )
        parser.add_argument(
            "--every", type=float, default=1.0, help="Seconds between two looks at the queue."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        from compose import jobs, worker
        from compose.models import Composition
        from compose.presence import Presence

        name = f"{socket.gethostname()}:{os.getpid()}"
        going = False

        def leave(number: int, frame: FrameType | None) -> None:
            nonlocal going
            going = True
            worker.drain(name)

        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        unfinished = Composition.objects.filter(
            status__in=[Composition.Status.QUEUED, Composition.Status.RUNNING]
        )
        presence = Presence(name)
        presence.start()
        try:
            while not going:
                jobs.sweep()
                if worker.run_next(name):
                    continue
                if options["until_empty"] and not unfinished.exists():
                    return
                time.sleep(options["every"])
        finally:
            presence.end()
