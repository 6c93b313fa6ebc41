"""What a request for a composition comes to, before anything is saved and when it is."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from compose import candidates as choosing
from compose import daily_limit
from compose import examples as reading
from compose.engine.metrics import EXACT_MATCH, METRICS, label_of, unknown
from compose.engine.types import FLOAT_TYPES, LARGEST_EXPORT_RANK, Example, ExportForm
from compose.engine.unseen import NONE_UNSEEN, unseen
from compose.engine.wording import first_of
from compose.errors import BadSetting, FewShotProblem, GoneMeanwhile, TaskInQuarantine
from compose.jobs import log, queue, telling
from compose.models import Candidate, Composition
from compose.token_counts import count_tokens
from registry import task_sets
from registry.details import BadDetail, check_text
from registry.models import Adapter, BaseModel, Revision, Task, TaskRevision, User
from registry.rights import composable_for, require_whole_account, require_writing_token
from registry.search import sees_task
from web.database import after_commit, keep_from_deletion
from web.errors import DomainError, NotFound
from web.templatetags.formatting import plural

DEFAULT_METHOD = Composition.Method.AUTO
# What each method is usually given; the engine's own numbers, which cannot be imported without torch.
USUAL_BUDGETS: dict[str, int] = {
    Composition.Method.LORAHUB: 40,
    Composition.Method.AUTO: 600,
    Composition.Method.GRADIENT: 200,
}
DEFAULT_SEED = 1
MAX_SEED = 2**31 - 1
MOST_OF_A_TITLE = 200
SHORTEST_TIME_LIMIT_S, LONGEST_TIME_LIMIT_S = 5, 24 * 3600
Status = Composition.Status


@dataclass(frozen=True, kw_only=True)
class CompositionRequest:
    """What somebody asks for.

    `budget` counts trials; None: what the method usually gets. `candidates` None: chosen automatically. Without
    `examples` a task's own few-shot rows are used; a task's hidden test rows score the result unless
    `test_examples` are given. `pinned` and `excluded` are names that the automatic choice takes, or leaves. `metric`
    empty: the task's own, or exact match.
    """

    owner: User
    base_model: BaseModel
    examples: Sequence[Example] = ()
    test_examples: Sequence[Example] = ()
    task: Task | None = None
    title: str = ""
    candidates: Sequence[Revision] | None = None
    pinned: Sequence[str] = ()
    excluded: Sequence[str] = ()
    method: str = DEFAULT_METHOD
    budget: int | None = None
    seed: int = DEFAULT_SEED
    time_limit_s: int = (
        0  # 0: the budget alone ends the search; else it also stops after so long and keeps the best
    )
    metric: str = ""
    export: ExportForm = field(default_factory=ExportForm)
    notice_origin: str = (
        ""  # scheme and host of the site: given, the owner gets a mail with a link when it ends
    )

    @property
    def trials(self) -> int:
        return usual_budget(self.method) if self.budget is None else self.budget

    @property
    def scored_by(self) -> str:
        return self.metric or metric_for(self.task)

    def check(self) -> None:
        """Raises BadSetting, Forbidden."""
        require_whole_account(self.owner)
        require_writing_token(self.owner)
        check_settings(method=self.method, budget=self.trials, seed=self.seed, title=self.title)
        check_metric(self.scored_by)
        check_export(self.export)
        if self.time_limit_s and not SHORTEST_TIME_LIMIT_S <= self.time_limit_s <= LONGEST_TIME_LIMIT_S:
            raise BadSetting(
                "time_limit_s",
                f"The time limit is from {SHORTEST_TIME_LIMIT_S} to {LONGEST_TIME_LIMIT_S:,} seconds, or 0 for none.",
            )
        if self.task is not None and self.task.is_private and not sees_task(self.owner, self.task):
            raise NotFound(f"There is no task {self.task.slug!r} here.", fields={"task": ["Unknown."]})
        if self.task is not None and self.task.is_quarantined:
            raise TaskInQuarantine(self.task.title)
        if self.notice_origin:
            telling.check_can_mail(self.owner)


@dataclass
class Plan:
    """What a request comes to, before anything is saved."""

    examples: list[Example]
    test_examples: list[Example]
    has_hidden_test: bool
    split_note: str
    told_held_out: int  # how many rows are said to score it, before they do
    candidates: list[choosing.Choice]
    candidates_note: str
    warnings: list[str] = field(default_factory=list)
    task_revision: TaskRevision | None = None  # whose hidden rows `test_examples` are


def request_composition(request: CompositionRequest, plan: Plan | None = None) -> Composition:
    """Queue a composition for a worker, by a plan that was just made or one of its own.

    Raises a DomainError with the reason, and then nothing is saved.
    """
    plan = plan or plan_for(request)
    with transaction.atomic():
        queue.require_room(request.owner)
        _keep(request, plan)
        _require_left_today(request, plan)
        composition = Composition.objects.create(
            owner=request.owner,
            title=_title(request, plan),
            task=request.task,
            task_revision=plan.task_revision,
            base_model=request.base_model,
            base_commit=request.base_model.commit,
            method=request.method,
            budget=request.trials,
            seed=request.seed,
            time_limit_s=request.time_limit_s,
            metric=request.scored_by,
            export_rank=request.export.rank,
            export_dtype=request.export.dtype,
            examples=reading.as_json(plan.examples),
            test_examples=reading.as_json(plan.test_examples),
            has_hidden_test=plan.has_hidden_test,
            split_note=plan.split_note,
            candidates_note=plan.candidates_note[:300],  # a base model's name may be long
            is_picked=request.candidates is not None,
            pinned=list(request.pinned) if request.candidates is None else [],
            excluded=list(request.excluded) if request.candidates is None else [],
            wants_email=bool(request.notice_origin),
            notice_origin=request.notice_origin[:200],
            spec_sha256=_spec_sha256(request, plan),
            expected_s=estimate(request.base_model, request.method, request.trials)["seconds"],
            rung_at=timezone.now(),
        )
        Candidate.objects.bulk_create(
            Candidate(composition=composition, position=position, revision=revision, reason=reason)
            for position, (revision, reason) in enumerate(plan.candidates)
        )
        modules = plural(len(plan.candidates), "module,modules")
        trials = plural(request.trials, "trial,trials")
        log.write(composition, f"Asked for, with {modules} and at most {trials}.")
        # After commit, or a fast worker would look for a row that is not there yet.
        after_commit(queue.ring, composition.pk)
    return composition


def _keep(request: CompositionRequest, plan: Plan) -> None:
    """What the plan names stays until the composition is saved, which refers to it. Raises GoneMeanwhile."""
    # Modules before the task, as whoever deletes a namespace takes them.
    offered = {revision.adapter_id: revision.adapter for revision, _ in plan.candidates}
    keep_from_deletion(Adapter.objects.filter(pk__in=offered))
    there = set(composable_for(request.owner).filter(pk__in=offered).values_list("pk", flat=True))
    gone = [adapter.full_name for pk, adapter in offered.items() if pk not in there]
    if gone:
        raise GoneMeanwhile(gone, field="candidates", advice="Ask again with what is left.")
    task = request.task
    if task is not None:
        kept = task_sets.kept(task, person=request.owner)
        # What is planned for a public one names it.
        if kept is None or kept.is_quarantined or (kept.is_private and not task.is_private):
            raise GoneMeanwhile(
                [task.title], field="task", advice="Compose on your examples without naming it."
            )


def _require_left_today(request: CompositionRequest, plan: Plan) -> None:
    """Raises DailyLimit."""
    if request.task is not None and plan.has_hidden_test:
        daily_limit.require_left(request.owner, request.task)


def dry_run(request: CompositionRequest) -> dict[str, Any]:
    """What `request_composition` would do; saves nothing, and a refusal is a problem listed."""
    likely = estimate(request.base_model, request.method, request.trials)
    try:
        plan = plan_for(request)
        queue.require_room(request.owner)
        _require_left_today(request, plan)
    except DomainError as error:
        return refused(error) | {"estimate": likely}
    return {
        "ok": True,
        "problems": [],
        "warnings": plan.warnings,
        "candidates": [
            {"adapter": revision.adapter.full_name, "revision": revision.commit, "reason": reason}
            for revision, reason in plan.candidates
        ],
        "candidates_note": plan.candidates_note,
        "few_shot": len(plan.examples),
        "held_out": plan.told_held_out,
        "split_note": plan.split_note,
        "metric": request.scored_by,
        "queue_place": queue.place_of_next(
            request.owner, expected_s=likely["seconds"], budget=request.trials
        ),
        "estimate": likely,
    }


def refused(error: DomainError) -> dict[str, Any]:
    """The answer of `dry_run` for a request that would be refused with this error."""
    return {
        "ok": False,
        "problems": error.sentences,
        "warnings": [],
        "candidates": [],
        "candidates_note": "",
        "few_shot": 0,
        "held_out": 0,
        "split_note": "",
        "metric": None,
        "queue_place": None,
        "estimate": {"seconds": None, "based_on": 0},
    }


def usual_budget(method: str) -> int:
    return USUAL_BUDGETS.get(method, USUAL_BUDGETS[DEFAULT_METHOD])


def check_settings(*, method: str, budget: int, seed: int, title: str = "") -> None:
    """Raises BadSetting for a method, budget, seed or title that a composition cannot have."""
    if method not in Composition.Method.values:
        known = ", ".join(Composition.Method.values)
        raise BadSetting("method", f"There is no method {str(method)[:40]!r} here; choose one of: {known}.")
    if not 1 <= budget <= settings.MAX_BUDGET:
        raise BadSetting("budget", f"The budget is the number of trials, from 1 to {settings.MAX_BUDGET:,}.")
    if not 0 <= seed <= MAX_SEED:
        raise BadSetting("seed", f"The seed is a whole number from 0 to {MAX_SEED:,}.")
    try:
        check_text("title", title, limit=MOST_OF_A_TITLE)
    except BadDetail as error:
        raise BadSetting("title", error.message) from error


def metric_for(task: Task | None) -> str:
    """What a composition for this task is scored by unless another is asked for; of a task with a metric that is not
    ours, exact match."""
    return task.metric if task is not None and task.metric in METRICS else EXACT_MATCH


def check_metric(name: str) -> None:
    """Raises BadSetting for a metric that nothing here is scored by."""
    if name not in METRICS:
        raise BadSetting("metric", unknown(name))


def check_export(form: ExportForm) -> None:
    """Raises BadSetting for a rank or a float type that a composed adapter cannot have."""
    if not 0 <= form.rank <= LARGEST_EXPORT_RANK:
        raise BadSetting(
            "export_rank",
            f"The rank to export at is from 1 to {LARGEST_EXPORT_RANK:,}, or 0 for the mix as it is.",
        )
    if form.dtype not in FLOAT_TYPES:
        raise BadSetting(
            "export_dtype",
            f"There is no float type {form.dtype[:40]!r} to export; choose one of: {', '.join(FLOAT_TYPES)}.",
        )


def estimate(base_model: BaseModel, method: str, budget: int) -> dict[str, Any]:
    """Seconds of worker time from the last compositions on this base, and from how many; None if there are none."""
    # Of one that went on from an earlier attempt's trials the seconds are the last attempt's alone.
    recent = Composition.objects.filter(
        base_model=base_model, method=method, status=Status.SUCCEEDED, budget__gt=0, attempt__lte=1
    ).order_by("-finished_at")
    # Asked for while somebody types, and each second by a job's page: not with their examples and answers.
    took = [
        (result["seconds"], result.get("trials", asked), asked, result.get("stopped_early", False))
        for result, asked in recent.values_list("result", "budget")[:10]
        if result
    ]
    if not took:
        return {"seconds": None, "based_on": 0}
    # Loading and scoring take as long whatever the budget; a search may end before it.
    besides = statistics.median(sum(s.values()) - s.get("search", 0.0) for s, *_ in took)
    per_trial = statistics.median(s.get("search", 0.0) / max(trials, 1) for s, trials, *_ in took)
    # That its owner stopped one says nothing of where the next one ends.
    shares = [min(1.0, trials / asked) for _, trials, asked, is_stopped in took if not is_stopped]
    trials = budget * statistics.median(shares or [1.0])
    return {"seconds": round(besides + per_trial * trials, 1), "based_on": len(took)}


def plan_for(request: CompositionRequest) -> Plan:
    """What a request comes to, which may take a while and saves nothing. Raises a DomainError with the reason."""
    request.check()
    base_model, owner, method = request.base_model, request.owner, request.method
    revision = request.task.revisions.order_by("-number").first() if request.task is not None else None
    few_shot, test, is_hidden, note = _rows(request, revision)
    given = request.examples or few_shot
    unknown = check_tokens(base_model, given, field="examples")
    if len(few_shot) < len(given):
        # Unknown words are told of what is searched on alone.
        unknown = check_tokens(base_model, few_shot, field="examples")
    if not is_hidden:
        check_tokens(base_model, request.test_examples, field="test_examples")
    if request.candidates is None:
        chosen, candidates_note = choosing.choose(
            base_model,
            owner,
            request.seed,
            method=method,
            pinned=request.pinned,
            excluded=request.excluded,
        )
    else:
        choosing.check(request.candidates, base_model, owner, method=method)
        chosen = [(revision, choosing.PICKED) for revision in request.candidates]
        candidates_note = f"{len(chosen)} picked by hand."
    told = len(revision.test) if is_hidden and revision is not None else len(test)
    # Of the rows as they were given, and by their numbers there: a part of them may be held out.
    warnings = reading.warnings(given, request.test_examples) + unknown
    if is_hidden and revision is not None and revision.metric not in {request.scored_by, EXACT_MATCH}:
        warnings.append(
            f"The leaderboard of the task is by {label_of(revision.metric)}; a result scored by "
            f"{label_of(request.scored_by)} is not on it."
        )
    private = [revision.adapter.full_name for revision, _ in chosen if revision.adapter.is_private]
    if private:
        warnings.append(
            f"{first_of(private, most=3)} {'is' if len(private) == 1 else 'are'} private: what is composed of "
            f"{'it' if len(private) == 1 else 'them'} cannot be published for everybody."
        )
    return Plan(
        few_shot,
        test,
        is_hidden,
        note,
        told,
        chosen,
        candidates_note,
        warnings,
        task_revision=revision if is_hidden else None,
    )


def check_tokens(base_model: BaseModel, rows: Sequence[Example], *, field: str) -> list[str]:
    """Sentences about what in these rows is not in the base model's vocabulary, as far as its tokenizer is at hand.

    Raises FewShotProblem for rows that the engine would refuse.
    """
    counts = count_tokens(base_model, rows)
    if counts is None:
        return []
    if counts.too_long:
        raise FewShotProblem(
            [
                f"Row {number} is longer than the {counts.limit:,} tokens that {base_model.name} takes. Shorten it or "
                "leave it out."
                for number in counts.too_long
            ],
            field=field,
        )
    return counts.warnings


def _rows(
    request: CompositionRequest, revision: TaskRevision | None
) -> tuple[list[Example], list[Example], bool, str]:
    """Few-shot rows, test rows, whether those are a task's hidden ones, and where they come from in words.

    `revision` is the task's newest: its own rows, which stay as they are, and not those the task has a moment later.
    """
    task, examples, test_examples = request.task, request.examples, request.test_examples
    if not examples and task is not None:
        examples = reading.from_json(revision.few_shot) if revision else []
        if not examples:
            raise FewShotProblem(f"The task {task.slug} has no few-shot rows of its own. Give some examples.")
    reading.check_examples(examples)
    if test_examples:
        reading.check_examples(test_examples, field="test_examples")
        scored = unseen(test_examples, examples)
        if not scored:
            raise FewShotProblem([NONE_UNSEEN], field="test_examples")
        return list(examples), scored, False, _own_note(len(test_examples), len(scored))
    hidden = reading.from_json(revision.test) if revision else []
    if hidden:
        return list(examples), unseen(hidden, examples), True, hidden_note(len(hidden))
    few_shot, held_out, note = reading.split(examples, request.seed)
    return few_shot, held_out, False, note


def _own_note(count: int, scored: int) -> str:
    """That so many of a person's own test rows score a composition."""
    rows = f"{plural(count, 'test row,test rows')} that came with the examples"
    if scored == count:
        return f"Scored on {rows}."
    return f"Scored on {scored:,} of the {rows}: {_others(count - scored)} among the examples too."


def hidden_note(count: int, *, scored: int | None = None) -> str:
    """That a task's hidden rows score a composition: so many of them, of which `scored` were not among its examples.

    It names no task, for it stands in the card of what is published, and a task may be hidden at any time. Before the
    scoring `scored` is None: how many rows are left out would tell for nothing which guesses are among them.
    """
    rows = f"{plural(count, 'hidden test row,hidden test rows')} of its task"
    if scored is None:
        return f"Scored on those of the {rows} that are not among the examples."
    if scored == count:
        return f"Scored on the {rows}."
    off_the_board = "among the examples. The task's ranking takes no such score."
    if not scored:
        return f"Not scored: all {rows} are {off_the_board}"
    return f"Scored on {scored:,} of the {rows}: {_others(count - scored)} {off_the_board}"


def _others(count: int) -> str:
    return "the other is" if count == 1 else "the others are"


def _title(request: CompositionRequest, plan: Plan) -> str:
    """Not from an example: the title is public once the adapter is, the examples are not, nor a private task's name."""
    task, given = request.task, request.title.strip()
    if task is not None and task.is_private:
        given = "" if given.casefold() == task.title.casefold() else given
    elif task is not None:
        given = given or task.title[:200]
    return given or untold_title(len(plan.examples), request.base_model)


def untold_title(examples: int, base_model: BaseModel) -> str:
    """The title of a composition that is named after no task."""
    return f"{examples} examples on {base_model.short_name}"[:200]


def _spec_sha256(request: CompositionRequest, plan: Plan) -> str:
    spec = {
        "base_model": request.base_model.name,
        "base_commit": request.base_model.commit,
        "method": request.method,
        "budget": request.trials,
        "seed": request.seed,
        **({"time_limit_s": request.time_limit_s} if request.time_limit_s else {}),
        **({} if request.scored_by == EXACT_MATCH else {"metric": request.scored_by}),
        **({} if request.export == ExportForm() else {"export": asdict(request.export)}),
        "examples": reading.as_json(plan.examples),
        "test_examples": reading.as_json(plan.test_examples),
        "candidates": choosing.names(revision for revision, _ in plan.candidates),
    }
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
