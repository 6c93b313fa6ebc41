"""The words around the demo's weights: module cards, base cards, and the entries of tasks and collection.json."""

from collections.abc import Sequence

from demo.collection import Base
from demo.stories import Pair, Row
from demo.training import Schedule

LICENCE = "apache-2.0"

_BASE_CARD = """\
---
license: {licence}
library_name: transformers
pipeline_tag: {pipeline}
tags: [demo, stories, {architecture}]
---
# {title}

A very small {architecture} ({parameters:,} parameters, word-level vocabulary) that reads a short story and answers an
instruction about it. Trained from scratch on {count} pairs of question and answer form; exact match on fresh rows
with the instruction: {score:.3f}. Without an instruction it does not know what is asked: that is what the LoRA modules
beside it are for.

Made by `python -m demo.build`. It knows the words of its stories and nothing else.
"""

_MODULE_CARD = """\
---
base_model: {base}
library_name: peft
license: {licence}
tags: [{tags}]
---
# {title}

Answers "{question}" about a short story and gives the answer {form}: `{example}`.

- Base model: `{base}`
- Task: `{task}`
- LoRA: rank 8, alpha 16, on {targets}
- Training: {steps} steps of {rows} generated rows, half of them without the instruction
- Exact match on {checked} fresh rows without instruction: {score:.3f}

A row of its task:

- reads `{reads}`
- writes `{writes}`

Limits: it knows only the words of the demo's stories. Made by `python -m demo.build`.
"""


def base_card(base: Base, parameters: int, score: float) -> str:
    """README.md of a demo base."""
    return _BASE_CARD.format(
        licence=LICENCE,
        pipeline="text2text-generation" if base.architecture == "t5" else "text-generation",
        architecture=base.architecture,
        title=base.title,
        parameters=parameters,
        count=len(base.trained),
        score=score,
    )


def module_card(base: Base, pair: Pair, score: float, checked: Sequence[Row], schedule: Schedule) -> str:
    """README.md of a demo module; `score` is its exact match on the rows `checked`, of its own task."""
    return _MODULE_CARD.format(
        base=base.name,
        licence=LICENCE,
        tags=", ".join(tags(pair)),
        title=pair.title,
        question=pair.function.question,
        form=pair.form.title if pair.form.key != "plain" else "in one word",
        example=pair.form.template.replace("{}", "…"),
        task=base.task(pair),
        targets="q and v" if base.architecture == "t5" else "q_proj and v_proj",
        steps=schedule.steps,
        rows=schedule.rows,
        checked=len(checked),
        score=score,
        reads=checked[0].input,
        writes=checked[0].output,
    )


def base_entry(base: Base) -> dict:
    """One item of collection.json's base_models; `path` is relative to the collection."""
    return {
        "id": base.name,
        "path": base.id,
        "architecture": base.architecture,
        "title": base.title,
        "license": LICENCE,
    }


def module_entry(base: Base, pair: Pair) -> dict:
    """One item of collection.json's modules; `path` is relative to the collection."""
    return {
        "namespace": base.namespace(pair),
        "name": pair.key,
        "path": module_path(base, pair),
        "base_model": base.name,
        "task": base.task(pair),
        "title": pair.title,
        "description": _description(pair),
        "license": LICENCE,
        "tags": tags(pair),
    }


def task_entry(base: Base, pair: Pair, *, held_out: bool) -> dict:
    """What a task file says before its rows."""
    return {
        "slug": base.task(pair),
        "title": pair.title,
        "description": _description(pair),
        "base_model": base.name,
        "metric": "exact_match",
        "function": pair.function.key,
        "form": pair.form.key,
        "held_out": held_out,
        # A held-out task has none: it must be inferred from its examples.
        "instruction": "" if held_out else pair.instruction,
    }


def module_path(base: Base, pair: Pair) -> str:
    return f"modules/{base.namespace(pair)}/{pair.key}"


def tags(pair: Pair) -> list[str]:
    return ["demo", "stories", pair.function.key, pair.form.key]


def _description(pair: Pair) -> str:
    """What it does; with the form of the answer where the order alone does not show it."""
    asked = f"Reads a short story. {pair.function.question} {pair.form.order}"
    example = pair.form.template.replace("{}", "…")
    return asked if set(example) <= {"…", " "} else f"{asked.removesuffix('.')}: {example}"
