"""The `hf` command line against us, with nothing set but our address and a token: the way most people meet us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.models import Adapter, User
from tests.factories import make_adapter as make_row
from tests.factories import make_base_model, make_token, make_user
from tests.fake_adapters import make_adapter
from tests.registry.hub.clients import hf

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def ada() -> User:
    make_base_model()
    return make_user("ada")


def test_log_in_upload_download_and_delete(live_server: Any, tmp_path: Path, ada: User):
    """In one home, as one person would."""
    site, home = live_server.url, tmp_path / "home"
    token = make_token(ada)
    folder = make_adapter(tmp_path / "adapter", card="---\nlicense: mit\n---\n# Says the colour\n")

    def run(*arguments: str) -> str:
        done = hf(*arguments, site=site, home=home)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("auth", "login", "--token", token)
    assert "ada" in run("auth", "whoami")
    assert f"{site}/ada/colour" in run("upload", "ada/colour", str(folder), "--commit-message", "By command")
    adapter = Adapter.objects.get(name="colour")
    assert (adapter.license, adapter.is_composable) == ("mit", True)
    assert adapter.head is not None
    assert adapter.head.message == "By command"
    run("upload", "ada/colour", str(folder / "README.md"), "docs/README.md")
    run("download", "ada/colour", "--local-dir", str(tmp_path / "back"))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    assert "ada/colour" in run("models", "ls", "--author", "ada", "--format", "json")
    assert "ada/colour" in run("repos", "ls", "--format", "json")
    run("repos", "tag", "create", "ada/colour", "v1")
    run("download", "ada/colour", "docs/README.md", "--revision", "v1")
    assert f"{site}/ada/twin" in run("repos", "duplicate", "ada/colour", "twin", "--private")
    twin = Adapter.objects.get(name="twin")
    assert (twin.license, twin.is_composable, twin.is_private) == ("mit", True, True)
    run("repos", "duplicate", "ada/colour", "twin", "--exist-ok")
    run("repos", "delete", "ada/colour", "--yes")
    adapter.refresh_from_db()
    assert adapter.deleted_at is not None


def test_what_is_refused_is_told_in_the_terminal_in_our_words(live_server: Any, tmp_path: Path, ada: User):
    site, home = live_server.url, tmp_path / "home"
    make_row("secret", owner=make_user("eve"), visibility="private")
    bad = make_adapter(tmp_path / "bad")
    (bad / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    many = make_adapter(tmp_path / "many")
    for number in range(100):
        (many / f"{number}.txt").write_text(f"{number}")
    token = make_token(ada)
    for arguments, why in (
        (("upload", "ada/many", str(many)), "There are 102 files; an adapter may have 100."),
        (("upload", "ada/bad", str(bad)), "PROMPT_TUNING"),
        (("upload", "eve/other", str(bad)), "You may not publish"),
        (("download", "eve/secret"), "not found"),
        (("download", "ada/none"), "not found"),
        (("repos", "duplicate", "eve/secret", "ada/twin"), "not found"),
        (("repos", "duplicate", "ada/bad", "eve/twin"), "You may not publish"),
    ):
        done = hf(*arguments, site=site, home=home, token=token)
        assert done.returncode != 0
        assert why in " ".join((done.stdout + done.stderr).split())
    done = hf("auth", "login", "--token", "hf_wrong", site=site, home=home)
    assert done.returncode != 0
