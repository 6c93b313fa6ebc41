"""Recipes: what a composed adapter was made of, exact enough to make it again byte for byte."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.db.models import Q

from compose import naming
from compose.engine.types import FLOAT_TYPES, ExportForm
from compose.errors import RecipeProblem, WrongState
from compose.models import Composition
from registry import moving, rights, storage
from registry.filenames import CONFIG, MODULE_FILES, WEIGHTS
from registry.models import BaseModel, Revision
from registry.rights import Person

FORMAT = "lora-commons/recipe"
FORMAT_VERSION = 1


def recipe(composition: Composition) -> dict[str, Any]:
    """The recipe of a finished composition, ready for JSON. The examples are named by their hash only.

    Raises WrongState for one that has no result.
    """
    if composition.weights_blob is None or composition.config_blob is None or composition.result is None:
        raise WrongState("This composition has no result, so there is no recipe of it.")
    candidates = composition.candidates.select_related("revision__adapter__namespace").prefetch_related(
        "revision__files__blob"
    )
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "composition": composition.pk,
        "base_model": {"name": composition.base_model.name, "commit": composition.base_commit},
        "method": composition.method,
        "mix": composition.result["mix"],
        "seed": composition.seed,
        "export": {"rank": composition.export_rank, "dtype": composition.export_dtype},
        "budget": composition.budget,
        "metric": composition.metric,
        "trials": composition.result["trials"],
        "examples": {"count": len(composition.examples), "sha256": _hash_of_examples(composition)},
        # How the modules came to be offered; what they are stands below, whatever is chosen today.
        "chosen": {
            "by": "owner" if composition.is_picked else "site",
            "pinned": composition.pinned,
            "excluded": len(composition.excluded),  # their names are the owner's: they may be private
        },
        "modules": [
            {
                "adapter": candidate.revision.adapter.full_name,
                "revision": candidate.revision.commit,
                "tensor_sha256": candidate.revision.tensor_sha256,
                "files": {
                    file.path: file.blob.sha256
                    for file in candidate.revision.files.all()
                    if file.path in MODULE_FILES
                },
                # Python writes the shortest text that reads back as the same float.
                "mixing_weight": candidate.mixing_weight,
            }
            for candidate in candidates
        ],
        "versions": composition.result["versions"],
        "output": {
            CONFIG: composition.config_blob.sha256,
            WEIGHTS: composition.weights_blob.sha256,
        },
    }


def recipe_for(composition: Composition, person: Person) -> dict[str, Any]:
    """The recipe as this person may read it: a module that they may not see has its weight there, and nothing else.

    Nor is it among those that were pinned.

    Its owner reads the whole of it, whatever has become of the modules since: it is how their adapter is made again.
    Raises WrongState.
    """
    whole = recipe(composition)
    if rights.owns(person, composition.owner_id):
        return whole
    named = naming.named_in(composition, person)
    adapters = composition.candidates.values_list("revision__adapter_id", flat=True)
    nothing: dict[str, Any] = {"adapter": None, "revision": None, "tensor_sha256": None, "files": {}}
    modules = [
        module if adapter in named else {**module, **nothing}
        for module, adapter in zip(whole["modules"], adapters, strict=True)
    ]
    told = {module["adapter"].lower() for module in modules if module["adapter"]}
    # Written as their owner typed them: what is no name of a module above may be the old one of a module that is hidden.
    pinned = [name for name in whole["chosen"]["pinned"] if name.partition("@")[0].strip().lower() in told]
    return {**whole, "modules": modules, "chosen": {**whole["chosen"], "pinned": pinned}}


def _hash_of_examples(composition: Composition) -> str | None:
    """None once the texts are removed: what is left are empty rows, and their hash would be that of no examples."""
    return None if composition.examples_removed_at else hash_of(composition.examples)


def as_text(recipe: dict[str, Any]) -> str:
    return json.dumps(recipe, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def hash_of(rows: list[dict[str, str]]) -> str:
    """sha256 of examples, whatever the order of their keys; the text itself stays private."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def rebuild(recipe: dict[str, Any], out: Path) -> None:
    """Write the adapter of `recipe` into `out`, from revisions and base model of this site. For the worker's machine.

    Raises RecipeProblem if something is missing, is not what the recipe names, or if the result differs from what
    the recipe promises; then `out` is left as it was.
    """
    from compose import bases, worker
    from compose.engine import run as engine
    from compose.engine.errors import EngineError

    base_model = _base_model(recipe)
    commit = recipe["base_model"]["commit"]
    revisions = _revisions(recipe)  # before the base model comes, perhaps from far away
    with (
        TemporaryDirectory(prefix="recipe-") as name,
        bases.at_hand(base_model, commit) as (base, _),
    ):
        folder = Path(name)
        modules = worker.lay_out_modules(revisions, folder / "modules")
        try:
            engine.export_weights(
                base,
                modules,
                [module["mixing_weight"] for module in recipe["modules"]],
                recipe["mix"],
                folder / "out",
                base_model.name,
                form=_export_form(recipe),
            )
        except EngineError as error:
            raise RecipeProblem(error.message) from error
        _require_same(recipe, folder / "out")
        out.mkdir(parents=True, exist_ok=True)
        for output in MODULE_FILES:
            shutil.copyfile(folder / "out" / output, out / output)


def read(text: str) -> dict[str, Any]:
    """A recipe from its JSON. Raises RecipeProblem for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeProblem(f"The recipe is not JSON: {error}.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise RecipeProblem(f"This is not a recipe: its “format” is not {FORMAT!r}.")
    if found.get("format_version") != FORMAT_VERSION:
        raise RecipeProblem(
            f"The recipe has the format version {found.get('format_version')!r}; this program reads {FORMAT_VERSION}."
        )
    problem = _shape_problem(found)
    if problem:
        raise RecipeProblem(f"The recipe cannot be followed: {problem}.")
    return found


def _shape_problem(recipe: dict[str, Any]) -> str:
    base, modules, output = (recipe.get(name) for name in ("base_model", "modules", "output"))
    if not (isinstance(base, dict) and all(isinstance(base.get(key), str) for key in ("name", "commit"))):
        return "“base_model” needs “name” and “commit”"
    if recipe.get("mix") not in {"paper", "exact"}:
        return "“mix” is “paper” or “exact”"
    export = recipe.get("export", {})
    is_rank = isinstance(export, dict) and type(export.get("rank", 0)) is int
    if not (is_rank and set(export) <= {"rank", "dtype"} and export.get("dtype", "float32") in FLOAT_TYPES):
        return "“export” has a whole number as “rank” and a float type as “dtype”"
    if not (isinstance(output, dict) and all(isinstance(output.get(name), str) for name in MODULE_FILES)):
        return "“output” needs the sha256 of both files"
    if not (isinstance(modules, list) and modules):
        return "it names no modules"
    for number, module in enumerate(modules, 1):
        texts = ("adapter", "revision", "tensor_sha256")
        if not (isinstance(module, dict) and all(isinstance(module.get(key), str) for key in texts)):
            return f"module {number} needs {', '.join(f'“{key}”' for key in texts)}"
        weight = module.get("mixing_weight")
        # Not math.isfinite, which knows no number of a thousand digits, as JSON may hold one.
        if (
            not isinstance(weight, int | float)
            or isinstance(weight, bool)
            or not abs(weight) <= sys.float_info.max
        ):
            return f"module {number} needs a number as “mixing_weight”"
    return ""


def _export_form(recipe: dict[str, Any]) -> ExportForm:
    """How the adapter is written; recipes of earlier versions say nothing and mean the mix as it is."""
    return ExportForm(**recipe.get("export", {}))


def _base_model(recipe: dict[str, Any]) -> BaseModel:
    name, commit = recipe["base_model"]["name"], recipe["base_model"]["commit"]
    base_model = BaseModel.objects.named(name)
    if base_model is None:
        raise RecipeProblem(f"The base model {name} is not known here.")
    if base_model.is_hosted and base_model.commit != commit:
        raise RecipeProblem(
            f"The recipe is for {name} at {commit[:8]}; here it is at {base_model.commit[:8]}."
        )
    return base_model


def _revisions(recipe: dict[str, Any]) -> list[Revision]:
    found = []
    for module in recipe["modules"]:
        namespace, _, name = module["adapter"].partition("/")
        called = Q(adapter__namespace__name__iexact=namespace, adapter__name__iexact=name)
        # A recipe stays as it was written, whatever its modules are called since.
        moved = moving.moved_from(namespace, name)
        revision = (
            Revision.objects.select_related("adapter__namespace")
            .filter(Q(adapter=moved) if moved is not None else called, commit=module["revision"])
            .first()
        )
        if revision is None:
            raise RecipeProblem(f"{module['adapter']} at {module['revision'][:8]} is not here.")
        if revision.tensor_sha256 != module["tensor_sha256"]:
            raise RecipeProblem(f"{module['adapter']} at {module['revision'][:8]} has other weights here.")
        found.append(revision)
    return found


def _require_same(recipe: dict[str, Any], folder: Path) -> None:
    for name in MODULE_FILES:
        made = storage.digest(folder / name).sha256
        if made != recipe["output"][name]:
            versions = ", ".join(f"{key} {value}" for key, value in recipe.get("versions", {}).items())
            raise RecipeProblem(
                f"{name} came out different from what the recipe promises ({made[:12]}… instead of "
                f"{recipe['output'][name][:12]}…). It was made with {versions or 'unknown versions'}; use these."
            )
