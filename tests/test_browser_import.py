"""Importing in real Chromium: the form, progress that comes by itself and ends, and what became of each repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from registry import hub_work
from tests.conftest import Ring
from tests.factories import make_base_model, make_user
from tests.fake_adapters import files_of, make_adapter
from tests.fake_hub import fake_hub

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_many_are_imported_while_somebody_watches(
    live_server: Any, page: Page, settings: Any, rung: list[Ring], tmp_path: Path
):
    make_base_model()
    make_user("bob", password="correct horse battery")
    with fake_hub() as hub:
        for n in range(3):
            files = files_of(make_adapter(tmp_path / str(n), seed=n))
            hub.repositories[f"lab/module-{n}"] = {path: file.read_bytes() for path, file in files.items()}
        hub.repositories["lab/thesis"] = {"README.md": b"# A thesis"}
        settings.IMPORT_ENDPOINTS = [hub.address]
        page.goto(f"{live_server.url}/accounts/login/?next=/import")
        page.fill("[name=login]", "bob")
        page.fill("[name=password]", "correct horse battery")
        page.click("main button[type=submit]")
        page.fill("[name=sources]", "lab/*")
        page.click("main button:has-text('Import')")
        page.wait_for_selector("text=Waiting for a worker")
        address = page.url
        hub_work.run_step("w")
        page.wait_for_selector("text=0 of 4")
        hub_work.run_step("w")
        page.wait_for_selector("text=1 of 4")
        assert page.url == address  # nobody loaded it again
        hub_work.run_all("w")
        page.wait_for_selector("text=1 of 4 could not be imported")
        assert (
            page.locator("tr", has_text="lab/thesis").get_by_text("it has no adapter_config.json").count()
            == 1
        )
        assert page.locator("[hx-get]").count() == 0  # the asking has ended
        page.click("a:has-text('bob/module-2')")
        page.wait_for_selector("text=Imported from")
        assert page.locator("text=Publish elsewhere").count() == 1
