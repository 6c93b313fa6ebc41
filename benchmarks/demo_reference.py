"""Record the reference on the demo collection: 20 modules, the five examples of a held-out task, 40 trials.

python -m benchmarks.demo_reference [further options of record_reference]
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TASK = "animal-aloud"
OUT = ROOT / "tests" / "compose" / "engine" / "data" / "reference_demo_t5.json"


def main() -> None:
    collection = json.loads((ROOT / "demo" / "collection.json").read_text())
    folders = [m["path"] for m in collection["modules"] if m["base_model"] == "demo/story-t5"]
    modules = [ROOT / "demo" / path for path in random.Random(0).sample(folders, 20)]
    task = json.loads((ROOT / "demo" / "tasks" / f"{TASK}.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        examples = Path(scratch) / "examples.jsonl"
        examples.write_text("".join(json.dumps(row) + "\n" for row in task["few_shot"]))
        command = [sys.executable, "-m", "benchmarks.record_reference", "--base"]
        command += [str(ROOT / "demo" / "story-t5"), "--modules", *map(str, modules)]
        command += ["--examples", str(examples), "--out", str(OUT), *sys.argv[1:]]
        subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
