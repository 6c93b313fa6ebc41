"""Tasks that only their namespace sees: nobody else is told that they are there, by whatever names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.cache import cache
from django.db import IntegrityError, transaction
from django.test import Client

from compose import announcements, fit, leaderboards, leaving, making_tasks, own_data, publishing
from compose.engine import types
from compose.engine.types import Example
from compose.making_tasks import TaskInUse
from compose.models import Composition
from registry import (
    moderation,
    organisations,
    reported_scores,
    search,
    storage,
    webhooks,
)
from registry import (
    publishing as adapters,
)
from registry.models import Adapter, AdapterScore, BaseModel, Delivery, Membership, Namespace, Task, User
from registry.search import AdapterQuery
from tests.compose.factories import finish, make_composition, make_examples
from tests.factories import (
    make_adapter,
    make_task,
    make_user,
    namespace_of,
)
from tests.fake_adapters import make_adapter as make_folder
from tests.test_rights_matrix import ROUTES
from tests.visitors import client_of, text_of, token_of
from web.errors import DomainError, Forbidden, NotFound

pytestmark = pytest.mark.django_db
TITLE, ABOUT = "Zanzibar dossier", "Sorts quokkas."
ROWS = [Example(f"whisper {n} xyzzy", f"plugh {n}") for n in range(40)]


def made_by(person: User, namespace: Namespace, *, is_private: bool = True, **said: Any) -> Task:
    fields: dict[str, Any] = {"title": TITLE, "description": ABOUT, "is_private": is_private, **said}
    return making_tasks.create_task(
        actor=person, namespace=namespace, rows=making_tasks.divide(ROWS), **fields
    )


@pytest.fixture
def task(ada: User, lab: Namespace) -> Task:
    return made_by(ada, lab)


def scored(task: Task, owner: User, base_model: BaseModel) -> Composition:
    hidden = len(task.revisions.get().test)
    scores = [
        types.Score("zero_shot", "exact_match", 0.1, 0.0, 0.2, hidden, "held_out"),
        types.Score("lorahub", "exact_match", 0.9, 0.8, 1.0, hidden, "held_out"),
    ]
    return finish(
        make_composition(task=task, owner=owner, base_model=base_model, examples=[]),
        scores=scores,
        predictions=[],
    )


def published(job: Composition, actor: User, namespace: Namespace, folder: Any, **fields: Any) -> Adapter:
    made = make_folder(folder)
    job.weights_blob = storage.store_file(made / "adapter_model.safetensors")
    job.config_blob = storage.store_file(made / "adapter_config.json")
    job.save()
    return publishing.publish_composition(
        job, actor=actor, namespace=namespace, **{"name": "mix", "visibility": "public", **fields}
    )


# --- Nobody else is told ---------------------------------------------------------------------------------------


@dataclass
class Used:
    """A private task with all that can come of it: a module trained on it, a result, a published adapter, a score."""

    task: Task
    job: Composition
    adapter: Adapter
    bob: User  # who composed for it and is no member any more
    theirs: Composition


@pytest.fixture
def used(ada: User, lab: Namespace, task: Task, base_model: BaseModel, tmp_path: Any) -> Used:
    bob = make_user("bob")
    Membership.objects.create(namespace=lab, user=bob, role="write")
    job, theirs = scored(task, ada, base_model), scored(task, bob, base_model)
    Membership.objects.filter(user=bob, namespace=lab).delete()
    adapter = published(job, ada, lab, tmp_path / "made")
    make_adapter("trained", namespace=lab, base_model=base_model, task=task)
    make_adapter("bobs", owner=bob, base_model=base_model, task=task)
    return Used(task, job, adapter, bob, theirs)


def addresses(used: Used) -> list[str]:
    slug = used.task.slug
    urls = [
        route.url.replace("lab/target", "lab/mix").replace("tasks/open", f"tasks/{slug}")
        .replace("tasks/labs", f"tasks/{slug}").replace("COMMIT", used.adapter.head.commit)
        .replace("JOB", used.job.pk)
        for route in ROUTES.values() if "GET" in route.needs
    ]  # fmt: skip
    urls += [f"/compose?task={slug}", f"/modules?task={slug}", f"/modules?scored_on={slug}", "/modules?q=zanzibar",
             f"/api/v1/adapters/?task={slug}", "/api/v1/adapters/?q=zanzibar", "/tasks?q=zanzibar", "/tasks?by=lab",
             "/tasks?kind=trained", "/api/v1/tasks/?owner=lab", "/api/v1/adapters/facets/", "/lab/trained", "/bob/bobs",
             "/api/v1/adapters/lab/trained/", "/api/models/lab/mix", "/lab/mix/download/main/README.md",
             "/lab/mix/download/main/recipe.json", f"/tasks/{slug}/report",
             "/compose/candidates?base_model=demo/tiny-t5"]  # fmt: skip
    return urls


NAMES = ("zanzibar", "quokka")
TOLD = (*NAMES, "whisper", "plugh")


def test_no_address_tells_others_of_a_private_task(used: Used):
    urls = [url for url in addresses(used) if not url.startswith(("/accounts", "/docs"))]
    of_scripts = [url for url in urls if url.startswith(("/api/", "/lab"))]
    sam = make_user("sam", is_staff=True, is_superuser=True)
    eve = make_user("eve")
    seen = 0
    for name, client, headers, asked_for in (
        ("stranger", client_of(eve), None, urls),
        ("moderator", client_of(sam), None, urls),
        ("who left", client_of(used.bob), None, urls),
        ("a token", Client(raise_request_exception=False), token_of(eve), of_scripts),
    ):
        cache.clear()
        for url in asked_for:
            answer = client.get(url, headers=headers)
            # What was asked for comes back in the answer, from everybody.
            text = text_of(answer).lower()
            for asked in {part for part in re.split(r"[?=&/]", url) if "zanzibar" in part}:
                text = text.replace(asked, "")
            told = [word for word in TOLD if word in text]
            if name == "who left" and url == "/settings/data.json":
                told = [word for word in told if word in NAMES]  # the rows they composed from are theirs
            assert not told, (url, name, told)
            seen += answer.status_code == 200
    assert seen > 150


def test_its_members_see_it_wherever_it_is_named(used: Used, ada: User, lab: Namespace):
    rita = User.objects.get(username="rita")
    for client in (client_of(ada), client_of(rita)):
        cache.clear()
        for url in ("/", "/tasks", "/tasks?kind=yours", "/tasks?by=lab", "/upload", f"/tasks/{used.task.slug}", "/compose",
                    f"/compose?task={used.task.slug}", "/modules", f"/modules?task={used.task.slug}", "/lab/trained",
                    f"/modules?scored_on={used.task.slug}", "/lab/mix", "/modules?q=zanzibar", "/lab",
                    f"/compositions/{used.job.pk}", "/compose/candidates?base_model=demo/tiny-t5"):  # fmt: skip
            answer = client.get(url)
            assert answer.status_code == 200, url
            assert "zanzibar" in text_of(answer).lower() or url == "/lab", url
        assert "1 task<" in text_of(client.get("/lab"))
        assert "1 task<" not in text_of(Client().get("/lab"))
    headers = token_of(rita, scope="read")
    given = Client().get(f"/api/v1/tasks/{used.task.slug}/", headers=headers).json()
    assert (given["visibility"], given["owner"], len(given["examples"])) == ("private", "lab", 13)
    assert Client().get("/api/v1/adapters/lab/trained/", headers=headers).json()["task"]["title"] == TITLE
    board = Client().get(f"/api/v1/tasks/{used.task.slug}/leaderboard/", headers=headers).json()
    assert [row["name"] for row in board["results"] if row["kind"] == "composed"] == ["lab/mix"]
    page = text_of(client_of(rita).get(f"/tasks/{used.task.slug}"))
    assert "Only members of lab see it" in page
    assert "iframe" not in page
    assert 'name="robots" content="noindex"' in page


def test_a_private_task_answers_as_one_that_is_not_there(used: Used):
    eve = make_user("eve")
    for client, headers in ((Client(), None), (client_of(eve), None), (Client(), token_of(eve))):
        for door in ("/tasks/{}", "/tasks/{}/embed", "/tasks/{}/leaderboard.csv", "/tasks/{}/report", "/tasks/{}/edit",
                     "/tasks/{}/rows", "/compose?task={}", "/api/v1/tasks/{}/", "/api/v1/tasks/{}/leaderboard/",
                     "/modules?task={}", "/modules?scored_on={}"):  # fmt: skip
            shown = [client.get(door.format(slug), headers=headers) for slug in (used.task.slug, "absent")]
            texts = [
                re.sub(
                    r'csrf[a-z]*"? value="[^"]+"|data-csrf="[^"]+"|request [0-9a-f]{16}', "", text_of(answer)
                )
                for answer in shown
            ]
            assert shown[0].status_code == shown[1].status_code, door
            assert texts[0].replace(used.task.slug, "absent") == texts[1], door
            assert set(shown[0].headers) == set(shown[1].headers), door


def test_a_strangers_task_of_the_same_name_is_their_own_and_nothing_tells_of_the_other(
    task: Task, tmp_path: Any
):
    eve = make_user("eve")
    mine = made_by(eve, namespace_of(eve), is_private=False)
    assert mine.slug == "zanzibar-dossier", "a number behind it would tell of the other"
    Task.objects.filter(pk=mine.pk).delete()
    for name, text in (("by-title", TITLE), ("by-slug", task.slug)):
        adapter = adapters.publish(
            author=eve, namespace=namespace_of(eve), name=name, task_title=text,
            files={file.name: file for file in make_folder(tmp_path / name).iterdir()},
        )  # fmt: skip
        assert adapter.task is not None
        assert adapter.task.pk != task.pk
        assert adapter.task.owner == namespace_of(eve)
    changed = adapters.update_adapter(adapter, actor=eve, task=task.slug)
    assert changed.task_id != task.pk


def test_a_slug_that_a_task_had_when_it_was_public_leads_strangers_to_another(ada: User, lab: Namespace):
    task = made_by(ada, lab, is_private=False)
    making_tasks.change_task(task, actor=ada, is_private=True)
    eves = make_adapter("one", owner=make_user("eve"))
    found = adapters.update_adapter(eves, actor=User.objects.get(username="eve"), task=TITLE)
    assert found.task is not None
    assert (found.task.slug, found.task.owner) == ("zanzibar-dossier-2", eves.namespace)
    with pytest.raises(reported_scores.BadTable):
        reported_scores._task("", "zanzibar_dossier")


def test_a_member_names_it_for_a_public_module_and_strangers_are_not_told(
    task: Task, ada: User, lab: Namespace
):
    module = make_adapter("one", namespace=lab)
    adapters.update_adapter(module, actor=ada, task=TITLE)
    assert Adapter.objects.get(pk=module.pk).task == task
    assert Client().get("/api/v1/adapters/lab/one/").json()["task"] is None
    answer = client_of(ada).get("/api/v1/adapters/lab/one/").json()
    assert answer["task"]["slug"] == task.slug


def test_who_left_keeps_their_module_and_its_settings_do_not_tell_what_it_was_trained_on(used: Used):
    browser = client_of(used.bob)
    page = text_of(browser.get("/bob/bobs/settings"))
    assert "zanzibar" not in page.lower()
    sent = {
        "description": "x",
        "task": "",
        "base_model": "demo/tiny-t5",
        "license": "mit",
        "visibility": "public",
    }
    assert browser.post("/bob/bobs/settings", sent).status_code == 302
    bobs = Adapter.objects.get(name="bobs")
    assert (bobs.description, bobs.task) == ("x", used.task), (
        "an empty field says nothing about a hidden task"
    )


def test_words_of_a_private_task_find_no_public_module_until_it_is_public(used: Used, ada: User):
    def found(person: Any) -> set[str]:
        return {adapter.name for adapter in search.find(AdapterQuery(q="zanzibar"), person=person).items}

    assert found(None) == found(ada) == set()
    making_tasks.change_task(used.task, actor=ada, is_private=False)
    assert found(None) == {"mix", "trained", "bobs"}
    moderation.quarantine(used.task, moderator=None, reason="x")
    assert found(None) == set()


def test_facets_count_a_private_task_for_its_members_alone(used: Used, ada: User):
    for n in range(3):
        make_adapter(f"open-{n}", task=make_task(f"open-{n}"))

    def tasks(person: Any) -> tuple[list[str], int]:
        [facet] = [
            facet
            for facet in search.find(AdapterQuery(), person=person, with_facets=True).facets
            if facet.parameter == "task"
        ]
        return [value.label for value in facet.values], facet.more

    assert tasks(make_user("eve")) == (["Open 0", "Open 1", "Open 2"], 0)
    assert TITLE in tasks(ada)[0]
    query = AdapterQuery(task=used.task.slug)
    assert search.count(query, person=None) == 0
    assert search.count(query, person=ada) == 3


def test_no_reason_for_a_module_quotes_the_rows_of_a_private_task(
    used: Used, ada: User, base_model: BaseModel
):
    def reasons(person: Any) -> str:
        fits = fit.rank_modules(examples=ROWS[:5], base_model=base_model, person=person)
        return str([entry.reasons for entry in fits.ranked])

    assert "plugh" in reasons(ada)
    assert "plugh" not in reasons(None)
    assert "plugh" not in reasons(used.bob)


def test_the_list_of_candidates_is_not_searched_by_the_title_of_a_private_task(used: Used, ada: User):
    url = "/compose/candidates?base_model=demo/tiny-t5&filter=zanzibar"
    assert "lab /</span> trained" in text_of(client_of(ada).get(url))
    assert "lab /</span> trained" not in text_of(client_of(used.bob).get(url))


# --- What is composed for it -----------------------------------------------------------------------------------


def test_nothing_that_a_composition_keeps_or_publishes_names_its_private_task(used: Used, ada: User):
    files = {
        file.path: b"".join(storage.open_blob(file.blob)).decode(errors="replace")
        for file in used.adapter.head.files.select_related("blob")
    }
    kept = [used.job.title, used.job.split_note, used.adapter.description, *files.values()]
    assert not [text for text in kept if "zanzibar" in text.lower() or "whisper" in text]
    assert used.job.split_note == "Scored on the 27 hidden test rows of its task."
    assert "a task that is not shown" in text_of(Client().get("/lab/mix"))
    assert TITLE in text_of(client_of(ada).get("/lab/mix"))
    form = text_of(client_of(ada).get(f"/compositions/{scored(used.task, ada, used.job.base_model).pk}"))
    assert 'value="13-examples-on-tiny-t5-composed"' in form
    assert "do not name it to others" in form


def test_its_name_is_not_taken_as_the_title_of_a_composition(task: Task, ada: User, base_model: BaseModel):
    page = text_of(client_of(ada).get(f"/compose?task={task.slug}"))
    assert re.search(r'name="title"[^>]*value=""', page)
    assert "What you write here is shown with the adapter" in page
    copied = make_composition(task=task, owner=ada, base_model=base_model, title=f" {TITLE.upper()} ")
    assert copied.title == "5 examples on tiny-t5"
    own = make_composition(task=task, owner=ada, base_model=base_model, title="For the board")
    assert own.title == "For the board"


def test_only_members_compose_for_it(task: Task, base_model: BaseModel):
    eve = make_user("eve")
    with pytest.raises(NotFound):
        make_composition(task=task, owner=eve, base_model=base_model)
    given = {
        "task": task.slug,
        "base_model": base_model.name,
        "examples": [{"input": "a", "output": "b"}] * 5,
    }
    answer = Client().post("/api/v1/compositions/", given, "application/json", headers=token_of(eve))
    absent = Client().post(
        "/api/v1/compositions/", {**given, "task": "absent"}, "application/json", headers=token_of(eve)
    )
    assert (answer.status_code, answer.json()["message"]) == (
        404,
        absent.json()["message"].replace("absent", task.slug),
    )
    sent = {"task": task.slug, "base_model": base_model.name, "examples": "a\tb\n" * 5}
    assert "There is no such task to compose for" in text_of(client_of(eve).post("/compose", sent))
    assert not Composition.objects.exists()


def test_who_left_takes_their_own_results_and_not_the_name(used: Used):
    assert (
        Client().get("/api/v1/compositions/", headers=token_of(used.bob)).json()["results"][0]["task"] is None
    )
    for url in (f"/compositions/{used.theirs.pk}", f"/compose?again={used.theirs.pk}", "/compositions"):
        page = text_of(client_of(used.bob).get(url)).lower()
        assert "zanzibar" not in page, url
    text = "".join(own_data.as_json(used.bob))
    assert '"for_task": null' in text
    assert "zanzibar" not in text.lower()
    ada = User.objects.get(username="ada")
    text = "".join(own_data.as_json(ada))
    assert f'"for_task": "{used.task.slug}"' in text
    assert TITLE in text
    Membership.objects.filter(user=ada, namespace__name="lab").delete()
    assert TITLE not in "".join(own_data.as_json(ada))


def test_a_webhook_names_it_to_members_alone(used: Used, ada: User, settings: Any):
    settings.WEBHOOK_TRUSTED_ORIGINS = ["https://example.org"]
    hooks = [
        webhooks.create(user=person, url="https://example.org/x", events=["composition.ended"])[0]
        for person in (ada, used.bob)
    ]
    Composition.objects.update(finished_at=hooks[1].created_at)
    type(hooks[0]).objects.update(created_at=used.job.created_at)
    Composition.objects.update(finished_at=used.theirs.finished_at)
    announcements.announce()
    told = {row.webhook.user.username: row.payload["data"]["task"] for row in Delivery.objects.all()}
    assert told == {"ada": used.task.slug, "bob": None}


# --- Making it public, and private ------------------------------------------------------------------------------


def test_it_is_made_private_by_page_and_by_script_and_public_unless_asked(ada: User, lab: Namespace):
    given = {
        "title": "One",
        "namespace": "lab",
        "rows": [{"input": r.input, "output": r.output} for r in ROWS],
    }
    client, headers = Client(), token_of(ada)
    asked = {"visibility": "private"}
    answer = client.post("/api/v1/tasks/", {**given, **asked}, "application/json", headers=headers)
    assert (answer.status_code, answer.json()["visibility"]) == (201, "private")
    assert re.fullmatch(r"one-[0-9a-f]{8}", answer.json()["slug"])
    answer = client.post("/api/v1/tasks/", given, "application/json", headers=headers)
    assert (answer.json()["slug"], answer.json()["visibility"]) == ("one", "public")
    browser = client_of(ada)
    lines = "\n".join(f"{row.input}\t{row.output}" for row in ROWS)
    sent = {"title": "Two", "namespace": "lab", "rows": f"input\toutput\n{lines}", "visibility": "private"}
    preview = text_of(browser.post("/tasks/new", {**sent, "action": "preview"}))
    assert re.search(r'value="private"[^>]* checked', preview)
    [sha] = re.findall(r'name="previewed" value="([0-9a-f]+)"', preview)
    made = browser.post("/tasks/new", {**sent, "action": "store", "previewed": sha})
    assert Task.objects.get(title="Two").is_private
    assert "Only members of its namespace see it." in text_of(browser.get(made["Location"]))
    assert browser.post("/tasks/new", {**sent, "visibility": "x"}).status_code == 400


def test_it_becomes_public_at_any_time_and_the_page_says_what_that_shows(used: Used, ada: User):
    url = used.task.get_absolute_url()
    browser = client_of(ada)
    assert "shown rows and leaderboard are everybody’s at once" in text_of(browser.get(f"{url}/edit"))
    sent = {"title": TITLE, "description": ABOUT, "visibility": "public"}
    page = text_of(browser.post(f"{url}/edit", sent, follow=True))
    assert "everybody sees its name, its shown rows and its leaderboard" in page
    assert TITLE in text_of(Client().get(url))
    assert [
        entry.label for entry in leaderboards.board(used.task, None).entries if not entry.is_baseline
    ] == ["lab/mix"]
    assert Client().get("/api/v1/adapters/lab/trained/").json()["task"]["slug"] == used.task.slug


def test_it_is_new_when_it_is_opened_for_the_first_time(task: Task, ada: User, lab: Namespace):
    made_by(ada, lab, is_private=False, title="Between")

    def newest() -> list[str]:
        return [found["title"] for found in Client().get("/api/v1/tasks/?sort=new").json()["results"]]

    assert newest() == ["Between"]
    making_tasks.change_task(task, actor=ada, is_private=False)
    assert newest() == [TITLE, "Between"]
    assert [found.title for found in Client().get("/tasks?sort=new").context["tasks"]] == newest()
    made_by(ada, lab, is_private=False, title="Last")
    for is_private in (True, False):
        making_tasks.change_task(task, actor=ada, is_private=is_private)
    assert newest() == ["Last", TITLE, "Between"]


def test_it_becomes_private_while_members_alone_used_it_and_their_results_forget_its_name(
    ada: User, lab: Namespace, base_model: BaseModel
):
    task = made_by(ada, lab, is_private=False)
    job = scored(task, ada, base_model)
    assert (job.title, job.split_note) == (
        TITLE,
        "Scored on the 27 hidden test rows of its task.",
    )
    url = f"/api/v1/tasks/{task.slug}/"
    given = {"visibility": "private"}
    answer = Client().patch(url, given, "application/json", headers=token_of(ada))
    assert (answer.status_code, answer.json()["visibility"]) == (200, "private")
    assert Client().get(url).status_code == 404
    job.refresh_from_db()
    assert (job.title, job.split_note) == (
        "13 examples on tiny-t5",
        "Scored on the 27 hidden test rows of its task.",
    )


@pytest.mark.parametrize(
    "use", ["somebody composed", "an account that is gone", "a module", "a deleted module", "a score"]
)
def test_what_others_have_used_stays_public_and_the_refusal_says_why(
    use: str, ada: User, lab: Namespace, base_model: BaseModel
):
    task = made_by(ada, lab, is_private=False)
    if use in {"somebody composed", "an account that is gone"}:
        job = make_composition(task=task, owner=make_user("eve"), base_model=base_model)
        why = "somebody who is no member of lab has composed for it"
        if use == "an account that is gone":
            Composition.objects.filter(pk=job.pk).update(owner=None)
    else:
        why = "a module or a score names it"
        module = make_adapter("one", namespace=lab, task=None if use == "a score" else task)
        if use == "a score":
            AdapterScore.objects.create(adapter=module, task=task, source="reported", value=0.5)
        if use == "a deleted module":
            adapters.withdraw(module, actor=ada)
    with pytest.raises(TaskInUse, match=why):
        making_tasks.change_task(task, actor=ada, is_private=True, title="Other")
    browser, url = client_of(ada), task.get_absolute_url()
    answer = browser.post(f"{url}/edit", {"title": "Other", "visibility": "private"})
    assert answer.status_code == 409
    assert why in text_of(answer)
    task.refresh_from_db()
    assert (task.is_private, task.title) == (False, TITLE)
    assert browser.post(f"{url}/edit", {"title": "Other", "visibility": "public"}).status_code == 302


def test_a_moderator_decides_about_a_reported_one_and_never_sees_it(task: Task, ada: User, lab: Namespace):
    sam = make_user("sam", is_staff=True)
    moderation.report(task, reporter=ada, address="a", reason="spam", text="Mine.")
    browser, url = client_of(sam), task.get_absolute_url()
    other = made_by(ada, lab, is_private=True, title="Nobody reported")
    unknown = f"{other.get_absolute_url()}/moderate"
    assert browser.post(unknown, {"action": "quarantine", "reason": "x"}).status_code == 404
    queue = text_of(browser.get("/moderation"))
    assert TITLE in queue, "a member's report names what it is about, as with private modules"
    assert f'href="{url}"' not in queue
    assert browser.post(f"{url}/moderate", {"action": "quarantine", "reason": "x"}).status_code == 302
    assert browser.get(url).status_code == 404
    assert client_of(ada).get(url).status_code == 200
    assert browser.post(f"{url}/moderate", {"action": "release"}).status_code == 302
    task.refresh_from_db()
    assert not task.is_quarantined
    assert browser.post(f"{url}/moderate", {"action": "release"}).status_code == 404, "decided"
    shown = made_by(ada, lab, is_private=False, title="Open")
    with pytest.raises(Forbidden):
        making_tasks.change_task(shown, actor=sam, is_private=True)
    sites = make_task("sites", is_held_out=True)
    with pytest.raises(Forbidden):
        making_tasks.change_task(sites, actor=sam, is_private=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        Task.objects.filter(pk=sites.pk).update(is_private=True)


def test_a_token_for_one_adapter_does_not_see_it_and_one_for_its_namespace_does(
    used: Used, ada: User, lab: Namespace
):
    url = "/api/v1/adapters/lab/trained/"
    trained = Adapter.objects.get(name="trained")
    for fields, told in (({"adapter": trained}, False), ({"namespace": lab}, True), ({}, True)):
        answer = Client().get(url, headers=token_of(ada, **fields)).json()
        assert (answer["task"] is not None) == told, fields


def test_private_tasks_go_with_their_organisation_or_account_and_results_stay(
    used: Used, ada: User, lab: Namespace
):
    organisations.delete_organisation(lab, actor=ada)
    assert not Task.objects.filter(pk=used.task.pk).exists()
    job = Composition.objects.get(pk=used.job.pk)
    assert (job.task, job.predictions) == (None, [])
    assert "whisper" not in text_of(client_of(ada).get(f"/compositions/{job.pk}"))
    own = made_by(ada, namespace_of(ada))
    make_composition(task=own, owner=ada, base_model=job.base_model, examples=make_examples())
    leaving.delete_account(ada, actor=ada)
    assert not Task.objects.filter(pk=own.pk).exists()


def test_what_is_refused_leaves_nothing_behind(ada: User, lab: Namespace, base_model: BaseModel):
    task = made_by(ada, lab, is_private=False)
    mine, theirs = (
        make_composition(task=task, owner=owner, base_model=base_model) for owner in (ada, make_user())
    )
    with pytest.raises(DomainError):
        making_tasks.change_task(task, actor=ada, is_private=True)
    assert {job.title for job in Composition.objects.filter(pk__in=[mine.pk, theirs.pk])} == {TITLE}


def test_what_was_opened_before_it_became_private_does_not_make_it_public(ada: User, lab: Namespace):
    task = made_by(ada, lab, is_private=False)
    read_before = Task.objects.get(pk=task.pk)
    browser = client_of(ada)
    page = browser.get(f"{task.get_absolute_url()}/edit").content.decode()
    assert '<input type="hidden" name="shown_visibility" value="public"' in page
    making_tasks.change_task(task, actor=ada, is_private=True, metric="token_f1")
    making_tasks.change_task(read_before, actor=ada, description="Said at the same moment.")
    sent = {"title": "Said later", "visibility": "public", "shown_visibility": "public", "metric": "token_f1"}
    assert browser.post(f"{task.get_absolute_url()}/edit", sent).status_code == 302
    task.refresh_from_db()
    assert (task.title, task.is_private, task.metric) == ("Said later", True, "token_f1")
