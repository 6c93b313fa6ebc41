from __future__ import annotations

import io
import os
import urllib.request
import zipfile

import pytest
from django.http import FileResponse
from django.test import Client

from registry import downloads, storage
from registry.models import Adapter, Download
from tests.factories import make_adapter, make_revision, make_token, make_user

pytestmark = pytest.mark.django_db
CONTENT = bytes(range(256)) * 10
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": CONTENT, "extra/a b.txt": b"text"}


@pytest.fixture
def adapter():
    return make_adapter("m", owner=make_user("ada"), files=FILES)


def fetch(path: str = "adapter_model.safetensors", *, method: str = "get", **headers: str):
    client = Client()
    return getattr(client, method)(f"/api/v1/adapters/ada/m/files/{path}", headers=headers)


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, 2560),
        ("bytes=-7", 2553, 2560),
        ("bytes=2559-2559", 2559, 2560),
        ("bytes=0-999999999999999999", 0, 2560),
        ("bytes=-99999", 0, 2560),
    ],
)
def test_a_range_is_answered_with_206_and_its_bytes(adapter, header, start, stop):
    answer = fetch(Range=header)
    assert answer.status_code == 206
    assert answer.getvalue() == CONTENT[start:stop]
    assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/2560"
    assert answer["Content-Length"] == str(stop - start)


def test_a_range_can_be_sent_by_the_kernel_from_its_place(adapter, rf):
    blob = downloads.file_called(adapter.head, "adapter_model.safetensors").blob
    answer = downloads.file_response(rf.get("/", headers={"Range": "bytes=100-109"}), blob, "m")
    assert isinstance(answer, FileResponse)
    assert os.lseek(answer.file_to_stream.fileno(), 0, os.SEEK_CUR) == 100
    answer.close()


@pytest.mark.parametrize("header", ["bytes=2560-", "bytes=-0", "bytes=9999-99999"])
def test_a_range_outside_the_file_is_416(adapter, header):
    answer = fetch(Range=header)
    assert answer.status_code == 416
    assert answer["Content-Range"] == "bytes */2560"
    assert answer.json()["message"] == "The range lies outside of the file, which has 2,560 bytes."


@pytest.mark.parametrize(
    "header",
    ["bytes=5-2", "bytes=a-b", "bytes=0-1,4-5", "lines=0-1", "bytes=-", "", "bytes=" + "9" * 40 + "-"],
)
def test_a_range_that_cannot_be_read_gives_the_whole_file(adapter, header):
    answer = fetch(Range=header)
    assert answer.status_code == 200
    assert answer.getvalue() == CONTENT


def test_a_range_of_another_version_gives_the_whole_file(adapter):
    etag = fetch()["ETag"]
    assert fetch(Range="bytes=0-1", **{"If-Range": etag}).status_code == 206
    assert fetch(Range="bytes=0-1", **{"If-Range": '"old"'}).status_code == 200


def test_head_says_everything_and_sends_nothing(adapter):
    answer = fetch(method="head")
    assert answer.status_code == 200
    assert answer["Content-Length"] == "2560"
    assert answer["Accept-Ranges"] == "bytes"
    assert answer.content == b""
    assert Download.objects.count() == 0


def test_the_etag_is_the_sha256_and_spares_a_second_transfer(adapter):
    blob = adapter.head.files.get(path="adapter_model.safetensors").blob
    answer = fetch()
    assert answer["ETag"] == f'"{blob.sha256}"'
    again = fetch(**{"If-None-Match": answer["ETag"]})
    assert again.status_code == 304
    assert not again.content


def test_files_are_attachments_that_no_browser_runs(adapter):
    for path in FILES:
        answer = fetch(path.replace(" ", "%20"))
        assert answer["Content-Disposition"].startswith("attachment; filename=")
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert answer["Content-Disposition"] == "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"


def test_files_are_sent_whatever_the_client_accepts(adapter):
    assert fetch(Accept="text/html").status_code == 200
    assert fetch(Accept="application/octet-stream").status_code == 200


def test_a_download_counts_once_a_client_day_and_revision(adapter):
    def downloads_now() -> int:
        adapter.refresh_from_db()
        return adapter.downloads

    for _ in range(3):
        fetch(**{"User-Agent": "one"})
    fetch(Range="bytes=5-9", **{"User-Agent": "one"})
    assert downloads_now() == 1
    fetch(**{"User-Agent": "two"})
    assert downloads_now() == 2
    fetch("adapter_config.json", **{"User-Agent": "three"})
    assert downloads_now() == 2
    token = {"Authorization": f"Bearer {make_token(make_user(), 'read')}"}
    fetch(**token, **{"User-Agent": "a"})
    fetch(**token, **{"User-Agent": "b"})
    assert downloads_now() == 3
    make_revision(adapter)
    fetch(**{"User-Agent": "one"})
    assert downloads_now() == 4
    assert all("one" not in row.client_sha256 for row in Download.objects.all())


def test_the_archive_is_a_zip_of_all_files_and_the_same_every_time(adapter):
    answers = [Client().get("/api/v1/adapters/ada/m/archive") for _ in range(2)]
    first, second = (answer.getvalue() for answer in answers)
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"m/{path}": content for path, content in FILES.items()
        }
    assert answers[0]["Content-Disposition"].startswith('attachment; filename="ada--m-')
    adapter.refresh_from_db()
    assert adapter.downloads == 1


@pytest.mark.parametrize("path", ["/api/v1/adapters/ada/m/archive", "/ada/m/download/COMMIT.zip"])
def test_an_archive_that_is_known_is_not_sent_again(adapter, path):
    path = path.replace("COMMIT", adapter.head.commit)
    etag = Client().head(path)["ETag"]
    answer = Client().get(path, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", etag)
    assert not Download.objects.exists()
    Adapter.objects.update(name="n")
    assert Client().get(path.replace("/m/", "/n/"), headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    ("header", "count"),
    [("bytes=0-0", 0), ("bytes=0-99", 0), ("bytes=-1", 0), ("bytes=9-", 1), ("bytes=0-", 1)],
)
def test_a_few_bytes_are_no_download_and_the_end_of_a_file_is(adapter, header, count):
    fetch(Range=header)
    assert Download.objects.count() == count


def test_the_archive_never_holds_more_than_some_pieces(adapter, monkeypatch):
    monkeypatch.setattr(downloads.storage, "CHUNK_BYTES", 64)
    pieces = list(downloads._zip(list(adapter.head.files.select_related("blob").order_by("path")), "m"))
    assert max(map(len, pieces)) < 1000


def test_the_server_before_us_sends_the_bytes_where_there_is_one(adapter, settings):
    settings.X_ACCEL_REDIRECT_PREFIX = "/blobs/"
    blob = adapter.head.files.get(path="adapter_model.safetensors").blob
    answer = fetch()
    assert answer["X-Accel-Redirect"] == f"/blobs/{blob.sha256[:2]}/{blob.sha256[2:4]}/{blob.sha256}"
    assert answer.content == b""
    assert Download.objects.count() == 1
    fetch(Range="bytes=0-99", **{"User-Agent": "one that looks at the header"})
    assert Download.objects.count() == 1
    assert answer["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_a_revision_is_found_by_branch_commit_and_part_of_it(adapter):
    first = adapter.head
    second = make_revision(adapter)
    assert downloads.revision_called(adapter) == second
    assert downloads.revision_called(adapter, "main") == second
    assert downloads.revision_called(adapter, first.commit) == first
    assert downloads.revision_called(adapter, first.commit[:8]) == first


@pytest.mark.services
def test_from_an_object_store_files_ranges_and_archives_are_streamed_or_handed_over(s3_storage, settings):
    make_adapter("m", owner=make_user("ada"), files=FILES)
    assert fetch().getvalue() == CONTENT
    part = fetch(Range="bytes=10-19")
    assert (part.status_code, part.getvalue()) == (206, CONTENT[10:20])
    with zipfile.ZipFile(io.BytesIO(Client().get("/api/v1/adapters/ada/m/archive").getvalue())) as archive:
        assert archive.read("m/adapter_model.safetensors") == CONTENT
    settings.S3_SIGNED_DOWNLOADS = True
    answer = fetch(Range="bytes=10-19")
    assert answer.status_code == 302
    with urllib.request.urlopen(answer["Location"]) as signed:
        assert signed.read() == CONTENT
        assert signed.headers["Content-Disposition"].startswith("attachment")


# --- Bytes that are not there any more -----------------------------------------------------------------------

LOST = [
    "/api/v1/adapters/ada/m/files/adapter_model.safetensors",
    "/api/v1/adapters/ada/m/archive",
    "/ada/m/resolve/main/adapter_model.safetensors",
]


@pytest.fixture(params=["disk", "s3"])
def damaged(request, adapter):
    """The adapter, after fsck found its weights and its card damaged and put them aside."""
    if request.param == "s3":
        request.getfixturevalue("s3_storage")
    adapter = make_adapter(
        "s", owner=adapter.namespace.memberships.get().user, files={**FILES, "README.md": b"# S"}
    )
    for file in adapter.head.files.filter(path__in=["adapter_model.safetensors", "README.md"]):
        storage.put_aside(file.blob)
    return adapter


@pytest.mark.parametrize("path", LOST)
@pytest.mark.parametrize("header", [{}, {"Range": "bytes=0-9"}])
def test_a_damaged_file_is_refused_in_words_and_the_rest_goes_on(damaged, path, header):
    if "archive" in path and not storage.is_on_disk():
        pytest.skip("what an object store lacks is known only when the archive has begun")
    answer = Client().get(path.replace("/m/", "/s/"), headers=header)
    assert answer.status_code == 503
    assert "lost or damaged on this server" in answer.content.decode()
    assert fetch("adapter_config.json").status_code == 200


def test_the_page_of_an_adapter_with_damaged_files_is_there(damaged):
    page = Client().get("/ada/s")
    assert page.status_code == 200
    assert "lost or damaged" in page.content.decode()


def test_what_was_damaged_is_back_once_it_is_sent_again(damaged):
    storage.store_stream([CONTENT])
    assert b"".join(Client().get(LOST[0].replace("/m/", "/s/"))) == CONTENT
