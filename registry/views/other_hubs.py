"""Pages for importing from and pushing to other Hubs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db.models import Case, When
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from registry import hub_jobs, import_jobs, push_jobs
from registry.models import ImportJob, PushJob
from registry.other_hub_forms import ImportForm, PushForm
from registry.rights import writable_adapter, writable_namespace
from registry.views.people import signed_in
from web.errors import DomainError
from web.pagination import paginate
from web.refusals import show_refusal

PAGE = 30
SHOWN_ITEMS = 200
_NEWEST = ("-created_at", "-id")
_RECENT = 5
# What a link to the form may fill in, such as “Import again”: all but the token.
_ASKED = ("sources", "endpoint", "namespace", "name", "revision", "visibility")
_STAGES = {
    "": "Waiting for a worker",
    "repository": "Making the repository",
    "sending": "Sending the files",
    "commit": "Writing the commit",
}


# --- Imports -----------------------------------------------------------------------------------------------------


@sensitive_post_parameters("token")
@login_required
@never_cache
def import_new(request: HttpRequest) -> HttpResponse:
    """The form; what it asks for becomes a job."""
    user = signed_in(request)
    asked = {name: request.GET[name] for name in _ASKED if name in request.GET}
    form = ImportForm(request.POST or None, user=user, initial=asked)
    status = 400
    if request.method == "POST" and form.is_valid():
        wanted = dict(form.cleaned_data)
        try:
            namespace = writable_namespace(user, wanted.pop("namespace"))
            job = import_jobs.request_import(owner=user, namespace=namespace, **wanted)
        except DomainError as error:
            show_refusal(form, error)
            status = error.status
        else:
            return redirect(job)
    context = {
        "form": form,
        "recent": _with_counts(ImportJob.objects.filter(owner=user).select_related("namespace")[:_RECENT]),
    }
    return render(request, "registry/import.html", context, status=status if form.errors else 200)


@require_safe
@login_required
def imports(request: HttpRequest) -> HttpResponse:
    """A person's imports, newest first."""
    rows = ImportJob.objects.filter(owner=signed_in(request)).select_related("namespace")
    page = paginate(rows, order=_NEWEST, cursor=request.GET.get("cursor"), size=PAGE)
    context = {"rows": _with_counts(page.items), "next_cursor": page.next_cursor}
    return render(request, "registry/imports.html", context)


@require_safe
@login_required
def import_detail(request: HttpRequest, id: str) -> HttpResponse:
    job = hub_jobs.own_job(ImportJob, signed_in(request), id)
    return render(request, "registry/import_detail.html", _import_context(job))


@require_safe
@login_required
def import_progress(request: HttpRequest, id: str) -> HttpResponse:
    """The part of an import's page that changes while it runs."""
    job = hub_jobs.own_job(ImportJob, signed_in(request), id)
    return render(request, "registry/_import_progress.html", _import_context(job))


@login_required
@require_POST
def import_cancel(request: HttpRequest, id: str) -> HttpResponse:
    job = hub_jobs.own_job(ImportJob, signed_in(request), id)
    import_jobs.cancel(job)
    return redirect(job)


def _import_context(job: ImportJob) -> dict[str, Any]:
    counts = import_jobs.counts(job)
    done = counts["total"] - counts["waiting"] - counts["fetching"]
    # What is at work and what went wrong stands first: those are the rows that somebody looks for.
    first = Case(When(status="fetching", then=0), When(status="failed", then=1), default=2)
    items = list(job.items.select_related("adapter__namespace").order_by(first, "position")[:SHOWN_ITEMS])
    return {
        "job": job,
        "counts": counts,
        "done": done,
        "items": items,
        "hidden": counts["total"] - len(items),
        "elapsed_s": _elapsed_s(job),
        "again": "\n".join(job.sources),
        "said": f"{done} of {counts['total']}" if job.is_expanded else job.status,
    }


def _with_counts(jobs: Iterable[ImportJob]) -> list[tuple[ImportJob, dict[str, int]]]:
    jobs = list(jobs)
    counts = import_jobs.counts_of(jobs)
    return [(job, counts[job.pk]) for job in jobs]


# --- Pushes ------------------------------------------------------------------------------------------------------


@sensitive_post_parameters("token")
@login_required
@never_cache
def push_new(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """The form to publish an adapter on another Hub too."""
    user = signed_in(request)
    adapter = writable_adapter(user, namespace, name)
    initial = {"target": adapter.name, "visibility": adapter.visibility}
    form = PushForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            if adapter.head is None:
                raise push_jobs.PushFailed(f"{adapter.full_name} has no files yet.")
            job = push_jobs.request_push(
                owner=user, adapter=adapter, revision=adapter.head, **form.cleaned_data
            )
        except DomainError as error:
            show_refusal(form, error)
        else:
            return redirect(job)
    context = {
        "form": form,
        "adapter": adapter,
        "pushes": PushJob.objects.filter(owner=user, adapter=adapter).select_related("revision")[:10],
        "hours": settings.HUB_TOKEN_KEPT_S // 3600,
    }
    return render(request, "registry/push.html", context, status=400 if form.errors else 200)


@require_safe
@login_required
def pushes(request: HttpRequest) -> HttpResponse:
    """A person's pushes, newest first."""
    rows = PushJob.objects.filter(owner=signed_in(request))
    rows = rows.select_related("adapter__namespace", "revision")
    page = paginate(rows, order=_NEWEST, cursor=request.GET.get("cursor"), size=PAGE)
    context = {"rows": page.items, "next_cursor": page.next_cursor}
    return render(request, "registry/pushes.html", context)


@require_safe
@login_required
def push_detail(request: HttpRequest, id: str) -> HttpResponse:
    return render(request, "registry/push_detail.html", _push_context(request, id))


@require_safe
@login_required
def push_progress(request: HttpRequest, id: str) -> HttpResponse:
    """The part of a push's page that changes while it runs."""
    return render(request, "registry/_push_progress.html", _push_context(request, id))


@login_required
@require_POST
def push_cancel(request: HttpRequest, id: str) -> HttpResponse:
    job = hub_jobs.own_job(PushJob, signed_in(request), id)
    hub_jobs.cancel(job)
    return redirect(job)


def _push_context(request: HttpRequest, id: str) -> dict[str, Any]:
    job = hub_jobs.own_job(PushJob, signed_in(request), id)
    return {"job": job, "elapsed_s": _elapsed_s(job), "stage": _STAGES.get(job.stage, job.stage)}


def _elapsed_s(job: ImportJob | PushJob) -> float | None:
    if job.started_at is None:
        return None
    return ((job.finished_at or timezone.now()) - job.started_at).total_seconds()
