"""Record what the PyPI package `lorahub==0.1.0` does on given modules and examples, for our tests to replay.

    python -m benchmarks.record_reference --base DIR --modules DIR… --examples FILE.jsonl --budget 40 --out FILE.json

The package runs in a virtual environment of its own, which this script makes on first use (--venv keeps it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

# The package asks for no versions. These are the ones requirements.txt has, so that nevergrad and scipy propose
# the same points; the rest is what it imports and does not declare.
PINS = (
    "torch==2.13.0",
    "transformers==5.24.0",
    "peft==0.21.2",
    "nevergrad==1.0.12",
    "numpy==2.3.5",
    "scipy==1.16.3",
    "sentencepiece==0.2.3",
    "pandas",
    "datasets",
    "tqdm",
)
DRIVER = Path(__file__).with_name("reference_driver.py")


def main() -> None:
    """Make the environment if it is not there, run the driver in it."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.venv or Path(scratch) / "venv"
        python = environment(folder)
        request = {
            "base": str(options.base.resolve()),
            "modules": [str(module.resolve()) for module in options.modules],
            "examples": [
                json.loads(line)
                for line in options.examples.read_text(encoding="utf-8").splitlines()
                if line.strip()
            ],
            "budget": options.budget,
            "seed": options.seed,
        }
        (Path(scratch) / "request.json").write_text(json.dumps(request))
        subprocess.run(
            [python, DRIVER, Path(scratch) / "request.json", options.out.resolve()], check=True, cwd=scratch
        )
    print(f"Recorded {options.budget} trials in {options.out}.", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--modules", type=Path, nargs="+", required=True)
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=40)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--venv", type=Path, help="keep the reference's environment here")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def environment(folder: Path) -> Path:
    """The interpreter of the reference's environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
        # Without its dependencies: it declares `dataset`, an unrelated package, where it means `datasets`.
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "lorahub==0.1.0"], check=True)
    return python


if __name__ == "__main__":
    main()
