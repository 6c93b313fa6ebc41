"""Reporting an adapter, and what moderators see and do about it."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from registry import moderation
from registry.forms import ReportForm
from registry.models import Adapter, AuditEntry, Report
from registry.rights import require_moderator, visible_adapter
from registry.views.people import signed_in
from web.addresses import client_address
from web.errors import DomainError

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
    waiting = moderation.queue()
    shown = list(waiting.prefetch_related("reports__reporter")[:SHOWN])
    quarantined = Adapter.objects.alive().exclude(quarantined_at=None).select_related("namespace")
    context = {
        "waiting": [
            (adapter, [report for report in adapter.reports.all() if report.outcome == Report.Outcome.NONE])
            for adapter in shown
        ],
        "waiting_count": waiting.count(),
        "quarantined": quarantined.order_by("-quarantined_at")[:SHOWN],
        "entries": AuditEntry.objects.filter(action__in=["quarantine", "release", "dismiss reports"])[:30],
    }
    return render(request, "registry/moderation.html", context)


@login_required
@require_POST
def adapter_moderate(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Quarantine, release, or dismiss the reports: `action` says which, `reason` why."""
    user = signed_in(request)
    require_moderator(user)
    adapter = visible_adapter(user, namespace, name)
    action, reason = request.POST.get("action"), request.POST.get("reason", "")
    if action == "quarantine":
        moderation.quarantine(adapter, moderator=user, reason=reason)
        messages.success(request, f"{adapter.full_name} is in quarantine.")
    elif action == "release":
        moderation.release(adapter, moderator=user, note=reason)
        messages.success(request, f"{adapter.full_name} is shown again.")
    elif action == "dismiss":
        count = moderation.dismiss(adapter, moderator=user, note=reason)
        messages.success(request, f"{count} reports of {adapter.full_name} are closed.")
    else:
        raise DomainError("There is no such action.")
    return redirect("moderation")


def _report_page(request: HttpRequest, adapter: Adapter, form: ReportForm, *, status: int) -> HttpResponse:
    context = {"section": "modules", "adapter": adapter, "form": form}
    return render(request, "registry/report.html", context, status=status)
