"""Sending an adapter's files to another Hub in a throw-away process: `python -m registry.pushing < what.json`.

The Hub's own client waits for ever for a server that is silent, and sends large files from threads of its own that nothing in
this process could stop. A process can be ended at any moment. It knows neither our database nor our settings: everything it
needs comes as one JSON object, and how far it is goes out as one a line.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
LOOK_S = 1.0
ENDS_WITHIN_S = 10.0  # of its last word
LINE_BYTES = 64 * 1024

Line = dict[str, Any]


@dataclass(frozen=True)
class Push:
    """`files` are (path there, path here, size in bytes). `limit_s` is for all of it."""

    endpoint: str
    token: str
    target: str
    is_private: bool
    message: str
    files: list[tuple[str, str, int]]
    limit_s: float


class BrokeOff(Exception):
    """The process ended without saying why."""


class TookTooLong(Exception):
    """The process was ended at its limit."""


def run(push: Push, *, look: Callable[[], None]) -> Generator[Line, None, None]:
    """Send it; what the process says, one line after the other: {"stage": …}, {"target": …}, {"commit": …}, {"refused": …}.

    `look` is called about once a second and may raise to end it, but not while the commit is being written: then nobody could
    say whether it was. Raises BrokeOff, TookTooLong.
    """
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as complaints:
        question.write(json.dumps(asdict(push)).encode())
        question.seek(0)
        # Our own interpreter and module, no shell; the token is in no argument.
        process = subprocess.Popen(
            [sys.executable, "-m", "registry.pushing"],
            cwd=ROOT, stdin=question, stdout=subprocess.PIPE, stderr=complaints, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        stage = ""
        try:
            for line in _lines(process.stdout, until=time.monotonic() + push.limit_s):
                if line is None:
                    if stage != "commit":
                        look()
                    continue
                stage = line.get("stage", stage)
                yield line
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=ENDS_WITHIN_S)
            code = process.poll()
        except TimeoutError as error:
            raise TookTooLong from error
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if code == -signal.SIGALRM:
            raise TookTooLong
        if code:
            complaints.seek(0)
            raise BrokeOff(complaints.read()[-2000:].decode(errors="replace"))


def _lines(stream: IO[bytes], *, until: float) -> Iterator[Line | None]:
    """Each line as it comes, and None whenever none came for a while. Raises TimeoutError."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if time.monotonic() > until:
                raise TimeoutError
            if not selector.select(LOOK_S):
                yield None
                continue
            piece = os.read(stream.fileno(), LINE_BYTES)
            if not piece:
                return
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield json.loads(line)
            yield None


# --- In the process --------------------------------------------------------------------------------------------------


def main() -> None:
    push = Push(**json.load(sys.stdin))
    signal.alarm(int(push.limit_s) + 1)  # also where whoever waits for us has died
    _say(**_outcome(push))


def _outcome(push: Push) -> Line:
    """The commit, or the sentence that says why there is none."""
    import httpx2
    from huggingface_hub import errors

    try:
        return {"commit": _send(push)}
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            return {"refused": f"{push.endpoint} does not accept this token, or it may not write."}
        said = (error.server_message or "").strip()[:500]
        return {"refused": f"{push.endpoint} refuses: {said or f'status {status}'}"}
    except errors.HFValidationError:
        return {"refused": f"{push.target} cannot be a name there."}
    except (httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return {"refused": f"{push.endpoint} could not be reached or broke off. Try again later."}


def _send(push: Push) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    hub = HfApi(endpoint=push.endpoint, token=push.token, library_name="lora-commons")
    _say(stage="repository")
    target = push.target if "/" in push.target else f"{hub.whoami()['name']}/{push.target}"
    hub.create_repo(target, private=push.is_private, exist_ok=True)
    _say(target=target)
    operations = [
        CommitOperationAdd(path_in_repo=there, path_or_fileobj=here) for there, here, _ in push.files
    ]
    done = 0
    for operation, (_, _, size_bytes) in zip(operations, push.files, strict=True):
        _say(stage="sending", bytes_done=done)
        hub.preupload_lfs_files(target, [operation], free_memory=False)
        done += size_bytes
    _say(stage="commit", bytes_done=done)
    return str(hub.create_commit(target, operations, commit_message=push.message).oid)


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
