"""Publishing adapters, changing what is said about them, and taking them away.

Every door (page, REST, Hub protocol, command, composition) publishes here, so the rules are the same behind all.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from registry import (
    cards,
    details,
    preparing,
    quotas,
    safetensors_header,
    storage,
    task_sets,
    tombstones,
    weights_check,
)
from registry.details import BadDetail
from registry.filenames import CARD, CONFIG, WEIGHTS
from registry.models import (
    Adapter,
    BaseModel,
    Blob,
    Namespace,
    Origin,
    Ref,
    Revision,
    RevisionFile,
    Task,
    User,
    WeightStatistics,
)
from registry.names import check_adapter_name
from registry.preparing import Prepared
from registry.rights import require_change, require_write
from registry.search import upkeep
from web.database import after_commit
from web.errors import Conflict, Forbidden, NotFound

logger = logging.getLogger(__name__)

MAIN = "main"
# Variants whose A and B have other shapes than the base's matrices, so there is nothing to compare.
_OWN_LAYOUT = frozenset({"enable_lora", "bdlora", "qalora", "target_parameters", "layer_replication"})


# What else must hold before more people see a private adapter: the namespace and the visibility it is to have, and who wants
# that. Whoever stands above this app, and knows more about an adapter than it does, adds a function that refuses by a DomainError.
BEFORE_SHOWN: list[Callable[[Adapter, Namespace, str, User], None]] = []


class NameNotFree(Conflict):
    code = "name_not_free"

    def __init__(self, namespace: Namespace, name: str) -> None:
        super().__init__(
            f"{namespace.name}/{name} was deleted, and names are not handed out twice. Choose another name.",
            fields={"name": ["This name was used before."]},
        )


class NameMoved(Conflict):
    code = "name_not_free"

    def __init__(self, namespace: Namespace, name: str) -> None:
        super().__init__(
            f"{namespace.name}/{name} was moved and its old name leads to the new one. Choose another name.",
            fields={"name": ["This name was used before."]},
        )


class NameOfBaseModel(Forbidden):
    """Not a 409, which the Hub's clients take for "it is mine already"."""

    code = "name_of_base_model"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is the name of a base model that is hosted here. Choose another name.",
            fields={"name": ["The name of a base model."]},
        )


class PublishedMeanwhile(Conflict):
    code = "published_meanwhile"

    def __init__(self, namespace: Namespace, name: str) -> None:
        super().__init__(
            f"Somebody else published {namespace.name}/{name} while your files were read. Nothing of yours was "
            "kept. Look at what is there now, and upload again if you still want to.",
        )


def publish(
    *,
    author: User,
    namespace: Namespace,
    name: str,
    files: Mapping[str, Path],
    description: str = "",
    task: Task | None = None,
    task_title: str = "",
    base_model: str = "",
    license: str = "",
    visibility: str = "",
    tags: Sequence[str] = (),
    language: str = "",
    message: str = "",
    kind: str = Adapter.Kind.MODULE,
    origin: Origin | None = None,
    once_held: Callable[[], None] | None = None,
    once_written: Callable[[Adapter], None] | None = None,
) -> Adapter:
    """`namespace/name` with these files as its newest revision; the adapter is made if there is none.

    `files` maps names inside the adapter to files; those below UPLOAD_TMP_DIR are moved, others copied. What is
    left empty comes from the card, or stays as it was; a new adapter is public unless said otherwise. Files equal
    to the newest revision's make no new one; `origin` is kept with the revision that has them. Reading the files takes a while, and
    nothing is held meanwhile: `once_held` is called when the namespace is, before anything is written, and `once_written` after all of
    it. Raises InspectionRefused, NameNotFree, NameMoved, NameOfBaseModel, PublishedMeanwhile, BadDetail, InvalidName, Forbidden,
    Quarantined, StorageFull, and what those two raise; then nothing is kept.
    """
    require_write(author, namespace, name)
    check_adapter_name(name)
    given = _checked(description=description, license=license, language=language, base_model=base_model)
    message = details.check_text("message", message)
    tags = details.check_tags(tags)
    if visibility:
        details.check_visibility(visibility)
    before = find_by_name(namespace, name)
    if before is not None:
        require_change(author, before)
    if before is not None and kind == Adapter.Kind.COMPOSED:  # which is never a version of something else
        raise PublishedMeanwhile(namespace, name)
    preparing.require_size(files)
    fallback = before.base_model_label if before else ""
    by_old_card = said_by_card_of(before.head if before else None)
    with preparing.prepare(files, base_model=given.pop("base_model"), fallback=fallback) as prepared:
        blobs = _store(prepared.found.files)
        try:
            with transaction.atomic():
                quotas.hold(namespace)
                require_write(author, namespace, name)  # again: reading took a while, and they may be gone
                if once_held is not None:
                    once_held()
                adapter = _held(before, author) if before else _new(namespace, name, author, kind, visibility)
                if before and visibility:
                    _change_visibility(adapter, visibility, author)
                describe(adapter, given, tags, prepared, by_old_card=by_old_card)
                if not _is_unchanged(adapter, blobs):
                    write_revision(adapter, author=author, message=message, prepared=prepared, blobs=blobs)
                # After the revision, which sets the base model: of two tasks with one title it decides.
                adapter.task = task or _task_called(task_title, adapter, author) or adapter.task
                if origin is not None and adapter.head is not None:
                    said = {name: getattr(origin, name) for name in ("endpoint", "source", "commit")}
                    Origin.objects.get_or_create(revision=adapter.head, **said)
                adapter.updated_at = timezone.now()
                adapter.save()
                if once_written is not None:
                    once_written(adapter)
        except BaseException:
            storage.discard(blobs.values())
            raise
    logger.info("published %s at %s by %s", adapter, adapter.head, author)
    return adapter


def update_adapter(adapter: Adapter, *, actor: User, **changes: Any) -> Adapter:
    """Change what is said about an adapter: one of `details.TEXTS`, tags, visibility, task (a slug or title).

    Also `base_model`, for one whose base was unknown or wrong: its matrices are compared again. What else was changed since
    `adapter` was read stays. Raises Forbidden, BadDetail, NotFound.
    """
    texts = _checked(**{name: changes.pop(name) for name in list(changes) if name in details.LIMITS})
    with transaction.atomic():
        row = hold_in_namespace(adapter, actor=actor)
        for name in details.TEXTS:
            if name in texts:
                setattr(row, name, texts[name])
        if "tags" in changes:
            row.tags = details.check_tags(changes.pop("tags"))
        if "visibility" in changes:
            _change_visibility(row, changes.pop("visibility"), actor)
        if changes:
            raise TypeError(f"not changeable: {sorted(changes)}")
        if "base_model" in texts:
            _change_base(row, texts["base_model"])
        if "task" in texts:
            row.task = _task_called(texts["task"], row, actor)
        row.updated_at = timezone.now()
        row.save()
    return row


def _task_called(text: str, adapter: Adapter, person: User) -> Task | None:
    found = task_sets.task_called(
        text, owner=adapter.namespace, person=person, current=adapter.task, base_model=adapter.base_model
    )
    if found is not None and task_sets.kept(found, person=person) is None:
        raise Conflict(
            f"The task {found.title} was deleted or hidden at this moment, so nothing was kept. Try again."
        )
    return found


def _change_visibility(adapter: Adapter, visibility: str, actor: User) -> None:
    """Raises BadDetail, and what somebody has against its becoming public (`BEFORE_SHOWN`)."""
    visibility = details.check_visibility(visibility)
    require_showable(adapter, adapter.namespace, visibility, actor=actor)
    adapter.set_visibility(visibility)


def require_showable(adapter: Adapter, namespace: Namespace, visibility: str, *, actor: User) -> None:
    """Raises what somebody has against its being in `namespace` with `visibility`, if others see it there (`BEFORE_SHOWN`)."""
    has_other_readers = visibility == Adapter.Visibility.PUBLIC or namespace.pk != adapter.namespace_id
    if adapter.is_private and has_other_readers:
        for require in BEFORE_SHOWN:
            require(adapter, namespace, visibility, actor)


def withdraw(adapter: Adapter, *, actor: User) -> None:
    """Delete an adapter for everybody, with its texts and files. A tombstone stays (`registry.tombstones`).

    Raises Forbidden, also in quarantine: what is to be looked into does not vanish.
    """
    with transaction.atomic():
        hold_in_namespace(adapter, actor=actor)
        tombstones.bury(Adapter.objects.filter(pk=adapter.pk))
    logger.info("withdrew %s by %s", adapter, actor)


def recheck_adapters(base_model: BaseModel) -> Counter[str]:
    """Compare every adapter that was made for `base_model`, known by any of its names, with its matrices.

    For when a base model becomes known or gains a name. Returns how many adapters came to which `Revision.BaseFit`. It may take
    minutes, one short transaction for each adapter; done again it comes to the same.
    """
    called = Q(base_model=base_model)
    for name in [base_model.name, *base_model.aliases.values_list("text", flat=True)]:
        called |= Q(base_model=None, base_model_label__iexact=name)
    found: Counter[str] = Counter()
    for pk in Adapter.objects.filter(called, head__isnull=False).values_list("pk", flat=True):
        with transaction.atomic():
            adapter = Adapter.objects.select_for_update().get(pk=pk)
            _compare_with(adapter, base_model)
            adapter.save(update_fields=["base_model", "is_composable", "rank", "parameters", "size_bytes"])
        if adapter.head is not None:
            found[adapter.head.base_fit] += 1
    return found


def note_misfit(revision: Revision, base_model: BaseModel, reason: str) -> None:
    """Offer a version for composing no more: `base_model`, loaded, turned out not to take it, for this reason (a sentence)."""
    with transaction.atomic():
        adapter = Adapter.objects.select_for_update().get(pk=revision.adapter_id)
        if adapter.base_model_id != base_model.pk:
            return  # it has another one since, and was compared with that
        _keep_misfit(revision, {"base": _state_of(base_model), "reason": reason})
        if revision.pk == adapter.head_id:
            adapter.is_composable = False
            adapter.save(update_fields=["is_composable"])
    logger.warning("%s does not fit %s: %s", revision, base_model, reason)


# --- Writing it down -----------------------------------------------------------------------------------------


def _checked(**texts: str) -> dict[str, str]:
    return {name: details.check_text(name, value) for name, value in texts.items()}


def find_by_name(namespace: Namespace, name: str) -> Adapter | None:
    """The adapter of this name. Raises NameNotFree for one that was deleted, under this name or after it was moved,
    NameMoved, NameOfBaseModel.
    """
    adapter = Adapter.objects.filter(namespace=namespace, name__iexact=name).first()
    moved = (
        None
        if adapter
        else Adapter.objects.filter(
            former_names__namespace=namespace, former_names__name__iexact=name
        ).first()
    )
    had_it = adapter or moved
    if had_it is not None and had_it.deleted_at is not None:
        raise NameNotFree(namespace, name)
    if moved is not None:
        raise NameMoved(namespace, name)
    full_name = f"{namespace.name}/{name}"
    if (
        adapter is None
        and BaseModel.objects.filter(name__iexact=full_name, kind=BaseModel.Kind.HOSTED).exists()
    ):
        raise NameOfBaseModel(full_name)
    return adapter


def create(
    namespace: Namespace, name: str, *, author: User, kind: str = Adapter.Kind.MODULE, visibility: str = ""
) -> Adapter:
    """The row of a new adapter; the caller holds the namespace. Raises QuotaReached, and IntegrityError if somebody was faster."""
    quotas.require_room_for_one_more(namespace)
    adapter = Adapter(namespace=namespace, name=name, kind=kind, created_by=author)
    adapter.set_visibility(visibility or Adapter.Visibility.PUBLIC)
    with transaction.atomic():
        adapter.save()
    return adapter


def _new(namespace: Namespace, name: str, author: User, kind: str, visibility: str) -> Adapter:
    """Raises QuotaReached, and PublishedMeanwhile if somebody was faster."""
    try:
        return create(namespace, name, author=author, kind=kind, visibility=visibility)
    except IntegrityError as error:
        raise PublishedMeanwhile(namespace, name) from error


def hold(adapter: Adapter, *, actor: User) -> Adapter:
    """The adapter's row as it is now, nobody else's to change until this transaction ends.

    Since `adapter` was read somebody may have moved, hidden or changed it, and what was read then must be neither asked for
    rights nor written back. Raises NotFound if it was deleted, Forbidden, Quarantined.
    """
    # Two queries: in one, Postgres waits for the row and then looks for it in the namespace that it was moved out of.
    list(Adapter.objects.select_for_update().filter(pk=adapter.pk).values_list("pk"))
    row = Adapter.objects.select_related("namespace").get(pk=adapter.pk)
    if row.deleted_at is not None:
        raise NotFound(f"{row.full_name} was deleted meanwhile.")
    require_change(actor, row)
    return row


class MovedMeanwhile(Conflict):
    def __init__(self, before: Adapter, now: Adapter) -> None:
        super().__init__(f"{before.full_name} was moved to {now.full_name} at this moment. Try again there.")


def hold_in_namespace(adapter: Adapter, *, actor: User) -> Adapter:
    """As `hold`, for a caller that does not hold the namespace: first that, as whoever deletes it does.

    Postgres looks for the namespace of a row that is written to twice, or of a new task, at the end: too late to wait for it.
    Raises MovedMeanwhile where the adapter was moved to another one between the two.
    """
    namespace = Namespace.objects.get(adapters=adapter.pk)
    quotas.hold(namespace)
    row = hold(adapter, actor=actor)
    if row.namespace_id != namespace.pk:
        raise MovedMeanwhile(adapter, row)
    return row


def _held(before: Adapter, author: User) -> Adapter:
    """As `hold`, if it is what it was before the files were read. Raises NameMoved, and PublishedMeanwhile if somebody was faster."""
    adapter = hold(before, actor=author)
    if adapter.full_name != before.full_name:
        raise NameMoved(before.namespace, before.name)
    if adapter.head_id != before.head_id:
        raise PublishedMeanwhile(before.namespace, before.name)
    return adapter


def _store(files: Mapping[str, Path]) -> dict[str, Blob]:
    """All files as blobs. If one cannot be stored, those before it are discarded."""
    blobs: dict[str, Blob] = {}
    try:
        for name, path in sorted(files.items()):
            blobs[name] = storage.store_file(path)
    except BaseException:
        storage.discard(blobs.values())
        raise
    return blobs


def describe(
    adapter: Adapter,
    given: Mapping[str, str],
    tags: Sequence[str],
    prepared: Prepared,
    *,
    by_old_card: Mapping[str, Any],
) -> None:
    """Set what is said about the adapter: by the uploader, else as it was, else by the card.

    What was said by the card of the version before (`by_old_card`) is said by the new one now: another licence there is one here.
    """
    by_card = preparing.said_by_card(prepared.found.front_matter)
    by_uploader: dict[str, Any] = {**given, "tags": list(tags)}
    for name in ("description", *by_card):
        current, said = getattr(adapter, name), by_card.get(name)
        is_of_old_card = said and current == by_old_card.get(name)
        setattr(
            adapter, name, by_uploader.get(name) or (said if is_of_old_card else current) or said or current
        )


def card_of(revision: Revision | None) -> str:
    """The text of a version's card; "" without one. Raises BytesMissing."""
    card = RevisionFile.objects.filter(revision=revision, path=CARD).select_related("blob").first()
    return card_in(card.blob) if card is not None else ""


def card_in(blob: Blob) -> str:
    """The text of a card that lies in `blob`, with U+FFFD for what is no UTF-8. Raises BytesMissing."""
    with storage.open_blob(blob) as file:
        return file.read(cards.MAX_CARD_BYTES).decode("utf-8-sig", "replace")


def said_by_card_of(revision: Revision | None) -> dict[str, Any]:
    """What the card of a version says; nothing if it cannot be read."""
    front_matter = {}
    with suppress(storage.BytesMissing, cards.CardRefused):
        front_matter = cards.split_card(card_of(revision))[0]
    return preparing.said_by_card(front_matter)


def describe_by_card(adapter: Adapter, prepared: Prepared, *, by_old_card: Mapping[str, Any]) -> None:
    """Set what the card says and that of the version before (`by_old_card`) did not: settings may have changed since."""
    for name, said in preparing.said_by_card(prepared.found.front_matter).items():
        if said and said != by_old_card[name]:
            setattr(adapter, name, said)


def _is_unchanged(adapter: Adapter, blobs: Mapping[str, Blob]) -> bool:
    if adapter.head_id is None:
        return False
    return dict(RevisionFile.objects.filter(revision=adapter.head_id).values_list("path", "blob_id")) == {
        path: blob.pk for path, blob in blobs.items()
    }


def write_revision(
    adapter: Adapter,
    *,
    author: User,
    message: str,
    prepared: Prepared,
    blobs: Mapping[str, Blob],
    branch: str = MAIN,
    description: str = "",
) -> Revision:
    """A new revision at the end of a branch. On main its facts become the adapter's, which the caller saves.

    The caller holds the namespace (`quotas.hold`) and then the adapter's row. Raises QuotaReached.
    """
    found = prepared.found
    now = timezone.now()
    size_bytes = sum(blob.size_bytes for blob in blobs.values())
    quotas.require_bytes(adapter.namespace, size_bytes)
    message = message or ("Upload a new version" if adapter.head_id else "Upload")
    parent = Revision.objects.filter(refs__adapter=adapter, refs__name=branch).first()
    revision = Revision.objects.create(
        adapter=adapter,
        commit=_commit_id(adapter, parent, author, message, now, blobs),
        parent=parent,
        author=author,
        message=message,
        description=description,
        created_at=now,
        facts={**found.facts, "not_plain": _why_not_plain(prepared)} if found.facts else {},
        warnings=found.warnings,
        is_composable=not prepared.composable_reason,
        composable_reason=prepared.composable_reason[:500],
        base_fit=found.base_fit,
        tensor_sha256=found.facts.get("tensor_hash", ""),
        size_bytes=size_bytes,
    )
    before = parent.facts if parent and parent.tensor_sha256 == revision.tensor_sha256 else {}
    if misfit := _misfit_with(prepared.base_model, before):
        _keep_misfit(revision, misfit)
    RevisionFile.objects.bulk_create(
        RevisionFile(revision=revision, path=path, blob=blob, is_lfs=path.endswith(".safetensors"))
        for path, blob in sorted(blobs.items())
    )
    if parent is not None:
        _keep_statistics(revision, parent, blobs)
    Ref.objects.update_or_create(
        adapter=adapter, name=branch, defaults={"revision": revision, "kind": Ref.Kind.BRANCH}
    )
    if found.facts:
        adapter.renewed_at = now
    if branch != MAIN:
        adapter.save(update_fields=["renewed_at"])
        return revision
    adapter.head = revision
    adapter.base_model = prepared.base_model
    adapter.base_model_label = prepared.base_model_label
    _repeat_facts(adapter, revision)
    # After commit, and whatever becomes of it: a card that is not read now is read within the hour.
    after_commit(upkeep.read_card, adapter.pk, revision.pk)
    return revision


def _keep_statistics(revision: Revision, parent: Revision, blobs: Mapping[str, Blob]) -> None:
    """What was computed of the weights stays known where neither they nor what scales them has changed."""
    read = {path: blobs[path].pk for path in (CONFIG, WEIGHTS) if path in blobs}
    if dict(parent.files.filter(path__in=(CONFIG, WEIGHTS)).values_list("path", "blob_id")) != read:
        return
    # A problem may have been one of that moment; they are computed anew.
    if known := WeightStatistics.objects.filter(revision=parent, problem="").first():
        WeightStatistics.objects.create(revision=revision, matrices=known.matrices, version=known.version)


def _why_not_plain(prepared: Prepared) -> str:
    """Why these weights cannot be composed whatever the base model: a reason that comes from this base is no such."""
    reason = prepared.found.composable_reason
    base = prepared.base_model
    of_this_base = _compare_facts(prepared.found.facts, base, base.sizes() or None if base else None)[1]
    return "" if base and reason == of_this_base else reason


def _commit_id(
    adapter: Adapter,
    parent: Revision | None,
    author: User,
    message: str,
    when: datetime,
    blobs: Mapping[str, Blob],
) -> str:
    """40 hex digits from everything that the commit says, like git's: another content, another id."""
    said = {
        "adapter": adapter.pk,
        "parent": parent.commit if parent else None,
        "author": author.username,
        "message": message,
        "created_at": when.isoformat(),
        "files": [[path, blob.sha256] for path, blob in sorted(blobs.items())],
    }
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha1(canonical.encode(), usedforsecurity=False).hexdigest()


def _repeat_facts(adapter: Adapter, head: Revision) -> None:
    """The head's facts, on the adapter, where lists and filters read them."""
    adapter.rank = head.facts.get("rank")
    adapter.parameters = head.facts.get("parameters")
    adapter.size_bytes = head.size_bytes
    adapter.is_composable = head.is_composable


# --- When the base model becomes known, or is another one ------------------------------------------------------


def _change_base(adapter: Adapter, name: str) -> None:
    """Give an adapter another base model, if its newest revision fits that. Raises InspectionRefused if it does not."""
    base, label = preparing.resolve_base(name)
    adapter.base_model_label = label
    _compare_with(adapter, base)
    head = adapter.head
    if head is not None and base is not None and head.base_fit == Revision.BaseFit.DIFFERS:
        raise BadDetail("base_model", head.composable_reason)


def _compare_with(adapter: Adapter, base: BaseModel | None) -> None:
    """Compare all revisions with `base` by the shapes in their facts; `adapter` itself is left for the caller to save."""
    adapter.base_model = base
    matrices = (base.sizes() or None) if base else None
    for revision in adapter.revisions.all():
        if not revision.facts:
            continue  # not complete, so there is nothing to compare
        fit, reason = _compare_facts(revision.facts, base, matrices)
        _conclude(revision, fit, reason)
        if revision.pk == adapter.head_id:
            adapter.head = revision
            _repeat_facts(adapter, revision)


def _conclude(revision: Revision, fit: str, reason: str) -> None:
    """Keep how a version fits its base model and, unless it is empty, why it cannot be composed."""
    revision.base_fit, revision.composable_reason = fit, reason[:500]
    revision.is_composable = not reason
    revision.save(update_fields=["base_fit", "composable_reason", "is_composable"])


def _state_of(base: BaseModel) -> str:
    """The base model by its name and, if it is hosted here, its files: with others it is compared anew."""
    return f"{base.name}@{base.commit}"


def _misfit_with(base: BaseModel | None, facts: Mapping[str, Any]) -> Mapping[str, str] | None:
    """What a worker found that does not fit this very base model, if anything."""
    misfit: Mapping[str, str] | None = facts.get("misfit")
    return misfit if base and misfit and misfit["base"] == _state_of(base) else None


def _keep_misfit(revision: Revision, misfit: Mapping[str, str]) -> None:
    """Keep among the facts what a worker found, so that it holds when they are compared again."""
    revision.facts = {**revision.facts, "misfit": misfit}
    revision.save(update_fields=["facts"])
    _conclude(revision, Revision.BaseFit.DIFFERS, misfit["reason"])


def _compare_facts(
    facts: Mapping[str, Any], base: BaseModel | None, matrices: weights_check.Matrices | None
) -> tuple[str, str]:
    """How the tensors in a revision's facts fit a base model: (BaseFit, why it cannot be composed or "")."""
    not_plain = facts.get("not_plain", "")
    if base is None or not matrices or set(facts.get("variants", ())) & _OWN_LAYOUT:
        return Revision.BaseFit.UNCHECKED, not_plain or preparing.why_unchecked(
            base, Revision.BaseFit.UNCHECKED
        )
    if misfit := _misfit_with(base, facts):
        return Revision.BaseFit.DIFFERS, misfit["reason"]
    tensors = [
        safetensors_header.TensorInfo(tensor["name"], tensor["dtype"], tuple(tensor["shape"]), 0, 0)
        for tensor in facts.get("tensors", ())
    ]
    problems = weights_check.Problems()
    weights = weights_check.sort_tensors(tensors, weights_check.Problems())
    all_compared, without_head = weights_check.check_against_base(
        weights, matrices, facts.get("task_type"), problems, base_name=base.name
    )
    if problems:
        return Revision.BaseFit.DIFFERS, problems[0].message
    fit = Revision.BaseFit.FITS if all_compared else Revision.BaseFit.UNCHECKED
    return fit, not_plain or without_head or preparing.why_unchecked(base, fit)
