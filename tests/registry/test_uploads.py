from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.http.multipartparser import MultiPartParser
from django.test import Client

from registry.errors import InspectionRefused
from registry.uploads import HashingUploadHandler, collect, without_common_folder
from tests.factories import make_user
from tests.fake_adapters import files_of, make_adapter


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["a/x", "a/y"], ["x", "y"]),
        (["a/b/x", "a/b/y"], ["x", "y"]),
        (["a/x", "b/y"], ["a/x", "b/y"]),
        (["x", "a/y"], ["x", "a/y"]),
        (["../x", "../y"], ["../x", "../y"]),
        (["/x"], ["/x"]),
        (["x"], ["x"]),
        ([], []),
    ],
)
def test_a_folder_around_all_files_is_taken_off_and_nothing_else(names, left):
    assert list(without_common_folder({name: Path(name) for name in names})) == left


def test_two_files_of_one_name_are_refused(rf):
    request = rf.post("/", {"files": [ContentFile(text, "a.txt") for text in (b"1", b"2")]})
    with pytest.raises(InspectionRefused, match="two files named"):
        collect(request.FILES.getlist("files"))
    request.close()


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/upload", "/accounts/login/"])
@pytest.mark.parametrize(
    ("setting", "value", "status"), [("MIN_FREE_DISK_BYTES", 2**60, 507), ("MAX_FILE_BYTES", 100, 413)]
)
def test_whatever_page_is_sent_files_refuses_early_and_in_words(
    tmp_path, settings, address, setting, value, status
):
    setattr(settings, setting, value)
    client = Client(enforce_csrf_checks=True)
    if address == "/upload":
        client.force_login(make_user())
    client.get(address)  # for the cookie, without which the form is not even read
    files = files_of(make_adapter(tmp_path / "a"))
    answer = client.post(address, {"name": "m", "files": [path.open("rb") for path in files.values()]})
    assert answer.status_code == status
    assert "Nothing was kept" in answer.content.decode()
    assert not any(settings.UPLOAD_TMP_DIR.iterdir())


class CountedReads(io.BytesIO):
    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        return super().read(size)


def test_a_large_file_is_taken_in_large_pieces(rf):
    """The web server copies what it has read ahead for every piece that is taken of it."""
    size = 8 * 1024**2
    head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="weights.bin"\r\n\r\n'
    body = CountedReads(head + bytes(size) + b"\r\n--edge--\r\n")
    meta = {
        "CONTENT_TYPE": "multipart/form-data; boundary=edge",
        "CONTENT_LENGTH": str(len(body.getvalue())),
    }

    _, files = MultiPartParser(meta, body, [HashingUploadHandler(rf.post("/"))], "utf-8").parse()

    assert files["files"].size == size
    assert body.reads < 32
