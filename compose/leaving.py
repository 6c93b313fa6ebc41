"""Deleting one's account: all that belongs to the person goes at once, and what others build on stays without them.

It is here because compositions hang on an account as adapters do, and only this app knows both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from compose import jobs, making_tasks
from compose.models import Candidate, Composition
from registry import leaving, quotas, task_sets, tombstones
from registry.accounts import own_namespace
from registry.models import Adapter, Namespace, Task, User
from web.database import take_for_deletion
from web.errors import DomainError
from web.templatetags.formatting import plural

logger = logging.getLogger(__name__)
UNFINISHED = (Composition.Status.QUEUED, Composition.Status.RUNNING)
ADAPTERS_NAMED = 20


@dataclass(frozen=True)
class Held:
    """What would go with an account and what would stay, in numbers."""

    adapters: int
    size_bytes: int
    used_by_others: int
    named: list[Adapter]
    compositions: int
    unfinished: int
    kept: int
    tasks: int
    tasks_removed: int
    counts: dict[str, int]
    obstacles: list[DomainError]


def held_by(person: User) -> Held:
    """What deleting this account would do now."""
    own = own_namespace(person)
    use = quotas.use_of(own)
    adapters = Adapter.objects.alive().filter(namespace=own)
    mine = Composition.objects.filter(owner=person)
    numbers = mine.aggregate(
        all=Count("pk"),
        unfinished=Count("pk", filter=Q(status__in=UNFINISHED)),
        kept=Count("pk", filter=_is_built_on(person, own)),
    )
    return Held(
        adapters=use.adapters,
        size_bytes=use.size_bytes,
        used_by_others=adapters.filter(Exists(_use_by_others(person, "pk"))).count(),
        named=list(adapters.select_related("namespace").order_by("-downloads", "name")[:ADAPTERS_NAMED]),
        compositions=numbers["all"],
        unfinished=numbers["unfinished"],
        kept=numbers["kept"],
        tasks=Task.objects.filter(owner=own).count(),
        tasks_removed=_tasks_to_remove(person, own).count(),
        counts=leaving.counts(person),
        obstacles=leaving.obstacles(person),
    )


@transaction.atomic
def delete_account(person: User, *, actor: User | None) -> None:
    """Delete an account and all that belongs to the person alone, or nothing of it. `actor` None: a command.

    Its adapters become tombstones, as by deleting each. A composition stays, without its texts and without an owner,
    where its adapter is in an organisation or in somebody else's composition. A worker that is at another notices that
    it lost the lease. Raises OnlyAdmin, HoldsQuarantined, and NotFound where it was deleted meanwhile.
    """
    leaving.hold(person)
    own = own_namespace(person)
    mine = Composition.objects.filter(owner=person)
    # A worker that is writing its result comes first, and one that comes later finds nothing to write to. So it is with imports.
    take_for_deletion(mine)
    leaving.take_imports(person)
    leaving.hold_wholly(person)
    kept = _let_go_of(mine.filter(_is_built_on(person, own)))
    removed = jobs.remove(mine)
    adapters = tombstones.close_namespace(own)
    task_sets.remove_unneeded(own)
    detail = (
        f"{plural(adapters, 'adapter,adapters')} and {plural(removed, 'composition,compositions')} deleted; "
        f"{plural(kept, 'composition,compositions')} kept for what is made of them"
    )
    name = person.username
    leaving.erase(person, actor=actor, detail=detail)
    logger.info("deleted the account of %s: %s", name, detail)


def _is_built_on(person: User, own: Namespace) -> Q:
    """Of this person's compositions those that something else needs once the person and `own` are gone."""
    is_elsewhere = Q(adapter__isnull=False, adapter__deleted_at=None) & ~Q(adapter__namespace=own)
    return is_elsewhere | Q(Exists(_use_by_others(person, "adapter_id")))


def _use_by_others(person: User, adapter: str) -> QuerySet[Candidate]:
    """Candidates of other people's compositions that are a version of the adapter in that field of the outer row."""
    return Candidate.objects.filter(revision__adapter=OuterRef(adapter)).exclude(composition__owner=person)


def _let_go_of(compositions: QuerySet[Composition]) -> int:
    ids = list(compositions.values_list("pk", flat=True))
    for composition in compositions.defer("result", "predictions"):
        jobs.forget_texts_of(composition)
    Composition.objects.filter(pk__in=ids).update(
        owner=None, share_key=None, wants_email=False, notice_origin="", pinned=[], excluded=[]
    )
    return len(ids)


def _tasks_to_remove(person: User, own: Namespace) -> QuerySet[Task]:
    """Private ones, and those that nobody would use once the person's modules and compositions are gone."""
    left = Composition.objects.filter(~Q(owner=person) | _is_built_on(person, own))
    others = Adapter.objects.alive().exclude(namespace=own)
    mine = Task.objects.filter(owner=own, quarantined_at=None)
    return mine.filter(Q(is_private=True) | Q(pk__in=making_tasks.unused(mine, by=others, composed=left)))
