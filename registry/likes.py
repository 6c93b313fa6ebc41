"""Likes: each person likes an adapter once."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.db.models import QuerySet

from registry.models import Adapter, Like, User
from registry.search import show_tasks
from web.database import keep_from_deletion
from web.errors import Forbidden


def like(adapter: Adapter, *, actor: User) -> None:
    """`actor` likes the adapter; a second time changes nothing. Raises Forbidden for an account that was deleted meanwhile."""
    with transaction.atomic():
        Adapter.objects.select_for_update(no_key=True).get(pk=adapter.pk)
        person = User.objects.filter(pk=actor.pk)
        keep_from_deletion(person)
        if not person.exists():
            raise Forbidden("This account is deleted.")
        Like.objects.get_or_create(adapter=adapter, user=actor)
        _count(adapter)


def unlike(adapter: Adapter, *, actor: User) -> None:
    """`actor` no longer likes the adapter; fine also if they never did."""
    with transaction.atomic():
        Adapter.objects.select_for_update(no_key=True).get(pk=adapter.pk)
        Like.objects.filter(adapter=adapter, user=actor).delete()
        _count(adapter)


def unlike_all(person: User) -> None:
    """`person` no longer likes anything."""
    with transaction.atomic():
        liked = Adapter.objects.filter(pk__in=Like.objects.filter(user=person).values("adapter"))
        for adapter in liked.select_for_update(no_key=True).order_by("pk").only("pk"):
            Like.objects.filter(adapter=adapter, user=person).delete()
            _count(adapter)


def liked_by(person: User) -> QuerySet[Like]:
    """Likes of what is still there for them to see."""
    return Like.objects.filter(user=person, adapter__in=Adapter.objects.visible_to(person))


def adapters_of(likes: Sequence[Like], *, person: User) -> list[Adapter]:
    """What was liked, in the order of the likes, ready for rows of a list."""
    rows = Adapter.objects.select_related("namespace", "base_model", "task", "head").defer(
        "head__facts", "head__warnings", "head__description", "base_model__matrices", "base_model__config"
    )
    found = rows.with_family_sizes(person).in_bulk([like.adapter_id for like in likes])
    show_tasks(found.values(), person=person)
    return [found[like.adapter_id] for like in likes if like.adapter_id in found]


def _count(adapter: Adapter) -> None:
    Adapter.objects.filter(pk=adapter.pk).update(likes=Like.objects.filter(adapter=adapter).count())
