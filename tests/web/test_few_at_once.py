from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from web.few_at_once import FewAtOnce, brings_a_large_body


class Counter:
    """An application that remembers how many were in it at once; each waits until `leave` is set."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.lock = threading.Lock()
        self.entered = threading.Semaphore(0)
        self.leave = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.release()
        assert self.leave.wait(20)
        with self.lock:
            self.inside -= 1
        return [b"done"]


def test_no_more_than_a_few_are_at_work_and_all_get_their_turn():
    counter = Counter()
    application = FewAtOnce(counter, most=2)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(application, {}, None) for _ in range(8)]
        for _ in range(2):
            assert counter.entered.acquire(timeout=20)
        counter.leave.set()
        assert [each.result(20) for each in asked] == [[b"done"]] * 8
    assert counter.most == 2


def test_a_large_body_that_arrives_keeps_nobody_out():
    counter = Counter()
    application = FewAtOnce(counter, most=1)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(application, {"CONTENT_LENGTH": "1000000"}, None) for _ in range(3)]
        asked.append(pool.submit(application, {}, None))
        for _ in range(4):
            assert counter.entered.acquire(timeout=20)
        counter.leave.set()
        assert all(each.result(20) for each in asked)


def test_a_place_is_given_back_after_an_error():
    def fails(environ: dict[str, Any], start_response: Any) -> Any:
        raise ZeroDivisionError

    application = FewAtOnce(fails, most=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            application({}, None)


@pytest.mark.parametrize(
    ("environ", "is_large"),
    [
        ({}, False),
        ({"CONTENT_LENGTH": ""}, False),
        ({"CONTENT_LENGTH": "16384"}, False),
        ({"CONTENT_LENGTH": "16385"}, True),
        ({"CONTENT_LENGTH": "many"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
    ],
)
def test_what_is_a_large_body(environ: dict[str, Any], is_large: bool):
    assert brings_a_large_body(environ) == is_large
