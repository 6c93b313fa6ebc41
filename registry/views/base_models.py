"""Base models: the list, one of them, and adding one by its config.json."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from registry import downloads, search, snippets
from registry.base_models import add_base_model, base_model_called
from registry.bases_on_hub import add_from_hub
from registry.forms import BaseModelForm
from registry.models import Adapter, BaseModel, BaseModelFile
from registry.rights import Person
from registry.shapes import MAX_CONFIG_BYTES
from web.errors import DomainError, NotFound
from web.pagination import BadCursor, cursor_of, values_in
from web.refusals import show_refusal

PAGE = 100
MATRICES_SHOWN = 200
MODULES_SHOWN = 6


def base_models(request: HttpRequest) -> HttpResponse:
    """The base models that are known here, those with modules first, a page at a time."""
    words = " ".join(request.GET.get("q", "").split())[:200]
    cursor = request.GET.get("cursor", "")
    counts = search.modules_by_base(person=request.user)
    found = _in_order(words, counts)
    begin = bisect_right(found, (*_behind(cursor), math.inf)) if cursor else 0
    shown = found[begin : begin + PAGE]
    models = BaseModel.objects.defer("matrices", "config").in_bulk([pk for *_, pk in shown])
    listed = [
        (is_unused, (models[pk], *counts.get(pk, (0, 0)))) for is_unused, *_, pk in shown if pk in models
    ]
    has_more = begin + PAGE < len(found)
    kept = {"q": words} if words else {}
    return render(
        request,
        "registry/base_models.html",
        {
            "section": "base_models",
            "used": [row for is_unused, row in listed if not is_unused],
            "unused": [row for is_unused, row in listed if is_unused],
            "unused_count": sum(is_unused for is_unused, *_ in found),
            "words": words,
            "next_url": urlencode(kept | {"cursor": cursor_of(list(shown[-1][:-1]))}) if has_more else "",
            "first_url": urlencode(kept) if cursor else None,
            "unknown": () if cursor else _unknown(request.user),
        },
    )


def _in_order(words: str, counts: dict[int, tuple[int, int]]) -> list[tuple[bool, int, str, int]]:
    """All that have these words, as (unused, minus how many modules, name, key), in this order.

    No more is read of them: a site may have many more than a page shows.
    """
    rows = BaseModel.objects.values_list("pk", "name", "kind")
    if words:
        rows = rows.filter(Q(name__icontains=words) | Q(architecture__icontains=words))
    found = []
    for pk, name, kind in rows:
        modules, _ = counts.get(pk, (0, 0))
        found.append((not modules and kind != BaseModel.Kind.HOSTED, -modules, name, pk))
    return sorted(found)


def _unknown(person: Person) -> Iterable[Mapping[str, object]]:
    """The names that modules give for base models which are not known here, those of the most modules."""
    unknown = Adapter.objects.visible_to(person).filter(base_model=None).exclude(base_model_label="")
    counted = unknown.values("base_model_label").annotate(module_count=Count("pk"))
    return counted.order_by("-module_count", "base_model_label")[:10]


def _behind(cursor: str) -> tuple[bool, int, str]:
    """Where the page before ended. Raises BadCursor."""
    match values_in(cursor):
        case [bool() as is_unused, int() as place, str() as name]:
            return is_unused, place, name
        case _:
            raise BadCursor


def base_model(request: HttpRequest, name: str) -> HttpResponse:
    """One base model: its numbers, its matrices, the modules for it."""
    shown = base_model_called(name)
    if shown.name != name:
        return redirect(shown)
    listed, composable = search.modules_by_base(person=request.user).get(shown.pk, (0, 0))
    counts = {"all": listed, "composable": composable}
    if shown.rechecked_at:
        counts |= search.fits_of(shown, listed=listed, person=request.user)
    query = search.AdapterQuery(base=shown.name, sort="downloads", limit=MODULES_SHOWN)
    context = {
        "section": "base_models",
        "base_model": shown,
        "aliases": shown.aliases.values_list("text", flat=True),
        "counts": counts,
        "matrices": list(shown.matrices.items())[:MATRICES_SHOWN],
        "matrix_count": len(shown.matrices),
        "files": list(shown.files.select_related("blob")) if shown.is_hosted else [],
        "adapters": search.find(query, person=request.user).items,
        "get_it": snippets.base_model_snippet(shown, site=request.build_absolute_uri("/").rstrip("/")),
    }
    answer = render(request, "registry/base_model.html", context)
    if request.htmx and not shown.recheck_wanted_at:  # type: ignore[attr-defined]
        answer["HX-Retarget"] = answer["HX-Reselect"] = "#main"
    return answer


@login_required
def base_model_new(request: HttpRequest) -> HttpResponse:
    """Make a base model known by its config.json, given or read on its hub: adapters for it are checked and can be composed."""
    form = BaseModelForm(
        request.POST or None, request.FILES or None, initial={"name": request.GET.get("name", "")}
    )
    if request.method == "POST" and form.is_valid():
        said = {"name": form.cleaned_data["name"].strip(), "aliases": form.cleaned_data["aliases"]}
        config = _config(form.cleaned_data)
        try:
            added = add_base_model(config=config, **said) if config else add_from_hub(**said)
        except DomainError as error:
            show_refusal(form, error)
        else:
            messages.success(
                request, f"{added.name} is known now. Modules that name it are compared with it."
            )
            return redirect(added)
    context = {"section": "base_models", "form": form}
    return render(request, "registry/base_model_new.html", context, status=400 if form.errors else 200)


@require_safe
def base_model_file(request: HttpRequest, name: str, path: str) -> HttpResponseBase:
    """One file of a base model that is hosted here."""
    file = BaseModelFile.objects.select_related("blob").filter(base_model__name=name, path=path).first()
    if file is None:
        raise NotFound(f"No file of this name is hosted here for the base model {name!r}.")
    return downloads.file_response(request, file.blob, path)


@require_safe
def base_model_archive(request: HttpRequest, name: str) -> HttpResponseBase:
    """All files of a base model that is hosted here, as a zip."""
    shown = base_model_called(name)
    if not shown.is_hosted:
        raise NotFound(f"{shown.name} is not hosted here; fetch it where it was published.")
    return downloads.base_model_archive_response(shown, head=request.method == "HEAD")


def _config(data: dict[str, Any]) -> bytes:
    """The config as sent or pasted, at most one byte more than is allowed; empty if neither was."""
    if data["config"]:
        return bytes(data["config"].read(MAX_CONFIG_BYTES + 1))
    return str(data["config_text"]).strip().encode()
