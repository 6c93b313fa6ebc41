"""What every line of the log carries, and what none does: the request it belongs to; no token and no password."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

from web.addresses import last_forwarded

_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)
HIDDEN = "[hidden]"
# Our tokens; the Hub's; the user part of an address; signatures; and whatever is called a secret.
_SECRETS = (
    re.compile(r"\b(?:lr|hf)_[A-Za-z0-9_-]{8,}"),
    re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]+(?=@)"),
    re.compile(r"(?<=X-Amz-Signature=)[0-9a-f]+|(?<=X-Amz-Credential=)[^&\s]+", re.IGNORECASE),
    re.compile(r"(?<=/api/lfs/)[^/\s\"]+"),  # a ticket: who holds it may send that file
    re.compile(r"(?<=[Bb]earer )[^\s'\"]+|(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}"),
    re.compile(
        r"(?<![\w-])((?:password[12]?|secret|token|api_?key|csrfmiddlewaretoken|sessionid|csrftoken|share_key)"
        r"['\"]?\s*[=:]\s*['\"]?)[^\s'\"&,;}]+",
        re.IGNORECASE,
    ),
)


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Every line logged in the block, by this thread or task, carries these fields."""
    before = _about.set({**(_about.get() or {}), **fields})
    try:
        yield
    finally:
        _about.reset(before)


def hide_secrets(text: str) -> str:
    """The text without what would let its reader act as somebody else, and in one line's characters."""
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: (found[1] if found.lastindex else "") + HIDDEN, text)
    return text


def _printable(text: str) -> str:
    """Without characters that would make two lines of one, or steer a terminal."""
    return "".join(
        character if character >= " " and character != "\x7f" else f"\\x{ord(character):02x}"
        for character in text
    )


class ContextFilter(logging.Filter):
    """Puts the fields of `about` on the record."""

    def filter(self, record: logging.LogRecord) -> bool:
        fields = _about.get() or {}
        record.request = fields.get("request", "-")
        record.composition = fields.get("composition", "-")
        return True


class AnswerFilter(logging.Filter):
    """The web server's own lines: those about an answer carry its request's id, and what is known of it by name.

    `behind_proxy`: the address that our proxy saw, as in `web.addresses`.
    """

    def __init__(self, *, behind_proxy: bool) -> None:
        super().__init__()
        self._behind_proxy = behind_proxy

    def filter(self, record: logging.LogRecord) -> bool:
        record.request = record.composition = "-"
        told = record.args
        if isinstance(told, dict) and "U" in told:
            record.request = told.get("{x-request-id}o", "-")
            if self._behind_proxy:
                told["h"] = last_forwarded(told.get("{x-forwarded-for}i", ""), otherwise=told["h"])
            record.answer = {
                "address": told["h"],
                "method": told["m"],
                "path": told["U"],
                "status": int(told["s"]),
                "bytes": int(told["B"] or 0),
                "ms": int(told["M"]),
            }
        return True


class LineFormatter(logging.Formatter):
    """A line for people."""

    def __init__(
        self,
        format: str = "%(asctime)s %(levelname)s %(name)s [%(request)s %(composition)s] %(message)s",
    ) -> None:
        super().__init__(format)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return hide_secrets(super().format(record))


class ObjectFormatter(JsonFormatter):
    """A JSON object for each line."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s %(request)s %(composition)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
        )

    def format(self, record: logging.LogRecord) -> str:
        return hide_secrets(super().format(record))


FORMATTERS: dict[str, type[logging.Formatter]] = {"line": LineFormatter, "json": ObjectFormatter}
