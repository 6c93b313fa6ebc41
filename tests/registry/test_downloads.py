from __future__ import annotations

import io
import os
import re
import urllib.request
import zipfile
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db.models import F
from django.http import FileResponse
from django.test import Client
from django.utils import timezone

from registry import download_days, downloads, storage
from registry.models import Adapter, Download, Revision
from tests.factories import make_adapter, make_revision, make_token, make_user
from tests.plans import plans

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


def fetched(revision: Revision | None, *, days_ago: int, times: int) -> None:
    """As if so many clients had fetched it that day."""
    assert revision is not None
    day = timezone.now().date() - timedelta(days=days_ago)
    Download.objects.bulk_create(
        Download(revision=revision, client_sha256=f"{days_ago}-{number}", day=day) for number in range(times)
    )
    Adapter.objects.filter(pk=revision.adapter_id).update(downloads=F("downloads") + times)


def made(adapter: Adapter, *, days_ago: int) -> None:
    Adapter.objects.filter(pk=adapter.pk).update(created_at=timezone.now() - timedelta(days=days_ago))


def test_downloads_are_told_by_day_of_all_versions_and_of_the_last_thirty_days(adapter):
    made(adapter, days_ago=200)
    fetched(adapter.head, days_ago=30, times=9)
    fetched(adapter.head, days_ago=29, times=2)
    fetched(make_revision(adapter), days_ago=29, times=3)
    fetched(make_adapter("other", owner=make_user("bob"), files=FILES).head, days_ago=1, times=7)

    def told() -> list[int]:
        answer = Client().get("/api/v1/adapters/ada/m/").json()
        days = [entry["day"] for entry in answer["downloads_by_day"]]
        today = timezone.now().date()
        assert days == [str(today - timedelta(days=ago)) for ago in range(29, -1, -1)]
        return [entry["count"] for entry in answer["downloads_by_day"]]

    assert told() == [5] + 29 * [0]
    fetch()
    assert told() == [5, *28 * [0], 1]


def test_days_before_a_module_was_made_are_left_out(adapter):
    made(adapter, days_ago=3)
    fetched(adapter.head, days_ago=2, times=4)
    days = download_days.days_of(Adapter.objects.get(pk=adapter.pk))
    assert [day.count for day in days] == [0, 4, 0, 0]
    picture = download_days.draw(days)
    assert (picture.total, picture.busiest.count, len(picture.bars)) == (4, 4, 4)
    assert [bar.height > 0 for bar in picture.bars] == [False, True, False, False]
    assert picture.bars[-1].x == pytest.approx(100 - 100 / 30, abs=0.01)  # today is at the right


def test_of_a_module_without_downloads_the_days_are_not_asked_for(adapter, django_assert_num_queries):
    made(adapter, days_ago=1)
    never_fetched = Adapter.objects.get(pk=adapter.pk)
    with django_assert_num_queries(0):
        assert [day.count for day in download_days.days_of(never_fetched)] == [0, 0]


def test_a_download_about_midnight_is_of_its_day_though_that_was_asked_for_before(adapter):
    made(adapter, days_ago=9)
    for days_ago, told in [(5, 1), (1, 2)]:
        fetched(adapter.head, days_ago=days_ago, times=1)
        days = download_days.days_of(Adapter.objects.get(pk=adapter.pk))
        assert sum(day.count for day in days) == told


def test_one_download_is_seen_beside_thousands():
    today = timezone.now().date()
    days = [download_days.DownloadDay(today, count) for count in (1, 5000)]
    assert [bar.height for bar in download_days.draw(days).bars] == [1.5, 40]


def test_the_page_of_a_module_says_of_its_downloads_when_they_were(adapter):
    def said() -> str:
        page = Client().get("/ada/m").content.decode()
        fact = page[page.index("<dt>downloads</dt>") :].partition("</dd>")[0]
        named = re.findall(r"<title>\d+ [A-Z][a-z]+: [\d,]+</title>", fact)
        assert fact.count("<rect") == len(named)
        return f"{len(named)} bars: " + fact.partition('<p class="fine">')[2].partition("</p>")[0]

    counts = "Each client counts once a day for each version."
    assert said() == "0 bars: "
    fetch()
    assert said() == f"1 bars: 1 today. {counts}"
    made(adapter, days_ago=80)
    fetched(adapter.head, days_ago=4, times=2)
    busiest = timezone.now().date() - timedelta(days=4)
    assert said() == f"2 bars: 3 in the last 30 days, most on {busiest.day} {busiest:%B}: 2. {counts}"
    Download.objects.all().delete()
    cache.clear()
    assert said() == f"0 bars: None in the last 30 days. {counts}"


@pytest.mark.postgres_only
def test_the_days_of_very_many_downloads_are_read_from_an_index(adapter):
    fetched(adapter.head, days_ago=0, times=1)
    adapter.refresh_from_db()
    with plans() as lines:
        download_days.days_of(adapter)
    assert any("using download_days on" in line for line in lines), lines


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
