"""The versions of an adapter, and what changed between two of them."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from registry import downloads, version_diff
from registry.rights import visible_adapter
from registry.views.old_names import leads_on
from web.pagination import paginate

VERSIONS_PAGE = 100
MOST_VERSIONS = 1000  # of which one may be picked for comparing


@leads_on
def versions(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """The versions of an adapter, newest first, in pages."""
    shown = visible_adapter(request.user, namespace, name)
    rows = shown.revisions.select_related("author").defer("facts", "warnings")
    cursor = request.GET.get("cursor")
    page = paginate(rows, order=("-created_at", "-id"), cursor=cursor, size=VERSIONS_PAGE)
    context = {
        "section": "modules",
        "adapter": shown,
        "versions": page.items,
        "next_cursor": page.next_cursor,
        "is_first": not cursor,
    }
    return render(request, "registry/versions.html", context)


@leads_on
def compare(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Two versions beside each other: `from` and `to` in the address, by commit, branch or tag."""
    shown = visible_adapter(request.user, namespace, name)
    after = downloads.revision_called(shown, request.GET.get("to", ""))
    given = request.GET.get("from", "")
    before = downloads.revision_called(shown, given) if given else after.parent
    if before is None:
        return redirect("adapter_versions", namespace=shown.namespace.name, name=shown.name)
    context = {
        "section": "modules",
        "adapter": shown,
        "before": before,
        "after": after,
        "diff": version_diff.compare(before, after),
        "versions": shown.revisions.only("commit", "message", "created_at", "adapter_id")[:MOST_VERSIONS],
    }
    return render(request, "registry/compare.html", context)
