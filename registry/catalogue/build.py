"""Compute `matrices.json` from `configs.json`: `python -m registry.catalogue.build`. Needs torch and transformers.

Models with the same numbers share one entry under "shapes"; "models" says which one each name has.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from registry import catalogue
from registry.matrices import fold
from registry.shapes import check_config_bytes, shapes_on_meta


def build() -> dict[str, Any]:
    """What matrices.json holds: shapes by key, and the key of each model."""
    shapes: dict[str, dict[str, Any]] = {}
    keys: dict[str, str] = {}
    models: dict[str, str] = {}
    for entry in catalogue.read_configs():
        text = json.dumps(entry["config"], sort_keys=True)
        if text not in keys:
            keys[text] = entry["name"]
            print(entry["name"], file=sys.stderr, flush=True)
            found = shapes_on_meta(check_config_bytes(text.encode()))
            shapes[entry["name"]] = {
                "architecture": found.architecture,
                "task_type": found.task_type,
                "parameters": found.parameters,
                "matrices": fold(found.matrices),
                "embeddings": fold(found.embeddings),
            }
        models[entry["name"]] = keys[text]
    return {"shapes": shapes, "models": models}


def main() -> None:
    built = build()
    lines = [f"    {json.dumps(name)}: {json.dumps(shape)}" for name, shape in built["shapes"].items()]
    text = '{\n"models": ' + json.dumps(built["models"], indent=1)
    text += ',\n"shapes": {\n' + ",\n".join(lines) + "\n}\n}\n"
    catalogue.MATRICES.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
