"""Giving an adapter another name. Its old name leads to the new one and is not handed out again."""

from __future__ import annotations

import logging

from django.db import IntegrityError, transaction
from django.db.models import Sum

from registry import publishing, quotas
from registry.commits import require_free_name
from registry.models import Adapter, FormerName, Namespace, Revision, User
from registry.names import check_adapter_name
from registry.rights import require_may_take_away, require_write

logger = logging.getLogger(__name__)


def move(adapter: Adapter, *, actor: User, namespace: Namespace, name: str) -> Adapter:
    """Call the adapter `namespace/name`. Raises NameTaken, NameNotFree, NameOfBaseModel, InvalidName, Forbidden, NotFound,
    QuotaReached, and what somebody has against its being shown there (`registry.publishing.BEFORE_SHOWN`).

    Who may write renames; out of an organisation its admins alone move. Going back to a name that it had itself is fine.
    """
    require_write(actor, namespace)
    check_adapter_name(name)
    try:
        with transaction.atomic():
            quotas.hold(namespace, adapter.namespace)
            require_write(actor, namespace)  # again: it may have been deleted at this moment
            row = publishing.hold(adapter, actor=actor)
            old = (row.namespace, row.name)
            FormerName.objects.filter(adapter=row, namespace=namespace, name__iexact=name).delete()
            require_free_name(namespace, name, of=row)
            publishing.require_showable(row, namespace, row.visibility, actor=actor)
            if row.namespace_id != namespace.pk:
                require_may_take_away(actor, row)
                _require_room(row, namespace)
            row.namespace, row.name = namespace, name
            row.save(update_fields=["namespace", "name"])
            if (old[0].pk, old[1].lower()) != (namespace.pk, name.lower()):
                FormerName.objects.create(namespace=old[0], name=old[1], adapter=row)
    except IntegrityError:
        require_free_name(namespace, name, of=adapter)
        raise
    logger.info("moved %s/%s to %s by %s", old[0].name, old[1], row, actor)
    return row


def _require_room(adapter: Adapter, namespace: Namespace) -> None:
    quotas.require_room_for_one_more(namespace)
    kept = Revision.objects.filter(adapter=adapter).aggregate(sum=Sum("size_bytes"))["sum"]
    quotas.require_bytes(namespace, kept or 0)


def moved_from(namespace: str, name: str) -> Adapter | None:
    """The adapter that had this name before it was moved; whether somebody may see it is for the caller to ask."""
    former = (
        FormerName.objects.select_related("adapter__namespace")
        .filter(namespace__name__iexact=namespace, name__iexact=name)
        .first()
    )
    return former.adapter if former else None
