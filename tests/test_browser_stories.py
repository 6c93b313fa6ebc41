"""In real Chromium, with a worker that is played by the test: contributor, script author, stranger, moderator.

The newcomer's story runs with a real worker, in test_browser_compose.py. Each leaves its pictures in `screenshots/`.
"""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from compose.models import Composition
from registry.models import Adapter, BaseModel, User
from tests.albums import Album
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import make_adapter, make_base_model, make_task, make_user, namespace_of, publish_fake
from tests.fake_adapters import make_adapter as make_adapter_folder
from tests.in_browser import PASSWORD, drop, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def base_model(transactional_db: None, rung: list[Any]) -> BaseModel:
    return make_base_model("demo/tiny-t5", kind="hosted")


@pytest.fixture
def ada(base_model: BaseModel) -> User:
    return make_user("ada", password=PASSWORD, email="ada@lora.example")


def composed(
    owner: User, base_model: BaseModel, name: str = "colour-in-brackets", **options: Any
) -> Composition:
    """A finished composition whose adapter is published."""
    task = make_task(name, rows=5, test_rows=20, is_held_out=True, base_model=base_model)
    done = finish(make_composition(owner=owner, base_model=base_model, task=task, examples=(), **options))
    done.adapter = make_adapter(
        f"{name}-composed", namespace=namespace_of(owner), base_model=base_model, kind="composed", task=task
    )
    done.save(update_fields=["adapter"])
    return done


def test_a_contributor_uploads_a_module_and_sees_where_it_helps(
    page: Page, live_server: Any, ada: User, base_model: BaseModel, tmp_path: Path
):
    album = Album("contributor")
    folder = make_adapter_folder(
        tmp_path / "colour", card="# Colour\n\nNames the colour of the thing in a story."
    )
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/upload")
    drop(page, folder)
    page.wait_for_selector("#verdict .notice.good")
    page.fill("input[name=name]", "colour")
    page.fill("input[name=task]", "Colour of a thing")
    page.fill("input[name=description]", "Names the colour of the thing")
    page.select_option("select[name=license]", "mit")
    album.take(page, "the upload is checked before it is sent")
    page.click("#publish")
    page.wait_for_url(f"{live_server.url}/ada/colour")
    assert "ada/colour is published" in page.inner_text("main")
    album.take(page, "the module has its page")

    # Somebody else composes with it.
    bob = make_user("bob")
    for number in (1, 2):
        publish_fake(
            tmp_path, f"part-{number}", owner=bob, base_model="demo/tiny-t5", config={"seed": number}
        )
    done = composed(make_user("grace"), base_model)
    page.goto(f"{live_server.url}/ada/colour")
    expect(page.locator("main")).to_contain_text(re.compile("[Uu]sed in"))
    link = page.locator(f"main a[href='{done.get_absolute_url()}']").first
    album.take(page, "the page says where it helped")
    link.click()
    page.wait_for_selector("#finding")
    assert page.locator(".weights a:has-text('ada/colour')").count() == 1
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.locator(".weights thead >> text=Loss without it").is_visible(), "two columns of bare numbers"
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{live_server.url}/ada")
    assert "colour" in page.inner_text("main")
    album.take(page, "the profile")


def test_a_script_author_finds_the_call_makes_a_token_and_follows_a_composition(
    page: Page, live_server: Any, ada: User, base_model: BaseModel
):
    album = Album("script-author")
    make_modules(base_model, 3, owner=make_user("bob"), description="Names the colour of the thing")
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/api/docs/")
    page.click("summary:has-text('Compose for a new task')")
    album.take(page, "the call is described with its fields")

    page.goto(f"{live_server.url}/settings/tokens")
    page.fill("input[name=name]", "night job")
    page.check("input[name=scope][value=write]") if page.locator(
        "input[name=scope]"
    ).count() else page.select_option("select[name=scope]", "write")
    page.click("main button:has-text('token') >> nth=0")
    secret = re.search(r"lr_[0-9a-f]{40}", page.inner_text("#secret"))
    assert secret, "the new token is not shown"
    album.take(page, "the token is shown once")

    def call(path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{live_server.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {secret[0]}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    found = call("/api/v1/adapters/?q=colour&base=demo/tiny-t5&composable=yes")["results"]
    assert len(found) == 3
    wanted = {
        "base_model": "demo/tiny-t5",
        "examples": [{"input": f"story {n}", "output": "red"} for n in range(5)],
        "pinned": [found[0]["full_name"] if "full_name" in found[0] else found[0]["id"]],
        "title": "Colours by night",
    }
    promised = call("/api/v1/compositions/", wanted | {"dry_run": True})
    assert promised["ok"], promised
    assert promised["candidates"][0]["reason"] == "pinned"
    started = call("/api/v1/compositions/", wanted)
    page.goto(started["url"])
    page.wait_for_selector("h2:has-text('Next in line')")
    album.take(page, "the page follows what the script started")
    finish(Composition.objects.get(pk=started["id"]))
    page.wait_for_selector("#finding")
    assert call(f"/api/v1/compositions/{started['id']}/")["status"] == "succeeded"
    album.take(page, "the same result by page and by script")


def test_a_stranger_reads_everything_public_and_nothing_else(
    page: Page, live_server: Any, ada: User, base_model: BaseModel, tmp_path: Path
):
    album = Album("stranger")
    publish_fake(
        tmp_path, "colour", owner=ada, base_model="demo/tiny-t5", license="mit", description="Names colours"
    )
    publish_fake(tmp_path, "secret", owner=ada, base_model="demo/tiny-t5", visibility="private")
    make_modules(base_model, 2, owner=make_user("bob"))
    done = composed(ada, base_model)
    hidden = finish(make_composition(owner=ada, base_model=base_model, title="Not yours"))

    page.goto(live_server.url)
    album.take(page, "home")
    page.keyboard.press("/")
    page.keyboard.type("colour")
    page.keyboard.press("Enter")
    page.wait_for_url("**/modules?q=colour*")
    assert "secret" not in page.inner_text("main")
    album.take(page, "search")
    page.goto(f"{live_server.url}/ada/colour")
    assert "PeftModel" in page.content()
    album.take(page, "a module")
    page.goto(f"{live_server.url}{done.get_absolute_url()}")
    page.wait_for_selector("#finding")
    assert page.locator("#predictions").count() == 0, "the owner's rows are shown to a stranger"
    album.take(page, "a published result")
    for private in ("/ada/secret", hidden.get_absolute_url()):
        answer = page.goto(f"{live_server.url}{private}")
        assert answer
        assert answer.status == 404
    album.take(page, "what is private is not there")
    page.goto(f"{live_server.url}/tasks/colour-in-brackets")
    album.take(page, "a leaderboard")
    page.click("a:has-text('Beat this') >> nth=0") if page.locator(
        "a:has-text('Beat this')"
    ).count() else page.goto(f"{live_server.url}/compose?task=colour-in-brackets")
    page.fill("[name=title]", "Mine is better")
    page.click("button[value=compose]")
    page.wait_for_url("**/accounts/login/**")
    page.fill("input[name=login]", "ada")
    page.fill("input[name=password]", PASSWORD)
    page.click("main button:has-text('Sign in')")
    page.wait_for_url("**/compose?draft=1")
    assert page.input_value("[name=title]") == "Mine is better", "what was typed is lost"


def test_a_moderator_reads_a_report_takes_the_module_away_and_brings_it_back(
    page: Page, browser: Browser, live_server: Any, ada: User, base_model: BaseModel, tmp_path: Path
):
    album = Album("moderator")
    publish_fake(tmp_path, "doubtful", owner=ada, base_model="demo/tiny-t5")
    make_user("mod", password=PASSWORD, is_staff=True, is_superuser=True)
    site = live_server.url
    visitor, owner = (browser.new_context().new_page() for _ in range(2))

    visitor.goto(f"{site}/ada/doubtful/report")
    visitor.check("input[name=reason][value=rights]")
    visitor.fill("[name=text]", "The card says MIT, the data does not.")
    album.take(visitor, "somebody without an account reports it")
    visitor.click("button:has-text('Report it')")
    visitor.wait_for_url(f"{site}/ada/doubtful")

    sign_in(page, site, "mod")
    page.goto(f"{site}/moderation")
    assert "The card says MIT, the data does not." in page.inner_text("main")
    page.fill("[name=reason]", "Its licence is not that of its data. Change it, and tell us.")
    album.take(page, "the moderator reads it")
    page.click("button:has-text('Quarantine')")
    page.wait_for_selector("text=is in quarantine")
    album.take(page, "it is in quarantine and in the book")

    assert visitor.goto(f"{site}/ada/doubtful").status == 404
    assert not Adapter.objects.visible_to(None).filter(name="doubtful").exists()
    sign_in(owner, site, "ada")
    owner.goto(f"{site}/ada/doubtful")
    assert "Its licence is not that of its data." in owner.inner_text("main"), "the owner is not told why"
    album.take(owner, "its owner reads why")

    page.click("button:has-text('Release')")
    page.wait_for_selector("text=is shown again")
    assert visitor.goto(f"{site}/ada/doubtful").status == 200
    for other in (visitor, owner):
        other.context.close()
