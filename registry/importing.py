"""Importing adapters from another Hub: pinned to a commit, through the same rules as every upload.

Bytes that are here already, and that the importer may read, are not fetched again; what was fetched is kept for a day as
theirs, so that an import that was broken off goes on behind it.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Lower

from registry import filenames, publishing, sent, storage
from registry.models import Adapter, Blob, Namespace, Origin, Revision, User
from registry.other_hubs import ImportFailed, OtherHub, SourceFile, check_name, listed_endpoint
from registry.rights import may_read_blob, require_write
from web.errors import Conflict
from web.templatetags.formatting import plural

logger = logging.getLogger(__name__)

MAX_REPOSITORIES = 1000
MOST_NAMED = 5
_WILD = frozenset("*?[")


class NotFromThere(Conflict):
    """An import never puts a revision on top of what is something else."""

    code = "name_not_free"

    def __init__(self, adapter: Adapter, source: str, endpoint: str) -> None:
        super().__init__(
            f"{adapter.full_name} is here already and was not imported from {source} at {endpoint}. "
            "Import it under another name.",
            fields={"name": ["This name is taken."]},
        )


class ChangedHere(Conflict):
    """A newer commit would become the newest version on top of what somebody made here since the import before."""

    code = "changed_here"

    def __init__(self, adapters: Sequence[Adapter], hub: str) -> None:
        shown, more = adapters[:MOST_NAMED], len(adapters) - MOST_NAMED
        names = ", ".join(adapter.full_name for adapter in shown) + (f" and {more} more" if more > 0 else "")
        super().__init__(
            f"{names}: newer versions were made here since the import from {hub}. A newer commit there would become the "
            "newest version, on top of those. Confirm that (overwrite), or import under another name.",
            fields={"overwrite": ["Changed here since it was imported."]},
        )


@dataclass(frozen=True)
class Progress:
    """How far one import is: bytes that are here of those that it needs."""

    commit: str
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True)
class Imported:
    """What became of one import. `fetched_bytes` came over the wire; `is_new` is false if the commit was here already."""

    adapter: Adapter
    commit: str
    fetched_bytes: int
    is_new: bool


def import_adapter(
    *,
    actor: User,
    namespace: Namespace,
    source: str,
    name: str = "",
    revision: str = "",
    endpoint: str = "",
    token: str = "",
    visibility: str = "",
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Imported:
    """The adapter `source` of another Hub as `namespace/name`, by default with its own name.

    `visibility` is that of a new adapter; who sees one that is here stays as it is.
    `revision` is a branch, tag or commit there, main unless given; the commit that it means now is fetched and recorded
    with our revision (Origin). Card, licence, tags and base model are taken over, an `adapter_model.bin` is converted.
    With `overwrite` it may become the newest version on top of what was made here since; its message then says so.
    `token` is the importer's own for the other Hub; it is neither kept nor logged. `on_progress` may raise to stop.
    Raises ImportFailed, NotFromThere, ChangedHere, and whatever `publishing.publish` does.
    """
    endpoint = listed_endpoint(endpoint)
    require_write(actor, namespace)  # before anything is fetched: the import may have waited for long
    with OtherHub(endpoint, token) as hub:
        asked, (source, commit) = source, hub.commit_of(source, revision)
        ids = {asked.lower(), source.lower()}  # two, if it was renamed there
        name = name or _name_here(namespace, endpoint, asked, source)
        present = _present(namespace, name, endpoint, ids, source, commit)
        if present is not None:
            return Imported(present, commit, 0, is_new=False)
        _covered(namespace, name, endpoint, ids, overwrite)
        wanted = _wanted(source, hub.files_of(source, commit))
        total = sum(file.size_bytes for file in wanted)
        storage.require_free_space(total)
        collecting = _Collecting(hub, actor, source, commit, total, on_progress)
        blobs = {file.path: collecting.blob_of(file) for file in wanted}
        try:
            made_here = _covered(namespace, name, endpoint, ids, overwrite)  # again: fetching took a while
            adapter = publishing.publish(
                author=actor,
                namespace=namespace,
                name=name,
                files={path: storage.local_path(blob) for path, blob in blobs.items()},
                message=f"Import {source} at {commit} from {endpoint}{_said_of(made_here)}",
                visibility="" if _known(namespace, name) else visibility,
                origin=Origin(endpoint=endpoint, source=source, commit=commit),
            )
        finally:
            sent.forget_sent(actor, collecting.fetched)  # the revision has them now, or nobody wants them
    fetched_bytes = collecting.fetched_bytes
    logger.info("imported %s at %s as %s: %d bytes fetched", source, commit, adapter, fetched_bytes)
    return Imported(adapter, commit, fetched_bytes, is_new=True)


def require_unchanged(
    *, namespace: Namespace, sources: Iterable[str], endpoint: str = "", name: str = ""
) -> None:
    """Raises ChangedHere if one of these ids and patterns came here before and has newer versions of our own.

    Whether there is anything newer is known only there, so this may ask about what would stay as it is.
    """
    endpoint, wanted = listed_endpoint(endpoint), list(sources)
    from_there = (
        Origin.objects.filter(
            endpoint=endpoint, revision__adapter__in=Adapter.objects.alive().filter(namespace=namespace)
        )
        .select_related("revision__adapter__namespace")
        .defer("revision__facts")
    )
    came: set[int] = set()  # also what came under another name, before or after it was renamed there
    meant: set[Adapter] = set()
    for origin in from_there:
        adapter = origin.revision.adapter
        came.add(origin.revision_id)
        would_be_called = name or origin.source.rpartition("/")[2]
        if adapter.name.lower() == would_be_called.lower() and _is_meant(origin.source, wanted):
            meant.add(adapter)
    changed = [adapter for adapter in meant if adapter.head_id not in came]
    if changed:
        raise ChangedHere(sorted(changed, key=lambda adapter: adapter.name), endpoint)


def _is_meant(source: str, wanted: Iterable[str]) -> bool:
    return any(
        fnmatchcase(source, one) if is_pattern(one) else source.lower() == one.lower() for one in wanted
    )


def find_sources(patterns: Sequence[str], *, endpoint: str = "", token: str = "") -> list[str]:
    """The repositories of another Hub that ids and patterns (`lorahub/flan_t5_large-*`) mean, each once, in order.

    Raises ImportFailed, also if a pattern means nothing or all of them more than MAX_REPOSITORIES.
    """
    endpoint = listed_endpoint(endpoint)
    found: dict[str, None] = {}
    with OtherHub(endpoint, token) as hub:
        for pattern in patterns:
            found |= dict.fromkeys(_matching(hub, pattern) if is_pattern(pattern) else [pattern])
    if len(found) > MAX_REPOSITORIES:
        raise ImportFailed(
            f"That is {len(found):,} repositories; one import takes {MAX_REPOSITORIES:,}. Narrow the patterns."
        )
    return list(found)


def is_pattern(text: str) -> bool:
    return bool(set(text) & _WILD)


def check_sources(sources: Iterable[str]) -> list[str]:
    """Ids and patterns as they were given, each once. Raises ImportFailed for what can be neither."""
    checked = list(dict.fromkeys(source.strip() for source in sources if source.strip()))
    if not checked:
        raise ImportFailed(
            "Say what to import, such as lorahub/flan_t5_large-who.", fields={"sources": ["Empty."]}
        )
    if len(checked) > MAX_REPOSITORIES:
        raise ImportFailed(f"That is {len(checked):,} lines; one import takes {MAX_REPOSITORIES:,}.")
    for source in checked:
        if not is_pattern(source):
            check_name(source)
        # Repositories without an author, such as gpt2, are base models of the Hub's first years, never adapters.
        author, _, own = source.partition("/")
        if is_pattern(author) or not own:
            raise ImportFailed(
                f"{source[:100]!r} names nobody: write the author in full, such as lorahub/flan_t5_large-*.",
                fields={"sources": ["Names nobody."]},
            )
        check_name(author)
    return checked


def _matching(hub: OtherHub, pattern: str) -> list[str]:
    check_sources([pattern])
    names = hub.models_of(pattern.partition("/")[0])
    found = sorted(name for name in names if fnmatchcase(name, pattern))
    if not found:
        raise ImportFailed(f"{hub.endpoint} has nothing called {pattern!r}.")
    return found


def _name_here(namespace: Namespace, endpoint: str, asked: str, source: str) -> str:
    """As it is called there now; or as it was called, if it came here under that name before it was renamed there."""
    before, now = asked.rpartition("/")[2], source.rpartition("/")[2]
    if before.lower() == now.lower() or not _origins(namespace, before, endpoint, {asked.lower()}).exists():
        return now
    return before


def _origins(namespace: Namespace, name: str, endpoint: str, ids: set[str]) -> QuerySet[Origin]:
    """Whence the versions of an adapter here came, as far as that was one of these repositories."""
    rows = Origin.objects.filter(
        revision__adapter__in=Adapter.objects.alive().filter(namespace=namespace, name__iexact=name),
        endpoint=endpoint,
    )
    return rows.annotate(lower=Lower("source")).filter(lower__in=ids)


def _known(namespace: Namespace, name: str) -> Adapter | None:
    return Adapter.objects.alive().filter(namespace=namespace, name__iexact=name).first()


def _present(
    namespace: Namespace, name: str, endpoint: str, ids: set[str], source: str, commit: str
) -> Adapter | None:
    """The adapter of this name if it has this very commit. Raises NotFromThere if it is something else."""
    known = _known(namespace, name)
    if known is None:
        return None
    from_there = _origins(namespace, name, endpoint, ids)
    if not from_there.exists():
        raise NotFromThere(known, source, endpoint)
    return known if from_there.filter(commit=commit).exists() else None


def _covered(
    namespace: Namespace, name: str, endpoint: str, ids: set[str], overwrite: bool
) -> list[Revision]:
    """What was made here and a newer commit goes on top of. Raises ChangedHere for any without `overwrite`."""
    made_here = _made_here(namespace, name, endpoint, ids)
    if made_here and not overwrite:
        raise ChangedHere([made_here[0].adapter], endpoint)
    return made_here


def _made_here(namespace: Namespace, name: str, endpoint: str, ids: set[str]) -> list[Revision]:
    """The newest versions of the adapter of this name that did not come from there, down to the one that did."""
    came = set(_origins(namespace, name, endpoint, ids).values_list("revision_id", flat=True))
    known = _known(namespace, name)
    if known is None:
        return []
    revisions = {row.pk: row for row in known.revisions.select_related("adapter__namespace").defer("facts")}
    found = []
    at = known.head_id
    while at is not None and at not in came:
        found.append(revisions[at])
        at = revisions[at].parent_id
    return found


def _said_of(made_here: Sequence[Revision]) -> str:
    if not made_here:
        return ""
    return f", on top of {plural(len(made_here), 'version,versions')} made here since ({made_here[0].short_commit})"


def _wanted(source: str, files: list[SourceFile]) -> list[SourceFile]:
    """The files that we could keep. Raises ImportFailed if they are too large or no adapter."""
    wanted = [
        file
        for file in files
        if file.path in filenames.ADAPTER_FILES
        or not filenames.why_left_out_unread(file.path, file.size_bytes)
    ]
    # Where there is safetensors, its pickled twin is not worth fetching.
    paths = {file.path for file in wanted}
    if filenames.WEIGHTS in paths:
        wanted = [file for file in wanted if file.path != filenames.LEGACY_WEIGHTS]
    if filenames.CONFIG not in paths:
        raise ImportFailed(f"{source} is no adapter: it has no {filenames.CONFIG}.")
    for file in wanted:
        if file.size_bytes > settings.MAX_FILE_BYTES:
            raise ImportFailed(
                f"{file.path} of {source} has {file.size_bytes:,} bytes; one file may have {settings.MAX_FILE_BYTES:,}."
            )
    total = sum(file.size_bytes for file in wanted)
    if total > settings.MAX_ADAPTER_BYTES:
        raise ImportFailed(
            f"{source} has {total:,} bytes; one adapter may have {settings.MAX_ADAPTER_BYTES:,}."
        )
    if len(wanted) > settings.MAX_FILES_PER_ADAPTER:
        raise ImportFailed(
            f"{source} has {len(wanted)} files; an adapter may have {settings.MAX_FILES_PER_ADAPTER}."
        )
    return wanted


class _Collecting:
    """The files of one repository as blobs, one after the other."""

    def __init__(
        self,
        hub: OtherHub,
        actor: User,
        source: str,
        commit: str,
        total: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.hub, self.actor, self.source, self.commit = hub, actor, source, commit
        self.total, self.on_progress = total, on_progress
        self.fetched: list[Blob] = []
        self.fetched_bytes = 0
        self.done = 0

    def blob_of(self, file: SourceFile) -> Blob:
        """Its bytes, fetched unless they are here and the importer may read them. Raises ImportFailed."""
        self._tick(0)
        known = _here_already(file, self.actor)
        if known is not None:
            self._tick(file.size_bytes)
            return known
        blob = self._fetch(file)
        sent.note_sent(self.actor, blob)  # from now on another attempt need not fetch it
        self.fetched.append(blob)
        return blob

    def _fetch(self, file: SourceFile) -> Blob:
        with _part_called(f"import-{self._key(file)}.part") as target:
            self._tick(target.stat().st_size)
            self.fetched_bytes += self.hub.fetch(self.source, self.commit, file, target, tick=self._tick)
            try:
                digests = storage.digest(target, git_sha1=bool(file.git_sha1))
                if file.sha256 not in ("", digests.sha256) or file.git_sha1 not in ("", digests.git_sha1):
                    raise ImportFailed(
                        f"{file.path} of {self.source} arrived with other bytes than the Hub says that it has."
                    )
                return storage.store_file(target, digests=digests)
            finally:
                target.unlink(missing_ok=True)

    def _key(self, file: SourceFile) -> str:
        """A name for the unfinished file: the same for the next attempt of the same person, and for nobody else."""
        said = (self.hub.endpoint, self.source, self.commit, file.path, str(self.actor.pk))
        return sha256("\n".join(said).encode()).hexdigest()[:32]

    def _tick(self, length: int) -> None:
        self.done = min(self.done + length, self.total)
        self.on_progress(Progress(self.commit, self.done, self.total))


@contextmanager
def _part_called(name: str) -> Iterator[Path]:
    """The unfinished file of this name, made if need be, for this import alone: what is left in it is for the next attempt.

    Where another import of the same person is at it now, a file of another name, which goes.
    """
    place = settings.UPLOAD_TMP_DIR / name
    with place.open("ab") as file:
        if _is_taken(file, place):
            own = storage.temp_path()
            own.touch()
            try:
                yield own
            finally:
                own.unlink(missing_ok=True)
        else:
            yield place


def _is_taken(file: BinaryIO, place: Path) -> bool:
    """Whether somebody else works on the file at `place`, or has just taken it away; from now on nobody else may."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return place.stat().st_ino != os.fstat(file.fileno()).st_ino
    except (BlockingIOError, FileNotFoundError):
        return True


def _here_already(file: SourceFile, actor: User) -> Blob | None:
    found = (
        Blob.objects.filter(sha256=file.sha256)
        if file.sha256
        else Blob.objects.filter(git_sha1=file.git_sha1)
    )
    blob = found.filter(size_bytes=file.size_bytes).first()
    return blob if blob is not None and may_read_blob(actor, blob) else None
