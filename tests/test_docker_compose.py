"""docker-compose.yml without a Docker engine: its structure, and every command of ours in it run outside Docker."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from celery import Celery

from tests import postgres
from tests.conftest import ROOT, clean_environment, free_port, wait_for
from tests.environment import missing

SERVICE_KEYS = {
    *("build", "image", "restart", "init", "volumes", "environment", "depends_on", "command", "ports"),
    *("healthcheck", "stop_grace_period", "deploy", "configs", "env_file", "logging"),
}
OURS = ["setup", "web", "worker", "chores", "beat"]


class _Loader(yaml.SafeLoader):
    """Safe YAML with Compose's own tag."""


_Loader.add_constructor("!reset", lambda loader, node: None)


def load(name: str) -> dict[str, Any]:
    return yaml.load((ROOT / name).read_text(), Loader=_Loader)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load("docker-compose.yml")


def variables(text: str) -> set[str]:
    return set(re.findall(r"\$\{(\w+)", text))


def test_every_key_is_one_of_composes(compose):
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "configs", "volumes"}
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        assert "image" in service, name


def test_services_wait_only_for_services_that_can_become_what_they_wait_for(compose):
    services = compose["services"]
    for service in services.values():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in services[other]
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert services[other]["restart"] == "on-failure"


def test_volumes_and_configs_that_are_used_are_declared_and_the_other_way_round(compose):
    used = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if ":" in volume
    }
    assert used == set(compose["volumes"])
    configs = {
        each["source"] for service in compose["services"].values() for each in service.get("configs", [])
    }
    assert configs == set(compose["configs"])


def test_the_example_environment_names_exactly_what_the_file_asks_for():
    named = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert named == variables((ROOT / "docker-compose.yml").read_text())


def test_everything_we_pass_on_is_something_the_settings_read(compose):
    settings = (ROOT / "config" / "settings.py").read_text()
    of_libraries = {"HF_TOKEN", "HF_HOME", "OMP_WAIT_POLICY"}
    for name in OURS:
        for variable in set(compose["services"][name]["environment"]) - of_libraries:
            assert f'"{variable}"' in settings, variable


def test_the_file_with_the_secrets_goes_neither_into_the_repository_nor_into_the_image():
    for name in (".gitignore", ".dockerignore"):
        assert ".env" in (ROOT / name).read_text().split(), name


def test_every_other_variable_in_the_environment_file_reaches_our_containers(compose):
    for name in OURS:
        assert compose["services"][name]["env_file"] == [{"path": ".env", "required": False}], name


def test_no_log_grows_for_ever(compose):
    for name, service in compose["services"].items():
        assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}, name


def test_a_worker_has_a_gpu_and_the_override_takes_it_away(compose):
    (device,) = compose["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert load("docker-compose.cpu.yml") == {"services": {"worker": {"deploy": None}}}


def test_the_image_runs_as_nobody_special_and_copies_only_what_exists():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER lora" in lines
    for line in lines:
        if line.startswith("COPY "):
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources)


def test_the_image_by_itself_is_the_web_process_as_the_file_starts_it(compose):
    (command,) = re.findall(r"^CMD (\[.+\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert json.loads(command) == compose["services"]["web"]["command"]


def test_docker_compose_itself_accepts_the_file(tmp_path):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("There is no docker compose here; the tests above check the structure by hand.")
    environment = {name: "x" for name in variables((ROOT / "docker-compose.yml").read_text())}
    for files in (["docker-compose.yml"], ["docker-compose.yml", "docker-compose.cpu.yml"]):
        command = [docker, "compose", *(word for file in files for word in ("-f", file)), "config", "-q"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment, "LISTEN": "127.0.0.1:8000"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


# --- The commands, outside Docker ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def production(
    redis_url: str, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of the containers, with a real Postgres, a real broker and an S3-speaking server behind it."""
    folder = tmp_path_factory.mktemp("production")
    server = postgres.find_or_start(folder / "postgres")
    if server is None:
        missing("There is no Postgres.")
    database = f"lora_{secrets.token_hex(4)}"
    url = server.url.rsplit("/", 1)[0]
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
        try:
            yield {
                **clean_environment(),
                "LORA_DATA_DIR": str(folder / "data"),
                "STATIC_ROOT": str(folder / "static"),
                "SECRET_KEY": secrets.token_urlsafe(50),
                "DATABASE_URL": f"{url}/{database}",
                "REDIS_URL": redis_url,
                "S3_BUCKET": "lora-commons",
                "S3_ENDPOINT_URL": s3_endpoint,
                "S3_REGION": "us-east-1",
                "S3_ACCESS_KEY_ID": "test",
                "S3_SECRET_ACCESS_KEY": "test",
                "ALLOWED_HOSTS": "localhost,127.0.0.1",
                "HTTPS": "true",
                "CSRF_TRUSTED_ORIGINS": "https://lora.example",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
            server.stop()


def outside_docker(command: list[str], port: int) -> list[str]:
    program, *arguments = [word.replace("0.0.0.0:8000", f"127.0.0.1:{port}") for word in command]
    as_module = [] if program == "python" else ["-m", program]
    return [sys.executable, *as_module, *arguments]


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()


@pytest.mark.slow
@pytest.mark.services
def test_every_command_of_ours_runs_on_postgres_redis_and_s3(compose, production, tmp_path):
    commands = {name: compose["services"][name]["command"] for name in OURS}
    port = free_port()
    check = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env=production,
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stderr
    for _ in range(2):  # it runs at each start
        done = subprocess.run(
            outside_docker(commands["setup"], port), cwd=ROOT, env=production, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    logs = {name: tmp_path / name for name in OURS[1:]}
    processes = []
    # The nodes must not share a name, as they do not in containers.
    production["STATIC_ROOT"] = str(_collected(tmp_path, production))
    try:
        for name, log in logs.items():
            command = outside_docker(commands[name], port)
            if "worker" in command:
                command += ["-n", f"{name}@test"]
            if name == "beat":
                command += ["-s", str(tmp_path / "schedule")]
            with log.open("wb") as file:
                processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=production, stdout=file, stderr=file)
                )
        wait_for(lambda: _is_healthy(port), seconds=60, what="The health check of the web container")
        wait_for(lambda: b"ready." in logs["worker"].read_bytes(), seconds=60, what="The start of the worker")
        wait_for(lambda: _sweeps(production) > 0, seconds=60, what="A sweep")
    except BaseException:
        for name, log in logs.items():
            print(f"--- {name}\n{log.read_text()[-3000:]}" if log.exists() else name)
        raise
    finally:
        for process in processes:
            stop(process)


def _collected(folder: Path, environment: dict[str, str]) -> Path:
    """Static files as the image has them, but uncompressed: that takes most of a minute."""
    target = folder / "static"
    quick = {**environment, "STATIC_ROOT": str(target), "DATABASE_URL": ""}
    command = [sys.executable, "manage.py", "collectstatic", "--noinput", "-v", "0"]
    subprocess.run(command, cwd=ROOT, env=quick, check=True)
    return target


def _sweeps(environment: dict[str, str]) -> int:
    """How often the chores worker has swept, as it says itself."""
    with Celery(broker=environment["REDIS_URL"], set_as_current=False) as asking:
        told = asking.control.inspect(["chores@test"]).stats() or {}
    return sum(one["total"].get("compose.tasks.sweep_compositions", 0) for one in told.values())


def _is_healthy(port: int) -> bool:
    """As the health check in the file asks: behind a proxy that speaks https."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/health", headers={"X-Forwarded-Proto": "https"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
