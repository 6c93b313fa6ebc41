"""The API in words, laid out from its own schema."""

from __future__ import annotations

import gzip
import re

import pytest
from django.test import Client

from tests.described import description
from web.api_reference import reference, words

pytestmark = pytest.mark.django_db


def test_every_call_of_the_schema_is_there_with_what_it_takes_and_gives():
    calls = {(call.method, call.path): call for group in reference().groups for call in group.operations}
    assert len(calls) > 40
    asked = calls["POST", "/api/v1/compositions/"]
    assert {"examples", "pinned", "excluded", "dry_run"} <= {field.name for field in asked.body}
    assert asked.needs_account
    assert not calls["GET", "/api/v1/adapters/"].needs_account
    assert calls["GET", "/api/v1/imports/"].needs_account
    assert "201" in {answer.status for answer in asked.answers}
    assert "304" in {answer.status for answer in calls["GET", "/api/v1/tasks/"].answers}
    shapes = {shape.name for shape in reference().shapes}
    named = {answer.shape for call in calls.values() for answer in call.answers if answer.shape}
    fields = [*asked.body, *(field for shape in reference().shapes for field in shape.fields)]
    fields += [field for call in calls.values() for field in (*call.parameters, *call.body)]
    named |= {field.shape for field in fields if field.shape}
    assert named <= shapes, "a link that leads nowhere"


def test_every_call_says_in_words_what_it_does():
    calls = [call for group in reference().groups for call in group.operations]
    assert [call.path for call in calls if not call.summary[:1].isupper() or call.summary.endswith(".")] == []
    found = next(call for call in calls if call.id == "adapters_list")
    assert found.summary == "Find adapters"
    assert found.about.startswith("A parameter that is unknown")


def test_the_page_has_it_without_scripts_and_compressed():
    answer = Client().get("/api/docs/", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    page = gzip.decompress(answer.content).decode()
    assert 'id="shape-Composition"' in page
    assert "/api/v1/compositions/{id}/try/" in page
    anchors = re.findall(r'\bid="([^"]+)"', page)
    assert len(anchors) == len(set(anchors)), "a link to it leads to another"


def test_what_may_be_nothing_is_said_to():
    fields = {(shape.name, field.name): field for shape in reference().shapes for field in shape.fields}
    for name in ("recheck_wanted_at", "rechecked_at"):
        assert fields["BaseModelDetail", name].kind.endswith("or nothing"), name


def test_only_of_what_is_sent_it_is_said_which_is_needed():
    needed = {shape.name for shape in reference().shapes for field in shape.fields if field.is_required}
    assert "NewTaskRequest" in needed
    assert {name for name in needed if not name.endswith("Request")} == set()


# Clients are made from the schema: they send the defaults it names, read what it says is there, and go by its media types.


def test_what_is_said_to_hold_unless_given_may_be_given():
    for name, shape in description()["components"]["schemas"].items():
        for field, spec in shape.get("properties", {}).items():
            if spec.get("default") == "":
                assert not spec.get("minLength"), (name, field)


def test_an_answer_leaves_nothing_out():
    shapes = description()["components"]["schemas"]
    assert {"status", "step", "error"} <= set(shapes["Composition"]["required"])
    given = {name: shape for name, shape in shapes.items() if not name.endswith("Request")}
    for name, shape in given.items():
        assert set(shape.get("properties", ())) == set(shape.get("required", ())), name


def test_a_file_is_told_as_bytes():
    paths = description()["paths"]
    for path in ("adapters/{namespace}/{name}/files/{path}", "base-models/{name}/files/{path}"):
        answers = paths[f"/api/v1/{path}"]["get"]["responses"]
        for status in ("200", "206"):
            assert list(answers[status]["content"]) == ["application/octet-stream"], path


def test_no_call_or_shape_has_a_name_that_was_made_up_for_it():
    calls = [call for methods in description()["paths"].values() for call in methods.values()]
    names = [call["operationId"] for call in calls] + list(description()["components"]["schemas"])
    made_up = (
        "_retrieve",
        "_destroy",
        "_update",
        "_list_list",
        "_create_create",
        "RequestRequest",
        "ListList",
    )
    assert [name for name in names if name.endswith(made_up)] == []


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"oneOf": [{"type": "integer"}, {"$ref": "#/components/schemas/Score"}]}, "whole number or Score"),
        ({"enum": ["a", "b"]}, "one of a, b"),
        ({"type": "string", "format": "date-time"}, "time"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({"type": ["string", "null"]}, "text or nothing"),
        ({"type": "string", "format": "date-time", "nullable": True}, "time or nothing"),
        ({}, ""),
    ],
)
def test_a_schema_is_said_in_words(schema: dict, said: str):
    assert words(schema) == said
