"""Base models that are referenced by their id: fetched by the worker, pinned to a commit, and only safetensors."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings

from compose import worker_cache
from compose.errors import BaseUnavailable, HubAway

# Never code and never pickles: what is not on this list is not fetched.
ALLOWED = [
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    # Of tokenizers that keep their words elsewhere: those of mBART, M2M100 and NLLB, of Marian, ProphetNet, GPT-NeoX-Japanese, Whisper.
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "prophetnet.tokenizer",
    "vocab.txt",
    "emoji.json",
    "normalizer.json",
]
PAUSES_S = (5.0, 20.0)  # before a second and a third attempt
SILENT_S = 30.0  # so long a hub may let us wait for its next bytes
MAY_PASS = frozenset({408, 429})  # and 500 and above: statuses of what may be over soon

Pause = Callable[[float], None]
Look = Callable[[], None]
T = TypeVar("T")


def look_away() -> None:
    """For whoever wants what comes, however long it takes."""


# The hub's client is one for the whole process and fetches in threads of its own: so is who looks, one at a time.
_asking = threading.Lock()
_look: Look = look_away


def resolve(name: str, revision: str = "", *, pause: Pause = time.sleep, look: Look = look_away) -> str:
    """The commit that `revision` of the repository is now, main if empty. `pause` and `look`: see `fetch`.

    Raises BaseUnavailable.
    """
    if len(revision) == 40:
        return revision
    return _in_three_attempts(lambda: _resolve(name, revision, look), pause)


def _resolve(name: str, revision: str, look: Look) -> str:
    from huggingface_hub import HfApi

    with _asking_hub(name, look):
        info = HfApi(endpoint=settings.HUB_ENDPOINT or None, token=False).model_info(
            name, revision=revision or None
        )
    if not info.sha:
        raise BaseUnavailable(f"The hub did not say at which commit {name} is.")
    return str(info.sha)


def fetch(name: str, commit: str, *, pause: Pause = time.sleep, look: Look = look_away) -> Path:
    """The folder with the files of `name` at `commit`; from the worker's cache if it was fetched before.

    `pause` waits between attempts; `look` is called in any thread before each question and as bytes come, and may raise to
    end it: what came of a file by then goes. Raises BaseUnavailable, also for a model that has no safetensors.
    """
    folder = _in_three_attempts(lambda: _fetch(name, commit, look), pause)
    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        raise BaseUnavailable(
            f"{name} has no config.json with weights in safetensors, and other weights are not loaded here. Choose a "
            "base model, or a revision of it, that has them."
        )
    return folder


def _fetch(name: str, commit: str, look: Look) -> Path:
    from huggingface_hub import snapshot_download

    download: Callable[..., Any] = partial(
        snapshot_download,
        name,
        revision=commit,
        endpoint=settings.HUB_ENDPOINT or None,
        cache_dir=settings.WORKER_CACHE_DIR / "hub",
        allow_patterns=ALLOWED,
        ignore_patterns=["*/*"],
        token=False,
        tqdm_class=_bars(look),
    )
    with _asking_hub(name, look):
        # Asks its hub nothing where all of them are there. Some may be: of a fetch that broke off.
        coming = sum(file.file_size or 0 for file in download(dry_run=True) if file.will_download)
        if coming:
            worker_cache.make_room(coming)
        return Path(download())


def _bars(look: Look) -> type[Any]:
    """The progress bars that the hub's client moves: nobody watches them, but something looks at each move.

    They move every 10 MiB. What comes over Xet, though, is seen by them alone.
    """
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            look()
            return super().update(n)

    return Bar


def _in_three_attempts(ask: Callable[[], T], pause: Pause) -> T:
    for seconds in PAUSES_S:
        try:
            return ask()
        except HubAway:
            pause(seconds)
    return ask()


@contextmanager
def _asking_hub(name: str, look: Look) -> Iterator[None]:
    """Where the hub is asked about `name`: `look` is called meanwhile, and failures are told in words."""
    from huggingface_hub import errors

    global _look
    with _asking:
        _mind_the_client()
        _look = look
        try:
            yield
        except (errors.LocalEntryNotFoundError, errors.DryRunError) as error:
            # Not in the cache either: what happened on the way to the hub says why.
            raise _told(name, error.__cause__ or error) from error
        except (errors.HTTPError, errors.HFValidationError, OSError) as error:
            raise _told(name, error) from error
        finally:
            _look = look_away


def _told(name: str, error: BaseException) -> BaseUnavailable:
    """What became of the files of `name`, without the address, which may hold a secret."""
    from httpx2 import TimeoutException
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return BaseUnavailable(
            f"{name} is gated on its hub, and this site has no access to it. Choose another base model, or ask the "
            "people who run this site to host it."
        )
    if isinstance(
        error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError
    ):
        return BaseUnavailable(f"The hub has no model {name}, or not at this revision.")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return BaseUnavailable(
            f"The worker's disk has no space left for the files of {name}. Tell the people who run this site."
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None and status < 500 and status not in MAY_PASS:
        return BaseUnavailable(
            f"The hub of {name} refuses to give its files (status {status}). Choose another base model, or tell the "
            "people who run this site."
        )
    if status is not None:
        cause = f"it answered with the status {status}"
    elif isinstance(error, TimeoutException):
        cause = "it did not answer in time"
    else:
        cause = "it cannot be reached, or it broke off"
    return HubAway(
        f"The files of {name} could not be fetched from its hub: {cause}. Try again in some minutes."
    )


def _mind_the_client() -> None:
    """The hub's own client waits for ever for the answers to some questions, and prints addresses with their secrets."""
    from huggingface_hub import get_session

    logging.getLogger("huggingface_hub").handlers.clear()  # the log has its lines from us as well
    hooks = get_session().event_hooks
    if _begin not in hooks["request"]:
        hooks["request"].append(_begin)
        hooks["response"].append(_watch)


def _begin(request: Any) -> None:
    _look()
    limits = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        kind: limits.get(kind) or SILENT_S for kind in ("connect", "read", "write", "pool")
    }


def _watch(response: Any) -> None:
    """Look as each piece comes from the wire: what the client makes of them, 10 MiB at a time, may be minutes apart."""
    from httpx2 import SyncByteStream

    class Watched(SyncByteStream):
        def __init__(self, stream: SyncByteStream) -> None:
            self.stream = stream

        def __iter__(self) -> Iterator[bytes]:
            for piece in self.stream:
                _look()
                yield piece

        def close(self) -> None:
            self.stream.close()

    response.stream = Watched(response.stream)
