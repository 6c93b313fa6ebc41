"""The try-outs that wait, answered on the machine that has the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings

from compose import tryouts, worker
from compose.engine import types
from compose.engine.errors import EngineError
from compose.models import Composition, Tryout
from registry import storage
from web.errors import DomainError

logger = logging.getLogger(__name__)
OUR_ERROR = "The answer stopped because of an error on our side. It has been logged; try again."


def answer_waiting() -> int:
    """Answer all that wait, how many there were; 0 at once if this process is at a composition."""
    answered = 0
    with worker.hold_engine() as is_free:
        while is_free and (tryout := tryouts.take_next()) is not None:
            _answer(tryout)
            answered += 1
    return answered


def _answer(tryout: Tryout) -> None:
    # Here and not at the top, so that this can be imported without torch.
    from compose.engine import tryout as engine

    started = time.perf_counter()
    try:
        base = worker.lay_out_base(tryout.composition)
        with _adapter_folder(tryout.composition) as folder:
            adapter = types.Module(name="composed", path=folder)
            answers = engine.answer(base, adapter, tryout.text, warm=worker.warm_cache())
    except (EngineError, DomainError) as error:
        tryouts.fail(tryout, error.message)
    except Exception:
        # The traceback goes to the log; whoever asked gets a sentence we can stand behind.
        logger.exception("Try-out %s stopped", tryout.pk)
        tryouts.fail(tryout, OUR_ERROR)
    else:
        tryouts.finish(tryout, answers, time.perf_counter() - started)


@contextmanager
def _adapter_folder(composition: Composition) -> Iterator[Path]:
    """The composed adapter's two files, in a folder that goes afterwards."""
    blobs = [
        ("adapter_config.json", composition.config_blob),
        ("adapter_model.safetensors", composition.weights_blob),
    ]
    settings.WORKER_CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="tryout-", dir=settings.WORKER_CACHE_DIR) as name:
        yield storage.lay_out(
            [(path, blob) for path, blob in blobs if blob is not None], Path(name) / "adapter"
        )
