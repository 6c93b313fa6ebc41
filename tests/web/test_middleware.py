from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/api/v1/adapters/%00/m/", "/a%00b", "/modules%00", "/api/v1/tasks/%00/"])
def test_nothing_is_at_an_address_with_nul(path):
    answer = Client().get(path)
    assert answer.status_code == 404
    assert answer["X-Request-Id"]


@pytest.mark.parametrize(
    "path", ["/api/v1/adapters/?q=%00", "/modules?q=a%00", "/modules?%00=1", "/tasks?q=%00"]
)
def test_a_parameter_with_nul_is_refused(path):
    answer = Client().get(path)
    assert answer.status_code == 400
    assert "NUL" in answer.content.decode()


@pytest.mark.django_db
def test_pages_are_compressed_and_what_scripts_and_files_need_is_left_alone(client):
    page = client.get("/docs", headers={"Accept-Encoding": "gzip"})
    assert page.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in client.get("/docs").headers
    assert "Content-Encoding" not in client.get("/api/schema/", headers={"Accept-Encoding": "gzip"}).headers
