"""Whether browsers let scripts on pages of other sites read what is here."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.conftest import ROOT
from tests.factories import make_adapter, make_token, make_user

pytestmark = pytest.mark.django_db
ALLOWED = "Access-Control-Allow-Origin"
ASKED = {"Origin": "https://notebook.example", "Access-Control-Request-Method": "GET"}
OPEN = [
    "/api/v1/adapters/ada/m/",
    "/api/v1/adapters/ada/none/",
    "/api/models/ada/m",
    "/api/models?limit=1",
    "/ada/m/resolve/main/README.md",
    "/ada/m/resolve/main/none.txt",
    "/ada/m/raw/main/adapter_model.safetensors",
]


@pytest.fixture(autouse=True)
def _module() -> None:
    make_adapter("m", owner=make_user("ada"), files={"README.md": b"# M"}, rank=None)


@pytest.mark.parametrize("address", OPEN)
def test_nothing_is_open_unless_whoever_runs_the_site_says_so(address: str):
    assert ALLOWED not in Client().get(address).headers
    assert ALLOWED not in Client().options(address, headers=ASKED).headers


@pytest.mark.parametrize("address", OPEN)
def test_api_and_hub_are_open_refusals_and_what_is_known_too(address: str, settings: Any):
    settings.OPEN_TO_OTHER_SITES = True
    beforehand = Client().options(address, headers=ASKED)
    assert (beforehand.status_code, beforehand[ALLOWED]) == (204, "*")
    assert "Authorization" in beforehand["Access-Control-Allow-Headers"]
    answer: Any = Client().get(address)
    assert answer[ALLOWED] == answer["Access-Control-Expose-Headers"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    if "ETag" in answer.headers:
        known = Client().get(address, headers={"If-None-Match": answer["ETag"]})
        assert (known.status_code, known[ALLOWED]) == (304, "*")


def test_a_token_counts_there_and_pages_stay_closed(settings: Any):
    settings.OPEN_TO_OTHER_SITES = True
    token = make_token(make_user("eve"))
    answer = Client().get("/api/v1/whoami/", headers={"Authorization": f"Bearer {token}"})
    assert (answer.json()["username"], answer[ALLOWED]) == ("eve", "*")
    for page in ("/", "/ada/m", "/settings", "/accounts/login/", "/ada/m/settings", "/api/docs/"):
        assert ALLOWED not in Client().get(page).headers
        assert ALLOWED not in Client().options(page, headers=ASKED).headers


def test_what_was_answered_to_a_cookie_is_kept_for_nobody_without_it(settings: Any):
    settings.OPEN_TO_OTHER_SITES = True
    client = Client()
    client.force_login(make_user("eve"), backend="django.contrib.auth.backends.ModelBackend")
    answer = client.get("/api/v1/whoami/")
    assert (answer.json()["username"], answer["Cache-Control"]) == ("eve", "private, no-cache")
    assert "Cookie" in answer["Vary"]


def test_nginx_is_told_to_hand_on_what_opens_a_file(settings: Any):
    settings.OPEN_TO_OTHER_SITES, settings.X_ACCEL_REDIRECT_PREFIX = True, "/blobs/"
    answer = Client().get("/ada/m/resolve/main/README.md")
    assert "X-Accel-Redirect" in answer.headers
    told = (ROOT / "docs" / "operations.md").read_text()
    for name in (name for name in answer.headers if name.startswith("Access-Control-")):
        assert f"add_header {name} $upstream_http_{name.lower().replace('-', '_')};" in told


@pytest.mark.parametrize(
    ("is_open", "said"), [(True, "on pages of any site"), (False, "on pages of this site alone")]
)
def test_the_documentation_says_which_of_both_it_is(settings: Any, is_open: bool, said: str):
    settings.OPEN_TO_OTHER_SITES = is_open
    assert said in Client().get("/docs/api").content.decode()
