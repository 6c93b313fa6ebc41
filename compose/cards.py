"""The card of a composed adapter: what it is, how good, made of what, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from compose import citations, naming
from compose.charts import method_label
from compose.engine.metrics import EXACT_MATCH, METRICS, label_of
from compose.licences import DerivedLicence
from compose.lineage import parents
from compose.models import Candidate, Composition, Score
from registry.models import Task
from web.templatetags.formatting import plural

_CLASSES = {"SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM"}
_HUB_TASKS = {"SEQ_2_SEQ_LM": "text2text-generation"}


def make_card(
    composition: Composition, candidates: Sequence[Candidate], licence: DerivedLicence, full_name: str
) -> str:
    """The README of a composed adapter. It holds nothing of the owner's examples."""
    sections = [
        _front_matter(composition, licence, full_name),
        f"# {_plain(full_name)}\n\n{_introduction(composition, candidates)}",
        f"## How good it is\n\n{_scores(composition)}",
        f"## What it is made of\n\n{_parents_table(candidates)}",
        f"## How to use it\n\n{_snippet(composition, full_name)}",
        f"## Licence\n\n{licence.note}{_base_licence(composition)}",
        f"## How it was made\n\n{_recipe_lines(composition)}",
        f"## Citation\n\nPlease cite LoraHub and credit the parents above.\n\n```bibtex\n{citations.LORAHUB}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def summary(composition: Composition, candidates: Sequence[Candidate]) -> str:
    """What stands below the name where its owner wrote nothing; its task stands beside it while that may be named."""
    made = f"Composed from {plural(len(parents(candidates)), 'LoRA module,LoRA modules')}"
    return made if naming.is_named_after_task(composition) else f"{made}: {composition.title}"[:500]


def _named_task(composition: Composition) -> Task | None:
    """What the files name: never a private task, since they stay as they are when the adapter becomes public."""
    return composition.task if composition.task is not None and not composition.task.is_hidden else None


def _front_matter(composition: Composition, licence: DerivedLicence, full_name: str) -> str:
    # JSON strings are YAML strings, so no name can break out of its line.
    lines = [
        f"license: {json.dumps(licence.license)}",
        f"base_model: {json.dumps(composition.base_model.name)}",
        "library_name: peft",
        f"tags: {json.dumps(['lora', 'composed', composition.method])}",
    ]
    return "---\n" + "\n".join(lines) + f"\n{_model_index(composition, full_name)}---"


def _model_index(composition: Composition, full_name: str) -> str:
    """What the adapter reached on held-out rows, as the Hub's clients read it; empty where nothing was held out."""
    import yaml  # for this alone, as in registry.cards

    own = composition.scores.filter(method=composition.method, split="held_out")
    metrics = [{"type": score.metric, "name": label_of(score.metric), "value": score.value} for score in own]
    if not metrics:
        return ""
    task = _named_task(composition) if composition.has_hidden_test else None
    dataset = (
        {"name": task.title, "type": task.slug} if task else {"name": "Rows of its maker", "type": "private"}
    )
    kind = _HUB_TASKS.get(composition.base_model.task_type, "text-generation")
    results = [{"task": {"type": kind}, "dataset": dataset, "metrics": metrics}]
    index = {"model-index": [{"name": full_name, "results": results}]}
    return yaml.safe_dump(index, sort_keys=False, allow_unicode=True)


def _introduction(composition: Composition, candidates: Sequence[Candidate]) -> str:
    named = _named_task(composition)
    task = f" for the task *{_plain(named.title)}*" if named else ""
    modules = plural(len(parents(candidates)), "LoRA module,LoRA modules")
    examples = plural(len(composition.examples), "few-shot example,few-shot examples")
    gradients = (
        "gradients of the mixing weights alone"
        if composition.method == Composition.Method.GRADIENT
        else "no gradients"
    )
    return (
        f"A LoRA adapter for `{composition.base_model.name}`, composed{task} from {modules} by "
        f"{method_label(composition.method)}: {examples}, {gradients}, no new parameters."
    )


def _scores(composition: Composition) -> str:
    found = list(composition.scores.all())
    scores = [score for score in found if score.metric == composition.metric]
    verdict = _plain((composition.result or {}).get("verdict", ""))
    if not scores:
        return verdict or "It was not scored."
    where = {
        "held_out": f"Measured on rows that the search did not see. {composition.split_note}",
        "leave_one_out": "A leave-one-out estimate on the few-shot examples; there were no rows to score it on.",
        "few_shot": "Measured on the few-shot examples themselves, which says little about other rows.",
    }[scores[0].split]
    table = _score_table(composition.metric, scores, [s for s in found if s.metric == EXACT_MATCH])
    about = "" if composition.metric == EXACT_MATCH else f"{METRICS[composition.metric].meaning} "
    return f"{verdict}\n\n{table}\n\n{about}{_plain(where)}"


def _score_table(metric: str, scores: Sequence[Score], by_exact_match: Sequence[Score]) -> str:
    """Each method by its metric, with exact match beside another one."""
    label = label_of(metric)
    head = ["Method", f"{label[0].upper()}{label[1:]}", "95 % interval", "Rows"]
    beside: dict[str, str] = {}
    if metric != EXACT_MATCH:
        head.append("Exact match")
        beside = {score.method: f"{score.value:.3f}" for score in by_exact_match}
    lines = [head, ["---"] * len(head)]
    for score in scores:
        interval = f"{score.low:.3f} to {score.high:.3f}"
        cells = [method_label(score.method), f"{score.value:.3f}", interval, str(score.n)]
        lines.append(cells if metric == EXACT_MATCH else [*cells, beside.get(score.method, "")])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _parents_table(candidates: Sequence[Candidate]) -> str:
    rows = [
        f"| {c.revision.adapter.full_name} | `{c.revision.short_commit}` | {c.mixing_weight:+.4f} | "
        f"{_plain(c.revision.adapter.license) or 'none stated'} |"
        for c in parents(candidates)
    ]
    if not rows:
        return "The search kept no module: every mixing weight is 0, so this adapter changes nothing."
    table = "\n".join(["| Module | Revision | Weight | Licence |", "| --- | --- | --- | --- |", *rows])
    left = len(candidates) - len(rows)
    note = f"\n\n{left} more were offered to the search and got the weight 0." if left else ""
    return table + note


def _snippet(composition: Composition, full_name: str) -> str:
    loader = _CLASSES.get(composition.base_model.task_type, "AutoModelForCausalLM")
    base = composition.base_model.name
    return f"""```python
from peft import PeftModel
from transformers import {loader}, AutoTokenizer

base = {loader}.from_pretrained("{base}")
tokenizer = AutoTokenizer.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{full_name}")
```

With `HF_ENDPOINT` set to the address of the site that you read this on; or give a downloaded folder instead of the name."""


def _base_licence(composition: Composition) -> str:
    licence = composition.base_model.license
    return f" The base model's own licence is {_plain(licence)}." if licence else ""


def _recipe_lines(composition: Composition) -> str:
    result = composition.result or {}
    mix = {"paper": "A and B mixed separately, as LoraHub does", "exact": "the exact sum of the modules"}
    lines = [
        f"- method `{composition.method}`, {mix.get(result.get('mix', ''), 'mixed')}",
        f"- {result.get('trials', 0)} trials of a budget of {composition.budget}, seed {composition.seed}",
        f"- composition `{composition.pk}`",
    ]
    if exported := result.get("exported"):
        lines.insert(1, f"- {_export_line(exported)}")
    return "\n".join(lines) + (
        "\n\n`recipe.json` beside this card holds every number. `manage.py rebuild_recipe recipe.json OUT` makes these "
        "weights again from the same revisions, byte for byte."
    )


def _export_line(exported: dict[str, Any]) -> str:
    """What the file is beside the mix: its rank, its float type, and how far these have taken it."""
    line = f"rank {exported['rank']}, {exported['dtype']}"
    if exported["kind"] == "truncated":
        line += ", cut from the mix of all modules"
    if exported["relative_error"]:
        line += f"; {exported['relative_error']:.2%} from the mix itself (Frobenius norm of the change). The scores are of this file"
    return line


def _plain(text: str) -> str:
    """Somebody's text as text: on one line, and with nothing that markdown or HTML would take for markup."""
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#&~" else letter for letter in line)
