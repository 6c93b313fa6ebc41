"""The registry's pages: each works, refuses strangers, refuses bad input, and asks the database little."""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from registry import commits, publishing, snippets, storage
from registry.models import (
    Adapter,
    BaseModel,
    ImportItem,
    ImportJob,
    Membership,
    PushJob,
    Task,
    Token,
    User,
)
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_revision,
    make_task,
    make_token,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.fake_adapters import make_adapter as make_adapter_folder
from web.pagination import cursor_of

pytestmark = pytest.mark.django_db

MAX_QUERIES = 15


@pytest.fixture
def alice() -> User:
    return make_user("alice")


@pytest.fixture
def signed_in(alice: User) -> Client:
    client = Client()
    client.force_login(alice, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def module(tmp_path: Path, alice: User) -> Adapter:
    """alice/colour, composable, public."""
    make_base_model()
    return publish_fake(
        tmp_path,
        "colour",
        owner=alice,
        base_model="demo/tiny-t5",
        description="Names the colour",
        license="mit",
        task_title="Colour of a thing",
    )


def text(response: Any) -> str:
    return response.content.decode()


# --- Every page ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "/modules", "/modules?q=colour&composable=yes&sort=downloads&rank=1-8", "/alice", "/alice/colour",
        "/alice/colour?use=curl", "/alice/colour/versions", "/alice/colour/settings", "/alice/colour/card", "/upload", "/base-models",
        "/base-models?q=tiny", "/base-models/demo/tiny-t5", "/base-models/new", "/settings", "/settings/tokens",
        "/docs", "/docs/composing", "/docs/uploading", "/docs/api", "/docs/limits", "/api/docs/",
    ],
)  # fmt: skip
def test_a_page_is_shown_within_its_queries_and_without_inline_code(
    signed_in: Client, module: Adapter, address: str, django_assert_max_num_queries: Any
):
    with django_assert_max_num_queries(MAX_QUERIES):
        response = signed_in.get(address)
    assert response.status_code == 200
    html = text(response)
    assert not re.search(r"<[^>]+\sstyle=|<style|<script(?![^>]+src=)|\son[a-z]+=\"", html)
    assert not re.search(r'(src|href)="(https?:)?//', html)
    assert "{%" not in html, "a tag that was not read as one: they end on the line they begin on"


@pytest.mark.parametrize("address", ["/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"])
def test_an_account_page_has_our_look(client: Client, address: str):
    html = text(client.get(address))
    assert 'class="site-nav"' in html
    assert "css/base" in html


@pytest.mark.parametrize(
    "address",
    [
        "/upload",
        "/settings",
        "/settings/tokens",
        "/base-models/new",
        "/alice/colour/settings",
        "/alice/colour/card",
    ],
)
def test_a_page_for_members_sends_a_stranger_to_sign_in(client: Client, module: Adapter, address: str):
    response = client.get(address)
    assert response.status_code == 302
    assert response["Location"] == f"/accounts/login/?next={address}"


@pytest.mark.parametrize(
    "address", ["/nobody", "/alice/nothing", "/base-models/no/model", "/docs/nothing", "/a/b/c/d"]
)
def test_what_is_not_there_is_a_404_in_words(client: Client, module: Adapter, address: str):
    response = client.get(address)
    assert response.status_code == 404
    assert "Browse LoRA modules" in text(response)


def test_the_page_of_our_own_mistakes_asks_the_database_nothing(rf: Any, django_assert_num_queries: Any):
    from django.contrib.auth.middleware import AuthenticationMiddleware
    from django.contrib.messages.middleware import MessageMiddleware
    from django.contrib.sessions.middleware import SessionMiddleware

    from web.views import server_error

    request = rf.get("/modules")
    request.COOKIES["sessionid"] = "some-session"
    answer = SessionMiddleware(AuthenticationMiddleware(MessageMiddleware(server_error)))
    with django_assert_num_queries(0):
        response = answer(request)
    assert response.status_code == 500
    assert "Something broke on our side" in text(response)


def test_crawlers_are_told_what_is_not_for_them(client: Client):
    assert "Disallow: /api/" in text(client.get("/robots.txt"))


def test_crawlers_find_what_everybody_may_see_and_nothing_else(client: Client, module: Adapter):
    make_adapter("hidden", owner=make_user("bob"), visibility="private")
    told = text(client.get("/robots.txt"))
    assert "Sitemap: http://testserver/sitemap.xml" in told
    parts = re.findall(r"<loc>http://testserver(/[^<]+)</loc>", text(client.get("/sitemap.xml")))
    assert {"/sitemap-pages.xml", "/sitemap-modules.xml", "/sitemap-people.xml"} <= set(parts)
    found = "".join(text(client.get(part)) for part in parts)
    assert f"<loc>http://testserver{module.get_absolute_url()}</loc>" in found
    assert f"<loc>http://testserver/{module.namespace.name}</loc>" in found
    assert "<loc>http://testserver/modules</loc>" in found
    assert "bob" not in found
    for address in re.findall(r"<loc>http://testserver(/[^<]*)</loc>", found):
        assert client.get(address).status_code == 200
    assert client.get("/sitemap-nothing.xml").status_code == 404
    with CaptureQueriesContext(connection) as made:
        client.get("/sitemap.xml")
    rows = [
        query["sql"]
        for query in made
        if not re.match(r"SELECT (DISTINCT )?(COUNT|MAX)\(|SAVEPOINT|RELEASE", query["sql"])
        and not re.search(
            r"FROM registry_search(row|clock)", query["sql"]
        )  # what has changed in the search's columns
    ]
    assert rows == [], "numbers and the newest time alone, however many there are"
    assert client.get("/sitemap-modules.xml?p=2").status_code == 404


def test_the_stylesheets_load_nothing_from_elsewhere():
    for name in ("css/base.css", "css/docs.css", "css/registry/upload.css", "css/registry/adapter.css"):
        found = finders.find(name)
        assert isinstance(found, str)
        assert "url(" not in Path(found).read_text()
        assert "@import" not in Path(found).read_text()


# --- Browsing --------------------------------------------------------------------------------------------


def test_the_list_shows_what_decides(client: Client, module: Adapter):
    html = text(client.get("/modules"))
    for expected in ("colour", "Names the colour", "demo/tiny-t5", "composes with 0", "Colour of a thing"):
        assert expected in html


def test_a_filter_narrows_the_list_and_a_chip_takes_it_away(client: Client, module: Adapter):
    make_adapter("other", license="apache-2.0")
    html = text(client.get("/modules?license=mit&sort=downloads"))
    assert "alice/colour" in html
    assert "/other" not in html
    assert 'aria-label="Remove the filter mit"' in html
    assert 'href="?sort=downloads"' in html


def test_the_copied_api_call_asks_for_the_same_list(client: Client, module: Adapter):
    html = text(client.get("/modules?base=demo/tiny-t5&composable=yes"))
    assert "/api/v1/adapters/?base=demo%2Ftiny-t5&amp;composable=yes" in html


def test_an_unknown_parameter_is_refused_in_words(client: Client):
    response = client.get("/modules?colour=red")
    assert response.status_code == 400
    assert "is no parameter here" in text(response)


def test_a_list_without_matches_names_the_filters_to_remove(client: Client, module: Adapter):
    html = text(client.get("/modules?q=zebra&license=mit"))
    assert "Nothing matches all of this" in html
    assert "Remove “zebra”" in html


def test_a_search_also_finds_people_and_tasks(client: Client, module: Adapter):
    html = text(client.get("/modules?q=colour"))
    assert 'href="/tasks/colour-of-a-thing"' in html
    assert re.search(r'class="chip" href="/alice"', text(client.get("/modules?q=ali")))


def test_a_search_also_finds_base_models_the_nearest_first(client: Client):
    for name in ("google/flan-t5-xl", "google/flan-t5", *(f"org/flan-t5-large-{n}" for n in range(4))):
        make_base_model(name)
    page = text(client.get("/modules?q=Flan-T5"))
    found = re.findall(r'<a class="chip" href="(/base-models[^"]*)">', page)
    assert found[:2] == ["/base-models/google/flan-t5", "/base-models/google/flan-t5-xl"]
    assert len(found) == 5
    assert found[-1] == "/base-models?q=Flan-T5"
    assert "more base models" not in text(client.get("/modules?q=flan-t5-xl"))


def test_an_empty_registry_says_what_to_do(client: Client):
    assert "No modules yet" in text(client.get("/modules"))


def test_pages_of_the_list_neither_repeat_nor_lose(client: Client, alice: User):
    names = {make_adapter(f"module-{number}", owner=alice).name for number in range(5)}
    address, seen = "/modules?limit=2", []
    while address:
        html = text(client.get(address))
        seen += re.findall(r'<a href="/alice/([\w-]+)">', html)
        found = re.search(r'rel="next" href="([^"]+)"', html)
        address = "/modules" + found[1].replace("&amp;", "&") if found else ""
    assert sorted(seen) == sorted(names)


def test_a_namespace_page_lists_its_modules_only(client: Client, module: Adapter):
    make_adapter("other")
    html = text(client.get("/alice"))
    assert "/alice/colour" in html
    assert "other" not in html


def test_an_organisation_page_names_its_members(client: Client, alice: User):
    make_organisation("story-lab", members={alice: Membership.Role.ADMIN})
    assert 'href="/alice"' in text(client.get("/story-lab"))


# --- The adapter page ------------------------------------------------------------------------------------


def test_the_adapter_page_says_what_it_is_and_how_to_use_it(client: Client, module: Adapter):
    html = text(client.get("/alice/colour"))
    for expected in (
        "Names the colour",
        "PeftModel.from_pretrained",
        "adapter_model.safetensors",
        "Composes with",
    ):
        assert expected in html
    assert "Edit</a>" not in html


def test_every_tag_and_the_address_of_the_data_lead_on(client: Client, module: Adapter):
    Adapter.objects.update(
        tags=[f"tag-{number}" for number in range(11)],
        dataset="https://data.example/<b>",
        training="3 epochs",
    )
    page = text(client.get("/alice/colour"))
    for number in range(11):
        assert f'href="/modules?tag=tag-{number}"' in page
    assert ">3 more</summary>" in page
    assert '<a href="https://data.example/" rel="nofollow">https://data.example/</a>&lt;b&gt;' in page


def test_the_owner_finds_the_way_to_edit(signed_in: Client, module: Adapter):
    assert "/alice/colour/settings" in text(signed_in.get("/alice/colour"))


def test_a_name_in_another_case_finds_the_same_adapter(client: Client, module: Adapter):
    assert client.get("/Alice/COLOUR").status_code == 200


def test_a_private_adapter_is_a_404_for_strangers_everywhere(
    client: Client, signed_in: Client, module: Adapter
):
    Adapter.objects.filter(pk=module.pk).update(visibility="private")
    assert module.head is not None
    commit = module.head.commit
    addresses = [
        "/alice/colour", "/alice/colour/versions", f"/alice/colour/revisions/{commit}",
        f"/alice/colour/download/{commit}.zip", f"/alice/colour/download/{commit}/adapter_config.json",
    ]  # fmt: skip
    stranger = Client()
    stranger.force_login(make_user("mallory"), backend="django.contrib.auth.backends.ModelBackend")
    for address in addresses:
        assert client.get(address).status_code == 404
        assert stranger.get(address).status_code == 404
        assert signed_in.get(address).status_code == 200
    assert stranger.get("/alice/colour/settings").status_code == 404
    assert "colour" not in text(stranger.get("/modules"))
    assert "colour" not in text(stranger.get("/alice"))


def test_the_snippets_of_a_private_adapter_fetch_it_with_a_token(
    client: Client, alice: User, module: Adapter
):
    Adapter.objects.filter(pk=module.pk).update(visibility="private")
    module.refresh_from_db()
    assert module.head is not None
    header = {"Authorization": f"Bearer {make_token(alice, 'read')}"}
    for address in (
        snippets.archive_address(module, module.head, ""),
        snippets.file_address(module, module.head, "adapter_config.json", ""),
    ):
        assert client.get(address, headers=header).status_code == 200
        assert client.get(address).status_code == 404
    ways = snippets.snippets_for(module, module.head, site="http://here")
    assert all("LORA_COMMONS_TOKEN" in way.text for way in ways)
    client.force_login(alice)
    said = client.get(module.get_absolute_url()).content.decode()
    assert "into the environment as <code>LORA_COMMONS_TOKEN</code>" in said


def test_a_card_is_shown_without_its_scripts(client: Client, tmp_path: Path, alice: User):
    folder = tmp_path / "with-card"
    make_adapter_folder(folder)
    (folder / "README.md").write_text(
        "# Hello\n\n## Numbers\n\n<script>alert(1)</script>\n\n![x](https://elsewhere.example/a.png)"
    )
    _publish(alice, folder, "carded")
    html = text(client.get("/alice/carded"))
    assert "<h2>Hello</h2>" in html
    assert "<h3>Numbers</h3>" in html
    assert "alert(1)" not in html
    assert "elsewhere" not in html


def _publish(author: User, folder: Path, name: str) -> Adapter:
    from registry.publishing import publish
    from tests.fake_adapters import files_of

    return publish(author=author, namespace=namespace_of(author), name=name, files=files_of(folder))


def test_an_old_version_is_shown_as_one(client: Client, module: Adapter, tmp_path: Path, alice: User):
    assert module.head is not None
    first = module.head.commit
    folder = tmp_path / "second"
    make_adapter_folder(folder)
    (folder / "README.md").write_text("Second version")
    _publish(alice, folder, "colour")
    html = text(client.get(f"/alice/colour/revisions/{first}"))
    assert "You are looking at version" in html
    assert "Second version" not in html
    assert client.get("/alice/colour/revisions/ffffffff").status_code == 404


def test_files_and_the_whole_adapter_can_be_downloaded(client: Client, module: Adapter):
    assert module.head is not None
    address = f"/alice/colour/download/{module.head.commit}"
    one = client.get(f"{address}/adapter_config.json")
    config = json.loads(b"".join(one.streaming_content))  # type: ignore[attr-defined]
    assert config["peft_type"] == "LORA"
    assert one["Content-Disposition"].startswith("attachment")
    whole = b"".join(client.get(f"{address}.zip").streaming_content)  # type: ignore[attr-defined]
    names = zipfile.ZipFile(io.BytesIO(whole)).namelist()
    assert "colour/adapter_model.safetensors" in names
    assert client.get(f"{address}/nothing.json").status_code == 404
    assert client.post(f"{address}.zip").status_code == 405


def test_a_part_of_a_file_can_be_downloaded(client: Client, module: Adapter):
    assert module.head is not None
    address = f"/alice/colour/download/{module.head.commit}/adapter_config.json"
    response = client.get(address, headers={"Range": "bytes=0-0"})
    assert response.status_code == 206
    assert b"".join(response.streaming_content) == b"{"  # type: ignore[attr-defined]


# --- Editing and deleting --------------------------------------------------------------------------------


def _details(**changes: str) -> dict[str, str]:
    return {
        "description": "",
        "task": "",
        "base_model": "demo/tiny-t5",
        "license": "",
        "visibility": "public",
        **changes,
    }


def test_the_owner_changes_what_is_said_about_an_adapter(signed_in: Client, module: Adapter):
    changes = _details(
        description="Better words",
        license="other",
        license_other="my-licence",
        tags="red, blue",
        visibility="private",
    )
    response = signed_in.post("/alice/colour/settings", changes)
    assert response.status_code == 302
    module.refresh_from_db()
    assert module.description == "Better words"
    assert module.license == "my-licence"
    assert module.tags == ["red", "blue"]
    assert module.is_private
    assert module.is_composable


def test_saving_the_form_unchanged_keeps_the_task(signed_in: Client, module: Adapter):
    make_task("colour-of-a-thing-2", title="Names the colour")
    for title in ("Names the colour", "A title that makes another slug"):
        task = make_task(f"own-{len(title)}", title=title)
        Adapter.objects.update(task=task)
        page = text(signed_in.get("/alice/colour/settings"))
        before = Adapter.objects.count(), Task.objects.count()
        assert f'value="{title}"' in page
        signed_in.post("/alice/colour/settings", {"task": title, "visibility": "public"})
        module.refresh_from_db()
        assert module.task == task
        assert (Adapter.objects.count(), Task.objects.count()) == before


def test_a_task_is_found_by_its_title_in_any_case_and_the_base_decides_between_two(
    signed_in: Client, module: Adapter
):
    elsewhere = make_task("first", title="Mood of a text", base_model=make_base_model("demo/other"))
    here = make_task("second", title="Mood of a text", base_model=module.base_model)
    signed_in.post("/alice/colour/settings", {"task": "mood of a text", "visibility": "public",
                                              "base_model": "demo/tiny-t5"})  # fmt: skip
    module.refresh_from_db()
    assert module.task == here
    assert module.base_model is not None
    page = text(signed_in.get("/alice/colour/settings"))
    for task in (elsewhere, here):
        assert f'<option value="{task.slug}">Mood of a text ({task.slug})</option>' in page


def test_a_refused_change_keeps_what_was_typed(signed_in: Client, module: Adapter):
    response = signed_in.post("/alice/colour/settings", _details(description="good", tags="x" * 60))
    assert response.status_code == 400
    assert 'value="good"' in text(response)
    assert "has 60 characters" in text(response)


def test_a_member_who_may_only_read_changes_nothing(module: Adapter, alice: User):
    reader = make_user("reader")
    Membership.objects.create(namespace=module.namespace, user=reader, role=Membership.Role.READ)
    client = Client()
    client.force_login(reader, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/alice/colour/settings", _details()).status_code == 403
    assert client.post("/alice/colour/delete", {"confirm": "colour"}).status_code == 403


# --- The card, written on its page -----------------------------------------------------------------------


CARD_TEXT = "---\nlicense: apache-2.0\n---\n# Colours\n\nNames *the* colour.\n"


def _write_card(client: Client, module: Adapter, card: str, **more: str) -> Any:
    module.refresh_from_db()
    assert module.head is not None
    # Browsers end lines by two characters.
    sent = {"card": card.replace("\n", "\r\n"), "parent": module.head.commit, **more}
    return client.post("/alice/colour/card", sent)


def _card_of(module: Adapter) -> str | None:
    module.refresh_from_db()
    assert module.head is not None
    file = module.head.files.filter(path="README.md").select_related("blob").first()
    return storage.open_blob(file.blob).read().decode() if file else None


def test_a_card_written_on_its_page_is_a_version_with_the_same_weights(signed_in: Client, module: Adapter):
    before = module.head
    assert before is not None
    assert 'href="/alice/colour/card"' in text(signed_in.get("/alice/colour"))
    assert _write_card(signed_in, module, CARD_TEXT)["Location"] == "/alice/colour"
    assert _card_of(module) == CARD_TEXT
    assert module.head is not None
    assert module.head.parent == before
    assert module.head.message == "Edit the card"
    assert module.head.tensor_sha256 == before.tensor_sha256
    assert module.license == "apache-2.0", "what its first lines say is taken over"
    page = text(signed_in.get("/alice/colour"))
    assert "Names <em>the</em> colour." in page
    assert "The card is saved, as a new version." in page
    assert "# Colours" in text(signed_in.get("/alice/colour/card"))


def test_the_same_card_again_makes_no_version_and_an_empty_one_removes_it(signed_in: Client, module: Adapter):
    _write_card(signed_in, module, CARD_TEXT)
    versions = module.revisions.count()
    _write_card(signed_in, module, CARD_TEXT)
    assert module.revisions.count() == versions
    _write_card(signed_in, module, "  \n")
    assert _card_of(module) is None
    assert module.revisions.count() == versions + 1
    _write_card(signed_in, module, "")
    assert module.revisions.count() == versions + 1


def test_a_card_of_which_only_the_ends_of_lines_differ_stays_as_it_is(signed_in: Client, module: Adapter):
    """As a file that was written on Windows, opened in the browser and saved."""
    uploaded = CARD_TEXT.replace("\n", "\r\n")
    put = commits.Put("README.md", storage.store_stream([uploaded.encode()]))
    commits.commit(module, actor=User.objects.get(username="alice"), operations=[put], message="From Windows")
    versions = module.revisions.count()
    _write_card(signed_in, module, CARD_TEXT)
    assert "The card is as it was." in text(signed_in.get("/alice/colour"))
    assert (module.revisions.count(), _card_of(module)) == (versions, uploaded)
    _write_card(signed_in, module, CARD_TEXT + "More.\n")
    assert (module.revisions.count(), _card_of(module)) == (versions + 1, CARD_TEXT + "More.\n")


def test_a_card_that_is_no_utf_8_and_saved_untouched_stays_as_it_is(signed_in: Client, module: Adapter):
    make_revision(module, files={"README.md": b"# Caf\xe9\n"})
    [shown] = re.findall(r"<textarea[^>]*>\s*([^<]*)</textarea>", text(signed_in.get("/alice/colour/card")))
    versions = module.revisions.count()
    assert _write_card(signed_in, module, shown).status_code == 302
    assert module.revisions.count() == versions


def test_what_the_settings_say_stays_until_the_card_says_something_new(signed_in: Client, module: Adapter):
    other = make_base_model("demo/other-t5")
    actor = User.objects.get(username="alice")
    _write_card(signed_in, module, CARD_TEXT)
    publishing.update_adapter(
        Adapter.objects.get(pk=module.pk),
        actor=actor,
        license="mit",
        tags=[],
        language="de",
        base_model=other.name,
    )

    def said() -> tuple[str, list[str], str, BaseModel | None]:
        module.refresh_from_db()
        return module.license, module.tags, module.language, module.base_model

    _write_card(signed_in, module, CARD_TEXT + "More words.\n")
    assert said() == ("mit", [], "de", other)
    _write_card(signed_in, module, CARD_TEXT.replace("apache-2.0", "cc-by-4.0"))
    assert said() == ("cc-by-4.0", [], "de", other)
    _write_card(signed_in, module, CARD_TEXT.replace("---\n", "---\nbase_model: demo/tiny-t5\n", 1))
    assert said()[3] == BaseModel.objects.get(name="demo/tiny-t5")


def test_a_preview_shows_the_card_and_saves_nothing(signed_in: Client, module: Adapter):
    answer = _write_card(signed_in, module, CARD_TEXT + "<script>alert(1)</script>", action="preview")
    assert answer.status_code == 200
    assert "<h2>Colours</h2>" in text(answer), "the page has its own first heading"
    assert "<script>alert" not in text(answer)
    assert _card_of(module) is None


@pytest.mark.parametrize("action", ["", "preview"])
def test_a_card_that_breaks_the_rules_is_refused_and_kept(signed_in: Client, module: Adapter, action: str):
    answer = _write_card(signed_in, module, "---\nlicense: [\n---\nWords of mine.", action=action)
    assert answer.status_code == 400
    assert "is not valid YAML: while parsing a flow node (line 3)" in text(answer)
    assert re.search(r"<textarea[^>]*aria-invalid=.true.[^>]*>[^<]*Words of mine.", text(answer))
    assert _card_of(module) is None


def test_a_card_written_while_another_version_came_is_told_first(
    signed_in: Client, module: Adapter, tmp_path: Path, alice: User
):
    old = module.head
    assert old is not None
    publish_fake(tmp_path, "colour", owner=alice, config={"rank": 4})
    module.refresh_from_db()
    answer = _write_card(signed_in, module, CARD_TEXT, parent=old.commit)
    assert answer.status_code == 400
    assert "has moved on" in text(answer)
    assert "Names *the* colour." in text(answer)
    assert _card_of(module) is None
    [parent] = re.findall(r'name="parent" value="(\w+)"', text(answer))
    assert _write_card(signed_in, module, CARD_TEXT, parent=parent).status_code == 302
    assert _card_of(module) == CARD_TEXT


def test_only_who_may_change_a_module_is_led_to_its_card(client: Client, module: Adapter):
    assert "/alice/colour/card" not in text(client.get("/alice/colour"))


def test_deleting_needs_the_name_typed(signed_in: Client, module: Adapter):
    refused = signed_in.post("/alice/colour/delete", {"confirm": "color"})
    assert refused.status_code == 400
    assert "Type colour to delete it" in text(refused)
    assert signed_in.post("/alice/colour/delete", {"confirm": "colour"}).status_code == 302
    assert signed_in.get("/alice/colour").status_code == 404


# --- Uploading -------------------------------------------------------------------------------------------


def _upload(folder: Path, *names: str, **fields: Any) -> dict[str, Any]:
    make_adapter_folder(folder)
    names = names or ("adapter_config.json", "adapter_model.safetensors")
    said = {"namespace": "alice", "name": "colour", "visibility": "public", **fields}
    return {**said, "files": [io.BytesIO((folder / name).read_bytes()) for name in names]} | {
        "paths": list(names)
    }


def test_an_upload_becomes_an_adapter(signed_in: Client, tmp_path: Path):
    make_base_model()
    sent = _upload(
        tmp_path / "a",
        base_model="demo/tiny-t5",
        task="Colour",
        license="mit",
        card="# Mine",
        description="Colours",
    )
    response = signed_in.post("/upload", sent)
    assert response.status_code == 302
    assert response["Location"] == "/alice/colour"
    adapter = Adapter.objects.get(name="colour")
    assert adapter.is_composable
    assert adapter.task is not None
    assert adapter.task.title == "Colour"
    assert "<h2>Mine</h2>" in text(signed_in.get("/alice/colour"))


def test_a_folder_keeps_its_paths(signed_in: Client, tmp_path: Path):
    sent = _upload(tmp_path / "a")
    (tmp_path / "a" / "notes.md").write_text("Notes")
    sent["files"].append((tmp_path / "a" / "notes.md").open("rb"))
    sent["paths"] = ["adapter_config.json", "adapter_model.safetensors", "docs/notes.md"]
    signed_in.post("/upload", sent)
    head = Adapter.objects.get(name="colour").head
    assert head is not None
    assert head.files.filter(path="docs/notes.md").exists()


def test_a_script_gets_the_address_of_the_new_adapter(signed_in: Client, tmp_path: Path):
    response = signed_in.post("/upload", _upload(tmp_path / "a"), headers={"Accept": "application/json"})
    assert response.status_code == 201
    assert response.json() == {"url": "/alice/colour"}


def test_a_new_version_of_what_is_private_stays_private(signed_in: Client, tmp_path: Path):
    signed_in.post("/upload", _upload(tmp_path / "a", visibility="private"))
    adapter = Adapter.objects.get()
    form = text(signed_in.get(f"/upload?namespace={adapter.namespace.name}&name={adapter.name}"))
    assert re.search(r'value="private"[^>]*checked', form)
    sent = _upload(tmp_path / "a")
    said = text(signed_in.post("/upload", sent, follow=True))
    assert "has these very files already; there is no new version. It is still private" in said
    sent = _upload(tmp_path / "b", card="# New")
    assert "has a new version. It is still private" in text(signed_in.post("/upload", sent, follow=True))
    adapter.refresh_from_db()
    assert adapter.is_private
    signed_in.post("/upload", _upload(tmp_path / "c", name="open"))
    signed_in.post("/upload", _upload(tmp_path / "d", name="open", visibility="private"))
    assert Adapter.objects.get(name="open").is_private


def test_a_refused_upload_keeps_what_was_typed_and_says_what_is_wrong(signed_in: Client, tmp_path: Path):
    sent = _upload(tmp_path / "a", "adapter_config.json", description="Names the colour")
    response = signed_in.post("/upload", sent)
    assert response.status_code == 400
    assert "adapter_model.safetensors is missing" in text(response)
    assert 'value="Names the colour"' in text(response)
    assert not Adapter.objects.exists()


def test_a_refused_upload_tells_a_script_every_problem(signed_in: Client, tmp_path: Path):
    sent = _upload(tmp_path / "a", "adapter_config.json")
    response = signed_in.post("/upload", sent, headers={"Accept": "application/json"})
    assert response.status_code == 400
    assert [problem["file"] for problem in response.json()["problems"]] == ["adapter_model.safetensors"]


def test_a_bad_name_is_said_beside_the_field(signed_in: Client, tmp_path: Path):
    response = signed_in.post(
        "/upload", _upload(tmp_path / "a", name="no spaces"), headers={"Accept": "application/json"}
    )
    assert response.status_code == 400
    assert "only letters" in response.json()["fields"]["name"][0]


def test_a_bad_field_alone_is_said_above_the_form_too(signed_in: Client, tmp_path: Path):
    page = text(signed_in.post("/upload", {"namespace": "alice", "name": ""}))
    assert "Nothing was published." in page
    assert "Choose the files again." in page


def test_an_upload_without_files_is_refused_in_words(signed_in: Client):
    sent = {"namespace": "alice", "name": "colour", "visibility": "public"}
    assert "Choose the files of the adapter" in text(signed_in.post("/upload", sent))


def test_nobody_uploads_into_a_namespace_of_others(signed_in: Client, tmp_path: Path):
    make_user("bob")
    response = signed_in.post("/upload", _upload(tmp_path / "a", namespace="bob"))
    assert response.status_code == 400
    assert not Adapter.objects.exists()


def test_an_upload_from_another_site_is_refused(alice: User, tmp_path: Path):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/upload", _upload(tmp_path / "a")).status_code == 403
    assert not Adapter.objects.exists()


def test_too_large_an_upload_is_refused_before_it_is_read(signed_in: Client, tmp_path: Path, settings: Any):
    settings.MAX_ADAPTER_BYTES = settings.MAX_FILE_BYTES = 100
    response = signed_in.post("/upload", _upload(tmp_path / "a"), headers={"Accept": "application/json"})
    assert response.status_code == 413
    assert "is larger than 100 bytes" in response.json()["problems"][0]["message"]


def _parts(folder: Path) -> dict[str, Any]:
    """What the page sends for the early check: no weights, only the header of their file."""
    make_adapter_folder(folder)
    raw = (folder / "adapter_model.safetensors").read_bytes()
    header = raw[: 8 + int.from_bytes(raw[:8], "little")]
    return {
        "config": io.BytesIO((folder / "adapter_config.json").read_bytes()),
        "header": io.BytesIO(header),
        "weights_size": str(len(raw)),
    }


def test_the_early_check_judges_an_adapter_by_its_header(signed_in: Client, tmp_path: Path):
    make_base_model()
    report = signed_in.post("/upload/check", {**_parts(tmp_path / "a"), "base_model": "demo/tiny-t5"}).json()
    assert report["problems"] == []
    assert report["is_composable"] is True
    assert report["base_fit"] == "fits"
    assert not any("Untrained" in warning for warning in report["warnings"])


def test_the_early_check_finds_a_base_model_that_does_not_fit(signed_in: Client, tmp_path: Path):
    make_base_model("demo/other", matrices={"encoder.block.0.layer.0.SelfAttention.q": [9, 9]})
    report = signed_in.post("/upload/check", {**_parts(tmp_path / "a"), "base_model": "demo/other"}).json()
    assert report["problems"]


def test_the_early_check_says_what_is_missing(signed_in: Client, tmp_path: Path):
    config = _parts(tmp_path / "a")["config"]
    report = signed_in.post("/upload/check", {"config": config}).json()
    assert "is missing" in report["problems"][0]["message"]


def test_the_early_check_leaves_weights_that_come_later_alone(signed_in: Client, tmp_path: Path):
    config = _parts(tmp_path / "a")["config"]
    assert signed_in.post("/upload/check", {"config": config, "weights": "later"}).json()["problems"] == []


@pytest.mark.parametrize("size", ["-1", "x", "99999999999999999999", "1"])
def test_the_early_check_refuses_an_impossible_size(signed_in: Client, tmp_path: Path, size: str):
    response = signed_in.post("/upload/check", {**_parts(tmp_path / "a"), "weights_size": size})
    assert response.status_code < 500
    assert "size" in text(response)


def test_a_stranger_gets_no_early_check(client: Client):
    assert client.post("/upload/check").status_code == 302


# --- Base models -----------------------------------------------------------------------------------------


def test_a_base_model_page_lists_its_modules(client: Client, module: Adapter):
    html = text(client.get("/base-models/demo/tiny-t5"))
    assert "alice /" in html
    assert "T5ForConditionalGeneration" in html


def test_an_alias_leads_to_the_base_model(client: Client):
    make_base_model().aliases.create(text="mirror/tiny")
    assert client.get("/base-models/mirror/tiny")["Location"] == "/base-models/demo/tiny-t5"


def test_a_base_model_is_added_by_pasting_its_config(signed_in: Client, monkeypatch: pytest.MonkeyPatch):
    given: dict[str, Any] = {}

    def add(**what: Any) -> BaseModel:
        given.update(what)
        return make_base_model("me/mine")

    monkeypatch.setattr("registry.views.base_models.add_base_model", add)
    sent = {"name": "me/mine", "aliases": "a\n\nb\n", "config_text": '{"model_type": "t5"}'}
    response = signed_in.post("/base-models/new", sent)
    assert response["Location"] == "/base-models/me/mine"
    assert given == {"name": "me/mine", "aliases": ["a", "b"], "config": b'{"model_type": "t5"}'}


def test_a_config_that_is_none_is_refused_and_kept(signed_in: Client):
    response = signed_in.post("/base-models/new", {"name": "me/mine", "config_text": "not json"})
    assert response.status_code == 400
    assert "not json" in text(response)
    assert not BaseModel.objects.exists()


@pytest.mark.parametrize("field", ["config", "config_text"])
def test_a_config_that_is_too_long_is_refused_with_the_limit_that_holds(signed_in: Client, field: str):
    config = '{"model_type": "t5", "notes": "' + "x" * 600_000 + '"}'
    sent = SimpleUploadedFile("config.json", config.encode()) if field == "config" else config
    response = signed_in.post("/base-models/new", {"name": "me/mine", field: sent})
    assert response.status_code == 400
    assert "This config.json is longer than 262,144 bytes." in text(response)


def test_a_base_model_needs_a_config_where_its_hub_is_not_asked(signed_in: Client, settings: Any):
    settings.IMPORT_ENDPOINTS = ["https://elsewhere.example"]
    assert "Choose the config.json" in text(signed_in.post("/base-models/new", {"name": "me/mine"}))


def test_a_base_model_that_is_only_referenced_has_no_download(client: Client):
    make_base_model()
    assert client.get("/base-models/demo/tiny-t5/download.zip").status_code == 404
    assert client.get("/base-models/demo/tiny-t5/download/config.json").status_code == 404


# --- Settings --------------------------------------------------------------------------------------------


def test_a_new_token_is_shown_once(signed_in: Client, alice: User):
    sent = signed_in.post("/settings/tokens", {"name": "laptop", "scope": "write", "days": "30"})
    assert sent["Location"] == "/settings/tokens"  # loading the page again makes no second one
    made = text(signed_in.get("/settings/tokens"))
    token = Token.objects.get(user=alice)
    found = re.search(r"lr_[0-9a-f]{40}", made)
    assert found
    assert Token.digest(found[0]) == token.secret_sha256
    assert f"export LORA_COMMONS_TOKEN={found[0]}" in made, "as the code of private modules reads it"
    assert found[0] not in text(signed_in.get("/settings/tokens"))


def test_a_token_without_a_name_is_refused(signed_in: Client):
    response = signed_in.post("/settings/tokens", {"name": "", "scope": "read"})
    assert response.status_code == 400
    assert not Token.objects.exists()


def test_a_revoked_token_no_longer_works(signed_in: Client, alice: User):
    make_token(alice)
    token = Token.objects.get()
    assert signed_in.post(f"/settings/tokens/{token.pk}/revoke").status_code == 302
    token.refresh_from_db()
    assert not token.is_usable


def test_nobody_revokes_the_token_of_another(signed_in: Client):
    make_token(make_user("bob"))
    token = Token.objects.get()
    assert signed_in.post(f"/settings/tokens/{token.pk}/revoke").status_code == 404
    assert signed_in.get(f"/settings/tokens/{token.pk}/revoke").status_code == 405


def test_a_name_to_show_appears_on_the_persons_page(signed_in: Client, client: Client):
    signed_in.post("/settings", {"full_name": "Alice Liddell"})
    assert "Alice Liddell" in text(client.get("/alice"))
    refused = signed_in.post("/settings", {"full_name": "Alice\u202egnp.exe"})
    assert refused.status_code == 400
    assert "U+202E" in text(refused)
    assert "Alice Liddell" in text(client.get("/alice"))


# --- Snippets --------------------------------------------------------------------------------------------


def test_the_snippets_name_the_base_model_and_its_class(module: Adapter):
    assert module.head is not None
    ways = {way.name: way.text for way in snippets.snippets_for(module, module.head, site="http://here")}
    assert set(ways) == {"peft", "transformers", "hf", "curl"}
    assert 'base = "demo/tiny-t5"' in ways["peft"]
    assert "AutoModelForSeq2SeqLM" in ways["peft"]
    compile(ways["peft"], "peft", "exec")
    compile(ways["transformers"], "transformers", "exec")


def test_a_hostile_name_of_a_base_model_stays_a_text_in_the_snippets(tmp_path: Path, alice: User):
    name = 'x"); import os; os.system("boom'
    adapter = publish_fake(tmp_path, "odd", owner=alice, base_model=name, config={"task_type": "CAUSAL_LM"})
    assert adapter.head is not None
    ways = {way.name: way.text for way in snippets.snippets_for(adapter, adapter.head, site="http://here")}
    calls = [node.func for node in ast.walk(ast.parse(ways["peft"])) if isinstance(node, ast.Call)]
    assert "system" not in {call.attr for call in calls if isinstance(call, ast.Attribute)}
    assert f"vllm serve '{name}'" in ways["vllm"]


def test_only_a_causal_base_is_offered_for_vllm(tmp_path: Path, alice: User):
    make_base_model("gpt2", task_type="CAUSAL_LM", matrices=make_base_model().matrices)
    adapter = publish_fake(
        tmp_path, "causal", owner=alice, base_model="gpt2", config={"task_type": "CAUSAL_LM"}
    )
    assert adapter.head is not None
    ways = {way.name: way.text for way in snippets.snippets_for(adapter, adapter.head, site="http://here")}
    assert "vllm serve gpt2" in ways["vllm"]


def test_a_task_is_offered_on_the_upload_page_unless_it_is_only_of_what_is_private(signed_in: Client):
    bob = make_user("bob")
    make_task(title="Counting things")
    hidden = make_task(title="Secret things", owner=namespace_of(bob))
    make_adapter("secret", owner=bob, visibility="private", task=hidden)
    html = text(signed_in.get("/upload"))
    assert "Counting things" in html
    assert "Secret things" not in html


def test_a_row_that_was_shown_before_shows_what_changed_at_once(client: Client, module: Adapter):
    assert ">0<span>downloads" in text(client.get("/modules"))
    Adapter.objects.filter(pk=module.pk).update(downloads=7, description="Says <b>colours</b>")
    html = text(client.get("/modules"))
    assert ">7<span>downloads" in html
    assert "Says &lt;b&gt;colours&lt;/b&gt;" in html


def test_a_value_that_all_have_is_told_and_offered_as_no_choice(client: Client, module: Adapter):
    Adapter.objects.filter(pk=module.pk).update(license="mit")
    html = text(client.get("/modules"))
    assert "<span>Licence</span><span>mit</span>" in html
    assert "<h2>Licence</h2>" not in html
    make_adapter("other", license="apache-2.0")
    html = text(client.get("/modules"))
    assert "<h2>Licence</h2>" in html
    assert "<span>Licence</span>" not in html


def test_base_models_without_modules_stand_folded_below_the_others(client: Client, module: Adapter):
    make_base_model("maker/unused")
    html = text(client.get("/base-models"))
    assert html.index("demo/tiny-t5") < html.index("1 more without a module yet") < html.index("maker/unused")
    assert '<details class="fold"><summary>1 more' in html
    assert '<details class="fold" open>' in text(client.get("/base-models?q=unused"))


def test_base_models_come_a_page_at_a_time(client: Client, module: Adapter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("registry.views.base_models.PAGE", 2)
    for name in ("maker/c", "maker/a", "maker/b"):
        make_base_model(name)
    seen, address = [], "/base-models?q=m"
    while address:
        html = text(client.get(address))
        seen.append(re.findall(r'href="/base-models/([a-z0-9-]+/[a-z0-9-]+)"', html))
        assert "3 more without" in html or len(seen) == 2
        onward = re.search(r'rel="next" href="(\?[^"]+)"', html)
        address = "/base-models" + unescape(onward[1]) if onward else ""
    assert seen == [["demo/tiny-t5", "maker/a"], ["maker/b", "maker/c"]]
    assert '<a class="btn" href="?q=m">First page</a>' in html
    past = text(client.get(f"/base-models?cursor={cursor_of([True, 0, 'z'])}"))
    assert "First page" in past
    assert "No base models yet" not in past


@pytest.mark.parametrize("address", ["/upload", "/alice/colour/settings"])
def test_of_very_many_names_those_with_the_most_modules_are_completed(
    signed_in: Client, module: Adapter, monkeypatch: pytest.MonkeyPatch, address: str
):
    monkeypatch.setattr("registry.views.offered.OFFERED", 2)
    for letter in "abc":
        make_base_model(f"maker/{letter}")
        make_task(f"task-{letter}", title=f"Task {letter}")
    base, task = BaseModel.objects.get(name="maker/c"), Task.objects.get(slug="task-c")
    make_adapter("c", base_model=base, task=task, rank=4)
    html = text(signed_in.get(address))
    offered = re.findall(r'<option value="(maker/.|demo/tiny-t5|Task .)"', html)
    assert [name for name in offered if "/" in name] == ["demo/tiny-t5", "maker/c"]
    assert "Task c" in offered
    assert len([name for name in offered if name.startswith("Task")]) <= 2


@pytest.mark.parametrize(
    "cursor", ["x", cursor_of([1, 2]), cursor_of([{}, 1, "a"]), cursor_of(["a", 1, "b"])]
)
def test_a_foreign_cursor_of_base_models_is_refused(client: Client, cursor: str):
    answer = client.get("/base-models", {"cursor": cursor})
    assert answer.status_code == 400
    assert "This cursor is not one of ours" in text(answer)


def test_facets_escape_what_people_wrote(client: Client, module: Adapter):
    Adapter.objects.filter(pk=module.pk).update(license='<i>"&x')
    html = text(client.get("/modules?license=%3Ci%3E%22%26x"))
    assert (
        '<li class="on"><a href="?" aria-current="true" title="Remove this filter"><span>&lt;i&gt;&quot;&amp;x</span>'
        in html
    )
    assert "<i>" not in html


def test_a_prompt_template_keeps_the_line_ends_that_a_model_was_trained_with(
    signed_in: Client, module: Adapter
):
    page = "/alice/colour/settings"
    sent = {
        "prompt_template": "Story: {input}\r\nColour:",
        "visibility": "public",
        "base_model": "demo/tiny-t5",
    }
    assert signed_in.post(page, sent).status_code == 302
    module.refresh_from_db()
    assert module.prompt_template == "Story: {input}\nColour:"
    longest = "{input}" + "\r\n" * 993  # as many characters as are allowed, by what is kept
    assert signed_in.post(page, {**sent, "prompt_template": longest + "."}).status_code == 400
    assert signed_in.post(page, {**sent, "prompt_template": longest[:-2] + "."}).status_code == 302


def test_a_name_is_a_heading_without_the_button_that_copies_it(signed_in: Client, module: Adapter):
    for address, name in (("/alice/colour", "colour"), ("/base-models/demo/tiny-t5", "demo/tiny-t5")):
        page = text(signed_in.get(address))
        assert f"<h1>{name}</h1>" in page
        assert 'aria-label="Copy the name"' in page


def test_what_is_refused_below_the_first_screen_is_where_the_page_opens(signed_in: Client, module: Adapter):
    deleted = text(signed_in.post("/alice/colour/delete", {"confirm": "color"}))
    assert re.search(r'<input id="confirm"[^>]* autofocus>', deleted)
    moved = text(signed_in.post("/alice/colour/move", {"move-namespace": "alice", "move-name": "a b"}))
    assert re.search(r'<input[^>]*name="move-name"[^>]* autofocus', moved)
    assert " autofocus" not in text(signed_in.get("/alice/colour/settings"))
    changed = text(signed_in.post("/alice/colour/settings", {"language": "x" * 41, "visibility": "public"}))
    assert "Not saved: look at the places marked below." in changed


def test_an_import_or_a_push_leads_to_nothing_that_is_deleted(
    signed_in: Client, alice: User, module: Adapter
):
    there = {"owner": alice, "endpoint": "https://hub.example", "visibility": "public"}
    assert module.head is not None
    done = ImportJob.objects.create(
        **there, namespace=module.namespace, sources=["lab/a"], status="succeeded", is_expanded=True
    )
    ImportItem.objects.create(job=done, position=0, source="lab/a", status="imported", adapter=module)
    failed = PushJob.objects.create(
        **there, adapter=module, revision=module.head, target="a/b", status="failed", error="No."
    )
    pages = [done.get_absolute_url(), failed.get_absolute_url()]
    for page in pages:
        assert 'href="/alice/colour' in text(signed_in.get(page))
    publishing.withdraw(module, actor=alice)
    for page in pages:
        assert 'href="/alice/colour' not in text(signed_in.get(page))
        assert "alice/colour, deleted since" in text(signed_in.get(page))
