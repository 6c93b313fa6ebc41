"""Large files through the real clients and a real gunicorn: the web process must not grow with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry.hub.clients import run
from tests.registry.test_upload_memory import LIMIT_MIB, SIZE_MIB, Web, large_adapter, web

pytestmark = [pytest.mark.slow]
__all__ = ["web"]  # the fixture


@pytest.mark.parametrize("variables", [{}, {"HF_HUB_DISABLE_XET": "1"}], ids=["xet", "lfs"])
def test_neither_direction_grows_the_web_process(web: Web, tmp_path: Path, variables: dict[str, str]):
    folder = tmp_path / "adapter"
    folder.mkdir()
    large_adapter(folder, SIZE_MIB)
    site = f"http://127.0.0.1:{web.port}"
    # Everything that is loaded once is loaded by a small commit.
    small = 'api.create_repo("large"); api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=api.whoami()["name"] + "/large")'
    run(small, site, tmp_path / "home", token=web.token, **variables)
    web.forget_peak()
    idle = web.memory_mib()
    said = run(
        f"""
        import pathlib
        ID = api.whoami()["name"] + "/large"
        api.upload_folder(repo_id=ID, folder_path={str(folder)!r})
        back = pathlib.Path(hub.hf_hub_download(ID, "adapter_model.safetensors"))
        say(size=back.stat().st_size)
        """,
        site,
        tmp_path / "home",
        token=web.token,
        **variables,
    )
    grown = web.memory_mib("VmHWM") - idle
    assert said["size"] == (folder / "adapter_model.safetensors").stat().st_size
    assert grown < LIMIT_MIB, f"grew by {grown:.0f} MiB"


def test_files_inside_of_a_commit_do_not_either(web: Web, tmp_path: Path):
    site = f"http://127.0.0.1:{web.port}"
    name = 'api.whoami()["name"] + "/large"'
    small = f'api.create_repo("large"); api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id={name})'
    run(small, site, tmp_path / "home", token=web.token)
    web.forget_peak()
    idle = web.memory_mib()
    # Three of 31 MiB, each below the size from which a client takes another way, under names that are left out for no
    # size. That they are no adapter shows when they are here.
    large = f"""
        names = ["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"]
        files = [hub.CommitOperationAdd(path, b"x" * (31 * 2**20)) for path in names]
        say(refused=message_of(lambda: api.create_commit({name}, files, commit_message="Large files")))
        """
    said = run(large, site, tmp_path / "home", token=web.token)
    assert "adapter_config.json is 32,505,856 bytes long" in said["refused"]
    grown = web.memory_mib("VmHWM") - idle
    assert grown < LIMIT_MIB, f"grew by {grown:.0f} MiB"
