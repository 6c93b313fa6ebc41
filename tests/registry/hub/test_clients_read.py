"""The unmodified clients read from us, each in a process with a fresh home."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import StreamingHttpResponse

from registry import downloads
from registry.models import Adapter, Ref
from registry.publishing import publish
from tests.conftest import clean_environment
from tests.factories import DEMO, host_demo_base, make_adapter, make_token, make_user, namespace_of
from tests.fake_adapters import files_of
from tests.registry.hub.clients import run

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def publish_demo_module(name: str = "who-plain") -> Adapter:
    """A module of the demo collection, on its base, both served here."""
    collection = json.loads((DEMO / "collection.json").read_text())
    host_demo_base("demo/story-t5")
    entry = next(entry for entry in collection["modules"] if entry["path"].endswith(f"plain-tools/{name}"))
    owner = make_user("plain-tools")
    return publish(
        author=owner,
        namespace=namespace_of(owner),
        name=name,
        files=files_of(DEMO / entry["path"]),
        base_model="demo/story-t5",
    )


def test_huggingface_hub_downloads_lists_and_asks(live_server: Any, tmp_path: Path):
    adapter = publish_demo_module()
    assert adapter.head is not None
    Ref.objects.create(adapter=adapter, kind="branch", name="feature/x", revision=adapter.head)
    said = run(
        """
        import pathlib
        ID = "plain-tools/who-plain"
        config = hub.hf_hub_download(ID, "adapter_config.json")
        on_branch = hub.hf_hub_download(ID, "adapter_config.json", revision="feature/x")
        folder = hub.snapshot_download(ID)
        info = api.model_info(ID, files_metadata=True)
        weights = next(file for file in info.siblings if file.rfilename.endswith(".safetensors"))
        say(
            config=json.load(open(config))["peft_type"], same=os.path.realpath(config) == os.path.realpath(on_branch),
            commit=pathlib.Path(config).parent.name, files=sorted(os.listdir(folder)),
            sha=info.sha, tags=info.tags, size=weights.size, sha256=weights.lfs.sha256,
            listed=[found.id for found in api.list_models(search="WHO", filter="lora", limit=5)],
            paged=len(list(api.list_models(author="plain-tools", limit=1))),
            exists=[api.repo_exists(ID), api.file_exists(ID, "README.md"), api.file_exists(ID, "no.txt"),
                    api.revision_exists(ID, "feature/x"), api.revision_exists(ID, "v9"), api.repo_exists("a/b"),
                    api.repo_exists("gpt2")],
            tree=[entry.path for entry in api.list_repo_tree(ID, recursive=True)],
            paths=[entry.path for entry in api.get_paths_info(ID, ["README.md", "none"])],
            refs=[ref.name for ref in api.list_repo_refs(ID).branches],
            commits=[found.commit_id for found in api.list_repo_commits(ID)],
            card=hub.ModelCard.load(ID).data.to_dict().get("library_name"),
            bad_file=error_of(lambda: hub.hf_hub_download(ID, "no.txt")),
            bad_revision=error_of(lambda: hub.hf_hub_download(ID, "README.md", revision="v9")),
            bad_repository=error_of(lambda: hub.snapshot_download("plain-tools/none")),
        )
        """,
        live_server.url,
        tmp_path / "home",
    )
    commit = adapter.head.commit
    assert said["config"] == "LORA"
    assert said["same"]
    assert said["commit"] == said["sha"] == commit
    assert said["commits"] == [commit]
    assert said["files"] == sorted(said["tree"])
    assert said["sha256"] == adapter.head.files.get(is_lfs=True).blob.sha256
    assert "base_model:adapter:demo/story-t5" in said["tags"]
    assert said["listed"] == ["plain-tools/who-plain"]
    assert said["paged"] == 1
    assert said["exists"] == [True, True, False, True, False, False, False]
    assert said["paths"] == ["README.md"]
    assert said["refs"] == ["feature/x", "main"]
    assert said["card"] == "peft"
    assert said["bad_file"] == "RemoteEntryNotFoundError"
    assert said["bad_revision"] == "RevisionNotFoundError"
    assert said["bad_repository"] == "RepositoryNotFoundError"
    adapter.refresh_from_db()
    assert adapter.downloads == 1


def test_a_download_that_is_cut_goes_on_where_it_stopped(
    live_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = bytes(range(256)) * (25 * 2**20 // 256)
    make_adapter("large", owner=make_user("ada"), files={"adapter_model.safetensors": content})
    ranges: list[str] = []
    whole = downloads.file_response

    def cut(request: Any, *args: Any, **options: Any) -> Any:
        answer = whole(request, *args, **options)
        if request.method == "GET":
            ranges.append(request.headers.get("Range", ""))
            if len(ranges) == 1:
                answer.close()
                length = answer["Content-Length"]
                answer = StreamingHttpResponse(_broken(content), headers={"ETag": answer["ETag"]})
                answer["Content-Length"] = length
        return answer

    monkeypatch.setattr(downloads, "file_response", cut)
    said = run(
        """
        import hashlib
        path = hub.hf_hub_download("ada/large", "adapter_model.safetensors")
        say(sha256=hashlib.sha256(open(path, "rb").read()).hexdigest())
        """,
        live_server.url,
        tmp_path / "home",
    )
    assert said["sha256"] == hashlib.sha256(content).hexdigest()
    assert ranges == ["", "bytes=10485760-"]


def _broken(content: bytes) -> Iterator[bytes]:
    yield content[: 12 * 2**20]
    raise ConnectionAbortedError("cut by the test")


def test_private_repositories_and_bad_tokens_raise_the_clients_own_errors(live_server: Any, tmp_path: Path):
    owner = make_user("ada")
    make_adapter("secret", owner=owner, visibility="private", files={"README.md": b"# Secret"})
    code = """
        say(
            info=error_of(lambda: api.model_info("ada/secret")),
            file=error_of(lambda: hub.hf_hub_download("ada/secret", "README.md")),
            who=message_of(lambda: say(name=api.whoami()["name"])),
            listed=message_of(lambda: list(api.list_models())),
        )
        """
    by_owner = run(code, live_server.url, tmp_path / "owner", token=make_token(owner, "read"))
    by_other = run(code, live_server.url, tmp_path / "other", token=make_token(make_user("eve")))
    by_guest = run(code, live_server.url, tmp_path / "guest")
    by_nobody = run(code, live_server.url, tmp_path / "nobody", token="hf_unknown")
    assert (by_owner["info"], by_owner["file"], by_owner["name"]) == ("", "", "ada")
    for said in (by_other, by_guest):
        assert (said["info"], said["file"]) == ("RepositoryNotFoundError", "RepositoryNotFoundError")
    assert by_nobody["info"] == "HfHubHTTPError"
    assert by_nobody["listed"].startswith("401 ")
    assert "Invalid" in by_nobody["who"]


def test_peft_loads_adapter_and_base_from_us_with_equal_logits(live_server: Any, tmp_path: Path):
    publish_demo_module()
    said = run(
        f"""
        import torch
        from peft import AutoPeftModelForSeq2SeqLM, PeftModel
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
        remote = AutoPeftModelForSeq2SeqLM.from_pretrained("plain-tools/who-plain").eval()
        base = AutoModelForSeq2SeqLM.from_pretrained({str(DEMO / "story-t5")!r})
        local = PeftModel.from_pretrained(base, {str(next(DEMO.glob("modules/plain-tools/who-plain")))!r}).eval()
        tokens = AutoTokenizer.from_pretrained("demo/story-t5")("anna put two red books in the park .", return_tensors="pt")
        ask = dict(**tokens, decoder_input_ids=torch.zeros((1, 1), dtype=torch.long))
        with torch.no_grad():
            found, wanted = remote(**ask).logits, local(**ask).logits
            with local.disable_adapter():
                plain = local(**ask).logits
        say(equal=torch.equal(found, wanted), does_something=not torch.equal(wanted, plain))
        say(unknown=error_of(lambda: AutoModelForSeq2SeqLM.from_pretrained("google/flan-t5-small")))
        """,
        live_server.url,
        tmp_path / "home",
    )
    assert said["equal"]
    assert said["does_something"]
    assert said["unknown"] == "OSError"


@pytest.mark.services
def test_the_client_follows_to_the_object_store_where_downloads_go_there(
    live_server: Any, tmp_path: Path, s3_storage: str, settings: Any
):
    settings.S3_SIGNED_DOWNLOADS = True
    owner = make_user("ada")
    make_adapter(
        "m", owner=owner, visibility="private", files={"adapter_model.safetensors": bytes(3 * 2**20)}
    )
    said = run(
        """
        path = hub.hf_hub_download("ada/m", "adapter_model.safetensors")
        say(size=os.path.getsize(path), folder=hub.snapshot_download("ada/m"))
        """,
        live_server.url,
        tmp_path / "home",
        token=make_token(owner, "read"),
    )
    assert said["size"] == 3 * 2**20


@pytest.mark.parametrize("name", ["ada/m", "ada/m.git"])
def test_git_shows_what_fetches_the_files(live_server: Any, tmp_path: Path, name: str):
    make_adapter("m", owner=make_user("ada"))
    variables = {**clean_environment(), "GIT_TERMINAL_PROMPT": "0", "HOME": str(tmp_path), "LC_ALL": "C"}
    command = ["git", "clone", f"{live_server.url}/{name}", str(tmp_path / "clone")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode
    assert "remote: ada/m is no git repository. `hf download` fetches its files" in done.stderr
