"""Importing from and pushing to a second site of ours: its own processes, data folder and database, over HTTP."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from huggingface_hub import HfApi

from registry import hub_jobs, hub_work, push_jobs
from registry.models import Adapter, ImportJob, Origin, PushJob, User
from tests.conftest import Ring
from tests.factories import (
    make_base_model,
    make_organisation,
    make_token,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.fake_adapters import make_adapter
from tests.registry.hub.test_clients_write import wide_adapter
from tests.registry.other_site import OtherSite, other_site

# Not inside a transaction: a job's heartbeat, from a thread of its own, would wait there for the test's end.
pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def site(empty_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherSite]:
    with other_site(empty_data, tmp_path_factory.mktemp("other-site")) as site:
        yield site


@pytest.fixture
def ada(site: OtherSite, settings: Any, rung: list[Ring]) -> User:
    settings.IMPORT_ENDPOINTS = settings.PUSH_ENDPOINTS = [site.address]
    make_base_model()
    return make_user("ada")


@pytest.fixture
def there(site: OtherSite) -> HfApi:
    """The real client, signed in on the other site."""
    return HfApi(endpoint=site.address, token=site.token)


def post(user: User, path: str, body: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {make_token(user)}"}
    return Client().post(f"/api/v1/{path}/", body, "application/json", headers=headers)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def push(adapter: Adapter, site: OtherSite, target: str, **options: Any) -> PushJob:
    assert adapter.head is not None
    assert adapter.created_by is not None
    options = {"token": site.token, **options}
    job = push_jobs.request_push(
        owner=adapter.created_by, adapter=adapter, revision=adapter.head, target=target, **options
    )
    hub_work.run_all("w")
    job.refresh_from_db()
    return job


# --- Import ------------------------------------------------------------------------------------------------------


def test_adapters_of_the_other_site_come_here_by_pattern(
    site: OtherSite, there: HfApi, ada: User, tmp_path: Path
):
    for n in range(3):
        card = "---\nlicense: mit\ntags: [colour]\n---\n# Says the colour\n"
        there.create_repo(f"colour-{n}", private=n == 2)
        there.upload_folder(
            repo_id=f"demo/colour-{n}", folder_path=make_adapter(tmp_path / str(n), seed=n, card=card)
        )
    for token, expected in (("", 2), (site.token, 3)):
        answer = post(ada, "imports", {"sources": ["demo/colour-*"], "token": token})
        hub_work.run_all("w")
        job = ImportJob.objects.get(pk=answer.json()["id"])
        assert (job.status, job.items.count()) == ("succeeded", expected)
    adapter = Adapter.objects.get(name="colour-2")
    info = there.model_info("demo/colour-2")
    assert Origin.objects.get(revision=adapter.head).commit == info.sha
    assert (adapter.license, adapter.tags, adapter.is_composable) == ("mit", ["colour"], True)
    assert [item.status for item in job.items.all()] == ["present", "present", "imported"]


# --- Push --------------------------------------------------------------------------------------------------------


def test_an_adapter_is_published_on_the_other_site_with_the_owners_token(
    site: OtherSite, there: HfApi, ada: User, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    adapter = publish_fake(tmp_path, "mixed", owner=ada, config={"card": "# Mixed"}, visibility="private")
    body = {"adapter": "ada/mixed", "token": site.token}
    answer = post(ada, "pushes", body)
    assert answer.status_code == 201
    job = PushJob.objects.get(pk=answer.json()["id"])
    assert site.token not in answer.content.decode() + _whole_database()
    hub_work.run_all("w")
    job.refresh_from_db()
    assert (job.status, job.error, job.sealed_token) == ("succeeded", "", "")
    assert (job.target, job.url) == ("demo/mixed", f"{site.address}/demo/mixed")
    assert site.token not in caplog.text
    info = there.model_info("demo/mixed", files_metadata=True)
    assert (info.sha, info.private) == (job.commit, True)
    assert adapter.head is not None
    weights = adapter.head.files.get(is_lfs=True)
    sizes = {file.rfilename: file for file in info.siblings or []}
    assert sizes[weights.path].lfs is not None
    assert sizes[weights.path].lfs.sha256 == weights.blob.sha256
    assert set(sizes) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    page = signed_in(ada).get(job.get_absolute_url()).content.decode()
    assert job.url in page
    assert "deleted" in page
    # Once more nothing changes there, and a new version here is a new commit there.
    assert push(adapter, site, "demo/mixed").commit == job.commit
    newer = publish_fake(tmp_path, "mixed", owner=ada, config={"seed": 3})
    assert push(newer, site, "demo/mixed").commit not in ("", job.commit)


def test_what_came_back_from_the_other_site_is_not_fetched_again(site: OtherSite, ada: User, tmp_path: Path):
    adapter = publish_fake(tmp_path, "there-and-back", owner=ada)
    push(adapter, site, "demo/there-and-back")
    post(ada, "imports", {"sources": ["demo/there-and-back"], "name": "back"})
    hub_work.run_all("w")
    item = ImportJob.objects.get().items.get()
    assert (item.status, item.fetched_bytes) == ("imported", 0)
    assert Adapter.objects.get(name="back").head.tensor_sha256 == adapter.head.tensor_sha256


def test_large_weights_travel_by_what_the_other_site_takes(
    site: OtherSite, there: HfApi, ada: User, tmp_path: Path
):
    from registry.publishing import publish
    from tests.fake_adapters import files_of

    folder = wide_adapter(tmp_path / "wide", megabytes=36)
    adapter = publish(author=ada, namespace=namespace_of(ada), name="wide", files=files_of(folder))
    job = push(adapter, site, "demo/wide")
    assert (job.status, job.error) == ("succeeded", "")
    assert job.bytes_done == job.bytes_total > 32 * 2**20
    (found,) = there.get_paths_info("demo/wide", "adapter_model.safetensors")
    assert found.lfs.sha256 == adapter.head.files.get(is_lfs=True).blob.sha256


def test_a_token_that_does_not_do_ends_the_push_with_a_sentence(site: OtherSite, ada: User, tmp_path: Path):
    adapter = publish_fake(tmp_path, "mine", owner=ada)
    wrong = push(adapter, site, "demo/mine", token="lr_not-a-token")
    assert (wrong.status, wrong.sealed_token) == ("failed", "")
    assert "does not accept this token" in wrong.error
    foreign = push(adapter, site, "somebody/mine")
    assert foreign.status == "failed"
    assert "refuses" in foreign.error
    with pytest.raises(urllib.error.HTTPError):
        site.ask("/api/models/demo/mine", site.token)


def test_a_push_whose_worker_was_lost_is_done_again_and_no_more_than_three_times(
    site: OtherSite, there: HfApi, ada: User, tmp_path: Path
):
    adapter = publish_fake(tmp_path, "lost", owner=ada)
    assert adapter.head is not None
    job = push_jobs.request_push(
        owner=ada, adapter=adapter, revision=adapter.head, token=site.token, target="demo/lost"
    )
    lost = {"status": "running", "lease_until": timezone.now() - timedelta(seconds=1), "attempt": 1}
    PushJob.objects.update(**lost)
    hub_work.run_all("w")
    job.refresh_from_db()
    assert (job.status, job.losses) == ("succeeded", 1)
    PushJob.objects.update(**{**lost, "losses": 2})
    hub_work.run_all("w")
    job.refresh_from_db()
    assert job.status == "failed"
    assert "lost 3 times" in job.error


def test_a_push_is_cancelled_before_its_commit(site: OtherSite, there: HfApi, ada: User, tmp_path: Path):
    adapter = publish_fake(tmp_path, "stopped", owner=ada)
    assert adapter.head is not None
    job = push_jobs.request_push(
        owner=ada, adapter=adapter, revision=adapter.head, token=site.token, target="demo/stopped"
    )
    PushJob.objects.update(is_cancel_wanted=True)
    hub_work.run_all("w")
    job.refresh_from_db()
    assert (job.status, job.sealed_token) == ("cancelled", "")
    assert not there.repo_exists("demo/stopped")


def test_only_who_may_change_an_adapter_pushes_it(site: OtherSite, ada: User, tmp_path: Path):
    adapter = publish_fake(tmp_path, "ours", owner=ada)
    eve = make_user("eve")
    body = {"adapter": "ada/ours", "token": site.token}
    assert post(eve, "pushes", body).status_code == 403
    Adapter.objects.filter(pk=adapter.pk).update(visibility="private")
    assert post(eve, "pushes", body).status_code == 404
    assert signed_in(eve).get("/ada/ours/push").status_code == 404
    assert Client().get("/ada/ours/push").status_code == 302
    make_organisation("team", members={eve: "read"})
    assert not PushJob.objects.exists()
    mine = push(adapter, site, "demo/ours")
    assert signed_in(eve).get(mine.get_absolute_url()).status_code == 404
    assert Client().get(f"/api/v1/pushes/{mine.pk}/").status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "http://169.254.169.254"},
        {"token": ""},
        {"target": "a/b/c"},
        {"target": "../x"},
        {"visibility": "some"},
        {"revision": "v9"},
        {"adapter": "ada/none"},
        {"more": 1},
    ],
)
def test_what_cannot_be_pushed_is_refused_at_once(
    site: OtherSite, ada: User, tmp_path: Path, changes: dict[str, Any]
):
    publish_fake(tmp_path, "ours", owner=ada)
    answer = post(ada, "pushes", {"adapter": "ada/ours", "token": site.token, **changes})
    assert answer.status_code in (400, 404)
    assert answer.json()["message"]
    assert not PushJob.objects.exists()


def test_the_page_takes_a_token_and_never_gives_it_back(site: OtherSite, ada: User, tmp_path: Path):
    publish_fake(tmp_path, "ours", owner=ada)
    client = signed_in(ada)
    assert b"Publish on another Hub" in client.get("/ada/ours/push").content
    said = {"endpoint": site.address, "target": "a/b/c", "visibility": "private", "token": site.token}
    wrong = client.post("/ada/ours/push", said)
    assert wrong.status_code == 400
    assert site.token.encode() not in wrong.content
    answer = client.post("/ada/ours/push", {**said, "target": "by-page"})
    job = PushJob.objects.get()
    assert answer["Location"] == job.get_absolute_url()
    assert b"hx-get" in client.get(f"{answer['Location']}/progress").content
    hub_work.run_all("w")
    assert b"hx-get" not in client.get(f"{answer['Location']}/progress").content
    assert b"demo/by-page" in client.get("/pushes").content
    job.refresh_from_db()
    with pytest.raises(hub_jobs.AlreadyEnded):
        hub_jobs.cancel(job)


def _whole_database() -> str:
    with connection.cursor() as cursor:
        said = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            said.append(str(cursor.fetchall()))
    return "\n".join(said)
