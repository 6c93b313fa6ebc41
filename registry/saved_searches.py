"""Searches that people keep: a name for the parameters of a list."""

from __future__ import annotations

from django.db import transaction
from django.http import QueryDict

from registry.details import check_text
from registry.models import SavedSearch, User
from registry.search import AdapterQuery
from web.errors import Conflict, DomainError, NotFound

MOST = 50
MAX_NAME = 100
MAX_PARAMETERS = 2000  # characters, as they stand in an address


class TooManySearches(Conflict):
    code = "too_many_searches"

    def __init__(self) -> None:
        super().__init__(f"You keep {MOST} searches, which is the most. Remove one first.")


class NameKept(Conflict):
    code = "name_not_free"

    def __init__(self, name: str) -> None:
        message = f"You keep a search called “{name}” already. Choose another name, or forget that one first."
        super().__init__(message, fields={"name": [message]})


class UnnamedSearch(DomainError):
    code = "bad_name"

    def __init__(self) -> None:
        message = f"Give the search a name of up to {MAX_NAME} characters."
        super().__init__(message, fields={"name": [message]})


class SearchTooLong(DomainError):
    code = "search_too_long"

    def __init__(self, length: int) -> None:
        message = f"This search has {length:,} characters as an address; {MAX_PARAMETERS:,} can be kept."
        super().__init__(message, fields={"parameters": [message]})


def save(*, user: User, name: str, parameters: str) -> tuple[SavedSearch, bool]:
    """Keep a search under a name, and whether it is new: the same one twice is once.

    `parameters` is the part of the list's address behind the "?"; the place in the list is left out of it. Raises
    BadParameter, BadDetail, UnnamedSearch, SearchTooLong, NameKept, TooManySearches.
    """
    kept = AdapterQuery.parse(QueryDict(parameters)).url_with()
    if len(kept) > MAX_PARAMETERS:
        raise SearchTooLong(len(kept))
    name = check_text("name", name, limit=MAX_NAME)
    if not name:
        raise UnnamedSearch
    with transaction.atomic():
        saved, is_new = SavedSearch.objects.get_or_create(user=user, name=name, defaults={"parameters": kept})
        if is_new and SavedSearch.objects.filter(user=user).count() > MOST:
            raise TooManySearches
    if saved.parameters != kept:
        raise NameKept(name)
    return saved, is_new


def saved_search_of(user: User, pk: int) -> SavedSearch:
    """Raises NotFound, also for somebody else's."""
    saved = SavedSearch.objects.filter(user=user, pk=pk).first()
    if saved is None:
        raise NotFound("There is no such saved search of yours.")
    return saved


def remove(*, user: User, pk: int) -> SavedSearch:
    """The search that is forgotten now. Raises NotFound, also for somebody else's."""
    saved = saved_search_of(user, pk)
    SavedSearch.objects.filter(pk=pk).delete()
    return saved
