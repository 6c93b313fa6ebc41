"""Whether an answer of the REST API is as its OpenAPI description says, to the letter: for clients made from it."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft4Validator, FormatChecker  # drf-spectacular needs it too

# What any call may answer and none describes: a wrong method or type, a body that does not say its length, trouble of ours.
UNDESCRIBED = {405, 406, 411, 500, 502, 503}


def unlike_description(method: str, path: str, answer: Any) -> list[str]:
    """What is other than described, each in a line; [] also for addresses that no call has."""
    found = _call(method.lower(), path)
    if found is None or answer.status_code in UNDESCRIBED:
        return []
    where, call = found
    described = call["responses"].get(str(answer.status_code))
    if described is None:
        return [f"{method} {where} answers {answer.status_code}, which is not described"]
    media = described.get("content", {}).get("application/json")
    if media is None or not answer.headers.get("Content-Type", "").startswith("application/json"):
        return []
    problems = _validator(json.dumps(media["schema"])).iter_errors(json.loads(answer.content))
    return [
        f"{method} {where} {answer.status_code}: {'.'.join(map(str, problem.absolute_path))}: {problem.message[:300]}"
        for problem in problems
    ]


def _call(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    for pattern, where, methods in _calls():
        if pattern.fullmatch(path) and method in methods:
            return where, methods[method]
    return None


@lru_cache(maxsize=1)
def description() -> dict[str, Any]:
    """The OpenAPI description, read once for all tests: leave it as it is."""
    found: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return found


@lru_cache(maxsize=1)
def _calls() -> list[tuple[re.Pattern[str], str, dict[str, Any]]]:
    """Each address with its calls, the most particular first."""
    found = []
    for where, methods in description()["paths"].items():
        # A base model's name, a path and a revision may hold slashes.
        wide = {"path", "revision", "tag", *(["name"] if "base-models" in where else [])}
        parts = re.split(r"\{(\w+)\}", where)
        pattern = "".join(
            re.escape(part) if place % 2 == 0 else (".+" if part in wide else "[^/]+")
            for place, part in enumerate(parts)
        )
        found.append((re.compile(pattern), where, methods))
    return sorted(found, key=lambda call: call[1].count("{"))


@lru_cache
def _validator(schema: str) -> Draft4Validator:
    components = {name: _strict(shape) for name, shape in description()["components"]["schemas"].items()}
    whole = {**_strict(json.loads(schema)), "components": {"schemas": components}}
    return Draft4Validator(whole, format_checker=FormatChecker())


def _strict(schema: Any) -> Any:
    """As JSON Schema, which has no `nullable`, and with nothing that is not named."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _strict(part) for name, part in schema.items() if name != "properties"}
    if "properties" in schema:
        found["properties"] = {name: _strict(part) for name, part in schema["properties"].items()}
        found.setdefault("additionalProperties", False)
    return {"anyOf": [found, {"type": "null"}]} if found.pop("nullable", False) is True else found
