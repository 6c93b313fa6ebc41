"""Builds the whole demo collection: `python -m demo.build`.

Two bases are trained from scratch, then a LoRA module for each of their pairs, then the tasks, the cards and
collection.json are written. Every seed is fixed and every training runs on one thread (two run side by side), so a
second build on the same machine gives the same bytes. What is there already is kept: a build that was interrupted
goes on where it stopped, and `--fresh` begins again.
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from demo import cards, tokenizer
from demo.collection import BASES, FOLDER, Base
from demo.stories import Pair, Row, distinct_rows, telling_rows
from demo.training import Progress, Schedule, batch, exact_match, new_base, train, with_lora

FEW_SHOT_ROWS, TEST_ROWS, CHECK_ROWS = 5, 200, 200
BASE_SCHEDULES = {"t5": Schedule(1200, 64, 1e-3), "llama": Schedule(600, 64, 2e-3)}
MODULE_SCHEDULE = Schedule(150, 32, 5e-3)
# The bases always see the instruction; a module must also do without it, as held-out tasks come without.
INSTRUCTED_FOR_BASE, INSTRUCTED_FOR_MODULE = 1.0, 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.build", description="Build the demo collection.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write into (default: demo/)")
    parser.add_argument(
        "--fresh", action="store_true", help="delete what an earlier build wrote and begin again"
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="trainings side by side, one thread each (default: 2)"
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()
    if options.fresh:
        clear(options.out)
    build(options.out, processes=options.processes)
    say(f"Done in {time.monotonic() - started:.0f} s: {options.out}")


def build(out: Path, *, processes: int) -> None:
    """Write everything that is missing under `out`."""
    jobs = [(base, pair) for base in BASES for pair in base.trained]
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in pool.map(build_base, [out] * len(BASES), BASES):
            say(done)
        for done in pool.map(build_module, [out] * len(jobs), *zip(*jobs, strict=True)):
            say(done)
    write_texts(out)


def clear(out: Path) -> None:
    """Remove what a build writes, and nothing else."""
    for name in [*(base.id for base in BASES), "modules", "tasks"]:
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "collection.json").unlink(missing_ok=True)


def build_base(out: Path, base: Base) -> str:
    """Train one base on instructed rows of its modules' pairs. Returns a line for the terminal."""
    folder = out / base.id
    if (folder / "model.safetensors").exists():
        return f"{base.id}: kept"
    prepare_process()
    words = tokenizer.build(architecture=base.architecture)
    schedule = BASE_SCHEDULES[base.architecture]
    model = new_base(architecture=base.architecture, tokenizer=words, seed=seed_of(base.id))
    batches = _batches(
        words, base.trained, schedule.rows, INSTRUCTED_FOR_BASE, f"{base.id}/train", base.architecture
    )
    train(model, batches, schedule, progress=_progress(base.id))
    checked = list(islice(_mixed_rows(base.trained, INSTRUCTED_FOR_BASE, f"{base.id}/check"), CHECK_ROWS))
    score = exact_match(model, words, checked, architecture=base.architecture)
    with _whole_folder(folder) as unfinished:
        words.save_pretrained(unfinished)
        _name_tokenizer_for_every_version(unfinished / "tokenizer_config.json")
        model.generation_config.max_new_tokens = 12
        model.save_pretrained(unfinished)
        (unfinished / "README.md").write_text(
            cards.base_card(base, model.num_parameters(), score), encoding="utf-8"
        )
    return f"{base.id}: {model.num_parameters():,} parameters, {score:.2f} exact match with instructions"


def build_module(out: Path, base: Base, pair: Pair) -> str:
    """Train one module on its pair. Returns a line for the terminal."""
    folder = module_folder(out, base, pair)
    label = f"{folder.parent.name}/{folder.name}"
    if (folder / "adapter_model.safetensors").exists():
        return f"{label}: kept"
    prepare_process()
    model, words = load_base(out, base)
    seed = f"{base.id}/{pair.key}"
    adapted = with_lora(model, architecture=base.architecture, name=base.name, seed=seed_of(seed))
    batches = _batches(
        words, [pair], MODULE_SCHEDULE.rows, INSTRUCTED_FOR_MODULE, f"{seed}/train", base.architecture
    )
    train(adapted, batches, MODULE_SCHEDULE, progress=lambda *_: None)
    checked = distinct_rows(pair, random.Random(f"{seed}/check"), CHECK_ROWS)
    score = exact_match(adapted, words, checked, architecture=base.architecture)
    with _whole_folder(folder) as unfinished:
        # The embeddings are not trained; left to itself PEFT would ask the network whether they are.
        adapted.save_pretrained(str(unfinished), save_embedding_layers=False)
        _sort_json(unfinished / "adapter_config.json")
        card = cards.module_card(base, pair, score, checked, MODULE_SCHEDULE)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
    return f"{label}: {score:.2f} exact match on its own task, without instruction"


def load_base(out: Path, base: Base) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The built base and its tokenizer, ready to be read by the training functions."""
    kind = AutoModelForSeq2SeqLM if base.architecture == "t5" else AutoModelForCausalLM
    folder = out / base.id
    return kind.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)


def module_folder(out: Path, base: Base, pair: Pair) -> Path:
    return out / "modules" / base.namespace(pair) / pair.key


# --- tasks and the list of everything ------------------------------------------------------------------------------


def write_texts(out: Path) -> None:
    """Write tasks/*.json and collection.json; they depend on the generator alone, so always anew."""
    tasks = [task for base in BASES for task in _tasks(base)]
    (out / "tasks").mkdir(parents=True, exist_ok=True)
    for task in tasks:
        _write_json(out / "tasks" / f"{task['slug']}.json", task)
    collection = {
        "base_models": [cards.base_entry(base) for base in BASES],
        "modules": [cards.module_entry(base, pair) for base in BASES for pair in base.trained],
        "tasks": [task["slug"] for task in tasks],
    }
    _write_json(out / "collection.json", collection)
    say(f"{len(tasks)} tasks, {len(collection['modules'])} modules")


def _tasks(base: Base) -> Iterator[dict]:
    for pair in base.held_out:
        few_shot, test = held_out_rows(base, pair)
        yield cards.task_entry(base, pair, held_out=True) | {
            "few_shot": [asdict(row) for row in few_shot],
            "test": [asdict(row) for row in test],
        }
    for pair in base.trained:
        few_shot = telling_rows(pair, random.Random(f"{base.id}/{pair.key}/few-shot"), FEW_SHOT_ROWS)
        yield cards.task_entry(base, pair, held_out=False) | {"few_shot": [asdict(row) for row in few_shot]}


def held_out_rows(base: Base, pair: Pair) -> tuple[list[Row], list[Row]]:
    """The five examples that a held-out task shows and its test rows, no story in both."""
    seed = f"{base.id}/{pair.key}"
    few_shot = telling_rows(pair, random.Random(f"{seed}/few-shot"), FEW_SHOT_ROWS)
    shown = frozenset(row.input for row in few_shot)
    return few_shot, distinct_rows(pair, random.Random(f"{seed}/test"), TEST_ROWS, excluding=shown)


# --- small things --------------------------------------------------------------------------------------------------


def prepare_process() -> None:
    """One thread, whatever the machine has: sums in another order would give other bytes."""
    torch.set_num_threads(1)
    disable_progress_bar()


def seed_of(name: str) -> int:
    """A number for torch from a name, the same everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


def _mixed_rows(pairs: Sequence[Pair], instructed: float, seed: str) -> Iterator[Row]:
    rng = random.Random(seed)
    streams = [pair.rows(rng, instructed=instructed) for pair in pairs]
    while True:
        yield next(rng.choice(streams))


def _batches(
    words: PreTrainedTokenizerFast,
    pairs: Sequence[Pair],
    rows: int,
    instructed: float,
    seed: str,
    architecture: str,
) -> Iterator[dict[str, Tensor]]:
    stream = _mixed_rows(pairs, instructed, seed)
    while True:
        yield batch(words, list(islice(stream, rows)), architecture=architecture)


def batches_of(
    words: PreTrainedTokenizerFast, rows: Sequence[Row], size: int, seed: str, architecture: str
) -> Iterator[dict[str, Tensor]]:
    """Endless batches of the same rows, reshuffled for every pass."""
    rng = random.Random(seed)
    while True:
        shuffled = rng.sample(rows, len(rows))
        for start in range(0, len(rows) - size + 1, size):
            yield batch(words, shuffled[start : start + size], architecture=architecture)


def _progress(label: str) -> Progress:
    def report(step: int, steps: int, loss: float) -> None:
        if step % 50 == 0 or step == steps:
            say(f"{label}: step {step} of {steps}, loss {loss:.3f}")

    return report


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _whole_folder:
    """A folder that appears complete or not at all, so that an interrupted build leaves nothing half written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unfinished = folder.with_name(f"{folder.name}.unfinished")

    def __enter__(self) -> Path:
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.unfinished.mkdir(parents=True)
        return self.unfinished

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.unfinished.replace(self.folder)


def _name_tokenizer_for_every_version(path: Path) -> None:
    """transformers 5 writes a class name that older versions do not know; both know this one."""
    _write_json(path, json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _sort_json(path: Path) -> None:
    """PEFT writes target_modules from a set, in an order that changes from run to run."""
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    _write_json(path, config)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
