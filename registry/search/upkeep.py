"""Keeping the search's rows and texts in step with what they repeat: triggers around migrations, and the cards."""

from __future__ import annotations

import hashlib
import inspect
import logging
from types import ModuleType
from typing import Any

from django.db import connections, transaction

from registry import cards, storage
from registry.filenames import CARD
from registry.models import Adapter, AdapterText, RevisionFile, SearchClock
from registry.search import backends, postgres, postings, sqlite

logger = logging.getLogger(__name__)

CARD_WORDS = 20_000  # characters of a card that can be found
CARDS_AT_ONCE = 500


def step_aside(using: str) -> None:
    """Before tables change: take away what would stop that."""
    connection = connections[using]
    if _tables_are_there(connection):
        backends.of(connection).remove(connection)
        SearchClock.objects.using(using).update(made_by="")


def set_up(using: str, *, is_changed: bool) -> None:
    """After migrations: the triggers of this version of the code, and rows and texts as they would have kept them.

    Nothing happens where nothing has changed, so that this may be called at every start.
    """
    connection = connections[using]
    if not _tables_are_there(connection) or not _columns_are_there(connection):
        return
    version = _version(*((postgres, postings) if connection.vendor == "postgresql" else (sqlite,)))
    backend = backends.of(connection)
    with transaction.atomic(using=using):
        clock, _ = SearchClock.objects.using(using).get_or_create(pk=1)
        if clock.made_by == version and not is_changed:
            backend.mend(connection)
            return
        backend.install(connection)
        backend.mend(connection)
        backend.resync(connection)
        SearchClock.objects.using(using).filter(pk=1).update(made_by=version)


def _tables_are_there(connection: Any) -> bool:
    wanted = {"registry_searchclock", "registry_searchrow", "registry_adaptertext", "registry_adapter"}
    return wanted <= set(connection.introspection.table_names())


def _columns_are_there(connection: Any) -> bool:
    """Not after going back to an earlier migration: the triggers are then for that version's code to make."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_table_description(cursor, "registry_adapter")
    return "first_public_at" in {column.name for column in found}


def _version(*modules: ModuleType) -> str:
    source = "".join(inspect.getsource(module) for module in (backends, *modules))
    return hashlib.sha256(source.encode()).hexdigest()


def write_postings(using: str = "default") -> bool:
    """Who has which word, written down anew where much has changed since; whether it was."""
    return backends.of(connections[using]).write_postings(connections[using])


def read_cards(limit: int = CARDS_AT_ONCE) -> int:
    """Read the cards of adapters whose newest revision has not been read yet; how many there were.

    A card lies in a blob, where no trigger reaches: this runs after every publishing and once an hour for the rest.
    """
    from django.db.models import F, Q

    unread = (
        AdapterText.objects.filter(
            Q(card_of=None) | ~Q(card_of=F("adapter__head_id")),
            adapter__head__isnull=False,
            adapter__deleted_at=None,
        )
        .order_by("pk")
        .values_list("pk", "adapter__head_id")[:limit]
    )
    rows = list(unread)
    for adapter_id, head_id in rows:
        read_card(adapter_id, head_id)
    return len(rows)


def read_card(adapter_id: int, revision_id: int) -> None:
    """Make the words of this revision's card those by which its adapter is found."""
    file = RevisionFile.objects.filter(revision_id=revision_id, path=CARD).select_related("blob").first()
    text = ""
    if file is not None:
        try:
            with storage.open_blob(file.blob) as stream:
                text = stream.read(cards.MAX_CARD_BYTES).decode("utf-8-sig", "replace")
            text = cards.split_card(text)[1]
        except (OSError, storage.BytesMissing, cards.CardRefused) as error:
            logger.warning("The card of revision %s cannot be read: %s", revision_id, error)
    newest = Adapter.objects.alive().filter(pk=adapter_id, head_id=revision_id)
    with transaction.atomic():
        # The adapter first, as everybody: triggers on it and on its text write to the same row.
        if newest.select_for_update(no_key=True).values_list("pk"):
            AdapterText.objects.filter(pk=adapter_id).update(
                card=text.replace("\x00", "")[:CARD_WORDS], card_of=revision_id
            )
