"""In real Chromium: every page is accessible, light enough and quick enough, and can be used by keys alone.

The pages are found in the address table, so that a new one is held to the same without being named here.
"""

from __future__ import annotations

import gzip
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django_htmx
import pytest
from axe_playwright_python.sync_playwright import Axe
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.urls import URLPattern, URLResolver, get_resolver
from playwright.sync_api import expect

from compose import auditions, jobs, tryouts
from compose.models import Audition, Auditioned, Composition
from registry import following, likes, moderation, news_mail, organisations, saved_searches
from registry.models import BaseModel, Namespace, User
from tests.compose.factories import finish, make_composition, make_examples, make_modules, make_trials
from tests.conftest import ROOT
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_token,
    make_user,
    namespace_of,
)
from tests.in_browser import PASSWORD, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PAGE_BYTES = 150 * 1024  # compressed, pictures aside
# Django's own administration is not ours to mend; the rest are no pages of people.
NO_PAGES = ("admin/", "api/", "^api/", "xet/", "v1/", "^(?P<repo>", "^(?P<rest>")
# Whoever speaks to a button says what stands on it.
WITH_SPOKEN_NAMES = {"rules": {"label-content-name-mismatch": {"enabled": True}}}
# What dark changes, and what a phone does, beyond what a page is in light at 1280.
ONLY_CONTRAST = {"runOnly": ["color-contrast"]}
OF_A_PHONE = {
    "runOnly": [
        "aria-hidden-focus",
        "bypass",
        "frame-title",
        "landmark-one-main",
        "link-name",
        "button-name",
        "meta-viewport",
        "page-has-heading-one",
        "region",
        "scrollable-region-focusable",
        "summary-name",
        "target-size",
    ]
}


@dataclass
class Filled:
    """A site with something on every page, and what its addresses are filled in with."""

    ada: User
    names: dict[str, str]
    more: list[str]


@pytest.fixture
def filled(transactional_db: None, rung: list[Any]) -> Filled:
    # Of the people who run the site, so that their pages are looked at as well.
    ada = make_user("ada", password=PASSWORD, email="ada@lora.example", is_staff=True, is_superuser=True)
    make_organisation("lab", members={ada: "admin"})
    base_model = make_base_model("demo/tiny-t5", kind="hosted")
    modules = make_modules(base_model, 3, owner=ada, description="Names the colour of the thing")
    task = make_task("colour-twice", rows=5, test_rows=20, is_held_out=True, base_model=base_model)
    done = finish(make_composition(owner=ada, base_model=base_model, task=task, examples=()))
    done.adapter = make_adapter(
        "composed", namespace=namespace_of(ada), base_model=base_model, kind="composed", task=task
    )
    done.save(update_fields=["adapter"])
    unpublished = finish(make_composition(owner=ada, base_model=base_model, title="Unpublished"))
    jobs.share(unpublished, ada)
    tried = tryouts.ask(unpublished, ada, "What colour?")
    measuring = auditions.ask(person=ada, base_model=base_model, examples=make_examples(3))
    measured = auditions.ask(person=ada, base_model=base_model, examples=make_examples(4))
    losses = [Auditioned(pk=row.pk, loss=1.0 + row.position) for row in measured.modules.all()]
    Auditioned.objects.bulk_update(losses, ["loss"])
    Audition.objects.filter(pk=measured.pk).update(status="done", base_loss=1.5, seconds=2.0)
    running = claim(make_composition(owner=ada, base_model=base_model, title="Running"))
    jobs.record_audition(running, 2.5, [1.5, 2.0, 3.0])
    jobs.set_stage(running, "search", steps=40)
    jobs.record_trials(running, make_trials(7))
    failed = claim(make_composition(owner=ada, base_model=base_model, title="Failed"))
    jobs.fail(failed, "Example 3 is longer than the base model reads. Shorten it or leave it out.")
    waiting = make_composition(owner=ada, base_model=base_model, title="Waiting")
    moderation.report(modules[1], reporter=ada, address="", reason="other", text="Look at its card.")
    moderation.quarantine(modules[2], moderator=ada, reason="Its licence is not that of its data.")
    likes.like(modules[0], actor=ada)
    following.follow(user=ada, adapter=modules[0])
    following.follow(user=ada, namespace=Namespace.objects.get(name="lab"))
    saved_searches.save(user=ada, name="colours", parameters="q=colour")
    head = modules[0].head
    assert head is not None
    names = {
        "namespace": "ada",
        "name": modules[0].name,
        "slug": task.slug,
        "page": "composing",
        "composition_id": unpublished.pk,
        "tryout_id": tried.pk,
        "audition_id": measured.pk,
        "commit": head.commit,
        "revision": "main",
        "username": "ada",
        "key": news_mail.key_of(ada),
    }
    more = [c.get_absolute_url() for c in (done, running, failed, waiting, measuring)]
    more += [
        "/base-models/demo/tiny-t5",
        "/ada/composed",
        "/lab",
        "/lab/settings",
        "/compose?task=colour-twice",
    ]
    more += [
        "/modules?q=nothing-like-it",
        "/modules?q=colour",
        "/nothing/here",
        "/modules?sort=odd",
        "/docs/limits",
    ]
    return Filled(ada, names, more)


def claim(composition: Composition) -> Composition:
    claimed = jobs.claim(composition.pk, "worker-1")
    assert claimed is not None
    return claimed


def addresses(site: Filled) -> list[str]:
    """Every address that the table has and `site` can fill in; forms that only take a POST answer for themselves."""
    found = [
        "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda hole: site.names[hole[1]], route)
        for route in _routes(get_resolver())
        if not route.startswith(NO_PAGES) and "^" not in route
        if set(re.findall(r"<(?:\w+:)?(\w+)>", route)) <= set(site.names)
    ]
    return list(dict.fromkeys([*found, *site.more]))


def _routes(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            yield prefix + str(pattern.pattern)
        else:
            yield from _routes(pattern, prefix + str(pattern.pattern))


def is_page(page: Page, address: str) -> bool:
    answer = page.request.get(address, max_redirects=0)
    return "text/html" in answer.headers.get("content-type", "") and "<main" in answer.text()


def violations(page: Page, options: dict[str, Any]) -> list[str]:
    # A selector for each element is dear, and read by nobody.
    only_these = "resultTypes: ['violations'], reporter: 'no-passes', selectors: false"
    found = page.evaluate(
        f"(options) => axe.run({{{only_these}, preload: false, iframes: false, ...options}})", options
    )
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:120]}" for rule in found["violations"]]


def test_axe_finds_nothing_on_any_page_in_light_in_dark_and_on_a_phone(
    page: Page, live_server: Any, filled: Filled
):
    script = Axe().axe_script
    wrong: list[str] = []
    seen = 0

    def look(address: str) -> None:
        nonlocal seen
        seen += 1
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        page.goto(address)
        page.evaluate(script)
        wrong.extend(f"{address} light: {found}" for found in violations(page, WITH_SPOKEN_NAMES))
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        wrong.extend(f"{address} dark: {found}" for found in violations(page, ONLY_CONTRAST))
        page.set_viewport_size({"width": 390, "height": 800})
        wrong.extend(f"{address} at 390: {found}" for found in violations(page, OF_A_PHONE))

    for path in ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/", "/compose"):
        look(f"{live_server.url}{path}")
    sign_in(page, live_server.url, "ada")
    for path in addresses(filled):
        if is_page(page, f"{live_server.url}{path}"):
            look(f"{live_server.url}{path}")
    assert wrong == []
    assert seen > 40, f"only {seen} pages were looked at"


# What is pressed and lower than a finger; what lies beside the screen or its card; the open tab out of sight.
HARD_TO_PRESS = """() => {
  const named = (at) => (at.getAttribute("aria-label") || at.textContent || at.name).trim().slice(0, 40);
  const box = (at) => at.getBoundingClientRect();
  const pressed = ".btn, .tabs a, .side-nav a, .footer-row a, header summary, main :is(select, textarea, input:not([type=checkbox], [type=radio], [type=hidden]))";
  const seen = [...document.querySelectorAll(pressed)].filter((at) => at.checkVisibility() && box(at).width > 1);
  const low = seen.filter((at) => box(at).height < 43.5).map((at) => `low: ${named(at)}`);
  const hidden = seen.filter((at) => at.matches(".btn, .tabs [aria-current], .side-nav [aria-current]")).filter((at) => {
    const around = box(at.closest(".scroll, .tabs, .side-nav") ?? document.body);
    return box(at).right > around.right + 1 || box(at).left < around.left - 1;
  }).map((at) => `out of sight: ${named(at)}`);
  const over = document.documentElement.scrollWidth - innerWidth;
  return [...low, ...hidden, ...(over > 0 ? [`${over} px too wide`] : [])];
}"""


def test_on_a_phone_a_thumb_finds_everything(page: Page, live_server: Any, filled: Filled):
    bob = make_user("somebody-with-a-long-name")
    organisations.invite(
        Namespace.objects.get(name="lab"), actor=filled.ada, username=bob.username, role="write"
    )
    make_token(filled.ada, name="a token with quite a long name for the cluster")
    long = make_adapter(
        f"{'x' * 60}-{'y' * 30}", owner=filled.ada, base_model=BaseModel.objects.get(), description="W" * 190
    )
    wrong = {}
    page.set_viewport_size({"width": 390, "height": 800})
    sign_in(page, live_server.url, "ada")
    for path in [
        *filled.more,
        long.get_absolute_url(),
        "/",
        "/ada",
        "/accounts/sessions/",
        "/modules",
        "/settings/organizations",
        "/settings/tokens",
        "/tasks/colour-twice",
        "/upload",
    ]:
        page.goto(f"{live_server.url}{path}")
        if found := page.evaluate(HARD_TO_PRESS):
            wrong[path] = found
    assert wrong == {}


def test_a_row_opens_wherever_a_thumb_touches_it(page: Page, live_server: Any, filled: Filled):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{live_server.url}/modules")
    row = page.locator("article.row").first
    address = row.locator(".row-title a").first.get_attribute("href")
    box = row.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] - 10, box["y"] + box["height"] - 25)
    page.wait_for_url(f"**{address}")
    page.go_back()
    row.locator("a.chip").first.click()
    page.wait_for_url("**/modules?base=*")


# Where the letters of a text begin and end, which its box does not say.
INK = """(selector) => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector(selector));
  return Math.round(range.getBoundingClientRect().left);
}"""


# What runs out of its column when letters grow: words beside it, and a number in two lines.
RUN_OUT = """() => {
  document.documentElement.style.fontSize = "200%";
  const end = (at) => { const range = document.createRange(); range.selectNodeContents(at); return range.getBoundingClientRect(); };
  const named = (at) => `${at.className}: ${at.textContent.trim().slice(0, 40)}`;
  const cells = [...document.querySelectorAll("main :is(dd, .stat, .weights td, .log time)")];
  const out = cells.filter((at) => at.checkVisibility() && end(at).width > at.getBoundingClientRect().width + 2);
  const numbers = [...document.querySelectorAll(".dots-value")];
  const torn = numbers.filter((at) => at.getBoundingClientRect().height > 2 * parseFloat(getComputedStyle(at).fontSize));
  return [...out, ...torn].map(named);
}"""


def test_letters_twice_as_large_stay_in_their_columns(page: Page, live_server: Any, filled: Filled):
    sign_in(page, live_server.url, "ada")
    wrong: list[str] = []
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for path in ("/status", "/compositions", *filled.more[:2]):
            page.goto(f"{live_server.url}{path}")
            wrong.extend(f"{path} at {width}: {found}" for found in page.evaluate(RUN_OUT))
    assert wrong == []


def test_what_is_written_from_right_to_left_stands_where_the_others_do(
    page: Page, live_server: Any, filled: Filled
):
    said = "אומר מה צבעו של הדבר."
    task = make_task("hebrew", rows=5, test_rows=20, is_held_out=True, title=said, description=said)
    make_adapter("hebrew", owner=filled.ada, description=said)
    for path, parts in (
        ("/modules?q=hebrew", (".row-title a", ".row-about")),
        ("/ada/hebrew", ("h1", ".about")),
        (task.get_absolute_url(), ("h1", ".lead")),
        ("/tasks?q=hebrew", (".row-title a", ".row-about")),
    ):
        page.goto(f"{live_server.url}{path}")
        line = page.evaluate(
            "() => document.querySelector('.crumbs, h1, .tabs').getBoundingClientRect().left"
        )
        assert [page.evaluate(INK, part) for part in parts] == [round(line)] * 2, path
        dot = page.evaluate(
            """(selector) => {
              const text = document.querySelector(selector).firstChild;
              const range = document.createRange();
              range.setStart(text, text.data.length - 1); range.setEnd(text, text.data.length);
              return Math.round(range.getBoundingClientRect().left);
            }""",
            parts[1],
        )
        assert dot == round(line), f"{path}: the full stop is at the wrong end"


def test_with_the_systems_own_colours_a_choice_is_still_seen(
    browser: Browser, live_server: Any, filled: Filled
):
    context = browser.new_context(forced_colors="active", viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(f"{live_server.url}/compose?task=colour-twice")
        with page.expect_response(lambda answer: "/compose/candidates" in answer.url):
            page.click("summary:has-text('fit')")
        page.wait_for_selector(".htmx-request, .htmx-swapping, .htmx-settling", state="detached")
        ground = "at => getComputedStyle(at.nextElementSibling).backgroundColor"
        pin = page.locator("[name=pin]").first
        before = pin.evaluate(ground)
        pin.check()
        assert pin.evaluate(ground) != before
        sign_in(page, live_server.url, "ada")
        page.goto(f"{live_server.url}/settings/tokens")
        edge = "at => getComputedStyle(at).borderBottomColor"
        here, other = (
            page.locator(f".tabs a{kind}").first for kind in ("[aria-current]", ":not([aria-current])")
        )
        assert here.evaluate(edge) != other.evaluate(edge)
    finally:
        context.close()


# --- Weight and speed ----------------------------------------------------------------------------------------


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def compressed_site(filled: Filled, tmp_path: Path) -> Iterator[str]:
    """The site as production serves it: pages and static files compressed. The test server compresses neither."""
    from django.core.wsgi import get_wsgi_application
    from whitenoise import WhiteNoise

    static = tmp_path / "static"
    for source in (ROOT / "static", Path(django_htmx.__file__).parent / "static"):
        shutil.copytree(source, static, dirs_exist_ok=True)
    for file in [path for path in static.rglob("*") if path.suffix in {".css", ".js", ".svg"}]:
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 9))
    server = ThreadedWSGIServer(("127.0.0.1", 0), _Silent, allow_reuse_address=False)
    server.set_app(WhiteNoise(get_wsgi_application(), root=str(static), prefix="static/"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


# How far things that were there moved, as Chromium counts it; a person sees 0.1.
LAYOUT_SHIFT = """() => new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => { for (const entry of list.getEntries()) sum += entry.value; })
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 150);
})"""
MOST_SHIFT = 0.02


def test_no_page_weighs_more_than_150_kb_compressed_or_moves_while_it_comes(
    page: Page, compressed_site: str, filled: Filled
):
    sign_in(page, compressed_site, "ada")
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    weights: list[float] = []
    network.on("Network.loadingFinished", lambda done: weights.append(done["encodedDataLength"]))
    heavy: dict[str, float] = {}
    for path in [
        "/",
        "/api/docs/",
        *filled.more,
        f"/compositions/{filled.names['composition_id']}",
        "/upload",
    ]:
        weights.clear()
        page.goto(f"{compressed_site}{path}")
        page.wait_for_load_state("load")
        assert weights, path
        if sum(weights) > PAGE_BYTES:
            heavy[path] = sum(weights)
        moved = page.evaluate(LAYOUT_SHIFT)
        if moved > MOST_SHIFT:
            heavy[f"{path} moves"] = moved
    assert heavy == {}


def test_the_first_results_are_readable_within_a_second_on_slow_3g(
    browser: Browser, compressed_site: str, filled: Filled
):
    """400 kbit/s and 400 ms for every request, as Chromium simulates it, with nothing in the cache."""
    owner = make_user("prolific")
    base_model = make_base_model("google/flan-t5-large")
    for number in range(20):
        make_adapter(
            f"module-{number}", owner=owner, base_model=base_model, description="Names the colour of it"
        )
    times: list[float] = []
    while len(times) < 5 and (
        len(times) < 3 or min(times) > 1000
    ):  # beside other work on two cores some wait for it
        times.append(first_paint(browser, f"{compressed_site}/modules"))
    print("first paint of /modules on slow 3G, ms:", [round(ms) for ms in times])
    assert min(times) <= 1000, times


def first_paint(browser: Browser, address: str) -> float:
    """Milliseconds until text is on the screen, for somebody who was never here."""
    context = browser.new_context(viewport={"width": 390, "height": 800})
    try:
        page = context.new_page()
        network = context.new_cdp_session(page)
        network.send("Network.enable")
        rate = 400 * 1024 / 8
        slow = {"offline": False, "latency": 400, "downloadThroughput": rate, "uploadThroughput": rate}
        network.send("Network.emulateNetworkConditions", slow)
        page.goto(address)
        assert page.is_visible(".row-title >> nth=0")
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        return float(page.evaluate(paint))
    finally:
        context.close()


# --- Keys ----------------------------------------------------------------------------------------------------


def test_the_site_can_be_used_by_keys_and_says_which(page: Page, live_server: Any, filled: Filled):
    page.goto(f"{live_server.url}/modules")
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).not_to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    first = page.evaluate("document.activeElement.href")
    assert first == page.locator(".row-title a").first.evaluate("link => link.href")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "site-search"
    page.keyboard.type("?jk")
    assert page.input_value("#site-search") == "?jk", "keys are letters where one types"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("c")
    page.wait_for_url("**/compose")


def test_single_keys_can_be_switched_off(page: Page, live_server: Any, filled: Filled):
    page.goto(f"{live_server.url}/modules")
    page.click("[data-keys]")
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    page.goto(f"{live_server.url}/tasks")
    assert not page.is_visible(".search kbd"), "a key that does nothing is shown"
    for key in ("c", "j", "/", "?"):
        page.keyboard.press(key)
    assert page.url.endswith("/tasks")
    assert page.evaluate("document.activeElement === document.body")
    page.click("[data-keys]")
    page.check("#keys-on")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.wait_for_url("**/compose")


def test_an_input_is_wrong_once_it_was_refused_and_no_longer_when_it_is_filled(page: Page, live_server: Any):
    page.goto(f"{live_server.url}/accounts/login/")
    name = page.get_by_label("User name or e-mail")
    expect(name).to_have_attribute("aria-invalid", "false")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(name).to_have_attribute("aria-invalid", "true")
    name.fill("ada")
    expect(name).to_have_attribute("aria-invalid", "false")


def test_results_are_reached_by_keys_past_the_filters(page: Page, live_server: Any, filled: Filled):
    page.goto(f"{live_server.url}/modules")
    page.get_by_role("link", name="Skip to the results").press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#results') !== null")


def test_the_focus_is_seen_wherever_it_goes(page: Page, live_server: Any, filled: Filled):
    """Tab through the compose form: each stop has an outline of two pixels, or its box says it."""
    page.goto(f"{live_server.url}/compose")
    unseen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        unseen += page.evaluate(
            """() => {
              const at = document.activeElement;
              if (at === document.body) return [];
              const shown = (el) => { const s = getComputedStyle(el); return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2; };
              const near = [at, at.nextElementSibling, at.closest(".search")].filter(Boolean);
              const searching = at.closest(".search") && getComputedStyle(at.closest(".search")).borderColor !== getComputedStyle(document.querySelector("header.site")).borderBottomColor;
              return near.some(shown) || searching ? [] : [at.outerHTML.slice(0, 120)];
            }"""
        )
    assert unseen == []


def test_a_site_that_does_not_answer_is_said_and_nothing_typed_is_lost(
    page: Page, live_server: Any, filled: Filled
):
    page.goto(f"{live_server.url}/compose")
    page.route("**/compose/check", lambda route: route.abort())
    page.fill("[aria-label='Input of row 1']", "typed")
    page.wait_for_selector("#trouble:visible")
    page.unroute("**/compose/check")
    page.fill("[aria-label='Output of row 1']", "kept")
    page.wait_for_selector("#examples-check b:has-text('1 example')")
    expect(page.locator("#trouble")).not_to_be_visible()
    assert page.input_value("[aria-label='Input of row 1']") == "typed"
