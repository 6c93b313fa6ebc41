"""The whole suite in passes beside each other, on SQLite and on Postgres, each test on one of them or on both.

Standard library only: `dev.py test` runs it before anything is imported from the environment.
"""

from __future__ import annotations

import collections
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILED_AFTER_S = 30.0  # what a pass takes to import everything for the first time
# With the pass in front more than most machines have cores: each waits for programs it started a good part of the time.
AT_A_TIME = 4

HUB, JOBS, ENGINE = "tests/registry/hub", "tests/compose", "tests/compose/engine"
RIGHTS = "tests/test_rights_matrix.py"
IN_PROCESSES = ["-m", "not browser and not site"]
# What imports torch goes together: the other passes start in a third of the time without it.
WITH_TORCH = [
    ENGINE, f"{JOBS}/test_auditioning.py", f"{JOBS}/test_rebuilding.py", "tests/demo",
    "tests/test_benchmarks.py", "tests/test_benchmarks_quality.py",
    *(f"tests/registry/test_{name}.py" for name in ("conversion", "inspection_of_peft_files")),
]  # fmt: skip
# On both is what asks the database in ways of its own. The rest is decided in Python: SQLite is quicker to
# start, and Postgres the stricter about what it is given by pages, forms and scripts; on SQLite those run in the
# browser, and the rights matrix asks every address.
CLIENTS = [f"{HUB}/test_{name}.py" for name in ("clients_old", "clients_read", "clients_write", "hf_command")]
ON_SQLITE = [
    *CLIENTS, RIGHTS, f"{HUB}/test_limits.py", f"{JOBS}/test_examples.py", f"{JOBS}/test_token_counts.py",
    *(f"tests/registry/test_{name}.py" for name in ("base_models", "other_site", "snippets")),
    *(f"tests/web/test_{name}.py" for name in ("api_reference", "cross_origin", "first_visit", "middleware")),
    *(f"tests/web/test_{name}.py" for name in ("refused_forms", "static_files", "typed_by", "way_back")),
]  # fmt: skip
ON_POSTGRES = [
    "tests/test_hostile.py", "tests/test_schema_fuzz.py",
    *(f"tests/registry/test_{name}.py" for name in ("admin", "api", "bases_on_hub", "feeds", "following")),
    *(f"tests/registry/test_{name}.py" for name in ("following_api", "import_jobs", "moderation", "news_mail")),
    *(f"tests/registry/test_{name}.py" for name in ("odd_input", "organisations", "pages", "profiles")),
    *(f"tests/registry/test_{name}.py" for name in ("refs_api", "saved_searches_api", "sign_in", "tokens")),
    *(f"tests/registry/test_{name}.py" for name in ("tokens_api", "webhooks", "webhooks_api")),
    *(f"{JOBS}/test_{name}.py" for name in ("api", "auditions", "citations", "credit", "job_log")),
    *(f"{JOBS}/test_{name}.py" for name in ("leaderboards", "making_tasks", "naming", "pages")),
    *(f"{JOBS}/test_{name}.py" for name in ("private_tasks", "publishing", "recipes", "scored_by")),
    *(f"{JOBS}/test_{name}.py" for name in ("tasks_in_quarantine", "telling", "tryouts")),
]  # fmt: skip


def run(pytest: Sequence[str]) -> int:
    """All passes; `pytest` begins the command of each, and the last lines are its summary. Returns the code of one that failed, or 0."""
    with tempfile.TemporaryDirectory(prefix="lora-passes-") as name:
        folder = Path(name)
        each = [*pytest, f"--migrated-in={folder}"]
        passes = _beside([*each, "-q"])
        beside = PassesBeside(passes, folder)
        beside.start()
        try:
            # It waits for the others' outcome at its end and prints it, so that its own summary comes last.
            ours = [*each, *IN_PROCESSES, *_without(HUB, JOBS, RIGHTS, *WITH_TORCH, *ON_POSTGRES)]
            code = subprocess.run(
                [*ours, *(f"--passes-beside={folder / name}" for name in passes)], cwd=ROOT
            ).returncode
            return beside.join() or code
        finally:
            beside.stop()


def _beside(pytest: Sequence[str]) -> dict[str, list[str]]:
    """What runs beside the pass in front, in the order in which it begins."""
    on_server = [*pytest, "--postgres", *(f"--all-of={path}" for path in ON_POSTGRES)]
    return {
        "of the engine": [*pytest, *WITH_TORCH, *IN_PROCESSES],
        "of jobs on Postgres": [*on_server, JOBS, *_without(*WITH_TORCH, *ON_SQLITE)],
        "of the Hub on Postgres": [*on_server, HUB, *_without(*ON_SQLITE)],
        "on Postgres": [*on_server, *_without(HUB, JOBS, *WITH_TORCH, *ON_SQLITE)],
        "of the whole site, in a browser": [*pytest, "-m", "browser or site", *_marked("browser", "site")],
        "of jobs": [*pytest, JOBS, *IN_PROCESSES, *_without(*WITH_TORCH, *ON_POSTGRES)],
        "of the Hub": [*pytest, HUB, *IN_PROCESSES],
        "of rights": [*pytest, RIGHTS],
    }


def _marked(*markers: str) -> list[str]:
    """Files with such tests: to import all others too takes a pass half a minute."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in files if any(f"mark.{name}" in file.read_text("utf-8") for name in markers)]


def _without(*paths: str) -> list[str]:
    return [f"--ignore={path}" for path in paths]


class PassesBeside:
    """Passes of the suite, some at a time and the others, in their order, each as one ends: so all end at about one time.

    The output of each stands in `folder`/its name/output, and at its end its code in `folder`/its name/code.
    """

    def __init__(self, passes: dict[str, list[str]], folder: Path) -> None:
        self._folder = folder
        self._waiting = collections.deque(passes.items())
        self._running: set[subprocess.Popen[bytes]] = set()
        self._codes: list[int] = []
        self._stopped = threading.Event()
        # The first fills the cores with the pass in front, and leaves what they compiled and migrated to those that come later.
        self._lanes = [
            threading.Thread(target=self._run, args=[COMPILED_AFTER_S if place else 0], daemon=True)
            for place in range(AT_A_TIME)
        ]

    def start(self) -> None:
        for lane in self._lanes:
            lane.start()

    def join(self) -> int:
        """Wait for all. Returns the code of one that failed, else 0."""
        for lane in self._lanes:
            lane.join()
        return next(filter(None, self._codes), 0)

    def stop(self) -> None:
        self._stopped.set()
        for process in self._running.copy():
            process.kill()

    def _run(self, after_s: float) -> None:
        self._stopped.wait(after_s)
        while not self._stopped.is_set():
            try:
                name, command = self._waiting.popleft()
            except IndexError:
                return
            self._pass(self._folder / name, command)

    def _pass(self, folder: Path, command: list[str]) -> None:
        folder.mkdir()
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            self._running.add(process)
            code = process.wait()
            self._running.discard(process)
        self._codes.append(code)
        part = folder / "code.part"
        part.write_text(str(code))
        part.rename(folder / "code")  # whole or not at all
