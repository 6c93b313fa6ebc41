"""How a worker stays in touch with what it holds: the lease is renewed, what happens written down, wishes are asked for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from compose import jobs
from compose.engine import types
from compose.engine.errors import Cancelled
from compose.errors import LeaseLost
from compose.models import Composition

logger = logging.getLogger(__name__)
KEPT_EVERY_S = 0.25
PROGRESS_EVERY_S = 0.5
FETCHING = "fetching the base model and the modules"


class Heart:
    """Renews a lease by `beat` from a thread of its own for as long as the block lasts; `check` says whether it holds.

    `beat` raises LeaseLost and gives what the owner wishes; `about` names what is held, for the log.
    """

    def __init__(self, about: str, beat: Callable[[], object]) -> None:
        self.about = about
        self._renew = beat
        self.lost = threading.Event()
        self._is_cancelled = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heart-{about}", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=30)

    def check(self) -> None:
        """Raises LeaseLost, and Cancelled once a beat brought that wish. Asks nobody, so that any thread may."""
        if self.lost.is_set():
            raise LeaseLost(self.about)
        if self._is_cancelled.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Let so much time pass, and `check` meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 1.0))

    def _beat(self) -> None:
        try:
            while not self._done.wait(settings.JOB_HEARTBEAT_S):
                try:
                    if self._renew() == Composition.Wish.CANCEL:
                        self._is_cancelled.set()
                except LeaseLost:
                    self.lost.set()
                    return
                except DatabaseError as error:
                    # It may be back before the lease ends; and if not, the sweep has the last word.
                    logger.warning("No heartbeat for %s: %s", self.about, error)
                    connection.close()
        finally:
            connection.close()


class Reporter(types.Observer):
    """Writes down what the engine tells, asks what the owner wishes, and stops an attempt that lost its lease."""

    def __init__(
        self, composition: Composition, heart: Heart, *, recorded: Sequence[types.Trial] = ()
    ) -> None:
        self.composition = composition
        self.heart = heart
        self.recorded = recorded  # by earlier attempts
        self._begins_at = len(recorded)
        self._waiting: list[types.Trial] = []
        self._to_keep: dict[str, Any] = {}
        self._kept_at = self._told_at = 0.0
        self._searched_before_s = composition.searched_s
        self._searching_since: float | None = None  # now and then it does something else

    def on_stage(self, stage: str, message: str = "", *, trials: int = 0) -> None:
        self.flush()
        self._searched_before_s = self._searched_s
        self._searching_since = time.monotonic() if trials else None
        jobs.set_stage(
            self.composition,
            stage,
            message,
            step=min(self._begins_at, trials),
            steps=trials,
            counted="trials" if trials else "",
        )
        if trials:
            self._begins_at = 0  # they are of the first search; one beside it begins at its beginning

    def on_audition(self, base_loss: float, losses: Sequence[float]) -> None:
        jobs.record_audition(self.composition, base_loss, losses)

    def on_trial(self, trial: types.Trial) -> None:
        self._waiting.append(trial)
        self._flush_now_and_then()

    def keep(self, key: str, value: Any) -> None:
        self._to_keep[key] = value
        self._flush_now_and_then()

    def kept(self, key: str) -> Any:
        return jobs.kept(self.composition, key) if self.composition.attempt > 1 else None

    def on_progress(self, done: int, total: int, counted: str) -> None:
        if done in (0, total) or time.monotonic() - self._told_at >= PROGRESS_EVERY_S:
            self._told_at = time.monotonic()
            jobs.set_step(self.composition, done, total, counted)

    def wanted(self) -> str:
        self.heart.check()
        wish = jobs.wish(self.composition)
        if not wish and 0 < self.composition.time_limit_s <= self._searched_s:
            return "stop"  # its owner's choice when they asked
        return wish or "go"

    def pause(self, seconds: float) -> None:
        """Wait for a hub that did not give the base model. Raises Cancelled, LeaseLost."""
        note = f"the base model's hub did not give its files; asking again in {seconds:.0f} seconds"
        jobs.set_stage(self.composition, "load", note)
        self.heart.wait(seconds)
        jobs.set_stage(self.composition, "load", FETCHING)

    def _flush_now_and_then(self) -> None:
        # In groups, or a fast search would do nothing but write.
        if time.monotonic() - self._kept_at >= KEPT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Keep the trials that wait, and what else is to be kept."""
        self._kept_at = time.monotonic()
        self.composition.searched_s = self._searched_s
        waiting, self._waiting = self._waiting, []
        jobs.record_trials(self.composition, waiting)
        to_keep, self._to_keep = self._to_keep, {}
        jobs.keep(self.composition, to_keep)

    @property
    def _searched_s(self) -> float:
        """Seconds of search, those of earlier attempts too."""
        since = self._searching_since
        return self._searched_before_s + (0.0 if since is None else time.monotonic() - since)
