"""What people say about an adapter, checked: description, licence, language, tags, visibility."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from registry.models import Adapter
from web.errors import DomainError

MAX_TAGS = 30
MAX_TAG_LENGTH = 50
LIMITS = {
    "description": 500,
    "license": 100,
    "language": 40,
    "dataset": 300,
    "dataset_revision": 100,
    "training": 300,
    "leakage": 500,
    "prompt_template": 1000,
    "base_model": 500,
    "task": 200,
    "message": 500,
}


# What is said about an adapter in one text each, without a check of its own.
TEXTS = (
    "description", "license", "language", "dataset", "dataset_revision", "training", "leakage", "prompt_template",
)  # fmt: skip
MAX_FULL_NAME = 200  # of a person or an organisation
_EMPTY_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # fillers of Hangul, and Braille without a dot
INPUT = "{input}"  # where the text goes in a prompt template


class BadDetail(DomainError):
    code = "invalid"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message, fields={field: [message]})


def check_text(field: str, value: str, *, limit: int | None = None) -> str:
    """`value` without space around it. Raises BadDetail if it is too long, holds what no text here may, or nothing that is seen."""
    value = value.strip()
    limit = limit or LIMITS[field]
    if len(value) > limit:
        raise BadDetail(field, f"The {_said(field)} has {len(value):,} characters; {limit} are allowed.")
    odd = next((letter for letter in value if _is_odd(letter)), None)
    if odd is not None:
        raise BadDetail(
            field, f"The {_said(field)} holds the character U+{ord(odd):04X}, which no text here may."
        )
    if value and not any(_is_seen(letter) for letter in value):
        raise BadDetail(field, f"The {_said(field)} has no character that can be seen.")
    if field == "prompt_template" and value and INPUT not in value:
        raise BadDetail(field, "The prompt template has to hold {input}, where the text goes.")
    return value


def check_tags(tags: Iterable[str]) -> list[str]:
    """Tags in lower case, each once, in the order given. Raises BadDetail."""
    checked: list[str] = []
    for tag in tags:
        tag = check_text("tags", str(tag).lower(), limit=MAX_TAG_LENGTH)
        if "," in tag:
            raise BadDetail("tags", f"The tag {tag!r} holds a comma. Give each tag by itself.")
        if tag and tag not in checked:
            checked.append(tag)
    if len(checked) > MAX_TAGS:
        raise BadDetail("tags", f"There are {len(checked)} tags; {MAX_TAGS} are allowed.")
    return checked


def check_visibility(value: str) -> str:
    if value not in Adapter.Visibility.values:
        raise BadDetail("visibility", f"The visibility must be public or private, not {value[:40]!r}.")
    return value


def usable(field: str, value: Any) -> str:
    """A text that a card gives for `field`, or "" where we cannot use it: a card's mistake refuses no upload."""
    if isinstance(value, list) and field in {"language", "dataset"}:
        value = ", ".join(map(str, value))
    if not isinstance(value, str):
        return ""
    try:
        return check_text(field, value)
    except BadDetail:
        return ""


def usable_tags(tags: Iterable[Any]) -> list[str]:
    """Those of a card's tags that we can use, as many as an adapter may have."""
    good: list[str] = []
    for tag in tags:
        try:
            good += [new for new in check_tags([str(tag)]) if new not in good]
        except BadDetail:
            continue
    return good[:MAX_TAGS]


def _said(field: str) -> str:
    return {
        "license": "licence",
        "base_model": "name of the base model",
        "tags": "tag",
        "dataset": "data set",
        "dataset_revision": "revision of the data set",
        "training": "note on training",
        "leakage": "note on leakage",
        "prompt_template": "prompt template",
        "full_name": "name to show",
        "about": "line about it",
        "website": "address of the website",
    }.get(field, field)


def _is_odd(letter: str) -> bool:
    """Control, surrogate, and direction-changing characters; a new line and a tab are fine."""
    category = unicodedata.category(letter)
    if category == "Cc":
        return letter not in "\n\r\t"
    return category == "Cs" or letter in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def _is_seen(letter: str) -> bool:
    """Letters, numbers, punctuation and symbols; neither spaces, joiners nor accents by themselves."""
    return unicodedata.category(letter)[0] in "LNPS" and letter not in _EMPTY_LETTERS
