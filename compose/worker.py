"""One composition from claim to result, on the machine that has the engine."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils.text import capfirst

from compose import bases, errands, jobs, naming, worker_cache
from compose import candidates as choosing
from compose import examples as reading
from compose.candidates import PICKED, PINNED
from compose.engine import heap, importing, types
from compose.engine.errors import Cancelled, DoesNotFit, EngineError, UnusableTestRow
from compose.errors import HiddenRowsDoNotFit, LeaseLost
from compose.fetching import Look, look_away
from compose.in_touch import FETCHING, Heart, Reporter
from compose.jobs import workers
from compose.models import Composition
from registry import publishing, storage
from registry.filenames import CONFIG, MODULE_FILES, WEIGHTS
from registry.models import BaseModel, Revision
from web import logs
from web.errors import DomainError

if TYPE_CHECKING:
    from compose.engine.warm import WarmCache

logger = logging.getLogger(__name__)

JOB_FOLDERS_KEPT_S = 24 * 3600
OUR_ERROR = (
    "The composition stopped because of an error on our side. It has been logged; try again, and if it stops again "
    "tell the people who run this site its address."
)
STORE_AWAY = "This site's store of files did not answer."
STORE_FULL = "This site's store of files is full or broken."
DISK_FULL = "The worker's disk is full."
DATABASE_AWAY = "This site's database did not answer."

_busy = threading.Lock()
_given_up: deque[Composition] = deque()  # what the database could not be told about
_draining = threading.Event()
_warm_lock = threading.Lock()
_warm_cache: WarmCache | None = None


def run_next(worker: str) -> bool:
    """Claim whoever is first in line and work until it is done; whether anybody was.

    A process works on one composition at a time: a base model in memory is shared between jobs.
    """
    with hold_engine() as is_free:
        composition = jobs.claim_next(worker, warm=warm_bases()) if is_free else None
        if composition is None:
            return False
        if _draining.is_set():  # told to go at this moment, and perhaps after all it held was given back
            jobs.release(composition)
            return False
        run(composition)
    if not _draining.is_set():
        jobs.ring_next()
    return True


@contextmanager
def hold_engine() -> Iterator[bool]:
    """Whether this process may work now: it does nothing else, stays, and its disk has room. It is held until the block ends."""
    if _draining.is_set() or not _busy.acquire(blocking=False):
        yield False
        return
    try:
        yield worker_cache.has_room()
    finally:
        _busy.release()


def run(composition: Composition) -> None:
    """Work on a claimed composition until it has a result, failed, was cancelled, or is no longer ours."""
    with logs.about(composition=composition.pk):
        try:
            _run(composition)
        except (OperationalError, InterfaceError):
            # Nothing can be written now: it is said when the database is back, if nobody else has taken it by then.
            logger.exception("Composition %s: the database did not answer", composition.pk)
            connection.close()
            _given_up.append(composition)
        finally:
            heap.give_back()


def _run(composition: Composition) -> None:
    logger.info("Composition %s, attempt %d, begins", composition.pk, composition.attempt)
    try:
        with (
            Heart(composition.pk, partial(jobs.beat, composition)) as heart,
            _job_folder(composition) as folder,
        ):
            _work(composition, heart, folder)
    except LeaseLost:
        logger.warning("Composition %s, attempt %d, is no longer ours", composition.pk, composition.attempt)
    except Cancelled:
        jobs.confirm_cancelled(composition)
    except (EngineError, DomainError) as error:
        logger.info("Composition %s failed: %s", composition.pk, error.message)
        # Not of a base model that is too large for the disk: another attempt would fetch it again for nothing.
        if isinstance(error, EngineError) and _is_of_a_full_disk(error.__cause__):
            jobs.give_up(composition, DISK_FULL)
        elif isinstance(error, storage.StorageFull | storage.StorageBroken):
            jobs.give_up(composition, STORE_FULL)
        else:
            jobs.fail(composition, error.message)
    except (OperationalError, InterfaceError):
        raise  # the database is away; with any other error it is there, and refuses what another attempt would find too
    except Exception as error:
        # The traceback goes to the log; the owner gets a sentence we can stand behind.
        logger.exception("Composition %s stopped", composition.pk)
        if storage.is_away(error):
            jobs.give_up(composition, STORE_AWAY)
        elif _is_of_a_full_disk(error):
            jobs.give_up(composition, DISK_FULL)
        else:
            jobs.fail(composition, OUR_ERROR)


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    """Whether it was the disk of this machine; then it is logged here."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        logger.error("The disk is full: %s", error)
        return True
    return False


def say_given_up() -> None:
    """Tell the database which attempts ended because it was away, so that they do not count as lost with their worker."""
    while _given_up:
        jobs.give_up(_given_up[0], DATABASE_AWAY)
        _given_up.popleft()


def is_draining() -> bool:
    return _draining.is_set()


def warm_bases() -> list[str]:
    """Names of the base models that this process has in memory."""
    with _warm_lock:
        cache = _warm_cache
    if cache is None:
        return []
    return [name for name, folder in bases.folders() if cache.keeps_base(folder)]


def import_engine() -> None:
    """Load torch and the other libraries of the engine, so that the next composition finds them there."""
    with importing.what_stays():
        from huggingface_hub.utils import disable_progress_bars
        from transformers.utils.logging import disable_progress_bar

        from compose.engine import run as _engine  # noqa: F401

    # Nobody watches them here: each step of a bar would be a warning in the log.
    disable_progress_bars()
    disable_progress_bar()


def drain(worker: str) -> None:
    """Take no more compositions and give back the one at work at once, so that another worker goes on with it."""
    _draining.set()
    # In a thread of its own: this is called in a signal handler, in the middle of anything.
    threading.Thread(target=_give_back, args=(worker,), name="give-back").start()


def _give_back(worker: str) -> None:
    try:
        workers.say_leaving(worker)
        if jobs.release_all(worker) + errands.release_all(worker):
            logger.info("%s is going; what it worked on is back in line", worker)
    finally:
        connection.close()


# --- The work ------------------------------------------------------------------------------------------------


def _work(composition: Composition, heart: Heart, folder: Path) -> None:
    jobs.set_stage(composition, "load", FETCHING)
    named = naming.named_in(composition, composition.owner)
    choosing.require_no_quarantine(_revisions(composition), named)  # before anything is fetched
    reporter = Reporter(composition, heart, recorded=jobs.recorded_trials(composition))
    with bases.of_composition(composition, pause=reporter.pause, look=heart.check) as base:
        result = _compose_what_fits(composition, base, folder, reporter)
    reporter.flush()
    jobs.finish(
        composition,
        result,
        weights=storage.store_file(folder / "out" / WEIGHTS),
        config=storage.store_file(folder / "out" / CONFIG),
    )
    logger.info("Composition %s is done: %s", composition.pk, result.seconds)


def _compose_what_fits(
    composition: Composition, base: Path, folder: Path, reporter: Reporter
) -> types.Result:
    try:
        return _compose(composition, base, folder, reporter)
    except DoesNotFit as misfits:  # all of them at once, before anything was searched
        _leave_out(composition, misfits)
    # Not where it was raised: there the base model is held, and a second one beside it may be too much.
    return _compose(composition, base, folder, reporter)


def _compose(composition: Composition, base: Path, folder: Path, reporter: Reporter) -> types.Result:
    # Here and not at the top, so that drain() and the tests' doors come without torch.
    from compose.engine import run as engine

    revisions = _revisions(composition)
    modules = lay_out_modules(revisions, folder / "modules", look=reporter.heart.check)
    request = _request(composition, base, modules, folder / "out")
    try:
        with telling_misfits(composition.base_model, modules, revisions):
            return engine.compose(request, observer=reporter, recorded=reporter.recorded, warm=warm_cache())
    except UnusableTestRow as error:
        if not composition.has_hidden_test:
            raise
        # Not by its number: which one it is among those that are no example would tell which guesses are hidden rows.
        raise HiddenRowsDoNotFit(composition.base_model.name) from error


def _revisions(composition: Composition) -> list[Revision]:
    return [row.revision for row in composition.candidates.select_related("revision__adapter__namespace")]


def _leave_out(composition: Composition, error: DoesNotFit) -> None:
    """Take away what does not fit, if nobody asked for it by name and something is left; else raise the error."""
    candidates = list(composition.candidates.select_related("revision__adapter__namespace"))
    names = _names([row.revision for row in candidates])
    misfits = [row for row, name in zip(candidates, names, strict=True) if name in error.reasons]
    if len(misfits) == len(candidates) or any(row.reason in {PICKED, PINNED} for row in misfits):
        raise error
    jobs.leave_out(composition, misfits)


def _request(
    composition: Composition, base: Path, modules: tuple[types.Module, ...], out: Path
) -> types.Request:
    return types.Request(
        base=base,
        modules=modules,
        examples=tuple(reading.from_json(composition.examples)),
        test=tuple(reading.from_json(composition.test_examples)),
        method=composition.method,
        budget=composition.budget,
        seed=composition.seed,
        out=out,
        base_name=composition.base_model.name,
        metric=composition.metric,
        export=types.ExportForm(rank=composition.export_rank, dtype=composition.export_dtype),
    )


@contextmanager
def telling_misfits(
    base_model: BaseModel, modules: Sequence[types.Module], revisions: Sequence[Revision]
) -> Iterator[None]:
    """Tell the registry which of these do not fit after all, so that nobody is offered them again."""
    try:
        yield
    except DoesNotFit as error:
        for module, revision in zip(modules, revisions, strict=True):
            if module.name in error.reasons:
                publishing.note_misfit(revision, base_model, f"{capfirst(error.reasons[module.name])}.")
        raise


def warm_cache() -> WarmCache:
    """The process's cache of base models and modules, shared by its jobs."""
    global _warm_cache
    with _warm_lock:
        if _warm_cache is None:
            from compose.engine.warm import WarmCache

            _warm_cache = WarmCache(limit_bytes=settings.ENGINE_CACHE_BYTES)
        return _warm_cache


def lay_out_modules(
    revisions: Sequence[Revision], folder: Path, *, look: Look = look_away
) -> tuple[types.Module, ...]:
    """Each revision's config and weights in a folder of its own, for the engine. `look`: see `storage.local_path`."""
    modules = []
    for number, (revision, name) in enumerate(zip(revisions, _names(revisions), strict=True)):
        blobs = dict(
            (file.path, file.blob)
            for file in revision.files.filter(path__in=MODULE_FILES).select_related("blob")
        )
        place = storage.lay_out(blobs.items(), folder / f"{number:03}", look=look)
        modules.append(types.Module(name=name, path=place))
    return tuple(modules)


def _names(revisions: Sequence[Revision]) -> list[str]:
    """What the engine calls each of these: as its adapter, and a further revision of one by its commit too."""
    names: list[str] = []
    for revision in revisions:
        name = revision.adapter.full_name
        names.append(f"{name}@{revision.short_commit}" if name in names else name)
    return names


@contextmanager
def _job_folder(composition: Composition) -> Iterator[Path]:
    """A folder for one attempt, gone afterwards; also gone are those that killed workers left."""
    parent = worker_cache.jobs_folder()
    for old in parent.iterdir():
        with suppress(FileNotFoundError):  # another worker of this machine is done with it
            if time.time() - old.stat().st_mtime > JOB_FOLDERS_KEPT_S:
                shutil.rmtree(old, ignore_errors=True)
    folder = parent / f"{composition.pk}-{composition.attempt}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
