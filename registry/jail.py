"""Running one of our modules on strangers' data in a throw-away process.

The process has no network where the kernel lets us take it away, an environment without secrets, bounded memory, CPU
and wall time, and bounded output. `JailResult.enforced` says which of these could really be enforced, because a
container may forget to allow namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import runpy
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import JailFailed

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024**2
# Libraries reserve much address space that they never fill (CUDA builds of torch several GiB), so the limit on
# address space only has to stop what RLIMIT_DATA does not see: shared and file mappings.
_ADDRESS_SPACE_SLACK = 24 * 1024 * MIB
_OUT_OF_MEMORY = 97
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 38, 4


@dataclass(frozen=True)
class Limits:
    """What one throw-away process may use. Files written are bounded one by one."""

    time_s: float = 60
    cpu_s: int = 60
    memory_bytes: int = 2048 * MIB
    output_bytes: int = 8 * MIB
    file_bytes: int = 1024 * MIB


@dataclass
class JailResult:
    """What a module in the jail wrote, and which of the walls stood: network, memory, cpu, files."""

    stdout: bytes
    enforced: list[str] = field(default_factory=list)


def run_module(module: str, *arguments: str, stdin: bytes = b"", limits: Limits | None = None) -> JailResult:
    """Run `python -m module arguments…` in a throw-away process and return what it wrote.

    A module refuses its input by `refuse()`. Raises JailFailed with that sentence, or with one of ours when the
    process crashed or ran into a limit.
    """
    limits = limits or Limits()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jail-") as home, tempfile.TemporaryFile() as question:
        question.write(stdin)
        question.seek(0)
        # Our own interpreter and module, no shell.
        process = subprocess.Popen(  # noqa: S603
            _command(module, arguments, limits),
            stdin=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=_environment(home),
            close_fds=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = _collect(process, limits, started)
        finally:
            _end(process)
    return JailResult(
        stdout=_answer(process.returncode, stdout, stderr, limits),
        enforced=_enforced(stderr),
    )


def _command(module: str, arguments: tuple[str, ...], limits: Limits) -> list[str]:
    numbers = (limits.cpu_s, limits.memory_bytes, limits.file_bytes)
    return [
        sys.executable, "-s", "-E", "-m", "registry.jail",
        *(str(int(number)) for number in numbers), module, *arguments,
    ]  # fmt: skip


def _environment(home: str) -> dict[str, str]:
    """A few harmless variables of our own; nothing of ours, passwords above all, is passed on."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def _collect(process: subprocess.Popen[bytes], limits: Limits, started: float) -> tuple[bytes, bytes]:
    """Everything the process writes until it ends. Raises JailFailed when it is too slow or writes too much."""
    assert process.stdout is not None
    assert process.stderr is not None
    written = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in written:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = started + limits.time_s - time.monotonic()
            if left <= 0:
                raise JailFailed(_too_slow(limits.time_s))
            for key, _ in selector.select(timeout=left):
                chunk = os.read(key.fd, 65_536)
                if not chunk:
                    selector.unregister(key.fileobj)
                collected = written[key.fileobj]  # type: ignore[index]
                collected.extend(chunk)
                if len(collected) > limits.output_bytes:
                    raise JailFailed("The answer to this input is longer than we can keep.")
    try:
        process.wait(timeout=max(0.1, started + limits.time_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise JailFailed(_too_slow(limits.time_s)) from None
    return bytes(written[process.stdout]), bytes(written[process.stderr])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with everything it started, and close our ends of its pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _too_slow(seconds: float) -> str:
    return f"Reading this input took longer than {seconds:.0f} seconds and was stopped."


def _answer(code: int, stdout: bytes, stderr: bytes, limits: Limits) -> bytes:
    if code == 0:
        return stdout
    refusal = _last_line(stderr, _REFUSAL)
    if refusal:
        raise JailFailed(refusal)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        raise JailFailed(_too_slow(limits.cpu_s))
    if code == _OUT_OF_MEMORY or b"MemoryError" in stderr or b"not enough memory" in stderr:
        raise JailFailed(
            f"Reading this input needed more than {limits.memory_bytes // MIB:,} MiB of memory and was stopped."
        )
    raise JailFailed("This input could not be read: the process that reads it broke off.")


# --- Inside the jail ---------------------------------------------------------------------------------------

_REFUSAL, _ENFORCED = "jail-refusal: ", "jail-enforced: "


def _last_line(stderr: bytes, mark: str) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.startswith(mark)]
    return lines[-1].removeprefix(mark) if lines else ""


def _enforced(stderr: bytes) -> list[str]:
    for line in stderr.decode("utf-8", "replace").splitlines():
        if line.startswith(_ENFORCED):
            return line.removeprefix(_ENFORCED).split()
    return []


def refuse(message: str) -> None:
    """End this jailed process with a sentence for the person whose input it read."""
    sys.stdout.flush()
    print(_REFUSAL + " ".join(message.split())[:1000], file=sys.stderr, flush=True)
    raise SystemExit(1)


def _shut_in(cpu_s: int, memory_bytes: int, file_bytes: int) -> list[str]:
    """Put every wall up that this kernel allows around the running process; the names of those that stand."""
    enforced = []
    if _leave_network():
        enforced.append("network")
    _forbid_sockets()
    for name, limit, value in (
        ("memory", resource.RLIMIT_DATA, memory_bytes),
        ("memory", resource.RLIMIT_AS, memory_bytes + _ADDRESS_SPACE_SLACK),
        ("cpu", resource.RLIMIT_CPU, cpu_s),
        ("files", resource.RLIMIT_FSIZE, file_bytes),
        ("files", resource.RLIMIT_NOFILE, 256),
        ("files", resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):
            # SIGXCPU is sent at the soft limit, and a process that caught it is killed a second later.
            hard = value + 1 if limit == resource.RLIMIT_CPU else value
            resource.setrlimit(limit, (value, hard))
            enforced.append(name)
    return sorted(set(enforced))


def _leave_network() -> bool:
    """Move to a network namespace of our own, without any interface; False where the kernel refuses."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        return libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    except (OSError, AttributeError):  # no libc that we know
        return False


def _forbid_sockets() -> None:
    """A second wall, in Python itself: it holds where namespaces are not allowed, as long as no code is run."""

    def watch(event: str, _: tuple) -> None:
        if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"):
            raise PermissionError("this process has no network")

    sys.addaudithook(watch)


def _main(arguments: list[str]) -> None:
    cpu_s, memory_bytes, file_bytes = (int(number) for number in arguments[:3])
    enforced = _shut_in(cpu_s, memory_bytes, file_bytes)
    print(_ENFORCED + " ".join(enforced), file=sys.stderr, flush=True)
    # The process ends with its answer: what has no use is not looked for, which takes a quarter of importing torch.
    gc.disable()
    module = arguments[3]
    sys.argv = [module, *arguments[4:]]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)


if __name__ == "__main__":
    _main(sys.argv[1:])
