"""What the page of a composition shows, worked out from its rows so that the templates only lay it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from django.utils import timezone

from compose import charts, jobs, naming, removing
from compose.candidates import MIXES_EQUAL_ONLY
from compose.changed_since import changed_since, with_modules
from compose.engine.metrics import EXACT_MATCH
from compose.engine.wording import first_of, without_advice
from compose.examples import from_json
from compose.jobs import workers
from compose.licences import DerivedLicence, licence_of
from compose.models import Candidate, Composition, LogLine, Score, Trial
from compose.predictions import PredictionRow, compare, in_order
from compose.token_counts import count_tokens
from registry.models import Adapter, Task
from registry.rights import Person, owns

FIRST_PREDICTIONS = 20
LOG_LINES = 40
STAGES = {
    "load": "Load",
    "audition": "Audition",
    "search": "Search",
    "evaluate": "Evaluate",
    "export": "Export",
}
STAGE_MEANINGS = {
    "load": "reading the base model and the modules",
    "audition": "trying every module alone",
    "search": "looking for mixing weights",
    "evaluate": "scoring each method on rows it has not seen",
    "export": "writing the adapter",
}


@dataclass(frozen=True)
class Stage:
    name: str
    label: str
    state: str  # "done", "now" or "next"


@dataclass
class JobPage:
    """One composition for one reader. Charts and tables are made when a template asks for them, once."""

    composition: Composition
    title: str  # as the reader may be told
    is_owner: bool
    candidates: list[Candidate]
    trials: list[Trial]
    scores: list[Score]
    named_adapters: set[int]  # by what the reader may see; `naming` has the rule
    queue_place: int | None
    log: list[LogLine]  # the newest first, so that it is seen in a short box
    task: Task | None  # where the reader may be told of it
    is_held_back: bool
    changed_since: list[str]  # what a result is made of or scored on that is otherwise now, in sentences
    shows_all: bool = False

    @cached_property
    def lacks_room(self) -> bool:
        """Whether it waits, and the disks of all who would take it are full."""
        return self.composition.status == Composition.Status.QUEUED and workers.are_full()

    @cached_property
    def why_kept(self) -> str:
        """Why its owner cannot have the whole of it removed; empty where it can be."""
        return removing.why_kept(self.composition)

    @property
    def is_scored(self) -> bool:
        return any(score.split == "held_out" for score in self.scores)

    @property
    def shown_scores(self) -> list[Score]:
        """By the composition's metric: held-out scores where there are any; else the estimate, which the page calls one."""
        return self._scores_by(self.composition.metric)

    @cached_property
    def by_exact_match(self) -> dict[str, float]:
        """What each method has by exact match, where another metric was chosen; else nothing more than the scores say."""
        if self.composition.metric == EXACT_MATCH:
            return {}
        return {score.method: score.value for score in self._scores_by(EXACT_MATCH)}

    @property
    def exact_match_said(self) -> str:
        """Ours and the best baseline by exact match, in words."""
        found = self.by_exact_match
        baselines = [value for name, value in found.items() if name != self.ours]
        if self.ours not in found or not baselines:
            return ""
        return (
            f"By exact match the composed adapter gets {found[self.ours]:.2f}, the best baseline "
            f"{max(baselines):.2f}."
        )

    def _scores_by(self, metric: str) -> list[Score]:
        scores = [score for score in self.scores if score.metric == metric]
        return [score for score in scores if score.split == "held_out"] or scores

    @property
    def headline(self) -> str:
        result = self.composition.result or {}
        verdict = str(result.get("verdict") or "The result has no verdict.")
        return self._told(verdict if self.is_owner else without_advice(verdict))

    @cached_property
    def unknown_words(self) -> list[str]:
        """Why some rows cannot be right, told to the owner alone: words of the examples that the base model does not have."""
        ours = next((score.value for score in self.shown_scores if score.method == self.ours), 1.0)
        if not self.composition.examples or ours >= 1:
            return []
        counts = count_tokens(self.composition.base_model, from_json(self.composition.examples))
        return counts.warnings if counts else []

    @property
    def notes(self) -> list[str]:
        return [self._told(note) for note in (self.composition.result or {}).get("notes", [])]

    @property
    def seconds(self) -> float | None:
        """Worker time of the attempt that finished."""
        spent = (self.composition.result or {}).get("seconds")
        return sum(spent.values()) if spent else None

    @property
    def seconds_by_stage(self) -> list[tuple[str, float]]:
        spent = (self.composition.result or {}).get("seconds") or {}
        return [(STAGES.get(stage, stage), spent[stage]) for stage in in_order(spent, list(STAGES))]

    @property
    def versions(self) -> list[tuple[str, str]]:
        return sorted(((self.composition.result or {}).get("versions") or {}).items())

    @property
    def option_scores(self) -> dict[str, Any] | None:
        """The methods held to a closed set of answers, if the answers are one."""
        return (self.composition.result or {}).get("option_scores")

    @property
    def precision(self) -> str:
        """The float type the search ran in."""
        return str((self.composition.result or {}).get("precision", "float32"))

    @property
    def exported(self) -> str:
        """The adapter that was written, in words; empty for results of earlier versions, which did not say."""
        found = (self.composition.result or {}).get("exported")
        if not found:
            return ""
        text = f"rank {found['rank']:,}, {found['dtype']}"
        if not found["relative_error"]:
            return text
        why = "cut to that rank" if found["kind"] == "truncated" else "rounded"
        return f"{text}; {why}, {found['relative_error']:.2%} from the mix itself"

    @property
    def stopped_early(self) -> bool:
        return bool((self.composition.result or {}).get("stopped_early"))

    @property
    def licence(self) -> DerivedLicence | None:
        """What the parents' licences allow; None when nothing was kept."""
        found = licence_of(self.candidates)
        return replace(found, note=self._told(found.note)) if found else None

    @property
    def ours(self) -> str:
        return self.composition.method

    @property
    def adapter(self) -> Adapter | None:
        """What it was published as, where the reader may be told; who has the owner's link may not see a private one."""
        adapter = self.composition.adapter
        return adapter if adapter is not None and adapter.pk in self.named_adapters else None

    @property
    def is_public(self) -> bool:
        """Whether everybody sees the page: what it was published as is public and there."""
        adapter = self.composition.adapter
        return adapter is not None and not (
            adapter.is_private or adapter.is_quarantined or adapter.deleted_at
        )

    # --- progress ---------------------------------------------------------------------------------------------

    @property
    def stages(self) -> list[Stage]:
        names = list(STAGES)
        now = names.index(self.composition.stage) if self.composition.stage in names else -1
        return [
            Stage(name, label, "done" if order < now else "now" if order == now else "next")
            for order, (name, label) in enumerate(STAGES.items())
        ]

    @property
    def stage_meaning(self) -> str:
        return STAGE_MEANINGS.get(self.composition.stage, "starting")

    @property
    def is_counted(self) -> bool:
        return self.composition.steps > 0

    @property
    def page_title(self) -> str:
        """What the tab says: progress first, since a tab shows little."""
        composition = self.composition
        if composition.status == Composition.Status.QUEUED:
            return f"Queued{f', place {self.queue_place}' if self.queue_place else ''}: {self.title}"
        if composition.status == Composition.Status.RUNNING:
            counted = f" {composition.step}/{composition.steps}" if self.is_counted else ""
            return f"{STAGES.get(composition.stage, 'Starting')}{counted}: {self.title}"
        return f"{composition.get_status_display()}: {self.title}"

    @cached_property
    def estimate_s(self) -> float | None:
        """Seconds of worker time that compositions like this one took; None if there were none."""
        composition = self.composition
        return jobs.estimate(composition.base_model, composition.method, composition.budget)["seconds"]

    @property
    def spoken_state(self) -> str:
        """For screen readers, told only when it changes: the stage, without the counting, and what came of it."""
        composition = self.composition
        if composition.status == Composition.Status.QUEUED:
            return "Queued"
        if composition.status == Composition.Status.RUNNING:
            return f"{STAGES.get(composition.stage, 'Starting')}: {self.stage_meaning}"
        if composition.status == Composition.Status.SUCCEEDED:
            return f"The composition has succeeded. {self.headline}"
        return f"The composition {'was ' if composition.status == Composition.Status.CANCELLED else ''}{composition.status}"

    @property
    def heartbeat_age_s(self) -> float | None:
        return _age_s(self.composition.heartbeat_at)

    @property
    def elapsed_s(self) -> float | None:
        end = self.composition.finished_at
        start = self.composition.started_at
        if start is None:
            return None
        return ((end or timezone.now()) - start).total_seconds()

    # --- charts -----------------------------------------------------------------------------------------------

    @cached_property
    def best_trial(self) -> Trial | None:
        return min(self.trials, key=lambda trial: (trial.objective, trial.number), default=None)

    @cached_property
    def search(self) -> charts.SearchChart:
        alone = [c.audition_loss for c in self.candidates if c.audition_loss is not None]
        return charts.search_chart(
            self.trials,
            most=self._most_trials,
            base_loss=self._base_loss,
            best_single=min(alone, default=None),
        )

    @property
    def _most_trials(self) -> int:
        """Where the search ends, as far as that is known."""
        if self.composition.is_finished:
            return len(self.trials)
        is_told = self.composition.counted == "trials"
        return self.composition.steps if is_told else self.composition.budget

    @property
    def _base_loss(self) -> float | None:
        # Compositions from before the audition was written down as it ended have it in their result only.
        result = self.composition.result or {}
        return (
            self.composition.base_loss if self.composition.base_loss is not None else result.get("base_loss")
        )

    @cached_property
    def weights(self) -> charts.BarChart:
        """The final mixing weights, or while it runs those of the best trial so far."""
        best = self.best_trial
        modules = [
            charts.Weighted(
                label=naming.name_of(candidate.revision.adapter, self.named_adapters),
                url=naming.link_to(candidate.revision.adapter, self.named_adapters),
                weight=self._weight(candidate, best),
                attribution=candidate.attribution,
                audition_loss=candidate.audition_loss,
                reason=candidate.reason,
            )
            for candidate in self.candidates
        ]
        return charts.weight_chart(
            modules,
            is_live=self.composition.status == Composition.Status.RUNNING,
            is_paper=self.composition.method in MIXES_EQUAL_ONLY,
        )

    @cached_property
    def _told(self) -> Callable[[str], str]:
        """Takes the names of modules that the reader may not see out of what the engine said."""
        return naming.without_hidden(self.candidates, self.named_adapters)

    def _weight(self, candidate: Candidate, best: Trial | None) -> float:
        if candidate.mixing_weight is not None:
            return candidate.mixing_weight
        return float(best.mixing_weights[candidate.position]) if best else 0.0

    @property
    def kept(self) -> int:
        return sum(bool(candidate.mixing_weight) for candidate in self.candidates)

    @property
    def quarantined(self) -> str:
        """Names of its modules that are in quarantine: with them it cannot be published."""
        return self._names_of(
            c.revision.adapter for c in self.candidates if c.revision.adapter.is_quarantined
        )

    @property
    def private_parents(self) -> str:
        """Names of its modules that are private: with them it cannot be published for everybody."""
        return self._names_of(c.revision.adapter for c in self.candidates if c.revision.adapter.is_private)

    def _names_of(self, adapters: Iterable[Adapter]) -> str:
        return first_of((naming.name_of(adapter, self.named_adapters) for adapter in adapters), most=3)

    # --- predictions --------------------------------------------------------------------------------------------

    @property
    def shown_methods(self) -> list[str]:
        """Ours, then the two most telling baselines: the best one and the bare model."""
        scores = {score.method: score.value for score in self.shown_scores}
        baselines = sorted((name for name in scores if name != self.ours), key=lambda name: -scores[name])
        wanted = [self.ours, *baselines[:1], "zero_shot", *baselines]
        return [name for name in dict.fromkeys(wanted) if name in scores][:3]

    @property
    def prediction_rows(self) -> list[PredictionRow]:
        predictions = self.composition.predictions
        shown = predictions if self.shows_all else predictions[:FIRST_PREDICTIONS]
        return [
            PredictionRow(
                input=prediction["input"],
                expected=prediction["expected"],
                answers=[
                    compare(
                        name,
                        prediction["outputs"].get(name, ""),
                        prediction["expected"],
                        metric=self.composition.metric,
                    )
                    for name in self.shown_methods
                ],
            )
            for prediction in shown
        ]

    @property
    def hides_predictions(self) -> bool:
        return len(self.composition.predictions) > FIRST_PREDICTIONS and not self.shows_all


def job_page(composition: Composition, person: Person, *, shows_all: bool = False) -> JobPage:
    """Everything the page needs, in a fixed number of queries. A stranger gets no example and no prediction."""
    is_owner = owns(person, composition.owner_id)
    candidates = list(with_modules(composition.candidates.all()))
    adapter_ids = [candidate.revision.adapter_id for candidate in candidates]
    if composition.adapter_id is not None:
        adapter_ids.append(composition.adapter_id)
    if not is_owner:
        composition.predictions = []
        composition.examples = []
        composition.test_examples = []
    named = naming.may_be_named(adapter_ids, person, is_owner=is_owner)
    task = naming.task_of(composition, person)
    return JobPage(
        composition=composition,
        title=naming.title_of(composition, person),
        is_owner=is_owner,
        candidates=candidates,
        # Thousands of vectors, of which the page shows one: the best trial fetches its own.
        trials=list(composition.trials.defer("mixing_weights")),
        scores=list(composition.scores.all()),
        named_adapters=named,
        queue_place=jobs.queue_place(composition),
        # The owner's alone: it names machines, and candidates that others may not see.
        log=list(composition.log.order_by("-pk")[:LOG_LINES]) if is_owner else [],
        task=task,
        is_held_back=is_owner and jobs.is_held_back(composition),
        changed_since=changed_since(composition, task=task, candidates=candidates, named=named),
        shows_all=shows_all,
    )


def trials_json(trials: Iterable[Trial], names: Sequence[str | None]) -> dict[str, Any]:
    """The whole search, as the API gives it: the order of the weights is that of `adapters`.

    None stands for a module that the reader may not see.
    """
    return {
        "adapters": list(names),
        "trials": [
            {
                "number": trial.number,
                "mixing_weights": trial.mixing_weights,
                "loss": trial.loss,
                "objective": trial.objective,
            }
            for trial in trials
        ],
    }


def _age_s(moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, (timezone.now() - moment).total_seconds())
