"""A try-out, answered on the machine that has the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compose import bases, worker, worker_cache
from compose.engine import types
from compose.in_touch import Heart
from compose.models import Composition, Tryout
from registry import storage
from registry.filenames import CONFIG, WEIGHTS


def answer(tryout: Tryout, heart: Heart) -> dict[str, Any]:
    """The fields of an answered try-out: what adapter and bare base model write.

    Raises EngineError, DomainError, LeaseLost.
    """
    # Here and not at the top, so that this can be imported without torch.
    from compose.engine import tryout as engine

    with (
        bases.of_composition(tryout.composition, pause=heart.wait, look=heart.check) as base,
        _adapter_folder(tryout.composition, heart) as folder,
    ):
        adapter = types.Module(name="composed", path=folder)
        return {"answers": engine.answer(base, adapter, tryout.text, warm=worker.warm_cache())}


@contextmanager
def _adapter_folder(composition: Composition, heart: Heart) -> Iterator[Path]:
    """The composed adapter's two files, in a folder that goes afterwards."""
    blobs = [
        (CONFIG, composition.config_blob),
        (WEIGHTS, composition.weights_blob),
    ]
    with TemporaryDirectory(prefix="tryout-", dir=worker_cache.jobs_folder()) as name:
        yield storage.lay_out(
            [(path, blob) for path, blob in blobs if blob is not None],
            Path(name) / "adapter",
            look=heart.check,
        )
