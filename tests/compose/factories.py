"""Compositions with readable defaults."""

from __future__ import annotations

from typing import Any

from compose import jobs
from compose.engine import types
from compose.engine.types import Example
from compose.models import Composition
from registry import storage
from registry.models import Adapter, BaseModel, User
from tests.factories import make_adapter, make_base_model, make_user


def make_examples(count: int = 5, start: int = 0) -> list[Example]:
    return [Example(f"question {number}", f"answer {number}") for number in range(start, start + count)]


def make_modules(
    base_model: BaseModel, count: int = 3, *, owner: User | None = None, **fields: Any
) -> list[Adapter]:
    """Composable modules for `base_model`, all of one person."""
    owner = owner or make_user()
    return [
        make_adapter(f"part-{number}", owner=owner, base_model=base_model, **fields)
        for number in range(count)
    ]


def make_composition(
    *, owner: User | None = None, base_model: BaseModel | None = None, modules: int = 3, **options: Any
) -> Composition:
    """A queued composition over a few modules; `options` go to `request_composition`."""
    owner = owner or make_user()
    if base_model is None:
        base_model = BaseModel.objects.named("demo/tiny-t5") or make_base_model()
    if modules and not Adapter.objects.composable_with(base_model).exists():
        make_modules(base_model, modules)
    options.setdefault("examples", make_examples())
    options.setdefault("method", "lorahub")  # what make_result() is a result of
    return jobs.request_composition(jobs.CompositionRequest(owner=owner, base_model=base_model, **options))


def owner_of(composition: Composition) -> User:
    """The person who asked for it, whose account is there."""
    assert composition.owner is not None
    return composition.owner


def make_trials(count: int, candidates: int = 3, start: int = 1) -> list[types.Trial]:
    return [
        types.Trial(number, tuple(number / 10 + i for i in range(candidates)), 1 / number, 1.1 / number)
        for number in range(start, start + count)
    ]


def make_result(candidates: int = 3, trials: int = 4, **changes: Any) -> types.Result:
    """What the engine might have found."""
    fields: dict[str, Any] = {
        "modules": [f"module {number}" for number in range(candidates)],
        "mixing_weights": [0.1 + number for number in range(candidates)],
        "mix": "paper",
        "trials": make_trials(trials, candidates),
        "scores": [
            types.Score("zero_shot", "exact_match", 0.2, 0.1, 0.4, 20, "held_out"),
            types.Score("lorahub", "exact_match", 0.6, 0.4, 0.8, 20, "held_out"),
        ],
        "predictions": [
            types.Prediction(f"q {number}", "yes", {"lorahub": "yes", "zero_shot": "no"})
            for number in range(30)
        ],
        "audition": [1.0 + number for number in range(candidates)],
        "base_loss": 2.0,
        "loss": 0.5,
        "attribution": [0.5 - number / 10 for number in range(candidates)],
        "verdict": "The composed adapter is better than the base model.",
        "notes": [],
        "seconds": {"load": 1.0, "search": 2.0, "evaluate": 3.0, "export": 0.5},
        "stopped_early": False,
        "versions": {"torch": "2.13.0"},
    }
    return types.Result(**{**fields, **changes})


def finish(composition: Composition, **changes: Any) -> Composition:
    """Claim a queued composition and finish it, with an adapter whose bytes are not one."""
    claimed = jobs.claim(composition.pk, "worker")
    assert claimed is not None
    result = make_result(candidates=claimed.candidates.count(), **changes)
    jobs.finish(
        claimed,
        result,
        weights=storage.store_stream([f"weights {claimed.pk}".encode()]),
        config=storage.store_stream([b"{}"]),
    )
    composition.refresh_from_db()
    return composition
