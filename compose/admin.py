"""Compositions for the people who run the site: to look at, not to change. Examples stay private to their owner.

So does why one failed, which may quote them, and the link that its owner gives away.
"""

from __future__ import annotations

from django.contrib import admin

from compose.models import Composition
from registry.admin import ReadOnly


@admin.register(Composition)
class CompositionAdmin(ReadOnly, admin.ModelAdmin):
    list_display = (
        "id",
        "owner",
        "base_model",
        "method",
        "status",
        "stage",
        "attempt",
        "losses",
        "created_at",
    )
    list_filter = ("status", "method")
    list_select_related = ("owner", "base_model")
    search_fields = ("id", "owner__username", "base_model__name")
    date_hierarchy = "created_at"
    exclude = ("examples", "test_examples", "predictions", "error", "share_key")
