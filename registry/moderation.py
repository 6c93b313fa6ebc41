"""Keeping the commons clean: reports of anybody, a queue, and quarantine, which hides what it is about and can be undone.

It is about adapters and tasks alike.

Whatever a moderator does is written down for good (`audit`).
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from django.core.cache import cache
from django.db import transaction
from django.db.models import Count, Max, Q, QuerySet
from django.utils import timezone

from registry import audit
from registry.details import BadDetail, check_text
from registry.models import Adapter, Report, Task, User
from registry.rights import Person, hold_account, require_moderator, visible_adapter
from registry.search import visible_task
from web.errors import Conflict, DomainError
from web.templatetags.formatting import plural

logger = logging.getLogger(__name__)
Subject = Adapter | Task

MAX_TEXT = 2000
MAX_REASON = 500
# A person's reports in a day, and those of one address without an account in an hour.
MAX_REPORTS_PER_PERSON = 20
MAX_REPORTS_PER_ADDRESS = 5
_DAY_S, _HOUR_S = 24 * 3600, 3600
_WAITING = Q(reports__outcome=Report.Outcome.NONE)


class TooManyReports(DomainError):
    code = "too_many_reports"
    status = 429

    def __init__(self) -> None:
        super().__init__(
            "That is more reports than one person can mean. Those you sent are being read; come back later."
        )


class ReportedAlready(Conflict):
    code = "reported_already"

    def __init__(self) -> None:
        super().__init__("You have reported this already; it waits for somebody to look at it.")


def report(subject: Subject, *, reporter: Person, address: str, reason: str, text: str = "") -> Report:
    """Tell the people who run the site that an adapter or a task should not be here.

    `address` is the network address of who asks; it is counted and not kept. Raises BadDetail, ReportedAlready,
    TooManyReports, and Forbidden for an account that was deleted or blocked meanwhile.
    """
    if reason not in Report.Reason.values:
        raise BadDetail("reason", "Say what is wrong with it by one of the reasons in the list.")
    text = check_text("text", text.replace("\r\n", " ").replace("\n", " "), limit=MAX_TEXT)
    if reason == Report.Reason.OTHER and not text:
        raise BadDetail("text", "Say in a sentence what is wrong with it.")
    person = reporter if isinstance(reporter, User) else None
    about = {"task": subject} if isinstance(subject, Task) else {"adapter": subject}
    with transaction.atomic():
        waiting = subject.reports.filter(outcome=Report.Outcome.NONE)
        if person is not None:
            hold_account(person)
            if waiting.filter(reporter=person).exists():
                raise ReportedAlready
        _count(person, address)
        return Report.objects.create(**about, reporter=person, reason=reason, text=text)


def queue() -> QuerySet[Adapter]:
    """Adapters with reports that nobody has looked at, most reported first, each with `waiting` and `last_report`."""
    return _reported(Adapter.objects.alive()).select_related("namespace", "base_model")


def task_queue() -> QuerySet[Task]:
    """The same for tasks."""
    return _reported(Task.objects.all()).select_related("owner")


def waiting_count() -> int:
    """How many reports nobody has looked at."""
    return Report.objects.filter(outcome=Report.Outcome.NONE, adapter__deleted_at=None).count()


def _reported(subjects: QuerySet[Any]) -> QuerySet[Any]:
    # By way of the waiting reports, which are few, and not of a million that nobody reported.
    return (
        subjects.filter(_WAITING)
        .annotate(waiting=Count("reports"), last_report=Max("reports__created_at"))
        .order_by("-waiting", "last_report", "pk")
    )


def adapter_to_judge(moderator: User, namespace: str, name: str) -> Adapter:
    """The adapter at `namespace/name` that this moderator decides about. Raises Forbidden, NotFound.

    What they see, and a private one that was reported or is in quarantine: they are shown its name and not what is in it.
    """
    require_moderator(moderator)
    named = Adapter.objects.alive().filter(namespace__name__iexact=namespace, name__iexact=name)
    found = _on_the_queue(named).select_related("namespace").first()
    return found or visible_adapter(moderator, namespace, name)


def task_to_judge(moderator: User, slug: str) -> Task:
    """The same for a task."""
    require_moderator(moderator)
    return _on_the_queue(Task.objects.filter(slug=slug)).first() or visible_task(moderator, slug)


def _on_the_queue(subjects: QuerySet[Any]) -> QuerySet[Any]:
    return subjects.filter(_WAITING | Q(quarantined_at__isnull=False))


def quarantine(subject: Subject, *, moderator: User | None, reason: str) -> None:
    """Hide an adapter or a task from all but its members and freeze it; they are told `reason`. Its waiting reports are
    closed.

    `moderator` None: a command of the machine. Raises Forbidden, BadDetail, Conflict if it is there already.
    """
    if moderator is not None:
        require_moderator(moderator)
    reason = check_text("reason", reason, limit=MAX_REASON)
    if not reason:
        raise BadDetail("reason", "Say what is wrong, and what its owner can do; they read it.")
    with transaction.atomic():
        free = _row(subject).filter(quarantined_at=None)
        if not free.update(quarantined_at=timezone.now(), quarantine_reason=reason):
            raise Conflict(f"{name_of(subject)} is in quarantine already, or was deleted.")
        _close_reports(subject, moderator, Report.Outcome.QUARANTINED)
        audit.record(actor=moderator, action="quarantine", subject=subject, detail=reason)
    subject.refresh_from_db(fields=["quarantined_at", "quarantine_reason"])
    logger.info("quarantined %s by %s", subject, moderator)


def release(subject: Subject, *, moderator: User | None, note: str = "") -> None:
    """Show an adapter or a task again as it was. Raises Forbidden, BadDetail, Conflict if it is not in quarantine."""
    if moderator is not None:
        require_moderator(moderator)
    note = check_text("note", note, limit=MAX_REASON)
    with transaction.atomic():
        held = _row(subject).exclude(quarantined_at=None)
        if not held.update(quarantined_at=None, quarantine_reason=""):
            raise Conflict(f"{name_of(subject)} is not in quarantine.")
        audit.record(actor=moderator, action="release", subject=subject, detail=note)
    subject.refresh_from_db(fields=["quarantined_at", "quarantine_reason"])
    logger.info("released %s by %s", subject, moderator)


def dismiss(subject: Subject, *, moderator: User, note: str = "") -> int:
    """Close the waiting reports of an adapter or a task and leave it as it is. Returns how many. Raises Forbidden, BadDetail."""
    require_moderator(moderator)
    note = check_text("note", note, limit=MAX_REASON)
    with transaction.atomic():
        count = _close_reports(subject, moderator, Report.Outcome.DISMISSED)
        if count:
            detail = f"{plural(count, 'report,reports')}. {note}".strip()
            audit.record(actor=moderator, action="dismiss reports", subject=subject, detail=detail)
    return count


def name_of(subject: Subject) -> str:
    return subject.title if isinstance(subject, Task) else subject.full_name


def _row(subject: Subject) -> QuerySet[Any]:
    if isinstance(subject, Task):
        return Task.objects.filter(pk=subject.pk)
    return Adapter.objects.filter(pk=subject.pk, deleted_at=None)


def _close_reports(subject: Subject, moderator: User | None, outcome: str) -> int:
    waiting = subject.reports.filter(outcome=Report.Outcome.NONE)
    return waiting.update(outcome=outcome, closed_at=timezone.now(), closed_by=moderator)


def _count(person: User | None, address: str) -> None:
    """Raises TooManyReports. A cache that is away counts nothing: a report is never lost for that."""
    if person is not None:
        since = timezone.now() - timedelta(seconds=_DAY_S)
        if Report.objects.filter(reporter=person, created_at__gt=since).count() >= MAX_REPORTS_PER_PERSON:
            raise TooManyReports
        return
    key = f"reports:{address}"
    cache.add(key, 0, _HOUR_S)
    try:
        count = cache.incr(key)
    except ValueError:  # it ran out between the two calls
        return
    if count > MAX_REPORTS_PER_ADDRESS:
        raise TooManyReports
