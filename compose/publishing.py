"""A finished composition becomes a composed adapter of the registry, with its card, recipe and lineage."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.conf import settings
from django.db import transaction

from compose import recipes
from compose.candidates import require_no_quarantine
from compose.engine.metrics import EXACT_MATCH, METRICS, label_of
from compose.errors import PrivateParents, WrongState
from compose.jobs import require_owner
from compose.licences import DerivedLicence, derive_licence
from compose.models import Candidate, Composition, Score
from registry import publishing, storage
from registry.models import Adapter, AdapterScore, Namespace, Task, User
from registry.rights import require_write
from web.errors import Conflict
from web.templatetags.formatting import plural

logger = logging.getLogger(__name__)

METHOD_NAMES = {
    "zero_shot": "Base model alone",
    "in_context": "Base model with the examples in its prompt",
    "best_single": "Best single module",
    "uniform": "All modules with equal weights",
    "lorahub": "LoraHub",
    "auto": "Auto",
    "gradient": "Gradient",
}
LORAHUB_CITATION = """@article{huang2023lorahub,
  title = {LoraHub: Efficient Cross-Task Generalization via Dynamic LoRA Composition},
  author = {Huang, Chengsong and Liu, Qian and Lin, Bill Yuchen and Pang, Tianyu and Du, Chao and Lin, Min},
  journal = {arXiv preprint arXiv:2307.13269},
  year = {2023}
}"""
_CLASSES = {"SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM"}
_HUB_TASKS = {"SEQ_2_SEQ_LM": "text2text-generation"}


def publish_composition(
    composition: Composition,
    *,
    actor: User,
    namespace: Namespace,
    name: str,
    visibility: str = Adapter.Visibility.PRIVATE,
    description: str = "",
) -> Adapter:
    """Publish what a composition made as `namespace/name`, once. Returns the composed adapter.

    Its files are the adapter, a generated card and the recipe; its parents are the candidates, its licence is
    derived from theirs. Raises WrongState, PrivateParents, ParentInQuarantine, Conflict when the name is taken, Forbidden, and what
    `registry.publishing.publish` raises; then nothing is kept.
    """
    require_owner(composition, actor)
    require_write(actor, namespace)
    with transaction.atomic():
        # The row is held, so that a second click waits here and then finds the adapter.
        composition = _held(composition)
        _require_publishable(composition)
        candidates = list(
            composition.candidates.select_related("revision__adapter__namespace", "revision__author")
        )
        require_no_quarantine(candidate.revision for candidate in candidates)
        _require_nameable(candidates, namespace, visibility)
        _require_new_name(namespace, name)
        licence = derive_licence(_licences(candidates))
        with TemporaryDirectory(dir=settings.UPLOAD_TMP_DIR, prefix="composed-") as folder:
            adapter = publishing.publish(
                author=actor,
                namespace=namespace,
                name=name,
                files=_files(composition, candidates, licence, f"{namespace.name}/{name}", Path(folder)),
                description=description.strip() or _summary(composition, candidates),
                task=composition.task,
                base_model=composition.base_model.name,
                license=licence.license,
                visibility=visibility,
                tags=["composed", composition.method],
                message=f"Composition {composition.pk}",
                kind=Adapter.Kind.COMPOSED,
            )
        score = held_out_score(composition)
        if score is not None:
            adapter.best_score, adapter.best_score_metric = score.value, score.metric
            adapter.save(update_fields=["best_score", "best_score_metric"])
        _keep_task_score(composition, adapter)
        composition.adapter = adapter
        composition.save(update_fields=["adapter"])
    logger.info("composition %s was published as %s", composition.pk, adapter)
    return adapter


def _keep_task_score(composition: Composition, adapter: Adapter) -> None:
    """What it reached on a task's hidden rows becomes the adapter's, for its page and for lists sorted by it.

    By the task's metric, whatever else the composition was scored by.
    """
    revision = composition.task_revision
    if composition.task is None or revision is None or not composition.has_hidden_test:
        return
    score = held_out_score(composition, revision.metric)
    if score is None or score.n < len(revision.test):
        return  # some of them were among its examples
    AdapterScore.objects.update_or_create(
        adapter=adapter,
        task=composition.task,
        source=AdapterScore.Source.VERIFIED,
        metric=score.metric,
        defaults={
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "n": score.n,
            "note": f"Composition {composition.pk}, revision {revision.number} of the task",
        },
    )


def held_out_score(composition: Composition, metric: str = "") -> Score | None:
    """The composed adapter's own score on rows that the search did not see; None when there were none.

    By the metric that its owner chose, unless another is named.
    """
    metric = metric or composition.metric
    return composition.scores.filter(method=composition.method, metric=metric, split="held_out").first()


def parents(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those with a share in the mix, the largest weight first."""
    used = [candidate for candidate in candidates if candidate.mixing_weight]
    return sorted(used, key=lambda candidate: -abs(candidate.mixing_weight or 0))


# --- What must hold ------------------------------------------------------------------------------------------


def _held(composition: Composition) -> Composition:
    """The row, locked and as it is now."""
    # Two queries: in one, Postgres waits for the row and then joins it with the others as they were before.
    Composition.objects.select_for_update().only("pk").get(pk=composition.pk)
    found = Composition.objects.select_related(
        "base_model", "task", "adapter__namespace", "weights_blob", "config_blob", "owner"
    )
    return found.get(pk=composition.pk)


def _require_publishable(composition: Composition) -> None:
    if composition.status != Composition.Status.SUCCEEDED:
        raise WrongState(
            f"This composition is {composition.status}; only one that succeeded can be published."
        )
    if composition.adapter is not None:
        raise WrongState(f"This composition is already published, as {composition.adapter.full_name}.")


def require_nameable_parents(adapter: Adapter, namespace: Namespace, visibility: str) -> None:
    """Raises PrivateParents for a composed adapter that may not be in `namespace` with `visibility`, since its files name what
    its readers there must not know of; for one that is not composed, nothing."""
    composition = Composition.objects.filter(adapter=adapter).first()
    if composition is not None:
        candidates = composition.candidates.select_related("revision__adapter__namespace")
        _require_nameable(candidates, namespace, visibility)


def _require_nameable(candidates: Iterable[Candidate], namespace: Namespace, visibility: str) -> None:
    # Also those of weight 0: the recipe names them.
    private = [c.revision.adapter for c in candidates if c.revision.adapter.is_private]
    if visibility != Adapter.Visibility.PUBLIC:
        # A person's own namespace has one reader, who composed. In an organisation's, its members know its own modules.
        private = [
            each for each in private if namespace.is_organisation and each.namespace_id != namespace.pk
        ]
    if private:
        readers = (
            "everybody" if visibility == Adapter.Visibility.PUBLIC else f"the members of {namespace.name}"
        )
        raise PrivateParents([each.full_name for each in private], readers)


def _require_new_name(namespace: Namespace, name: str) -> None:
    """A composition never becomes a revision of something else."""
    if Adapter.objects.alive().filter(namespace=namespace, name__iexact=name).exists():
        raise Conflict(
            f"There is already a LoRA module {namespace.name}/{name}. Choose another name.",
            fields={"name": ["This name is taken."]},
        )


def _licences(candidates: Sequence[Candidate]) -> list[tuple[str, str]]:
    offered = parents(candidates) or list(candidates)
    return [(c.revision.adapter.full_name, c.revision.adapter.license) for c in offered]


# --- The files -----------------------------------------------------------------------------------------------


def _files(
    composition: Composition,
    candidates: Sequence[Candidate],
    licence: DerivedLicence,
    full_name: str,
    folder: Path,
) -> dict[str, Path]:
    assert composition.weights_blob is not None
    assert composition.config_blob is not None
    card = folder / "README.md"
    card.write_text(make_card(composition, candidates, licence, full_name), encoding="utf-8")
    recipe = folder / "recipe.json"
    recipe.write_text(recipes.as_text(recipes.recipe(composition)), encoding="utf-8")
    return {
        "adapter_config.json": storage.local_path(composition.config_blob),
        "adapter_model.safetensors": storage.local_path(composition.weights_blob),
        "README.md": card,
        "recipe.json": recipe,
    }


def _named_task(composition: Composition) -> Task | None:
    """What the files name: never a private task, since they stay as they are when the adapter becomes public."""
    return composition.task if composition.task is not None and not composition.task.is_hidden else None


def _summary(composition: Composition, candidates: Sequence[Candidate]) -> str:
    task = _named_task(composition)
    what = task.title if task else composition.title
    return f"Composed from {plural(len(parents(candidates)), 'LoRA module,LoRA modules')}: {what}"[:500]


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
        f"## Citation\n\nPlease cite LoraHub and credit the parents above.\n\n```bibtex\n{LORAHUB_CITATION}\n```",
    ]
    return "\n\n".join(sections) + "\n"


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
        f"{METHOD_NAMES.get(composition.method, composition.method)}: {examples}, {gradients}, no new parameters."
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
        name = METHOD_NAMES.get(score.method, score.method)
        cells = [name, f"{score.value:.3f}", interval, str(score.n)]
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
