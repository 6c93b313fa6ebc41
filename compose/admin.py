"""Compositions for the people who run the site: to look at, not to change. Examples stay private to their owner."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from compose.models import Composition


@admin.register(Composition)
class CompositionAdmin(admin.ModelAdmin):
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
    exclude = ("examples", "test_examples", "predictions")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Composition | None = None) -> bool:
        return False
