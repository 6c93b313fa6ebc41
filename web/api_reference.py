"""The OpenAPI schema in words: every call with what it takes and gives, laid out on the server.

A page of our own instead of Swagger UI, which brings 1.4 MB of script, breaks the rules of accessibility that hold for
every page here (contrast, nested buttons, a second main landmark), and shows nothing without scripts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.utils.text import slugify

METHODS = ("get", "post", "put", "patch", "delete")
REF = "#/components/schemas/"


@dataclass(frozen=True)
class Field:
    name: str
    kind: str  # in words: "text", "list of Score", "one of: a, b"
    shape: str  # the name of a shape that the page describes; empty for none
    is_required: bool
    about: str
    place: str = ""  # of a parameter: path, query or header


@dataclass(frozen=True)
class Answer:
    status: str
    about: str
    kind: str
    shape: str


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    summary: str
    about: str
    parameters: list[Field]
    body: list[Field]
    body_kind: str
    answers: list[Answer]
    needs_account: bool


@dataclass(frozen=True)
class Group:
    name: str
    slug: str
    operations: list[Operation] = field(default_factory=list)


@dataclass(frozen=True)
class Shape:
    name: str
    about: str
    fields: list[Field]


@dataclass(frozen=True)
class Reference:
    groups: list[Group]
    shapes: list[Shape]


@lru_cache(maxsize=1)
def reference() -> Reference:
    """Read from the code once in a process; the schema changes with a release only."""
    from drf_spectacular.generators import SchemaGenerator

    schema = SchemaGenerator().get_schema(request=None, public=True)
    components: dict[str, Any] = schema.get("components", {}).get("schemas", {})
    groups: dict[str, Group] = {}
    for path, methods in schema["paths"].items():
        for method in METHODS:
            if method in methods:
                spec = methods[method]
                name = (spec.get("tags") or ["other"])[0]
                group = groups.setdefault(name, Group(name.replace("-", " "), f"group-{slugify(name)}"))
                group.operations.append(_operation(path, method, spec, components))
    shapes = [
        Shape(name, _about(spec), _fields(spec, is_sent=name.endswith("Request")))
        for name, spec in sorted(components.items())
    ]
    return Reference(list(groups.values()), [shape for shape in shapes if shape.fields or shape.about])


def _about(spec: dict[str, Any]) -> str:
    """What a shape is; of a choice between values, which they are. What DRF says of them is a list in Markdown."""
    return f"{words(spec).capitalize()}." if "enum" in spec else spec.get("description", "")


def _operation(path: str, method: str, spec: dict[str, Any], components: dict[str, Any]) -> Operation:
    content = spec.get("requestBody", {}).get("content", {})
    kind, media = _first_of(content)
    body = media.get("schema", {})
    summary, about = spec.get("summary", ""), spec.get("description", "")
    if not summary:
        summary, about = _first_sentence(about)
    resolved = components.get(body.get("$ref", "").removeprefix(REF), body)
    security = spec.get("security", [{}])
    return Operation(
        id=spec["operationId"],
        method=method.upper(),
        path=path,
        summary=summary,
        about=about,
        parameters=[_parameter(given) for given in spec.get("parameters", [])],
        body=_fields(resolved),
        body_kind=kind,
        answers=[_answer(status, given) for status, given in spec.get("responses", {}).items()],
        needs_account={} not in security,
    )


def _first_sentence(text: str) -> tuple[str, str]:
    """(its first sentence without the stop, what follows)."""
    first, _, rest = text.partition(". ")
    return first.removesuffix("."), rest


def _parameter(given: dict[str, Any]) -> Field:
    schema = given.get("schema", {})
    return Field(
        given["name"],
        words(schema),
        _shape(schema),
        bool(given.get("required")),
        given.get("description", ""),
        place=given["in"],
    )


def _answer(status: str, given: dict[str, Any]) -> Answer:
    kind, media = _first_of(given.get("content", {}))
    schema = media.get("schema", {})
    said = words(schema) if schema else ("" if kind in {"", "application/json"} else kind)
    return Answer(status, given.get("description", ""), said, _shape(schema))


def _first_of(content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The media type that stands first, and what is said of it."""
    return next(iter(content.items()), ("", {}))


def _fields(schema: dict[str, Any], *, is_sent: bool = True) -> list[Field]:
    """What a shape holds. An answer has all of it, so only of what is sent it is said which is needed."""
    required = set(schema.get("required", ())) if is_sent else set()
    return [
        Field(name, words(spec), _shape(spec), name in required, spec.get("description", ""))
        for name, spec in schema.get("properties", {}).items()
    ]


def words(schema: dict[str, Any]) -> str:
    """`{"type": "array", "items": {"type": "string"}}` -> `list of text`."""
    if schema.get("nullable"):
        return f"{words({**schema, 'nullable': False}) or 'anything'} or nothing"
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REF)
    for several in ("oneOf", "anyOf", "allOf"):
        if several in schema:
            parts = [words(part) for part in schema[several]]
            return " or ".join(dict.fromkeys(part for part in parts if part))
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    kind = schema.get("type", "")
    if isinstance(kind, list):
        return " or ".join("nothing" if name == "null" else words({"type": name}) for name in kind)
    if kind == "array":
        return f"list of {words(schema.get('items', {})) or 'anything'}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {words(schema['additionalProperties']) or 'anything'}"
    formats = {"date-time": "time", "uri": "address", "binary": "file", "uuid": "UUID"}
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return formats.get(schema.get("format", ""), names.get(kind, kind))


def _shape(schema: dict[str, Any]) -> str:
    """The shape that a schema is, or is a list of; empty for none, and for a choice between several."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REF)
    if "items" in schema:
        return _shape(schema["items"])
    found = {_shape(part) for several in ("oneOf", "anyOf", "allOf") for part in schema.get(several, ())} - {
        ""
    }
    return found.pop() if len(found) == 1 else ""
