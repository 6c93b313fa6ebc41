"""A web process that has everything in memory before its first request."""

from __future__ import annotations

import gc
import io
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client

from config import gunicorn, warming
from registry.models import Adapter
from tests.factories import make_adapter

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def connection_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own transaction is on it."""
    monkeypatch.setattr(warming.connections, "close_all", lambda: None)


def test_the_busiest_pages_are_asked_for_as_the_site_is_called(client: Client, settings: Any):
    settings.ALLOWED_HOSTS = ["*", "lora.example"]
    adapter: Adapter = make_adapter()
    asked: list[dict[str, Any]] = []

    def remembering(environ: dict[str, Any], start_response: Any) -> io.BytesIO:
        asked.append(environ)
        return io.BytesIO()

    warming.warm(remembering)
    paths = [environ["PATH_INFO"] for environ in asked]
    assert paths == [*warming.PAGES, adapter.get_absolute_url()]
    assert {environ["HTTP_HOST"] for environ in asked} == {"lora.example"}
    assert all(client.get(path).status_code == 200 for path in paths)


def test_a_start_without_its_database_is_a_start_all_the_same():
    def broken(environ: dict[str, Any], start_response: Any) -> Any:
        raise OSError("no database")

    warming.warm(broken)


def test_the_collector_leaves_alone_what_is_there_before_the_first_request(monkeypatch: pytest.MonkeyPatch):
    warmed_with: list[object] = []
    monkeypatch.setattr(warming, "warm", warmed_with.append)
    try:
        gunicorn.post_worker_init(SimpleNamespace(wsgi="the application"))
        assert warmed_with == ["the application"]
        assert gc.get_freeze_count() > len(gc.get_objects())
    finally:
        gc.unfreeze()
