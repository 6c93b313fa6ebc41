"""Every test of composing stores its files in a folder of its own, and no broker is rung."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def storage_folder(settings, tmp_path: Path) -> Path:
    """Where this test's blobs and temporary files lie: `blobs/`, `tmp/`, `worker-cache/`."""
    folder = tmp_path / "storage"
    (folder / "tmp").mkdir(parents=True)
    settings.UPLOAD_TMP_DIR = folder / "tmp"
    settings.FILE_UPLOAD_TEMP_DIR = str(folder / "tmp")
    settings.WORKER_CACHE_DIR = folder / "worker-cache"
    on_disk = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(folder / "blobs")},
    }
    settings.STORAGES = {**settings.STORAGES, "default": on_disk, "blobs": on_disk}
    return folder


@pytest.fixture
def bells(monkeypatch) -> list[str]:
    """Ids of the compositions that workers were told about."""
    from compose import tasks

    rung: list[str] = []
    monkeypatch.setattr(tasks.run_composition, "apply_async", lambda args, **_: rung.append(args[0]))
    return rung
