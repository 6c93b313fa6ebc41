"""Rows with readable defaults. `make_adapter_row` writes rows only; `publish_fake` goes through publishing."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any
from unittest import mock

from allauth.mfa.totp.internal import auth as totp
from django.utils import timezone

from registry import shapes, storage, task_sets
from registry.accounts import create_account
from registry.base_models import host_base_model
from registry.models import (
    Adapter,
    BaseModel,
    Membership,
    Namespace,
    Ref,
    Revision,
    RevisionFile,
    Task,
    Token,
    User,
)
from tests.fake_adapters import TINY_MATRICES, files_of
from tests.fake_adapters import make_adapter as make_adapter_folder

DEMO = Path(__file__).resolve().parent.parent / "demo"
_numbers = itertools.count(1)
# Each time it is a process that imports torch, for the same few configs.
_compute_shapes = functools.cache(shapes.compute_shapes)


def make_user(username: str = "", *, password: str | None = "correct horse battery", **fields: Any) -> User:
    """An account with its namespace."""
    user = create_account(username=username or f"user{next(_numbers)}", password=password)
    for name, value in fields.items():
        setattr(user, name, value)
    if fields:
        user.save(update_fields=list(fields))
    return user


def code_of(secret: str) -> str:
    """What an authenticator app shows now."""
    return str(totp.format_hotp_value(totp.hotp_value(secret, int(time.time()) // 30)))


def namespace_of(user: User) -> Namespace:
    return Namespace.objects.get(name=user.username)


def make_organisation(name: str = "", *, members: dict[User, str] | None = None) -> Namespace:
    """An organisation; `members` maps people to their role."""
    organisation = Namespace.objects.create(
        name=name or f"lab{next(_numbers)}", kind=Namespace.Kind.ORGANISATION
    )
    for user, role in (members or {}).items():
        Membership.objects.create(namespace=organisation, user=user, role=role)
    return organisation


def make_token(user: User, scope: str = "write", **fields: Any) -> str:
    """The secret of a new token."""
    _, secret = Token.issue(user=user, name=fields.pop("name", "test"), scope=scope, **fields)
    return secret


def make_base_model(name: str = "demo/tiny-t5", **fields: Any) -> BaseModel:
    """A known base model; by default with the matrices that fake adapters are made for."""
    defaults: dict[str, Any] = {
        "architecture": "T5ForConditionalGeneration",
        "task_type": "SEQ_2_SEQ_LM",
        "license": "apache-2.0",
        "matrices": {path: list(sizes) for path, sizes in TINY_MATRICES.items()},
    }
    return BaseModel.objects.create(name=name, **{**defaults, **fields})


def make_task(slug: str = "", *, rows: int = 0, test_rows: int = 0, **fields: Any) -> Task:
    slug = slug or f"task-{next(_numbers)}"
    if fields.get("is_private"):
        fields["first_public_at"] = None
    task = Task.objects.create(slug=slug, **{"title": slug.replace("-", " ").capitalize(), **fields})
    few_shot, test = (
        [{"input": f"{split} question {position}", "output": str(position)} for position in range(count)]
        for split, count in (("few_shot", rows), ("test", test_rows))
    )
    task_sets.save_rows(task, few_shot=few_shot, test=test)
    return task


def make_adapter(
    name: str = "",
    *,
    namespace: Namespace | None = None,
    owner: User | None = None,
    facts: dict[str, Any] | None = None,
    files: dict[str, bytes] | None = None,
    **fields: Any,
) -> Adapter:
    """An adapter with one revision as rows, its blobs stored, nothing inspected."""
    number = next(_numbers)
    if namespace is None:
        namespace = namespace_of(owner or make_user())
    fields = {"rank": 4, "is_composable": "base_model" in fields, "license": "mit", **fields}
    adapter = _new_adapter(namespace=namespace, name=name or f"module-{number}", **fields)
    make_revision(adapter, facts=facts, files=files)
    adapter.refresh_from_db()
    return adapter


def _new_adapter(**fields: Any) -> Adapter:
    adapter = Adapter(**fields)
    adapter.set_visibility(adapter.visibility)
    adapter.save()
    return adapter


def make_revision(
    adapter: Adapter | None = None,
    *,
    facts: dict[str, Any] | None = None,
    files: dict[str, bytes] | None = None,
    **fields: Any,
) -> Revision:
    """A further revision, made the head of branch main."""
    adapter = adapter or _new_adapter(namespace=namespace_of(make_user()), name=f"module-{next(_numbers)}")
    number = next(_numbers)
    if files is None:
        files = {
            "adapter_config.json": b'{"peft_type": "LORA", "n": %d}' % number,
            "adapter_model.safetensors": b"weights %d" % number,
        }
    revision = Revision.objects.create(
        adapter=adapter,
        commit=hashlib.sha1(f"{adapter.pk} {number}".encode()).hexdigest(),
        parent=adapter.head,
        message="Upload",
        created_at=timezone.now(),
        facts=facts or {},
        is_composable=adapter.is_composable,
        size_bytes=sum(map(len, files.values())),
        **fields,
    )
    for path, content in files.items():
        blob = storage.store_stream([content])
        RevisionFile.objects.create(
            revision=revision, path=path, blob=blob, is_lfs=path.endswith(".safetensors")
        )
    Ref.objects.update_or_create(adapter=adapter, name="main", defaults={"revision": revision})
    adapter.head = revision
    adapter.size_bytes = revision.size_bytes
    adapter.renewed_at = revision.created_at
    adapter.save(update_fields=["head", "size_bytes", "renewed_at"])
    return revision


def host_demo_base(name: str) -> BaseModel:
    """A base model of the demo collection with its files."""
    collection = json.loads((DEMO / "collection.json").read_text())
    path = next(base["path"] for base in collection["base_models"] if base["id"] == name)
    with mock.patch.object(shapes, "compute_shapes", _compute_shapes):
        return host_base_model(name=name, folder=DEMO / path)[0]


def publish_fake(
    folder: Path,
    name: str = "",
    *,
    owner: User | None = None,
    namespace: Namespace | None = None,
    **options: Any,
) -> Adapter:
    """Publish a tiny valid adapter as its owner would; `options` go to `publish`, `config` to the adapter's files."""
    from registry.publishing import publish

    owner = owner or make_user()
    name = name or f"module-{next(_numbers)}"
    source = folder / f"source-{name}"
    shutil.rmtree(source, ignore_errors=True)
    make_adapter_folder(source, **options.pop("config", {}))
    return publish(
        author=owner,
        namespace=namespace or namespace_of(owner),
        name=name,
        files=files_of(source),
        **options,
    )
