"""A client of before Xet: huggingface_hub 0.36, in an environment that is made for these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dev import uv_settings
from registry.models import Adapter
from tests.environment import missing
from tests.factories import make_base_model, make_token, make_user
from tests.fake_adapters import make_adapter
from tests.registry.hub.clients import run
from tests.registry.hub.test_clients_write import wide_adapter

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
VERSION = "0.36.0"


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the old client."""
    folder = tmp_path_factory.mktemp("old-client") / "venv"
    python = folder / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    wanted = f"huggingface_hub=={VERSION}"
    if uv.exists():
        make: list[list[str | Path]] = [[uv, "venv", "-q", folder, "--python", sys.executable]]
        make += [[uv, "pip", "install", "-q", "--python", python, wanted]]
    else:
        make = [[sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", "-q", wanted]]
    for command in make:
        done = subprocess.run(command, env={**os.environ, **uv_settings()}, capture_output=True, text=True)
        if done.returncode:
            missing(f"The old client could not be installed: {done.stderr[-300:]}")
    return str(python)


def test_the_old_client_publishes_reads_and_deletes(live_server: Any, tmp_path: Path, old_python: str):
    make_base_model()
    token = make_token(make_user("ada"))
    small = make_adapter(tmp_path / "small", card="---\nlicense: mit\n---\n# Small\n")
    large = wide_adapter(tmp_path / "large", megabytes=36)
    said = run(
        f"""
        import hashlib, pathlib
        say(version=hub.__version__, who=api.whoami()["name"])
        ID = "ada/small"
        api.create_repo(ID)
        api.create_repo(ID, exist_ok=True)
        api.upload_folder(repo_id=ID, folder_path={str(small)!r})
        api.upload_file(path_or_fileobj=b"notes", path_in_repo="notes.txt", repo_id=ID)
        api.create_tag(ID, tag="v1")
        api.create_branch(ID, branch="try/out")
        folder = hub.snapshot_download(ID, revision="try/out")
        say(files=sorted(os.listdir(folder)), info=api.model_info(ID).cardData.license,
            listed=[m.id for m in api.list_models(author="ada", sort="downloads", direction=-1)],
            refs=[b.name for b in api.list_repo_refs(ID).branches],
            no_file=error_of(lambda: hub.hf_hub_download(ID, "none.txt")),
            no_revision=error_of(lambda: hub.hf_hub_download(ID, "notes.txt", revision="v9")),
            no_repository=error_of(lambda: api.model_info("ada/none")))
        api.create_repo("ada/large", private=True)
        api.upload_folder(repo_id="ada/large", folder_path={str(large)!r})
        back = hub.hf_hub_download("ada/large", "adapter_model.safetensors")
        sent = pathlib.Path({str(large)!r}) / "adapter_model.safetensors"
        say(same=pathlib.Path(back).read_bytes() == sent.read_bytes())
        api.delete_file("notes.txt", ID)
        api.update_repo_settings(ID, private=True)
        say(private=api.model_info(ID).private)
        api.move_repo("ada/large", "ada/larger")
        say(by_old_name=pathlib.Path(hub.hf_hub_download("ada/large", "adapter_config.json")).exists(),
            existing=api.create_repo("ada/large", exist_ok=True).repo_id,
            not_deleted=message_of(lambda: api.delete_repo("ada/large")))
        api.delete_repo(ID)
        say(gone=api.repo_exists(ID))
        """,
        live_server.url,
        tmp_path / "home",
        token=token,
        python=old_python,
    )
    assert (said["version"], said["who"]) == (VERSION, "ada")
    assert said["files"] == ["README.md", "adapter_config.json", "adapter_model.safetensors", "notes.txt"]
    assert (said["info"], said["listed"], said["refs"]) == ("mit", ["ada/small"], ["main", "try/out"])
    assert said["no_file"] in ("EntryNotFoundError", "RemoteEntryNotFoundError")
    assert (said["no_revision"], said["no_repository"]) == (
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
    )
    assert said["same"]
    assert (said["private"], said["gone"]) == (True, False)
    assert (said["by_old_name"], said["existing"]) == (True, "ada/larger")
    assert "ada/large is called ada/larger now" in said["not_deleted"]
    large_one = Adapter.objects.get(name="larger")
    assert large_one.is_private
    assert large_one.rank == 512
