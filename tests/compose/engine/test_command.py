"""`python -m compose.engine`: one JSON object on stdout, progress on stderr, sentences for what it refuses."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from compose.engine import importing, run
from compose.engine.__main__ import main
from compose.engine.types import Example
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_run import TEST_ROWS

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Composed:
    """A composition in a process of its own, which says on stderr what it imports as well."""

    done: subprocess.CompletedProcess[str]
    out: Path


@pytest.fixture(scope="module")
def composed(t5: Collection, tmp_path_factory: pytest.TempPathFactory) -> Composed:
    folder = tmp_path_factory.mktemp("composed")
    test = write_rows(folder / "test.jsonl", TEST_ROWS)  # the first one is an example too
    command = [sys.executable, "-X", "importtime", "-m", "compose.engine", "compose"]
    command += [*map(str, arguments_for(t5, folder)), "--test", str(test), "--budget", "3", "--seed", "1"]
    command += ["--out", str(folder / "out"), "--metric", "rouge_l"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return Composed(done, folder / "out")


@pytest.fixture
def engine(capfd: pytest.CaptureFixture[str]):
    """The command without a new process, which would import torch again for every test."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        try:
            code: Any = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = exit_.code
        printed = capfd.readouterr()
        return subprocess.CompletedProcess([*map(str, arguments)], code, printed.out, printed.err)

    return call


def write_rows(path: Path, rows: tuple[Example, ...]) -> Path:
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return path


def arguments_for(t5: Collection, folder: Path) -> list[object]:
    examples = write_rows(folder / "examples.jsonl", tiny.EXAMPLES)
    folders = [module.path for module in t5.modules]
    return ["--base", t5.base, "--modules", *folders, "--examples", examples]


@pytest.fixture
def arguments(t5: Collection, tmp_path: Path) -> list[object]:
    return arguments_for(t5, tmp_path)


def test_compose_prints_one_json_object_and_writes_the_adapter(composed: Composed):
    done = composed.done
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["modules"] == [f"t5-module-{i}" for i in range(6)]
    assert len(answer["mixing_weights"]) == 6
    assert [set(trial) for trial in answer["trials"]] == [{"weights", "loss", "objective"}] * 3
    scores = answer["result"]["scores"]
    methods = ["zero_shot", "best_single", "uniform", "lorahub", "in_context"]
    assert [s["method"] for s in scores] == methods * 2
    assert [s["metric"] for s in scores] == ["rouge_l"] * 5 + ["exact_match"] * 5
    assert {"method", "metric", "value", "low", "high", "n"} <= set(scores[0])
    assert {score["n"] for score in scores} == {len(TEST_ROWS) - 1}
    assert "1 of the test rows is also among the examples, so it counts for no score." in done.stderr
    assert set(answer["seconds"]) == {"load", "search", "evaluate", "export"}
    assert "trial 3: loss" in done.stderr
    assert (composed.out / "adapter_config.json").is_file()


def test_test_rows_that_are_all_among_the_examples_are_refused(engine, arguments: list, tmp_path: Path):
    test = write_rows(tmp_path / "test.jsonl", tiny.EXAMPLES[:2])
    done = engine("compose", *arguments, "--test", test)
    assert (done.returncode, done.stdout) == (1, "")
    assert "All test rows are among the examples too" in done.stderr


def test_score_prints_one_loss_for_each_weight_vector(
    engine, arguments: list, tmp_path: Path, t5: Collection
):
    weights = [[0.0] * 6, [0.5] * 6]
    (tmp_path / "weights.json").write_text(json.dumps(weights))
    done = engine("score", *arguments, "--weights", tmp_path / "weights.json", "--mix", "exact")
    assert done.returncode == 0, done.stderr
    expected = run.score(t5.base, t5.modules, tiny.EXAMPLES, weights, "exact")
    assert json.loads(done.stdout)["losses"] == pytest.approx(expected, rel=1e-5)


def test_score_prints_null_for_a_loss_that_is_no_number_and_refuses_what_is_no_weight(
    engine, arguments: list, tmp_path: Path
):
    weights = tmp_path / "weights.json"
    weights.write_text(json.dumps([[1e38] * 6, [0.0] * 6]))
    done = engine("score", *arguments, "--weights", weights, "--mix", "exact")
    assert done.returncode == 0, done.stderr
    assert "NaN" not in done.stdout
    first, second = json.loads(done.stdout)["losses"]
    assert first is None
    assert second > 0
    weights.write_text(f"[[1{'0' * 400}, 0, 0, 0, 0, 0]]")
    done = engine("score", *arguments, "--weights", weights, "--mix", "exact")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("Weight vector 1 holds something that is not a finite number.")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "holds no examples."),
        (b"{\n", "Line 1 of {path} is not JSON."),
        (b'{"input": "a"}\n', 'Line 1 of {path} is not an object with the texts "input" and "output".'),
        (b"\xff\xfe\x00", "{path} is not a UTF-8 text file."),
        (
            b'{"input": "a", "output": "\\ud800"}\n',
            "Line 1 of {path} holds half of a surrogate pair, which is no character.",
        ),
    ],
)
def test_bad_example_files_end_with_one_sentence_and_code_1(
    engine, arguments: list, tmp_path: Path, text: bytes, sentence: str
):
    path = tmp_path / "examples.jsonl"
    path.write_bytes(text)
    done = engine("compose", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.strip().endswith(sentence.replace("{path}", str(path)))
    assert "Traceback" not in done.stderr


def test_an_engine_error_ends_with_its_sentence_and_code_1(engine, arguments: list):
    done = engine("compose", *arguments, "--method", "magic")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("There is no method 'magic'")


def test_wrong_usage_ends_with_code_2(engine, arguments: list):
    assert engine("compose").returncode == 2
    assert engine("score", *arguments, "--mix", "linear").returncode == 2
    assert engine().returncode == 2


def test_the_engine_imports_no_django(composed: Composed):
    lines = [line for line in composed.done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    assert {"torch", "peft", "transformers", "nevergrad"} <= imported
    assert not imported & {"django", "celery", "rest_framework"}


def test_the_engines_types_and_errors_import_no_torch():
    code = (
        "import sys, compose.engine.types, compose.engine.errors; "
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'transformers', 'peft'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_collector_waits_while_the_engine_is_imported_and_only_then(monkeypatch: pytest.MonkeyPatch):
    with importing.what_stays():
        assert gc.isenabled(), "torch is here already"
    monkeypatch.delitem(sys.modules, "torch")
    with importing.what_stays():
        assert not gc.isenabled()
    assert gc.isenabled()
