"""What is known of the workers that a composition lost, and what is said of it.

Nobody tells why a worker is gone. What can be known: how far it was, and whether the kernel of its machine killed
something for memory before the next worker of its name began (`workers.say_begun`). What is lost at the same point each
time is likely the cause itself; else workers were stopped, or cut off from the database.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from compose.models import Composition, Worker

STAGES = {
    "": "as it began",
    "load": "while it loaded the base model and the modules",
    "audition": "while it tried every module alone",
    "search": "in the search",
    "evaluate": "while it scored the result",
    "export": "while it wrote the adapter",
}
SMALLER = "Try fewer or shorter examples, fewer modules or a smaller base model, or tell the people who run this site."


@dataclass(frozen=True)
class Loss:
    """One worker: how far it was, and whether it was probably killed for memory."""

    stage: str
    trials: int
    for_memory: bool = False

    @property
    def place(self) -> str:
        return STAGES.get(self.stage, f"in the stage {self.stage}")


def now_lost(composition: Composition) -> list[Loss]:
    """All its losses, with that of the worker which holds it and fell silent."""
    killed = Worker.objects.filter(
        name=composition.worker, killed_for_memory_at__gte=composition.heartbeat_at
    )
    loss = Loss(composition.stage, composition.trials.count(), killed.exists())
    return [*(Loss(**known) for known in composition.known_losses or []), loss]


def as_json(losses: list[Loss]) -> list[dict[str, object]]:
    return [asdict(loss) for loss in losses]


def line(loss: Loss) -> str:
    """Of one that is not the last."""
    why = ", probably because its machine had no memory left" if loss.for_memory else ""
    return f"Its worker was lost {loss.place}{why}; back in line, to go on from its trials."


def why_it_ends(losses: list[Loss], *, count: int) -> str:
    """Of the last one, for the owner: what is known of all of them, and what to do.

    `count` is how many there were: nothing is known of those before an upgrade.
    """
    last = losses[-1]
    if any(loss.for_memory for loss in losses):
        place = next(loss.place for loss in reversed(losses) if loss.for_memory)
        return (
            f"The worker was lost {count} times; {place} its machine probably had no memory left. {SMALLER}"
        )
    if len(set(losses)) == 1:
        where = (
            f"each time {last.place}, and got no further"
            if len(losses) == count
            else f"the last time {last.place}"
        )
        return f"The worker was lost {count} times, {where}, perhaps because this takes more memory than it has. {SMALLER}"
    return (
        f"The worker was lost {count} times, the last time {last.place}, and not each time at the same point: workers were "
        "probably stopped, or cut off from the database. Ask for it again; if it ends so again, tell the people who run this "
        "site."
    )
