"""What compose shows on the pages of others: lineage and use of an adapter, small charts of a composition."""

from __future__ import annotations

from typing import Any

from django import template

from compose import charts, jobs, lineage, naming
from compose.candidates import MIXES_EQUAL_ONLY
from compose.engine.wording import without_advice
from compose.models import Composition
from registry.models import Adapter

register = template.Library()


@register.inclusion_tag("compose/_room.html", takes_context=True)
def room_in_the_queue(context: dict[str, Any]) -> dict[str, Any]:
    """What the person has waiting and running, and how many more compositions they may ask for now."""
    person = _person(context)
    return {"room": jobs.room(person) if person is not None and person.is_authenticated else None}


@register.inclusion_tag("compose/_lineage.html", takes_context=True)
def adapter_lineage(context: dict[str, Any], adapter: Adapter) -> dict[str, Any]:
    """What a composed adapter was made from: its modules with their weights, and the composition that made it."""
    made = lineage.made(adapter)
    composition, candidates = made.composition, made.tried
    if composition is None:
        return {"composition": None}
    named = lineage.named(adapter, _person(context))
    modules = [
        charts.Weighted(
            label=naming.name_of(candidate.revision.adapter, named),
            url=naming.link_to(candidate.revision.adapter, named),
            weight=candidate.mixing_weight or 0.0,
            attribution=candidate.attribution,
        )
        for candidate in candidates
    ]
    chart = charts.weight_chart(modules, is_paper=composition.method in MIXES_EQUAL_ONLY)
    scores = composition.on_held_out(composition.scores.all())
    verdict = without_advice(str((composition.result or {}).get("verdict", "")))
    return {
        "composition": composition,
        "chart": chart,
        "tried": len(candidates),
        "scores": scores,
        "finding": naming.without_hidden(candidates, named)(verdict),
    }


@register.inclusion_tag("compose/_family.html", takes_context=True)
def lineage_graph(context: dict[str, Any], adapter: Adapter) -> dict[str, Any]:
    """Where an adapter comes from and what was made of it, drawn; nothing where there is neither."""
    return {
        "family": lineage.family(adapter, _person(context), origin=context.get("origin")),
        "node_width": lineage.WIDTH,
        "node_height": lineage.HEIGHT,
    }


@register.inclusion_tag("compose/_used_in.html", takes_context=True)
def used_in(context: dict[str, Any], adapter: Adapter) -> dict[str, Any]:
    """In which compositions this person may see the adapter got a weight, with its mean weight and attribution."""
    person = _person(context)
    use = lineage.use_of(adapter, person)
    latest = lineage.latest_uses(adapter, person) if use.count else []
    return {"use": use, "adapter": adapter, "latest": latest}


@register.inclusion_tag("compose/charts/_sparkline.html")
def composition_sparkline(composition: Composition) -> dict[str, Any]:
    """The largest mixing weights of a composition whose candidates are prefetched."""
    weights = [candidate.mixing_weight or 0.0 for candidate in composition.candidates.all()]
    return {"spark": charts.weight_sparkline(weights)}


def _person(context: dict[str, Any]) -> Any:
    return context["request"].user if "request" in context else context.get("user")
