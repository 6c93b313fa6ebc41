"""Finding modules by the hash of a file, or of weights whatever file holds them."""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from registry import search
from registry.search import BadParameter
from web.pagination import paginate

PAGE = 50
_HASH = re.compile(r"(sha256:)?[0-9a-fA-F]{64}\Z")


def is_hash(text: str) -> bool:
    """Whether somebody who types this looks for a file."""
    return bool(_HASH.match(text.strip()))


@require_safe
def hashes(request: HttpRequest) -> HttpResponse:
    """A field for a sha256, and where that is."""
    asked = request.GET.get("sha256", "").strip().removeprefix("sha256:").lower()
    context: dict[str, object] = {"sha256": asked[:100]}
    if asked:
        try:
            rows = search.revisions_with(asked, person=request.user)
        except BadParameter as error:
            return render(request, "registry/hashes.html", {**context, "error": error.message}, status=400)
        page = paginate(rows, order=("-created_at", "-id"), cursor=request.GET.get("cursor"), size=PAGE)
        context |= {"rows": page.items, "next_cursor": page.next_cursor, "is_asked": True}
    return render(request, "registry/hashes.html", context)
