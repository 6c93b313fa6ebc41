"""Requests made from our own OpenAPI description, right ones and wrong ones, to every operation (F37).

No answer is an error of ours, and every refusal has the one shape. A few for each operation here; `--whole` makes
over 10,000.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from django.db import transaction
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode

from registry import bases_on_hub, shapes
from tests.factories import make_adapter, make_base_model, make_task, make_token, make_user
from tests.fake_adapters import TINY_MATRICES

pytestmark = pytest.mark.django_db

FEW, MANY = 2, 110  # requests for each operation, of right and of wrong ones
SHAPE = {"code", "message", "fields"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch, rung: Any) -> str:
    """A token of somebody who has an adapter; neither is a base model's config read here, nor a hub asked for one."""
    found = shapes.BaseShapes("T5", "SEQ_2_SEQ_LM", dict(TINY_MATRICES))
    monkeypatch.setattr(shapes, "compute_shapes", lambda config: found)
    monkeypatch.setattr(bases_on_hub, "hub_of_bases", lambda: "")
    user = make_user("ada")
    make_adapter("m", owner=user, base_model=make_base_model())
    make_task("who", rows=2, test_rows=2, is_held_out=True)
    return make_token(user)


def send(case: Any, secret: str) -> Any:
    """The answer to one made request; whatever it changed is undone."""
    path = case.path
    for name, value in (case.path_parameters or {}).items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    query = urlencode([(name, str(value)) for name, value in (case.query or {}).items()], errors="replace")
    headers = {
        str(name): str(value)
        .encode("latin-1", "replace")
        .decode("latin-1")
        .replace("\n", " ")
        .replace("\r", " ")
        for name, value in (case.headers or {}).items()
    }
    body = case.body
    kind = case.media_type or "application/json"
    if kind.startswith("multipart"):
        body, kind = _form(body), "multipart/form-data; boundary=b"
    elif not isinstance(body, bytes | str):
        is_absent = type(body).__name__ == "NotSet"
        body = "" if is_absent else json.dumps(body, default=str)
    with transaction.atomic():
        answer: Any = Client(raise_request_exception=False).generic(
            case.method, f"{path}?{query}", body, content_type=kind,
            headers={**headers, "Authorization": f"Bearer {secret}"},
        )  # fmt: skip
        if answer.streaming:
            b"".join(answer.streaming_content)
        transaction.set_rollback(True)
    return answer


def _form(body: Any) -> bytes:
    fields = body.items() if isinstance(body, dict) else [("files", body)]
    parts = []
    for name, value in fields:
        for one in value if isinstance(value, list) else [value]:
            raw = one if isinstance(one, bytes) else str(one).encode("utf-8", "replace")
            file = '; filename="adapter_config.json"' if name == "files" else ""
            parts.append(
                f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode(
                    "utf-8", "replace"
                )
                + raw
            )
    return b"\r\n".join([*parts, b"--b--\r\n"])


def test_no_made_request_meets_an_error_of_ours(secret, request, rung):
    schema = schemathesis.openapi.from_dict(SchemaGenerator().get_schema(request=None, public=True))
    examples = MANY if request.config.getoption("--whole") else FEW
    wrong: list[str] = []
    sent = operations = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        operations += 1
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seed(20260101)
            @settings(
                max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck)
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def trial(case: Any) -> None:
                nonlocal sent
                sent += 1
                answer = send(case, secret)
                if answer.status_code >= 500 or (answer.status_code >= 400 and not _has_shape(answer)):
                    wrong.append(
                        f"{case.method} {case.path} {case.query} {str(case.body)[:200]}: {answer.status_code}"
                    )

            try:
                trial()
            except schemathesis.errors.SchemathesisError as error:
                if mode is GenerationMode.POSITIVE:
                    wrong.append(f"{operation.label}: nothing can be made from its description: {error}")
            except Exception as error:
                if type(error).__name__ not in {"Unsatisfiable", "SkipTest", "Skipped"}:
                    raise
    assert operations >= 40
    assert sent >= operations * examples
    assert not wrong, f"{len(wrong)} of {sent}:\n" + "\n".join(wrong[:40])
    if examples == MANY:
        assert sent >= 10_000


def _has_shape(answer: Any) -> bool:
    try:
        return set(json.loads(answer.content)) == SHAPE
    except ValueError:
        return False
