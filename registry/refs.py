"""Branches and tags of an adapter: names for revisions."""

from __future__ import annotations

import re

from django.db import transaction

from registry.models import Adapter, Ref, Revision, User
from registry.publishing import MAIN, hold
from web.errors import Conflict, DomainError, NotFound

MAX_NAME_LENGTH = 100
MAX_REFS = 1000  # of one adapter: every list of them has all
_ALLOWED = re.compile(r"[A-Za-z0-9._+=@-]+(?:/[A-Za-z0-9._+=@-]+)*\Z")
_LIKE_A_COMMIT = re.compile(r"[0-9a-f]{7,40}\Z")


class BadRefName(DomainError):
    code = "bad_ref_name"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name[:100]!r} cannot be the name of a branch or tag: {reason}")


class RefExists(Conflict):
    code = "exists"

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"There is a {ref.kind} {ref.name!r} already.")


class NameOfOtherKind(DomainError):
    """Not a 409, which the Hub's clients take for "it is there already" with `exist_ok`: the one asked for is not."""

    code = "bad_ref_name"

    def __init__(self, ref: Ref, kind: str) -> None:
        super().__init__(
            f"There is a {ref.kind} {ref.name!r} already, and here no {kind} can have the same name. Choose another name."
        )


class RefClashes(DomainError):
    """One name may not be the beginning of another's path: `a` and `a/b` could not be told apart in an address."""

    code = "bad_ref_name"

    def __init__(self, name: str, other: str) -> None:
        super().__init__(
            f"{name!r} and {other!r}, which is there already, cannot be side by side. Choose another name."
        )


class TooManyRefs(DomainError):
    """Not a 409 either."""

    code = "too_many_refs"

    def __init__(self, adapter: Adapter) -> None:
        super().__init__(
            f"{adapter.full_name} has {MAX_REFS:,} branches and tags, as many as one may have. Delete some first."
        )


class MainStays(DomainError):
    code = "main_stays"

    def __init__(self) -> None:
        super().__init__(f"The branch {MAIN} cannot be deleted.")


def create(adapter: Adapter, *, actor: User, kind: str, name: str, revision: Revision) -> Ref:
    """A branch or tag that points to `revision`. Raises RefExists, NameOfOtherKind, RefClashes, TooManyRefs, BadRefName,
    Forbidden.
    """
    _check_name(name)
    with transaction.atomic():
        row = hold(adapter, actor=actor)  # also so that no clashing name is made at the same time
        others = list(Ref.objects.filter(adapter=row))
        for other in others:
            if other.name == name:
                raise RefExists(other) if other.kind == kind else NameOfOtherKind(other, kind)
            if f"{other.name}/".startswith(f"{name}/") or f"{name}/".startswith(f"{other.name}/"):
                raise RefClashes(name, other.name)
        if len(others) >= MAX_REFS:
            raise TooManyRefs(row)
        return Ref.objects.create(adapter=adapter, kind=kind, name=name, revision=revision)


def delete(adapter: Adapter, *, actor: User, kind: str, name: str) -> None:
    """Take the name away; its revisions stay. Raises NotFound, MainStays, Forbidden."""
    if name == MAIN:
        raise MainStays
    with transaction.atomic():
        hold(adapter, actor=actor)
        if not Ref.objects.filter(adapter=adapter, kind=kind, name=name).delete()[0]:
            raise NotFound(f"{adapter.full_name} has no {kind} {name[:100]!r}.")


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME_LENGTH:
        raise BadRefName(name, f"it has {len(name)} characters; {MAX_NAME_LENGTH} are allowed.")
    if not _ALLOWED.match(name):
        raise BadRefName(
            name, "letters, digits, '-', '_', '.', '+', '=', '@' and single slashes are allowed."
        )
    parts = name.split("/")
    if ".." in name or any(part.startswith(".") or part.endswith((".", ".lock")) for part in parts):
        raise BadRefName(
            name, "as in git no part of it may begin or end with '.', have '..' in it, or end with '.lock'."
        )
    if _LIKE_A_COMMIT.match(name):
        raise BadRefName(name, "it looks like a commit.")
    if name.startswith("refs/"):
        raise BadRefName(name, "it begins with 'refs/'.")
    if name == "HEAD":
        raise BadRefName(name, f"it means {MAIN} already.")
