from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Tensors of a model lie between what stays: so does what is freed here, and glibc keeps it.
KEEPS = """
from compose.engine import heap

def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

freed, stays = [], []
for _ in range(5_000):
    freed.append(bytearray(20_000))
    stays.append(bytearray(1_000))
freed.clear()
before = resident()
heap.give_back()
print(before, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_what_lies_between_what_stays_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", KEEPS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    pages_freed = 5_000 * 20_000 // 4096
    assert before - after > pages_freed / 2
