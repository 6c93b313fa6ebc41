"""Our own corpus of hostile and odd uploads, behind every door: nothing bad is taken, nothing good is refused, no answer
is an error of ours, and nothing is left behind. With `--whole` every case goes through every door."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from registry import importing, preparing, sweeping
from registry.models import Adapter, Blob, Revision, User
from registry.other_hubs import SourceFile
from tests import hostile_corpus
from tests.factories import make_base_model, make_token, make_user, namespace_of
from tests.hostile_corpus import Case, Files
from web.errors import DomainError

pytestmark = pytest.mark.django_db

EVERY = 7  # of the cases, behind each door, another seventh each; all of them go through `preparing.validate`
BOUNDARY = "lora-commons-test-boundary"
LEFT_ASIDE_BY_IMPORTS = ("files: a file called", "files: two different", "files: ADAPTER_MODEL")
RAN = Path("/tmp/lora-commons-pickle-ran")
BAD, GOOD = list(hostile_corpus.bad()), list(hostile_corpus.good())


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def ada() -> User:
    make_base_model()
    return make_user("ada")


def test_the_corpus_is_large_and_every_case_has_a_name_of_its_own():
    assert len(BAD) >= 200
    assert len(GOOD) >= 50
    names = [name for name, _ in BAD + GOOD]
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]


# --- Doors: each gives back the status of its answer ---------------------------------------------------------------


def form_body(files: Files, fields: dict[str, str]) -> bytes:
    out = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, content in files.items():
        disposition = f'form-data; name="files"; filename="{name}"'
        out.append(f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join([*out, f"--{BOUNDARY}--\r\n".encode()])


def by_rest(user: User, secret: str, name: str, files: Files) -> int:
    return int(_post("/api/v1/adapters/", secret, form_body(files, {"name": name})).status_code)


def by_validation(user: User, secret: str, name: str, files: Files) -> int:
    answer = _post("/api/v1/adapters/validate/", secret, form_body(files, {}))
    if answer.status_code != 200:
        return int(answer.status_code)
    return 400 if answer.json()["problems"] else 200


def _post(address: str, secret: str, body: bytes) -> Any:
    return Client(raise_request_exception=False).generic(
        "POST",
        address,
        body,
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
        headers={"Authorization": f"Bearer {secret}"},
    )


def by_page(user: User, secret: str, name: str, files: Files) -> int:
    client = Client(raise_request_exception=False)
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    said = {"namespace": user.username, "name": name, "visibility": "public"}
    body = form_body({f"{place}.part": content for place, content in enumerate(files.values())}, said)
    paths = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="paths"\r\n\r\n{path}\r\n' for path in files
    )
    answer = client.generic(
        "POST",
        "/upload",
        paths.encode("utf-8", "surrogatepass") + body,
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
        headers={"Accept": "application/json"},
    )
    return int(answer.status_code)


def by_hub(user: User, secret: str, name: str, files: Files) -> int:
    client = Client(raise_request_exception=False)
    token = {"Authorization": f"Bearer {secret}"}
    made = client.post(
        "/api/repos/create", {"name": name, "type": "model"}, content_type="application/json", headers=token
    )
    assert made.status_code == 200
    lines = [{"key": "header", "value": {"summary": "x"}}]
    for path, content in files.items():
        value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
        lines.append({"key": "file", "value": value})
    answer = client.generic(
        "POST",
        f"/api/models/{user.username}/{name}/commit/main",
        "\n".join(map(json.dumps, lines)),
        content_type="application/x-ndjson",
        headers=token,
    )
    return int(answer.status_code)


class FakeHub:
    """Another Hub that has these files, and says the truth about neither their names nor their sizes."""

    endpoint = "https://huggingface.co"

    def __init__(self, files: Files) -> None:
        self.files = files

    def __enter__(self) -> FakeHub:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def commit_of(self, source: str, revision: str = "") -> tuple[str, str]:
        return source, "0" * 40

    def files_of(self, source: str, commit: str) -> list[SourceFile]:
        return [SourceFile(path, len(content), "", "") for path, content in self.files.items()]

    def fetch(self, source: str, commit: str, file: SourceFile, target: Path, *, tick: Any) -> int:
        target.write_bytes(self.files[file.path])
        return file.size_bytes


def by_import(user: User, files: Files, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(importing, "OtherHub", lambda endpoint, token: FakeHub(files))
    try:
        importing.import_adapter(actor=user, namespace=namespace_of(user), source=f"them/{name}", name=name)
    except DomainError as error:
        return error.status
    return 200


def is_cut_by_forms(case: Case) -> bool:
    """Whether a browser could not send these names: line ends and NUL would end the field of a form."""
    return any(letter in name for name in case[1] for letter in "\n\r\0")


def chosen(cases: list[Case], request: pytest.FixtureRequest, door: int) -> list[Case]:
    return cases if request.config.getoption("--whole") else cases[door % EVERY :: EVERY]


def leftovers() -> list[str]:
    found = [str(path) for path in Path(settings.UPLOAD_TMP_DIR).rglob("*")]
    return found + (["a pickle ran"] if RAN.exists() else [])


def assert_sound(cases: list[Case], go: Callable[[str, Files], int], *, is_good: bool) -> None:
    wrong = []
    for number, (name, files) in enumerate(cases):
        status = go(f"case-{'good' if is_good else 'bad'}-{number}", files)
        if status >= 500 or (status < 300) != is_good:
            wrong.append(f"{name}: {status}")
    assert wrong == []
    assert leftovers() == []


# --- The trials ------------------------------------------------------------------------------------------------


def test_every_case_is_judged_rightly_by_the_rules_themselves(tmp_path, ada):
    wrong = []
    for number, (is_good, (name, files)) in enumerate(
        [(False, case) for case in BAD] + [(True, case) for case in GOOD]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths = {}
        for place, (path, content) in enumerate(files.items()):
            paths[path] = folder / str(place)
            paths[path].write_bytes(content)
        report = preparing.validate(author=ada, files=paths)
        if report.is_publishable != is_good:
            wrong.append(f"{name}: {report.problems[:1]}")
        if not is_good and not all(problem["message"].strip() for problem in report.problems):
            wrong.append(f"{name}: without words")
    assert wrong == []
    assert leftovers() == []
    assert not Blob.objects.exists()


DOORS = {"rest": by_rest, "validation": by_validation, "page": by_page, "hub": by_hub}


@pytest.mark.parametrize("door", sorted(DOORS))
def test_nothing_bad_comes_through(door, ada, request):
    cases = chosen(BAD, request, sorted(DOORS).index(door))
    if door != "hub":
        cases = [case for case in cases if not is_cut_by_forms(case)]
    secret = make_token(ada)
    assert_sound(cases, lambda name, files: DOORS[door](ada, secret, name, files), is_good=False)
    empty = Revision.objects.filter(files__isnull=True).count() if door == "hub" else 0
    assert Revision.objects.count() == empty, "only the empty first commits of the Hub's repositories"
    sweeping.sweep_storage()
    assert not Blob.objects.filter(senders__isnull=True).exists()


@pytest.mark.parametrize("door", sorted(DOORS))
def test_nothing_good_is_refused(door, ada, request):
    cases = chosen(GOOD, request, sorted(DOORS).index(door))
    secret = make_token(ada)
    assert_sound(cases, lambda name, files: DOORS[door](ada, secret, name, files), is_good=True)
    if door != "validation":
        assert Adapter.objects.exclude(rank=None).count() == len(cases)


def test_an_import_follows_the_same_rules(ada, request, monkeypatch):
    bad, good = chosen(BAD, request, 4), chosen(GOOD, request, 4)
    # What an import would not take along at all is not refused: names and pickles beside good weights.
    bad = [case for case in bad if not case[0].startswith(LEFT_ASIDE_BY_IMPORTS)]
    assert_sound(bad, lambda name, files: by_import(ada, files, name, monkeypatch), is_good=False)
    assert not Adapter.objects.exists()
    assert_sound(good, lambda name, files: by_import(ada, files, name, monkeypatch), is_good=True)


def test_what_is_served_is_what_was_sent(ada):
    """Files that could be pages come as attachments that run nothing, byte for byte (F29)."""
    files = {
        **hostile_corpus.upload(),
        "README.md": b"<script>alert(1)</script>\n",
        "notes.txt": b"<svg onload=alert(1)>",
    }
    assert by_rest(ada, make_token(ada), "m", files) == 201
    commit = Adapter.objects.get().head.commit
    for path, content in files.items():
        for address in (
            f"/ada/m/download/{commit}/{path}",
            f"/api/v1/adapters/ada/m/files/{path}",
            f"/ada/m/resolve/main/{path}",
        ):
            answer: Any = Client().get(address)
            assert b"".join(answer.streaming_content) == content
            assert answer["Content-Disposition"].startswith("attachment"), address
            assert answer["X-Content-Type-Options"] == "nosniff"
            assert "sandbox" in answer["Content-Security-Policy"], address
            assert not {"html", "svg"} & set(answer["Content-Type"].replace("+", "/").split("/")), address
