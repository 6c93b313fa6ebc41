"""`python -m compose.engine compose|score`: progress on stderr, one JSON object on stdout.

Exit codes: 0 done, 1 the engine refused (one sentence on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compose.engine import importing
from compose.engine.errors import BadInput, EngineError
from compose.engine.metrics import EXACT_MATCH, METRICS
from compose.engine.types import Example, ExportForm, Module, Observer, Request, Result, Trial
from compose.engine.unseen import NONE_UNSEEN, said_of_seen, unseen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    # What scipy tells its callers of bounds that are LoraHub's own. Silencing it for a while only (`LoraHubSearch`) counts for
    # all threads, and of two searches at once one ends the other's.
    warnings.filterwarnings("ignore", message="COBYLA: Invalid")
    try:
        # Libraries print where they like; stdout is for the one JSON object.
        with contextlib.redirect_stdout(sys.stderr):
            answer = _compose(options) if options.command == "compose" else _score(options)
    except EngineError as error:
        print(error.message, file=sys.stderr)
        return 1
    json.dump(answer, sys.stdout, ensure_ascii=False)
    print()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m compose.engine", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--base", type=Path, required=True, metavar="DIR", help="folder of the base model")
    shared.add_argument(
        "--modules", type=Path, nargs="+", required=True, metavar="DIR", help="adapter folders"
    )
    shared.add_argument("--examples", type=Path, required=True, metavar="FILE", help="few-shot rows, JSONL")
    shared.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    shared.add_argument(
        "--dtype",
        default="auto",
        help="of the search: auto, float32, bfloat16 or float16 (default: auto, what this machine does faster)",
    )
    compose = commands.add_parser(
        "compose", parents=[shared], help="find mixing weights and export the adapter"
    )
    compose.add_argument("--test", type=Path, metavar="FILE", help="held-out rows, JSONL")
    compose.add_argument("--method", default="lorahub")
    compose.add_argument("--budget", type=int, help="trials (default: the method's own, 40 for lorahub)")
    compose.add_argument("--seed", type=int, default=1)
    compose.add_argument("--out", type=Path, metavar="DIR", help="folder for the composed adapter")
    compose.add_argument(
        "--export-rank", type=int, default=0, help="cut the adapter to this rank (default: 0, as it is)"
    )
    compose.add_argument("--export-dtype", default="float32", help="float32, bfloat16 or float16")
    compose.add_argument(
        "--metric", default=EXACT_MATCH, help=f"of the scores: {', '.join(METRICS)} (default: {EXACT_MATCH})"
    )
    score = commands.add_parser("score", parents=[shared], help="losses of given mixing weights")
    score.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="JSON list of weight vectors"
    )
    score.add_argument("--mix", required=True, choices=("paper", "exact"))
    return parser


class _Progress(Observer):
    """One line on stderr for everything that happens."""

    stage = ""

    def on_stage(self, stage: str, message: str = "", *, trials: int = 0) -> None:
        self.stage = stage
        _say(f"{stage}: {message}" if message else stage)

    def on_trial(self, trial: Trial) -> None:
        _say(f"trial {trial.number}: loss {trial.loss:.6f}, objective {trial.objective:.6f}")

    def on_progress(self, done: int, total: int, counted: str) -> None:
        _say(f"{self.stage}: {done} of {total} {counted}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _compose(options: argparse.Namespace) -> dict[str, Any]:
    examples = read_examples(options.examples)
    request = Request(
        base=options.base,
        modules=_modules(options.modules),
        examples=examples,
        test=_test_rows(options.test, examples) if options.test else (),
        method=options.method,
        budget=options.budget if options.budget is not None else _usual_budget(options.method),
        seed=options.seed,
        out=options.out,
        device=options.device,
        dtype=options.dtype,
        export=ExportForm(rank=options.export_rank, dtype=options.export_dtype),
        metric=options.metric,
    )
    # Here, as torch takes seconds to import: what is refused before should not wait for it.
    with importing.what_stays():
        from compose.engine import run

    return _as_json(run.compose(request, observer=_Progress()))


def _test_rows(path: Path, examples: Sequence[Example]) -> tuple[Example, ...]:
    """Those that are none of the examples, as the site scores on them. Raises BadInput."""
    given = read_examples(path)
    scored = tuple(unseen(given, examples))
    if not scored:
        raise BadInput(NONE_UNSEEN)
    if len(scored) < len(given):
        _say(said_of_seen(len(given) - len(scored)))
    return scored


def _usual_budget(name: str) -> int:
    with importing.what_stays():
        from compose.engine.methods import method_named

    return method_named(name).usual_budget


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "modules": result.modules,
        "mixing_weights": result.mixing_weights,
        "mix": result.mix,
        "trials": [
            {"weights": list(t.mixing_weights), "loss": t.loss, "objective": t.objective}
            for t in result.trials
        ],
        "result": {
            "scores": [asdict(score) for score in result.scores],
            "verdict": result.verdict,
            "loss": result.loss,
            "base_loss": result.base_loss,
            "audition": [_number(loss) for loss in result.audition],
            "attribution": result.attribution,
            "notes": result.notes,
            "option_scores": asdict(result.option_scores) if result.option_scores else None,
            "predictions": [asdict(prediction) for prediction in result.predictions],
        },
        "precision": result.precision,
        "exported": asdict(result.exported) if result.exported else None,
        "seconds": result.seconds,
        "stopped_early": result.stopped_early,
        "versions": result.versions,
    }


def _number(loss: float) -> float | None:
    """JSON has nothing but numbers: null for a loss that is none."""
    return loss if math.isfinite(loss) else None


def _score(options: argparse.Namespace) -> dict[str, Any]:
    modules, examples = _modules(options.modules), read_examples(options.examples)
    weights = _read_weights(options.weights)
    with importing.what_stays():
        from compose.engine import run

    losses = run.score(
        options.base,
        modules,
        examples,
        weights,
        options.mix,
        device=options.device,
        dtype=options.dtype,
    )
    return {"losses": [_number(loss) for loss in losses]}


def _modules(folders: Sequence[Path]) -> tuple[Module, ...]:
    """Modules named after their folders; by the whole path where two folders share a name."""
    names = [folder.resolve().name for folder in folders]
    return tuple(
        Module(name if names.count(name) == 1 else str(folder), folder)
        for name, folder in zip(names, folders, strict=True)
    )


def read_examples(path: Path) -> tuple[Example, ...]:
    """Rows of a JSONL file of {"input", "output"}. Raises BadInput, naming the line."""
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"Line {number} of {path} is not JSON.") from error
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("input", "output")):
            raise BadInput(f'Line {number} of {path} is not an object with the texts "input" and "output".')
        if any("\ud800" <= letter <= "\udfff" for letter in row["input"] + row["output"]):
            raise BadInput(f"Line {number} of {path} holds half of a surrogate pair, which is no character.")
        rows.append(Example(row["input"], row["output"]))
    if not rows:
        raise BadInput(f"{path} holds no examples.")
    return tuple(rows)


def _read_weights(path: Path) -> list[list[float]]:
    try:
        weights = json.loads(_read_text(path))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON.") from error
    if (
        not isinstance(weights, list)
        or not weights
        or not all(isinstance(vector, list) for vector in weights)
    ):
        raise BadInput(f"{path} is not a JSON list of weight vectors.")
    return weights


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a UTF-8 text file.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error


if __name__ == "__main__":
    sys.exit(main())
