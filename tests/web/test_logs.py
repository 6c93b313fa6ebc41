"""What the log carries and what it never does."""

from __future__ import annotations

import json
import logging

import pytest
from django.http import HttpRequest, HttpResponse

from web import logs
from web.middleware import RequestIdMiddleware

SECRETS = [
    ("sent lr_AbCdEf0123456789xyz along", "lr_AbCdEf"),
    ("the Hub's hf_AbCdEf0123456789", "hf_AbCdEf"),
    ("redis://:s3cr3t@broker:6379/0", "s3cr3t"),
    ("postgres://lora:p4ssw0rd@db/lora", "p4ssw0rd"),
    ("Authorization: Bearer abcdef.ghi", "abcdef"),
    ("{'password': 'hunter2', 'login': 'ada'}", "hunter2"),
    ("password1=hunter2&x=1", "hunter2"),
    ("GET /b?X-Amz-Credential=AKIA/1&X-Amz-Signature=0a1b2c", "0a1b2c"),
    ("sessionid=abc123; csrftoken=def456", "abc123"),
]


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    found = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("tests", logging.WARNING, __file__, 1, message, arguments, found)
    logs.ContextFilter().filter(made)
    return made


@pytest.mark.parametrize(("text", "secret"), SECRETS)
@pytest.mark.parametrize("formatter", [logs.LineFormatter(), logs.ObjectFormatter()])
def test_secrets_stay_out_of_every_line(text, secret, formatter):
    assert secret not in formatter.format(record("%s", text))
    with pytest.raises(ValueError, match=r".") as caught:
        raise ValueError(text)
    assert secret not in formatter.format(record("It broke", error=caught.value)), "nor in a traceback"


def test_what_is_no_secret_stays_readable():
    line = "Composition k2ab, attempt 2, is no longer ours; 3 of 12 tokens counted for token_counts.py"
    assert logs.hide_secrets(line) == line


def test_a_line_of_json_names_its_request_and_composition():
    with logs.about(request="r1"), logs.about(composition="c1"):
        told = json.loads(logs.ObjectFormatter().format(record("Done: %d", 3)))
    assert (told["message"], told["request"], told["composition"]) == ("Done: 3", "r1", "c1")
    assert (told["level"], told["logger"]) == ("WARNING", "tests")
    assert json.loads(logs.ObjectFormatter().format(record("After")))["request"] == "-"


def test_a_message_cannot_make_two_lines_of_one():
    line = logs.LineFormatter("%(message)s").format(record("name: %s", "x\nERROR forged\x1b[2J"))
    assert line == "name: x\\x0aERROR forged\\x1b[2J"


def test_what_is_logged_during_a_request_carries_its_id(rf):
    seen = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(json.loads(logs.ObjectFormatter().format(record("Working")))["request"])
        return HttpResponse()

    answer = RequestIdMiddleware(view)(rf.get("/"))
    assert seen == [answer["X-Request-Id"]]
