"""What people may do with a composition that is there: see it, cancel it, stop it; and ending all of somebody's."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from django.db import transaction

from compose.errors import NoSuchComposition, WrongState
from compose.jobs import lease, log
from compose.models import Composition
from registry.models import User
from registry.rights import Person, owns
from web.errors import Forbidden

Status = Composition.Status
Wish = Composition.Wish


def visible_composition(
    person: Person, composition_id: str, *, key: str = "", without: Sequence[str] = ()
) -> Composition:
    """Raises NoSuchComposition for what is not there and for what this person may not see.

    `key` is that of a link its owner gave away: who has it sees what strangers see of a published one. `without`
    names large fields that are fetched only if somebody asks for them.
    """
    seen = Composition.objects.shared_by(key) if key else Composition.objects.visible_to(person)
    composition = (
        seen.select_related("owner", "base_model", "task", "adapter", "adapter__namespace")
        .defer(*without)
        .filter(pk=composition_id)
        .first()
    )
    if composition is None:
        raise NoSuchComposition
    return composition


def require_owner(composition: Composition, actor: Person) -> None:
    """Raises NoSuchComposition, or Forbidden for one that the actor may see."""
    if owns(actor, composition.owner_id):
        return
    if Composition.objects.visible_to(actor).filter(pk=composition.pk).exists():
        raise Forbidden("Only the person who asked for this composition may do this.")
    raise NoSuchComposition


def share(composition: Composition, actor: Person) -> None:
    """Make a link for people whom the owner chooses; the one that is there stays."""
    require_owner(composition, actor)
    Composition.objects.filter(pk=composition.pk, share_key=None).update(share_key=secrets.token_urlsafe(18))
    _refresh(composition)


def unshare(composition: Composition, actor: Person) -> None:
    """Take the link back: it leads nowhere from now on, and the next one is another."""
    require_owner(composition, actor)
    Composition.objects.filter(pk=composition.pk).update(share_key=None)
    _refresh(composition)


@transaction.atomic
def cancel(composition: Composition, actor: Person) -> None:
    """End a queued composition now, a running one within one evaluation.

    Raises WrongState when it is finished, NoSuchComposition when it is gone.
    """
    require_owner(composition, actor)
    for _ in range(3):  # a worker or the sweep may change the status between the two updates
        row = Composition.objects.filter(pk=composition.pk)
        if lease.close(row.filter(status=Status.QUEUED), Status.CANCELLED):
            log.write(composition, "Cancelled while it waited.")
            break
        if row.filter(status=Status.RUNNING).exclude(wish=Wish.CANCEL).update(wish=Wish.CANCEL):
            log.write(composition, "Asked to cancel.")
            break
        if row.filter(status=Status.RUNNING).exists():
            break
        _refresh(composition)
        if composition.is_finished:
            raise WrongState(
                f"This composition has already {_ended(composition)}; there is nothing to cancel."
            )
    _refresh(composition)


@transaction.atomic
def end_all_of(owner: User, why: str) -> int:
    """End whatever waits or runs for `owner`, with a sentence for them: how many there were.

    A running one ends here and now. Its worker finds that it lost the lease, and so goes on to somebody else's.
    """
    ended = 0
    unfinished = Composition.objects.filter(owner=owner, status__in=[Status.QUEUED, Status.RUNNING])
    for composition in unfinished.order_by("pk"):
        row = unfinished.filter(pk=composition.pk)
        if lease.close(row, Status.CANCELLED, error=why):
            log.write(composition, why)
            ended += 1
    return ended


@transaction.atomic
def stop(composition: Composition, actor: Person) -> None:
    """Let a running search end now and go on with the best mix so far.

    Raises WrongState unless it is running, NoSuchComposition when it is gone.
    """
    require_owner(composition, actor)
    row = Composition.objects.filter(pk=composition.pk, status=Status.RUNNING)
    for _ in range(3):  # a worker may take it between two looks
        # A wish to cancel stays: it cannot be taken back.
        if row.filter(wish=Wish.NONE).update(wish=Wish.STOP):
            log.write(composition, "Asked to stop and keep the best so far.")
            break
        if row.exists():
            break
        _refresh(composition)
        if composition.status == Status.QUEUED:
            raise WrongState(
                "This composition has not started, so there is no best mix to keep. Cancel it instead."
            )
        if composition.is_finished:
            raise WrongState(f"This composition has already {_ended(composition)}; there is nothing to stop.")
    _refresh(composition)


def _refresh(composition: Composition) -> None:
    """Raises NoSuchComposition for one that was removed at this moment."""
    try:
        composition.refresh_from_db()
    except Composition.DoesNotExist as error:
        raise NoSuchComposition from error


def _ended(composition: Composition) -> str:
    return {Status.SUCCEEDED: "finished", Status.FAILED: "failed", Status.CANCELLED: "been cancelled"}.get(
        Status(composition.status), "changed"
    )
