"""Base models: those of the catalogue, those that people add from a config.json, and those hosted here."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from registry import publishing, shapes, storage
from registry.details import BadDetail, check_text
from registry.matrices import fold
from registry.models import BaseModel, BaseModelAlias, BaseModelFile
from web.database import after_commit
from web.errors import Conflict, DomainError, NotFound

logger = logging.getLogger(__name__)

MAX_ALIASES = 20
# Any of these; one that works on bytes has its settings alone.
TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tokenizer_config.json"}
)
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?\Z")


class BaseModelKnown(Conflict):
    code = "base_model_known"

    def __init__(self, name: str, known: BaseModel) -> None:
        also = "" if known.name.lower() == name.lower() else f" is another name of {known.name}, which"
        super().__init__(f"{name}{also} is already known here.", fields={"name": ["Already known."]})


class BaseModelIncomplete(DomainError):
    code = "base_model_incomplete"

    def __init__(self, name: str, lacking: str) -> None:
        super().__init__(f"The folder of {name} lacks {lacking}. Put it there and try again.")


def base_model_called(name: str) -> BaseModel:
    """The base model with this id or alias. Raises NotFound."""
    found = BaseModel.objects.named(name)
    if found is None:
        raise NotFound(f"The base model {name[:100]!r} is not known here. Add it from its config.json.")
    return found


def add_base_model(
    *,
    name: str,
    config: Mapping[str, Any] | bytes,
    aliases: Sequence[str] = (),
    license: str = "",
) -> BaseModel:
    """A base model known by its config.json. The adapters that waited for it are checked by a worker (`recheck_wanted`).

    The sizes are computed in a process of its own, in some seconds. Raises BadDetail, BaseModelKnown, ConfigRefused.
    """
    name = check_base_model_name(name)
    aliases = _check_aliases(aliases)
    license = check_text("license", license)
    for called in (name, *aliases):
        if known := BaseModel.objects.named(called):
            raise BaseModelKnown(called, known)
    raw = config if isinstance(config, bytes) else json.dumps(config).encode()
    checked = shapes.check_config_bytes(raw)
    computed = shapes.compute_shapes(raw)
    try:
        with transaction.atomic():
            base_model = BaseModel.objects.create(
                name=name,
                license=license,
                config=checked,
                recheck_wanted_at=timezone.now(),
                **_columns(computed),
            )
            _add_aliases(base_model, aliases)
            # After commit, or a fast worker would look for a row that is not there yet.
            after_commit(_ring)
    except IntegrityError as error:
        known = BaseModel.objects.named(name)
        raise (BaseModelKnown(name, known) if known else error) from error
    logger.info("added base model %s", base_model)
    return base_model


def ensure_base_model(
    *,
    name: str,
    architecture: str,
    task_type: str,
    matrices: Mapping[str, Sequence[int]],
    parameters: int | None = None,
    config: Mapping[str, Any] | None = None,
    aliases: Iterable[str] = (),
    license: str = "",
    kind: str = BaseModel.Kind.REFERENCED,
) -> tuple[BaseModel, bool]:
    """A base model with these columns, made or brought up to date, and whether anything changed.

    `matrices` may be folded. For the catalogue and other sources whose sizes are known to be right. One that is
    hosted here is left as its files say.
    """
    columns: dict[str, Any] = {
        "architecture": architecture,
        "task_type": task_type,
        "matrices": {path: list(sizes) for path, sizes in matrices.items()},
        "parameters": parameters,
        "config": dict(config or {}),
        "license": license,
        "kind": kind,
    }
    with transaction.atomic():
        base_model, is_changed = BaseModel.objects.get_or_create(name=name, defaults=columns)
        if base_model.is_hosted and kind != BaseModel.Kind.HOSTED:
            return base_model, False
        if not is_changed and (
            other := {key: value for key, value in columns.items() if getattr(base_model, key) != value}
        ):
            for key, value in other.items():
                setattr(base_model, key, value)
            base_model.save(update_fields=list(other))
            is_changed = True
        is_changed |= _add_aliases(base_model, aliases)
    if is_changed:
        recheck(base_model)
    return base_model, is_changed


def host_base_model(*, name: str, folder: Path, license: str = "") -> tuple[BaseModel, bool]:
    """A base model whose files lie here, from a folder with config.json and weights; and whether anything changed.

    Files are read again only where they are new. Raises BaseModelIncomplete, ConfigRefused.
    """
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    _require_parts(name, files)
    commit = _commit_of(files)
    present = BaseModel.objects.filter(name=name, commit=commit).first()
    if present is not None and present.is_hosted:
        return present, False
    raw = files["config.json"].read_bytes()
    computed = shapes.compute_shapes(raw)
    blobs = {path: storage.store_file(file) for path, file in files.items()}
    with transaction.atomic():
        base_model, _ = BaseModel.objects.update_or_create(
            name=name,
            defaults={
                "kind": BaseModel.Kind.HOSTED,
                "license": license,
                "config": json.loads(raw),
                "commit": commit,
                **_columns(computed),
            },
        )
        base_model.files.all().delete()
        BaseModelFile.objects.bulk_create(
            BaseModelFile(base_model=base_model, path=path, blob=blob) for path, blob in blobs.items()
        )
    recheck(base_model)
    return base_model, True


# --- Comparing the adapters that name one -----------------------------------------------------------------------


def want_recheck(base_model: BaseModel) -> None:
    """Have a worker compare the adapters that name this base model with it: it is known by another name."""
    BaseModel.objects.filter(pk=base_model.pk).update(recheck_wanted_at=timezone.now())
    after_commit(_ring)  # or a fast worker would not see it yet


def recheck_wanted() -> int:
    """A worker's part: compare the adapters of every base model that has become known; how many base models there were.

    One that was begun and not ended, because the worker went, is begun again.
    """
    waiting = list(BaseModel.objects.exclude(recheck_wanted_at=None).order_by("recheck_wanted_at"))
    for base_model in waiting:
        recheck(base_model)
    return len(waiting)


def recheck(base_model: BaseModel) -> None:
    """Compare the adapters that name this base model with it, and write down that it is done.

    What was wanted again meanwhile stays wanted. How many came to what is for each reader's page to count.
    """
    asked = base_model.recheck_wanted_at
    found = publishing.recheck_adapters(base_model)
    rows = BaseModel.objects.filter(pk=base_model.pk)
    rows.update(rechecked_at=timezone.now())
    rows.filter(recheck_wanted_at=asked).update(recheck_wanted_at=None)
    base_model.refresh_from_db(fields=["rechecked_at", "recheck_wanted_at"])
    logger.info("compared %d adapters with base model %s: %s", found.total(), base_model, dict(found))


def _ring() -> None:
    """Tell a worker. A broker that is down is no failure: the clock rings again."""
    from registry.tasks import recheck_adapters

    try:
        recheck_adapters.apply_async(retry=False)
    except Exception as error:  # whatever the broker's client raises
        logger.warning("The broker could not be told about new base models: %s", error)


def _require_parts(name: str, files: Iterable[str]) -> None:
    """Raises BaseModelIncomplete. What lacks weights can still be read of; which tokenizer it needs the worker knows."""
    there = set(files)
    if "config.json" not in there:
        raise BaseModelIncomplete(name, "config.json")
    if not there & TOKENIZER_FILES:
        raise BaseModelIncomplete(name, "a tokenizer, such as tokenizer.json")


def check_base_model_name(name: str) -> str:
    """`name` or `owner/name` as hubs have it. Raises BadDetail."""
    name = name.strip()
    parts = name.split("/")
    if len(name) > 200 or len(parts) > 2 or not all(_PART.match(part) for part in parts):
        raise BadDetail(
            "name",
            "A base model is named as on its hub, such as gpt2 or google/flan-t5-large: letters A-Z, digits, '-', "
            f"'_' and '.', not {name[:60]!r}.",
        )
    return name


def _check_aliases(aliases: Sequence[str]) -> list[str]:
    if len(aliases) > MAX_ALIASES:
        raise BadDetail("aliases", f"There are {len(aliases)} aliases; {MAX_ALIASES} are allowed.")
    checked = [check_text("aliases", alias, limit=500) for alias in aliases]
    return [alias for alias in dict.fromkeys(checked) if alias]


def _add_aliases(base_model: BaseModel, aliases: Iterable[str]) -> bool:
    """Other names of a base model; one that another model has stays there. True if any was new."""
    is_changed = False
    for alias in aliases:
        if alias.lower() == base_model.name.lower() or BaseModel.objects.named(alias) is not None:
            continue
        BaseModelAlias.objects.create(base_model=base_model, text=alias)
        is_changed = True
    return is_changed


def _columns(computed: shapes.BaseShapes) -> dict[str, Any]:
    return {
        "architecture": computed.architecture,
        "task_type": computed.task_type,
        "parameters": computed.parameters,
        "matrices": fold(computed.matrices),
    }


def _commit_of(files: Mapping[str, Path]) -> str:
    """40 hex digits from the names and contents of all files."""
    manifest = [[path, storage.digest(file).sha256] for path, file in sorted(files.items())]
    return hashlib.sha1(json.dumps(manifest).encode(), usedforsecurity=False).hexdigest()
