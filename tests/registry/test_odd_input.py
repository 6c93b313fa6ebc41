"""No input of a stranger is an error of ours: every address and field of the API and the Hub protocol against values that
break things."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.db import transaction

from registry import shapes
from tests.factories import make_adapter, make_base_model, make_task, make_token, make_user
from tests.fake_adapters import TINY_MATRICES
from tests.registry.test_api import Script, multipart

pytestmark = pytest.mark.django_db

TEXTS = [
    "", " ", "\x00", "a\x00b", "\ud7ff", "\u202e", "'; drop table x; --", "%", "_", "\\", "../../etc/passwd", "%2e%2e",
    "1e999", "-1", str(2**70), "nan", "null", "[]", "{}", "x" * 5000, "é" * 200, "\n", "\r\nX: y", "😀", "/", "//", ".",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 2**70, 1.5, 1e300, "", "x" * 100_000, "\u0000", "\u202e", [], [[]], [None], [{}], {}, {"a": {}},
    {"": ""}, ["x"] * 1000,
]  # fmt: skip
PARAMETERS = {
    "adapters/": [
        "q",
        "task",
        "base",
        "composable",
        "rank",
        "license",
        "kind",
        "namespace",
        "sort",
        "cursor",
        "limit",
    ],
    "adapters/ada/m/files/": ["revision"],
    "adapters/ada/m/files/adapter_config.json": ["revision"],
    "adapters/ada/m/archive": ["revision"],
    "adapters/ada/m/revisions/": ["cursor", "limit"],
    "base-models/": ["q", "kind", "cursor", "limit"],
    "tasks/": ["q", "held_out", "base", "cursor", "limit"],
}
ADDRESSES = [
    "adapters/{}/m/", "adapters/ada/{}/", "adapters/ada/m/files/{}", "adapters/ada/{}/archive", "base-models/{}/",
    "base-models/demo/tiny-t5/files/{}", "tasks/{}/",
]  # fmt: skip
SHAPE = {"code", "message", "fields"}


@pytest.fixture
def script() -> Script:
    """A script of ada, who has one adapter; there is a base model and a task."""
    user = make_user("ada")
    make_adapter("m", owner=user, base_model=make_base_model())
    make_task("who", rows=2, is_held_out=True)
    return Script(make_token(user))


def assert_in_words(answer: Any, said: object) -> None:
    assert answer.status_code < 500, said
    if answer.status_code >= 400:
        assert set(json.loads(answer.content)) == SHAPE, said


def test_every_parameter_takes_or_refuses_every_text(script):
    for path, names in PARAMETERS.items():
        for name, text in itertools.product(names, TEXTS):
            assert_in_words(script.get(f"{path}?{name}={quote(text)}"), (path, name, text))
        assert_in_words(script.get(f"{path}?%ff=%fe&{'a' * 3000}=1"), path)


def test_every_part_of_an_address_may_be_anything(script):
    for path, text in itertools.product(ADDRESSES, TEXTS):
        assert_in_words(script.get(path.format(quote(text, safe=""))), (path, text))


def test_every_field_of_a_change_may_be_anything(script):
    for name, value in itertools.product(
        ["description", "license", "language", "visibility", "tags", "task", "base_model", "\u0000", "id"],
        VALUES,
    ):
        assert_in_words(script.send("PATCH", "adapters/ada/m/", {name: value}), (name, value))
    for value in VALUES:
        assert_in_words(script.send("PATCH", "adapters/ada/m/", value), value)


def test_every_field_of_a_base_model_may_be_anything(script, monkeypatch):
    found = shapes.BaseShapes("T5", "SEQ_2_SEQ_LM", dict(TINY_MATRICES))
    monkeypatch.setattr(shapes, "compute_shapes", lambda config: found)
    good = {"name": "demo/tiny-t5", "config": {"model_type": "t5"}}
    for name, value in itertools.product(["name", "config", "aliases", "license"], VALUES):
        assert_in_words(script.send("POST", "base-models/", {**good, name: value}), (name, value))


def test_bodies_that_are_no_json_are_refused(script):
    for body in (
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"NaN",
        b'{"a": "\\ud800"}',
        b"1" * 10_000,
        b'{"a":1e999}',
    ):
        for method, path in (("PATCH", "adapters/ada/m/"), ("POST", "base-models/")):
            assert_in_words(script.send(method, path, body), body[:20])


def test_every_field_of_an_upload_may_be_anything(script):
    kind = "multipart/form-data; boundary=lora-commons-test-boundary"
    names = [
        "name",
        "namespace",
        "task",
        "license",
        "description",
        "visibility",
        "tags",
        "base_model",
        "message",
    ]
    for name, text in itertools.product(names, TEXTS):
        body = multipart({"adapter_config.json": b"{}"}, {"name": "m", name: text})
        answer = script.client.generic(
            "POST", "/api/v1/adapters/", body, content_type=kind, headers=script.headers
        )
        assert_in_words(answer, (name, text))
    for text in TEXTS:
        body = multipart({text.replace("\r\n", ""): b"x"}, {})
        for path in ("adapters/", "adapters/validate/"):
            answer = script.client.generic(
                "POST", f"/api/v1/{path}", body, content_type=kind, headers=script.headers
            )
            assert_in_words(answer, text)


def test_headers_may_be_anything(script):
    path = "adapters/ada/m/files/adapter_model.safetensors"
    for value in [
        "",
        " ",
        "bytes",
        "bytes=",
        "bytes=" + "9" * 5000 + "-1",
        "\xff",
        ",",
        '"',
        "*",
        "W/",
        "bytes=--1",
    ]:
        for header in ("Range", "If-Range", "If-None-Match", "Accept", "Idempotency-Key", "User-Agent"):
            assert_in_words(script.get(path, **{header: value}), (header, value))
    for value in ["Bearer", "Bearer ", "Bearer \xff", "Basic x", "Bearer " + "x" * 5000, "bearer a b"]:
        assert_in_words(Script().get("adapters/", Authorization=value), value)


# --- The Hub protocol ----------------------------------------------------------------------------------------

SURROGATE = "\ud800"
OID = "0" * 64
HUB_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/repos/create"): {"name": "n", "organization": "ada", "type": "model", "private": True},
    ("POST", "/api/repos/move"): {"fromRepo": "ada/m", "toRepo": "ada/m2", "type": "model"},
    ("DELETE", "/api/repos/delete"): {"name": "m", "organization": "ada", "type": "model"},
    ("PUT", "/api/models/ada/m/settings"): {"private": False, "visibility": "public", "gated": False},
    ("POST", "/api/models/ada/m/preupload/main"): {"files": [{"path": "a", "size": 1, "sample": "eA=="}]},
    ("POST", "/api/models/ada/m/branch/b"): {"startingPoint": "main"},
    ("POST", "/api/models/ada/m/tag/main"): {"tag": "v1", "message": "x"},
    ("POST", "/api/models/ada/m/commit/main"): {"key": "header", "value": {"summary": "x", "description": ""}},
    ("POST", "/api/validate-yaml"): {"content": "a: 1", "repoType": "model"},
    ("POST", "/ada/m.git/info/lfs/objects/batch"): {
        "operation": "upload", "objects": [{"oid": OID, "size": 1}], "transfers": ["basic"], "hash_algo": "sha256",
    },
    ("POST", "/ada/m.git/info/lfs/objects/verify"): {"oid": OID, "size": 1},
}  # fmt: skip


def changed(body: dict[str, Any], value: Any) -> Iterator[dict[str, Any]]:
    """The body with `value` in the place of each of its own, those inside of others too."""
    for name, own in body.items():
        yield {**body, name: value}
        if isinstance(own, dict):
            yield from ({**body, name: inner} for inner in changed(own, value))
        if isinstance(own, list) and isinstance(own[0], dict):
            yield from ({**body, name: [inner]} for inner in changed(own[0], value))


@pytest.mark.parametrize(("method", "path"), HUB_BODIES)
def test_every_field_of_the_hub_protocol_may_be_anything(script, method, path):
    def answer_to(body: bytes | str) -> Any:
        with transaction.atomic():  # whatever was right after all is undone
            answer = script.client.generic(
                method, path, body, content_type="application/json", headers=script.headers
            )
            transaction.set_rollback(True)
        return answer

    for value in [*VALUES, SURROGATE, [SURROGATE], {SURROGATE: "\u0000"}, ["\u0000"]]:
        for body in changed(HUB_BODIES[method, path], value):
            assert answer_to(json.dumps(body)).status_code < 500, (str(value)[:30], str(body)[:200])
    for raw in (b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"null", b'{"a": NaN}'):
        assert answer_to(raw).status_code < 500, raw[:20]
