"""The errands that wait, done on the machine that has the engine."""

from __future__ import annotations

from compose import answering, auditioning, auditions, tryouts, worker


def run_waiting(worker_name: str = "worker") -> int:
    """Do all that wait, how many there were; 0 at once if this process is at a composition.

    Try-outs first: they take seconds, and somebody looks at the page.
    """
    done = 0
    with worker.hold_engine() as is_free:
        while is_free and not worker.is_draining():
            tryout = tryouts.KIND.take_next(worker_name)
            if tryout is not None:
                answering.answer(tryout)
            else:
                audition = auditions.KIND.take_next(worker_name)
                if audition is None:
                    break
                auditioning.measure(audition)
            done += 1
    return done
