from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from registry import base_models, moving, shapes, storage
from registry.models import Adapter, AdapterScore, BaseModel, Blob, Revision
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_token,
    make_user,
    publish_fake,
)
from tests.fake_adapters import TINY_MATRICES, files_of
from tests.fake_adapters import make_adapter as make_folder

pytestmark = pytest.mark.django_db
BOUNDARY = "lora-commons-test-boundary"


class Script:
    """A script with a token, or without one."""

    def __init__(self, token: str = "") -> None:
        self.client = Client(raise_request_exception=True)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(f"/api/v1/{path}", headers={**self.headers, **headers})

    def head(self, path: str, **headers: str) -> Any:
        return self.client.head(f"/api/v1/{path}", headers={**self.headers, **headers})

    def send(self, method: str, path: str, data: object, **headers: str) -> Any:
        return self.client.generic(
            method,
            f"/api/v1/{path}",
            data if isinstance(data, bytes) else json.dumps(data).encode(),
            content_type="application/json",
            headers={**self.headers, **headers},
        )

    def upload(
        self, path: str, files: dict[str, bytes], fields: dict[str, Any] | None = None, **headers: str
    ) -> Any:
        return self.client.generic(
            "POST",
            f"/api/v1/{path}",
            multipart(files, fields or {}),
            content_type=f"multipart/form-data; boundary={BOUNDARY}",
            headers={**self.headers, **headers},
        )


def multipart(files: dict[str, bytes], fields: dict[str, Any]) -> bytes:
    """A form as curl sends it: file names as they are, paths included."""
    out = io.BytesIO()
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            out.write(
                f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            )
    for name, content in files.items():
        disposition = f'form-data; name="files"; filename="{name}"'
        out.write(f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n")
    out.write(f"--{BOUNDARY}--\r\n".encode())
    return out.getvalue()


def adapter_files(folder: Path, prefix: str = "", **options: Any) -> dict[str, bytes]:
    return {
        prefix + name: path.read_bytes() for name, path in files_of(make_folder(folder, **options)).items()
    }


def assert_refused(response: Any, status: int, field: str = "") -> dict[str, Any]:
    body = response.json()
    assert response.status_code == status, body
    assert set(body) == {"code", "message", "fields"}
    assert body["message"]
    if field:
        assert field in body["fields"], body
    return body


def nothing_is_left() -> bool:
    left = [path for path in settings.UPLOAD_TMP_DIR.rglob("*") if path.is_file()]
    stored = [
        path
        for path in Path(str(getattr(storage.storages["blobs"], "location", ""))).rglob("*")
        if path.is_file()
    ]
    return not (left or stored or Blob.objects.exists() or Adapter.objects.exists())


# --- Publishing ----------------------------------------------------------------------------------------------


def test_a_script_publishes_finds_and_downloads_an_adapter(tmp_path):
    make_base_model()
    make_task("who", title="Who did it")
    script = Script(make_token(make_user("ada")))
    files = adapter_files(tmp_path / "a", rank=4, card="---\nlicense: mit\n---\n# Who\n")
    said = {"name": "who-plain", "task": "who", "description": "Says who.", "tags": ["x,y", "z"]}
    answer = script.upload("adapters/", files, said)
    body = answer.json()
    assert answer.status_code == 201, body
    assert answer["Location"] == "/api/v1/adapters/ada/who-plain/"
    assert body["id"] == "ada/who-plain"
    assert (body["rank"], body["composable"], body["base_fit"], body["license"]) == (4, True, "fits", "mit")
    assert (body["task"]["slug"], body["tags"], body["base_model"]) == (
        "who",
        ["x", "y", "z"],
        "demo/tiny-t5",
    )
    assert body["facts"]["target_matrices"] == 4

    found = Script().get("adapters/?q=who&composable=yes").json()
    assert [row["id"] for row in found["results"]] == ["ada/who-plain"]
    listed = Script().get("adapters/ada/who-plain/files/").json()
    assert {file["path"] for file in listed["results"]} == set(files)
    for file in listed["results"]:
        assert Script().client.get(file["url"]).getvalue() == files[file["path"]]


def test_a_dropped_folder_loses_the_folder_around_it(tmp_path):
    files = adapter_files(tmp_path / "a", prefix="my adapter/", card="# Hello\n")
    files["my adapter/pictures/plot.txt"] = b"a plot"
    answer = Script(make_token(make_user())).upload("adapters/", files, {"name": "m"})
    assert answer.status_code == 201, answer.json()
    assert {file["path"] for file in answer.json()["files"]} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "pictures/plot.txt",
    }  # fmt: skip


def test_the_same_upload_again_is_200_and_other_files_are_a_new_revision(tmp_path):
    script = Script(make_token(make_user("ada")))
    first = adapter_files(tmp_path / "a")
    assert script.upload("adapters/", first, {"name": "m"}).status_code == 201
    assert script.upload("adapters/", first, {"name": "m"}).status_code == 200
    second = script.upload(
        "adapters/", adapter_files(tmp_path / "b", seed=1), {"name": "m", "message": "Better"}
    )
    assert second.status_code == 201
    revisions = script.get("adapters/ada/m/revisions/").json()["results"]
    assert [revision["message"] for revision in revisions] == ["Better", "Upload"]
    assert revisions[0]["parent"] == revisions[1]["commit"]
    old = script.get(f"adapters/ada/m/files/adapter_model.safetensors?revision={revisions[1]['commit'][:10]}")
    assert old.getvalue() == first["adapter_model.safetensors"]
    said = script.get(f"adapters/ada/m/revisions/{revisions[1]['commit'][:10]}/").json()
    assert {name: said[name] for name in revisions[1]} == revisions[1]
    assert said["facts"]["rank"] == script.get("adapters/ada/m/").json()["facts"]["rank"]
    weights = next(file for file in said["files"] if file["path"] == "adapter_model.safetensors")
    assert weights["url"].endswith(f"?revision={said['commit']}")
    assert script.get("adapters/ada/m/revisions/main/").json()["commit"] == revisions[0]["commit"]
    assert_refused(script.get("adapters/ada/m/revisions/v9/"), 404)


def test_scores_on_tasks_are_told_with_who_says_so():
    adapter = make_adapter("m", owner=make_user("ada"), likes=3)
    task = make_task("who", rows=2, test_rows=4)
    AdapterScore.objects.create(adapter=adapter, task=task, source="reported", value=0.9, note="their table")
    AdapterScore.objects.create(
        adapter=adapter, task=task, source="verified", value=0.7, n=4, task_revision=task.revisions.get()
    )
    hidden = make_task("labs", owner=make_organisation("lab"), is_private=True)
    AdapterScore.objects.create(adapter=adapter, task=hidden, source="verified", value=0.5)
    found = Script().get("adapters/ada/m/").json()
    assert found["likes"] == 3
    told = [(row["task"], row["task_revision"], row["value"], row["verified"]) for row in found["scores"]]
    assert told == [(None, None, 0.5, True), ("who", 1, 0.7, True), ("who", None, 0.9, False)]
    assert found["scores"][2]["note"] == "their table"


def test_strangers_readers_and_read_tokens_publish_nothing(tmp_path):
    files = adapter_files(tmp_path / "a")
    user, reader = make_user(), make_user()
    make_organisation("lab", members={user: "admin", reader: "read"})
    assert_refused(Script().upload("adapters/", files, {"name": "m"}), 401)
    assert_refused(Script("lr_wrong").upload("adapters/", files, {"name": "m"}), 401)
    assert_refused(Script(make_token(user, "read")).upload("adapters/", files, {"name": "m"}), 403)
    body = {"name": "m", "namespace": "lab"}
    assert_refused(Script(make_token(reader)).upload("adapters/", files, body), 403)
    assert_refused(Script(make_token(make_user())).upload("adapters/", files, body), 403)
    assert_refused(
        Script(make_token(user)).upload("adapters/", files, {"name": "m", "namespace": "no"}),
        404,
        "namespace",
    )
    assert nothing_is_left()
    assert Script(make_token(user)).upload("adapters/", files, body).status_code == 201


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "m", "visibility": "hidden"}, "visibility"),
        ({"name": "m", "licence": "mit"}, "licence"),
        ({"name": "m", "description": "x" * 501}, "description"),
        ({"name": "m", "description": "nul\x00"}, "description"),
        ({"name": "m", "tags": ["y" * 51]}, "tags"),
        ({"name": "m", "base_model": "x" * 501}, "base_model"),
    ],
)
def test_fields_that_cannot_be_used_are_refused_by_name(tmp_path, fields, field):
    answer = Script(make_token(make_user())).upload("adapters/", adapter_files(tmp_path / "a"), fields)
    assert_refused(answer, 400, field)
    assert nothing_is_left()


def test_files_that_break_a_rule_are_refused_by_file_and_leave_nothing(tmp_path):
    script = Script(make_token(make_user()))
    good = adapter_files(tmp_path / "a")
    cases = {
        "adapter_config.json": {**good, "adapter_config.json": b"{not json"},
        "adapter_model.safetensors": {**good, "adapter_model.safetensors": b"\x80\x02pickle"},
        "files": {},
        "..\\evil": {**good, "..\\evil": b"x"},
        "../evil": {**good, "../evil": b"x"},
    }
    for field, files in cases.items():
        assert_refused(script.upload("adapters/", files, {"name": "m"}), 400, field)
    assert nothing_is_left()


def test_odd_multipart_bodies_are_refused_not_stumbled_over():
    script = Script(make_token(make_user()))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    for body, content_type in (
        (b"", kind),
        (b"garbage", kind),
        (b"x", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=" + "b" * 150),
        (multipart({"a\x00b": b"x", "c" * 300: b"y"}, {}), kind),
        (multipart({"a.txt": b"x"}, {"name": "m"})[:-20], kind),
    ):
        answer = script.client.generic(
            "POST", "/api/v1/adapters/", body, content_type=content_type, headers=script.headers
        )
        assert_refused(answer, 400)
    assert_refused(script.send("POST", "adapters/", {"name": "m"}), 415)
    many = {f"{number}.txt": b"" for number in range(250)}
    assert_refused(script.upload("adapters/", many, {"name": "m"}), 400, "files")
    assert nothing_is_left()


def test_an_upload_that_is_too_large_or_finds_no_space_is_refused_early(tmp_path, settings):
    script = Script(make_token(make_user()))
    files = adapter_files(tmp_path / "a")
    settings.MAX_FILE_BYTES = 100
    assert_refused(script.upload("adapters/", files, {"name": "m"}), 413, "files")
    settings.MAX_FILE_BYTES, settings.MIN_FREE_DISK_BYTES = 2**31, 2**60
    assert "space" in assert_refused(script.upload("adapters/", files, {"name": "m"}), 507)["message"]
    settings.MIN_FREE_DISK_BYTES, settings.MAX_ADAPTER_BYTES = 0, -(5 * 2**20)
    assert_refused(script.upload("adapters/", files, {"name": "m"}), 413)
    assert nothing_is_left()


def test_validating_says_what_publishing_would_and_keeps_nothing(tmp_path):
    make_base_model()
    script = Script(make_token(make_user()))
    good = script.upload("adapters/validate/", adapter_files(tmp_path / "a")).json()
    assert (good["publishable"], good["composable"], good["base_model"]) == (True, True, "demo/tiny-t5")
    bad = script.upload("adapters/validate/", adapter_files(tmp_path / "b", lora_alpha=-1)).json()
    assert not bad["publishable"]
    assert bad["problems"][0]["where"] == "lora_alpha"
    assert nothing_is_left()
    assert_refused(Script().upload("adapters/validate/", adapter_files(tmp_path / "c")), 401)
    assert_refused(script.upload("adapters/validate/", {}, {"name": "m"}), 400, "name")


# --- Reading ---------------------------------------------------------------------------------------------------


def test_a_private_adapter_is_404_to_everybody_else_at_every_address(tmp_path):
    owner = make_user("ada")
    publish_fake(tmp_path, "secret", owner=owner, visibility="private")
    paths = [
        "adapters/ada/secret/",
        "adapters/ada/secret/revisions/",
        "adapters/ada/secret/revisions/main/",
        "adapters/ada/secret/lineage/",
        "adapters/ada/secret/files/",
        "adapters/ada/secret/files/adapter_config.json",
        "adapters/ada/secret/archive",
    ]
    for stranger in (Script(), Script(make_token(make_user()))):
        for path in paths:
            assert_refused(stranger.get(path), 404)
        assert stranger.get("adapters/").json()["results"] == []
    other = Script(make_token(make_user()))
    assert_refused(other.send("PATCH", "adapters/ada/secret/", {"description": "x"}), 404)
    assert_refused(other.send("DELETE", "adapters/ada/secret/", {}), 404)
    mine = Script(make_token(owner))
    assert all(mine.get(path).status_code == 200 for path in paths)


def test_details_are_changed_and_adapters_deleted_by_their_members(tmp_path):
    owner = make_user("ada")
    publish_fake(tmp_path, "m", owner=owner)
    mine, other = Script(make_token(owner)), Script(make_token(make_user()))
    changed = mine.send(
        "PATCH", "adapters/ada/m/", {"description": "New", "tags": ["A"], "task": "Telling time"}
    )
    assert changed.status_code == 200
    assert (changed.json()["description"], changed.json()["tags"]) == ("New", ["a"])
    assert changed.json()["task"]["slug"] == "telling-time"
    assert_refused(other.send("PATCH", "adapters/ada/m/", {"description": "x"}), 403)
    assert_refused(Script().send("PATCH", "adapters/ada/m/", {"description": "x"}), 401)
    assert_refused(mine.send("PATCH", "adapters/ada/m/", {"rank": 3}), 400, "rank")
    assert_refused(mine.send("PATCH", "adapters/ada/m/", {"description": 5 * ["x"]}), 400, "description")
    assert_refused(mine.send("PATCH", "adapters/ada/m/", ["list"]), 400)
    assert_refused(mine.send("PATCH", "adapters/ada/m/", b'{"description": "\\u0000"}'), 400)
    assert_refused(other.send("DELETE", "adapters/ada/m/", {}), 403)
    assert mine.send("DELETE", "adapters/ada/m/", {}).status_code == 204
    assert_refused(mine.get("adapters/ada/m/"), 404)
    assert Revision.objects.exists()
    again = mine.upload("adapters/", adapter_files(tmp_path / "again"), {"name": "m"})
    assert_refused(again, 409, "name")


def test_lists_go_on_by_cursor_and_count_their_queries():
    user = make_user()
    base = make_base_model()
    for number in range(25):
        make_adapter(f"m{number}", owner=user, base_model=base)
    seen: list[str] = []
    path = "adapters/?limit=10&sort=downloads"
    while path:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page = Script().get(path).json()
        assert len(queries) <= 6
        seen += [row["name"] for row in page["results"]]
        assert all(row["composes_with"] == 24 for row in page["results"])
        path = page["next"].partition("/api/v1/")[2] if page["next"] else ""
    assert len(seen) == len(set(seen)) == 25


@pytest.mark.parametrize(
    "query",
    ["nonsense=1", "sort=best", "rank=big", "composable=maybe", "limit=0", "limit=x", "cursor=abc", "q=a&q=b", "q=%00", "kind=x"],
)  # fmt: skip
def test_a_parameter_that_cannot_be_used_is_refused_by_name(query):
    assert_refused(Script().get(f"adapters/?{query}"), 400, query.partition("=")[0])


@pytest.mark.parametrize(
    "path",
    [
        "adapters/ada/m/?x=1",
        "adapters/ada/m/files/?revision=a&revision=b",
        "adapters/ada/m/revisions/?sort=new",
        "adapters/ada/m/revisions/main/?limit=1",
        "adapters/ada/m/lineage/?sort=new",
        "adapters/ada/m/archive?x=1",
        "base-models/?x=1",
        "base-models/?kind=odd",
        "tasks/?held_out=perhaps",
        "tasks/?q=%00",
    ],
)
def test_no_list_or_file_ignores_a_parameter(tmp_path, path):
    publish_fake(tmp_path, "m", owner=make_user("ada"))
    assert_refused(Script().get(path), 400)


@pytest.mark.parametrize(
    "path",
    [
        "adapters/nobody/nothing/",
        "adapters/%00/m/",
        "adapters/ada/m/revisions/%00/",
        "adapters/ada/m/files/none.txt",
        "adapters/ada/m/files/%00",
        "adapters/ada/m/files/adapter_config.json?revision=none",
        "adapters/ada/m/files/adapter_config.json?revision=deadbeef",
        "base-models/none/",
        "base-models/%00/",
        "base-models/none/files/config.json",
        "tasks/none/",
        "nothing/",
    ],
)
def test_what_is_not_there_is_404_in_the_one_shape(tmp_path, path):
    publish_fake(tmp_path, "m", owner=make_user("ada"))
    assert_refused(Script().get(path), 404)


def test_who_has_an_answer_already_gets_304_until_it_changes():
    adapter = make_adapter("m", owner=make_user("ada"))
    script = Script()
    for path in ("adapters/ada/m/", "adapters/", "adapters/ada/m/revisions/", "tasks/"):
        first = script.get(path)
        assert (first.status_code, first["Cache-Control"]) == (200, "private, no-cache"), path
        again = script.get(path, **{"If-None-Match": first["ETag"]})
        assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"]), path
        assert again.headers.get("X-Total-Count") == first.headers.get("X-Total-Count"), path
        assert script.head(path)["ETag"] == first["ETag"], path
        assert script.get(path, **{"If-None-Match": '"other"', "If-Match": '"other"'}).status_code == 200, (
            path
        )
    known = {path: script.get(path)["ETag"] for path in ("adapters/ada/m/", "adapters/?limit=1")}
    Adapter.objects.filter(pk=adapter.pk).update(downloads=9)
    make_adapter("n", namespace=adapter.namespace, created_at=adapter.created_at - timedelta(days=1))
    for path, etag in known.items():
        assert script.get(path, **{"If-None-Match": etag}).status_code == 200, path
    refused = script.get("adapters/ada/absent/")
    assert "ETag" not in refused
    assert "ETag" not in Script(make_token(make_user())).send(
        "POST", "saved-searches/", {"name": "a", "parameters": ""}
    )


# --- Base models, tasks, people ---------------------------------------------------------------------------------


def test_a_base_model_is_added_from_its_config_and_waiting_adapters_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shapes,
        "compute_shapes",
        lambda config: shapes.BaseShapes(
            "T5ForConditionalGeneration", "SEQ_2_SEQ_LM", dict(TINY_MATRICES), parameters=9
        ),
    )
    waiting = publish_fake(tmp_path)
    script = Script(make_token(make_user()))
    said = {"name": "demo/tiny-t5", "config": {"model_type": "t5"}, "aliases": ["tiny"], "license": "mit"}
    added = script.send("POST", "base-models/", said)
    assert added.status_code == 201, added.json()
    assert added.json()["recheck_wanted_at"] is not None
    base_models.recheck_wanted()
    found = Script().get("base-models/demo/tiny-t5/").json()
    assert (found["adapters"], found["adapters_by_fit"]["fits"], found["recheck_wanted_at"]) == (1, 1, None)
    # One that has no weights yet is in no list.
    Adapter.objects.filter(base_model__name=added.json()["name"]).update(rank=None)
    assert script.get(f"base-models/{added.json()['name']}/").json()["adapters"] == 0
    waiting.refresh_from_db()
    assert waiting.is_composable
    assert Script().get("base-models/TINY/").json()["name"] == "demo/tiny-t5"
    assert Script().get("base-models/?q=tin").json()["results"][0]["aliases"] == ["tiny"]
    assert_refused(script.send("POST", "base-models/", said), 409, "name")
    assert_refused(script.send("POST", "base-models/", {**said, "name": "other"}), 409)
    assert_refused(Script().send("POST", "base-models/", said), 401)
    bad: list[dict[str, Any]] = [
        {"name": "a/b/c"},
        {"name": ""},
        {"config": "x"},
        {"name": "new", "config": {}},
        {"name": "new", "config": {"x": 1}},
        {"odd": 1},
    ]
    for change in bad:
        assert_refused(script.send("POST", "base-models/", {**said, "aliases": [], **change}), 400)


def test_files_of_a_hosted_base_model_are_served():
    base = make_base_model(kind=BaseModel.Kind.HOSTED)
    base.files.create(path="config.json", blob=storage.store_stream([b'{"model_type": "t5"}']))
    files = Script().get("base-models/demo/tiny-t5/").json()["files"]
    assert [file["path"] for file in files] == ["config.json"]
    answer = Script().client.get(files[0]["url"])
    assert answer.getvalue() == b'{"model_type": "t5"}'


def test_a_held_out_task_gives_its_examples_and_never_its_test_rows():
    make_task("who-twice", rows=5, test_rows=20, is_held_out=True)
    make_task("plain")
    task = Script().get("tasks/who-twice/").json()
    assert (task["held_out"], len(task["examples"]), task["test_rows"]) == (True, 5, 20)
    assert set(task["examples"][0]) == {"input", "output"}
    assert "test question" not in json.dumps(task)
    held_out = Script().get("tasks/?held_out=yes")
    assert [row["slug"] for row in held_out.json()["results"]] == ["who-twice"]
    assert "test question" not in held_out.content.decode()


def test_a_task_of_a_private_adapter_alone_is_not_shown(tmp_path):
    owner = make_user()
    publish_fake(tmp_path, owner=owner, visibility="private", task_title="My secret plan")
    assert Script().get("tasks/").json()["results"] == []
    assert_refused(Script().get("tasks/my-secret-plan/"), 404)
    assert Client().get("/tasks/my-secret-plan").status_code == 404
    assert "secret plan" not in Client().get("/tasks?kind=trained").content.decode()
    assert Script(make_token(owner)).get("tasks/my-secret-plan/").status_code == 200


def test_whoami_says_whose_token_it_is_and_where_it_may_publish():
    user = make_user("ada")
    make_organisation("lab", members={user: "read"})
    said = Script(make_token(user, "read", name="laptop")).get("whoami/").json()
    assert said["username"] == "ada"
    assert {(place["name"], place["role"]) for place in said["namespaces"]} == {
        ("ada", "admin"),
        ("lab", "read"),
    }
    assert (said["token"]["name"], said["token"]["scope"]) == ("laptop", "read")
    assert_refused(Script().get("whoami/"), 401)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Token {}", "with the word Bearer before it"),
        ("{}", "with the word Bearer before it"),
        ("hf_{}", "with the word Bearer before it"),
        ("Bearer ", "Is the variable set?"),
        ("Bearer lr_wrong", "unknown, expired or revoked"),
    ],
)
def test_a_token_that_is_sent_otherwise_makes_no_silent_guest(header: str, said: str):
    token = make_token(make_user("ada"))
    refused = Script().get("adapters/", Authorization=header.format(token))
    assert_refused(refused, 401)
    assert said in refused.json()["message"]
    assert Script().get("adapters/", Authorization="Basic b2Y6YXByb3h5").status_code == 200


@pytest.mark.parametrize("condition", ["If-Match", "If-Unmodified-Since"])
def test_a_change_on_a_condition_is_refused_instead_of_made_without_it(condition: str):
    ada = make_user("ada")
    adapter = make_adapter("m", owner=ada, description="before")
    script = Script(make_token(ada))
    for method in ("PATCH", "DELETE"):
        body = {"description": "after"} if method == "PATCH" else None
        refused = script.send(method, "adapters/ada/m/", body, **{condition: '"of-yesterday"'})
        assert_refused(refused, 400)
        assert f"without {condition}" in refused.json()["message"]
    adapter.refresh_from_db()
    assert (adapter.description, adapter.deleted_at) == ("before", None)
    assert script.get("adapters/ada/m/", **{condition: '"of-yesterday"'}).status_code == 200


def test_what_accepts_no_json_is_told_that_there_is_nothing_else():
    refused = Script().get("adapters/", Accept="text/csv")
    assert_refused(refused, 406)
    assert "answers in JSON" in refused.json()["message"]


def test_every_wrong_method_is_405_in_the_one_shape():
    script = Script(make_token(make_user()))
    for path in ("adapters/", "tasks/", "base-models/", "whoami/"):
        refused = script.send("PUT", path, {})
        assert_refused(refused, 405)
        assert refused.json()["message"].startswith("This address takes GET")
        assert refused["Allow"].startswith("GET")
    assert script.get("adapters/validate/").json()["message"] == "This address takes POST, not GET."


# --- Another name, and what is expected instead ------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "",
        "revisions/?limit=3",
        "revisions/main/",
        "lineage/",
        "files/",
        "files/README.md?revision=main",
        "archive",
    ],
)
def test_by_its_old_name_an_adapter_is_found_under_the_new_one(path: str):
    ada = make_user("ada")
    adapter = make_adapter("old", owner=ada, files={"README.md": b"# M"})
    moving.move(adapter, actor=ada, namespace=adapter.namespace, name="new")
    answer = Script().get(f"adapters/ada/old/{path}")
    assert (answer.status_code, answer["Location"]) == (307, f"/api/v1/adapters/ada/new/{path}")
    assert answer.json()["message"] == "ada/old is called ada/new now."
    assert Script().get(answer["Location"].removeprefix("/api/v1/")).status_code == 200
    Adapter.objects.update(visibility="private")
    assert Script().get(f"adapters/ada/old/{path}").status_code == 404


def test_a_change_by_the_old_name_is_led_on_and_made_by_the_new_one():
    ada = make_user("ada")
    adapter = make_adapter("old", owner=ada)
    moving.move(adapter, actor=ada, namespace=adapter.namespace, name="new")
    script = Script(make_token(ada))
    answer = script.send("PATCH", "adapters/ada/old/", {"description": "x"})
    assert (answer.status_code, answer["Location"]) == (307, "/api/v1/adapters/ada/new/")
    assert script.send("DELETE", "adapters/ada/old/", {}).status_code == 307
    assert Adapter.objects.alive().get().description != "x"


def test_refusals_say_what_is_expected():
    ada = make_user("ada")
    make_adapter("m", owner=ada)
    script = Script(make_token(ada))
    stranger = Script().send("PATCH", "adapters/ada/m/", {"description": "x"})
    assert "Authorization: Bearer lr_..." in stranger.json()["message"]
    form = script.client.patch(
        "/api/v1/adapters/ada/m/", "a=b", content_type="text/plain", headers=script.headers
    )
    assert form.status_code == 415
    assert form.json()["message"] == "Send the body as application/json, not as 'text/plain'."
    choice = script.send("PATCH", "adapters/ada/m/", {"visibility": "secret"})
    assert choice.json()["fields"] == {"visibility": ['"secret" is none of these: public, private.']}
    reserved = script.send("POST", "organizations/", {"name": "api"})
    assert list(reserved.json()["fields"]) == ["name"]
    listed = script.send("POST", "organizations/", [1]).json()
    assert listed["message"] == "Send the fields as one JSON object, not as list."
