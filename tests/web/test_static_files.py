"""A site whose static files were not collected still answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.test import Client, override_settings
from whitenoise import compress

from tests.conftest import ROOT

KINDS = ["HashedFiles", "CompressedHashedFiles"]


def kept_in(folder: Path, kind: str) -> dict[str, Any]:
    """Settings for static files of this kind, collected in `folder`."""
    ours = {"BACKEND": f"web.static_files.{kind}"}
    return {"STATIC_ROOT": folder, "STORAGES": {**settings.STORAGES, "staticfiles": ours}}


@pytest.fixture(params=KINDS)
def uncollected(request, tmp_path) -> Iterator[None]:
    with override_settings(**kept_in(tmp_path / "static", request.param)):
        yield


@pytest.fixture(scope="module", params=KINDS)
def collected_once(request, tmp_path_factory) -> dict[str, Any]:
    """All files, once. As small as brotli can make them would take ten seconds; how small it tries to is not ours."""
    kept = kept_in(tmp_path_factory.mktemp("static"), request.param)
    quickly = partial(compress.brotli.compress, quality=1)
    with mock.patch.object(compress.brotli, "compress", quickly), override_settings(**kept):
        call_command("collectstatic", verbosity=0, interactive=False)
    return kept


@pytest.fixture
def collected(collected_once) -> Iterator[Path]:
    with override_settings(**collected_once):
        yield collected_once["STATIC_ROOT"]


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


def test_collected_files_have_their_hash_in_their_name(collected):
    name = staticfiles_storage.url("css/base.css")
    assert name != "/static/css/base.css"
    assert (collected / name.removeprefix("/static/")).exists()
    assert staticfiles_storage.url("css/none.css") == "/static/css/none.css"


@pytest.mark.django_db
def test_collected_files_are_kept_for_ever_and_none_is_said_to_be_missing(collected, caplog):
    """Also where a name looks as if it had a hash in it, as `font-awesome-4.0.3.css` does."""
    kept = Client().get(staticfiles_storage.url("css/base.css"))["Cache-Control"]
    looked_at_again = Client().get("/static/rest_framework/css/font-awesome-4.0.3.css")["Cache-Control"]
    assert "immutable" in kept
    assert "immutable" not in looked_at_again
    assert "was not collected" not in caplog.text


def test_sizes_of_type_follow_the_browsers_settings():
    """But in drawings, where a px is a unit of the drawing."""
    sheets = list((ROOT / "static").rglob("*.css"))
    assert sheets
    rules = [rule for path in sheets for rule in path.read_text().split("}") if "fill:" not in rule]
    fixed = [rule for rule in rules if re.search(r"font(-size)?:[^;]*(?<![\w.])[\d.]+px", rule)]
    assert not fixed, fixed
