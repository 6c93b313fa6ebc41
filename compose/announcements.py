"""Events of compositions for webhooks: what ended, and whose modules were used."""

from __future__ import annotations

from django.db.models import Q

from compose import naming
from compose.models import Candidate, Composition
from registry import webhooks
from registry.models import Adapter, Membership, Webhook


def announce() -> int:
    """Write down what has lately happened for those who want to hear of it; how many events that were."""
    ended = sum(_announce_ended(hook) for hook in webhooks.listening_for("composition.ended"))
    return ended + sum(_announce_used(hook) for hook in webhooks.listening_for("module.used"))


def _announce_ended(hook: Webhook) -> int:
    ended = Composition.objects.filter(owner=hook.user, finished_at__gte=webhooks.heard_since(hook))
    ended = ended.select_related("base_model").prefetch_related(naming.told_tasks(hook.user))
    return sum(
        webhooks.enqueue(
            hook,
            event="composition.ended",
            key=f"composition {composition.pk} {composition.status}",
            data={
                "composition": composition.pk,
                "title": composition.title,
                "status": composition.status,
                "error": composition.error,
                "task": composition.task.slug if composition.task else None,
                "base_model": composition.base_model.name,
                "path": composition.get_absolute_url(),
                "finished_at": composition.finished_at.isoformat() if composition.finished_at else None,
            },
        )
        for composition in ended.defer("examples", "test_examples", "predictions", "result")
    )


def _announce_used(hook: Webhook) -> int:
    """Published adapters of other people that this person may see, with a weight on a module of a namespace of theirs."""
    mine = Membership.objects.filter(user=hook.user).values("namespace_id")
    # Members of where it was published know of it from its making on; others, once they can see it.
    since = webhooks.heard_since(hook)
    is_new = Q(composition__adapter__first_public_at__gte=since) & ~Q(
        composition__adapter__namespace__in=mine
    ) | Q(composition__adapter__created_at__gte=since, composition__adapter__namespace__in=mine)
    uses = (
        Candidate.objects.filter(
            is_new,
            revision__adapter__namespace__in=mine,
            composition__adapter__in=Adapter.objects.visible_to(hook.user),
        )
        .exclude(mixing_weight=None)
        .exclude(mixing_weight=0)
        .exclude(composition__owner=hook.user)
        .select_related(
            "revision__adapter__namespace", "composition__adapter__namespace", "composition__owner"
        )
        .defer(
            "revision__facts",
            "composition__examples",
            "composition__test_examples",
            "composition__predictions",
        )
    )
    return sum(
        webhooks.enqueue(
            hook,
            event="module.used",
            key=f"use {use.composition_id} {use.revision.adapter_id}",
            data={
                "module": use.revision.adapter.full_name,
                "mixing_weight": use.mixing_weight,
                "attribution": use.attribution,
                "adapter": use.composition.adapter.full_name if use.composition.adapter else None,
                "by": use.composition.owner.username if use.composition.owner else None,
                "path": use.composition.get_absolute_url(),
            },
        )
        for use in uses
    )
