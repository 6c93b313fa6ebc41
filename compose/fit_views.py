"""Pages that say which modules fit a task: doors to `compose.fit`, and to `compose.auditions` for the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from compose import auditions, drafts, fit
from compose.errors import FewShotProblem
from compose.examples import from_json, parse_examples
from compose.forms import MAX_DRAFT_BYTES, as_lines, base_models
from compose.models import Audition, Auditioned
from registry.models import Adapter, BaseModel, User
from registry.rights import Person
from web.errors import DomainError

PICKED = 8  # of the best, ticked for composing
SHOWN = 20


@require_http_methods(["GET", "HEAD", "POST"])
def fit_page(request: HttpRequest) -> HttpResponse:
    """Paste examples, choose a base model, and see which modules fit and why. Nothing is kept.

    With `action=measure` a person also asks for every module's loss on the examples; that needs an account.
    """
    given = drafts.kept(request, "fit") or request.POST
    text = given.get("examples_text", "")
    asked = given.get("base_model") or request.GET.get("base", "")
    context = _form(request.user, asked, text)
    known: list[BaseModel] = context["base_models"]
    if request.method != "POST":
        # As on the compose form, the first stands there until another is chosen.
        context["base_name"] = asked or (known[0].name if known else "")
        return render(request, "compose/fit.html", context)
    base_model = next((row for row in known if row.name == asked), None)
    if base_model is None:
        context["base_problem"] = "Choose a base model of this list."
    try:
        examples = parse_examples(text)
    except FewShotProblem as problem:
        context["problems"] = problem.problems
    if "problems" in context or base_model is None:
        return render(request, "compose/fit.html", context, status=422)
    status = 200
    if request.POST.get("action") == "measure":
        if isinstance(request.user, User):
            try:
                return redirect(auditions.ask(person=request.user, base_model=base_model, examples=examples))
            except DomainError as error:
                context["refusal"], status = error.message, error.status
        elif len(text) <= MAX_DRAFT_BYTES:
            typed = {"base_model": base_model.name, "examples_text": text}
            return drafts.sign_in_first(request, "fit", typed, to="have the losses measured")
        else:
            context["refusal"], status = drafts.TOO_LARGE, 403
    fits = fit.rank_modules(examples=examples, base_model=base_model, person=request.user, limit=SHOWN)
    context["fits"] = fits
    context["rows"] = [
        Row(item.adapter, item.value, item.reasons, is_ticked=item.is_supported and number < PICKED)
        for number, item in enumerate(fits.ranked)
    ]
    context["lines"] = as_lines(examples)
    return render(request, "compose/fit.html", context, status=status)


@login_required
@require_safe
def audition_page(request: HttpRequest, audition_id: str) -> HttpResponse:
    """One's own audition: the ranking at once, the losses as they come; its list asks for itself until they are there."""
    audition = auditions.seen_by(request.user, audition_id)
    modules = auditions.modules_of(audition, request.user)
    state = f"{audition.status}-{sum(row.loss is not None or bool(row.problem) for row in modules)}"
    is_fragment = bool(request.htmx)  # type: ignore[attr-defined]
    if is_fragment and "line" in request.GET:  # the line in the compose form
        return render(
            request,
            "compose/_audition_line.html",
            {
                "audition": audition,
                "audition_waits": auditions.waits_for(audition),
                "measured": sum(row.loss is not None for row in modules),
                "total": len(modules),
                "is_poll": True,
            },
        )
    if is_fragment and request.GET.get("seen") == state and not auditions.waits_for(audition):
        return HttpResponse(status=204)  # htmx leaves the page as it is, and asks again
    examples = from_json(audition.examples)
    context: dict[str, Any] = {
        "audition": audition,
        "state": state,
        "waits_for": auditions.waits_for(audition),
        "measured": sum(row.loss is not None for row in modules),
        "rows": _rows(audition, modules, request.GET.getlist("pin") if is_fragment else None),
        "better": len(auditions.helpful(audition, modules, len(modules))),
        "base_name": audition.base_model.name,
        "lines": as_lines(examples),
    }
    if is_fragment:
        return render(request, "compose/_audition.html", context)
    form = _form(request.user, audition.base_model.name, context["lines"])
    return render(request, "compose/fit.html", form | context)


@login_required
@require_POST
def audition_forget(request: HttpRequest, audition_id: str) -> HttpResponse:
    auditions.forget(auditions.seen_by(request.user, audition_id))
    messages.success(request, "Your examples and their losses are removed.")
    return redirect("fit")


def _form(person: Person, base_name: str, text: str) -> dict[str, Any]:
    known, has_more = base_models(person, base_name)
    return {
        "section": "modules",
        "base_models": known,
        "has_more_bases": has_more,
        "base_name": base_name,
        "text": text,
        "limits": settings,
    }


@dataclass(frozen=True)
class Row:
    """One module of the list. `loss` and `problem` only where it was measured; `share` is 0 to 1, for the bar."""

    adapter: Adapter
    fit: float
    reasons: list[str]
    is_ticked: bool
    loss: float | None = None
    problem: str = ""
    is_better: bool = False


def _rows(audition: Audition, modules: list[Auditioned], kept: list[str] | None) -> list[Row]:
    """The modules to show. Ticked is what the person ticked, or, where they left that alone, what is worth composing."""
    by_fit = sorted(modules, key=lambda row: row.position)[:PICKED]
    first = [row.revision.adapter.full_name for row in by_fit if row.fit >= fit.MIN_SHARE]
    helpful = auditions.helpful(audition, modules, PICKED) if audition.is_finished else []
    ticked = set((helpful or first) if kept is None or set(kept) == set(first) else kept)
    return [
        Row(
            adapter=row.revision.adapter,
            fit=row.fit,
            reasons=row.reasons,
            is_ticked=row.revision.adapter.full_name in ticked,
            loss=row.loss,
            problem=row.problem,
            is_better=row.loss is not None
            and audition.base_loss is not None
            and row.loss < audition.base_loss,
        )
        for row in modules
    ]
