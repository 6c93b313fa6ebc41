"""Importing adapters from another Hub: pinned to a commit, through the same rules as every upload.

Only the endpoints of IMPORT_ENDPOINTS are ever asked, so that nobody makes this server fetch from where they like.
Bytes that are here already, and that the importer may read, are not fetched again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from django.conf import settings

from registry import filenames, publishing, storage
from registry.models import Adapter, Blob, Namespace, User
from registry.rights import may_read_blob
from web.errors import DomainError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

logger = logging.getLogger(__name__)


class ImportFailed(DomainError):
    code = "import_failed"


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
) -> Imported:
    """The adapter `source` of another Hub as `namespace/name`, by default with its own name.

    `revision` is a branch, tag or commit there, main unless given; the commit that it means now is fetched and named in the
    message of our revision. Card, licence, tags and base model are taken over, an `adapter_model.bin` is converted.
    `token` is the importer's own for the other Hub; it is neither kept nor logged. Raises ImportFailed, and whatever
    `publishing.publish` does.
    """
    hub = _hub(endpoint, token)
    with _failures_in_words(source):
        commit = str(hub.model_info(source, revision=revision or None, timeout=20).sha)
        files = [file for file in hub.list_repo_tree(source, revision=commit) if hasattr(file, "blob_id")]
    message = f"Import {source} at {commit} from {hub.endpoint}"
    name = name or source.rpartition("/")[2]
    known = Adapter.objects.alive().filter(namespace=namespace, name__iexact=name).first()
    if known is not None and known.revisions.filter(message=message).exists():
        return Imported(known, commit, 0, is_new=False)
    wanted = _wanted(source, files)
    with TemporaryDirectory(dir=settings.UPLOAD_TMP_DIR, prefix="import-") as folder:
        paths, fetched_bytes = _collect(hub, source, commit, wanted, Path(folder), actor)
        adapter = publishing.publish(
            author=actor, namespace=namespace, name=name, files=paths, message=message, visibility=visibility
        )
    logger.info("imported %s at %s as %s: %d bytes fetched", source, commit, adapter, fetched_bytes)
    return Imported(adapter, commit, fetched_bytes, is_new=True)


def find_sources(pattern: str, *, endpoint: str = "", token: str = "") -> list[str]:
    """The repositories of another Hub that a pattern means: `lorahub/flan_t5_large-*`, or one id as it is.

    Raises ImportFailed if there are none.
    """
    if not set(pattern) & set("*?["):
        return [pattern]
    author, _, own = pattern.partition("/")
    if set(author) & set("*?[") or not own:
        raise ImportFailed(
            f"{pattern!r} names nobody: write the author in full, such as lorahub/flan_t5_large-*."
        )
    hub = _hub(endpoint, token)
    with _failures_in_words(pattern):
        found = sorted(model.id for model in hub.list_models(author=author))
    found = [source for source in found if fnmatchcase(source, pattern)]
    if not found:
        raise ImportFailed(f"{hub.endpoint} has nothing called {pattern!r}.")
    return found


def _hub(endpoint: str, token: str) -> HfApi:
    allowed = settings.IMPORT_ENDPOINTS
    endpoint = (endpoint or allowed[0]).rstrip("/")
    if endpoint not in allowed:
        raise ImportFailed(
            f"Adapters are imported from {', '.join(allowed)} only, not from {endpoint[:100]!r}."
        )
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=token or False, library_name="lora-commons")


def _wanted(source: str, files: list[Any]) -> list[RepoFile]:
    """The files that we could keep. Raises ImportFailed if they are too large or no adapter."""
    wanted = [
        file
        for file in files
        if file.path in filenames.ADAPTER_FILES or not filenames.why_left_out_by_name(file.path)
    ]
    # Where there is safetensors, its pickled twin is not worth fetching.
    paths = {file.path for file in wanted}
    if filenames.WEIGHTS in paths:
        wanted = [file for file in wanted if file.path != filenames.LEGACY_WEIGHTS]
    if filenames.CONFIG not in paths:
        raise ImportFailed(f"{source} is no adapter: it has no {filenames.CONFIG}.")
    total = sum(file.size for file in wanted)
    if total > settings.MAX_ADAPTER_BYTES or any(file.size > settings.MAX_FILE_BYTES for file in wanted):
        raise ImportFailed(
            f"{source} has {total:,} bytes; one adapter may have {settings.MAX_ADAPTER_BYTES:,}."
        )
    storage.require_free_space(total)
    return wanted


def _collect(
    hub: HfApi, source: str, commit: str, wanted: list[RepoFile], folder: Path, actor: User
) -> tuple[dict[str, Path], int]:
    """The files on disk by their names, and how many bytes had to be fetched."""
    paths: dict[str, Path] = {}
    fetched_bytes = 0
    for file in wanted:
        blob = _here_already(file, actor)
        if blob is not None:
            paths[file.path] = storage.local_path(blob)
            continue
        with _failures_in_words(source):
            path = hub.hf_hub_download(source, file.path, revision=commit, local_dir=folder)
        paths[file.path] = Path(path)
        fetched_bytes += file.size
    return paths, fetched_bytes


def _here_already(file: RepoFile, actor: User) -> Blob | None:
    found = (
        Blob.objects.filter(sha256=file.lfs.sha256)
        if file.lfs
        else Blob.objects.filter(git_sha1=file.blob_id)
    )
    blob = found.filter(size_bytes=file.size).first()
    return blob if blob is not None and may_read_blob(actor, blob) else None


@contextmanager
def _failures_in_words(source: str) -> Iterator[None]:
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.GatedRepoError) as error:
        raise ImportFailed(f"{source} is not there, not at this revision, or not open to you.") from error
    except errors.HFValidationError as error:
        raise ImportFailed(
            f"{source[:100]!r} is no name of a repository, such as lorahub/flan_t5_large-who."
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        raise ImportFailed(f"{source} could not be fetched from the other Hub. Try again later.") from error
