"""Repositories, files and commits in the JSON that the Hub's clients read; keys they require are always there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from registry import cards
from registry.filenames import CARD
from registry.hub import front_matter
from registry.hub.repositories import File, Repository, Snapshot, git_sha1
from registry.models import Adapter, BaseModel, Revision, SearchRow
from registry.storage import BytesMissing, open_blob

Json = dict[str, Any]
# A data set may also be described or given by its address; only a name makes a tag.
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?\Z", re.ASCII)
# What of a revision's facts is told.
FACTS = ("task_type", "parameters", "dtypes")
_PIPELINES = {
    "SEQ_2_SEQ_LM": "text2text-generation",
    "CAUSAL_LM": "text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}


def date(moment: datetime) -> str:
    """`2026-01-31T10:00:00.000Z`; clients refuse any other way to write it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


# --- Repositories ------------------------------------------------------------------------------------------


def model(snapshot: Snapshot, *, blobs: bool = False) -> Json:
    """All about a repository at one revision; with `blobs`, sizes and hashes of its files."""
    repository = snapshot.repository
    files = snapshot.files()
    if repository.adapter is not None:
        found = adapter_row(repository.adapter) | adapter_more(repository.adapter, snapshot.revision)
    else:
        found = base_model_row(repository.base_model)
        found["usedStorage"] = sum(file.blob.size_bytes for file in files)
    found["sha"] = snapshot.commit
    found["cardData"] = _card_data(files)
    if index := (found["cardData"] or {}).get("model-index"):
        found["model-index"] = index
    found["siblings"] = [_sibling(file, blobs=blobs) for file in files]
    return found


def narrowed(row: Json, names: Collection[str]) -> Json:
    """What a client asked for by name; which model it is comes with it."""
    return {key: value for key, value in row.items() if key in {"_id", "id", *names}}


def safetensors(revision: Revision | None) -> Json | None:
    """How many numbers the weights of a revision hold; None if it has none."""
    parameters = revision.fact("parameters") if revision else None
    if revision is None or not parameters:
        return None
    dtypes = revision.fact("dtypes") or []
    return {"parameters": {dtypes[0]: parameters} if len(dtypes) == 1 else {}, "total": parameters}


def adapter_row(adapter: Adapter) -> Json:
    """An adapter as it stands in lists; `adapter.head` and `adapter.base_model` should be fetched with it."""
    head = adapter.head
    return {
        **_row(adapter.full_name, adapter.namespace.name, f"adapter-{adapter.pk}"),
        "trendingScore": _trending(adapter),
        "sha": head.commit if head else None,
        "private": adapter.is_private,
        "createdAt": date(adapter.created_at),
        "lastModified": date(adapter.updated_at),
        "downloads": adapter.downloads,
        "likes": adapter.likes,
        "tags": tags(adapter),
        "library_name": "peft" if adapter.rank is not None else None,
        "pipeline_tag": pipeline_tag(adapter),
    }


def adapter_more(adapter: Adapter, revision: Revision | None) -> Json:
    """What stands in lists only where it is asked for; `config` says what the Hub says of PEFT's."""
    base = adapter.base_model
    peft = {
        "base_model_name_or_path": base.name if base else adapter.base_model_label,
        "task_type": revision.fact("task_type") if revision else "",
    }
    found: Json = {"downloadsAllTime": adapter.downloads, "usedStorage": adapter.size_bytes or 0}
    if any(peft.values()):
        found["config"] = {"peft": {name: text for name, text in peft.items() if text}}
    if base is not None:
        found["baseModels"] = {
            "relation": "adapter",
            "models": [{"_id": f"base-model-{base.pk}", "id": base.name}],
        }
    if numbers := safetensors(revision):
        found["safetensors"] = numbers
    return found


def _trending(adapter: Adapter) -> float:
    """As the list that trends is sorted by, which has it ready."""
    known: float | None = getattr(adapter, "trending", None)
    if known is None:
        known = SearchRow.objects.filter(pk=adapter.pk).values_list("trending", flat=True).first()
    return round(known or 0.0, 3)


def base_model_row(base_model: BaseModel | None) -> Json:
    assert base_model is not None
    config = {"architectures": [base_model.architecture], "model_type": base_model.config.get("model_type")}
    return {
        **_row(base_model.name, base_model.name.partition("/")[0], f"base-model-{base_model.pk}"),
        "sha": base_model.commit,
        "private": False,
        "createdAt": date(base_model.created_at),
        "lastModified": date(base_model.created_at),
        "downloads": 0,
        "likes": 0,
        "tags": ["transformers", *([f"license:{base_model.license}"] if base_model.license else [])],
        "library_name": "transformers",
        "pipeline_tag": _PIPELINES.get(base_model.task_type),
        "config": {name: value for name, value in config.items() if value},
    }


def _row(name: str, author: str, key: str) -> Json:
    return {
        "_id": key,
        "id": name,
        "modelId": name,
        "author": author,
        "gated": False,
        "disabled": False,
        "trendingScore": 0,
    }


def tags(adapter: Adapter) -> list[str]:
    """What the Hub calls tags: ours, and what we know of library, licence, base model, data sets and language.

    `listing.with_tag` finds by each of them.
    """
    found = ["peft", "lora", "safetensors"] if adapter.rank is not None else []
    base = adapter.base_model.name if adapter.base_model else adapter.base_model_label
    if base:
        found += [f"base_model:{base}", f"base_model:adapter:{base}"]
    if adapter.license:
        found.append(f"license:{adapter.license}")
    found += [f"dataset:{name}" for name in listed(adapter.dataset) if _NAME.match(name)]
    found += listed(adapter.language)
    if pipeline := pipeline_tag(adapter):
        found.append(pipeline)
    return list(dict.fromkeys([*found, *adapter.tags]))


def listed(text: str) -> list[str]:
    """The languages or data sets of a text that has commas between them."""
    return [part for part in map(str.strip, text.split(",")) if part]


def pipeline_tag(adapter: Adapter) -> str | None:
    task_type = adapter.head.fact("task_type") if adapter.head else ""
    return _PIPELINES.get(task_type or (adapter.base_model.task_type if adapter.base_model else ""))


def task_types(pipeline: str) -> list[str]:
    """peft's words for what the Hub calls this pipeline, in whatever capitals."""
    return [task_type for task_type, name in _PIPELINES.items() if name == pipeline.lower()]


def _card_data(files: Iterable[File]) -> Mapping[str, Any] | None:
    card = next((file for file in files if file.path == CARD), None)
    if card is None or card.blob.size_bytes > cards.MAX_CARD_BYTES:
        return None
    try:
        with open_blob(card.blob) as stream:
            said = cards.split_card(cards.decode_card(stream.read()))[0]
    except (BytesMissing, cards.CardRefused):
        return None
    bad = front_matter.unreadable(said)
    return {key: value for key, value in said.items() if key not in bad}


def _sibling(file: File, *, blobs: bool) -> Json:
    found: Json = {"rfilename": file.path}
    if blobs:
        found |= {"size": file.blob.size_bytes, "blobId": file.oid}
        if file.is_lfs:
            found["lfs"] = {
                "sha256": file.blob.sha256,
                "size": file.blob.size_bytes,
                "pointerSize": len(file.pointer),
            }
    return found


# --- Files and folders ---------------------------------------------------------------------------------------


def entries(files: Iterable[File], *, below: str = "", recursive: bool = True) -> list[Json]:
    """Files and folders below a folder ("" is all), by path; folders are listed also when their files are."""
    start = f"{below}/" if below else ""
    found: dict[str, Json] = {}
    for file in files:
        if not file.path.startswith(start):
            continue
        inner = file.path[len(start) :].split("/")
        for depth in range(1, len(inner) if recursive else min(2, len(inner))):
            path = start + "/".join(inner[:depth])
            found.setdefault(path, folder(path))
        if recursive or len(inner) == 1:
            found[file.path] = entry(file)
    return [found[path] for path in sorted(found)]


def entry(file: File) -> Json:
    found: Json = {"type": "file", "oid": file.oid, "size": file.blob.size_bytes, "path": file.path}
    if file.is_lfs:
        found["lfs"] = {
            "oid": file.blob.sha256,
            "size": file.blob.size_bytes,
            "pointerSize": len(file.pointer),
        }
    return found


def folder(path: str) -> Json:
    return {"type": "directory", "oid": git_sha1(path.encode()), "size": 0, "path": path}


# --- Commits ---------------------------------------------------------------------------------------------------


def commit(snapshot: Snapshot, *, formatted: bool = False) -> Json:
    title = snapshot.title
    text = snapshot.revision.description if snapshot.revision else ""
    found: Json = {
        "id": snapshot.commit,
        "title": title,
        "message": text,
        "date": date(snapshot.created_at),
        "authors": [{"user": snapshot.author}] if snapshot.author else [],
    }
    if formatted:
        found["formatted"] = {"title": title, "message": text}
    return found


def last_commit(snapshot: Snapshot) -> Json:
    return {"id": snapshot.commit, "title": snapshot.title, "date": date(snapshot.created_at)}


def refs(repository: Repository, *, pull_requests: bool = False) -> Json:
    """Branches and tags. Nothing is converted here and there are no pull requests, but clients want the lists."""
    branches: list[Json] = []
    found_tags: list[Json] = []
    if repository.adapter is not None:
        for ref in repository.adapter.refs.select_related("revision"):
            kind, rows = ("heads", branches) if ref.kind == "branch" else ("tags", found_tags)
            rows.append(
                {"name": ref.name, "ref": f"refs/{kind}/{ref.name}", "targetCommit": ref.revision.commit}
            )
    else:
        commit = repository.snapshot().commit
        branches.append({"name": "main", "ref": "refs/heads/main", "targetCommit": commit})
    found: Json = {"branches": branches, "converts": [], "tags": found_tags}
    return {**found, "pullRequests": []} if pull_requests else found
