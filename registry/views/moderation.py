"""Reporting an adapter or a task, and what moderators see and do about it."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from registry import moderation, profiles
from registry.forms import ReportForm
from registry.models import Adapter, AuditEntry, Namespace, Report, Task, User
from registry.moderation import Subject
from registry.rights import require_moderator, visible_adapter
from registry.search import visible_task
from registry.views.people import signed_in
from web.addresses import client_address
from web.errors import DomainError
from web.refusals import show_refusal
from web.templatetags.formatting import plural

SHOWN = 100
ACTS = ("quarantine", "release", "dismiss reports", "blank profile")


def adapter_report(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Say that an adapter should not be here; no account is needed."""
    return _report(request, visible_adapter(request.user, namespace, name), section="modules")


def task_report(request: HttpRequest, slug: str) -> HttpResponse:
    """Say that a task should not be here; no account is needed."""
    return _report(request, visible_task(request.user, slug), section="tasks")


def _report(request: HttpRequest, subject: Subject, *, section: str) -> HttpResponse:
    form = ReportForm(request.POST or None)
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            moderation.report(
                subject, reporter=request.user, address=client_address(request), **form.cleaned_data
            )
        except DomainError as error:
            show_refusal(form, error)
            status = error.status
        else:
            messages.success(request, "Thank you. Somebody will look at it.")
            return redirect(subject)
    elif form.errors:
        status = 400
    context = {
        "section": section,
        "subject": subject,
        "name": moderation.name_of(subject),
        "is_task": isinstance(subject, Task),
        "where": "What you saw, and where. "
        + (
            "A row, the description."
            if isinstance(subject, Task)
            else "A file, a line of the card, an address."
        ),
        "form": form,
    }
    return render(request, "registry/report.html", context, status=status)


@require_safe
@login_required
def moderation_queue(request: HttpRequest) -> HttpResponse:
    """What was reported, what is in quarantine, and what was done lately."""
    require_moderator(request.user)
    return _queue_page(request)


@login_required
@require_POST
def adapter_moderate(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Quarantine, release, or dismiss the reports: `action` says which, `reason` why."""
    return _moderate(request, moderation.adapter_to_judge(signed_in(request), namespace, name))


@login_required
@require_POST
def task_moderate(request: HttpRequest, slug: str) -> HttpResponse:
    """The same for a task."""
    return _moderate(request, moderation.task_to_judge(signed_in(request), slug))


@login_required
@require_POST
def profile_blank(request: HttpRequest, namespace: str) -> HttpResponse:
    """Remove what a person or an organisation says of itself."""
    require_moderator(request.user)
    owner = get_object_or_404(Namespace, name__iexact=namespace, deleted_at=None)
    profiles.blank(owner, moderator=signed_in(request), reason=request.POST.get("reason", ""))
    messages.success(request, f"{owner.name} says nothing of itself now.")
    return redirect(owner)


def _moderate(request: HttpRequest, subject: Subject) -> HttpResponse:
    action, reason = request.POST.get("action", ""), request.POST.get("reason", "")
    try:
        done = _act(subject, signed_in(request), action, reason)
    except DomainError as error:
        return _queue_page(request, refused=subject, error=error)
    messages.success(request, done)
    return redirect("moderation")


def _act(subject: Subject, moderator: User, action: str, reason: str) -> str:
    """Do it; the sentence that says so. Raises DomainError."""
    name = moderation.name_of(subject)
    match action:
        case "quarantine":
            moderation.quarantine(subject, moderator=moderator, reason=reason)
            return f"{name} is in quarantine."
        case "release":
            moderation.release(subject, moderator=moderator, note=reason)
            return f"{name} is shown again."
        case "dismiss":
            count = moderation.dismiss(subject, moderator=moderator, note=reason)
            return f"{plural(count, 'report of it is,reports of it are')} closed; {name} stays as it is."
    raise DomainError("There is no such action.")


def _queue_page(
    request: HttpRequest, *, refused: Subject | None = None, error: DomainError | None = None
) -> HttpResponse:
    """The queue; with `refused`, what something could not be done about, beside the words that were sent."""
    queues = (moderation.queue(), moderation.task_queue())
    waiting = [
        _Item.of(subject)
        for queue in queues
        for subject in queue.prefetch_related("reports__reporter")[:SHOWN]
    ]
    held = Adapter.objects.alive().exclude(quarantined_at=None).select_related("namespace")
    held_tasks = Task.objects.exclude(quarantined_at=None)
    quarantined = [
        _Item.of(subject)
        for subjects in (held, held_tasks)
        for subject in subjects.order_by("-quarantined_at")[:SHOWN]
    ]
    context = {
        "waiting": waiting,
        "waiting_count": sum(queue.count() for queue in queues),
        "quarantined": quarantined,
        "entries": AuditEntry.objects.filter(action__in=ACTS)[:30],
        "refused": refused,
        "is_in_queue": refused in [item.subject for item in waiting],
        "error": error.message if error else "",
        "said": request.POST.get("reason", ""),
    }
    return render(request, "registry/moderation.html", context, status=error.status if error else 200)


@dataclass(frozen=True)
class _Item:
    """Something on the moderators' page: an adapter or a task, and where its forms go."""

    subject: Subject
    name: str
    key: str
    action: str
    is_task: bool

    @classmethod
    def of(cls, subject: Subject) -> _Item:
        is_task = isinstance(subject, Task)
        if isinstance(subject, Task):
            action = reverse("task_moderate", args=[subject.slug])
        else:
            action = reverse("adapter_moderate", args=[subject.namespace.name, subject.name])
        key = f"{'task' if is_task else 'adapter'}-{subject.pk}"
        return cls(subject, moderation.name_of(subject), key, action, is_task)

    @property
    def reports(self) -> list[Report]:
        return [report for report in self.subject.reports.all() if report.outcome == Report.Outcome.NONE]

    @property
    def is_private(self) -> bool:
        return self.subject.is_private
