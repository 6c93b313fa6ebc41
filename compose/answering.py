"""A try-out, answered on the machine that has the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from compose import bases, tryouts, worker
from compose.engine import types
from compose.engine.errors import EngineError
from compose.models import Composition, Tryout
from registry import storage
from registry.filenames import CONFIG, WEIGHTS
from web.errors import DomainError

logger = logging.getLogger(__name__)
OUR_ERROR = "The answer stopped because of an error on our side. It has been logged; try again."


def answer(tryout: Tryout) -> None:
    """Answer a try-out that this process took, or write down why not."""
    # Here and not at the top, so that this can be imported without torch.
    from compose.engine import tryout as engine

    started = time.perf_counter()
    try:
        with (
            worker.Heart(tryout.pk, partial(tryouts.KIND.beat, tryout)),
            bases.of_composition(tryout.composition) as base,
            _adapter_folder(tryout.composition) as folder,
        ):
            adapter = types.Module(name="composed", path=folder)
            answers = engine.answer(base, adapter, tryout.text, warm=worker.warm_cache())
    except (EngineError, DomainError) as error:
        tryouts.KIND.fail(tryout, error.message)
    except Exception:
        # The traceback goes to the log; whoever asked gets a sentence we can stand behind.
        logger.exception("Try-out %s stopped", tryout.pk)
        tryouts.KIND.fail(tryout, OUR_ERROR)
    else:
        tryouts.KIND.finish(tryout, answers=answers, seconds=time.perf_counter() - started)


@contextmanager
def _adapter_folder(composition: Composition) -> Iterator[Path]:
    """The composed adapter's two files, in a folder that goes afterwards."""
    blobs = [
        (CONFIG, composition.config_blob),
        (WEIGHTS, composition.weights_blob),
    ]
    with TemporaryDirectory(prefix="tryout-", dir=worker.jobs_folder()) as name:
        yield storage.lay_out(
            [(path, blob) for path, blob in blobs if blob is not None], Path(name) / "adapter"
        )
