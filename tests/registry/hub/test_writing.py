"""The publish path of the Hub protocol, answer by answer, and what strangers and odd requests get."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from registry import commits, likes, refs
from registry.hub import ndjson, refused
from registry.hub.repositories import git_sha1
from registry.models import Adapter, Blob, Revision, SentBlob
from registry.storage import store_stream
from registry.sweeping import sweep_storage
from tests.beside import after
from tests.factories import make_adapter, make_base_model, make_organisation, make_token, make_user

pytestmark = pytest.mark.django_db
API = "/api/models/ada/m"


@pytest.fixture
def token(ada: Any) -> str:
    return make_token(ada)


@pytest.fixture
def adapter(ada: Any) -> Adapter:
    return make_adapter("m", owner=ada, files={"README.md": b"# M"}, rank=None)


def send(method: str, path: str, body: Any = None, *, token: str = "", **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {})
    kind = options.pop("content_type", "application/json")
    return Client().generic(method.upper(), path, data, content_type=kind, headers=headers, **options)


def line(key: str, **value: Any) -> str:
    return json.dumps({"key": key, "value": value})


def file_line(path: str, content: bytes) -> str:
    return line("file", path=path, content=base64.b64encode(content).decode(), encoding="base64")


def commit(token: str, *lines: str, branch: str = "main", header: bool = True, **said: str) -> Any:
    all_lines = [line("header", **{"summary": "Change", "description": "", **said})] if header else []
    body = "\n".join([*all_lines, *lines]).encode()
    return send("post", f"{API}/commit/{branch}", body, token=token, content_type="application/x-ndjson")


def test_a_commit_answers_with_its_id_and_a_page(adapter: Adapter, token: str):
    answer = commit(token, file_line("a.txt", b"hello"), file_line("b.txt", b""))
    found = answer.json()
    assert found["success"] is True
    assert found["commitUrl"] == f"http://testserver/ada/m/commit/{found['commitOid']}"
    assert Client().get("/ada/m/resolve/main/a.txt").getvalue() == b"hello"
    assert Client().get(found["commitUrl"])["Location"] == "/ada/m"


def test_a_file_inside_of_the_commit_may_be_large(adapter: Adapter, token: str):
    text = b"0123456789abcdef" * 40_000
    assert commit(token, file_line("a.txt", text)).status_code == 200
    assert Client().get("/ada/m/resolve/main/a.txt").getvalue() == text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["{no json"], "Line 2 of the commit is no JSON"),
        (["[1]"], "no JSON object"),
        ([line("what", path="x")], "unknown"),
        (['{"key": "file", "value": 3}'], "no object"),
        ([line("file", path="x.txt", content="***", encoding="base64")], "cannot be decoded"),
        ([line("file", path="x.txt", content="A" * 100_001, encoding="base64")], "cannot be decoded"),
        ([line("file", path="x.txt", content=5)], "neither base64"),
        ([line("file", content="")], "'path' is missing"),
        ([line("lfsFile", path="x.txt", algo="sha256", oid="a" * 64, size=1)], "You have sent no file"),
        ([line("lfsFile", path="x.txt", algo="sha256", oid="no hash", size=1)], "You have sent no file"),
        (['{"key": "file", "value": {"path": "x'], "ends inside of a text"),
        ([file_line("../x.txt", b"x")], "segment"),
        ([file_line("README.md", b"---\na: [\n---\n")], "front matter"),
    ],
)
def test_a_commit_that_cannot_be_kept_is_refused_whole(
    adapter: Adapter, token: str, lines: list[str], said: str
):
    blobs = Blob.objects.count()
    answer = commit(token, *lines)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert said in answer["X-Error-Message"]
    assert (Revision.objects.count(), Blob.objects.count()) == (1, blobs)


def test_a_commit_needs_a_header_a_branch_and_no_pull_request(adapter: Adapter, token: str):
    assert "header line" in commit(token, file_line("a.txt", b"x"), header=False).json()["error"]
    assert commit(token, file_line("a.txt", b"x"), branch="none")["X-Error-Code"] == "RevisionNotFound"
    head = adapter.head.commit
    assert "no branch" in commit(token, file_line("a.txt", b"x"), branch=head).json()["error"]
    answer = send("post", f"{API}/commit/main?create_pr=1", b"", token=token)
    assert answer.status_code == 400


def test_the_title_of_a_commit_is_the_first_line_of_its_message(adapter: Adapter, token: str):
    commit(token, file_line("a.txt", b"hello"), summary="Add a\n\nIt says hello.", description="And more.")
    newest = Client().get(f"{API}/commits/main").json()[0]
    assert (newest["title"], newest["message"]) == ("Add a", "It says hello.\n\nAnd more.")


def test_deleting_what_is_not_there_is_the_clients_entry_not_found(adapter: Adapter, token: str):
    for operation in (line("deletedFile", path="none.txt"), line("deletedFolder", path="none/")):
        answer = commit(token, operation)
        assert (answer.status_code, answer["X-Error-Code"]) == (404, "EntryNotFound")
        assert "doesn't exist" in answer.json()["error"]


def test_a_stale_parent_is_412_and_the_right_one_may_be_short(adapter: Adapter, token: str):
    head = adapter.head.commit
    assert commit(token, file_line("a.txt", b"1"), parentCommit=head[:7]).status_code == 200
    assert commit(token, file_line("a.txt", b"2"), parentCommit=head).status_code == 412


def test_a_commit_sent_twice_is_made_once(adapter: Adapter, token: str):
    first, second = (commit(token, file_line("a.txt", b"1")).json()["commitOid"] for _ in range(2))
    assert first == second
    assert Revision.objects.count() == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", f"{API}/commit/main"),
        ("post", f"{API}/preupload/main"),
        ("post", f"{API}/branch/x"),
        ("delete", f"{API}/branch/main"),
        ("post", f"{API}/tag/main"),
        ("put", f"{API}/settings"),
        ("post", f"{API}/like"),
        ("get", f"{API}/xet-write-token/main"),
        ("post", "/ada/m.git/info/lfs/objects/batch"),
        ("post", "/ada/m.git/info/lfs/objects/verify"),
        ("delete", "/api/repos/delete"),
        ("post", "/api/repos/move"),
        ("post", "/api/repos/create"),
    ],
)
def test_strangers_and_readers_may_not_write(adapter: Adapter, ada: Any, method: str, path: str):
    body = {"name": "m", "organization": "ada", "fromRepo": "ada/m", "toRepo": "ada/n"}
    assert send(method, path, body).status_code == 401
    assert send(method, path, body, token=make_token(ada, "read")).status_code == 403
    if not path.endswith("/like"):
        assert send(method, path, body, token=make_token(make_user("eve"))).status_code == 403
    Adapter.objects.update(visibility="private")
    if path != "/api/repos/create":
        hidden = send(method, path, body, token=make_token(make_user("mallory")))
        assert (hidden.status_code, hidden["X-Error-Code"]) == (404, "RepoNotFound")
    assert send(method, path, body, token="hf_unknown").status_code == 401


def test_preupload_says_how_and_what_is_there(adapter: Adapter, token: str):
    asked = [
        {"path": "README.md", "size": 3, "sample": ""},
        {"path": "adapter_model.safetensors", "size": 33 * 2**20, "sample": ""},
        {"path": "optimizer.pt", "size": 5, "sample": ""},
    ]
    answer = send("post", f"{API}/preupload/main", {"files": asked}, token=token)
    assert answer.json()["files"] == [
        {"path": "README.md", "uploadMode": "regular", "shouldIgnore": False, "oid": git_sha1(b"# M")},
        {"path": "adapter_model.safetensors", "uploadMode": "lfs", "shouldIgnore": False},
        {"path": "optimizer.pt", "uploadMode": "regular", "shouldIgnore": True},
    ]
    assert answer["X-HF-Warning"].startswith("left-out-")
    assert "; optimizer.pt is not sent." in answer["X-HF-Warning"]
    for bad in ({}, {"files": [3]}, {"files": [{"path": "x"}]}, {"files": [{"path": "../x", "size": 1}]}):
        assert send("post", f"{API}/preupload/main", bad, token=token).status_code == 400
    large = {"files": [{"path": "adapter_model.safetensors", "size": 2**40}]}
    assert "may have" in send("post", f"{API}/preupload/main", large, token=token).json()["error"]


@pytest.mark.parametrize("branch", ["HEAD", "refs/heads/main", "refs%2Fheads%2Fmain"])
def test_a_branch_is_written_to_by_all_that_it_is_read_by(adapter: Adapter, token: str, branch: str):
    asked = {"files": [{"path": "a.txt", "size": 1}]}
    assert send("post", f"{API}/preupload/{branch}", asked, token=token).status_code == 200
    oid = commit(token, file_line("a.txt", b"x"), branch=branch).json()["commitOid"]
    assert adapter.refs.get(name="main").revision.commit == oid


def test_what_is_no_branch_is_refused_before_its_files_travel(adapter: Adapter, token: str):
    head = adapter.refs.get(name="main").revision.commit
    asked = {"files": [{"path": "a.txt", "size": 1}]}
    answer = send("post", f"{API}/preupload/{head}", asked, token=token)
    assert answer.status_code == 400
    assert "Commits go to branches only." in answer["X-Error-Message"]
    assert send("post", f"{API}/preupload/none", asked, token=token)["X-Error-Code"] == "RevisionNotFound"


def test_files_that_are_too_large_to_be_kept_are_left_out_before_they_travel(adapter: Adapter, token: str):
    asked = [
        {"path": path, "size": 6 * 2**20} for path in ("log.txt", "plot.png", "adapter_model.safetensors")
    ]
    answer = send("post", f"{API}/preupload/main", {"files": asked}, token=token)
    assert [row["shouldIgnore"] for row in answer.json()["files"]] == [True, True, False]
    assert "log.txt is not sent. The text is 6,291,456 bytes; the limit is" in answer["X-HF-Warning"]


def test_what_is_left_out_anyway_may_be_of_any_size(adapter: Adapter, token: str):
    asked = [{"path": "optimizer.pt", "size": 2**40}, {"path": "adapter_config.json", "size": 5}]
    answer = send("post", f"{API}/preupload/main", {"files": asked}, token=token)
    assert [row["shouldIgnore"] for row in answer.json()["files"]] == [True, False]


def test_a_gitignore_that_is_sent_along_or_is_there_leaves_files_out(adapter: Adapter, token: str):
    def left_out(**said: str) -> dict[str, bool]:
        paths = ("README.md", "private.txt", "epoch_0/adapter_config.json")
        asked = {"files": [{"path": path, "size": 5} for path in paths], **said}
        answer = send("post", f"{API}/preupload/main", asked, token=token)
        assert answer.status_code == 200
        found = {row["path"]: row["shouldIgnore"] for row in answer.json()["files"]}
        for path, is_ignored in found.items():
            told = f"{path} is not sent. .gitignore leaves it out." in answer.headers.get("X-HF-Warning", "")
            assert told == is_ignored
        return found

    assert not any(left_out().values())
    found = left_out(gitIgnore="private.txt\nepoch_*\n")
    assert found == {"README.md": False, "private.txt": True, "epoch_0/adapter_config.json": True}
    assert commit(token, file_line(".gitignore", b"epoch_*\n")).status_code == 200
    assert left_out() == {"README.md": False, "private.txt": False, "epoch_0/adapter_config.json": True}
    assert not any(left_out(gitIgnore="").values())
    odd = {"files": [], "gitIgnore": ["*"]}
    assert send("post", f"{API}/preupload/main", odd, token=token).status_code == 400


def test_a_pull_request_is_refused_before_its_files_travel(adapter: Adapter, token: str):
    asked = {"files": [{"path": "adapter_model.safetensors", "size": 5}]}
    answer = send("post", f"{API}/preupload/main?create_pr=1", asked, token=token)
    assert answer.status_code == 400
    assert "Push to a branch of your own" in answer["X-Error-Message"]


def test_a_card_that_clients_cannot_read_is_warned_of(token: str):
    def warnings(front_matter: str) -> list[str]:
        asked = {"content": f"---\n{front_matter}\n---\n# M\n", "repoType": "model"}
        answer = send("post", "/api/validate-yaml", asked, token=token)
        assert answer.status_code == 200
        return [warning["message"] for warning in answer.json()["warnings"]]

    assert warnings("tags: [a]") == []
    assert warnings("tags: 7") == ["'tags' has to be a list. It is left out of the metadata."]


def test_a_refusal_names_the_commit_that_the_file_is_missing_in(
    adapter: Adapter, ada: Any, token: str, monkeypatch: Any
):
    def meanwhile() -> None:
        put = commits.Put("b.txt", store_stream([b"x"]))
        commits.commit(Adapter.objects.get(), actor=ada, operations=[put], message="Theirs")

    after(refused, "require_no_part", meanwhile, monkeypatch)
    answer = commit(token, line("deletedFile", path="none.txt"))
    newest = commits.branch_head(adapter, "main").commit
    assert answer["X-Repo-Commit"] == newest


def test_a_batch_of_which_nothing_is_kept_is_told_and_not_refused(adapter: Adapter, token: str):
    asked = [{"path": path, "size": 5} for path in ("optimizer.pt", "runs/events.out.tfevents.1")]
    answer = send("post", f"{API}/preupload/main", {"files": asked}, token=token)
    assert [row["shouldIgnore"] for row in answer.json()["files"]] == [True, True]
    assert all(f"{file['path']} is not sent." in answer["X-HF-Warning"] for file in asked)


def test_a_commit_of_which_nothing_is_kept_is_refused_with_each_file(adapter: Adapter, token: str):
    answer = commit(token, file_line("a.txt", b"\xff"), file_line("optimizer.pt", b"x"))
    assert answer.status_code == 400
    assert "a.txt is not kept here. It is not UTF-8 text." in answer["X-Error-Message"]
    assert "optimizer.pt is not kept here." in answer["X-Error-Message"]
    assert commit(token, file_line("b.txt", b"b"), file_line("optimizer.pt", b"x")).status_code == 200


def test_another_warning_is_another_topic_which_clients_show_once(adapter: Adapter, token: str):
    first, again, other = (
        commit(token, file_line(f"{n}.txt", b"x"), file_line(path, b"y"))["X-HF-Warning"].partition("; ")[0]
        for n, path in enumerate(("optimizer.pt", "optimizer.pt", "scheduler.pt"))
    )
    assert first == again != other


# --- Git LFS -----------------------------------------------------------------------------------------------


def batch(token: str, oid: str, size: int, **said: str) -> dict[str, Any]:
    body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": size}], **said}
    answer = send("post", "/ada/m.git/info/lfs/objects/batch", body, token=token)
    assert answer.json()["transfer"] == "basic"
    return answer.json()["objects"][0]


def test_git_lfs_takes_bytes_by_a_signed_address_and_the_commit_names_them(adapter: Adapter, token: str):
    content = b"some notes"
    oid = hashlib.sha256(content).hexdigest()
    actions = batch(token, oid, len(content))["actions"]
    address = actions["upload"]["href"]
    assert address.startswith("http://testserver/")
    assert send("put", address, b"other byte", content_type="application/octet-stream").status_code == 422
    short = send("put", address, b"short", content_type="application/octet-stream")
    assert short.status_code == 422
    assert short.json()["error"] == "The file has 5 bytes, not 10 as was said. Send it again."
    assert send("put", address + "x", content, content_type="application/octet-stream").status_code == 403
    assert send("post", actions["verify"]["href"], {"oid": oid, "size": 10}, token=token).status_code == 404
    for _ in range(2):
        assert send("put", address, content, content_type="application/octet-stream").status_code == 200
    assert send("post", actions["verify"]["href"], {"oid": oid, "size": 10}, token=token).status_code == 200
    assert "actions" not in batch(token, oid, len(content), hash_algo="sha_256")
    named = line("lfsFile", path="notes.txt", algo="sha256", oid=oid, size=len(content))
    assert commit(token, named).status_code == 200
    assert Client().get("/ada/m/resolve/main/notes.txt").getvalue() == content


def test_an_object_whose_size_or_name_is_wrong_is_refused_by_itself(adapter: Adapter, token: str):
    for oid, size in (("no hash", 1), ("a" * 64, -1), ("a" * 64, 2**40)):
        assert batch(token, oid, size)["error"]["code"] == 422


def test_knowing_a_hash_opens_nothing(adapter: Adapter, token: str):
    secret = b"weights that nobody else may read"
    oid = hashlib.sha256(secret).hexdigest()
    make_adapter("hidden", owner=make_user("bob"), visibility="private", files={"a.txt": secret})
    assert "actions" in batch(token, oid, len(secret))
    named = line("lfsFile", path="mine.txt", algo="sha256", oid=oid, size=len(secret))
    assert commit(token, named).status_code == 400
    Adapter.objects.update(visibility="public", first_public_at=timezone.now())
    assert "actions" not in batch(token, oid, len(secret))
    assert commit(token, named).status_code == 200


def test_bytes_that_no_commit_names_go_after_a_day(adapter: Adapter, ada: Any, settings: Any):
    from datetime import timedelta

    blob = store_stream([b"never committed"])
    SentBlob.objects.create(user=ada, blob=blob)
    sweep_storage()
    assert Blob.objects.filter(pk=blob.pk).exists()
    old = timezone.now() - timedelta(days=2)
    SentBlob.objects.update(sent_at=old)
    Blob.objects.filter(pk=blob.pk).update(last_stored_at=old)
    sweep_storage()
    assert not Blob.objects.filter(pk=blob.pk).exists()


# --- Names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "main/x",
        "HEAD",
        "abcdef1",
        "a..b",
        "/a",
        "a//b",
        "a b",
        "refs/pr/1",
        "x.lock",
        "a" * 101,
        "-" * 0 + ".a",
    ],
)
def test_names_that_no_branch_can_have(adapter: Adapter, token: str, name: str):
    from urllib.parse import quote

    answer = send("post", f"{API}/branch/{quote(name)}", {}, token=token)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_branches_and_tags_are_so_many_at_most(adapter: Adapter, token: str, monkeypatch: Any):
    monkeypatch.setattr(refs, "MAX_REFS", 2)
    assert send("post", f"{API}/branch/dev", {}, token=token).status_code == 200
    answer = send("post", f"{API}/branch/more", {}, token=token)
    assert (answer.status_code, "ada/m has 2 branches and tags" in answer.json()["error"]) == (400, True)
    assert send("post", f"{API}/branch/dev", {}, token=token).status_code == 409
    assert send("delete", f"{API}/branch/dev", token=token).status_code == 200
    assert send("post", f"{API}/branch/more", {}, token=token).status_code == 200


def test_create_answers_409_with_the_address_and_other_refusals_otherwise(adapter: Adapter, token: str):
    body = {"name": "m", "organization": None, "type": "model"}
    taken = send("post", "/api/repos/create", body, token=token)
    assert (taken.status_code, taken.json()["url"]) == (409, "http://testserver/ada/m")
    assert send("post", "/api/repos/create", {**body, "type": "dataset"}, token=token).status_code == 400
    assert send("post", "/api/repos/create", {**body, "name": "x--y"}, token=token).status_code == 400
    foreign = send("post", "/api/repos/create", {**body, "organization": "nobody"}, token=token)
    assert foreign.status_code == 403
    make_base_model("ada/base", kind="hosted", commit="a" * 40)
    assert send("post", "/api/repos/create", {**body, "name": "base"}, token=token).status_code == 403
    made = send("post", "/api/repos/create", {**body, "name": "n", "private": True}, token=token)
    assert made.json()["url"] == "http://testserver/ada/n"
    assert Adapter.objects.get(name="n").is_private


def test_a_repository_is_made_with_its_licence_and_without_files(adapter: Adapter, token: str):
    body = {"name": "n", "organization": "ada", "type": "model", "license": "mit"}
    files = [{"path": "a.txt", "content": "YQ==", "encoding": "base64"}]
    refused = send("post", "/api/repos/create", {**body, "files": files}, token=token)
    assert (refused.status_code, "send them in a commit" in refused.json()["error"]) == (400, True)
    refused = send("post", "/api/repos/create", {**body, "license": "x" * 200}, token=token)
    assert refused.status_code == 400
    assert not Adapter.objects.filter(name="n").exists()
    assert send("post", "/api/repos/create", body, token=token).status_code == 200
    assert Adapter.objects.get(name="n").license == "mit"


def test_a_branch_without_files_is_refused(adapter: Adapter, token: str):
    refused = send("post", f"{API}/branch/empty", {"emptyBranch": True}, token=token)
    assert (refused.status_code, "begins with the files" in refused.json()["error"]) == (400, True)
    assert not adapter.refs.filter(name="empty").exists()


@pytest.mark.parametrize(
    "said",
    [
        {"private": "true"},
        {"private": "yes"},
        {"private": 1},
        {"private": ["x"]},
        {"visibility": "Private"},
        {"visibility": "hidden"},
        {"visibility": True},
        {"visibility": {}},
        {"visibility": "public", "private": True},
    ],
)
def test_what_only_looks_like_private_is_refused_and_nothing_becomes_public(
    adapter: Adapter, token: str, said: Any
):
    name = "private" if "private" in said else "visibility"
    for method, path in (("post", "/api/repos/create"), ("put", f"{API}/settings")):
        answer = send(method, path, {"name": "new", **said}, token=token)
        assert answer.status_code == 400
        assert f"'{name}'" in answer.json()["error"]
    assert not Adapter.objects.filter(name="new").exists()
    private = send("put", f"{API}/settings", {"private": True, "visibility": None}, token=token)
    assert private.json()["visibility"] == "private"


def test_a_moved_repository_answers_307_and_its_old_name_stays_its_own(adapter: Adapter, token: str):
    moved = {"fromRepo": "ada/m", "toRepo": "ada/n", "type": "model"}
    assert send("post", "/api/repos/move", moved, token=token).status_code == 200
    answer = Client().head("/ada/m/resolve/main/README.md")
    assert (answer.status_code, answer["Location"]) == (307, "/ada/n/resolve/main/README.md")
    assert (
        Client()
        .get(f"{API}/tree/main?recursive=true")["Location"]
        .endswith("/api/models/ada/n/tree/main?recursive=true")
    )
    assert Client().get("/ada/m")["Location"] == "/ada/n"
    Adapter.objects.update(visibility="private")
    assert Client().get("/ada/m").status_code == Client().get(API).status_code == 404
    Adapter.objects.update(visibility="public")
    again = send("post", "/api/repos/create", {"name": "m"}, token=token)
    assert (again.status_code, again.json()["error"]) == (409, "ada/n exists already.")
    assert (again.json()["url"], again.json()["id"]) == ("http://testserver/ada/n", "ada/n")
    back = {"fromRepo": "ada/n", "toRepo": "ada/m", "type": "model"}
    assert send("post", "/api/repos/move", back, token=token).status_code == 200
    assert Client().get("/ada/n/resolve/main/README.md").status_code == 307
    assert Client().get("/ada/m/resolve/main/README.md").status_code == 200


def test_the_old_name_of_what_is_gone_or_hidden_is_refused_so_that_clients_say_why(
    adapter: Adapter, token: str, ada: Any
):
    moved = {"fromRepo": "ada/m", "toRepo": "ada/n", "type": "model"}
    assert send("post", "/api/repos/move", moved, token=token).status_code == 200
    Adapter.objects.filter(pk=adapter.pk).update(
        namespace=make_organisation("lab"), name="secret", visibility="private"
    )
    hidden = send("post", "/api/repos/create", {"name": "m"}, token=token)
    Adapter.objects.filter(pk=adapter.pk).update(deleted_at=timezone.now())
    gone = send("post", "/api/repos/create", {"name": "m"}, token=token)
    for answer in (hidden, gone):  # a 409 without an address is a KeyError in the client
        assert answer.status_code == 400
        assert "Choose another name." in answer["X-Error-Message"]
        assert b"secret" not in answer.content


def test_a_moved_repository_is_deleted_and_moved_by_its_own_name_only(adapter: Adapter, token: str):
    moved = {"fromRepo": "ada/m", "toRepo": "ada/n", "type": "model"}
    assert send("post", "/api/repos/move", moved, token=token).status_code == 200
    for method, path, body in (
        ("delete", "/api/repos/delete", {"name": "m", "organization": "ada"}),
        ("post", "/api/repos/move", {"fromRepo": "ada/m", "toRepo": "ada/o"}),
    ):
        answer = send(method, path, body, token=token)
        assert (answer.status_code, answer["X-Error-Message"]) == (
            400,
            "ada/m is called ada/n now. Ask for it by that name.",
        )
    assert Client().get("/api/models/ada/n").status_code == 200


def test_likes_count_each_person_once(adapter: Adapter, token: str):
    for _ in range(2):
        assert send("post", f"{API}/like", token=token).status_code == 200
    assert Client().get(API).json()["likes"] == 1
    assert Client().get("/api/users/ada/likes").json()[0]["repo"] == {"name": "ada/m", "type": "model"}
    assert Client().get(f"{API}/likers").json()[0]["user"] == "ada"
    send("delete", f"{API}/like", token=token)
    assert Client().get(API).json()["likes"] == 0
    assert Client().get("/api/users/ada/likes").json() == []
    assert Client().get("/api/users/nobody/likes").status_code == 404


def test_a_refusal_is_written_in_letters_that_a_header_takes(adapter: Adapter, token: str):
    content = b'{"peft_type": "IA3"}'
    body = [line("header", summary="Push"), file_line("adapter_config.json", content)]
    answer = send("post", f"{API}/commit/main", "\n".join(body).encode(), token=token)
    assert answer.status_code == 400
    assert "IA3 scales activations" in answer["X-Error-Message"]


def test_likes_come_in_pages(adapter: Adapter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("registry.hub.people.LIKES_PAGE", 2)
    fans = [make_user(f"fan{number}") for number in range(5)]
    for fan in fans:
        likes.like(adapter, actor=fan)
    for number in range(4):
        likes.like(make_adapter(f"more{number}", namespace=adapter.namespace), actor=fans[0])
    assert [row["user"] for row in all_pages(f"{API}/likers")] == ["fan4", "fan3", "fan2", "fan1", "fan0"]
    liked = [row["repo"]["name"] for row in all_pages("/api/users/fan0/likes")]
    assert liked == ["ada/more3", "ada/more2", "ada/more1", "ada/more0", "ada/m"]


def all_pages(path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while path:
        answer = Client().get(path)
        rows += answer.json()
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<http://testserver")
    return rows


@pytest.mark.parametrize("field", ["description", "summary"])
def test_a_long_text_that_is_no_files_content_is_refused_and_not_taken_for_another(
    adapter: Adapter, token: str, field: str
):
    header = line("header", **{"summary": "Change", "description": "", field: "x" * 70_000})
    answer = commit(token, header, file_line("a.txt", b"a"), header=False)
    assert answer.status_code == 400
    assert "Line 1 of the commit has a text of more than 65,536 bytes" in answer.json()["error"]
    assert Revision.objects.count() == 1


def test_plain_text_is_held_in_memory_only_so_far(adapter: Adapter, token: str, monkeypatch: Any):
    monkeypatch.setattr(ndjson, "MAX_PLAIN_BYTES", 100_000)
    plain = lambda size: line("file", path="a.txt", content="é" * size, encoding="utf-8")  # noqa: E731
    assert commit(token, plain(16_000)).status_code == 200
    answer = commit(token, plain(20_000))
    assert (answer.status_code, "send it as base64" in answer.json()["error"]) == (400, True)


def test_a_commit_that_is_larger_than_an_adapter_may_be_is_refused_unread(
    adapter: Adapter, token: str, settings: Any
):
    settings.MAX_ADAPTER_BYTES = 1000
    answer = commit(token, file_line("a.txt", b"a" * 5_000_000))
    assert (answer.status_code, "The commit is larger than" in answer.json()["error"]) == (413, True)


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\x1bb", "a\x7fb", "é\u2028b"])
def test_no_character_of_a_name_breaks_the_header_that_repeats_it(adapter: Adapter, token: str, name: str):
    for operation in (
        line("deletedFile", path=name),
        line("deletedFolder", path=name),
        line("lfsFile", path=name, oid="0" * 64, size=1),
        file_line(name, b"x"),
    ):
        answer = commit(token, operation)
        assert answer.status_code in {400, 404}, operation
        assert answer["X-Error-Message"].isprintable()
