"""How fast the engine scores mixes, beside the released LoraHub and beside the bare base model.

    python -m benchmarks.engine --reference-venv VENV --out docs/engine
    python -m benchmarks.engine --shapes small --growth --out growth

Every shape is a random base with random modules (benchmarks/random_collection.py). The contestants of one round run
one after the other on the same examples, round after round, so that whatever else the machine does meets all of them:

* limit: the bare base model's forward over the examples, once for every mix, in float32;
* reference: the search of `lorahub==0.1.0`, in a process of its own that waits between its turns;
* lorahub: our method of that name, the same search in float32;
* exact in float32: the same number of exact mixes, scored as the searches of method `auto` score theirs;
* exact in bfloat16: the same as scored for who asks for that type.

What is printed are medians over the rounds of each round's own ratio, and the best seconds of all rounds. Ours have
their forwards recorded before, as a search has after its first few. With --out the figures are also written as
OUT.json and OUT.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import random_collection
from benchmarks.record_reference import environment
from compose.engine import loading
from compose.engine.bank import build_bank
from compose.engine.loading import LoadedBase, LoadedModule
from compose.engine.mixing import EXACT, PAPER, Mix, Mixer
from compose.engine.scoring import Scorer, tokenise
from compose.engine.search import LoraHubSearch
from compose.engine.types import Example, Module, Trial

TIMER = Path(__file__).with_name("reference_timer.py")
RANK = 16
SEED = 42
GROWTH = {
    "modules": (5, 20, 50, 100, 200),
    "mixes": (1, 10, 40, 100, 400),
    "examples": (1, 5, 20, 100),
    "tokens": (32, 129, 512),
}
# A run that takes longer than this is not done a second time to have its forwards recorded; this many mixes tell.
SHORT_S, FEW = 5.0, 8
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Contestant = Callable[[int], float]  # the number of mixes -> seconds
USUAL = {"modules": 20, "mixes": 40, "examples": 5, "tokens": 129}


def main(arguments: Sequence[str] | None = None) -> None:
    """Time what is asked for; the table on stdout, the same in files where --out names them."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"machine": machine(options), "shapes": [], "growth": []}
    kind, measure = ("growth", _growth) if options.growth is not None else ("shapes", _race)
    # In a thread, as a worker's jobs are: a process's first one gives much of its memory back to the system each time.
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as slot:
        for shape in options.shapes:
            report[kind].append(slot.submit(measure, Path(scratch), shape, options).result())
            _write(report, options.out)
    print(as_markdown(report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes", nargs="+", choices=random_collection.SHAPES, default=["tiny", "small", "base"]
    )
    parser.add_argument("--modules", type=int, default=USUAL["modules"])
    parser.add_argument("--mixes", type=int, default=USUAL["mixes"])
    parser.add_argument("--examples", type=int, default=USUAL["examples"])
    parser.add_argument("--tokens", type=int, default=USUAL["tokens"], help="of an input")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--one-type", action="store_true", help="leave out bfloat16")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor seconds instead of the clock on the wall, for a machine that has other work to do",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu or cuda; the reference takes a GPU if it sees one"
    )
    parser.add_argument(
        "--reference-venv", type=Path, help="environment of lorahub==0.1.0; made if it is not there"
    )
    parser.add_argument(
        "--growth",
        nargs="*",
        choices=GROWTH,
        help="instead: how cost grows with each of these quantities; with all of them if none is named",
    )
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    return parser


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        processor = named[0] if named else processor
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": options.threads,
        "clock": options.clock,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "torch": torch.__version__,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "command": "python -m benchmarks.engine " + " ".join(sys.argv[1:]),
    }


# --- One shape, all contestants --------------------------------------------------------------------------------


def _race(scratch: Path, shape: str, options: argparse.Namespace) -> dict[str, Any]:
    base, modules = _folders(scratch, shape, options.modules)
    examples = random_collection.new_examples(options.examples, tokens=options.tokens)
    device = loading.resolve_device(options.device)
    clock = CLOCKS[options.clock]
    bench = Bench(base, modules, examples, device=device, clock=clock)
    contestants: dict[str, Contestant] = {
        "limit": bench.bare_forwards,
        "lorahub": bench.lorahub,
        "exact_float32": partial(bench.exact, dtype=torch.float32),
    }
    if not options.one_type:
        contestants["exact_bfloat16"] = partial(bench.exact, dtype=torch.bfloat16)
    with _reference(scratch, base, modules, examples, options) as reference:
        if reference is not None:
            contestants["reference"] = reference.search
        rounds = _rounds(contestants, options.mixes, options.rounds)
    figures = {
        "shape": shape,
        "sizes": {name: getattr(options, name) for name in USUAL},
        "best_s": {name: min(each[name] for each in rounds) for name in contestants},
        "rounds": rounds,
        "ratios": _ratios(rounds),
        "load_s": {"ours": bench.load_s, **({"reference": reference.load_s} if reference else {})},
        "modules_s": {"ours": bench.modules_s, **({"reference": reference.modules_s} if reference else {})},
    }
    told = {name: figure for name, figure in figures.items() if name not in ("sizes", "rounds")}
    print(json.dumps(told), file=sys.stderr)
    return figures


def _rounds(contestants: dict[str, Contestant], mixes: int, rounds: int) -> list[dict[str, float]]:
    """Seconds of every contestant in every round; one before the first, for most of them short, is not counted."""
    for name, run in contestants.items():
        run(mixes if name.startswith("exact") else 3)
    return [{name: run(mixes) for name, run in contestants.items()} for _ in range(rounds)]


def _ratios(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds: how many times the limit, and how many times faster than the reference."""
    ratios = {}
    for name in [name for name in ("lorahub", "exact_float32", "exact_bfloat16") if name in rounds[0]]:
        ratios[f"{name}/limit"] = statistics.median(each[name] / each["limit"] for each in rounds)
        if "reference" in rounds[0]:
            ratios[f"reference/{name}"] = statistics.median(each["reference"] / each[name] for each in rounds)
    return ratios


def _folders(scratch: Path, shape: str, count: int) -> tuple[Path, list[Module]]:
    base = scratch / shape
    if not base.exists():
        random_collection.save_base(base, shape)
    return base, random_collection.save_modules(
        scratch / f"{shape}-modules", random_collection.new_base(shape), count=count, rank=RANK
    )


class Bench:
    """A loaded base with modules and examples, and the contestants of ours on it; each returns its seconds."""

    def __init__(
        self,
        base: Path,
        modules: Sequence[Module],
        examples: Sequence[Example],
        *,
        device: torch.device,
        clock: Callable[[], float],
    ) -> None:
        self.device = device
        self._clock = clock
        started = clock()
        self.base = loading.load_base(base, device=device)
        self.rows = tokenise(self.base, examples)
        has_base = clock()
        self.modules = [loading.load_module(module) for module in modules]
        self._path = base
        self._scorers: dict[torch.dtype, Scorer] = {
            torch.float32: _scorer(self.base, self.modules, self.rows)
        }
        self.load_s = clock() - started
        self.modules_s = clock() - has_base

    def bare_forwards(self, mixes: int) -> float:
        scorer = self._scorer(torch.float32)
        with self._timed() as seconds:
            for _ in range(mixes):
                scorer.bare_forward()  # its tensors are ready: a forward and nothing else
        return seconds[0]

    def lorahub(self, budget: int) -> float:
        scorer = self._scorer(torch.float32)
        with self._timed() as seconds:
            search = LoraHubSearch(
                modules=len(self.modules), examples=len(self.rows), budget=budget, seed=SEED
            )
            for number in range(1, budget + 1):
                [vector] = search.ask()
                [loss] = scorer.losses([Mix(PAPER, vector)])
                search.tell([Trial(number, vector, loss, search.objective(vector, loss))])
        return seconds[0]

    def exact(self, mixes: int, dtype: torch.dtype = torch.float32) -> float:
        scorer = self._scorer(dtype)
        vectors = (
            torch.rand(mixes, len(self.modules), generator=torch.Generator().manual_seed(SEED)) * 0.4 - 0.2
        )
        with self._timed() as seconds:
            scorer.losses([Mix(EXACT, tuple(vector)) for vector in vectors.tolist()])
        return seconds[0]

    def _scorer(self, dtype: torch.dtype) -> Scorer:
        if dtype not in self._scorers:
            base = loading.load_base(self._path, device=self.device, dtype=dtype)
            self._scorers[dtype] = _scorer(base, self.modules, self.rows)
        return self._scorers[dtype]

    @contextmanager
    def _timed(self) -> Iterator[list[float]]:
        seconds: list[float] = []
        self._wait()
        started = self._clock()
        yield seconds
        self._wait()
        seconds.append(self._clock() - started)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _scorer(base: LoadedBase, modules: Sequence[LoadedModule], rows: Sequence[Any]) -> Scorer:
    bank = build_bank(modules, device=base.device, dtype=base.model.dtype)
    return Scorer(base, Mixer(base, bank), rows)


# --- The reference, in its own process -------------------------------------------------------------------------


class Reference:
    """The released package, loaded and waiting; `search` has it search once and returns its seconds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        loaded = self._answer()
        self.load_s, self.modules_s = float(loaded["load_s"]), float(loaded["modules_s"])

    def search(self, budget: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{budget}\n")
        self._process.stdin.flush()
        return float(self._answer()["search_s"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The reference ended with code {self._process.wait()}; its output is above.")
        return dict(json.loads(line))


@contextmanager
def _reference(
    scratch: Path,
    base: Path,
    modules: Sequence[Module],
    examples: Sequence[Example],
    options: argparse.Namespace,
) -> Iterator[Reference | None]:
    """None without an environment for it, and for causal bases, which the package does not know."""
    is_causal = not json.loads((base / "config.json").read_text()).get("is_encoder_decoder")
    if options.reference_venv is None or is_causal:
        yield None
        return
    request = scratch / "request.json"
    request.write_text(
        json.dumps(
            {
                "base": str(base),
                "modules": [str(module.path) for module in modules],
                "examples": [asdict(example) for example in examples],
                "seed": SEED,
                "threads": options.threads,
                "clock": options.clock,
            }
        )
    )
    python = environment(options.reference_venv)
    process = subprocess.Popen(
        [python, TIMER, request], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=scratch
    )
    try:
        yield Reference(process)
    finally:
        process.terminate()
        process.wait()


# --- How cost grows --------------------------------------------------------------------------------------------


def _growth(scratch: Path, shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of exact mixes in float32, one quantity changed at a time and the others as usual."""
    device = loading.resolve_device(options.device)
    base, modules = _folders(scratch, shape, max(GROWTH["modules"]))
    rows = []
    for quantity in options.growth or GROWTH:
        for value in GROWTH[quantity]:
            sizes = {name: getattr(options, name) for name in USUAL} | {quantity: value}
            examples = random_collection.new_examples(sizes["examples"], tokens=sizes["tokens"])
            own = modules[: sizes["modules"]]
            bench = Bench(base, own, examples, device=device, clock=CLOCKS[options.clock])
            _warm_up(bench, sizes["mixes"])
            seconds = min(bench.exact(sizes["mixes"]) for _ in range(options.rounds))
            limit = min(bench.bare_forwards(4) for _ in range(options.rounds)) / 4
            rows.append({"quantity": quantity, "value": value, "seconds": seconds, "limit_forward_s": limit})
            print(json.dumps({"shape": shape, **rows[-1]}), file=sys.stderr)
    return {
        "shape": shape,
        "usual": {name: getattr(options, name) for name in USUAL},
        "rows": rows,
    }


def _warm_up(bench: Bench, mixes: int) -> None:
    """Whatever is made once and kept is there after this; forwards are recorded where that is felt, in short runs."""
    seconds = bench.exact(min(mixes, FEW))
    if seconds * mixes / FEW < SHORT_S:
        bench.exact(mixes)


# --- Writing it down -------------------------------------------------------------------------------------------


def _write(report: dict[str, Any], out: Path | None) -> None:
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_suffix(".md").write_text(as_markdown(report))


def as_markdown(report: dict[str, Any]) -> str:
    """The report as tables for people."""
    about = report["machine"]
    where = about["gpu"] or f"{about['processor']}, {about['cores']} cores, {about['threads']} threads"
    wait = f", OMP_WAIT_POLICY={about['omp_wait_policy']}" if about["omp_wait_policy"] else ""
    clock = ", processor seconds" if about["clock"] == "cpu" else ""
    lines = [f"{about['date']}, {where}, torch {about['torch']}{wait}{clock}: `{about['command']}`", ""]
    if report["shapes"]:
        lines += _race_table(report["shapes"])
    for growth in report["growth"]:
        lines += _growth_table(growth)
    return "\n".join(lines) + "\n"


def _race_table(shapes: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| shape | limit s | reference s | lorahub s | exact, float32, s | exact, bfloat16, s | lorahub / limit "
        "| reference / lorahub | reference / exact, float32 | reference / exact, bfloat16 | loaded, ours, s "
        "| loaded, reference, s | of that the modules, ours, s | the modules, reference, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for figures in shapes:
        best, ratios, load, own = (figures[name] for name in ("best_s", "ratios", "load_s", "modules_s"))
        columns = [
            *(
                best.get(name)
                for name in ("limit", "reference", "lorahub", "exact_float32", "exact_bfloat16")
            ),
            ratios["lorahub/limit"],
            *(ratios.get(f"reference/{name}") for name in ("lorahub", "exact_float32", "exact_bfloat16")),
            load["ours"],
            load.get("reference"),
            own["ours"],
            own.get("reference"),
        ]
        lines.append(f"| {figures['shape']} | {' | '.join(map(_or_dash, columns))} |")
    return [*lines, ""]


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _growth_table(growth: dict[str, Any]) -> list[str]:
    usual = ", ".join(f"{value} {name}" for name, value in growth["usual"].items())
    lines = [
        f"{growth['shape']}, exact mixes in float32; what is not named: {usual}.",
        "",
        "| | seconds | bare base forward over the examples, float32, s |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {row['value']} {row['quantity']} | {row['seconds']:.3f} | {row['limit_forward_s']:.4f} |"
        for row in growth["rows"]
    ]
    return [*lines, ""]


if __name__ == "__main__":
    main()
