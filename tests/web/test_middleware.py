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


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/api/v1/adapters/ada/m/"),
        ("POST", "/api/v1/compositions/"),
        ("PUT", "/api/models/ada/m/settings"),
        ("POST", "/api/models/ada/m/branch/x"),
        ("POST", "/api/repos/create"),
        ("PUT", "/api/lfs/ticket"),
        ("POST", "/compose"),
        ("POST", "/accounts/login/"),
    ],
)
def test_a_body_that_does_not_say_its_length_is_refused_in_the_doors_own_shape(method, path):
    answer = Client(enforce_csrf_checks=True).generic(
        method, path, b"", content_type="application/json", headers={"Transfer-Encoding": "chunked"}
    )
    assert answer.status_code == 411
    assert "Content-Length" in answer.content.decode()
    if path.startswith("/api/v1/"):
        assert answer.json()["code"] == "length_needed"
    elif path.startswith("/api/"):
        assert "Content-Length" in answer["X-Error-Message"]
    else:
        assert answer["Content-Type"].startswith("text/html")
