"""Where a namespace's modules helped, on its page."""

from __future__ import annotations

from typing import Any

from django import template
from django.db.models import Avg, Count, Q

from compose import naming
from compose.models import Candidate, Composition
from registry.models import Adapter, Namespace

register = template.Library()

SHOWN = 8


@register.inclusion_tag("compose/_credit.html", takes_context=True)
def credit(context: dict[str, Any], owner: Namespace) -> dict[str, Any]:
    """Compositions and modules of `owner` that this person may see, where the one gave the other weight: numbers, and the
    latest."""
    person = context["request"].user
    visible = Composition.objects.visible_to(person).filter(status=Composition.Status.SUCCEEDED)
    tries = Candidate.objects.filter(
        revision__adapter__in=Adapter.objects.visible_to(person).filter(namespace=owner),
        composition__in=visible,
        mixing_weight__isnull=False,
    )
    has_weight = ~Q(mixing_weight=0)
    numbers = tries.aggregate(
        tried=Count("composition", distinct=True),
        compositions=Count("composition", distinct=True, filter=has_weight),
        modules=Count("revision__adapter", distinct=True, filter=has_weight),
        people=Count("composition__owner", distinct=True, filter=has_weight),
        weight=Avg("mixing_weight", filter=has_weight),
        attribution=Avg("attribution", filter=has_weight),
    )
    latest: Any = []
    if numbers["compositions"]:
        latest = (
            tries.filter(has_weight)
            .select_related("revision__adapter", "composition")
            .prefetch_related(naming.published(person, "composition__adapter"))
            .defer(
                "revision__facts", "composition__examples", "composition__test_examples", "composition__predictions",
                "composition__result",
            )
            .order_by("-composition__finished_at", "-attribution")[:SHOWN]
        )  # fmt: skip
    return {"owner": owner, "numbers": numbers, "latest": latest}
