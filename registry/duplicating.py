"""Copies of adapters, made here: no byte travels, and none is stored twice.

A copy has the newest files of another adapter and what is said about it, licence included, under a name of its own. Its
history begins with it; where it came from stands in the message of its first version, and whose weights it has on its page.
"""

from __future__ import annotations

import logging

from django.db import IntegrityError, transaction
from django.utils import timezone

from registry import commits, details, preparing, publishing, quotas, storage, task_sets
from registry.models import Adapter, Namespace, RevisionFile, Task, User
from registry.names import check_adapter_name
from registry.rights import may_change, require_write, visible_adapter
from web.database import keep_from_deletion
from web.errors import Forbidden

logger = logging.getLogger(__name__)

# What is said about an adapter and goes with its files.
_SAID = (*details.TEXTS, "base_model_label")


class NotToBeCopied(Forbidden):
    code = "not_to_be_copied"


def duplicate(
    source: Adapter, *, actor: User, namespace: Namespace, name: str, visibility: str = ""
) -> Adapter:
    """`namespace/name` with the newest files of `source`, which the actor sees; as private as that unless said otherwise.

    Raises NotToBeCopied, what somebody has against its being shown there (`publishing.BEFORE_SHOWN`), NameTaken and the
    other refusals of `commits.create_adapter`, QuotaReached, InspectionRefused, NotFound where the source went meanwhile.
    """
    require_write(actor, namespace, name)
    check_adapter_name(name)
    visibility = details.check_visibility(visibility) if visibility else source.visibility
    require_copyable(source, namespace, visibility, actor)
    commits.require_free_name(namespace, name)
    commit = source.head.commit if source.head else ""
    rows = RevisionFile.objects.filter(revision=source.head_id).select_related("blob")
    given = {row.path: row.blob for row in rows}
    files = {path: storage.local_path(blob) for path, blob in given.items()}
    preparing.require_size(files)
    base = source.base_model.name if source.base_model else source.base_model_label
    with preparing.prepare(files, base_model=base, may_be_unfinished=True) as prepared:
        blobs, made = commits.blobs_of(prepared.found.files, files, given)
        try:
            with transaction.atomic():
                quotas.hold(namespace)
                require_write(actor, namespace, name)  # again: reading took a while
                keep_from_deletion(Adapter.objects.filter(pk=source.pk))
                now = visible_adapter(actor, source.namespace.name, source.name)
                require_copyable(now, namespace, visibility, actor)
                copy = publishing.create(namespace, name, author=actor, visibility=visibility)
                publishing.write_revision(
                    copy, author=actor, message=_message(now, commit), prepared=prepared, blobs=blobs
                )
                for said in _SAID:
                    setattr(copy, said, getattr(now, said))
                copy.tags, copy.task = list(now.tags), _task_of(now, actor)
                copy.updated_at = timezone.now()
                copy.save()
        except IntegrityError:
            storage.discard(made)
            commits.require_free_name(namespace, name)
            raise
        except BaseException:
            storage.discard(made)
            raise
    logger.info("duplicated %s as %s by %s", source, copy, actor)
    return copy


def require_copyable(source: Adapter, namespace: Namespace, visibility: str, actor: User) -> None:
    """Raises NotToBeCopied for what is in quarantine, and for what is private and others would see who may not now."""
    if source.is_quarantined:
        raise NotToBeCopied(
            f"{source.full_name} is in quarantine, and what is to be looked into is not copied."
        )
    is_for_others = visibility != Adapter.Visibility.PRIVATE or namespace.is_organisation
    if source.is_private and namespace.pk == source.namespace_id:
        is_for_others = visibility != Adapter.Visibility.PRIVATE
    if source.is_private and is_for_others and not may_change(actor, source):
        raise NotToBeCopied(
            f"{source.full_name} is private: only who may write to it makes a copy that others see. Keep yours private, in your "
            "own namespace."
        )
    publishing.require_showable(source, namespace, visibility, actor=actor)


def _task_of(source: Adapter, actor: User) -> Task | None:
    """A private task stays with what its members have made."""
    if source.task is None or source.task.is_private:
        return None
    return task_sets.kept(source.task, person=actor)


def _message(source: Adapter, commit: str) -> str:
    """Whoever reads the copy may not be one of those who may know of a private source."""
    return (
        "Duplicate of a private module"
        if source.is_private
        else f"Duplicate of {source.full_name} at {commit}"
    )
