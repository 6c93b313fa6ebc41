"""The jail runs our own modules, so these tests put small ones into a package of theirs."""

import time
from pathlib import Path

import pytest

from registry import jail
from registry.errors import JailFailed

PROBE = "tests.registry.jail_probe"
SMALL = jail.Limits(
    time_s=20, cpu_s=10, memory_bytes=256 * jail.MIB, output_bytes=100_000, file_bytes=1_000_000
)


def run(*arguments: str, limits: jail.Limits = SMALL, stdin: bytes = b"") -> jail.JailResult:
    return jail.run_module(PROBE, *arguments, stdin=stdin, limits=limits)


def failure(*arguments: str, limits: jail.Limits = SMALL) -> str:
    with pytest.raises(JailFailed) as caught:
        run(*arguments, limits=limits)
    return caught.value.message


def test_a_module_reads_what_it_is_given_and_its_answer_comes_back():
    assert run("echo", stdin=b"hello").stdout == b"hello"


def test_the_result_says_which_walls_stood():
    assert {"cpu", "files", "memory"} <= set(run("echo").enforced)


def test_nothing_of_our_environment_is_passed_on(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "do-not-tell")
    seen = run("environment").stdout.decode()
    assert "do-not-tell" not in seen
    assert "SECRET" not in seen


def test_no_connection_can_be_made():
    assert run("connect").stdout == b"refused"


def test_without_python_in_the_way_the_kernel_itself_has_no_network():
    """The second wall is taken away by asking the kernel for its interfaces: only a dead loopback is there."""
    result = run("interfaces")
    if "network" not in result.enforced:
        pytest.skip("this kernel allows no network namespaces here")
    assert result.stdout == b"lo"


def test_too_much_memory_is_a_sentence():
    assert "needed more than 256 MiB of memory" in failure("memory")


def test_an_endless_loop_is_stopped_and_said():
    assert "took longer than 2 seconds" in failure("spin", limits=jail.Limits(time_s=30, cpu_s=2))


def test_a_process_that_only_waits_is_stopped_and_said():
    assert "took longer than 2 seconds" in failure("sleep", limits=jail.Limits(time_s=2))


def test_an_endless_answer_is_stopped():
    assert "longer than we can keep" in failure("talk")


def test_a_refusal_comes_through_as_it_stands():
    assert failure("refuse") == "The probe does not like this."


def test_a_crash_is_a_sentence_without_a_traceback():
    assert failure("crash") == "This input could not be read: the process that reads it broke off."


def test_files_are_bounded_and_the_home_of_the_process_is_swept():
    assert "broke off" in failure("big-file")
    home = Path(run("home").stdout.decode())
    assert not home.exists()
    assert home != Path.home()


def test_children_do_not_outlive_the_jail():
    child = int(run("child").stdout)
    deadline = time.monotonic() + 5
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def is_running(process_id: int) -> bool:
    """Whether a process still works; one that is dead but not yet waited for by its new parent does not."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False
    return "State:\tZ" not in status
