"""Web processes keep little of what large requests took."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from config import settings

COUNT = """
import ctypes, sys, threading
from config import gunicorn

if sys.argv[1] == "ours":
    gunicorn._share_heaps()
together = threading.Barrier(8)

def take():
    together.wait()
    taken = [bytearray(50_000 + number) for number in range(200)]
    together.wait()

threads = [threading.Thread(target=take) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
c.fclose.argtypes = [ctypes.c_void_p]
c.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
file = c.fopen(b"/dev/stdout", b"w")
c.malloc_info(0, file)
c.fclose(file)
"""


def heaps(how: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", COUNT, how],
        cwd=settings.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ran.stdout.count("<heap nr=")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="another C library than glibc")
def test_the_threads_of_a_web_process_share_two_heaps():
    assert heaps("usual") > 2
    assert heaps("ours") == 2
