"""Finding an adapter by the hash of one of its files, or of its tensors whatever file holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from registry import search
from registry.models import Adapter
from tests.factories import make_base_model, make_token, make_user, publish_fake

pytestmark = pytest.mark.django_db


def ask(sha256: str, token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Client().get(f"/api/v1/hashes/{sha256}/", headers=headers)


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    make_base_model()
    return publish_fake(tmp_path, "colour", owner=make_user("ada"), config={"card": "# Colour"})


def test_a_file_and_its_tensors_lead_to_the_revision(adapter: Adapter, tmp_path: Path):
    head = adapter.head
    assert head is not None
    weights = head.files.get(is_lfs=True)
    (row,) = ask(weights.blob.sha256.upper()).json()["results"]
    assert (row["adapter"], row["commit"], row["path"], row["is_newest"]) == (
        "ada/colour",
        head.commit,
        "adapter_model.safetensors",
        True,
    )
    (row,) = ask(head.tensor_sha256).json()["results"]
    assert (row["adapter"], row["path"]) == ("ada/colour", None)


def test_the_same_bytes_elsewhere_and_in_older_versions_are_found_too(adapter: Adapter, tmp_path: Path):
    head = adapter.head
    assert head is not None
    sha256 = head.files.get(is_lfs=True).blob.sha256
    publish_fake(tmp_path, "twin", owner=make_user("bob"))
    publish_fake(tmp_path, "colour", owner=adapter.created_by, config={"seed": 5})
    rows = ask(sha256).json()["results"]
    assert [(row["adapter"], row["is_newest"]) for row in rows] == [("bob/twin", True), ("ada/colour", False)]


def test_private_files_are_found_by_their_members_only(adapter: Adapter):
    Adapter.objects.update(visibility="private")
    head = adapter.head
    assert head is not None
    assert adapter.created_by is not None
    assert ask(head.tensor_sha256).json()["results"] == []
    assert ask(head.tensor_sha256, make_token(make_user("eve"))).json()["results"] == []
    assert len(ask(head.tensor_sha256, make_token(adapter.created_by)).json()["results"]) == 1


@pytest.mark.parametrize("sha256", ["abc", "z" * 64, "a" * 65])
def test_what_is_no_hash_is_refused(sha256: str):
    assert ask(sha256).status_code == 400


def test_the_page_leads_from_a_hash_to_the_module_and_the_search_field_leads_to_the_page(adapter: Adapter):
    head = adapter.head
    assert head is not None
    sha256 = head.files.get(is_lfs=True).blob.sha256
    client = Client()
    page = client.get("/modules", {"q": sha256}, follow=True)
    assert page.redirect_chain == [(f"/hashes?sha256={sha256}", 302)]
    assert b"ada/colour" in page.content
    assert b"adapter_model.safetensors" in page.content
    assert b"its tensors" in client.get("/hashes", {"sha256": head.tensor_sha256}).content
    assert b"Nothing here has it" in client.get("/hashes", {"sha256": "0" * 64}).content
    Adapter.objects.update(visibility="private")
    assert b"ada/colour" not in client.get("/hashes", {"sha256": sha256}).content


def test_the_page_refuses_what_is_no_hash():
    assert Client().get("/hashes").status_code == 200
    wrong = Client().get("/hashes", {"sha256": "abc"})
    assert wrong.status_code == 400
    assert b"64 hex digits" in wrong.content
    assert Client().get("/hashes", {"sha256": "0" * 64, "cursor": "x"}).status_code == 400


def test_the_page_of_a_copy_names_the_module_that_had_the_weights_first(adapter: Adapter, tmp_path: Path):
    twin = publish_fake(tmp_path, "twin", owner=make_user("bob"), description="All mine")
    publish_fake(tmp_path, "other", owner=make_user("eve"), config={"seed": 5})
    said = "which had them first"
    page = Client().get(f"/{twin.full_name}").content.decode()
    assert f'href="/{adapter.full_name}">{adapter.full_name}</a>, {said}' in page
    for name in (adapter.full_name, "eve/other"):
        assert said not in Client().get(f"/{name}").content.decode()
    # Once more under its own name, and the first is still the first.
    publish_fake(tmp_path, "colour", owner=adapter.created_by, config={"card": "# Colours"})
    assert said not in Client().get(f"/{adapter.full_name}").content.decode()


def test_a_copy_names_no_module_that_the_reader_may_not_see(adapter: Adapter, tmp_path: Path):
    twin = publish_fake(tmp_path, "twin", owner=make_user("bob"))
    Adapter.objects.filter(pk=adapter.pk).update(visibility="private")
    assert "had them first" not in Client().get(f"/{twin.full_name}").content.decode()
    client = Client()
    assert adapter.created_by is not None
    client.force_login(adapter.created_by)
    assert "had them first" in client.get(f"/{twin.full_name}").content.decode()


def test_where_a_hash_is_is_found_by_indexes(adapter: Adapter):
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # so few rows are read as they lie
    plan = search.revisions_with("0" * 64, person=None).order_by("-created_at", "-id")[:21].explain()
    assert "SCAN" not in plan, plan
    assert "Seq Scan" not in plan, plan
