"""Base models on this machine's disk: laid out for a job, and held for as long as it works with one."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose import fetching, jobs, token_counts, worker_cache
from compose.errors import BaseUnavailable
from compose.fetching import Look, Pause, look_away
from compose.models import Composition
from registry import storage
from registry.models import BaseModel

_folders: dict[str, Path] = {}  # by name: where the bases lie that this process worked with


def folders() -> list[tuple[str, Path]]:
    """Names and folders of the base models that this process worked with."""
    return list(_folders.items())


@contextmanager
def of_composition(
    composition: Composition, *, pause: Pause = time.sleep, look: Look = look_away
) -> Iterator[Path]:
    """The folder with the base model's files, in the state that every attempt of this composition uses.

    Raises BaseUnavailable when they cannot be had, and LeaseLost.
    """
    base_model = composition.base_model
    if base_model.is_hosted and composition.base_commit != base_model.commit:
        raise BaseUnavailable(
            f"The files of {base_model.name} changed after this composition was asked for. Ask for it again."
        )
    with at_hand(base_model, composition.base_commit, pause=pause, look=look) as (folder, commit):
        if commit != composition.base_commit:
            jobs.set_base_commit(composition, commit)
        yield folder


@contextmanager
def at_hand(
    base_model: BaseModel, commit: str = "", *, pause: Pause = time.sleep, look: Look = look_away
) -> Iterator[tuple[Path, str]]:
    """The folder with a base model's files and their commit; without one given the newest.

    They stay until the block ends; afterwards this machine's cache is brought back to its limit. `pause` and `look`: see
    `fetching.fetch`. Raises BaseUnavailable.
    """
    try:
        with worker_cache.holding(base_model.name):
            if base_model.is_hosted:
                folder, commit = _lay_out(base_model, look), base_model.commit
            else:
                commit = fetching.resolve(base_model.name, commit, pause=pause, look=look)
                folder = fetching.fetch(base_model.name, commit, pause=pause, look=look)
                token_counts.keep_tokenizer(base_model, commit, folder)
            worker_cache.note_use(folder)
            _folders[base_model.name] = folder
            yield folder, commit
    finally:
        worker_cache.make_room()


def _lay_out(base_model: BaseModel, look: Look) -> Path:
    """The files of a base model that is hosted here, laid out once for all jobs of this machine."""
    files = [(file.path, file.blob) for file in base_model.files.select_related("blob")]
    if not files:
        raise BaseUnavailable(f"The base model {base_model.name} is hosted here but has no files.")
    folder = worker_cache.links_of(base_model.name) / (base_model.commit or "files")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # while one process of this machine lays out, the others wait
        return storage.lay_out(files, folder, look=look)
