"""Reporting an adapter, and what moderators see and do about it."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from registry import moderation
from registry.forms import ReportForm
from registry.models import Adapter, AuditEntry, Report, User
from registry.rights import require_moderator, visible_adapter
from registry.views.people import signed_in
from web.addresses import client_address
from web.errors import DomainError
from web.templatetags.formatting import plural

SHOWN = 100


def adapter_report(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Say that an adapter should not be here; no account is needed."""
    adapter = visible_adapter(request.user, namespace, name)
    form = ReportForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            moderation.report_adapter(
                adapter, reporter=request.user, address=client_address(request), **form.cleaned_data
            )
        except DomainError as error:
            form.add_error(next((key for key in error.fields if key in form.fields), None), error.message)
            return _report_page(request, adapter, form, status=error.status)
        messages.success(request, "Thank you. Somebody will look at it.")
        return redirect(adapter)
    return _report_page(request, adapter, form, status=400 if form.errors else 200)


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
    user = signed_in(request)
    require_moderator(user)
    adapter = visible_adapter(user, namespace, name)
    try:
        done = _act(adapter, user, request.POST.get("action", ""), request.POST.get("reason", ""))
    except DomainError as error:
        return _queue_page(request, refused=adapter, error=error)
    messages.success(request, done)
    return redirect("moderation")


def _act(adapter: Adapter, moderator: User, action: str, reason: str) -> str:
    """Do it; the sentence that says so. Raises DomainError."""
    match action:
        case "quarantine":
            moderation.quarantine(adapter, moderator=moderator, reason=reason)
            return f"{adapter.full_name} is in quarantine."
        case "release":
            moderation.release(adapter, moderator=moderator, note=reason)
            return f"{adapter.full_name} is shown again."
        case "dismiss":
            count = moderation.dismiss(adapter, moderator=moderator, note=reason)
            return f"{plural(count, 'report of it is,reports of it are')} closed; {adapter.full_name} stays as it is."
    raise DomainError("There is no such action.")


def _queue_page(
    request: HttpRequest, *, refused: Adapter | None = None, error: DomainError | None = None
) -> HttpResponse:
    """The queue; with `refused`, the adapter that something could not be done about, beside the words that were sent."""
    waiting = moderation.queue()
    quarantined = Adapter.objects.alive().exclude(quarantined_at=None).select_related("namespace")
    shown = [
        (adapter, [report for report in adapter.reports.all() if report.outcome == Report.Outcome.NONE])
        for adapter in waiting.prefetch_related("reports__reporter")[:SHOWN]
    ]
    context = {
        "waiting": shown,
        "waiting_count": waiting.count(),
        "quarantined": quarantined.order_by("-quarantined_at")[:SHOWN],
        "entries": AuditEntry.objects.filter(action__in=["quarantine", "release", "dismiss reports"])[:30],
        "refused": refused,
        "is_in_queue": refused in [adapter for adapter, _ in shown],
        "error": error.message if error else "",
        "said": request.POST.get("reason", ""),
    }
    return render(request, "registry/moderation.html", context, status=error.status if error else 200)


def _report_page(request: HttpRequest, adapter: Adapter, form: ReportForm, *, status: int) -> HttpResponse:
    context = {"section": "modules", "adapter": adapter, "form": form}
    return render(request, "registry/report.html", context, status=status)
