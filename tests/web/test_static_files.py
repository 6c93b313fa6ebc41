"""A site whose static files were not collected still answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.test import Client


@pytest.fixture(params=["HashedFiles", "CompressedHashedFiles"])
def uncollected(request, settings, tmp_path) -> Path:
    settings.STATIC_ROOT = tmp_path / "static"
    ours = {"BACKEND": f"web.static_files.{request.param}"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": ours}
    return settings.STATIC_ROOT


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/", 200),
        ("/nobody/nothing", 404),
        ("/nobody/nothing/raw/main/x", 404),
        ("/nobody/nothing.git/info/refs", 404),
        ("/nobody/nothing.git/info/lfs/locks", 404),
        ("/accounts/login/", 200),
        ("/favicon.ico", 302),
    ],
)
def test_without_collected_static_files_pages_answer_and_the_log_says_why(
    uncollected, caplog, address, status
):
    answer = Client(raise_request_exception=False).get(address)
    assert answer.status_code == status
    if answer["Content-Type"].startswith("text/html") and status != 302:
        assert "css/base.css" in answer.content.decode()
    assert all(
        "run manage.py collectstatic" in line.message for line in caplog.records if line.levelname == "ERROR"
    )


def test_collected_files_have_their_hash_in_their_name(uncollected):
    call_command("collectstatic", verbosity=0, interactive=False)
    name = staticfiles_storage.url("css/base.css")
    assert name != "/static/css/base.css"
    assert (uncollected / name.removeprefix("/static/")).exists()
    assert staticfiles_storage.url("css/none.css") == "/static/css/none.css"


@pytest.mark.django_db
def test_collected_files_are_kept_for_ever_and_none_is_said_to_be_missing(uncollected, caplog):
    """Also where a name looks as if it had a hash in it, as `font-awesome-4.0.3.css` does."""
    call_command("collectstatic", verbosity=0, interactive=False)
    kept = Client().get(staticfiles_storage.url("css/base.css"))["Cache-Control"]
    looked_at_again = Client().get("/static/rest_framework/css/font-awesome-4.0.3.css")["Cache-Control"]
    assert "immutable" in kept
    assert "immutable" not in looked_at_again
    assert "was not collected" not in caplog.text
