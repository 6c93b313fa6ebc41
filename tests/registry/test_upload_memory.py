"""A large upload goes to disk in pieces: the web process must not grow with it. Measured on a real gunicorn."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment, free_port, wait_for
from tests.fake_adapters import fake_config

MIB = 1024**2
LIMIT_MIB = 64
SIZE_MIB = int(os.environ.get("UPLOAD_TEST_MIB", "300"))
BOUNDARY = "large-upload-boundary"


@dataclass(frozen=True)
class Web:
    port: int
    token: str
    pid: int

    def memory_mib(self, key: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{key}:"))
        return int(line.split()[1]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@pytest.fixture
def web(empty_data: Path, tmp_path: Path) -> Iterator[Web]:
    """One gunicorn worker on an empty SQLite site."""
    environment = {**clean_environment(), "LORA_DATA_DIR": str(tmp_path / "site"), "LOG_LEVEL": "WARNING"}
    shutil.copytree(empty_data, tmp_path / "site")
    account = empty_data.with_name("account.json")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "config.wsgi",
        "--bind",
        f"127.0.0.1:{port}",
        "--timeout",
        "300",
    ]
    command += ["--worker-class", "gthread", "--threads", "4", "--no-control-socket"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        wait_for(lambda: _is_healthy(port), seconds=60, what="gunicorn")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Web(port, json.loads(account.read_text())["token"], int(children[0]))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def large_adapter(folder: Path, size_mib: int) -> dict[str, Path]:
    """An adapter of about this size, for a base nobody knows: pairs of 16 MiB each way at rank 1024."""
    pairs = size_mib // 32
    header: dict[str, object] = {}
    end = 0
    for layer in range(pairs):
        for half, shape in (("A", [1024, 4096]), ("B", [4096, 1024])):
            name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{half}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 16 * MIB]}
            end += 16 * MIB
    raw = json.dumps(header).encode()
    weights = folder / "adapter_model.safetensors"
    with weights.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for number in range(end // MIB):
            file.write(bytes([number % 251, 0, 0, 0x3F]) * (MIB // 4))
    config = folder / "adapter_config.json"
    config.write_text(
        json.dumps(fake_config(rank=1024, targets=["q_proj"], base_model_name_or_path="no/base"))
    )
    return {"adapter_config.json": config, "adapter_model.safetensors": weights}


def form(files: dict[str, Path]) -> tuple[int, Iterator[bytes]]:
    """Length and pieces of the multipart body; no file is held in memory here either."""
    parts: list[bytes | Path] = [_part('name="name"') + b"large\r\n"]
    for name, path in files.items():
        parts += [_part(f'name="files"; filename="{name}"'), path, b"\r\n"]
    parts.append(f"--{BOUNDARY}--\r\n".encode())
    length = sum(part.stat().st_size if isinstance(part, Path) else len(part) for part in parts)

    def pieces() -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, bytes):
                yield part
                continue
            with part.open("rb") as file:
                while chunk := file.read(MIB):
                    yield chunk

    return length, pieces()


def _part(disposition: str) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()


def publish(web: Web, files: dict[str, Path]) -> tuple[int, bytes]:
    length, pieces = form(files)
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=300)
    headers = {
        "Authorization": f"Bearer {web.token}",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Content-Length": str(length),
        "Idempotency-Key": f"large-{length}",
    }
    connection.request("POST", "/api/v1/adapters/", body=pieces, headers=headers)
    response = connection.getresponse()
    return response.status, response.read()


def fetch(web: Web, path: str) -> int:
    """Download and drop; how many bytes came."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=300)
    connection.request("GET", f"/api/v1/adapters/demo/large/{path}")
    response = connection.getresponse()
    assert response.status == 200
    count = 0
    while chunk := response.read(MIB):
        count += len(chunk)
    return count


@pytest.mark.slow
def test_a_large_upload_and_download_leave_the_web_process_small(web, tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    # The first upload imports what every later one needs.
    assert publish(web, large_adapter(small, 32))[0] == 201
    files = large_adapter(large, SIZE_MIB)
    idle = web.memory_mib()
    web.forget_peak()
    status, body = publish(web, files)
    grown = web.memory_mib("VmHWM") - idle
    print(f"uploading {SIZE_MIB} MiB: {idle:.0f} MiB idle, grown by at most {grown:.1f} MiB")
    assert status == 201, body
    assert grown < LIMIT_MIB

    web.forget_peak()
    weights = files["adapter_model.safetensors"].stat().st_size
    assert fetch(web, "files/adapter_model.safetensors") == weights
    assert fetch(web, "archive") > weights
    grown = web.memory_mib("VmHWM") - idle
    print(f"downloading it twice: grown by at most {grown:.1f} MiB")
    assert grown < LIMIT_MIB
