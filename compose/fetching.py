"""Base models that are referenced by their id: fetched by the worker, pinned to a commit, and only safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from compose.errors import BaseUnavailable

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
]


def resolve(name: str, revision: str = "") -> str:
    """The commit that `revision` of the repository is now, main if empty. Raises BaseUnavailable."""
    if len(revision) == 40:
        return revision
    from huggingface_hub import HfApi

    with _failures_in_words(name):
        info = HfApi(endpoint=settings.HUB_ENDPOINT or None, token=False).model_info(
            name, revision=revision or None, timeout=20
        )
    if not info.sha:
        raise BaseUnavailable(f"The hub did not say at which commit {name} is.")
    return str(info.sha)


def fetch(name: str, commit: str) -> Path:
    """The folder with the files of `name` at `commit`; from the worker's cache if it was fetched before.

    Raises BaseUnavailable, also for a model that has no safetensors.
    """
    from huggingface_hub import snapshot_download

    with _failures_in_words(name):
        folder = Path(
            snapshot_download(
                name,
                revision=commit,
                endpoint=settings.HUB_ENDPOINT or None,
                cache_dir=settings.WORKER_CACHE_DIR / "hub",
                allow_patterns=ALLOWED,
                ignore_patterns=["*/*"],
                token=False,
            )
        )
    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        raise BaseUnavailable(
            f"{name} has no config.json with weights in safetensors, and other weights are not loaded here. Choose a "
            "base model, or a revision of it, that has them."
        )
    return folder


@contextmanager
def _failures_in_words(name: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise BaseUnavailable(
            f"{name} is gated on its hub, and this site has no access to it. Choose another base model, or ask the "
            "people who run this site to host it."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise BaseUnavailable(f"The hub has no model {name}, or not at this revision.") from error
    except (errors.HTTPError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise BaseUnavailable(
            f"The files of {name} could not be fetched from its hub. Try again in some minutes."
        ) from error
