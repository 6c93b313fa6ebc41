"""The errands that wait, done on the machine that has the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from compose import answering, auditioning, auditions, tryouts, worker
from compose.engine import heap
from compose.engine.errors import EngineError
from compose.errands import E, Kind
from compose.errors import LeaseLost
from compose.in_touch import Heart
from registry import storage
from web.errors import DomainError

logger = logging.getLogger(__name__)
STORE_AWAY = f"{worker.STORE_AWAY} Ask again later, or tell the people who run this site."


def run_waiting(worker_name: str = "worker") -> int:
    """Do all that wait, how many there were; 0 at once if this process is at a composition.

    Try-outs first: they take seconds, and somebody looks at the page.
    """
    done = 0
    with worker.hold_engine() as is_free:
        while is_free and not worker.is_draining():
            if (tryout := tryouts.KIND.take_next(worker_name)) is not None:
                do(tryouts.KIND, tryout, partial(answering.answer, tryout))
            elif (audition := auditions.KIND.take_next(worker_name)) is not None:
                do(auditions.KIND, audition, partial(auditioning.measure, audition))
            else:
                break
            done += 1
        if done:
            heap.give_back()
    return done


def do(kind: Kind[E], errand: E, work: Callable[[Heart], dict[str, Any]]) -> None:
    """Do an errand that this process took, and keep the fields that `work` finds; or write down why not."""
    started = time.perf_counter()
    try:
        with Heart(errand.pk, partial(kind.beat, errand)) as heart:
            found = work(heart)
    except LeaseLost:
        logger.warning("%s %s is no longer ours", kind.model.__name__, errand.pk)
    except (EngineError, DomainError) as error:
        kind.fail(errand, error.message)
    except Exception as error:
        # The traceback goes to the log; whoever asked gets a sentence we can stand behind.
        logger.exception("%s %s stopped", kind.model.__name__, errand.pk)
        if not storage.is_away(error):
            kind.fail(errand, kind.our_error)
        elif errand.losses:  # else its lease runs out, and it goes back in line once
            kind.fail(errand, STORE_AWAY)
    else:
        kind.finish(errand, seconds=time.perf_counter() - started, **found)
