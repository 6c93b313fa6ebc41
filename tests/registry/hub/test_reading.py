"""The read path of the Hub protocol, answer by answer."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.request
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from huggingface_hub import ModelCardData

from registry import moderation, moving, publishing
from registry.hub import people, reading
from registry.hub.repositories import git_sha1
from registry.models import Adapter, BaseModel, BaseModelFile, Download, Namespace, Ref, Revision, SearchRow
from registry.search import narrowing
from registry.storage import store_stream
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_revision,
    make_token,
    make_user,
    namespace_of,
)
from tests.plans import plans
from web.pagination import cursor_of

pytestmark = pytest.mark.django_db
WEIGHTS = bytes(range(256)) * 10
CARD = b"---\nlicense: mit\ntags: [colour]\n---\n# A card\n"
FILES = {
    "README.md": CARD,
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": WEIGHTS,
    "extra/deep/a b.txt": b"text",
}


@pytest.fixture
def adapter() -> Adapter:
    return make_adapter("m", owner=make_user("ada"), files=FILES, tags=["colour"], base_model_label="x/y")


def result(source: Any) -> dict[str, Any]:
    """A score in a card's `model-index`, with where it comes from."""
    dataset = {"type": "colours", "name": "Colours"}
    metrics = [{"type": "accuracy", "value": 0.9}]
    return {
        "task": {"type": "text2text-generation"},
        "dataset": dataset,
        "metrics": metrics,
        "source": source,
    }


def get(path: str, *, token: str = "", method: str = "get", **options: Any) -> Any:
    headers = {**options.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
    return getattr(Client(), method)(path, headers=headers, **options)


def head_commit(adapter: Adapter) -> str:
    assert adapter.head is not None
    return adapter.head.commit


def test_who_the_caller_is_is_told_as_their_page_shows_it_and_their_address_as_it_was_confirmed():
    ada = make_user("ada", email="ada@example.org")
    Namespace.objects.filter(name="ada").update(full_name="Ada Lovelace")
    token = make_token(ada)
    said = get("/api/whoami-v2", token=token).json()
    assert (said["name"], said["fullname"], said["emailVerified"]) == ("ada", "Ada Lovelace", False)
    EmailAddress.objects.create(user=ada, email="ada@example.org", verified=True, primary=True)
    assert get("/api/whoami-v2", token=token).json()["emailVerified"] is True


def test_head_says_what_the_cache_has_to_know(adapter: Adapter):
    answer = get("/ada/m/resolve/main/adapter_model.safetensors", method="head")
    assert answer.status_code == 200
    assert answer["X-Repo-Commit"] == head_commit(adapter)
    assert answer["ETag"] == answer["X-Linked-Etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert answer["Content-Length"] == answer["X-Linked-Size"] == str(len(WEIGHTS))
    assert answer["Accept-Ranges"] == "bytes"


def test_small_files_are_known_by_gits_blob_id(adapter: Adapter):
    assert get("/ada/m/resolve/main/README.md", method="head")["ETag"] == f'"{git_sha1(CARD)}"'


def test_a_range_is_answered_with_its_bytes(adapter: Adapter):
    answer = get("/ada/m/resolve/main/adapter_model.safetensors", headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.getvalue()) == (206, WEIGHTS[5:10])
    assert answer["Content-Range"] == f"bytes 5-9/{len(WEIGHTS)}"
    assert answer["X-Repo-Commit"] == head_commit(adapter)


def test_a_range_outside_of_the_file_is_said_in_the_clients_shape(adapter: Adapter):
    answer = get("/ada/m/resolve/main/adapter_model.safetensors", headers={"Range": "bytes=9999-"})
    assert (answer.status_code, answer["Content-Range"]) == (416, f"bytes */{len(WEIGHTS)}")
    assert answer["X-Error-Message"] == answer.json()["error"]
    assert "outside of the file" in answer["X-Error-Message"]


@pytest.mark.parametrize("name", ["main", "feature/x", "v1", "commit", "short"])
def test_branch_tag_commit_and_short_commit_name_a_revision(adapter: Adapter, name: str):
    revision = adapter.head
    assert revision is not None
    Ref.objects.create(adapter=adapter, kind="branch", name="feature/x", revision=revision)
    Ref.objects.create(adapter=adapter, kind="tag", name="v1", revision=revision)
    name = {"commit": revision.commit, "short": revision.commit[:7]}.get(name, name)
    for address in (name, name.replace("/", "%2F")):
        assert get(f"/ada/m/resolve/{address}/extra/deep/a%20b.txt").getvalue() == b"text"
        assert get(f"/api/models/ada/m/revision/{address}").json()["sha"] == revision.commit
        assert get(f"/api/models/ada/m/tree/{address}/extra%2Fdeep").json()[0]["path"] == "extra/deep/a b.txt"


@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
def test_what_the_hub_does_with_a_repository_and_we_do_not_is_said(adapter: Adapter, method: str):
    for what, said in (
        (
            "discussions/1",
            "There are no discussions and pull requests here. Push to a branch of your own instead.",
        ),
        ("super-squash/main", "History is not squashed here"),
        ("lfs-files", "Single files of older versions are not deleted here"),
        ("user-access-request/pending", "Nothing is gated here"),
        ("beauty", "There is no 'beauty' of repositories here."),
    ):
        answer = get(f"/api/models/ada/m/{what}", method=method)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(said)
        assert "X-Error-Code" not in answer


@pytest.mark.parametrize("path", ["ada/m.git/info/refs", "ada/m.git/info/lfs/locks", "ada/m.git/HEAD"])
def test_git_is_told_what_fetches_the_files(adapter: Adapter, path: str):
    answer = get(f"/{path}")
    assert answer.status_code == 400
    assert "`hf download` fetches its files" in answer["X-Error-Message"]
    assert "X-Error-Code" not in answer
    is_lfs = "/lfs/" in path
    assert answer["Content-Type"] == ("application/json" if is_lfs else "text/plain; charset=utf-8")
    assert answer["X-Error-Message"] in answer.content.decode()


def test_git_is_told_that_a_repository_is_not_there(adapter: Adapter):
    for path in ("/ada/none.git/info/refs", "/ada/none/info/refs"):
        answer = get(path)
        assert (answer.status_code, answer["X-Error-Code"]) == (404, "RepoNotFound")
        assert answer.content.decode().startswith("There is no repository 'ada/none' here")


@pytest.mark.parametrize("method", ["get", "post", "delete"])
@pytest.mark.parametrize(
    "path",
    [
        "daily_papers",
        "settings/webhooks",
        "organizations/x/followers",
        "models-tags-by-type",
        "datasets",
        "collections",
        "collections/ada/mine-1",
        "buckets/ada/mine",
        "repos/duplicate",
    ],
)
def test_what_this_registry_does_not_serve_is_said(adapter: Adapter, method: str, path: str):
    answer = get(f"/api/{path}", method=method)
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/json")
    assert answer["X-Error-Message"] == answer.json()["error"]
    assert f"does not serve '/api/{path}'. What it has" in answer["X-Error-Message"]
    assert "X-Error-Code" not in answer


def test_repositories_of_other_kinds_are_said_not_to_be_kept_here(adapter: Adapter):
    for path, kind in (("api/datasets/ada/m", "datasets"), ("kernels/ada/m/resolve/main/x", "kernels")):
        answer = get(f"/{path}")
        assert answer["X-Error-Code"] == "RepoNotFound"
        assert answer["X-Error-Message"].startswith(
            f"There are no {kind} here: this registry keeps LoRA modules"
        )


def test_addresses_of_v1_and_of_the_site_stay_what_they_are(adapter: Adapter):
    assert set(get("/api/v1/none/").json()) == {"code", "message", "fields"}
    assert get("/api/health").status_code == 200
    assert get("/api/schema/").status_code == 200


def test_a_raw_file_is_its_bytes_and_of_weights_the_pointer_to_them(adapter: Adapter):
    card = get("/ada/m/raw/main/README.md")
    assert card.getvalue() == CARD
    pointer = get("/ada/m/raw/main/adapter_model.safetensors")
    assert pointer.content.decode().splitlines() == [
        "version https://git-lfs.github.com/spec/v1",
        f"oid sha256:{hashlib.sha256(WEIGHTS).hexdigest()}",
        f"size {len(WEIGHTS)}",
    ]
    assert pointer["ETag"] == f'"{git_sha1(pointer.content)}"'
    part = get("/ada/m/raw/main/adapter_model.safetensors", headers={"Range": "bytes=0-6"})
    assert (part.status_code, part.content) == (206, b"version")
    assert part["Content-Range"] == f"bytes 0-6/{len(pointer.content)}"
    assert part["X-Repo-Commit"] == card["X-Repo-Commit"]
    known = get("/ada/m/raw/main/adapter_model.safetensors", headers={"If-None-Match": pointer["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert known["Cache-Control"] == pointer["Cache-Control"] == "private, no-cache"
    assert not Download.objects.exists()


def test_heads_and_names_of_refs_in_full_are_revisions_too(adapter: Adapter):
    assert adapter.head is not None
    Ref.objects.create(adapter=adapter, kind=Ref.Kind.BRANCH, name="feature/x", revision=adapter.head)
    for name in ("HEAD", "refs/heads/main", "refs%2Fheads%2Ffeature%2Fx", "refs/heads/feature/x"):
        assert get(f"/ada/m/resolve/{name}/README.md").getvalue() == CARD
        assert get(f"/api/models/ada/m/revision/{name}").json()["sha"] == adapter.head.commit
    assert get("/api/models/ada/m/tree/refs%2Fheads%2Ffeature%2Fx/extra").json()[0]["path"] == "extra/deep"
    Ref.objects.create(adapter=adapter, kind=Ref.Kind.TAG, name="of/refs/heads/x", revision=adapter.head)
    assert get("/ada/m/resolve/of/refs/heads/x/README.md").getvalue() == CARD
    none = get("/ada/m/resolve/refs%2Fpr%2F1/README.md")
    assert none["X-Error-Code"] == "RevisionNotFound"
    assert none.json()["error"] == "ada/m has no branch, tag or commit 'refs/pr/1'."


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/ada/none/resolve/main/README.md", "RepoNotFound"),
        ("/ada/none/raw/main/README.md", "RepoNotFound"),
        ("/ada/none.git/info/lfs/locks", "RepoNotFound"),
        ("/gpt2/resolve/main/config.json", "RepoNotFound"),
        ("/api/models/gpt2", "RepoNotFound"),
        ("/api/models/ada/none", "RepoNotFound"),
        ("/api/models/ada/none/tree/main", "RepoNotFound"),
        ("/api/models/ada/none/discussions", "RepoNotFound"),
        ("/api/datasets/ada/m", "RepoNotFound"),
        ("/datasets/ada/m/resolve/main/x.csv", "RepoNotFound"),
        ("/ada/m/resolve/v9/README.md", "RevisionNotFound"),
        ("/ada/m/resolve/v9", "RevisionNotFound"),
        ("/ada/m/resolve/main", "EntryNotFound"),
        ("/ada/m/resolve/main/", "EntryNotFound"),
        ("/api/models/ada/m/revision/v9", "RevisionNotFound"),
        ("/api/models/ada/m/tree/v9?recursive=true", "RevisionNotFound"),
        ("/api/models/ada/m/commits/v9", "RevisionNotFound"),
        ("/ada/m/resolve/main/none.txt", "EntryNotFound"),
        ("/ada/m/raw/main/none.txt", "EntryNotFound"),
        ("/ada/m/resolve/main/extra", "EntryNotFound"),
        ("/api/models/ada/m/tree/main/none", "EntryNotFound"),
    ],
)
def test_what_is_not_there_is_a_404_that_clients_can_read(adapter: Adapter, path: str, code: str):
    answer = get(path)
    assert (answer.status_code, answer["X-Error-Code"]) == (404, code)
    assert answer.json()["error"] == answer["X-Error-Message"]
    assert ("X-Repo-Commit" in answer) == (code == "EntryNotFound")
    assert get(path, method="head")["X-Error-Code"] == code


def test_a_private_repository_is_not_there_for_others(adapter: Adapter):
    Adapter.objects.update(visibility="private")
    stranger, owner = make_token(make_user("eve")), make_token(adapter.created_by or owner_of(adapter))
    for path in ("/api/models/ada/m", "/ada/m/resolve/main/README.md", "/api/models/ada/m/refs"):
        assert get(path)["X-Error-Code"] == "RepoNotFound"
        assert get(path, token=stranger)["X-Error-Code"] == "RepoNotFound"
        assert get(path, token=owner).status_code == 200
    assert get("/api/models").json() == []
    assert get("/api/models", token=owner).json()[0]["private"] is True


def owner_of(adapter: Adapter) -> Any:
    return adapter.namespace.memberships.get().user


def test_an_unknown_token_is_a_401_on_public_reads_too(adapter: Adapter):
    answer = get("/api/models/ada/m", token="hf_of_another_hub")
    assert answer.status_code == 401
    assert answer["X-Error-Message"] == "Invalid credentials in Authorization header"
    assert "X-Error-Code" not in answer


@pytest.mark.parametrize(
    ("header", "said"), [("{}", "the word Bearer before it"), ("Bearer ", "variable set?")]
)
def test_a_token_that_is_sent_otherwise_makes_no_silent_guest(adapter: Adapter, header: str, said: str):
    sent = {"Authorization": header.format(make_token(owner_of(adapter)))}
    for path in ("/api/models/ada/m", "/ada/m/resolve/main/README.md"):
        answer = Client().get(path, headers=sent)
        assert answer.status_code == 401
        assert said in answer["X-Error-Message"]
    assert (
        Client().get("/api/models/ada/m", headers={"Authorization": "Basic b2Y6YXByb3h5"}).status_code == 200
    )


def test_cookies_do_not_count(adapter: Adapter):
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner_of(adapter))
    assert client.get("/api/whoami-v2").status_code == 401
    assert client.post("/api/models/ada/m/paths-info/main", {"paths": ["README.md"]}).status_code == 200


def test_a_slash_too_many_behind_a_repository_changes_nothing(adapter: Adapter):
    assert get("/api/models/ada/m/").json() == get("/api/models/ada/m").json()


def test_model_info_has_all_that_clients_require(adapter: Adapter):
    found = get("/api/models/ada/m?blobs=true").json()
    assert (found["id"], found["author"], found["private"]) == ("ada/m", "ada", False)
    assert found["createdAt"].endswith("Z")
    assert len(found["createdAt"]) == len("2026-01-31T10:00:00.000Z")
    assert {"peft", "lora", "colour", "license:mit", "base_model:adapter:x/y"} <= set(found["tags"])
    assert found["cardData"] == {"license": "mit", "tags": ["colour"]}
    weights = next(file for file in found["siblings"] if file["rfilename"].endswith(".safetensors"))
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(WEIGHTS)}\n".encode()
    )
    assert weights["blobId"] == git_sha1(pointer)
    assert weights["lfs"] == {"sha256": sha256, "size": len(WEIGHTS), "pointerSize": len(pointer)}


@pytest.mark.parametrize(
    "said",
    [
        {"tags": 7},
        {"ignore_metadata_errors": True},
        {"self": "x"},
        {"model-index": [{"name": "m", "results": [result("a page of ours")]}]},
        {"model-index": [{"name": "m", "results": [result({}), result({"name": "Leaderboard"})]}]},
    ],
)
def test_what_clients_fail_on_is_left_out_of_a_cards_metadata(said: dict[str, Any]):
    with pytest.raises((TypeError, AttributeError, ValueError)):
        ModelCardData(**said, ignore_metadata_errors=True)
    card = f"---\n{json.dumps({**said, 'license': 'mit'})}\n---\n# M\n".encode()
    make_adapter("m", owner=make_user("ada"), files={"README.md": card})
    one, (row,) = get("/api/models/ada/m").json(), get("/api/models?full=true").json()
    for found in (one, row):
        assert found["cardData"] == {"license": "mit"}
        ModelCardData(**found["cardData"], ignore_metadata_errors=True)


def test_scores_that_clients_can_read_stand_in_a_cards_metadata():
    index = [{"name": "m", "results": [result({"name": "Leaderboard", "url": "https://lora.example"})]}]
    card = f"---\n{json.dumps({'model-index': index})}\n---\n# M\n".encode()
    make_adapter("m", owner=make_user("ada"), files={"README.md": card})
    assert get("/api/models/ada/m").json()["cardData"] == {"model-index": index}


def test_a_tree_lists_folders_too(adapter: Adapter):
    flat = get("/api/models/ada/m/tree/main").json()
    assert [(row["type"], row["path"]) for row in flat] == [
        ("file", "README.md"),
        ("file", "adapter_config.json"),
        ("file", "adapter_model.safetensors"),
        ("directory", "extra"),
    ]
    deep = get("/api/models/ada/m/tree/main?recursive=true&expand=true").json()
    assert [row["path"] for row in deep][3:] == ["extra", "extra/deep", "extra/deep/a b.txt"]
    assert deep[0]["lastCommit"]["id"] == head_commit(adapter)


def test_the_last_commit_of_a_file_is_the_one_that_changed_it(adapter: Adapter):
    first = head_commit(adapter)
    adapter.refresh_from_db()
    make_revision(adapter, files={**FILES, "README.md": b"# Another"})
    rows = get("/api/models/ada/m/tree/main?expand=true").json()
    found = {row["path"]: row["lastCommit"]["id"] for row in rows}
    adapter.refresh_from_db()
    assert found["README.md"] == head_commit(adapter)
    assert found["adapter_config.json"] in {first, head_commit(adapter)}


def test_long_trees_come_in_pages(adapter: Adapter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("registry.hub.reading.TREE_PAGE", 2)
    paths, address = [], "/api/models/ada/m/tree/main?recursive=true"
    while address:
        answer = get(address)
        paths += [row["path"] for row in answer.json()]
        link = answer.headers.get("Link", "")
        assert not link or link.startswith("<http://testserver/")
        address = link.partition("<")[2].partition(">")[0].removeprefix("http://testserver")
    assert paths == ["README.md", "adapter_config.json", "adapter_model.safetensors",
                     "extra", "extra/deep", "extra/deep/a b.txt"]  # fmt: skip


def test_paths_info_leaves_out_what_is_not_there(adapter: Adapter):
    answer = Client().post("/api/models/ada/m/paths-info/main", {"paths": ["README.md", "extra", "none"]})
    assert [row["path"] for row in answer.json()] == ["README.md", "extra"]


def test_paths_info_reads_json_as_it_reads_a_form(adapter: Adapter):
    def ask(**body: Any) -> Any:
        return Client().post("/api/models/ada/m/paths-info/main", body, content_type="application/json")

    answer = ask(paths=["README.md", "extra/", "none"], expand=True)
    assert [row["path"] for row in answer.json()] == ["README.md", "extra"]
    assert answer.json()[0]["lastCommit"]["id"] == head_commit(adapter)
    assert [row["path"] for row in ask(paths="README.md").json()] == ["README.md"]
    for wrong in ({}, {"paths": [3]}, {"paths": ["x"], "expand": "true"}):
        assert ask(**wrong).status_code == 400
    assert ask(paths=["x"] * 2001).status_code == 413


def test_too_many_paths_at_once_are_refused_in_a_sentence(adapter: Adapter):
    body = {"paths": [f"{number}.txt" for number in range(2001)]}
    answer = Client().post("/api/models/ada/m/paths-info/main", body)
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "The request names more than 2,000 things. Ask in parts.",
    )


def test_refs_and_commits(adapter: Adapter):
    commit = head_commit(adapter)
    branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}
    assert get("/api/models/ada/m/refs").json() == {"branches": [branch], "converts": [], "tags": []}
    (row,) = get("/api/models/ada/m/commits/main?expand[]=formatted").json()
    assert row["id"] == commit
    assert row["formatted"]["title"] == row["title"]


def test_history_comes_in_pages_of_the_hubs_own_kind(adapter: Adapter):
    for number in range(4):
        make_revision(adapter, files={"README.md": b"# %d" % number})
    commits = list(adapter.revisions.order_by("-pk").values_list("commit", flat=True))
    first = get("/api/models/ada/m/commits/main?limit=2")
    assert [row["id"] for row in first.json()] == commits[:2]
    assert first["X-Total-Count"] == "5"
    assert first["Link"] == '<http://testserver/api/models/ada/m/commits/main?limit=2&p=1>; rel="next"'
    second = get("/api/models/ada/m/commits/main?limit=2&p=1")
    assert [row["id"] for row in second.json()] == commits[2:4]
    last = get("/api/models/ada/m/commits/main?limit=2&p=2")
    assert [row["id"] for row in last.json()] == commits[4:]
    assert "Link" not in last
    assert get("/api/models/ada/m/commits/main?p=7").json() == []
    assert get(f"/api/models/ada/m/commits/{commits[3]}")["X-Total-Count"] == "2"
    assert get("/api/models/ada/m/commits/main?p=x").status_code == 400


def test_history_is_of_the_revisions_own_line_and_reads_no_other(
    adapter: Adapter, django_assert_max_num_queries: Any
):
    start = adapter.head
    for number in range(3):
        make_revision(adapter, files={"README.md": b"# %d" % number})
    side = Revision.objects.create(
        adapter=adapter, commit="c" * 40, parent=start, message="Aside", created_at=timezone.now()
    )
    Ref.objects.create(adapter=adapter, kind="branch", name="side", revision=side)
    assert [row["title"] for row in get("/api/models/ada/m/commits/side").json()] == ["Aside", "Upload"]
    with django_assert_max_num_queries(8):
        assert get("/api/models/ada/m/commits/main")["X-Total-Count"] == "4"


@pytest.mark.parametrize("at_once", [1, 2, 500])
def test_who_changed_what_last_is_found_however_long_the_history_is(
    adapter: Adapter, at_once: int, monkeypatch: Any
):
    monkeypatch.setattr(reading, "LINE_READ_AT_ONCE", at_once)
    versions = [
        {"a.txt": b"1", "b.txt": b"1"},
        {"a.txt": b"1", "b.txt": b"2"},
        {"a.txt": b"1", "b.txt": b"2"},
    ]
    made = [make_revision(adapter, files=files) for files in versions]
    rows = get("/api/models/ada/m/tree/main?expand=true").json()
    found = {row["path"]: row["lastCommit"]["id"] for row in rows}
    assert found == {"a.txt": made[0].commit, "b.txt": made[1].commit}


@pytest.mark.parametrize("few", [-1, narrowing.FEW])
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["b", "a"]),
        ("search=ADA/", ["a"]),
        ("search=a+DA", ["a"]),
        ("search=a+bob", []),
        ("search=da%2FA", ["a"]),
        ("search=ada//a", []),
        ("search=_da", []),
        ("search=ada&filter=green", []),
        ("author=bob", ["b"]),
        ("filter=green", ["b"]),
        ("filter=Green&filter=base_model:Other/One", ["b"]),
        ("filter=green&filter=none", []),
        ("filter=lora&filter=license:mit", ["b", "a"]),
        ("filter=license:MIT,de", ["a"]),
        ("filter=PEFT&filter=LoRA,License:MIT", ["b", "a"]),
        ("filter=Base_Model:Adapter:Demo/Tiny-T5", ["a"]),
        ("filter=DataSet:Squad", ["a"]),
        ("pipeline_tag=Text2Text-Generation", ["a"]),
        ("filter=base_model:adapter:demo/tiny-t5", ["a"]),
        ("filter=base_model:other/one", ["b"]),
        ("filter=en", ["a"]),
        ("pipeline_tag=text2text-generation", ["a"]),
        ("sort=downloads&direction=-1", ["a", "b"]),
        ("filter=dataset:squad", ["a"]),
        ("filter=dataset:GLUE/mnli", ["a"]),
        ("filter=dataset:mnli", []),
        ("filter=dataset:sq", []),
        ("filter=base_model:demo/tiny-t5&filter=dataset:squad", ["a"]),
        ("filter=dataset:", []),
        ("pipeline_tag=token-classification", ["b"]),
        ("pipeline_tag=token-classification&filter=en", []),
        ("num_parameters=min:1K,max:2K", ["a"]),
        ("num_parameters=max:999", []),
        ("num_parameters=min:1.2M", ["b"]),
        ("gated=true", []),
        ("something=unknown", ["b", "a"]),
    ],
)
def test_models_are_found_by_name_author_and_tags(query: str, names: list[str], few: int, monkeypatch):
    monkeypatch.setattr(narrowing, "FEW", few)  # -1: as where very many fit
    base = make_base_model()
    make_adapter(
        "a", owner=make_user("ada"), base_model=base, downloads=9, language="de, en", parameters=1500,
        dataset="squad, glue/mnli",
    )  # fmt: skip
    make_adapter(
        "b", owner=make_user("bob"), tags=["green"], base_model_label="other/one", language="eng", parameters=2 * 10**6,
        dataset="Notes of my own, not published", facts={"task_type": "TOKEN_CLS"},
    )  # fmt: skip
    assert [row["id"].partition("/")[2] for row in get(f"/api/models?{query}").json()] == names


def test_a_search_of_many_words_is_refused():
    answer = get("/api/models?search=" + "+".join("abcdefghijk"))
    assert (answer.status_code, answer["X-Error-Message"]) == (400, "'search' has 11 words; 10 are allowed.")


@pytest.mark.parametrize("few", [-1, narrowing.FEW])
@pytest.mark.parametrize("tag", ["dataset:", "license:", "License:", "base_model:", "base_model:adapter:"])
def test_a_tag_that_names_nothing_is_nobodys(tag: str, few: int, monkeypatch):
    monkeypatch.setattr(narrowing, "FEW", few)
    make_adapter("bare", owner=make_user("bob"), license="")
    assert get(f"/api/models?filter={tag}").json() == []


def test_a_base_model_may_be_called_as_the_relation_to_one_is():
    make_adapter("a", owner=make_user("ada"), base_model_label="adapter")
    assert [row["id"] for row in get("/api/models?filter=base_model:adapter").json()] == ["ada/a"]


@pytest.mark.postgres_only
@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("search=nobody", "adapter_text_name_parts"),
        ("filter=dataset:nobody", "adapter_dataset_parts"),
        ("filter=token-classification", "revision_task_type"),
        ("sort=lastModified", "adapter_updated"),
        ("sort=likes", "adapter_liked"),
        ("sort=trendingScore", "search_row_trending"),
    ],
)
def test_no_list_is_made_from_every_module_there_is(query: str, index: str):
    make_adapter("a", owner=make_user("ada"))
    with plans() as lines:
        assert get(f"/api/models?{query}").status_code == 200
    assert any(index in line for line in lines), lines


@pytest.mark.postgres_only
@pytest.mark.parametrize("sort", ["createdAt", "lastModified", "downloads", "likes", "trendingScore"])
def test_the_last_page_of_a_list_is_not_reached_by_way_of_all_others(sort: str):
    for name in ("a", "b"):
        make_adapter(name, owner=make_user())
    link = get(f"/api/models?sort={sort}&limit=1")["Link"].partition("<")[2].partition(">")[0]
    with plans() as lines:
        assert len(get(link.removeprefix("http://testserver")).json()) == 1
    assert any(re.search(r"Index Cond: \(+ROW\(", line) for line in lines), lines


def test_a_data_set_with_a_name_is_a_tag():
    make_adapter("a", owner=make_user("ada"), dataset="squad, notes of my own, glue/mnli")
    tags = get("/api/models/ada/a").json()["tags"]
    assert [tag for tag in tags if tag.startswith("dataset:")] == ["dataset:squad", "dataset:glue/mnli"]


def test_the_list_tells_how_many_numbers_weights_hold_where_it_is_asked():
    made = make_adapter("a", owner=make_user("ada"))
    Revision.objects.filter(adapter=made).update(facts={"parameters": 64, "dtypes": ["F32"]})
    [row] = get("/api/models?expand=downloads&expand=safetensors").json()
    assert row["safetensors"] == {"parameters": {"F32": 64}, "total": 64}
    assert "safetensors" not in get("/api/models").json()[0]


def test_only_what_is_asked_for_by_name_is_told(adapter: Adapter):
    Revision.objects.filter(adapter=adapter).update(facts={"task_type": "SEQ_2_SEQ_LM"})
    asked = "expand=config&expand=usedStorage&expand=tags&expand=gguf"
    for found in (get(f"/api/models/ada/m?{asked}").json(), *get(f"/api/models?{asked}").json()):
        assert set(found) == {"_id", "id", "config", "usedStorage", "tags"}
        assert found["config"] == {"peft": {"base_model_name_or_path": "x/y", "task_type": "SEQ_2_SEQ_LM"}}
        assert found["usedStorage"] == sum(map(len, FILES.values()))
    [row] = get("/api/models?expand=cardData").json()
    assert set(row) == {"_id", "id", "cardData"}


def test_what_a_module_is_made_for_stands_beside_it():
    base = make_base_model(
        "demo/tiny", kind=BaseModel.Kind.HOSTED, architecture="T5", config={"model_type": "t5"}
    )
    make_adapter("m", owner=make_user("ada"), base_model=base)
    rows = {row["id"]: row for row in get("/api/models?config=true&expand=baseModels&expand=config").json()}
    assert [made_for["id"] for made_for in rows["ada/m"]["baseModels"]["models"]] == ["demo/tiny"]
    assert rows["demo/tiny"]["config"] == {"architectures": ["T5"], "model_type": "t5"}
    assert "config" not in get("/api/models?author=ada").json()[0]


def test_what_trends_stands_first_with_how_much_it_does():
    for name, trending in (("a", 0.5), ("b", 2.25), ("c", 0.5)):
        made = make_adapter(name, owner=make_user(), downloads=int(10 - trending))
        SearchRow.objects.filter(adapter=made).update(trending=trending)
    for limit in (1, 2, 9):
        names = [name.partition("/")[2] for name in listed(f"sort=trendingScore&limit={limit}")]
        assert names == ["b", "c", "a"]
    first = get("/api/models?sort=trendingScore").json()[0]
    assert first["trendingScore"] == get(f"/api/models/{first['id']}").json()["trendingScore"] == 2.25


def test_more_tags_than_a_database_can_look_for_are_refused(client: Client):
    assert client.get("/api/models", {"filter": ",".join(["lora"] * 2000)}).status_code == 200
    refused = client.get("/api/models", {"filter": [f"tag-{number}" for number in range(2000)]})
    assert refused.status_code == 400
    assert "2000 tags" in refused.headers["X-Error-Message"]


@pytest.mark.parametrize(
    "query", ["inference=warm", "apps=ollama", "library=peft", "num_parameters=many", "num_parameters=min:6X"]
)
def test_a_filter_that_is_none_here_is_refused_instead_of_leaving_nothing_out(adapter: Adapter, query: str):
    answer = get(f"/api/models?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer["X-Error-Message"]


def test_lists_come_in_pages_with_an_absolute_link_that_keeps_the_parameters():
    owner = make_user("ada")
    for name in ("a", "b", "c"):
        make_adapter(name, owner=owner)
    answer = get("/api/models?author=ada&limit=2&full=true")
    link = answer["Link"].partition("<")[2].partition(">")[0]
    assert link.startswith("http://testserver/api/models?")
    assert "author=ada" in link
    rows = answer.json() + get(link.removeprefix("http://testserver")).json()
    assert [row["id"] for row in rows] == ["ada/c", "ada/b", "ada/a"]
    assert "siblings" in rows[0]


def test_who_keeps_a_copy_of_all_learns_of_every_change_from_the_list_alone():
    ada = make_user("ada")
    kept, new, moved, deleted, hidden, closed = (
        make_adapter(name, owner=ada) for name in ("kept", "new", "moved", "deleted", "hidden", "closed")
    )
    before = listed_whole()
    assert set(before.values()) == {
        (f"ada/{name}", head_commit(adapter))
        for name, adapter in zip(
            ("kept", "new", "moved", "deleted", "hidden", "closed"),
            (kept, new, moved, deleted, hidden, closed),
            strict=True,
        )
    }
    make_revision(new)
    moving.move(moved, actor=ada, namespace=namespace_of(ada), name="other")
    publishing.withdraw(deleted, actor=ada)
    moderation.quarantine(hidden, moderator=None, reason="Somebody's own data.")
    publishing.update_adapter(closed, actor=ada, visibility="private")
    new.refresh_from_db()
    after = listed_whole()
    assert after == {
        f"adapter-{kept.pk}": before[f"adapter-{kept.pk}"],
        f"adapter-{new.pk}": ("ada/new", head_commit(new)),
        f"adapter-{moved.pk}": ("ada/other", head_commit(moved)),
    }


def listed_whole() -> dict[str, tuple[str, str]]:
    """Of every model in the list its name and newest commit, as a script without a token reads them."""
    path, rows = "/api/models?limit=2&expand=sha", []
    while path:
        answer = get(path)
        rows += answer.json()
        path = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    return {row["_id"]: (row["id"], row["sha"]) for row in rows}


@pytest.mark.parametrize("query", ["sort=beauty", "limit=many", "cursor=none"])
def test_a_list_that_cannot_be_made_is_refused_in_a_sentence(query: str):
    answer = get(f"/api/models?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("sort", "field", "value"),
    [
        ("createdAt", "-created_at", "x"),
        ("createdAt", "-created_at", 1),
        ("createdAt", "-created_at", "2026-01-01T00:00:00+00:00"),
        ("createdAt", "-created_at", {"t": "2026-01-01T00:00:00"}),
        ("downloads", "-downloads", "x"),
        ("downloads", "-downloads", "5"),
        ("downloads", "-downloads", {"t": "2026-01-01T00:00:00+00:00"}),
    ],
)
def test_a_cursor_of_another_kind_is_refused(adapter: Adapter, sort: str, field: str, value: Any):
    cursor = cursor_of([[field, "-id"], [value, 1]])
    answer = get(f"/api/models?sort={sort}&cursor={cursor}")
    assert (answer.status_code, answer["X-Error-Message"][:11]) == (400, "This cursor")


def test_whoami_names_the_person_and_the_token():
    found = get("/api/whoami-v2", token=make_token(make_user("ada"), "read", name="laptop")).json()
    assert (found["name"], found["type"], found["orgs"]) == ("ada", "user", [])
    assert found["auth"]["accessToken"] == {"displayName": "laptop", "role": "read"}
    assert get("/api/whoami-v2").status_code == 401


def test_people_and_organisations_are_told_as_their_pages_show_them(adapter: Adapter):
    rita = make_user("rita")
    Namespace.objects.filter(name="rita").update(full_name="Rita R.")
    lab = make_organisation("lab", members={owner_of(adapter): "admin", rita: "read"})
    Namespace.objects.filter(pk=lab.pk).update(about="Tells tales.")
    make_adapter("hidden", namespace=lab, visibility="private")
    told = get("/api/organizations/lab/overview").json()
    assert (told["numModels"], told["numUsers"], told["details"]) == (0, 2, "Tells tales.")
    assert get("/api/organizations/lab/overview", token=make_token(rita)).json()["numModels"] == 1
    assert get("/api/users/ada/overview").json()["numModels"] == 1
    people = get("/api/organizations/LAB/members").json()
    assert [(person["user"], person["fullname"]) for person in people] == [
        ("ada", "ada"),
        ("rita", "Rita R."),
    ]
    for name in ("ada", "nobody"):
        assert get(f"/api/organizations/{name}/members").status_code == 404


def test_ones_own_repositories_are_listed_with_their_share_of_the_storage():
    ada = make_user("ada")
    make_adapter("large", owner=ada, files={"x.txt": b"x" * 300}, visibility="private")
    make_adapter("small", owner=ada, files={"x.txt": b"y" * 100})
    rows = get("/api/settings/repositories", token=make_token(ada)).json()
    assert [(row["id"], row["storage"], row["storagePercent"]) for row in rows] == [
        ("ada/large", 300, 75.0), ("ada/small", 100, 25.0),
    ]  # fmt: skip
    assert get("/api/settings/repositories", token=make_token(make_user())).json() == []


def test_downloads_count_once_for_a_revision_and_client(adapter: Adapter):
    for _ in range(2):
        get("/ada/m/resolve/main/adapter_model.safetensors", method="head")
        get("/ada/m/resolve/main/README.md")
        get("/ada/m/resolve/main/adapter_model.safetensors").getvalue()
    assert Download.objects.count() == 1
    assert get("/api/models/ada/m").json()["downloads"] == 1


def test_a_base_model_that_is_hosted_here_is_served_the_same_way():
    base = make_base_model("demo/tiny", kind=BaseModel.Kind.HOSTED, commit="a" * 40)
    for path, content in (("config.json", b"{}"), ("model.safetensors", WEIGHTS)):
        BaseModelFile.objects.create(base_model=base, path=path, blob=store_stream([content]))
    answer = get("/demo/tiny/resolve/main/model.safetensors", method="head")
    assert (answer["X-Repo-Commit"], answer["Content-Length"]) == ("a" * 40, str(len(WEIGHTS)))
    assert get("/demo/tiny/resolve/aaaaaaa/config.json").getvalue() == b"{}"
    assert get("/api/models/demo/tiny").json()["sha"] == "a" * 40
    assert get("/demo/tiny/resolve/main/none.json")["X-Error-Code"] == "EntryNotFound"
    assert get("/demo/tiny/resolve/v2/config.json")["X-Error-Code"] == "RevisionNotFound"
    assert get("/api/models/demo/tiny/refs").json()["branches"][0]["targetCommit"] == "a" * 40


def test_a_base_model_that_is_only_known_is_a_clean_404():
    make_base_model("google/flan-t5-small")
    answer = get("/google/flan-t5-small/resolve/main/config.json", method="head")
    assert (answer.status_code, answer["X-Error-Code"]) == (404, "RepoNotFound")


def test_a_browser_still_gets_the_page_and_printed_addresses_lead_to_it(adapter: Adapter):
    commit = head_commit(adapter)
    assert "text/html" in get("/ada/m")["Content-Type"]
    for path in (f"commit/{commit}", "tree/main/", "blob/main/README.md"):
        assert get(f"/ada/m/{path}")["Location"] == "/ada/m"
    assert namespace_of(owner_of(adapter)) == adapter.namespace


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_other_methods_are_refused_in_json(adapter: Adapter, method: str):
    answer = get("/api/models/ada/m", method=method)
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/ada/m/resolve/main/%00", 404), ("/api/models/%00", 404), ("/api/models?search=%00", 400)],
)
def test_an_address_with_nul_is_refused_in_json(path: str, status: int):
    answer = get(path)
    assert answer.status_code == status
    assert answer["X-Error-Message"] == answer.json()["error"]


# --- Base models that are hosted here, in the list -----------------------------------------------------------


def listed(query: str = "") -> list[str]:
    """All ids of the list, page after page."""
    names, address = [], f"/api/models?{query}"
    while address:
        answer = get(address)
        names += [row["id"] for row in answer.json()]
        link = answer.headers.get("Link", "")
        address = link[1 : link.index(">")].removeprefix("http://testserver") if link else ""
    return names


def test_hosted_base_models_stand_in_the_list_in_order_and_once(adapter: Adapter):
    newer = [make_adapter(f"n{number}", owner=make_user(), base_model_label="x/y") for number in range(4)]
    base = make_base_model("demo/base", kind=BaseModel.Kind.HOSTED, license="mit")
    make_base_model("far/away")
    BaseModel.objects.filter(pk=base.pk).update(created_at=newer[1].created_at)
    by_date = [*reversed([row.full_name for row in newer[1:]]), "demo/base", newer[0].full_name, "ada/m"]
    for limit in (1, 2, 3, 100):
        assert listed(f"limit={limit}") == by_date
        for sort in ("downloads", "likes"):
            assert sorted(listed(f"limit={limit}&sort={sort}")) == sorted(by_date)
    assert (
        listed("search=DEMO/b")
        == listed("search=base+demo")
        == listed("author=demo")
        == listed("filter=license:mit,transformers")
        == ["demo/base"]
    )
    assert listed("pipeline_tag=text2text-generation") == ["demo/base"]
    assert "demo/base" not in listed("filter=lora")
    assert listed("gated=true") == listed("num_parameters=min:1T") == []


# --- Where another sends the bytes ---------------------------------------------------------------------------


def test_with_nginx_before_us_a_file_leaves_without_its_bytes(adapter: Adapter, settings: Any):
    settings.X_ACCEL_REDIRECT_PREFIX = "/blobs/"
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    path = "/ada/m/resolve/main/adapter_model.safetensors"
    answer = get(path, headers={"Range": "bytes=5-9"})
    assert answer["X-Accel-Redirect"] == f"/blobs/{sha256[:2]}/{sha256[2:4]}/{sha256}"
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["X-Repo-Commit"] == head_commit(adapter)
    assert answer["ETag"] == f'"{sha256}"'
    # HEAD is answered here: the client's cache lives by these headers, and nginx would put its own.
    head = get(path, method="head")
    assert "X-Accel-Redirect" not in head
    assert head["Content-Length"] == head["X-Linked-Size"] == str(len(WEIGHTS))
    assert Download.objects.count() == 0, "nginx sends a few bytes, as it was asked"
    assert get(path, headers={"Range": "bytes=9-"})["X-Accel-Redirect"]
    assert Download.objects.count() == 1


@pytest.mark.services
def test_from_an_object_store_a_file_is_fetched_by_a_signed_address(s3_storage: str, settings: Any):
    settings.S3_SIGNED_DOWNLOADS = True
    adapter = make_adapter("m", owner=make_user("ada"), files=FILES)
    path = "/ada/m/resolve/main/adapter_model.safetensors"
    answer = get(path)
    assert (answer.status_code, answer.content) == (302, b"")
    assert answer["X-Linked-Etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert answer["X-Linked-Size"] == str(len(WEIGHTS))
    assert answer["X-Repo-Commit"] == head_commit(adapter)
    with urllib.request.urlopen(answer["Location"]) as stored:
        assert stored.read() == WEIGHTS
    assert get(path, method="head").status_code == 200


@pytest.mark.parametrize("asked", ["", "full=true", "cardData=true", "expand=safetensors"])
def test_a_list_of_many_asks_no_more_often_than_one_of_two(asked: str):
    ada = make_user("ada")

    def queries(count: int) -> int:
        with CaptureQueriesContext(connection) as made:
            assert len(get(f"/api/models?author=ada&limit={count}&{asked}").json()) == count
        return len(made)

    for number in range(8):
        make_adapter(
            f"m-{number}", owner=ada, files={"README.md": b"---\nlicense: mit\n---\n"}, facts={"rank": 4}
        )
    assert queries(8) == queries(2) <= 15


def test_of_facts_that_may_be_megabytes_a_list_reads_what_it_says():
    facts = {
        "rank": 4,
        "parameters": 99,
        "dtypes": ["F32"],
        "task_type": "CAUSAL_LM",
        "tensors": [{"name": "x" * 1000}] * 100,
    }
    make_adapter("m", owner=make_user("ada"), facts=facts)
    with CaptureQueriesContext(connection) as made:
        (row,) = get("/api/models?expand=safetensors&expand=pipeline_tag").json()
    assert row["safetensors"] == {"parameters": {"F32": 99}, "total": 99}
    assert row["pipeline_tag"] == "text-generation"
    assert not any(re.search(r'(?<!\()"registry_revision"."facts"', query["sql"]) for query in made)


def test_the_repositories_of_an_organisation_come_in_pages_that_are_asked_for_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(people, "REPOSITORIES_PAGE", 2)
    ada = make_user("ada")
    for number in range(5):
        make_adapter(f"m-{number}", owner=ada)
    headers = {"Authorization": f"Bearer {make_token(ada)}"}
    address, found = "/api/settings/repositories", []
    while address:
        with CaptureQueriesContext(connection) as made:
            answer = Client().get(address, headers=headers)
        assert any("LIMIT 3" in query["sql"] for query in made)
        found += [row["id"] for row in answer.json()]
        address = answer.headers.get("Link", "").partition(">")[0].removeprefix("<http://testserver")
    assert found == [f"ada/m-{number}" for number in range(5)]
