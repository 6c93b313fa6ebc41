"""One upload after the other, each with a disk that fails at its next operation: nothing half done, and the next works."""

from __future__ import annotations

import errno
import gc
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from registry import fsck
from registry.models import Adapter, Revision
from tests.factories import make_base_model, make_user
from tests.fake_adapters import files_of
from tests.fake_adapters import make_adapter as write_adapter
from tests.faults import Disk

pytestmark = pytest.mark.django_db(transaction=True)
MOST_OPERATIONS = 400


def send(client: Client, name: str, folder: Path) -> tuple[int, str]:
    """Publish over the API; status and text of the answer."""
    files = [SimpleUploadedFile(path.name, path.read_bytes()) for path in files_of(folder).values()]
    answer = client.post("/api/v1/adapters/", {"name": name, "files": files})
    return answer.status_code, answer.content.decode()


# A file left unclosed says so when it is collected, where nobody hears it.
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("number", "status", "word"), [(errno.ENOSPC, 507, "space"), (errno.EIO, 503, "could not be written")]
)
def test_whatever_operation_of_an_upload_fails_nothing_is_kept_and_the_next_one_works(
    number, status, word, data_dir, tmp_path
):
    make_base_model()
    client = Client(raise_request_exception=False)
    client.force_login(make_user("ada"))
    failed: list[str] = []
    gc.collect()
    gc.freeze()  # what is here already need not be looked through after every upload
    for at in range(1, MOST_OPERATIONS):
        name = f"module-{at}"
        folder = write_adapter(tmp_path / name, seed=at)  # bytes that are not there yet
        with Disk(data_dir, fails_at=at, errno=number).at_work() as disk:
            answer, text = send(client, name, folder)
        gc.collect()
        if not disk.has_failed:
            break
        failed.append(disk.done[at - 1])
        where = f"operation {at}, {disk.done[at - 1]}: {text}"
        # 201 where everything was done and the failure met the tidying up.
        assert answer in {status, 201}, where
        assert (answer == 201) == Adapter.objects.filter(name=name).exists(), where
        assert Revision.objects.count() == Adapter.objects.count(), where
        assert answer == 201 or word in text
        assert [finding for finding in fsck.check() if finding.kind != fsck.ORPHAN] == [], where
    gc.unfreeze()
    assert answer == 201, "the upload without a failure"
    assert len(failed) >= 20, "every write, flush, link and rename had its turn"
    assert {"write", "fsync", "replace", "link"} <= set(failed)
    folder = write_adapter(tmp_path / "again", seed=1)
    assert send(client, "again", folder)[0] == 201, "what failed first works now"
    assert [finding for finding in fsck.check() if finding.kind != fsck.ORPHAN] == []
