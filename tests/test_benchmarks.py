"""The benchmarks run: at a size that takes seconds, on bases nobody downloads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from benchmarks import bbh, engine, families, random_collection
from compose.engine.types import Example
from tests.compose.engine import tiny


def rows(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [tiny.EXAMPLES[number % len(tiny.EXAMPLES)] for number in range(count)]
    path.write_text("".join(json.dumps({"context": e.input, "completion": e.output}) + "\n" for e in shown))


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two tasks and twenty modules, as arguments of the command."""
    root = tmp_path_factory.mktemp("bbh")
    base, modules = tiny.save_collection(root, "t5", 2)
    names = []
    for number in range(bbh.POOL):
        link = root / f"module-{number}"
        link.symlink_to(modules[number % 2].path)
        names.append(str(link))
    (root / "modules.txt").write_text("\n".join(names) + "\n")
    for task in ("boolean", "words"):
        rows(root / "data" / task / "example.jsonl", 8)
        rows(root / "data" / task / "zero_shot.jsonl", 3)
    arguments = [
        "--data",
        root / "data",
        "--base",
        base,
        "--modules",
        root / "modules.txt",
        "--device",
        "cpu",
    ]
    return [str(argument) for argument in arguments]


def test_lorahubs_protocol_runs_resumes_and_shows_the_published_means(
    protocol: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(bbh, "BUDGET", 3)
    command = [*protocol, "--methods", "lorahub", "--out", str(tmp_path), "--seeds", "1"]
    bbh.main(command)
    capsys.readouterr()
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.lorahub.json")}
    assert set(first) == {"boolean.1.lorahub.json", "words.1.lorahub.json"}
    bbh.main([*command, "2"])
    printed = capsys.readouterr()
    assert "4 compositions, 2 of them done before." in printed.err
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in first} == first
    assert "| published (FLAN-T5-large, 196 modules) | 27.0 | 37.3 | – | – | 34.7 |" in printed.out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["tasks"]) == {"boolean", "words"}
    assert summary["test_rows"] == 6


def test_the_protocols_examples_and_pools_are_those_of_the_released_code(tmp_path: Path):
    folder = tmp_path / "tasks" / "task"
    folder.mkdir(parents=True)
    lines = [json.dumps({"context": str(number), "completion": "x"}) + "\n" for number in range(100)]
    for name in ("example.jsonl", "zero_shot.jsonl"):
        (folder / name).write_text("".join(lines))
    [task] = bbh.read_tasks(tmp_path / "tasks")
    # random.seed(42); random.shuffle(list(range(100))); random.seed(1); random.sample(range(196), 20)
    assert [example.input for example in task.examples] == ["42", "41", "91", "9", "65"]
    assert task.test[1] == Example("1", "x")
    assert bbh.pool([str(number) for number in range(196)], 1)[:5] == ["34", "145", "195", "16", "65"]


def test_the_protocols_table_averages_what_is_mixed_alike():
    scores = {"zero_shot": 1.0, "lorahub": 30.0}
    found = [
        {"task": "t", "seed": 1, "method": "lorahub", "scores": {**scores, "uniform": 10.0}},
        {"task": "t", "seed": 1, "method": "auto", "scores": {**scores, "uniform": 20.0, "auto": 50.0}},
    ]
    means = bbh._task_row(found)["mean"]
    assert means == {
        "zero_shot": 1.0,
        "lorahub": 30.0,
        "uniform": 10.0,
        "uniform, exact mix": 20.0,
        "auto": 50.0,
    }
    assert sorted(means, key=bbh._column_order) == [
        "zero_shot",
        "uniform",
        "uniform, exact mix",
        "lorahub",
        "auto",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tasks", "nowhere"], "There is no task nowhere"),
        (["--data", "/nowhere"], "There is no task at all"),
    ],
)
def test_a_protocol_without_its_tasks_is_refused(
    protocol: list[str], tmp_path: Path, arguments: list[str], sentence: str
):
    with pytest.raises(SystemExit, match=sentence):
        bbh.main([*protocol, "--out", str(tmp_path), *arguments])


def test_the_engines_benchmark_times_every_contestant_and_writes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    threads = torch.get_num_threads()
    sizes = ["--modules", "3", "--mixes", "5", "--tokens", "9", "--examples", "2", "--threads", str(threads)]
    engine.main(["--shapes", "tiny", "--rounds", "1", *sizes, "--out", str(tmp_path / "race")])
    monkeypatch.setattr(engine, "GROWTH", {"modules": (2, 4), "mixes": (1, 3)})
    engine.main(["--growth", "--shapes", "tiny", "--rounds", "1", *sizes, "--out", str(tmp_path / "growth")])
    capsys.readouterr()
    [figures] = json.loads((tmp_path / "race.json").read_text())["shapes"]
    assert set(figures["best_s"]) == {"limit", "lorahub", "exact_float32", "exact_bfloat16"}
    assert all(seconds > 0 for seconds in figures["best_s"].values())
    assert figures["ratios"]["lorahub/limit"] == pytest.approx(
        figures["best_s"]["lorahub"] / figures["best_s"]["limit"]
    )
    assert "| tiny |" in (tmp_path / "race.md").read_text()
    assert "| 4 modules |" in (tmp_path / "growth.md").read_text()


def test_the_benchmark_of_base_models_tells_what_composes_and_what_is_refused(tmp_path: Path):
    families.main(["--only", "opt", "bert", "--out", str(tmp_path / "families.md")])
    table = (tmp_path / "families.md").read_text(encoding="utf-8")
    assert "**Compose (1):** opt." in table
    assert "reads a text in both directions" in table


def test_inputs_of_the_engines_benchmark_have_the_tokens_asked_for(tmp_path: Path):
    random_collection.save_base(tmp_path, "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    [example] = random_collection.new_examples(1, tokens=20)
    assert len(tokenizer(example.input)["input_ids"]) == 20
