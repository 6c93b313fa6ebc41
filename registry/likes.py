"""Likes: each person likes an adapter once."""

from __future__ import annotations

from django.db import transaction
from django.db.models import QuerySet

from registry.models import Adapter, Like, User
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


def _count(adapter: Adapter) -> None:
    Adapter.objects.filter(pk=adapter.pk).update(likes=Like.objects.filter(adapter=adapter).count())
