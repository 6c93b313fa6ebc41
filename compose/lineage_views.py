"""The page of an adapter's whole lineage."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from compose import lineage, naming
from registry.rights import visible_adapter
from registry.views.old_names import leads_on
from web.pagination import paginate

PAGE = 50


@require_safe
@leads_on
def lineage_page(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """All that an adapter is made of, and all published ones that use it, the newest first."""
    adapter = visible_adapter(request.user, namespace, name)
    uses = lineage.made_of(adapter) if adapter.is_composed else []
    named = naming.may_be_named([use.revision.adapter_id for use in uses], request.user)
    parents = [
        (
            naming.name_of(parent := use.revision.adapter, named),
            naming.link_to(parent, named),
            parent.pk in named and parent.deleted_at is not None,
            use,
        )
        for use in uses
    ]
    page = paginate(
        lineage.made_with(adapter, request.user),
        order=("-published", "-pk"),
        cursor=request.GET.get("cursor"),
        size=PAGE,
    )
    return render(
        request,
        "compose/lineage.html",
        {
            "adapter": adapter,
            "parents": parents,
            "is_recorded": lineage.made(adapter).composition is not None,
            "page": page,
            "section": "modules",
        },
    )
