"""In real Chromium: a contributor drops a folder, and a stranger finds, opens and downloads what it held."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from registry import base_models, organisations
from registry.models import Adapter, User
from tests.factories import make_base_model, make_organisation, make_user, publish_fake
from tests.fake_adapters import make_adapter as make_adapter_folder
from tests.in_browser import PASSWORD, drop, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def alice(transactional_db: None) -> User:
    return make_user("alice", password=PASSWORD)


def test_a_contributor_drops_files_and_a_stranger_finds_and_downloads_the_module(
    page: Page, live_server: Any, alice: User, tmp_path: Path
):
    make_base_model()
    folder = make_adapter_folder(tmp_path / "colour", card="# Colour\n\nNames the colour.")
    (folder / "optimizer.pt").write_bytes(b"state")
    sign_in(page, live_server.url, "alice")

    page.goto(f"{live_server.url}/upload")
    drop(page, folder)
    page.wait_for_selector("#verdict .notice.good")
    assert "Fits demo/tiny-t5" in page.inner_text("#verdict")
    assert page.input_value("input[name=base_model]") == "demo/tiny-t5"
    assert "left out" in page.inner_text("tr.out")
    assert "rank\n2" in page.inner_text("#facts-list").replace("\n\n", "\n")
    page.fill("input[name=name]", "colour")
    page.fill("input[name=task]", "Colour of a thing")
    page.fill("input[name=description]", "Names the colour of the thing")
    page.select_option("select[name=license]", "mit")
    page.click("#publish")
    page.wait_for_url(f"{live_server.url}/alice/colour")
    assert "alice/colour is published" in page.inner_text("main")

    page.context.clear_cookies()
    page.goto(f"{live_server.url}/modules")
    page.keyboard.press("/")
    page.keyboard.type("colour thing")
    page.keyboard.press("Enter")
    page.wait_for_url("**/modules?q=*")
    page.click("article.row a:has-text('colour')")
    page.wait_for_url(f"{live_server.url}/alice/colour")
    assert "Names the colour" in page.inner_text(".prose")
    with page.expect_download() as started:
        page.click("a.btn:has-text('Download')")
    names = zipfile.ZipFile(io.BytesIO(Path(started.value.path()).read_bytes())).namelist()
    assert sorted(names) == [
        "colour/README.md",
        "colour/adapter_config.json",
        "colour/adapter_model.safetensors",
    ]


def test_of_the_two_ways_to_choose_the_one_with_the_focus_is_marked(
    page: Page, live_server: Any, alice: User
):
    sign_in(page, live_server.url, "alice")
    page.goto(f"{live_server.url}/upload")
    marked = (
        "[...document.querySelectorAll('.drop-picks label')].map(at => getComputedStyle(at).outlineStyle)"
    )
    page.focus("a[href='/import']")
    for expected in (["solid", "none"], ["none", "solid"]):
        page.keyboard.press("Tab")
        assert page.evaluate(marked) == expected


def test_a_chosen_folder_is_searched_for_the_adapter_and_names_it(
    page: Page, live_server: Any, alice: User, tmp_path: Path
):
    make_adapter_folder(tmp_path / "run-7" / "colour v2")
    (tmp_path / "run-7" / "trainer_state.json").write_text("{}")
    sign_in(page, live_server.url, "alice")
    page.goto(f"{live_server.url}/upload")
    page.set_input_files("#pick-folder", tmp_path / "run-7")
    page.wait_for_selector("#verdict .notice")
    assert page.input_value("input[name=name]") == "colour-v2"
    assert page.locator("#chosen-files tr:not(.out)").count() == 2
    assert "outside the adapter’s folder" in page.inner_text("#chosen-files tr.out")


def test_back_to_the_upload_brings_the_chosen_files_and_what_was_typed(
    page: Page, live_server: Any, alice: User, tmp_path: Path
):
    make_adapter_folder(tmp_path / "run-7")
    (tmp_path / "run-7" / "README.md").write_text("---\nlicense: mit\n---\n# Colours\n\nNames the colour.\n")
    sign_in(page, live_server.url, "alice")
    page.goto(f"{live_server.url}/upload")
    page.set_input_files("#pick-files", sorted((tmp_path / "run-7").iterdir()))
    page.wait_for_selector("#verdict .notice")
    page.fill("#id_description", "In my words")
    page.select_option("#id_license", "apache-2.0")
    page.goto(f"{live_server.url}/docs/uploading")
    page.go_back()
    page.wait_for_selector("#verdict .notice")
    assert page.locator("#chosen-files tr").count() == 3
    assert page.input_value("#id_description") == "In my words"
    assert page.input_value("#id_license") == "apache-2.0"


def test_a_folder_renames_no_module_that_is_to_have_a_new_version(
    page: Page, live_server: Any, alice: User, tmp_path: Path
):
    make_base_model()
    publish_fake(tmp_path, "colour", owner=alice, base_model="demo/tiny-t5")
    make_adapter_folder(tmp_path / "checkpoint-500", seed=3)
    sign_in(page, live_server.url, "alice")
    page.goto(f"{live_server.url}/upload?namespace=alice&name=colour")
    page.set_input_files("#pick-folder", tmp_path / "checkpoint-500")
    page.wait_for_selector("#verdict .notice.good")
    assert page.input_value("input[name=name]") == "colour"
    page.click("#publish")
    page.wait_for_url(f"{live_server.url}/alice/colour")
    assert Adapter.objects.get().revisions.count() == 2


def test_a_refused_upload_says_what_is_wrong_and_keeps_files_and_words(
    page: Page, live_server: Any, alice: User, tmp_path: Path
):
    folder = make_adapter_folder(tmp_path / "odd", peft_type="IA3")
    sign_in(page, live_server.url, "alice")
    page.goto(f"{live_server.url}/upload")
    drop(page, folder)
    page.wait_for_selector("#verdict .notice.error")
    assert "only LORA modules" in page.inner_text("#verdict")
    page.fill("input[name=name]", "odd")
    page.fill("input[name=description]", "Kept words")
    page.click("#publish")
    page.wait_for_selector("#problems .notice.error")
    assert "only LORA modules" in page.inner_text("#problems")
    assert page.input_value("input[name=description]") == "Kept words"
    assert page.locator("#chosen-files tr").count() == 2
    assert not Adapter.objects.exists()


@pytest.mark.parametrize("width", [1280, 768, 360])
def test_no_page_is_wider_than_the_screen(
    page: Page, live_server: Any, alice: User, tmp_path: Path, width: int
):
    make_base_model()
    publish_fake(tmp_path, "a-rather-long-name-that-somebody-gave-it", owner=alice, base_model="demo/tiny-t5")
    sign_in(page, live_server.url, "alice")
    page.set_viewport_size({"width": width, "height": 900})
    for address in (
        "/modules", "/modules?q=nothing-like-it", "/alice", "/alice/a-rather-long-name-that-somebody-gave-it",
        "/alice/a-rather-long-name-that-somebody-gave-it/settings", "/upload", "/base-models",
        "/base-models/demo/tiny-t5", "/base-models/new", "/settings", "/settings/tokens", "/docs", "/docs/api",
        "/docs/limits", "/docs/uploading", "/nothing/here", "/accounts/password/change/",
    ):  # fmt: skip
        page.goto(live_server.url + address)
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{address} is {over} px wider than {width}"


def test_the_search_says_whole_what_it_finds(page: Page, live_server: Any, alice: User):
    User.objects.filter(pk=alice.pk).update(username="a-name-that-is-long")
    room = """() => {
      const field = document.getElementById("site-search");
      const style = getComputedStyle(field);
      const pen = document.createElement("canvas").getContext("2d");
      pen.font = `${style.fontSize} ${style.fontFamily}`;
      const cross = 18;  // keeps its place where nothing can be taken away yet
      return field.clientWidth - cross - pen.measureText(field.placeholder).width;
    }"""
    sign_in(page, live_server.url, "a-name-that-is-long")
    for width in (1441, 1440, 1280, 1279, 1024, 1001, 1000, 901, 900, 768, 761, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(room) >= 0, f"cut at {width}"


def test_why_the_last_admin_does_not_leave_is_read_whole(page: Page, live_server: Any, alice: User):
    make_organisation("a-laboratory-with-a-long-name", members={alice: "admin"})
    sign_in(page, live_server.url, "alice")
    page.on("dialog", lambda question: question.accept())
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{live_server.url}/settings/organizations")
        page.click("button:has-text('Leave')")
        said = page.locator("main [role=alert]")
        assert "would be left without an admin" in said.inner_text()
        edge = "(at) => at.closest('.card').getBoundingClientRect().right - at.getBoundingClientRect().right"
        assert said.evaluate(edge) >= 0, f"cut at {width}"


def test_the_menu_and_the_filters_are_reached_on_a_phone(
    page: Page, live_server: Any, alice: User, tmp_path: Path
):
    make_base_model()
    publish_fake(tmp_path, "colour", owner=alice, base_model="demo/tiny-t5", license="mit")
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{live_server.url}/modules")
    assert not page.is_visible(".facets")
    page.click("a:has-text('filters')")
    page.click(".facets a:has-text('mit')")
    page.wait_for_url("**/modules?license=mit")
    assert page.is_visible("a.chip.on:has-text('mit')")
    page.click("header summary")
    page.click("header .menu-panel a:has-text('Base models')")
    page.wait_for_url("**/base-models")


def test_the_api_reference_says_what_each_call_takes(page: Page, live_server: Any, alice: User):
    page.goto(f"{live_server.url}/api/docs/")
    assert page.locator(".call-path", has_text="/adapters/").count() > 3
    page.click("summary:has-text('Compose for a new task')")
    assert page.is_visible("text=Rows to score on; one whose input is among the examples scores nothing.")


def test_a_double_click_sends_a_form_once(page: Page, live_server: Any, alice: User, monkeypatch: Any):
    ada = make_user("ada")
    lab = make_organisation("lab", members={ada: "admin"})
    organisations.invite(lab, actor=ada, username="alice", role="read")
    sign_in(page, live_server.url, "alice")
    page.goto(f"{live_server.url}/settings/organizations")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    accept = organisations.accept

    def slowly(name: str, *, person: User) -> Any:
        time.sleep(0.5)  # the second click comes while the first is on its way
        return accept(name, person=person)

    monkeypatch.setattr(organisations, "accept", slowly)
    page.get_by_role("button", name="Join").dblclick(delay=100)
    page.get_by_text("You belong to lab now.").wait_for()
    assert len(sent) == 1


def test_a_list_is_walked_by_keys(page: Page, live_server: Any, alice: User, tmp_path: Path):
    for name in ("one", "two"):
        publish_fake(tmp_path, name, owner=alice)
    page.goto(f"{live_server.url}/modules")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{live_server.url}/alice/one")


def test_everything_can_be_read_and_uploaded_without_scripts(
    browser: Any, live_server: Any, alice: User, tmp_path: Path
):
    folder = make_adapter_folder(tmp_path / "plain")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    try:
        sign_in(page, live_server.url, "alice")
        page.goto(f"{live_server.url}/upload")
        page.set_input_files(
            "#pick-files", [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
        )
        page.fill("input[name=name]", "plain")
        page.click("#publish")
        page.wait_for_url(f"{live_server.url}/alice/plain")
        page.click("a.chip:has-text('curl')")
        assert "curl -fL" in page.inner_text("#use")
    finally:
        context.close()


def test_the_list_of_modules_is_light(page: Page, live_server: Any, alice: User, tmp_path: Path):
    """150 KB compressed is the limit; uncompressed it is already below it."""
    publish_fake(tmp_path, "colour", owner=alice)
    sizes: list[int] = []
    page.on("response", lambda answer: sizes.append(len(answer.body())))
    page.goto(f"{live_server.url}/modules")
    assert sum(sizes) < 150_000


def test_a_base_model_page_has_its_modules_as_soon_as_they_were_compared(
    page: Page, live_server: Any, alice: User, tmp_path: Path
):
    publish_fake(tmp_path, "colour", owner=alice, base_model="demo/tiny-t5")
    base = make_base_model(recheck_wanted_at=timezone.now())
    page.goto(f"{live_server.url}/base-models/{base.name}")
    page.wait_for_selector("text=0 modules")
    base_models.recheck_wanted()
    page.wait_for_selector("text=1 fits, 0 differ")
    page.wait_for_selector("text=1 module · 1 can be composed")
    assert page.locator(".row-title a").inner_text() == "alice / colour"
    assert page.get_by_role("link", name="Compose for it").is_visible()
    assert page.locator("main").count() == 1
    assert page.locator("[hx-get]").count() == 0
