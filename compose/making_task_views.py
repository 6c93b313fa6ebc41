"""Pages on which people make a task, change it, give it new rows and delete it."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from compose import making_tasks
from compose.making_tasks import Division
from compose.task_forms import NewTaskForm, RowFields, TaskForm
from registry.idempotency import once
from registry.models import Task
from registry.rights import require_change_task, writable_namespace
from registry.search import tasks_shown_to, visible_task
from registry.views.people import signed_in
from web.errors import DomainError
from web.refusals import show_refusal

ALIKE_SHOWN = 3
NOW_PUBLIC = " The task is public: everybody sees its name, its shown rows and its leaderboard."


@login_required
def task_new(request: HttpRequest) -> HttpResponse:
    """A new task: first a preview of what its rows come to, then the task."""
    user = signed_in(request)
    if request.method != "POST":
        return _new_page(request, NewTaskForm(user=user))
    form = NewTaskForm(request.POST, request.FILES, user=user)
    division = form.divide(base_model=form.cleaned_data.get("base_model")) if form.is_valid() else None
    if division is None:
        return _new_page(request, form, status=400)
    try:
        making_tasks.check_said(
            {name: said for name, said in form.said().items() if name in making_tasks.LIMITS}
        )
        if _is_confirmed(request, division):
            return redirect("task", slug=_make(request, form, division))
    except DomainError as error:
        show_refusal(form, error)
        return _new_page(request, form, status=error.status)
    return _new_page(request, form, division)


def _make(request: HttpRequest, form: NewTaskForm, division: Division) -> str:
    """The new task's slug; of a form that was just sent, that of the task made then."""
    user = signed_in(request)

    def make() -> str:
        namespace = writable_namespace(user, form.cleaned_data["namespace"])
        task = making_tasks.create_task(actor=user, namespace=namespace, rows=division, **form.said())
        seen = " Only members of its namespace see it." if task.is_private else ""
        messages.success(request, f"{task.title} is there.{seen} Compose for it, to set the score to beat.")
        return task.slug

    return once(user, request.POST, request.FILES, lambda: make)


def _new_page(
    request: HttpRequest, form: NewTaskForm, division: Division | None = None, *, status: int = 200
) -> HttpResponse:
    title = form["title"].value() or ""
    alike = (
        tasks_shown_to(request.user).filter(title__iexact=title.strip()) if division else Task.objects.none()
    )
    context = _about_rows(form, division) | {"alike": alike[:ALIKE_SHOWN], "metric": form["metric"].value()}
    return render(request, "tasks/task_new.html", context, status=status)


@login_required
def task_edit(request: HttpRequest, slug: str) -> HttpResponse:
    """What is said about a task; its rows stay as they are."""
    user = signed_in(request)
    task = visible_task(user, slug)
    require_change_task(user, task)
    form = (
        TaskForm(request.POST, task=task, user=user)
        if request.method == "POST"
        else TaskForm.of(task, user=user)
    )
    status = 400 if form.errors else 200
    if request.method == "POST" and form.is_valid():
        try:
            was_private = task.is_private
            making_tasks.change_task(task, actor=user, **form.said())
        except DomainError as error:
            show_refusal(form, error)
            status = error.status
        else:
            is_shown_now = was_private and not task.is_private
            messages.success(request, f"Saved.{NOW_PUBLIC if is_shown_now else ''}")
            return redirect(task)
    return _edit_page(request, task, form, status=status)


@login_required
@require_POST
def task_delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Delete a task that nobody has used, once its slug has been typed."""
    task = visible_task(request.user, slug)
    require_change_task(request.user, task)
    typed, problem = request.POST.get("confirm", "").strip(), f"Type {task.slug} to delete it."
    status = 400
    if typed == task.slug:
        try:
            making_tasks.delete_task(task, actor=signed_in(request))
        except DomainError as error:
            problem, status = error.message, error.status
        else:
            messages.success(request, f"{task.title} is deleted.")
            return redirect("tasks")
    said = {"typed": typed, "delete_error": problem}
    form = TaskForm.of(task, user=signed_in(request))
    return _edit_page(request, visible_task(request.user, slug), form, said, status=status)


def _edit_page(
    request: HttpRequest, task: Task, form: TaskForm, said: dict[str, str] | None = None, *, status: int
) -> HttpResponse:
    context = {"section": "tasks", "task": task, "form": form, **(said or {})}
    return render(request, "tasks/task_edit.html", context, status=status)


@login_required
def task_rows(request: HttpRequest, slug: str) -> HttpResponse:
    """New rows for a task, its next revision: first a preview, then the revision."""
    task = visible_task(request.user, slug)
    making_tasks.require_takes_rows(task, signed_in(request))
    if request.method != "POST":
        return _rows_page(request, task, RowFields())
    form = RowFields(request.POST, request.FILES)
    division = form.divide(base_model=task.base_model, task=task) if form.is_valid() else None
    if division is None:
        return _rows_page(request, task, form, status=400)
    if not _is_confirmed(request, division):
        return _rows_page(request, task, form, division)
    try:
        revision = making_tasks.new_rows(task, actor=signed_in(request), rows=division)
    except DomainError as error:
        show_refusal(form, error)
        return _rows_page(request, task, form, status=error.status)
    messages.success(
        request,
        f"{task.title} has revision {revision.number}. Its leaderboard begins empty; the scores before are kept with theirs.",
    )
    return redirect(task)


def _rows_page(
    request: HttpRequest, task: Task, form: RowFields, division: Division | None = None, *, status: int = 200
) -> HttpResponse:
    newest = task.revisions.order_by("-number").defer("few_shot", "test").first()
    context = _about_rows(form, division) | {"task": task, "newest": newest, "metric": task.metric}
    return render(request, "tasks/task_rows.html", context, status=status)


def _about_rows(form: RowFields, division: Division | None) -> dict[str, Any]:
    return {
        "section": "tasks",
        "form": form,
        "form_token": secrets.token_hex(16),  # a double click sends the same one: idempotency.once
        "division": division,
        "limits": settings,
    }


def _is_confirmed(request: HttpRequest, division: Division) -> bool:
    """Whether the person has seen these very rows divided like this, and wants them."""
    return request.POST.get("action") == "store" and request.POST.get("previewed") == division.sha256
