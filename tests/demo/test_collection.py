"""The committed files: they are what the generator says, they load, and they answer."""

import json
import random
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from demo import build
from demo.collection import BASES, FOLDER, LLAMA, T5
from demo.stories import Row, distinct_rows, tell
from demo.training import answers, exact_match

COLLECTION = json.loads((FOLDER / "collection.json").read_text(encoding="utf-8"))


def task_of(slug: str) -> dict:
    return json.loads((FOLDER / "tasks" / f"{slug}.json").read_text(encoding="utf-8"))


def loaded(base):
    kind = AutoModelForSeq2SeqLM if base.architecture == "t5" else AutoModelForCausalLM
    return kind.from_pretrained(FOLDER / base.id), AutoTokenizer.from_pretrained(FOLDER / base.id)


def test_the_list_and_the_folders_agree():
    folders = {
        path.parent.relative_to(FOLDER).as_posix() for path in FOLDER.glob("modules/*/*/adapter_config.json")
    }
    assert {module["path"] for module in COLLECTION["modules"]} == folders
    assert {path.stem for path in FOLDER.glob("tasks/*.json")} == set(COLLECTION["tasks"])
    assert {module["task"] for module in COLLECTION["modules"]} <= set(COLLECTION["tasks"])
    assert {module["base_model"] for module in COLLECTION["modules"]} == {
        base["id"] for base in COLLECTION["base_models"]
    }


@pytest.mark.parametrize("module", COLLECTION["modules"], ids=lambda module: module["path"])
def test_a_module_names_its_base_and_has_a_card(module):
    folder = FOLDER / module["path"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == module["base_model"]
    assert (config["r"], config["target_modules"]) in [(8, ["q", "v"]), (8, ["q_proj", "v_proj"])]
    assert f"base_model: {module['base_model']}" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.id)
def test_the_card_of_a_module_shows_a_row_of_its_task(base):
    for pair in base.trained:
        card = (build.module_folder(FOLDER, base, pair) / "README.md").read_text(encoding="utf-8")
        [row] = distinct_rows(pair, random.Random(f"{base.id}/{pair.key}/check"), 1)
        assert f"- reads `{row.input}`\n- writes `{row.output}`\n" in card


def test_the_task_files_are_what_the_generator_gives(tmp_path: Path):
    build.write_texts(tmp_path)
    for path in [*tmp_path.glob("tasks/*.json"), tmp_path / "collection.json"]:
        committed = FOLDER / path.relative_to(tmp_path)
        assert path.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8"), path.name


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.id)
def test_a_held_out_task_has_five_examples_and_two_hundred_test_rows_without_instruction(base):
    for pair in base.held_out:
        task = task_of(base.task(pair))
        shown = {row["input"] for row in task["few_shot"]}
        tested = {row["input"] for row in task["test"]}
        assert (len(shown), len(tested)) == (5, 200)
        assert not shown & tested
        assert not any(pair.function.question in text for text in shown | tested)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.id)
def test_a_module_loads_with_peft_and_solves_its_own_task(base):
    pair = base.trained[0]
    model, words = loaded(base)
    adapted = PeftModel.from_pretrained(model, FOLDER / build.module_folder(Path(), base, pair))
    rows = [Row(**row) for row in task_of(base.task(pair))["few_shot"]]
    assert exact_match(adapted, words, rows, architecture=base.architecture) >= 0.8


@pytest.mark.parametrize("base", [T5, LLAMA], ids=lambda base: base.id)
def test_the_base_follows_an_instruction_and_is_lost_without(base):
    model, words = loaded(base)
    told = [pair.row(tell(random.Random(pair.key)), instructed=True) for pair in base.trained]
    assert exact_match(model, words, told, architecture=base.architecture) >= 0.8
    untold = [Row(**row) for row in task_of(base.task(base.held_out[0]))["few_shot"]]
    written = answers(model, words, [row.input for row in untold], architecture=base.architecture)
    assert sum(text == row.output for text, row in zip(written, untold, strict=True)) <= 1
