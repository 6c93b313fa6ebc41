from __future__ import annotations

import threading
import time

from web.line import Line


def test_who_leaves_and_comes_again_is_behind_those_who_wait():
    line = Line(1)
    order = []

    def come(name: str) -> None:
        with line:
            order.append(name)

    threads = [threading.Thread(target=come, args=[name]) for name in ("first", "second")]
    with line:
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            give_up = time.monotonic() + 20
            while len(line) < waiting:
                assert time.monotonic() < give_up
                time.sleep(0.001)
    come("again")
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second", "again"]
    assert len(line) == 0
    come("later")
    assert order[-1] == "later"
