"""What the Hub calls a repository: an adapter, or a base model that is hosted here, with its revisions and files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.db.models import Prefetch, prefetch_related_objects

from registry import moving
from registry.filenames import WEIGHTS
from registry.hub.errors import EntryNotFound, Moved, RepositoryNotFound, RevisionNotFound
from registry.models import Adapter, BaseModel, BaseModelFile, Blob, Ref, Revision, RevisionFile
from registry.publishing import MAIN
from registry.rights import Person, visible_adapter
from web.errors import Forbidden, NotFound
from web.kept_queries import KeptQuery, text_of

LARGE_BYTES = 10 * 1024**2
_MAX_SEGMENTS = 40
_HEAD = "HEAD"  # git's word for where one begins
_REF = re.compile(r"\Arefs/(?:heads|tags)/")  # as `refs` tells the names of branches and tags in full
_COMMIT = re.compile(r"[0-9a-f]{7,40}\Z")


class NotWritable(Forbidden):
    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is a base model that is hosted here; it cannot be written to.")


@dataclass(frozen=True)
class File:
    """A file of a revision. Weights are "LFS" files whatever way they came: clients know them by sha256."""

    path: str
    blob: Blob
    is_lfs: bool

    @property
    def etag(self) -> str:
        """What clients call the bytes: sha256 of weights, git's blob id of anything else."""
        return self.blob.sha256 if self.is_lfs else self.blob.git_sha1

    @property
    def oid(self) -> str:
        """git's blob id: of the pointer for weights, else of the content."""
        return git_sha1(self.pointer) if self.is_lfs else self.blob.git_sha1

    @property
    def pointer(self) -> bytes:
        """The text that Git LFS keeps in place of the bytes."""
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.blob.sha256}\nsize {self.blob.size_bytes}\n"
        ).encode()


@dataclass(frozen=True)
class Snapshot:
    """One revision of a repository; `revision` is None for a base model's, which has just one."""

    repository: Repository
    commit: str
    created_at: datetime
    title: str
    author: str
    revision: Revision | None = None

    def files(self) -> list[File]:
        """All files by path, each with its blob."""
        if self.revision is not None:
            return [File(row.path, row.blob, row.is_lfs) for row in self.revision.files_by_path()]
        assert self.repository.base_model is not None
        own = self.repository.base_model.files.select_related("blob").order_by("path")
        return [File(row.path, row.blob, _is_large(row.path, row.blob)) for row in own]

    def file(self, path: str) -> File:
        """The file at `path`. Raises EntryNotFound."""
        found = next((file for file in self.files() if file.path == path), None)
        if found is None:
            raise EntryNotFound(path, self.commit)
        return found


@dataclass(frozen=True)
class Repository:
    """Either an adapter or a base model hosted here."""

    name: str
    adapter: Adapter | None = None
    base_model: BaseModel | None = None

    def __str__(self) -> str:
        return self.name

    def snapshot(self, revision: str = MAIN) -> Snapshot:
        """The revision of this branch, tag or commit (7 or more of its digits). Raises RevisionNotFound."""
        name = short_name(revision)
        found = self._in_adapter(name) if self.adapter else self._in_base_model(name)
        if found is None:
            raise RevisionNotFound(self.name, revision)
        return found

    def blob_called(self, sha256: str) -> Blob | None:
        """The bytes of some file here, in whatever revision."""
        if self.adapter is not None:
            return Blob.objects.filter(sha256=sha256, revision_files__revision__adapter=self.adapter).first()
        files = BaseModelFile.objects.filter(base_model=self.base_model, blob__sha256=sha256)
        return next((file.blob for file in files.select_related("blob")), None)

    def split(self, rest: str) -> tuple[str, str]:
        """An address behind `resolve/` or the like as (revision, path).

        Django has decoded `feature%2Fx`, so the longest branch or tag that there is counts; none begins with
        the name of another and a slash.
        """
        full = _REF.match(rest)
        start = full[0] if full else ""
        parts = rest[len(start) :].split("/")
        starts = ["/".join(parts[:end]) for end in range(1, min(len(parts), _MAX_SEGMENTS) + 1)]
        known: list[str] = []
        # Everything has a main branch: nothing to ask for.
        if self.adapter is not None and parts[0] != MAIN:
            known = list(self.adapter.refs.filter(name__in=starts).values_list("name", flat=True))
        unknown = "/".join(parts[:3]) if parts[0] == "refs" else parts[0]  # such as refs/pr/1
        revision = start + max(known, key=len, default=unknown)
        return revision, rest[len(revision) + 1 :]

    def snapshot_of(self, revision: Revision) -> Snapshot:
        author = revision.author.username if revision.author else ""
        return Snapshot(self, revision.commit, revision.created_at, revision.message, author, revision)

    def history(self, snapshot: Snapshot, *, start: int, size: int) -> tuple[list[Snapshot], int]:
        """Of this revision and its ancestors, newest first, `size` from the place `start` on; and how many there are in all."""
        if snapshot.revision is None:
            return [snapshot][start:], 1
        places, total = line_of(snapshot.revision, start=start, size=size)
        rows = Revision.objects.select_related("author").defer("facts", "warnings").in_bulk(places)
        return [self.snapshot_of(rows[place]) for place in places], total

    def _in_adapter(self, name: str) -> Snapshot | None:
        assert self.adapter is not None
        if name == MAIN and self.adapter.head is not None:
            return self.snapshot_of(self.adapter.head)
        revisions = Revision.objects.filter(adapter=self.adapter).select_related("author")
        ref = Ref.objects.filter(adapter=self.adapter, name=name).first()
        if ref is not None:
            return self.snapshot_of(revisions.get(pk=ref.revision_id))
        if not _COMMIT.match(name):
            return None
        found = list(revisions.filter(commit__startswith=name)[:2])
        return self.snapshot_of(found[0]) if len(found) == 1 else None

    def _in_base_model(self, name: str) -> Snapshot | None:
        assert self.base_model is not None
        commit = self.base_model.commit
        if name != MAIN and not (_COMMIT.match(name) and commit.startswith(name)):
            return None
        return Snapshot(self, commit, self.base_model.created_at, "Host this base model", "")


def short_name(revision: str) -> str:
    """What a branch or tag is called here: `main` for `HEAD`, `v1` for `refs/tags/v1`."""
    return MAIN if revision == _HEAD else _REF.sub("", revision)


_HOSTED = KeptQuery(
    lambda name: BaseModel.objects.filter(name__iexact=name, kind=BaseModel.Kind.HOSTED), text_of("name")
)


def find(person: Person, name: str) -> Repository:
    """The repository `namespace/name` if this person may see it. Raises RepositoryNotFound, Moved."""
    hosted = _HOSTED.rows(name=name)
    if hosted:
        return Repository(hosted[0].name, base_model=hosted[0])
    namespace, _, own = name.partition("/")
    try:
        adapter = visible_adapter(person, namespace, own)
    except NotFound as error:
        moved = moving.moved_from(namespace, own)
        if moved is not None and Adapter.objects.visible_to(person).filter(pk=moved.pk).exists():
            raise Moved(name, moved.full_name) from error
        raise RepositoryNotFound(name) from error
    return Repository(adapter.full_name, adapter=adapter)


def find_file(person: Person, name: str, rest: str) -> tuple[Snapshot, File]:
    """The file at `REVISION/PATH` of a repository. Raises RepositoryNotFound, RevisionNotFound, EntryNotFound."""
    repository = find(person, name)
    revision, path = repository.split(rest)
    snapshot = repository.snapshot(revision)
    return snapshot, snapshot.file(path)


def line_of(head: Revision, *, start: int, size: int) -> tuple[list[int], int]:
    """The keys of a revision and its ancestors, newest first, `size` from the place `start` on; and how many there are in all.

    The database follows the line, and of its rows only the page is read.
    """
    table = connection.ops.quote_name(Revision._meta.db_table)
    query = f"""
        WITH RECURSIVE line (id, parent_id, place) AS (
            SELECT id, parent_id, 0 FROM {table} WHERE id = %s
            UNION ALL
            SELECT older.id, older.parent_id, line.place + 1 FROM {table} AS older JOIN line ON older.id = line.parent_id
        )
        SELECT -1, count(*) FROM line
        UNION ALL
        SELECT place, id FROM line WHERE place >= %s AND place < %s
        ORDER BY 1
    """  # noqa: S608 - the name of our own table
    with connection.cursor() as cursor:
        cursor.execute(query, [head.pk, start, start + size])
        (_, total), *page = cursor.fetchall()
    return [pk for _, pk in page], total


def fetch_files(revisions: Sequence[Revision]) -> None:
    """All files of these revisions with their blobs, in one query; of those that have them already in none."""
    prefetch_related_objects(revisions, Prefetch("files", RevisionFile.objects.select_related("blob")))


def git_sha1(content: bytes) -> str:
    """git's blob id of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _is_large(path: str, blob: Blob) -> bool:
    return path == WEIGHTS or path.endswith((".safetensors", ".bin")) or blob.size_bytes > LARGE_BYTES
