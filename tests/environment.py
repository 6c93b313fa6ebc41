"""Sets the environment of a test run before Django reads it; loaded by `-p tests.environment` in pyproject.toml.

A conftest.py would be too late: pytest-django loads the settings before it. Nothing of the caller's site is used:
no data folder, no broker, no bucket. DATABASE_URL alone is kept, for it chooses the database of the run.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres

IS_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}
_OF_A_SITE = (
    *("REDIS_URL", "BROKER_URL", "S3_BUCKET", "S3_ENDPOINT_URL", "S3_REGION", "S3_ACCESS_KEY_ID"),
    *(
        "S3_SECRET_ACCESS_KEY",
        "HTTPS",
        "ALLOWED_HOSTS",
        "CSRF_TRUSTED_ORIGINS",
        "EMAIL_HOST",
        "HUB_ENDPOINT",
        "IMPORT_ENDPOINTS",
        "IMPORT_PROXY",
        "LFS_PART_BYTES",
        "PUSH_ENDPOINTS",
    ),
    *(
        "X_ACCEL_REDIRECT_PREFIX",
        "S3_SIGNED_DOWNLOADS",
        "S3_ADDRESSING_STYLE",
        "STATIC_ROOT",
        "LORA_WORKER_CACHE_DIR",
        "LORA_DEBUG",
        "DATABASE_POOL",
        "DATABASE_PREPARED",
    ),
)


def missing(what: str) -> None:
    """End the test because something it needs is not here: a failure in CI, where it has to be, a skip elsewhere."""
    if IS_CI:
        pytest.fail(f"{what} In CI this test must run.")
    pytest.skip(what)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lora commons")
    group.addoption("--postgres", action="store_true", help="run what touches the database, on Postgres")
    group.addoption(
        "--all-of",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="with --postgres: every test of it",
    )
    group.addoption("--whole", action="store_true", help="every case of the long lists, behind every door")
    group.addoption(
        "--migrated-in", type=Path, metavar="DIR", help="where passes of one run share a migrated database"
    )
    group.addoption(
        "--passes-beside",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where passes beside this one report; its name says which they are",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    gc.disable()  # until everything is imported: see pytest_collection_finish
    folder = Path(tempfile.mkdtemp(prefix="lora-tests-"))
    early_config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name in _OF_A_SITE:
        os.environ.pop(name, None)
    (folder / "static").mkdir()  # whitenoise warns where it is missing
    os.environ["LORA_DATA_DIR"] = str(folder)
    os.environ["SECRET_KEY"] = "only-for-tests-" + "x" * 50
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # passes run side by side, and torch waits by spinning
    # Playwright's synchronous API leaves an event loop in the main thread, and Django takes that for async code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    if early_config.known_args_namespace.postgres and "DATABASE_URL" not in os.environ:
        server = postgres.find_or_start(folder / "postgres")
        if server is None:
            pytest.exit("There is no Postgres on this machine, and none could be started.", 1 if IS_CI else 0)
        early_config.add_cleanup(server.stop)
        os.environ["DATABASE_URL"] = server.url
    return (yield)
