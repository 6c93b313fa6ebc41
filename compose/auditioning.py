"""An audition, measured on the machine that has the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compose import auditions, bases, worker, worker_cache
from compose import examples as reading
from compose.engine.errors import DoesNotFit, IncompatibleModule, LossNotFinite
from compose.engine.types import Example, Module
from compose.errors import LeaseLost
from compose.in_touch import Heart
from compose.models import Audition, Auditioned
from registry import storage

NOT_A_NUMBER = "Its loss on these examples is not a number."


def measure(audition: Audition, heart: Heart) -> dict[str, Any]:
    """Measure what has no loss yet; nothing is left to keep then. Raises EngineError, DomainError, LeaseLost.

    Losses are kept in groups as they come, so an attempt after a crash goes on where the last one was.
    """
    with bases.at_hand(audition.base_model, pause=heart.wait, look=heart.check) as (base, _):
        _measure_left(audition, heart, base)
    return {}


def _measure_left(audition: Audition, heart: Heart, base: Path) -> None:
    rows = reading.from_json(audition.examples)
    left = list(
        audition.modules.filter(loss=None, problem="", revision__adapter__quarantined_at=None).select_related(
            "revision__adapter__namespace"
        )
    )
    for start in range(0, len(left), auditions.AT_ONCE):
        heart.check()
        if not auditions.KIND.held(audition).exists():  # forgotten by who asked, or taken back
            raise LeaseLost(audition.pk)
        _measure_some(audition, left[start : start + auditions.AT_ONCE], base, rows, heart)


def _measure_some(
    audition: Audition, some: Sequence[Auditioned], base: Path, rows: Sequence[Example], heart: Heart
) -> None:
    try:
        base_loss, losses = _losses_of(audition, some, base, rows, heart)
    except (IncompatibleModule, storage.BytesMissing) as error:
        refused = _refused(error, some)
    else:
        _keep(audition, some, base_loss, losses)
        return
    for row in some:
        row.problem = refused.get(row.revision.adapter.full_name, "")[:300]
    Auditioned.objects.bulk_update(some, ["problem"])
    left = [row for row in some if not row.problem]
    # What cannot be loaded does not say which of them it is: each by itself, so that the others have their loss.
    for group in [left] if refused else [[row] for row in left]:
        if group:
            _measure_some(audition, group, base, rows, heart)


def _losses_of(
    audition: Audition, some: Sequence[Auditioned], base: Path, rows: Sequence[Example], heart: Heart
) -> tuple[float, list[float]]:
    revisions = [row.revision for row in some]
    with TemporaryDirectory(prefix="audition-", dir=worker_cache.jobs_folder()) as folder:
        modules = worker.lay_out_modules(revisions, Path(folder), look=heart.check)
        with worker.telling_misfits(audition.base_model, modules, revisions):
            return _losses(base, modules, rows)


def _refused(error: IncompatibleModule | storage.BytesMissing, some: Sequence[Auditioned]) -> dict[str, str]:
    """What is said of which module, by its name; empty if it is not known of which."""
    if isinstance(error, DoesNotFit):
        return {name: DoesNotFit({name: reason}).message for name, reason in error.reasons.items()}
    return {some[0].revision.adapter.full_name: error.message} if len(some) == 1 else {}


def _keep(audition: Audition, some: Sequence[Auditioned], base_loss: float, losses: Sequence[float]) -> None:
    for row, loss in zip(some, losses, strict=True):
        if math.isfinite(loss):
            row.loss = loss
        else:
            row.problem = NOT_A_NUMBER
    Auditioned.objects.bulk_update(some, ["loss", "problem"])
    auditions.KIND.held(audition).update(base_loss=base_loss)


def _losses(base: Path, modules: Sequence[Module], rows: Sequence[Example]) -> tuple[float, list[float]]:
    """The bare base's mean token loss and each module's alone at weight 1, in nats. Raises EngineError."""
    # Here and not at the top, so that this can be imported without torch.
    from compose.engine.run import score

    n = len(modules)
    alone = [[float(i == j) for j in range(n)] for i in range(n)]
    base_loss, *losses = score(base, modules, rows, [[0.0] * n, *alone], "exact", warm=worker.warm_cache())
    if not math.isfinite(base_loss):
        raise LossNotFinite("The base model's own loss on the examples is not a number.")
    return base_loss, losses
