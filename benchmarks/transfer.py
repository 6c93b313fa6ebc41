"""How fast large files travel: `python -m benchmarks.transfer [--mib 1024]`, as ratios of one run on one machine.

A web process of the site on an empty folder takes an adapter of random weights from the real client, through Xet and through Git
LFS, and gives it back to curl. Beside each stands what the machine itself needs: `sha256sum` and `cp` of the same file
for an upload, nginx (where it is installed) serving the same file for a download. The last row is nginx before the
site: it sends the bytes (X-Accel), and the run fails if the web process read them too.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024**2
UPLOAD = """
import sys, time, huggingface_hub as hub
api = hub.HfApi()
name = api.whoami()["name"] + "/" + sys.argv[1]
api.create_repo(name)
start = time.perf_counter()
api.upload_folder(repo_id=name, folder_path=sys.argv[2])
print(name, time.perf_counter() - start)
"""
DOWNLOAD = """
import hashlib, sys, huggingface_hub as hub
with open(hub.hf_hub_download(sys.argv[1], sys.argv[2]), "rb") as file:
    print(hashlib.file_digest(file, "sha256").hexdigest())
"""


def make_adapter(folder: Path, mib: int) -> Path:
    """A LoRA of random bfloat16 values, about `mib` MiB, for a base model that nobody knows."""
    import numpy as np

    folder.mkdir()
    rank, width = 1024, 4096
    half = rank * width * 2
    header: dict[str, object] = {}
    for place in range(max(1, mib * MIB // half) // 2 * 2):
        letter, shape = (("A", [rank, width]), ("B", [width, rank]))[place % 2]
        name = f"base_model.model.model.layers.{place // 2}.self_attn.q_proj.lora_{letter}.weight"
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place * half, (place + 1) * half]}
    raw = json.dumps(header).encode()
    generator = np.random.default_rng(0)
    weights = folder / "adapter_model.safetensors"
    with weights.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for _ in header:
            values = generator.standard_normal(half // 2, dtype=np.float32)
            file.write((values.view("<u4") >> 16).astype("<u2").tobytes())
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 1,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "no/base",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return weights


@contextmanager
def site(folder: Path, **variables: str) -> Iterator[tuple[str, str]]:
    """(address, token) of one web process on the site in a folder, empty the first time."""
    environment = {**os.environ, "LORA_DATA_DIR": str(folder / "site"), "LOG_LEVEL": "WARNING", **variables}
    account = folder / "account.json"
    for command in (["migrate", "--noinput", "-v", "0"], ["demo_account", "--file", str(account)]):
        subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=environment, check=True)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{port}"]
    command += [
        "--worker-class",
        "web.server.PatientWorker",
        "--threads",
        "8",
        "--timeout",
        "300",
        "--no-control-socket",
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health")
        yield f"http://127.0.0.1:{port}", json.loads(account.read_text())["token"]
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def nginx(folder: Path, what: str, ready: str) -> Iterator[str]:
    """The address of nginx, with sendfile; `what` are the directives of its one server, `ready` a path that answers."""
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"daemon off; user {getpass.getuser()}; pid {folder}/nginx.pid; error_log {folder}/error.log; "
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; sendfile on; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; "
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; "
        f"server {{ listen 127.0.0.1:{port}; {what} }} }}"
    )
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        wait_for(f"http://127.0.0.1:{port}{ready}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(address: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def fetch_s(address: str, *, times: int = 3) -> float:
    """Seconds that curl needs to fetch and drop what is there: the best of some tries."""
    command = ["curl", "-fsS", "-o", os.devnull, "-w", "%{time_total}", address]
    return min(float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(times))


def send_s(name: str, folder: Path, home: Path, address: str, token: str, **variables: str) -> float:
    """Seconds that the client needs to upload the folder, from a fresh home."""
    environment = {**os.environ, "HOME": str(home), "HF_HOME": str(home), "HF_ENDPOINT": address}
    environment |= {"HF_TOKEN": token, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **variables}
    command = [sys.executable, "-c", UPLOAD, name, str(folder)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def copy_s(file: Path, copy: Path) -> float:
    """Seconds for `sha256sum` and `cp`."""
    start = time.perf_counter()
    subprocess.run(["sha256sum", str(file)], check=True, capture_output=True)
    subprocess.run(["cp", str(file), str(copy)], check=True)
    return time.perf_counter() - start


def through_front_s(folder: Path, weights: Path) -> float:
    """Seconds to fetch the file from nginx before the site, which sends the bytes itself (X-Accel).

    Fails if the site's process read the file, or if the real client gets other bytes.
    """
    with site(folder, X_ACCEL_REDIRECT_PREFIX="/blobs/") as (behind, _):
        what = (
            f"location / {{ proxy_pass {behind}; proxy_set_header Host $http_host; }} "
            f"location /blobs/ {{ internal; alias {folder}/site/blobs/; etag off; "
            "add_header ETag $upstream_http_etag; add_header X-Repo-Commit $upstream_http_x_repo_commit; }"
        )
        with nginx(folder, what, "/api/health") as address:
            before = bytes_read_by_web(behind)
            found = fetch_s(f"{address}/demo/lfs/resolve/main/{weights.name}")
            carried = bytes_read_by_web(behind) - before
            if carried > MIB:
                raise SystemExit(f"The web process read {carried:,} bytes while nginx sent the file.")
            environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(folder / "c")}
            done = subprocess.run(
                [sys.executable, "-c", DOWNLOAD, "demo/lfs", weights.name],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            with weights.open("rb") as file:
                sent = hashlib.file_digest(file, "sha256").hexdigest()
            if done.stdout.split()[-1] != sent:
                raise SystemExit("The client got other bytes through nginx.")
    return found


def bytes_read_by_web(address: str) -> int:
    """What the processes that were told to listen at an address have read so far, in bytes (Linux)."""
    listening = f"127.0.0.1:{address.rpartition(':')[2]}".encode()
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if listening in (folder / "cmdline").read_bytes().split(b"\0"):
                total += int((folder / "io").read_text().split()[1])  # rchar
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return total


def measure(mib: int) -> dict[str, float]:
    """Seconds of each way, and the ratios that the issue asks for; more than 0.5 is good."""
    found: dict[str, float] = {"mib": mib}
    with tempfile.TemporaryDirectory(prefix="transfer-") as name:
        folder = Path(name)
        weights = make_adapter(folder / "adapter", mib)
        found["sha256sum_and_cp_s"] = min(copy_s(weights, folder / "copy") for _ in range(2))
        (folder / "copy").unlink()
        with site(folder) as (address, token):
            off = {"HF_HUB_DISABLE_XET": "1"}
            found["upload_lfs_s"] = send_s("lfs", weights.parent, folder / "a", address, token, **off)
            found["upload_xet_s"] = send_s("xet", weights.parent, folder / "b", address, token)
            found["download_s"] = fetch_s(f"{address}/demo/lfs/resolve/main/{weights.name}")
        for way in ("lfs", "xet"):
            found[f"upload_{way}_ratio"] = found["sha256sum_and_cp_s"] / found[f"upload_{way}_s"]
        if shutil.which("nginx"):
            with nginx(folder, f"root {weights.parent};", "/adapter_config.json") as address:
                found["nginx_download_s"] = fetch_s(f"{address}/{weights.name}")
            found["download_ratio"] = found["nginx_download_s"] / found["download_s"]
            found["front_download_s"] = through_front_s(folder, weights)
            found["front_download_ratio"] = found["nginx_download_s"] / found["front_download_s"]
    return {key: round(value, 3) for key, value in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    print(json.dumps(measure(parser.parse_args().mib), indent=1))
