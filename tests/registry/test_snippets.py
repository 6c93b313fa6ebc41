"""The code that the adapter page offers runs as it stands, on the demo collection, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry import snippets
from registry.filenames import WEIGHTS
from registry.models import Adapter, User
from registry.publishing import publish
from tests.conftest import clean_environment
from tests.factories import DEMO, host_demo_base, make_token, make_user, namespace_of
from tests.fake_adapters import files_of

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

TRY_IT = """
inputs = tokenizer("anna put two red books in the park .", return_tensors="pt")
print("ANSWER", tokenizer.decode(model.generate(**inputs, max_new_tokens=8)[0]))
"""


def publish_demo_module(architecture: str, owner: User, name: str = "colour") -> Adapter:
    """A module of the demo collection, on a base of this architecture, both served here."""
    collection = json.loads((DEMO / "collection.json").read_text())
    folders = {base["id"]: DEMO / base["path"] for base in collection["base_models"]}
    base = next((base for base, folder in folders.items() if _architecture(folder) == architecture), None)
    if base is None:
        pytest.skip(f"The demo collection has no {architecture}.")
    entry = next(entry for entry in collection["modules"] if entry["base_model"] == base)
    host_demo_base(base)
    return publish(
        author=owner,
        namespace=namespace_of(owner),
        name=name,
        files=files_of(DEMO / entry["path"]),
        base_model=base,
    )


def _architecture(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["architectures"][0]


def run(command: list[str], folder: Path, **variables: str) -> str:
    """What the command prints, run in `folder` with a home of its own."""
    environment = {
        **clean_environment(),
        "HOME": str(folder),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def ways(adapter: Adapter, site: str) -> dict[str, str]:
    assert adapter.head is not None
    return {way.name: way.text for way in snippets.snippets_for(adapter, adapter.head, site=site)}


def test_peft_and_transformers_load_the_module_and_answer_the_same(live_server: Any, tmp_path: Path):
    alice, pasted = make_user("alice"), []
    for architecture in ("T5ForConditionalGeneration", "LlamaForCausalLM"):
        offered = ways(publish_demo_module(architecture, alice, architecture), live_server.url)
        pasted += [offered["peft"] + "\n" + TRY_IT, offered["transformers"] + "\n" + TRY_IT]
    # One process, in which importing both takes most of the time; but nothing of one snippet is there for the next.
    (tmp_path / "all.py").write_text(f"for pasted in {pasted!r}:\n    exec(pasted, {{}})\n")
    said = run([sys.executable, "all.py"], tmp_path).splitlines()
    answers = [line for line in said if line.startswith("ANSWER")]
    assert len(answers) == 4
    assert answers[0] == answers[1]
    assert answers[2] == answers[3]
    assert len(said) == 8, "pasted as it stands, each of them prints an answer"


def test_a_private_module_is_fetched_with_a_token_by_every_tool(live_server: Any, tmp_path: Path):
    adapter = publish_demo_module("T5ForConditionalGeneration", make_user("alice"))
    adapter.visibility = "private"
    adapter.save(update_fields=["visibility"])
    assert adapter.created_by is not None
    token = make_token(adapter.created_by, "read")
    offered = ways(adapter, live_server.url)
    by_python = offered["peft"].split("tokenizer =")[0].replace("from peft import PeftModel\n", "")
    by_python = by_python.replace("from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n", "")
    folder = run([sys.executable, "-c", by_python + "\nprint(adapter)"], tmp_path, LORA_COMMONS_TOKEN=token)
    files = [Path(folder.strip().splitlines()[-1]) / WEIGHTS]
    for tool in ("hf", "curl"):
        (tmp_path / tool).mkdir()
        run(["bash", "-e", "-c", offered[tool]], tmp_path / tool, LORA_COMMONS_TOKEN=token)
        files.append(tmp_path / tool / "colour" / WEIGHTS)
    files.append(tmp_path / "curl" / WEIGHTS)
    assert len({file.read_bytes() for file in files}) == 1
