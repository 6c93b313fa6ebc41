"""Reading from another Hub: what there is, which commit a revision means, and the bytes of a file.

Only the endpoints of IMPORT_ENDPOINTS are asked, so that nobody makes this server fetch from where they like.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from django.conf import settings

from registry.guarded_http import GuardedClient, NotPublic, origin_of
from registry.patience import Patience
from web.errors import DomainError

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 16 * 1024**2
MAX_PAGES = 50
MAX_NAME = 200
ATTEMPTS = 5
MAX_WAIT_S = 120.0
CHUNK_BYTES = 1024 * 1024
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?\Z")
_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

Tick = Callable[[int], None]


class ImportFailed(DomainError):
    """The other Hub has it not, does not give it, or does not answer: a sentence for the importer."""

    code = "import_failed"


class NotOpen(ImportFailed):
    """It is not there, or not for whoever asks; which of these no Hub tells."""

    def __init__(self, source: str) -> None:
        super().__init__(f"{source} is not there, or not open to you.")


class HubSilent(ImportFailed):
    """It did not answer, however often it was asked."""


@dataclass(frozen=True)
class SourceFile:
    """A file there. `sha256` is known for what Git LFS holds, `git_sha1` (git's blob id) for everything else."""

    path: str
    size_bytes: int
    sha256: str
    git_sha1: str


class OtherHub:
    """One listed Hub, asked with a person's own token or as a guest. Close it, or use it in a `with`."""

    def __init__(
        self,
        endpoint: str,
        token: str = "",
        *,
        sleep: Callable[[float], None] = time.sleep,
        patience: Patience | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.sleep = sleep
        headers = {"User-Agent": "lora-commons; import", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.client = GuardedClient(endpoint, headers, proxy=settings.IMPORT_PROXY, patience=patience)

    def __enter__(self) -> OtherHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def answers(self) -> bool:
        """Whether it is there at all, asked once: what it did not give may have been one file."""
        try:
            with self.client.get(f"{self.endpoint}/api/models", {"limit": "1"}) as response:
                return response.status_code < 500
        except (httpx2.HTTPError, NotPublic):
            return False

    def models_of(self, author: str) -> list[str]:
        """The ids of everything that an author shows us. Raises ImportFailed, also if that is more than we read."""
        found: list[str] = []
        for rows in self._pages("/api/models", {"author": author, "limit": "1000"}, author):
            found += [str(row.get("id", "")) for row in rows if isinstance(row, dict)]
        return [name for name in found if _is_name(name)]

    def commit_of(self, source: str, revision: str = "") -> tuple[str, str]:
        """(id as the Hub writes it, the commit that a branch, tag or commit means there now). Raises ImportFailed."""
        check_name(source)
        address = f"/api/models/{source}/revision/{quote(revision or 'main', safe='')}"
        info = self._json(address, {}, source)
        commit, name = (info.get("sha"), info.get("id")) if isinstance(info, dict) else (None, None)
        if not (
            isinstance(commit, str) and _COMMIT.match(commit) and isinstance(name, str) and _is_name(name)
        ):
            raise self._nonsense(source)
        return name, commit

    def files_of(self, source: str, commit: str) -> list[SourceFile]:
        """The files at a commit, without those in folders: an adapter lies at the top. Raises ImportFailed."""
        params = {"recursive": "false", "expand": "false"}
        rows = [
            row for page in self._pages(f"/api/models/{source}/tree/{commit}", params, source) for row in page
        ]
        try:
            return [_file(row) for row in rows if row["type"] == "file"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._nonsense(source) from error

    def json_of(self, source: str, commit: str, path: str) -> Any:
        """What a small file of JSON holds. Raises ImportFailed."""
        return self._json(f"/{source}/resolve/{commit}/{quote(path)}", {}, source)

    def fetch(self, source: str, commit: str, file: SourceFile, target: Path, *, tick: Tick) -> int:
        """Write a file's bytes to `target`, going on behind what is there already; how many came over the wire.

        `tick` gets the length of each piece and may raise to stop. Raises ImportFailed; what came so far stays.
        """
        address = f"{self.endpoint}/{source}/resolve/{commit}/{quote(file.path)}"
        fetched = 0
        for attempt in range(1, ATTEMPTS + 1):
            have = target.stat().st_size if target.exists() else 0
            if have > file.size_bytes:
                have = 0  # it is written anew, in the same file: whoever holds that goes on holding it
            if have == file.size_bytes and target.exists():
                return fetched
            wait_s = 0.0
            try:
                with self.client.get(
                    address, headers={"Range": f"bytes={have}-"} if have else None
                ) as response:
                    wait_s = self._refusal(response, source)
                    if not wait_s:
                        for piece in _into(response, target, have, file.size_bytes):
                            fetched += piece
                            tick(piece)
            except httpx2.HTTPError as error:
                logger.info("fetching %s of %s broke off: %s", file.path, source, type(error).__name__)
                wait_s = float(attempt)
            if wait_s:
                self._wait(wait_s, attempt, source)
        if target.exists() and target.stat().st_size == file.size_bytes:
            return fetched
        raise self._unreachable(source)

    # --- Asking ------------------------------------------------------------------------------------------------

    def _pages(self, address: str, params: dict[str, str], source: str) -> Iterator[list[Any]]:
        """Each page of a list, by the links between them."""
        url = f"{self.endpoint}{address}"
        query: dict[str, str] | None = params
        for _ in range(MAX_PAGES):
            rows, following = self._ask(url, query, source)
            if not isinstance(rows, list):
                raise self._nonsense(source)
            yield rows
            if not following:
                return
            if origin_of(following) != self.client.home:
                raise self._nonsense(source)
            url, query = following, None
        raise ImportFailed(f"{source} has more pages at {self.endpoint} than are read here ({MAX_PAGES}).")

    def _json(self, address: str, params: dict[str, str], source: str) -> Any:
        return self._ask(f"{self.endpoint}{address}", params, source)[0]

    def _ask(self, url: str, params: dict[str, str] | None, source: str) -> tuple[Any, str]:
        """(the JSON there, the address of the next page or ""). Raises ImportFailed."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.client.get(url, params) as response:
                    wait_s = self._refusal(response, source)
                    if not wait_s:
                        following = response.links.get("next", {}).get("url", "")
                        return json.loads(_bounded(response)), following
            except httpx2.HTTPError as error:
                logger.info("%s did not answer: %s", self.endpoint, type(error).__name__)
                wait_s = float(attempt)
            except (ValueError, RecursionError) as error:
                raise self._nonsense(source) from error
            except NotPublic as error:
                raise ImportFailed(error.message) from error
            self._wait(wait_s, attempt, source)
        raise self._unreachable(source)

    def _refusal(self, response: httpx2.Response, source: str) -> float:
        """0 for an answer we can use, else the seconds to wait for another try. Raises ImportFailed for good ones."""
        status = response.status_code
        if status in (200, 206):
            return 0.0
        if status in _PASSING:
            given = response.headers.get("retry-after", "")
            return float(given) if given.isascii() and given.isdigit() else 1.0
        if status == 401 and "invalid" in response.headers.get("x-error-message", "").lower():
            raise ImportFailed(f"{self.endpoint} does not accept this token.")
        if status == 404 and response.headers.get("x-error-code") == "RevisionNotFound":
            raise ImportFailed(f"{source} has no such branch, tag or commit.")
        if status in (401, 403, 404):
            raise NotOpen(source)
        raise ImportFailed(f"{self.endpoint} refuses to give {source} (status {status}).")

    def _wait(self, wait_s: float, attempt: int, source: str) -> None:
        if attempt == ATTEMPTS:
            raise self._unreachable(source)
        if wait_s > MAX_WAIT_S:
            raise ImportFailed(
                f"{self.endpoint} wants us to wait {wait_s:.0f} seconds before it gives {source}. Try again later."
            )
        self.sleep(wait_s)

    def _unreachable(self, source: str) -> HubSilent:
        return HubSilent(f"{source} could not be fetched from {self.endpoint}. Try again later.")

    def _nonsense(self, source: str) -> ImportFailed:
        return ImportFailed(f"What {self.endpoint} says about {source} cannot be read.")


def listed_endpoint(given: str) -> str:
    """The listed Hub that is meant; the first for "". Raises ImportFailed."""
    allowed = settings.IMPORT_ENDPOINTS
    endpoint = (given or allowed[0]).strip().rstrip("/")
    if endpoint not in allowed:
        raise ImportFailed(
            f"Adapters are imported from {', '.join(allowed)} only, not from {endpoint[:100]!r}."
        )
    return str(endpoint)


def check_name(source: str) -> None:
    """Raises ImportFailed if no repository can be called that."""
    if not _is_name(source):
        raise ImportFailed(f"{source[:100]!r} is no name of a repository, such as lorahub/flan_t5_large-who.")


def _is_name(name: str) -> bool:
    parts = name.split("/")
    return (
        len(name) <= MAX_NAME and bool(_NAME.match(name)) and not any(part.strip(".") == "" for part in parts)
    )


def _file(row: dict[str, Any]) -> SourceFile:
    lfs = row.get("lfs") or {}
    sha256 = str(lfs.get("oid") or lfs.get("sha256") or "") if lfs else ""
    size = row["size"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or (lfs and not _SHA256.match(sha256)):
        raise ValueError(row)
    return SourceFile(str(row["path"]), size, sha256, "" if lfs else str(row["oid"]))


@contextmanager
def _appending(target: Path, at: int) -> Iterator[Any]:
    with target.open("r+b" if at else "wb") as file:
        file.seek(at)
        file.truncate()
        yield file


def _into(response: httpx2.Response, target: Path, have: int, size: int) -> Iterator[int]:
    """Write a body behind the `have` bytes that are there; the length of each piece. Never more than `size` in all."""
    start = have
    if have and not _begins_at(response, have):
        start = 0  # the server sent the whole file
    with _appending(target, start) as file:
        for piece in response.iter_raw(CHUNK_BYTES):
            start += len(piece)
            if start > size:
                raise ImportFailed("The other Hub sends more bytes than it said that the file has.")
            file.write(piece)
            yield len(piece)


def _begins_at(response: httpx2.Response, start: int) -> bool:
    return response.status_code == 206 and response.headers.get("content-range", "").startswith(
        f"bytes {start}-"
    )


def _bounded(response: httpx2.Response) -> bytes:
    found = bytearray()
    for piece in response.iter_bytes():
        found += piece
        if len(found) > MAX_JSON_BYTES:
            raise ValueError("too long")
    return bytes(found)
