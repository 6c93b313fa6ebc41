"""Following adapters and namespaces, and what is new of what somebody follows."""

from __future__ import annotations

from django.db.models import Case, Exists, F, OuterRef, Q, QuerySet, When
from django.db.models.functions import Coalesce, Greatest

from registry.models import Adapter, Follow, Like, Namespace, Revision, User
from registry.models.adapters import AdapterQuerySet
from registry.rights import Person, sees_adapter


def follow(*, user: User, adapter: Adapter | None = None, namespace: Namespace | None = None) -> None:
    """`user` wants to hear of the adapter's new versions or of all that the namespace publishes; twice is once."""
    Follow.objects.get_or_create(user=user, adapter=adapter, namespace=namespace)


def unfollow(*, user: User, adapter: Adapter | None = None, namespace: Namespace | None = None) -> None:
    Follow.objects.filter(user=user, adapter=adapter, namespace=namespace).delete()


def follows(person: Person, *, adapter: Adapter | None = None, namespace: Namespace | None = None) -> bool:
    if person is None or not person.is_authenticated:
        return False
    return Follow.objects.filter(user_id=person.pk, adapter=adapter, namespace=namespace).exists()


def marks(person: Person, adapter: Adapter) -> dict[str, bool]:
    """{"is_liked", "is_followed"}: what this person has said of the adapter, in one query."""
    if person is None or not person.is_authenticated:
        return {"is_liked": False, "is_followed": False}
    said = Adapter.objects.filter(pk=adapter.pk).values_list(
        Exists(Like.objects.filter(adapter=OuterRef("pk"), user_id=person.pk)),
        Exists(Follow.objects.filter(adapter=OuterRef("pk"), user_id=person.pk)),
    )
    is_liked, is_followed = said.get()
    return {"is_liked": is_liked, "is_followed": is_followed}


def followed_by(user: User) -> QuerySet[Follow]:
    """What `user` follows and what is still there for them to see."""
    is_there = sees_adapter(user, "adapter") | Q(namespace__isnull=False, namespace__deleted_at=None)
    return Follow.objects.filter(is_there, user=user).select_related("adapter__namespace", "namespace")


def news_for(user: User, *, count: int) -> list[Revision]:
    """The newest versions of what `user` follows and may still see."""
    return newest_of(adapters_followed_by(user), count=count)


def adapters_followed_by(user: User) -> AdapterQuerySet:
    """What `user` follows and may still see, alone or with its namespace."""
    mine = Follow.objects.filter(user=user)
    whose = mine.filter(namespace__isnull=False).values("namespace_id")
    # Two lists of ids, each by its index; with "or" every adapter there is would be looked at.
    followed = mine.filter(adapter__isnull=False).values("adapter_id")
    followed = followed.union(Adapter.objects.filter(namespace__in=whose).values("pk"))
    return Adapter.objects.visible_to(user).filter(pk__in=followed)


def newest_of(adapters: AdapterQuerySet, *, count: int) -> list[Revision]:
    """The newest versions of these adapters: they are among those of the `count` that were renewed last."""
    renewed = adapters.listed().order_by("-renewed_at", "-pk").values_list("pk", flat=True)
    return list(versions_of(Adapter.objects.filter(pk__in=list(renewed[:count])))[:count])


def versions_of(adapters: AdapterQuerySet) -> QuerySet[Revision]:
    """Complete versions of these adapters, newest first by `Revision.published_at`, without their long facts.

    That moment is `new_since` for whoever filters by it. It sorts all of them: of many adapters only the newest are wanted, by
    `newest_of`.
    """
    opened = Greatest("created_at", Coalesce("adapter__first_public_at", "created_at"))
    published = Case(When(adapter__head=F("pk"), then=opened), default="created_at")
    return (
        Revision.objects.filter(adapter__in=adapters.listed())
        .exclude(facts={})
        .select_related("adapter__namespace", "adapter__task", "adapter__base_model", "author")
        .defer("facts", "warnings", "adapter__base_model__config", "adapter__base_model__matrices")
        .alias(new_since=published)
        .order_by("-new_since", "-created_at", "-pk")
    )
