"""Tasks that people make: how rows are divided, who may do what, and that hidden rows stay hidden."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from compose import examples as reading
from compose import forms as compose_forms
from compose import leaderboards, leaving, making_tasks, publishing
from compose.engine import types
from compose.engine.types import Example
from compose.errors import FewShotProblem, TaskInQuarantine
from compose.forms import ComposeForm, as_lines
from compose.making_tasks import TaskInUse
from compose.models import Composition
from registry import moderation, organisations, quotas, storage
from registry.models import Adapter, AuditEntry, Report, Task, TaskRevision, TaskRow, User
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_user,
    namespace_of,
)
from tests.fake_adapters import make_adapter as make_folder
from tests.test_rights_matrix import ROUTES
from tests.visitors import client_of, text_of, token_of
from web.errors import Conflict, DomainError, Forbidden

pytestmark = pytest.mark.django_db


def rows_of(count: int, start: int = 0) -> list[Example]:
    return [Example(f"question {n}", f"answer {n}") for n in range(start, start + count)]


def lines_of(count: int, start: int = 0) -> str:
    return as_lines(rows_of(count, start))


@pytest.fixture
def task(ada: User) -> Task:
    return made_by(ada)


def made_by(person: User, count: int = 30, **said: Any) -> Task:
    fields = {"title": "Colour of the thing", "namespace": namespace_of(person), **said}
    return making_tasks.create_task(actor=person, rows=making_tasks.divide(rows_of(count)), **fields)


# --- Dividing ------------------------------------------------------------------------------------------------


def test_a_third_is_shown_the_same_for_the_same_seed_and_every_row_is_on_one_side():
    division = making_tasks.divide(rows_of(60), seed=7)
    assert (len(division.shown), len(division.hidden)) == (20, 40)
    assert sorted(division.shown + division.hidden, key=rows_of(60).index) == rows_of(60)
    assert making_tasks.divide(rows_of(60), seed=7) == division
    assert making_tasks.divide(rows_of(60), seed=8).shown != division.shown
    assert division.note == (
        "Of 60 rows 20 are shown, drawn by seed 7; 40 stay hidden and score what is composed."
    )


def test_rows_with_the_same_input_are_never_on_both_sides():
    doubled = [Example(row.input + " " * n, row.output) for row in rows_of(20) for n in range(3)]
    for seed in range(20):
        division = making_tasks.divide(doubled, shown=10, seed=seed)
        shown, hidden = ({row.input.strip() for row in side} for side in (division.shown, division.hidden))
        assert not shown & hidden
        assert 10 <= len(division.shown) <= 12


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (rows_of(14), {}, "A task needs at least 15 rows with different inputs"),
        (rows_of(5) * 10, {}, "you gave 5."),
        (rows_of(20), {"shown": 15}, "5 rows would stay hidden; a score needs at least 10."),
        (rows_of(20), {"shown": 1}, "From 2 to 100 of the rows are shown, not 1."),
        (rows_of(200), {"shown": 101}, "From 2 to 100 of the rows are shown, not 101."),
        (rows_of(20), {"seed": -1}, "The seed is a whole number from 0"),
        (rows_of(2001), {}, "You gave 2,001 rows; at most 2,000 are used."),
        ([Example(f"{n} " + "x" * 30_000, "y") for n in range(80)], {}, "a task holds at most 2,097,152"),
        ([*rows_of(20), Example("", "x")], {}, "Row 21 has no input."),
    ],
)
def test_rows_that_make_no_task_are_refused_in_a_sentence(rows, options, sentence):
    with pytest.raises(DomainError) as refused:
        making_tasks.divide(rows, **options)
    assert sentence in refused.value.message


def test_examples_written_as_lines_read_back_as_the_same():
    for rows in (
        [Example("[a] list", "x"), Example("b", "y")],
        [Example("input", "output"), Example("b", "y")],
        [Example("x, y", "z"), Example("b, c", "y")],
        [Example(" padded ", "a\tb"), Example('"quoted', "line\nbreak")],
        rows_of(3),
    ):
        assert reading.parse_examples(as_lines(rows), field="rows", is_part=True) == rows


# --- Making by page --------------------------------------------------------------------------------------------


def filled(**changes: Any) -> dict[str, Any]:
    return {
        "title": "Colour of the thing",
        "description": "Says the colour.",
        "namespace": "ada",
        "source": "written by us",
        "license": "cc0-1.0",
        "rows": lines_of(30),
        "seed": "3",
        "action": "preview",
        "form_token": "t",
        **changes,
    }


def previewed(answer: Any) -> str:
    found = re.search(r'name="previewed" value="([0-9a-f]{64})"', text_of(answer))
    assert found
    return found[1]


def test_a_task_is_previewed_and_then_made_as_it_was_seen(ada):
    browser = client_of(ada)
    assert browser.get("/tasks/new").status_code == 200
    preview = browser.post("/tasks/new", filled())
    assert preview.status_code == 200
    assert not Task.objects.exists()
    answer = browser.post("/tasks/new", filled(action="store", previewed=previewed(preview)))
    assert (answer.status_code, answer["Location"]) == (302, "/tasks/colour-of-the-thing")
    made = Task.objects.get()
    assert (made.owner, made.created_by, made.license) == (namespace_of(ada), ada, "cc0-1.0")
    [revision] = made.revisions.all()
    assert (len(revision.few_shot), len(revision.test), revision.seed) == (10, 20, 3)
    page = text_of(Client().get("/tasks/colour-of-the-thing"))
    assert "Drawn from all 30 rows by seed 3; the other 20 stay hidden" in page
    assert "written by us" in page
    assert "Colour of the thing" in text_of(Client().get("/tasks"))
    assert "Colour of the thing" in text_of(browser.get("/tasks?kind=yours"))


def test_what_was_changed_after_the_preview_is_previewed_again(ada):
    browser = client_of(ada)
    seen = previewed(browser.post("/tasks/new", filled()))
    answer = browser.post("/tasks/new", filled(action="store", previewed=seen, seed="4"))
    assert answer.status_code == 200
    assert previewed(answer) != seen
    assert not Task.objects.exists()


def test_a_file_moves_into_the_text_so_that_the_preview_can_be_stored(ada):
    browser = client_of(ada)
    rows = "\n".join(json.dumps({"question": row.input, "answer": row.output}) for row in rows_of(20, 30))
    file = SimpleUploadedFile("rows.jsonl", rows.encode())
    preview = browser.post("/tasks/new", filled(file=file))
    assert "question 49\tanswer 49" in text_of(preview)
    stored = filled(rows=lines_of(50), action="store", previewed=previewed(preview))
    assert browser.post("/tasks/new", stored).status_code == 302
    assert TaskRow.objects.count() == 50


def test_a_form_that_is_sent_twice_makes_one_task(ada):
    browser = client_of(ada)
    sent = filled(action="store", previewed=previewed(browser.post("/tasks/new", filled())))
    assert browser.post("/tasks/new", sent)["Location"] == browser.post("/tasks/new", sent)["Location"]
    assert Task.objects.count() == 1


def test_mistakes_name_the_row_and_keep_what_was_typed(ada):
    browser = client_of(ada)
    answer = browser.post("/tasks/new", filled(rows=f"{lines_of(20)}\nonly an input\t"))
    assert answer.status_code == 400
    assert "Row 21 has no output." in text_of(answer)
    assert "question 19" in text_of(answer)
    assert "Give the task a name." in text_of(browser.post("/tasks/new", filled(title=" ")))
    assert "There are no examples." in text_of(browser.post("/tasks/new", filled(rows="")))
    assert "whole number" in text_of(browser.post("/tasks/new", filled(shown="many")))
    binary = SimpleUploadedFile("rows.xlsx", b"PK\x03\x04")
    assert "spreadsheet or zip file" in text_of(browser.post("/tasks/new", filled(file=binary)))
    many = "\n".join(f"{number}\t" for number in range(40))
    assert "And 28 more like these." in text_of(browser.post("/tasks/new", filled(rows=many)))
    assert browser.post("/tasks/new", filled(namespace="somebody")).status_code == 400
    assert not Task.objects.exists()


def test_a_name_that_is_taken_gets_a_number_and_is_said_before(ada, task):
    browser = client_of(make_user("bob"))
    preview = browser.post("/tasks/new", filled(namespace="bob"))
    assert "There is a task of this name already" in text_of(preview)
    answer = browser.post("/tasks/new", filled(namespace="bob", action="store", previewed=previewed(preview)))
    assert answer["Location"] == "/tasks/colour-of-the-thing-2"
    assert made_by(ada, title="New").slug == "new-task"


def test_the_tasks_of_a_person_are_found_from_their_page_and_by_the_api(ada, task):
    made_by(make_user("bob"), title="Of Bob")
    assert '<a class="link" href="/tasks?by=ada">1 task</a>' in text_of(Client().get("/ada"))
    page = text_of(Client().get("/tasks?by=Ada"))
    assert task.title in page
    assert "Of Bob" not in page
    found = Client().get("/api/v1/tasks/?owner=ada").json()["results"]
    assert [each["slug"] for each in found] == [task.slug]


# --- By script ---------------------------------------------------------------------------------------------------


def test_a_script_makes_a_task_and_is_told_what_would_come_of_it_before(ada):
    client, token = Client(), token_of(ada)
    given = {"title": "Count", "rows": reading.as_json(rows_of(30)), "seed": 5, "shown": 8}
    would = client.post(
        "/api/v1/tasks/", {**given, "dry_run": True}, "application/json", headers=token
    ).json()
    assert (len(would["examples"]), would["test_rows"], would["seed"]) == (8, 22, 5)
    assert not Task.objects.exists()
    answer = client.post("/api/v1/tasks/", given, "application/json", headers=token)
    assert answer.status_code == 201
    assert answer["Location"].endswith("/api/v1/tasks/count/")
    made = answer.json()
    assert (made["owner"], made["revision"], made["seed"], made["test_rows"]) == ("ada", 1, 5, 22)
    assert made["examples"] == would["examples"]
    assert client.get("/api/v1/tasks/count/").json() == made


def test_the_same_rows_make_the_same_task_by_page_and_by_script(ada):
    browser = client_of(ada)
    sent = filled(action="store", previewed=previewed(browser.post("/tasks/new", filled())))
    browser.post("/tasks/new", sent)
    given = {"title": "By script", "rows": lines_of(30), "format": "tsv", "seed": 3}
    Client().post("/api/v1/tasks/", given, "application/json", headers=token_of(ada))
    assert len({revision.sha256 for revision in TaskRevision.objects.all()}) == 1
    assert TaskRevision.objects.count() == 2


def test_the_api_refuses_what_it_cannot_use(ada):
    client, token = Client(), token_of(ada)

    def status(change: dict[str, Any], headers: dict[str, str] | None = token) -> int:
        given = {"title": "Count", "rows": lines_of(30), **change}
        return client.post("/api/v1/tasks/", given, "application/json", headers=headers).status_code

    assert status({"rows": lines_of(3)}) == 400
    assert status({"rows": 5}) == 400
    assert status({"title": ""}) == 400
    assert status({"visibility": "secret"}) == 400
    assert status({"base_model": "nobody/knows"}) == 400
    assert status({"namespace": "nobody"}) == 404
    assert status({"namespace": make_organisation("lab").name}) == 403
    assert status({}, headers=token_of(ada, scope="read")) == 403
    assert status({}, headers=None) == 401
    assert not Task.objects.exists()


def test_a_task_is_changed_and_deleted_by_script(ada, task):
    client, token = Client(), token_of(ada)
    changed = client.patch(
        f"/api/v1/tasks/{task.slug}/", {"description": "Two\nlines"}, "application/json", headers=token
    )
    assert (changed.status_code, changed.json()["description"]) == (200, "Two\nlines")
    assert changed.json()["title"] == task.title
    assert client.delete(f"/api/v1/tasks/{task.slug}/", headers=token).status_code == 204
    assert not Task.objects.exists()


# --- Who may -----------------------------------------------------------------------------------------------------


def test_the_maker_the_admins_and_the_moderators_change_a_task_and_nobody_else():
    people = {name: make_user(name) for name in ("maker", "boss", "writer", "stranger")}
    lab = make_organisation(
        "lab", members={people["maker"]: "write", people["boss"]: "admin", people["writer"]: "write"}
    )
    task = made_by(people["maker"], namespace=lab)
    moderator = make_user("sam", is_staff=True)
    for actor in (people["maker"], people["boss"], moderator):
        making_tasks.change_task(task, actor=actor, description=actor.username)
        assert client_of(actor).get(f"/tasks/{task.slug}/edit").status_code == 200
    for actor in (people["writer"], people["stranger"]):
        for act in (making_tasks.change_task, making_tasks.delete_task):
            with pytest.raises(Forbidden):
                act(task, actor=actor)
        with pytest.raises(Forbidden):
            making_tasks.new_rows(task, actor=actor, rows=making_tasks.divide(rows_of(40)))
        for page in ("edit", "rows"):
            assert client_of(actor).get(f"/tasks/{task.slug}/{page}").status_code == 403
    assert AuditEntry.objects.get().action == "change task"
    lab.memberships.filter(user=people["maker"]).delete()
    with pytest.raises(Forbidden):
        making_tasks.change_task(task, actor=people["maker"], description="x")


# --- New rows ------------------------------------------------------------------------------------------------------


def scored(task: Task, value: float, n: int, **options: Any) -> Composition:
    scores = [types.Score("lorahub", "exact_match", value, value / 2, 1.0, n, "held_out")]
    return finish(make_composition(task=task, examples=[], **options), scores=scores)


def test_new_rows_make_a_revision_with_an_empty_board_and_hide_nothing_that_was_shown(ada, task):
    before = scored(task, 0.7, 20, owner=ada)
    shown_once = {row["input"] for row in task.revisions.get().few_shot}
    browser = client_of(ada)
    sent = {"rows": lines_of(50), "seed": "99", "shown": "12"}
    preview = browser.post(f"/tasks/{task.slug}/rows", {**sent, "action": "preview"})
    answer = browser.post(
        f"/tasks/{task.slug}/rows", {**sent, "action": "store", "previewed": previewed(preview)}
    )
    assert answer["Location"] == f"/tasks/{task.slug}"
    newest = task.revisions.get(number=2)
    assert shown_once <= {row["input"] for row in newest.few_shot}
    assert (len(newest.few_shot), len(newest.test)) == (12, 38)
    assert leaderboards.board(task, ada).entries == []
    [entry] = leaderboards.board(task, ada, revision="1").entries
    assert (entry.value, entry.url) == (0.7, before.get_absolute_url())
    with pytest.raises(making_tasks.NothingNew):
        making_tasks.new_rows(
            task, actor=ada, rows=making_tasks.divide(rows_of(50), shown=12, seed=1, task=task)
        )


def test_new_rows_hide_nothing_that_somebody_elses_new_rows_show_at_the_same_moment(ada, task):
    mine, theirs = (making_tasks.divide(rows_of(60), shown=15, seed=seed, task=task) for seed in (7, 8))
    making_tasks.new_rows(task, actor=ada, rows=theirs)
    with pytest.raises(Conflict, match="Divide yours again"):
        making_tasks.new_rows(task, actor=ada, rows=mine)
    assert task.revisions.count() == 2


def test_new_rows_are_scored_by_the_metric_that_the_task_has_by_then(ada, task):
    read_before = Task.objects.get(pk=task.pk)
    making_tasks.change_task(task, actor=ada, metric="token_f1")
    making_tasks.new_rows(read_before, actor=ada, rows=making_tasks.divide(rows_of(40), task=task))
    assert [revision.metric for revision in task.revisions.all()] == ["exact_match", "token_f1", "token_f1"]


def test_saving_a_page_that_was_opened_before_takes_no_metric_back(ada, task):
    browser, url = client_of(ada), f"/tasks/{task.slug}/edit"
    page = text_of(browser.get(url))
    assert '<input type="hidden" name="shown_metric" value="exact_match"' in page
    making_tasks.change_task(task, actor=ada, metric="token_f1")
    sent = {"title": "Said later", "metric": "exact_match", "shown_metric": "exact_match"}
    assert browser.post(url, sent).status_code == 302
    task.refresh_from_db()
    assert (task.title, task.metric, task.revisions.count()) == ("Said later", "token_f1", 2)


def test_rows_by_script_too_and_only_for_a_task_to_compose_for(ada, task):
    client, token = Client(), token_of(ada)
    given = {"rows": lines_of(45), "shown": 10}
    url = f"/api/v1/tasks/{task.slug}/revisions/"
    assert client.post(url, {**given, "dry_run": True}, "application/json", headers=token).status_code == 200
    answer = client.post(url, given, "application/json", headers=token)
    assert (answer.status_code, answer.json()["revision"], answer.json()["test_rows"]) == (201, 2, 35)
    assert client.post(url, given, "application/json", headers=token).status_code == 409
    trained = make_task("trained", owner=namespace_of(ada))
    Task.objects.filter(pk=trained.pk).update(created_by=ada)
    make_adapter("one", owner=ada, task=trained)
    answer = client.post("/api/v1/tasks/trained/revisions/", given, "application/json", headers=token)
    assert "what modules were trained on" in answer.json()["message"]


def test_tasks_and_new_rows_are_counted(ada, settings):
    settings.MAX_TASKS_PER_NAMESPACE = 1
    task = made_by(ada)
    with pytest.raises(quotas.QuotaReached):
        made_by(ada)
    settings.MAX_TASKS_PER_NAMESPACE, settings.MAX_TASK_REVISIONS_PER_DAY = 0, 2
    making_tasks.new_rows(task, actor=ada, rows=making_tasks.divide(rows_of(40), task=task))
    with pytest.raises(quotas.TooManyTaskRevisions):
        making_tasks.new_rows(task, actor=ada, rows=making_tasks.divide(rows_of(50), task=task))
    with pytest.raises(quotas.TooManyTaskRevisions):
        made_by(ada)


# --- Deleting, reporting, quarantine ---------------------------------------------------------------------------------


def test_an_unused_task_is_deleted_by_its_maker_and_a_used_one_stays(ada, task):
    browser = client_of(ada)
    assert browser.post(f"/tasks/{task.slug}/delete", {"confirm": "x"}).status_code == 400
    make_composition(task=task)
    answer = browser.post(f"/tasks/{task.slug}/delete", {"confirm": task.slug})
    assert answer.status_code == 409
    assert "is in use" in text_of(answer)
    Composition.objects.all().delete()
    trained = make_adapter("one", task=task)
    with pytest.raises(TaskInUse):
        making_tasks.delete_task(task, actor=ada)
    Adapter.objects.filter(pk=trained.pk).update(task=None)
    assert browser.post(f"/tasks/{task.slug}/delete", {"confirm": task.slug})["Location"] == "/tasks"
    assert not TaskRevision.objects.exists()


def test_a_task_is_reported_and_put_into_quarantine_where_its_members_alone_see_it(ada):
    task = made_by(ada, title="Buy my course")
    url, sam = f"/tasks/{task.slug}", make_user("sam", is_staff=True)
    assert Client().post(f"{url}/report", {"reason": "spam", "text": "Not a task."}).status_code == 302
    assert Client().post(f"{url}/report", {"reason": "king"}).status_code == 400
    moderator = client_of(sam)
    queue = text_of(moderator.get("/moderation"))
    assert "Not a task." in queue
    assert f'action="{url}/moderate"' in queue
    assert moderator.post(f"{url}/moderate", {"action": "quarantine", "reason": ""}).status_code == 400
    assert Client().post(f"{url}/moderate", {"action": "quarantine", "reason": "x"}).status_code == 302
    assert client_of(ada).post(f"{url}/moderate", {"action": "quarantine", "reason": "x"}).status_code == 403
    make_adapter("for-it", owner=ada, task=task)
    moderator.post(f"{url}/moderate", {"action": "quarantine", "reason": "It is an advertisement."})
    assert Report.objects.get().outcome == "quarantined"
    for address in (url, f"{url}/embed", f"{url}/leaderboard.csv", f"{url}/report", f"/api/v1{url}/",
                    f"/api/v1{url}/leaderboard/", f"/compose?task={task.slug}"):  # fmt: skip
        assert Client().get(address).status_code == 404, address
    for address in ("/tasks", "/", "/compose", "/api/v1/tasks/", "/upload", "/modules", "/ada/for-it",
                    f"/modules?task={task.slug}", "/modules/feed.atom", "/api/v1/adapters/ada/for-it/"):  # fmt: skip
        assert task.title not in text_of(client_of(make_user()).get(address)), address
    assert "It is an advertisement." in text_of(client_of(ada).get(url))
    assert "It is an advertisement." in text_of(moderator.get(url))
    with pytest.raises(Forbidden):
        making_tasks.change_task(Task.objects.get(), actor=ada, description="x")
    with pytest.raises(TaskInQuarantine):
        make_composition(task=Task.objects.get(), owner=ada)
    moderator.post(f"{url}/moderate", {"action": "release"})
    assert Client().get(url).status_code == 200


def test_the_used_tasks_of_a_deleted_organisation_stay_and_one_in_quarantine_keeps_it(ada):
    lab = make_organisation("lab", members={ada: "admin"})
    task = made_by(ada, namespace=lab)
    make_composition(task=task)
    moderation.quarantine(task, moderator=None, reason="x")
    with pytest.raises(Conflict):
        organisations.delete_organisation(lab, actor=ada)
    moderation.release(task, moderator=None)
    organisations.delete_organisation(lab, actor=ada)
    assert "By an organisation that is gone" in text_of(Client().get(task.get_absolute_url()))
    with pytest.raises(Forbidden):
        making_tasks.change_task(Task.objects.get(), actor=ada, description="x")


def test_of_the_tasks_of_a_deleted_account_the_unused_go_and_the_used_stay_without_a_name(ada):
    used, unused = made_by(ada, title="Used"), made_by(ada, title="Unused")
    make_composition(task=used)
    leaving.delete_account(ada, actor=ada)
    assert Client().get(unused.get_absolute_url()).status_code == 404
    page = text_of(Client().get(used.get_absolute_url()))
    assert "By somebody who is gone" in page
    assert "ada" not in text_of(Client().get("/tasks?q=used"))
    assert Client().get("/api/v1/tasks/used/").json()["owner"] is None


def test_a_report_is_about_one_thing(ada, task):
    module = make_adapter("m")
    moderation.report(module, reporter=None, address="a", reason="spam")
    moderation.report(task, reporter=ada, address="b", reason="spam")
    with pytest.raises(moderation.ReportedAlready):
        moderation.report(task, reporter=ada, address="b", reason="spam")
    assert [moderation.queue().get(), moderation.task_queue().get()] == [module, task]
    assert moderation.dismiss(task, moderator=make_user("sam", is_staff=True)) == 1
    assert moderation.queue().count() == 1
    with pytest.raises(Conflict):
        moderation.release(task, moderator=None)


# --- Hidden is hidden --------------------------------------------------------------------------------------------------


def test_no_address_gives_a_hidden_row_away_to_anybody(ada, tmp_path):
    """After a composition that was scored on them is done and published: pages, API, Hub, files, administration."""
    base_model = make_base_model()
    make_modules(base_model)
    bob, root = make_user("bob"), make_user("root", is_staff=True, is_superuser=True)
    secret = [Example(f"whisper {n} xyzzy", f"plugh {n}") for n in range(40)]
    task = making_tasks.create_task(
        actor=ada, namespace=namespace_of(ada), title="Secret", rows=making_tasks.divide(secret)
    )
    hidden = task.revisions.get().test
    predictions = [
        types.Prediction(row["input"], row["output"], {"lorahub": row["output"], "zero_shot": "no"})
        for row in hidden
    ]
    scores = [types.Score("lorahub", "exact_match", 1.0, 0.8, 1.0, len(hidden), "held_out")]
    job = finish(
        make_composition(task=task, owner=bob, base_model=base_model, examples=[]),
        predictions=predictions,
        scores=scores,
    )
    folder = make_folder(tmp_path / "made")
    job.weights_blob = storage.store_file(folder / "adapter_model.safetensors")
    job.config_blob = storage.store_file(folder / "adapter_config.json")
    job.save()
    adapter = publishing.publish_composition(
        job, actor=bob, namespace=namespace_of(bob), name="mix", visibility="public"
    )
    assert [entry.value for entry in leaderboards.board(task, None).entries] == [1.0]
    words = {text for row in hidden for text in (row["input"], row["output"])}
    urls = [
        route.url.replace("lab/target", "bob/mix").replace("/lab", "/bob").replace("tasks/open", "tasks/secret")
        .replace("COMMIT", adapter.head.commit).replace("JOB", job.pk)
        for route in ROUTES.values() if "GET" in route.needs
    ]  # fmt: skip
    urls += [f"/compositions/{job.pk}?show=all", f"/compose?again={job.pk}", "/compose?task=secret",
             "/api/v1/tasks/?q=secret", "/modules?q=whisper", "/api/v1/adapters/?q=plugh"]  # fmt: skip
    urls += [
        f"/admin/{table}/" + rest
        for table, pk in (
            ("registry/taskrow", TaskRow.objects.filter(split="test")[0].pk),
            ("registry/taskrevision", task.revisions.get().pk),
            ("registry/task", task.pk),
            ("compose/composition", job.pk),
        )
        for rest in ("", "?q=whisper", f"{pk}/change/")
    ]
    seen = 0
    for person in (None, ada, bob, root):
        browser = client_of(person) if person else Client(raise_request_exception=False)
        for url in urls:
            headers = token_of(person) if person and "/api/" in url else None
            answer: Any = browser.get(url, headers=headers)
            body = b"".join(answer.streaming_content) if answer.streaming else answer.content
            text = body.decode(errors="replace")
            given_away = [word for word in words if re.search(rf"{re.escape(word)}(?!\d)", text)]
            assert not given_away, (url, person, given_away[:3])
            seen += answer.status_code == 200
    assert seen > 200
    assert not any(word in line.text for line in job.log.all() for word in ("whisper", "plugh"))


def test_a_composition_asked_for_again_brings_no_hidden_rows_even_when_the_task_is_gone(ada, task):
    job = scored(task, 0.5, 20, owner=ada)
    Task.objects.all().delete()
    form = ComposeForm.again(Composition.objects.get(pk=job.pk), person=ada)
    assert form.test_given.text == ""


def test_a_result_says_that_the_answers_are_not_shown(ada, task):
    job = scored(task, 0.5, 20, owner=ada)
    assert Composition.objects.get().predictions == []
    assert "would give the rows away" in text_of(client_of(ada).get(job.get_absolute_url()))


def test_rows_that_a_base_model_cannot_read_are_refused_by_number(monkeypatch):
    class TooLong:
        limit, too_long = 8, [3]

    monkeypatch.setattr("compose.jobs.asking.count_tokens", lambda base_model, rows: TooLong)
    with pytest.raises(FewShotProblem) as refused:
        making_tasks.divide(rows_of(20), base_model=make_base_model())
    assert "Row 3 is longer than the 8 tokens" in refused.value.message


def test_of_very_many_base_models_those_with_the_most_modules_are_offered_and_any_is_taken(
    ada: User, monkeypatch
):
    for name, modules in (("demo/a-rare", 1), ("demo/common", 2), ("demo/bare", 0)):
        make_modules(make_base_model(name), modules)
    browser = client_of(ada)
    assert '<option value="demo/a-rare">' in text_of(browser.get("/tasks/new"))
    monkeypatch.setattr(compose_forms, "BASES_SHOWN", 1)
    page = text_of(browser.get("/tasks/new"))
    assert re.findall(r'<option value="(demo/[^"]*)">', page) == ["demo/common"]
    assert 'list="base-models"' in page
    preview = previewed(browser.post("/tasks/new", filled(base_model="demo/a-rare")))
    sent = filled(base_model="demo/a-rare", action="store", previewed=preview)
    assert browser.post("/tasks/new", sent).status_code == 302
    task = Task.objects.latest("pk")
    assert task.base_model is not None
    assert task.base_model.name == "demo/a-rare"
    assert 'value="demo/a-rare"' in text_of(browser.get(f"/tasks/{task.slug}/edit"))
    refused = browser.post("/tasks/new", filled(base_model="demo/bare"))
    assert refused.status_code == 400
    assert "no base model of this name here that can be composed for" in text_of(refused)


def test_saving_a_task_keeps_the_base_model_that_nothing_composes_on_any_more(ada: User):
    task = made_by(ada, base_model=make_base_model("demo/bare"), description="One.")
    browser, url = client_of(ada), f"/tasks/{task.slug}/edit"
    page = text_of(browser.get(url)).partition('name="base_model"')[2]
    chosen = re.search(r'<option value="([^"]*)" selected>', page)
    assert chosen is not None
    assert chosen[1] == "demo/bare"
    sent = {
        "title": task.title,
        "description": "Two.\r\nThree.",
        "base_model": chosen[1],
        "visibility": "public",
    }
    assert browser.post(url, sent).status_code == 302
    task.refresh_from_db()
    assert task.base_model is not None
    assert (task.base_model.name, task.description) == ("demo/bare", "Two.\nThree.")
