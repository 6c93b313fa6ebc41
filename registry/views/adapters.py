"""The page of one adapter, its files, and what its owners do with it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from registry import (
    download_days,
    downloads,
    following,
    moving,
    publishing,
    search,
    snippets,
    storage,
    weight_pictures,
)
from registry.filenames import CARD
from registry.forms import AdapterForm, LicenceFields, MoveForm
from registry.models import Adapter, Revision, RevisionFile, WeightStatistics
from registry.rights import (
    Person,
    may_change,
    may_moderate,
    visible_adapter,
    writable_adapter,
    writable_namespace,
)
from registry.views.cards import as_html
from registry.views.offered import names_offered
from registry.views.old_names import leads_on
from registry.views.people import signed_in
from web.errors import DomainError
from web.kept_queries import KeptQuery, number_of
from web.refusals import show_refusal

VERSIONS_SHOWN = 10
TENSORS_SHOWN = 400
CARD_KEPT_S = 3600

_VERSIONS = KeptQuery(
    lambda adapter: (
        Revision.objects.filter(adapter_id=adapter)
        .select_related("author")
        .defer("facts", "warnings")[: VERSIONS_SHOWN + 1]
    ),
    number_of("adapter"),
)
_STATISTICS = KeptQuery(
    lambda revision: WeightStatistics.objects.filter(revision_id=revision), number_of("revision")
)


@leads_on
def adapter(request: HttpRequest, namespace: str, name: str, commit: str = "") -> HttpResponse:
    """What an adapter is and how to use it; with `commit`, one of its older versions."""
    shown = visible_adapter(request.user, namespace, name)
    search.show_tasks([shown], person=request.user)
    revision = downloads.revision_called(shown, commit)
    files = revision.files_by_path()
    site = request.build_absolute_uri("/").rstrip("/")
    ways = snippets.snippets_for(shown, revision, site=site)
    versions = _VERSIONS.rows(adapter=shown.pk)
    context = {
        "section": "modules",
        "adapter": shown,
        "revision": revision,
        "origin": None if shown.is_composed else revision.origins.first(),
        "is_newest": revision.pk == shown.head_id,
        "files": [_file_row(shown, revision, file) for file in files],
        "archive_url": reverse("adapter_archive", args=[shown.namespace.name, shown.name, revision.commit]),
        "card_html": _card_html(shown, revision, files),
        # Its scores and parents stand above it already; a version that people upload later has a card of theirs.
        "is_card_generated": shown.is_composed and revision.parent_id is None,
        "tensors": revision.fact("tensors", [])[:TENSORS_SHOWN],
        "tensor_count": len(revision.fact("tensors", [])),
        # Of a composed one its lineage says with what, and is asked for.
        "composes_with": None if shown.is_composed else search.family_size(shown, person=request.user),
        "same_weights_as": None
        if shown.is_composed  # the same request twice, which its lineage says
        else search.first_with_weights_of(revision, person=request.user),
        "ways": ways,
        "way": next((way for way in ways if way.name == request.GET.get("use")), ways[0]),
        "versions": versions[:VERSIONS_SHOWN],
        "has_more_versions": len(versions) > VERSIONS_SHOWN,
        # They are of all versions; the page of an old one has their sum.
        "download_days": _download_days(shown) if revision.pk == shown.head_id else None,
        "weights": _weights(revision),
        "scores": search.task_scores(shown, request.user),
        **following.marks(request.user, shown),
        "may_write": may_change(request.user, shown),
        "may_moderate": may_moderate(request.user),
    }
    return render(request, "registry/adapter.html", context)


@require_safe
@leads_on
def adapter_file(request: HttpRequest, namespace: str, name: str, commit: str, path: str) -> HttpResponseBase:
    """One file of a version; scripts that have a token fetch it from the API."""
    shown = visible_adapter(request.user, namespace, name)
    revision = downloads.revision_called(shown, commit)
    file = downloads.file_called(revision, path)
    response = downloads.file_response(request, file.blob, path)
    if file.is_lfs and downloads.brings_the_file(request, response, file.blob):
        downloads.count_download(request, revision)
    return response


@require_safe
@leads_on
def adapter_archive(request: HttpRequest, namespace: str, name: str, commit: str) -> HttpResponseBase:
    """All files of a version as a zip."""
    shown = visible_adapter(request.user, namespace, name)
    revision = downloads.revision_called(shown, commit)
    response = downloads.archive_response(request, revision)
    if request.method == "GET" and response.status_code == 200:
        downloads.count_download(request, revision)
    return response


@login_required
@leads_on
def adapter_settings(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Change what is said about an adapter; forms beside that move or delete it."""
    shown = writable_adapter(request.user, namespace, name)
    said = _said(shown, request.user)
    form = AdapterForm(request.POST or None, initial=said)
    if request.method == "POST" and form.is_valid():
        changes = {key: value for key, value in form.cleaned_data.items() if key != "base_model"}
        base_model = form.cleaned_data["base_model"].strip()
        if base_model != said["base_model"]:
            changes["base_model"] = base_model
        if shown.task is not None and changes["task"] == said["task"] == "":
            del changes["task"]  # it is one that is hidden from them, not none
        try:
            publishing.update_adapter(shown, actor=signed_in(request), **changes)
        except DomainError as error:
            show_refusal(form, error)
        else:
            messages.success(request, "Saved.")
            return redirect(shown)
    status = 400 if form.errors else 200
    return render(
        request, "registry/adapter_settings.html", _settings_context(request, shown, form), status=status
    )


@login_required
def adapter_move(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Give an adapter another name, or to another namespace."""
    shown = writable_adapter(request.user, namespace, name)
    if request.method != "POST":
        return redirect("adapter_settings", namespace=shown.namespace.name, name=shown.name)
    user = signed_in(request)
    form = MoveForm(request.POST, user=user, adapter=shown)
    if form.is_valid():
        before = shown.full_name
        target = writable_namespace(user, form.cleaned_data["namespace"])
        try:
            moved = moving.move(shown, actor=user, namespace=target, name=form.cleaned_data["name"])
        except DomainError as error:
            show_refusal(form, error)
        else:
            messages.success(
                request, f"{before} is called {moved.full_name} now. Its old address leads here."
            )
            return redirect(moved)
    form.fields["name"].widget.attrs["autofocus"] = True  # it stands below another form, out of sight
    context = _settings_context(request, shown, AdapterForm(initial=_said(shown, request.user)), move=form)
    return render(request, "registry/adapter_settings.html", context, status=400)


@login_required
def adapter_delete(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Delete an adapter, once its name has been typed."""
    shown = writable_adapter(request.user, namespace, name)
    if request.method != "POST":
        return redirect("adapter_settings", namespace=shown.namespace.name, name=shown.name)
    if request.POST.get("confirm", "").strip() != shown.name:
        context = _settings_context(request, shown, AdapterForm(initial=_said(shown, request.user)))
        context["typed"] = request.POST.get("confirm", "")
        context["delete_error"] = f"Type {shown.name} to delete it."
        return render(request, "registry/adapter_settings.html", context, status=400)
    publishing.withdraw(shown, actor=signed_in(request))
    messages.success(request, f"{shown.full_name} is deleted.")
    return redirect(shown.namespace)


def _download_days(adapter: Adapter) -> dict[str, Any]:
    days = download_days.days_of(adapter)
    return {"picture": download_days.draw(days), "days": len(days)}


def _weights(revision: Revision) -> dict[str, Any]:
    """The pictures of a revision's weights, or why there are none."""
    statistics = next(iter(_STATISTICS.rows(revision=revision.pk)), None)
    if statistics is None:
        return {"pictures": None, "problem": "", "is_coming": bool(revision.facts)}
    return {
        "pictures": weight_pictures.draw(statistics),
        "problem": statistics.problem,
        "is_coming": False,
    }


def _file_row(adapter: Adapter, revision: Revision, file: RevisionFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "size_bytes": file.blob.size_bytes,
        "sha256": file.blob.sha256,
        "url": reverse(
            "adapter_file", args=[adapter.namespace.name, adapter.name, revision.commit, file.path]
        ),
    }


def _card_html(adapter: Adapter, revision: Revision, files: list[RevisionFile]) -> str:
    """The card as safe HTML, kept for an hour under its content; empty without one."""
    file = next((file for file in files if file.path == CARD), None)
    if file is None:
        return ""
    key = f"card:{revision.pk}:{file.blob.sha256}"
    html: str | None = cache.get(key)
    if html is None:
        try:
            text = publishing.card_in(file.blob)
        except storage.BytesMissing as missing:
            return f"<p>{missing.message}</p>"  # our own words; the page is more than its card
        html = as_html(text, adapter, revision)
        cache.set(key, html, CARD_KEPT_S)
    return html


def _said(adapter: Adapter, person: Person) -> dict[str, Any]:
    return {
        "description": adapter.description,
        "task": adapter.task.title if adapter.task and search.sees_task(person, adapter.task) else "",
        "base_model": adapter.base_model.name if adapter.base_model else adapter.base_model_label,
        "language": adapter.language,
        **{
            name: getattr(adapter, name)
            for name in ("dataset", "dataset_revision", "training", "leakage", "prompt_template")
        },
        "tags": ", ".join(adapter.tags),
        "visibility": adapter.visibility,
        **LicenceFields.initial_for(adapter.license),
    }


def _settings_context(
    request: HttpRequest, adapter: Adapter, form: AdapterForm, *, move: MoveForm | None = None
) -> dict[str, Any]:
    return {
        "section": "modules",
        "adapter": adapter,
        "form": form,
        "move": move or MoveForm(user=signed_in(request), adapter=adapter),
        **names_offered(request.user),
    }
