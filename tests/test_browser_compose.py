"""In real Chromium: the main job from end to end on the demo collection, and the compose pages with and without scripts.

Each story leaves its pictures in `screenshots/`, to flip through.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from compose import jobs
from compose.models import Composition
from registry.models import Adapter, BaseModel, User
from tests.albums import Album
from tests.compose.factories import finish, make_composition, make_modules, make_trials
from tests.conftest import ROOT, Site
from tests.factories import make_adapter, make_base_model, make_task, make_user, namespace_of
from tests.in_browser import PASSWORD, drop, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


# --- The main job ----------------------------------------------------------------------------------------------


def own_module(folder: Path) -> Path:
    """A module of one's own: one of the demo's with its B matrices scaled, so that its weights are new."""
    from safetensors.numpy import load_file, save_file

    source = ROOT / "demo/modules/plain-tools/who-plain"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    tensors = load_file(source / "adapter_model.safetensors")
    scaled = {name: tensor * 0.9 if "lora_B" in name else tensor for name, tensor in tensors.items()}
    save_file(scaled, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def answer_with_peft(adapter: Path, question: str) -> str:
    """What the downloaded adapter writes, with peft and transformers alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    base = ROOT / "demo/story-t5"
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(base), adapter).eval()
    with torch.inference_mode():
        tokens = model.generate(
            **tokenizer(question, return_tensors="pt"), max_new_tokens=32, do_sample=False
        )
    return str(tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()


@pytest.mark.slow
def test_a_newcomer_uploads_finds_composes_tries_shares_publishes_downloads_and_loads(
    page: Page, browser: Browser, running_site: Site, tmp_path: Path
):
    album = Album("newcomer")
    site = running_site.address
    sign_in(page, site, running_site.username, running_site.password)
    album.take(page, "home")

    # Upload a module by dropping its files.
    page.goto(f"{site}/upload")
    drop(page, own_module(tmp_path / "who-mine"))
    page.wait_for_selector("#verdict .notice.good")
    page.fill("input[name=name]", "who-mine")
    page.fill("input[name=description]", "Who the story is about, a little quieter")
    page.select_option("select[name=license]", "apache-2.0")
    album.take(page, "a module of one's own")
    page.click("#publish")
    page.wait_for_url(f"{site}/{running_site.username}/who-mine")

    # Find it.
    page.goto(f"{site}/modules")
    page.fill("#site-search", "quieter")
    page.press("#site-search", "Enter")
    page.wait_for_url("**/modules?q=quieter*")
    assert page.locator("article.row", has_text="who-mine").count() == 1
    album.take(page, "it is found")

    # Compose for a held-out task, from the examples that the form offers.
    page.goto(f"{site}/compose")
    page.click(".task-picks a:has-text('Which colour, in brackets')")
    page.wait_for_url("**/compose?task=colour-in-brackets")
    assert page.locator("textarea[name=example_input]").first.input_value()
    page.locator("textarea[name=example_output]").first.press("End")
    page.keyboard.type(" ")
    expect(page.locator("#examples-check b")).to_have_text("5 examples")
    album.take(page, "examples in the form")
    page.click("button[value=check]")
    page.wait_for_selector("#check.good")
    album.take(page, "check only")
    page.click("button[value=compose]")
    page.wait_for_url("**/compositions/*")
    composition = page.url

    # Watch progress move, without touching the page.
    # A warm worker may be through with the search between two looks of the page.
    expect(page).to_have_title(re.compile(r"^(Search|Evaluate) [1-9]"), timeout=180_000)
    first = page.title()
    album.take(page, "the search is watched")
    expect(page).not_to_have_title(first, timeout=60_000)
    page.wait_for_selector("#finding", timeout=240_000)

    # Read the result block.
    assert page.url == composition
    finding = page.inner_text("#finding")
    assert re.search(r"\d+ of 200 rows right", finding), finding
    methods = page.locator(".dots-label").all_inner_texts()
    labels = [text.split("\n")[0].split(" best baseline")[0] for text in methods]
    assert {"Zero-shot", "Best single module", "Uniform average", "In context"} < set(labels)
    assert len(labels) == 6, "and LoraHub's own search, beside that of auto"
    assert labels[-1] == "Composed here"
    assert page.locator(".search-best").count() == 1
    assert page.locator(".weights .bar-adds, .weights .bar-takes").count() > 1
    row = page.locator(".predictions tbody tr").first
    question = row.locator("td").nth(0).inner_text()
    composed = row.locator("td").nth(2).inner_text()
    composed = re.sub(r"^(right|wrong):\s*", "", composed.strip())
    album.take(page, "the result")
    assert page.locator("[hx-trigger]").count() == 0, "a finished composition still polls"

    # Try it on the first row: a worker writes what the page said it would.
    page.fill("#try-text", question)
    page.click("#try button:has-text('Answer')")
    answer = page.locator(".tryout-answers .is-ours dd")
    expect(answer).to_have_text(composed or "(nothing)", timeout=60_000)
    album.take(page, "the adapter answers a text of mine")

    # Share the result with somebody who has no account.
    page.click("#share button:has-text('Make a link')")
    link = page.input_value("[aria-label='Link to share']")
    somebody = browser.new_context().new_page()
    somebody.goto(link)
    assert somebody.inner_text("#finding") == finding
    assert question not in somebody.content()
    somebody.context.close()

    # Publish.
    page.fill("#id_name", "colour-in-brackets-composed")
    page.click("#publish button:has-text('Publish')")
    page.wait_for_url(f"{site}/{running_site.username}/colour-in-brackets-composed")
    assert "What it is made of" in page.inner_text("main")
    album.take(page, "published")

    # Download, and load with peft: it writes what the page said it would.
    with page.expect_download() as started:
        page.click("a.btn:has-text('Download')")
    zipfile.ZipFile(started.value.path()).extractall(tmp_path / "download")
    (folder,) = (tmp_path / "download").iterdir()
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "recipe.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert answer_with_peft(folder, question) == composed

    # It is ranked.
    page.goto(f"{site}/tasks/colour-in-brackets")
    assert page.locator(".board tbody tr", has_text="colour-in-brackets-composed").count() == 1
    album.take(page, "it is ranked")
    page.goto(f"{site}/status")
    album.take(page, "the state of the site")


# --- Pages on a site with made-up results ----------------------------------------------------------------------


@pytest.fixture
def ada(transactional_db: None, rung: list[Any]) -> User:
    return make_user("ada", password=PASSWORD)


@pytest.fixture
def base_model(ada: User) -> BaseModel:
    model = make_base_model("demo/tiny-t5", kind="hosted")
    make_modules(model, 3)
    make_task("colour-twice", rows=5, test_rows=20, is_held_out=True, base_model=model)
    return model


@pytest.mark.django_db(transaction=True)
def test_rows_are_added_pasted_checked_and_removed_while_typing(
    page: Page, live_server: Any, base_model: BaseModel
):
    page.goto(f"{live_server.url}/compose")
    inputs = page.locator("textarea[name=example_input]")
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.setData("text/plain", "one\\tI\\ntwo\\tII\\nthree\\tIII\\nfour\\tIV\\nfive\\tV\\nsix\\tVI\\n");
          document.querySelector("textarea[name=example_input]").dispatchEvent(
            new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
        }"""
    )
    assert inputs.nth(5).input_value() == "six"
    page.wait_for_selector("#examples-check b:has-text('6 examples')")
    page.click("[aria-label='Remove row 2']")
    page.wait_for_selector("#examples-check b:has-text('5 examples')")
    assert inputs.nth(1).input_value() == "three"
    page.locator("textarea[name=example_output]").nth(0).fill("")
    page.wait_for_selector("#examples-check .errorlist:has-text('Row 1 has no output.')")
    rows = inputs.count()
    page.click("#add-row")
    assert inputs.count() == rows + 1


PASTE = """(text) => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  return document.querySelector("textarea[name=example_input]").dispatchEvent(
    new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""


@pytest.mark.django_db(transaction=True)
def test_what_is_pasted_into_a_row_and_is_several_rows_is_read_as_that(
    page: Page, live_server: Any, base_model: BaseModel
):
    pasted = page.locator("#examples-text")
    for text, said in (
        ('"two\nlines"\tI\ntwo\tII\n', "2 examples"),
        ("input\toutput\tnote\none\tI\t\ntwo\tII\tx\n", "2 examples"),
        ("one\tI\n\ntwo\tII\n", "2 examples"),
        ('{"input": "one", "output": "I"}\n{"input": "two", "output": "II"}', "2 examples"),
        ("1\tone\tI\n2\ttwo\tII\n", "Row 1 has 3 tab-separated cells"),
    ):
        page.goto(f"{live_server.url}/compose")
        assert not page.evaluate(PASTE, text), "the browser put all of it into one cell"
        page.wait_for_selector(f"#examples-check:has-text('{said}')")
        assert pasted.is_visible()
        assert pasted.input_value() == text.rstrip("\n")
    page.goto(f"{live_server.url}/compose")
    page.evaluate(PASTE, '"She said ""hi"""\t"I"')
    assert page.locator("textarea[name=example_input]").first.input_value() == 'She said "hi"'
    assert page.locator("textarea[name=example_output]").first.input_value() == '"I"'
    assert page.evaluate(PASTE, "a text\nof two lines"), "which is one cell's"


@pytest.mark.django_db(transaction=True)
def test_what_was_typed_can_be_brought_back_after_a_reload(
    page: Page, live_server: Any, base_model: BaseModel
):
    page.goto(f"{live_server.url}/compose")
    assert not page.is_visible("#draft-offer")
    page.fill("[aria-label='Input of row 1']", "typed")
    page.fill("[aria-label='Output of row 1']", "kept")
    page.wait_for_timeout(600)
    page.reload()
    page.click("[data-draft=restore]")
    assert page.input_value("[aria-label='Input of row 1']") == "typed"
    page.wait_for_selector("#examples-check b:has-text('1 example')")
    page.reload()
    page.click("[data-draft=forget]")
    page.reload()
    assert not page.is_visible("#draft-offer")


@pytest.mark.django_db(transaction=True)
def test_what_comes_from_the_start_page_is_not_replaced_by_an_earlier_draft(
    page: Page, live_server: Any, base_model: BaseModel
):
    page.goto(f"{live_server.url}/compose")
    page.click("summary:has-text('Paste or give a file')")
    page.fill("[name=examples_text]", "an earlier text")
    page.wait_for_timeout(600)
    page.goto(live_server.url)
    page.fill("#home-examples", "three\tcells\tof a row")
    page.click("text=Compose from these")
    page.wait_for_selector("#examples-check")
    page.wait_for_timeout(300)
    assert page.input_value("[name=examples_text]") == "three\tcells\tof a row"


@pytest.mark.django_db(transaction=True)
def test_modules_are_picked_and_filtered(page: Page, live_server: Any, base_model: BaseModel):
    page.goto(f"{live_server.url}/compose")
    assert not page.is_visible("[name=pick] >> nth=0")
    page.click("summary:has-text('3 modules fit')")
    page.check("[name=pin] >> nth=0")
    page.check("[name=exclude] >> nth=0")
    assert not page.is_checked("[name=pin] >> nth=0")
    page.uncheck("[name=exclude] >> nth=0")
    page.check("#choice-picked")
    page.check("[name=pick] >> nth=2")
    page.type("[name=filter]", "part-0")
    expect(page.locator("[name=pick]")).to_have_count(2)
    assert page.locator("[name=pick]:checked").count() == 1
    page.click("[data-pick=none]")
    assert page.locator("[name=pick]:checked").count() == 0


@pytest.mark.django_db(transaction=True)
def test_back_to_the_form_shows_the_modules_of_the_base_model_that_was_chosen(
    page: Page, live_server: Any, base_model: BaseModel
):
    make_modules(make_base_model("demo/other-t5", kind="hosted"), 2)
    page.goto(f"{live_server.url}/compose")
    page.select_option("#id_base_model", "demo/other-t5")
    count = page.locator("#pickable-count")
    expect(count).to_have_text("2 modules fit demo/other-t5")
    page.goto(f"{live_server.url}/tasks")
    page.go_back()
    expect(page.locator("#id_base_model")).to_have_value("demo/other-t5")
    expect(count).to_have_text("2 modules fit demo/other-t5")


@pytest.mark.django_db(transaction=True)
def test_a_version_is_pinned_and_let_go_of_beside_the_newest(
    page: Page, live_server: Any, base_model: BaseModel
):
    adapter = Adapter.objects.get(name="part-1")
    assert adapter.head is not None
    named = f"{adapter.full_name}@{adapter.head.commit}"
    page.goto(f"{live_server.url}/compose?pick={named}")
    pin = page.locator(f"[name=pin][value='{named}']")
    expect(pin).to_be_checked()
    pin.uncheck()
    pin.check()


@pytest.mark.django_db(transaction=True)
def test_the_page_follows_a_composition_to_its_end_by_itself(
    page: Page, live_server: Any, base_model: BaseModel, ada: User
):
    composition = make_composition(owner=ada, base_model=base_model, title="Colours")
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}{composition.get_absolute_url()}")
    page.wait_for_selector("h2:has-text('Next in line')")
    claimed = jobs.claim(composition.pk, "worker-1")
    assert claimed is not None
    jobs.set_stage(claimed, "search", "lorahub", steps=40)
    jobs.record_trials(claimed, make_trials(7))
    expect(page).to_have_title(re.compile("^Search 7/40"))
    assert page.inner_text("#said") == "Search: looking for mixing weights"
    page.focus("#cancel")
    jobs.record_trials(claimed, make_trials(2, start=8))
    expect(page).to_have_title(re.compile("^Search 9/40"))
    assert page.evaluate("document.activeElement.id") == "cancel", "the page took the focus away"
    page.click("#stop")
    page.wait_for_selector("h2:has-text('the best so far is kept')")
    Composition.objects.filter(pk=composition.pk).update(status="queued", lease_until=None, wish="")
    finish(composition)
    finding = page.locator("#finding").inner_text()
    expect(page.locator("#said")).to_have_text(f"The composition has succeeded. {finding}")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.wait_for_timeout(2500)
    assert requests == []


@pytest.mark.django_db(transaction=True)
def test_everything_works_without_scripts(browser: Browser, live_server: Any, base_model: BaseModel):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    try:
        sign_in(page, live_server.url, "ada")
        page.goto(f"{live_server.url}/compose?task=colour-twice")
        page.check("#choice-picked")
        page.click("button:has-text('Show the modules of this base model')")
        page.check("[name=pick] >> nth=0")
        page.check("[name=pick] >> nth=1")
        page.fill("[name=budget]", "0")
        page.click("button[value=compose]")
        page.wait_for_selector("text=The search needs at least 1 trial.")
        assert page.locator("[name=pick]:checked").count() == 2
        page.fill("[name=budget]", "7")
        page.click("button[value=compose]")
        page.wait_for_url("**/compositions/*")
        composition = Composition.objects.get()
        assert (composition.budget, composition.candidates.count()) == (7, 2)
        page.wait_for_selector("a:has-text('Load it again')")
        finish(composition)
        page.click("a:has-text('Load it again')")
        page.wait_for_selector("#finding")
        page.click("summary:has-text('Scores as a table')")
        page.wait_for_selector("text=The base model alone.")
    finally:
        context.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_about_composing_is_wider_than_the_screen(
    page: Page, live_server: Any, base_model: BaseModel, ada: User, scheme: Any
):
    long = "a-rather-long-name-that-somebody-gave-to-it-without-a-thought"
    task = make_task(long, rows=5, test_rows=20, is_held_out=True, base_model=base_model)
    done = finish(make_composition(owner=ada, base_model=base_model, task=task, examples=(), title=long * 3))
    done.adapter = make_adapter(
        long, namespace=namespace_of(ada), base_model=base_model, kind="composed", task=task
    )
    done.save(update_fields=["adapter"])
    running = make_composition(owner=ada, base_model=base_model, title="Running")
    claimed = jobs.claim(running.pk, "worker-1@a-host-with-a-name-that-does-not-end")
    assert claimed is not None
    jobs.set_stage(claimed, "search", steps=40)
    jobs.record_trials(claimed, make_trials(7))
    waiting = make_composition(owner=ada, base_model=base_model)
    failed = jobs.claim(make_composition(owner=ada, base_model=base_model).pk, "worker-2")
    assert failed is not None
    jobs.fail(failed, f"Example 1 says {'x' * 200}.")
    page.emulate_media(color_scheme=scheme)
    errors: list[str] = []
    page.on("console", lambda line: errors.extend([line.text] if line.type == "error" else []))
    sign_in(page, live_server.url, "ada")
    addresses = [
        "/",
        "/compose",
        f"/compose?task={long}",
        "/compositions",
        "/tasks",
        f"/tasks/{long}",
        "/status",
    ]
    addresses += [c.get_absolute_url() for c in (done, running, waiting, failed)]
    for width in (1280, 768, 360):
        page.set_viewport_size({"width": width, "height": 900})
        for address in addresses:
            page.goto(f"{live_server.url}{address}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{address} at {width}"
    assert errors == []
