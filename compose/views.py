"""Pages about composing: doors that parse, call one domain function, and answer."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import replace

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Case, Value, When
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from compose import (
    auditions,
    candidates,
    drafts,
    job_page,
    jobs,
    leaderboards,
    naming,
    picking,
    publishing,
    recipes,
    status_page,
)
from compose import examples as few_shot
from compose.engine.metrics import plain
from compose.errors import NoSuchAudition
from compose.forms import (
    ComposeForm,
    GivenExamples,
    PublishForm,
    base_models,
    names_in,
    read_examples,
    read_test_examples,
)
from compose.models import Audition, Composition
from compose.predictions import predictions_csv
from compose.result_views import key_query
from compose.token_counts import count_tokens
from registry import moderation, organisations, search
from registry.idempotency import once
from registry.models import Adapter, BaseModel, User
from registry.rights import may_moderate
from registry.search import tasks_shown_to
from registry.snippets import snippets_for
from registry.views.people import signed_in
from web.errors import DomainError, SignedOut
from web.pagination import paginate
from web.refusals import show_refusal

TASKS_SHOWN = 8
PAGE = 30
INVITATIONS_SHOWN = 3  # on the start page: anybody may ask anybody to join


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    visible = Adapter.objects.visible_to(request.user)
    newest = visible.select_related("namespace", "base_model", "task").newest_first()
    held_out = tasks_shown_to(request.user).held_out()
    gains = leaderboards.best_gains(Composition.objects.visible_to(None), limit=4)
    to_try = list(held_out.select_related("base_model").order_by("slug")[: 4 if gains else 6])
    leaderboards.show_best(to_try, request.user)
    person = request.user
    return render(
        request,
        "home.html",
        {
            "newest": newest.listed().filter(kind=Adapter.Kind.MODULE)[:6],
            "gains": gains,
            "shown_tasks": to_try,
            "counts": search.kinds(person=request.user),
            "task_count": held_out.count(),
            "invitations": organisations.invitations_for(person)[:INVITATIONS_SHOWN]
            if isinstance(person, User)
            else (),
            "waiting_reports": moderation.waiting_count() if may_moderate(person) else 0,
            "placeholder": "They saw red hats.\t[red]\nThey carried two blue pens.\t[blue]",
        },
    )


# --- Asking for a composition --------------------------------------------------------------------------------


def compose(request: HttpRequest) -> HttpResponse:
    """The form. Whatever is refused stays as it was typed; only the last step needs an account."""
    if request.method != "POST":
        return _render_form(request, _fresh_form(request))
    form = ComposeForm(request.POST, request.FILES, person=request.user)
    action = request.POST.get("action", "compose")
    if action == "refresh":  # without scripts: another base model, another filter, the order by the examples
        return _render_form(request, _unchecked(form), is_ranked=True)
    if not form.is_valid():
        return _render_form(request, form, status=422)
    if not request.user.is_authenticated:
        return _sign_in_first(request, form)
    if action == "check":
        return _render_form(request, form, check=jobs.dry_run(form.request(request.user)))
    try:
        origin = request.build_absolute_uri("/")[:-1]
        wanted = form.request(request.user, origin=origin)
        made = once(request.user, request.POST, request.FILES, lambda: _planned(wanted))
    except DomainError as error:
        form.refuse(error)
        return _render_form(request, form, status=error.status)
    return redirect("composition", made)


def _planned(wanted: jobs.CompositionRequest) -> Callable[[], str]:
    """What queues it; all that takes long is done before."""
    plan = jobs.plan_for(wanted)
    return lambda: jobs.request_composition(wanted, plan).pk


def _fresh_form(request: HttpRequest) -> ComposeForm:
    """Empty, or filled from a draft, a task to try, or an earlier composition of this person."""
    draft = drafts.kept(request, "compose")
    if draft is not None:
        return ComposeForm.from_draft(draft, person=request.user)
    if "again" in request.GET:
        earlier = jobs.visible_composition(request.user, request.GET["again"])
        jobs.require_owner(earlier, request.user)
        return ComposeForm.again(earlier, person=request.user)
    initial = {}
    if request.GET.get("base_model"):
        initial["base_model"] = request.GET["base_model"]
    if request.GET.get("task"):
        held_out = tasks_shown_to(request.user).held_out().select_related("base_model")
        task = get_object_or_404(held_out, slug=request.GET["task"])
        return ComposeForm.for_task(task, person=request.user, **initial)
    # Somebody came with a module: one alone is no composition, so it is pinned and the others are chosen.
    return ComposeForm(person=request.user, initial=initial, pinned=request.GET.getlist("pick"))


def _unchecked(form: ComposeForm) -> ComposeForm:
    """The same inputs without what is wrong with them: the person is not done yet."""
    draft = form.as_draft()
    if not draft:
        return form
    unchecked = ComposeForm.from_draft(draft, person=form.person)
    if unchecked.given.text:  # it could not be read, so that no row is there to say what is missing
        text_alone = QueryDict(mutable=True)
        text_alone["examples_text"] = unchecked.given.text
        unchecked.given.problems = read_examples(text_alone, {}).problems
    return unchecked


def _sign_in_first(request: HttpRequest, form: ComposeForm) -> HttpResponse:
    draft = form.as_draft()
    if draft is None:
        form.add_error(None, drafts.TOO_LARGE)
        return _render_form(request, form, status=403)
    return drafts.sign_in_first(request, "compose", draft, to="compose")


def _render_form(
    request: HttpRequest,
    form: ComposeForm,
    *,
    check: dict | None = None,
    status: int = 200,
    is_ranked: bool = False,
) -> HttpResponse:
    chosen = str(form["base_model"].value() or "")
    models, has_more_bases = base_models(request.user, chosen)
    base_model = next((model for model in models if model.name == chosen), models[0] if models else None)
    # A link, a task or an earlier composition may be for one that nothing can be composed for now.
    missing_base = "" if form.is_bound or (base_model and base_model.name == chosen) else chosen
    asked_for = str(form["task"].value() or "").replace("\x00", "")
    is_chosen = Case(When(slug=asked_for, then=Value(0)), default=Value(1))
    held_out = tasks_shown_to(request.user).held_out().select_related("base_model")
    to_try = list(held_out.order_by(is_chosen, "slug")[: TASKS_SHOWN + 1])
    return render(
        request,
        "compose/compose_form.html",
        {
            "form": form,
            "form_token": secrets.token_hex(16),  # a double click sends the same one: idempotency.once
            "section": "compose",
            "base_models": models,
            "has_more_bases": has_more_bases,
            "base_model": base_model,
            "missing_base": missing_base,
            "check": check,
            "refused": check is not None and not check["ok"],
            "summary": _summary(
                form.given if form.given.examples else _complete(form.given),
                form.test_given.examples,
                base_model,
                form["seed"].value(),
            ),
            "can_mail": request.user.is_authenticated and jobs.can_mail(request.user),
            "tasks": to_try[:TASKS_SHOWN],
            "has_more_tasks": len(to_try) > TASKS_SHOWN,
            "chosen_task": next((task for task in to_try[:1] if task.slug == asked_for), None),
            "limits": settings,
            "usual_budgets": [
                (Composition.Method(name).label, usual) for name, usual in jobs.USUAL_BUDGETS.items()
            ],
            "split_at": few_shot.MIN_ROWS_TO_SPLIT,
            "estimate": _estimate(base_model, form["method"].value(), form["budget"].value()),
            **picking.pickable(
                base_model,
                getattr(base_model, "modules", 0),
                request.user,
                form.picked,
                form.pinned,
                form.excluded,
                words=_filter(request),
                examples=_complete(form.given).examples if is_ranked else [],
                audition=_audition(request, base_model, [])[0],
            ),
        },
        status=status,
    )


def _complete(given: GivenExamples) -> GivenExamples:
    """The rows that have both an input and an output, of a form that nobody has sent yet."""
    rows = [(number, row) for number, row in enumerate(given.rows, 1) if all(row)]
    return replace(
        given,
        examples=[few_shot.Example(*row) for _, row in rows],
        numbers=[str(number) for number, _ in rows],
    )


def _summary(
    of: GivenExamples, tests: list[few_shot.Example], base_model: BaseModel | None, seed: object
) -> dict[str, object]:
    """What the live line under the examples says."""
    given = of.examples
    answers: dict[str, str] = {}  # spelt as they are first
    for example in given:
        answers.setdefault(plain(example.output), example.output.strip())
    closed = sorted(answers.values()) if 1 < len(answers) <= 5 and len(given) >= 2 * len(answers) else []
    known_seed = int(str(seed)) if re.fullmatch(r"[0-9]{1,10}", str(seed)) else jobs.DEFAULT_SEED
    _, held_out, note = few_shot.split(given, seed=known_seed) if given else ([], [], "")
    tokens = count_tokens(base_model, given)
    return {
        "count": len(given),
        "tokens": tokens,
        "too_long": [of.numbers[number - 1] for number in tokens.too_long] if tokens else [],
        "problems": of.problems,
        "warnings": few_shot.warnings(given, tests, numbers=of.numbers) + (tokens.warnings if tokens else []),
        "closed_answers": closed,
        "held_out": len(held_out),
        "searched": len(given) - len(held_out),
        "search_share": round(100 * (len(given) - len(held_out)) / len(given)) if given else 0,
        "score_share": round(100 * len(held_out) / len(given)) if given else 0,
        "note": note,
        "longest": max((len(example.input.split()) for example in given), default=0),
    }


def _estimate(base_model: BaseModel | None, method: object, budget: object) -> dict[str, object] | None:
    known = str(method) if str(method) in Composition.Method.values else jobs.DEFAULT_METHOD
    budget = budget or jobs.usual_budget(known)
    if base_model is None or not re.fullmatch(r"[1-9][0-9]{0,5}", str(budget)):
        return None
    waiting = Composition.objects.filter(status=Composition.Status.QUEUED).count()
    return jobs.estimate(base_model, known, int(str(budget))) | {"waiting": waiting}


@require_POST
def check_examples(request: HttpRequest) -> HttpResponse:
    """The live line under the examples: counts, mistakes, the split, the estimate."""
    given = read_examples(request.POST, request.FILES, is_live=True)
    tests = read_test_examples(request.POST, request.FILES)
    base_model = BaseModel.objects.named(request.POST.get("base_model", "").replace("\x00", ""))
    return render(
        request,
        "compose/_examples_check.html",
        {
            "summary": _summary(given, tests.examples, base_model, request.POST.get("seed")),
            "test_count": len(tests.examples),
            "test_problems": tests.problems,
            "has_task": bool(request.POST.get("task")),
            "estimate": _estimate(base_model, request.POST.get("method"), request.POST.get("budget")),
            "is_live": True,
        },
    )


@require_http_methods(["GET", "HEAD", "POST"])
def pick_candidates(request: HttpRequest) -> HttpResponse:
    """The modules that fit a base model, to pick from; those already picked come first.

    A POST brings the form's examples, and what most speaks for comes before the rest, with the reasons. With
    `measure` it also asks a free worker for the loss of each, which `audition` then names.
    """
    given = request.POST if request.method == "POST" else request.GET
    base_model = BaseModel.objects.named(given.get("base_model", "").replace("\x00", ""))
    marked = (names_in(given, mark) for mark in ("pick", "pin", "exclude"))
    examples = read_examples(request.POST, request.FILES).examples if request.method == "POST" else []
    audition, refusal = _audition(request, base_model, examples)
    total = search.families(person=request.user).get(base_model.pk, 0) if base_model else 0
    context = picking.pickable(
        base_model,
        total,
        request.user,
        *marked,
        words=_filter(request),
        examples=examples,
        audition=audition,
    )
    return render(
        request, "compose/_candidates.html", {"base_model": base_model, "refusal": refusal, **context}
    )


def _audition(
    request: HttpRequest, base_model: BaseModel | None, examples: list[few_shot.Example]
) -> tuple[Audition | None, str]:
    """The audition that the form asks for or names, if it is of this base model; and why one was refused."""
    if base_model is None:
        return None, ""
    if not isinstance(request.user, User):
        is_asked = bool(request.POST.get("measure"))  # on a page from before the session ended
        return None, SignedOut().message if is_asked else ""
    try:
        if request.POST.get("measure"):
            return auditions.ask(person=request.user, base_model=base_model, examples=examples), ""
        named = request.POST.get("audition", "").replace("\x00", "")
        if not named:
            return None, ""
        found = auditions.seen_by(request.user, named)
    except NoSuchAudition:
        return None, ""
    except DomainError as error:
        return None, error.message
    return (found, "") if found.base_model_id == base_model.pk else (None, "")


def _filter(request: HttpRequest) -> str:
    return (request.POST.get("filter") or request.GET.get("filter") or "").replace("\x00", " ").strip()[:100]


# --- One composition ---------------------------------------------------------------------------------------------


@login_required
@require_safe
def compositions(request: HttpRequest) -> HttpResponse:
    """My own, newest first."""
    mine = (
        Composition.objects.filter(owner_id=request.user.pk)
        .select_related("base_model")
        .prefetch_related("scores", "candidates", naming.published(request.user))
        .defer("examples", "test_examples", "predictions", "result")
    )
    page = paginate(mine, order=("-created_at", "-id"), cursor=request.GET.get("cursor"), size=PAGE)
    rows = [
        (composition, leaderboards.gain_of(composition), leaderboards.estimate_of(composition))
        for composition in page.items
    ]
    return render(
        request,
        "compose/compositions.html",
        {"rows": rows, "next_cursor": page.next_cursor, "section": "compose"},
    )


@require_safe
def composition(request: HttpRequest, composition_id: str) -> HttpResponse:
    return render(
        request, "compose/composition_detail.html", _detail(request, _seen(request, composition_id))
    )


def _seen(request: HttpRequest, composition_id: str, *, without: tuple[str, ...] = ()) -> Composition:
    """A composition that this person may see, or whose link they were given. Raises NoSuchComposition."""
    key = request.GET.get("key", "")
    return jobs.visible_composition(request.user, composition_id, key=key, without=without)


@require_safe
def progress(request: HttpRequest, composition_id: str) -> HttpResponse:
    """The fragment that an unfinished composition's page asks for again and again."""
    # Asked for every second, so what may be large and is not shown stays in the database.
    found = _seen(request, composition_id, without=("test_examples", "predictions"))
    return render(request, "compose/_composition.html", _detail(request, found) | {"is_poll": True})


def _detail(request: HttpRequest, found: Composition, form: PublishForm | None = None) -> dict[str, object]:
    page = job_page.job_page(found, request.user, shows_all=request.GET.get("show") == "all")
    can_publish = page.is_owner and found.status == Composition.Status.SUCCEEDED and found.adapter is None
    if can_publish and form is None:
        form = PublishForm(person=request.user, initial={"name": _suggested_name(found)})
    origin = f"{request.scheme}://{request.get_host()}"
    return {
        "composition": found,
        "page": page,
        "publish_form": form if can_publish else None,
        "section": "compose",
        "origin": origin,
        "use": _use(page.adapter, origin),
        "key_query": key_query(request, found),
    }


def _use(adapter: Adapter | None, origin: str) -> str:
    """Python that fetches the published adapter from here and runs; "" where there is none."""
    if adapter is None or adapter.head is None or adapter.deleted_at is not None:
        return ""
    return snippets_for(adapter, adapter.head, site=origin)[0].text


def _suggested_name(found: Composition) -> str:
    is_told = found.task is not None and not found.task.is_private  # everybody reads an adapter's name
    slug = found.task.slug if found.task and is_told else "-".join(found.title.lower().split()[:6])
    kept = "".join(letter for letter in slug if letter.isascii() and (letter.isalnum() or letter in "-_"))
    return "-".join(part for part in f"{kept[:60]}-composed".split("-") if part)


@login_required
@require_POST
def stop(request: HttpRequest, composition_id: str) -> HttpResponse:
    found = jobs.visible_composition(request.user, composition_id)
    jobs.stop(found, request.user)
    return redirect(found)


@login_required
@require_POST
def cancel(request: HttpRequest, composition_id: str) -> HttpResponse:
    found = jobs.visible_composition(request.user, composition_id)
    jobs.cancel(found, request.user)
    return redirect(found)


@login_required
@require_POST
def publish(request: HttpRequest, composition_id: str) -> HttpResponse:
    found = jobs.visible_composition(request.user, composition_id)
    jobs.require_owner(found, request.user)
    actor = signed_in(request)
    form = PublishForm(request.POST, person=actor)
    if form.is_valid():
        try:
            adapter = publishing.publish_composition(found, actor=actor, **form.cleaned_data)
        except DomainError as error:
            show_refusal(form, error)
        else:
            messages.success(request, f"Published as {adapter.full_name}.")
            return redirect(adapter)
    return render(request, "compose/composition_detail.html", _detail(request, found, form), status=422)


@require_safe
def recipe(request: HttpRequest, composition_id: str) -> HttpResponse:
    """The JSON that rebuilds the adapter byte for byte from the same revisions."""
    found = _seen(request, composition_id)
    text = json.dumps(recipes.recipe_for(found, request.user), indent=2, ensure_ascii=False)
    return _attachment(text, "application/json", f"recipe-{found.pk}.json")


@require_safe
def trials(request: HttpRequest, composition_id: str) -> HttpResponse:
    found = _seen(request, composition_id)
    modules = found.candidates.select_related("revision__adapter__namespace")
    offered = modules.defer("revision__facts", "revision__warnings")
    named = naming.named_in(found, request.user)
    revisions = [candidate.revision for candidate in offered]
    names = [
        name if revision.adapter_id in named else None
        for name, revision in zip(candidates.names(revisions), revisions, strict=True)
    ]
    return JsonResponse(job_page.trials_json(found.trials.all(), names))


@require_safe
def predictions(request: HttpRequest, composition_id: str) -> HttpResponse:
    """Answers of every method on the shown rows; they hold the owner's examples, so they are the owner's alone."""
    found = jobs.visible_composition(request.user, composition_id)
    jobs.require_owner(found, request.user)
    return _attachment(predictions_csv(found), "text/csv", f"predictions-{found.pk}.csv")


def _attachment(text: str, content_type: str, filename: str) -> HttpResponse:
    return HttpResponse(
        text,
        content_type=f"{content_type}; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{filename}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


# --- Status ------------------------------------------------------------------------------------


@require_safe
def status(request: HttpRequest) -> HttpResponse:
    return render(request, "compose/status.html", {"status": status_page.site_status()})
