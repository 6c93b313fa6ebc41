"""Commits: changes to some files of an adapter on one of its branches, all or none, one after the other.

Each ends in a whole revision that the rules of publishing have seen. A revision without config or weights is kept as
well (`docs/decisions/0008`): it is a step on the way, has no facts and cannot be composed.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from registry import details, preparing, publishing, quotas, storage
from registry.errors import InspectionRefused, Problem
from registry.filenames import CARD, CONFIG, LEGACY_WEIGHTS
from registry.models import Adapter, Blob, Namespace, Ref, Revision, RevisionFile, User
from registry.names import check_adapter_name
from registry.preparing import Prepared
from registry.publishing import MAIN
from registry.rights import require_change, require_write
from web.errors import Conflict, DomainError, NotFound

logger = logging.getLogger(__name__)

FIRST_MESSAGE = "Create the repository"
MAX_DESCRIPTION = 10_000
# Somebody else's commit came between: read, check and try again, as often as parallel uploads may reasonably need.
_TRIES = 25


class NameTaken(Conflict):
    code = "exists"

    def __init__(self, adapter: Adapter) -> None:
        super().__init__(f"{adapter.full_name} exists already.")
        self.adapter = adapter


class StaleParent(DomainError):
    code = "stale_parent"
    status = 412

    def __init__(self, branch: str, head: str) -> None:
        super().__init__(
            f"Branch {branch} has moved on to {head[:8]} since the commit that yours builds on. "
            "Look at what is there now and send your changes again."
        )


class BranchBusy(Conflict):
    code = "branch_busy"

    def __init__(self, branch: str) -> None:
        super().__init__(f"Too many commits come to branch {branch} at once. Send yours again in a moment.")


class FileNotThere(NotFound):
    code = "file_not_there"

    def __init__(self, path: str) -> None:
        super().__init__(f"A file with this name doesn't exist: {path[:300]}")
        self.path = path


class _MovedOn(Exception):
    """The branch has another head than the commit was made for, or the adapter another base model or namespace."""


@dataclass(frozen=True)
class Put:
    """Have these bytes at `path`, whatever was there."""

    path: str
    blob: Blob


@dataclass(frozen=True)
class Delete:
    path: str


@dataclass(frozen=True)
class DeleteFolder:
    path: str


Operation = Put | Delete | DeleteFolder


@dataclass(frozen=True)
class Outcome:
    """The revision that a commit made, or the one that was there if it changed nothing; `warnings` are for people."""

    revision: Revision
    warnings: list[str]


def require_free_name(namespace: Namespace, name: str, *, of: Adapter | None = None) -> None:
    """Raises NameTaken where another adapter than `of` has this name, NameNotFree, NameMoved, NameOfBaseModel."""
    existing = publishing.find_by_name(namespace, name)
    if existing is not None and existing != of:
        raise NameTaken(existing)


def create_adapter(
    *, author: User, namespace: Namespace, name: str, visibility: str = Adapter.Visibility.PUBLIC
) -> Adapter:
    """An adapter with a first revision that has no files, to be filled by commits.

    Raises NameTaken, NameNotFree, NameMoved, NameOfBaseModel, InvalidName, Forbidden.
    """
    require_write(author, namespace, name)
    check_adapter_name(name)
    details.check_visibility(visibility)
    require_free_name(namespace, name)
    try:
        with transaction.atomic():
            quotas.hold(namespace)
            require_write(author, namespace, name)  # again: it may have been deleted at this moment
            adapter = publishing.create(namespace, name, author=author, visibility=visibility)
            with preparing.prepare({}, may_be_unfinished=True) as prepared:
                publishing.write_revision(
                    adapter, author=author, message=FIRST_MESSAGE, prepared=prepared, blobs={}
                )
            adapter.save()
    except IntegrityError:
        require_free_name(namespace, name)
        raise
    logger.info("created %s by %s", adapter, author)
    return adapter


def commit(
    adapter: Adapter,
    *,
    actor: User,
    branch: str = MAIN,
    operations: Iterable[Operation],
    message: str,
    description: str = "",
    parent: str = "",
) -> Outcome:
    """Apply the operations in their order to a branch's newest revision.

    `parent` is the commit, or its first digits, that the branch must still be at. Commits that change nothing make no
    revision. Two at once wait for each other and lose nothing. Raises NotFound for the branch, FileNotThere,
    StaleParent, BranchBusy, InspectionRefused, BadDetail, Forbidden; then nothing has changed.
    """
    require_change(actor, adapter)
    message = details.check_text("message", message)
    description = details.check_text("description", description, limit=MAX_DESCRIPTION)
    operations = list(operations)
    for attempt in range(_TRIES):
        head = branch_head(adapter, branch)
        if not head.commit.startswith(parent):
            raise StaleParent(branch, head.commit)
        # What `adapter` says of them may be as old as the request, and a body takes its time.
        adapter.refresh_from_db(fields=["base_model", "base_model_label", "head"])
        with contextlib.suppress(_MovedOn):
            return _commit_onto(head, adapter, actor, branch, operations, message, description)
        time.sleep(random.uniform(0, 0.05 * (attempt + 1)))  # noqa: S311 - only to get out of each other's way
    raise BranchBusy(branch)


def write_card(adapter: Adapter, *, actor: User, text: str, parent: str) -> Outcome:
    """The newest revision with this card, or with none where nothing but blanks is left of it. Raises what `commit` does.

    A card of which only the ends of lines would differ stays as it is: `text` has those that browsers leave.
    """
    head = branch_head(adapter, MAIN)
    message = "Edit the card"
    operations: list[Operation] = []
    sent: list[Blob] = []
    if not text.strip():
        message = "Remove the card"
        if head.files.filter(path=CARD).exists():
            operations.append(Delete(CARD))
    elif text != publishing.card_of(head).replace("\r\n", "\n"):
        raw = text.encode()
        sent.append(storage.store_stream([raw], size_bytes=len(raw)))
        operations.append(Put(CARD, sent[0]))
    try:
        return commit(adapter, actor=actor, operations=operations, message=message, parent=parent)
    finally:
        storage.discard(sent)  # which keeps what a revision has


def branch_head(adapter: Adapter, branch: str) -> Revision:
    """The newest revision of a branch. Raises NotFound."""
    head = Revision.objects.filter(
        refs__adapter=adapter, refs__name=branch, refs__kind=Ref.Kind.BRANCH
    ).first()
    if head is None:
        raise NotFound(f"{adapter.full_name} has no branch {branch[:100]!r}.")
    return head


def _commit_onto(
    head: Revision,
    adapter: Adapter,
    actor: User,
    branch: str,
    operations: list[Operation],
    message: str,
    description: str,
) -> Outcome:
    before = {
        file.path: file.blob for file in RevisionFile.objects.filter(revision=head).select_related("blob")
    }
    after = apply(operations, before)
    if after == before:
        return Outcome(head, [])
    files = {path: storage.local_path(blob) for path, blob in after.items()}
    preparing.require_size(files)
    by_old_card = publishing.said_by_card_of(head)
    # What somebody said since of its base model counts for what names the same one as main does.
    is_said = adapter.base_model_id is not None and _names_base_of_main(adapter, files)
    with preparing.prepare(
        files,
        base_model=adapter.base_model_label if is_said else "",
        fallback=adapter.base_model_label,
        may_be_unfinished=True,
    ) as prepared:
        _require_something_kept(operations, prepared)
        blobs, made = blobs_of(prepared.found.files, files, after)
        try:
            if blobs == before:
                return Outcome(head, prepared.found.warnings)
            revision = _write(
                adapter, head, actor, branch, message, description, prepared, blobs, by_old_card
            )
        except BaseException:
            storage.discard(made)
            raise
    logger.info("committed %s to %s of %s by %s", revision, branch, adapter, actor)
    return Outcome(revision, prepared.found.warnings)


def _names_base_of_main(adapter: Adapter, files: Mapping[str, Path]) -> bool:
    """Whether config and card call the base model as those of the newest version on main do."""
    rows = RevisionFile.objects.filter(revision=adapter.head_id, path__in=(CONFIG, CARD))
    with contextlib.suppress(storage.BytesMissing):
        on_main = {row.path: storage.local_path(row.blob) for row in rows.select_related("blob")}
        return list(preparing.labels_in(on_main)) == list(preparing.labels_in(files))
    return False


def _require_something_kept(operations: list[Operation], prepared: Prepared) -> None:
    """Raises InspectionRefused if the commit only adds files that are left out: it would come to nothing unnoticed."""
    why = {
        entry["path"]: entry["why"] for entry in prepared.found.left_out if entry["path"] != LEGACY_WEIGHTS
    }
    if all(isinstance(operation, Put) and operation.path in why for operation in operations):
        raise InspectionRefused(
            [
                Problem(
                    file=operation.path, message=f"{operation.path} is not kept here. {why[operation.path]}"
                )
                for operation in operations
            ]
        )


def apply(operations: Iterable[Operation], files: Mapping[str, Blob]) -> dict[str, Blob]:
    """The files after all operations, each applied to what those before it left. Raises FileNotThere."""
    found = dict(files)
    for operation in operations:
        match operation:
            case Put(path, blob):
                found[path] = blob
            case Delete(path):
                if path not in found:
                    raise FileNotThere(path)
                del found[path]
            case DeleteFolder(path):
                folder = path.rstrip("/") + "/"
                inside = [name for name in found if name.startswith(folder)]
                if not inside:
                    raise FileNotThere(path)
                for name in inside:
                    del found[name]
    return found


def blobs_of(
    kept: Mapping[str, Path], given: Mapping[str, Path], blobs: Mapping[str, Blob]
) -> tuple[dict[str, Blob], list[Blob]]:
    """The blobs of the files that are kept, and those made just now because a file was converted."""
    found: dict[str, Blob] = {}
    made: list[Blob] = []
    for name, path in sorted(kept.items()):
        if given.get(name) == path:
            found[name] = blobs[name]
        else:
            found[name] = storage.store_file(path)
            made.append(found[name])
    return found, made


def _write(
    adapter: Adapter,
    head: Revision,
    actor: User,
    branch: str,
    message: str,
    description: str,
    prepared: Prepared,
    blobs: Mapping[str, Blob],
    by_old_card: Mapping[str, Any],
) -> Revision:
    """The new revision, if all is still as it was checked against. Raises _MovedOn."""
    with transaction.atomic():
        try:
            row = publishing.hold_in_namespace(adapter, actor=actor)  # reading took a while
        except publishing.MovedMeanwhile as moved:
            raise _MovedOn from moved
        ref = Ref.objects.filter(adapter=row, name=branch).first()
        if ref is None:
            raise NotFound(f"The branch {branch!r} of {row.full_name} was deleted meanwhile.")
        is_of_same_base = (row.base_model_id, row.base_model_label) == (
            adapter.base_model_id, adapter.base_model_label,
        )  # fmt: skip
        if ref.revision_id != head.pk or not is_of_same_base:
            raise _MovedOn
        revision = publishing.write_revision(
            row, author=actor, message=message, description=description,
            prepared=prepared, blobs=blobs, branch=branch,
        )  # fmt: skip
        if branch == MAIN:
            publishing.describe_by_card(row, prepared, by_old_card=by_old_card)
            row.updated_at = timezone.now()
            row.save()
    return revision
