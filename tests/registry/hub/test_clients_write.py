"""The unmodified clients publish to us, each in a process with a fresh home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from registry.models import Adapter, Revision, SentBlob
from tests.factories import make_base_model, make_token, make_user
from tests.fake_adapters import fake_config, fake_tensors, make_adapter
from tests.registry.hub.clients import run

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
# Also the clients that do not use Xet for large files.
BY_LFS = {"HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def token() -> str:
    make_base_model()
    return make_token(make_user("ada"))


def wide_adapter(folder: Path, *, dtype: str = "float32", megabytes: int = 48) -> Path:
    """An adapter whose weight file is too large to come inside of a commit."""
    import numpy as np

    rank, targets = 512, ("q", "v")
    width = megabytes * 2**20 // (4 * rank * 4 * 2)
    matrices = {
        f"encoder.block.{n}.layer.0.SelfAttention.{t}": (width, width) for n in range(2) for t in targets
    }
    tensors = fake_tensors(matrices, rank=rank, targets=targets)
    folder.mkdir(parents=True)
    save_file(
        {name: value.astype(np.dtype(dtype)) for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    config = fake_config(rank=rank, targets=targets, base_model_name_or_path="some/wide-t5")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_repository_is_made_filled_changed_and_deleted(live_server: Any, tmp_path: Path, token: str):
    card = "---\nlicense: apache-2.0\ntags: [colour]\nlanguage: en\n---\n# Says the colour\n"
    folder = make_adapter(tmp_path / "adapter", card=card)
    (folder / "optimizer.pt").write_bytes(b"pickled")
    said = run(
        f"""
        ID = "ada/colour"
        url = api.create_repo(ID)
        again = api.create_repo(ID, exist_ok=True)
        say(url=str(url), again=str(again), repo_id=url.repo_id, taken=message_of(lambda: api.create_repo(ID)))
        say(empty=api.list_repo_files(ID), first=api.model_info(ID).sha, listed=[m.id for m in api.list_models(author="ada")])
        api.upload_file(path_or_fileobj=b"# To come", path_in_repo="README.md", repo_id=ID)
        say(draft=api.list_repo_files(ID))
        info = api.upload_folder(repo_id=ID, folder_path={str(folder)!r}, commit_message="All of it")
        say(files=api.list_repo_files(ID), oid=info.oid, commit_url=info.commit_url)
        found = api.model_info(ID)
        say(tags=found.tags, library=found.library_name, sha=found.sha)
        same = api.upload_folder(repo_id=ID, folder_path={str(folder)!r})
        say(same=same.oid)
        say(wrong=message_of(lambda: api.upload_file(path_or_fileobj=b'{{"peft_type": "LORA", "r": 64}}',
            path_in_repo="adapter_config.json", repo_id=ID)))
        say(bad_card=message_of(lambda: api.upload_file(path_or_fileobj=b"---\\na: [\\n---\\n", path_in_repo="README.md", repo_id=ID)))
        api.upload_file(path_or_fileobj=b"notes", path_in_repo="notes/a.txt", repo_id=ID)
        api.delete_file("notes/a.txt", ID)
        say(no_file=error_of(lambda: api.delete_file("notes/a.txt", ID)))
        commits = api.list_repo_commits(ID)
        say(titles=[c.title for c in commits])
        say(stale=message_of(lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=ID,
            parent_commit=commits[-1].commit_id)))
        api.update_repo_settings(ID, visibility="private")
        say(private=api.model_info(ID).private, gated=message_of(lambda: api.update_repo_settings(ID, gated="auto")))
        api.delete_repo(ID)
        say(gone=error_of(lambda: api.model_info(ID)), never_again=message_of(lambda: api.create_repo(ID, exist_ok=True)))
        api.delete_repo(ID, missing_ok=True)
        say(who=[message_of(lambda: api.create_repo("eve/x")), message_of(lambda: api.create_repo("ada/a--b"))])
        """,
        live_server.url,
        tmp_path / "home",
        token=token,
    )
    address = f"{live_server.url}/ada/colour"
    assert said["url"] == said["again"] == address
    assert said["repo_id"] == "ada/colour"
    assert said["taken"].startswith("409 ")
    assert said["empty"] == []
    assert said["listed"] == ["ada/colour"]
    assert said["draft"] == ["README.md"]
    assert said["files"] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert "optimizer.pt is not sent" in said["stderr"]
    assert said["commit_url"] == f"{address}/commit/{said['oid']}"
    assert said["sha"] == said["oid"] == said["same"]
    assert {"lora", "colour", "license:apache-2.0", "en", "base_model:adapter:demo/tiny-t5"} <= set(
        said["tags"]
    )
    assert said["library"] == "peft"
    assert said["wrong"].startswith("400 ")
    assert "lora_alpha" in said["wrong"]
    assert "front matter" in said["bad_card"]
    assert said["no_file"] == "RemoteEntryNotFoundError"
    assert said["titles"][-1] == "Create the repository"
    assert "All of it" in said["titles"]
    assert said["stale"].startswith("412 ")
    assert said["private"] is True
    assert "Nothing is gated here" in said["gated"]
    assert said["gone"] == "RepositoryNotFoundError"
    assert said["never_again"].startswith("400 ")
    assert "403" in said["who"][0]
    assert said["who"][1]


def test_branches_tags_moves_and_likes(live_server: Any, tmp_path: Path, token: str):
    folder = make_adapter(tmp_path / "adapter")
    said = run(
        f"""
        ID = "ada/colour"
        api.create_repo(ID)
        api.upload_folder(repo_id=ID, folder_path={str(folder)!r})
        main = api.model_info(ID).sha
        api.create_branch(ID, branch="feature/x")
        api.create_branch(ID, branch="feature/x", exist_ok=True)
        api.upload_file(path_or_fileobj=b"only here", path_in_repo="extra.txt", repo_id=ID, revision="feature/x")
        api.create_tag(ID, tag="v1")
        api.create_tag(ID, tag="v1", exist_ok=True)
        refs = api.list_repo_refs(ID)
        say(branches=[b.name for b in refs.branches], tags=[t.name for t in refs.tags],
            tagged=refs.tags[0].target_commit == main,
            on_branch=api.file_exists(ID, "extra.txt", revision="feature/x"), on_main=api.file_exists(ID, "extra.txt"),
            text=open(hub.hf_hub_download(ID, "extra.txt", revision="feature/x")).read(),
            no_tag_main=message_of(lambda: api.create_tag(ID, tag="main", exist_ok=True)),
            no_branch_v1=message_of(lambda: api.create_branch(ID, branch="v1", exist_ok=True)),
            main_stays=message_of(lambda: api.delete_branch(ID, branch="main")),
            to_tag=message_of(lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=ID, revision="v1")),
            to_none=error_of(lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=ID, revision="v2")))
        api.delete_branch(ID, branch="feature/x")
        api.delete_tag(ID, tag="v1")
        say(left=[b.name for b in api.list_repo_refs(ID).branches], no_tag=error_of(lambda: api.delete_tag(ID, tag="v1")))
        api.create_commit(ID, operations=[hub.CommitOperationCopy("adapter_config.json", "copies/config.json"),
            hub.CommitOperationDelete("adapter_model.safetensors")], commit_message="Copy and delete")
        say(copied=api.list_repo_files(ID))
        api.move_repo(ID, "ada/paint")
        say(moved=api.model_info(ID).id, new=api.model_info("ada/paint").id, old_file=open(hub.hf_hub_download(ID, "copies/config.json")).read()[:1],
            pushed=api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=ID).oid)
        say(likes=[api.unlike("ada/paint"), [x.username for x in api.list_repo_likers("ada/paint")], api.list_liked_repos("ada").models])
        """,
        live_server.url,
        tmp_path / "home",
        token=token,
    )
    assert said["branches"] == ["feature/x", "main"]
    assert said["tags"] == ["v1"]
    assert said["tagged"]
    assert (said["on_branch"], said["on_main"], said["text"]) == (True, False, "only here")
    assert "There is a branch 'main' already, and here no tag can have the same name" in said["no_tag_main"]
    assert "There is a tag 'v1' already, and here no branch can have the same name" in said["no_branch_v1"]
    assert "cannot be deleted" in said["main_stays"]
    assert "no branch" in said["to_tag"]
    assert said["to_none"] == "RevisionNotFoundError"
    assert said["left"] == ["main"]
    assert said["no_tag"] == "RevisionNotFoundError"
    assert said["copied"] == ["adapter_config.json", "copies/config.json"]
    assert said["moved"] == said["new"] == "ada/paint"
    assert said["old_file"] == "{"
    assert said["pushed"]
    assert said["likes"] == [None, [], []]


@pytest.mark.parametrize("variables", [{}, BY_LFS], ids=["xet", "lfs"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_large_file_arrives_whole_whatever_way_it_takes(
    live_server: Any,
    tmp_path: Path,
    token: str,
    variables: dict[str, str],
    dtype: str,
    caplog: pytest.LogCaptureFixture,
):
    folder = wide_adapter(tmp_path / "adapter", dtype=dtype, megabytes=48 if dtype == "float32" else 80)
    said = run(
        f"""
        import hashlib, pathlib
        ID = "ada/wide"
        api.create_repo(ID)
        api.upload_folder(repo_id=ID, folder_path={str(folder)!r})
        first = api.model_info(ID, files_metadata=True)
        again = api.upload_folder(repo_id=ID, folder_path={str(folder)!r})
        back = hub.hf_hub_download(ID, "adapter_model.safetensors")
        sent = pathlib.Path({str(folder)!r}) / "adapter_model.safetensors"
        weights = next(f for f in first.siblings if f.rfilename.endswith(".safetensors"))
        say(same=pathlib.Path(back).read_bytes() == sent.read_bytes(), oid=again.oid == first.sha, size=weights.size,
            sha256=weights.lfs.sha256 == hashlib.sha256(sent.read_bytes()).hexdigest())
        """,
        live_server.url,
        tmp_path / "home",
        token=token,
        **variables,
    )
    assert said["same"]
    assert said["oid"]
    assert said["sha256"]
    assert said["size"] > 32 * 2**20
    adapter = Adapter.objects.get(name="wide")
    assert adapter.rank == 512
    assert adapter.head.files.get(is_lfs=True).blob.size_bytes == said["size"]
    assert SentBlob.objects.exists()
    assert ("through Xet" in caplog.text) == (not variables)


def test_peft_pushes_and_pulls_with_equal_logits(live_server: Any, tmp_path: Path):
    from tests.registry.hub.test_clients_read import DEMO, publish_demo_module

    publish_demo_module()
    token = make_token(make_user("ada"))
    said = run(
        f"""
        import torch
        from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForSeq2SeqLM
        base = AutoModelForSeq2SeqLM.from_pretrained({str(DEMO / "story-t5")!r})
        base.name_or_path = "demo/story-t5"
        model = get_peft_model(base, LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q", "v"],
            base_model_name_or_path="demo/story-t5")).eval()
        torch.manual_seed(1)
        for name, value in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(value, std=0.2)
        model.push_to_hub("ada/pushed")
        pulled = AutoPeftModelForSeq2SeqLM.from_pretrained("ada/pushed").eval()
        ask = dict(input_ids=torch.arange(3, 12).unsqueeze(0), decoder_input_ids=torch.zeros((1, 1), dtype=torch.long))
        with torch.no_grad():
            say(equal=torch.equal(model(**ask).logits, pulled(**ask).logits))
        model.push_to_hub("ada/pushed", commit_message="Once more")
        by_transformers = AutoModelForSeq2SeqLM.from_pretrained("ada/pushed").eval()
        with torch.no_grad():
            say(by_transformers=torch.equal(model(**ask).logits, by_transformers(**ask).logits))
        say(files=api.list_repo_files("ada/pushed"))
        """,
        live_server.url,
        tmp_path / "home",
        token=token,
    )
    assert said["equal"]
    assert said["by_transformers"]
    assert said["files"] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    adapter = Adapter.objects.get(name="pushed")
    assert adapter.is_composable
    assert adapter.base_model.name == "demo/story-t5"


def test_parallel_commits_lose_nothing(live_server: Any, tmp_path: Path, token: str):
    folder = make_adapter(tmp_path / "adapter")
    said = run(
        f"""
        from concurrent.futures import ThreadPoolExecutor
        ID = "ada/busy"
        api.create_repo(ID)
        api.upload_folder(repo_id=ID, folder_path={str(folder)!r})
        def send(number):
            return api.upload_file(path_or_fileobj=b"%d" % number, path_in_repo=f"notes/{{number}}.txt", repo_id=ID).oid
        with ThreadPoolExecutor(6) as pool:
            oids = list(pool.map(send, range(12)))
        say(oids=len(set(oids)), files=[f for f in api.list_repo_files(ID) if f.startswith("notes/")],
            commits=len(list(api.list_repo_commits(ID))))
        """,
        live_server.url,
        tmp_path / "home",
        token=token,
    )
    assert said["oids"] == 12
    assert len(said["files"]) == 12
    assert said["commits"] == 14
    parents = [revision.parent_id for revision in Revision.objects.filter(adapter__name="busy")]
    assert len(set(parents)) == len(parents)


def test_tokens_that_may_not_write_are_told_so_before_any_byte_is_sent(
    live_server: Any, tmp_path: Path, token: str
):
    reader = make_token(make_user("eve"), "read")
    writer = make_token(make_user("mallory"))
    run('api.create_repo("ada/own")', live_server.url, tmp_path / "ada", token=token)
    code = """
        say(upload=message_of(lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="ada/own")),
            delete=message_of(lambda: api.delete_repo("ada/own")),
            create=message_of(lambda: api.create_repo("mine")))
        """
    by_reader = run(code, live_server.url, tmp_path / "eve", token=reader)
    by_writer = run(code, live_server.url, tmp_path / "mallory", token=writer)
    assert "This token may only read" in by_reader["create"]
    assert by_reader["upload"].startswith("403 ")
    assert "You may not publish" in by_writer["upload"]
    assert by_writer["delete"].startswith("403 ")
    assert by_writer["create"] == ""


def test_an_upload_of_many_files_that_is_refused_leaves_none_and_the_next_one_is_kept(
    live_server: Any, tmp_path: Path, token: str
):
    folder = make_adapter(tmp_path / "adapter", rank=8)
    config = folder / "adapter_config.json"
    right = config.read_text()
    config.write_text(right.replace('"r": 8', '"r": 4'))
    for number in range(30):
        (folder / f"Notes-{number:02}.txt").write_text(f"Note {number}")
    said = run(
        f"""
        import pathlib
        ID, folder = "ada/many", pathlib.Path({str(folder)!r})
        api.create_repo(ID)
        say(refused=message_of(lambda: api.upload_folder(repo_id=ID, folder_path=folder)))
        say(left=api.list_repo_files(ID), commits=len(api.list_repo_commits(ID)))
        api.upload_folder(repo_id=ID, folder_path=folder, ignore_patterns="adapter_*")
        say(notes=len(api.list_repo_files(ID)))
        (folder / "adapter_config.json").write_text({right!r})
        api.upload_folder(repo_id=ID, folder_path=folder)
        say(files=len(api.list_repo_files(ID)), is_whole=api.file_exists(ID, "adapter_model.safetensors"))
        """,
        live_server.url,
        tmp_path / "home",
        token=token,
    )
    assert said["refused"].startswith("400 ")
    assert "Nothing of this upload was kept." in said["refused"]
    assert (said["left"], said["commits"]) == ([], 1)
    assert said["notes"] == 30
    assert (said["files"], said["is_whole"]) == (32, True)


def test_every_file_that_is_left_out_is_told(live_server: Any, tmp_path: Path, token: str):
    folder = make_adapter(tmp_path / "adapter")
    (folder / "optimizer.pt").write_bytes(b"pickled")
    said = run(
        f"""
        import pathlib
        ID, folder = "ada/told", pathlib.Path({str(folder)!r})
        api.create_repo(ID)
        api.upload_folder(repo_id=ID, folder_path=folder)
        (folder / "scheduler.pt").write_bytes(b"pickled")
        (folder / "notes.txt").write_bytes(b"notes")
        api.upload_folder(repo_id=ID, folder_path=folder)
        only = hub.CommitOperationAdd("rng_state.pth", b"pickled")
        api.create_commit(ID, [only], commit_message="Add")
        say(files=sorted(api.list_repo_files(ID)))
        """,
        live_server.url,
        tmp_path / "home",
        token=token,
    )
    assert said["stderr"].count("optimizer.pt is not sent.") == 2
    assert said["stderr"].count("scheduler.pt is not sent.") == 1
    assert said["stderr"].count("rng_state.pth is not sent.") == 1
    assert not [name for name in said["files"] if name.endswith((".pt", ".pth"))]
