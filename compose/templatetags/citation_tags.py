"""How to cite an adapter, on its page."""

from __future__ import annotations

from typing import Any

from django import template

from compose import citations
from registry.models import Adapter

register = template.Library()


@register.inclusion_tag("compose/_cite.html", takes_context=True)
def cite(context: dict[str, Any], adapter: Adapter) -> dict[str, Any]:
    """BibTeX to copy: the adapter, and for a composed one the method and all modules that are in it."""
    request = context["request"]
    site = request.build_absolute_uri("/").rstrip("/")
    text = citations.bibtex(adapter, person=request.user, site=site)
    return {"text": text, "entries": text.count("\n@") + 1}
