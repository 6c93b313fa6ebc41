"""The loss of every fitting module on pasted examples: asked for, measured, shown, forgotten."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from django.db.models.signals import post_init
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from compose import auditioning, auditions, bases, errands, picking, running_errands, worker
from compose.engine.errors import DoesNotFit
from compose.engine.types import Example
from compose.errors import CandidateProblem, FewShotProblem, NoSuchAudition, TooManyAuditions
from compose.jobs import workers
from compose.models import Audition, Auditioned
from registry import moderation, storage
from registry.models import Adapter, BaseModel, User
from tests.compose.factories import make_composition, make_modules
from tests.factories import make_adapter, make_base_model, make_token, make_user, namespace_of

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLES = [Example("Anna saw a red hen.", "red"), Example("Two green pens.", "green")]
LINES = "Anna saw a red hen.\tred\nTwo green pens.\tgreen"


@pytest.fixture(autouse=True)
def _awake(rung: list[Any]) -> None:
    worker._draining.clear()


@pytest.fixture
def base_model() -> BaseModel:
    base_model = make_base_model("demo/tiny-t5", kind="hosted")
    make_modules(base_model, 3)
    return base_model


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Losses by module that the engine is made to find; the bare base's is 2.0."""
    known: dict[str, float] = {}

    def found(base: Any, modules: Any, rows: Any) -> tuple[float, list[float]]:
        misfits = {module.name: "it adapts x" for module in modules if module.name not in known}
        if misfits:
            raise DoesNotFit(misfits)
        return 2.0, [known[module.name] for module in modules]

    monkeypatch.setattr(auditioning, "_losses", found)
    monkeypatch.setattr(bases, "at_hand", lambda *_, **__: nullcontext((None, "")))
    return known


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def names(audition: Audition, person: User) -> list[str]:
    return [row.revision.adapter.name for row in auditions.modules_of(audition, person)]


def test_losses_come_for_every_module_and_the_lowest_is_first(base_model, ada, losses, rung):
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    assert rung[-1].task == "compose.tasks.run_errands"
    before = names(audition, ada)
    owner = auditions.modules_of(audition, ada)[0].revision.adapter.namespace.name
    losses |= {f"{owner}/{name}": 3.0 - number for number, name in enumerate(before)}
    assert running_errands.run_waiting("w1") == 1
    audition.refresh_from_db()
    assert (audition.status, audition.base_loss, audition.error) == ("done", 2.0, "")
    assert names(audition, ada) == before[::-1]
    rows = auditions.modules_of(audition, ada)
    assert auditions.helpful(audition, rows, 8) == [f"{owner}/{before[2]}"]


def test_a_module_that_cannot_be_loaded_has_its_reason_and_the_others_have_their_loss(
    base_model, ada, losses
):
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    full = [row.revision.adapter.full_name for row in auditions.modules_of(audition, ada)]
    losses |= {full[0]: 1.0, full[1]: float("nan")}
    running_errands.run_waiting()
    audition.refresh_from_db()
    assert audition.status == "done"
    by_name = {row.revision.adapter.full_name: row for row in audition.modules.all()}
    assert by_name[full[0]].loss == 1.0
    assert by_name[full[1]].problem == auditioning.NOT_A_NUMBER
    assert by_name[full[2]].problem == (
        f"The module {full[2]} does not fit the base model: it adapts x. Leave it out."
    )
    refused = by_name[full[2]].revision
    refused.refresh_from_db()
    assert (refused.is_composable, refused.composable_reason) == (
        False,
        "It adapts x.",
    )


def test_those_that_do_not_fit_are_found_at_once_and_the_others_measured_together(
    base_model, ada, losses, monkeypatch
):
    make_modules(base_model, 4)
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    full = [row.revision.adapter.full_name for row in auditions.modules_of(audition, ada)]
    losses |= dict.fromkeys(full[2:], 1.0)
    asked: list[int] = []
    found = auditioning._losses

    def counted(base: Any, modules: Any, rows: Any) -> tuple[float, list[float]]:
        asked.append(len(modules))
        return found(base, modules, rows)

    monkeypatch.setattr(auditioning, "_losses", counted)
    running_errands.run_waiting()
    assert asked == [7, 5]
    assert [row.loss for row in audition.modules.order_by("position")] == [None, None, *[1.0] * 5]


def test_a_module_whose_bytes_are_lost_has_its_reason_and_the_others_have_their_loss(base_model, ada, losses):
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    rows = auditions.modules_of(audition, ada)
    losses |= dict.fromkeys([row.revision.adapter.full_name for row in rows], 1.0)
    storage.put_aside(rows[1].revision.files.get(is_lfs=True).blob)
    running_errands.run_waiting()
    audition.refresh_from_db()
    assert (audition.status, audition.error) == ("done", "")
    first, lost, last = audition.modules.order_by("position")
    assert (first.loss, lost.loss, last.loss) == (1.0, None, 1.0)
    assert "are lost or damaged on this server" in lost.problem


def test_one_whose_object_store_is_away_goes_back_in_line_once(base_model, ada, losses, monkeypatch):
    def away(*_: object, **__: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://s3")

    monkeypatch.setattr(worker, "lay_out_modules", away)
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    for status in ("waiting", "failed"):
        running_errands.run_waiting()
        Audition.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        errands.sweep()
        audition.refresh_from_db()
        assert audition.status == status
    assert audition.error == running_errands.STORE_AWAY


def test_an_attempt_after_a_lost_worker_goes_on_where_the_last_one_was(base_model, ada, losses, monkeypatch):
    monkeypatch.setattr(auditions, "AT_ONCE", 1)
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    full = [row.revision.adapter.full_name for row in auditions.modules_of(audition, ada)]
    losses |= dict.fromkeys(full, 1.0)
    first = auditions.KIND.take_next("w1")
    assert first is not None
    Auditioned.objects.filter(audition=audition, position=0).update(loss=7.0)
    Audition.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    errands.sweep()
    assert running_errands.run_waiting("w2") == 1
    audition.refresh_from_db()
    assert (audition.status, audition.losses, audition.attempt) == ("done", 1, 2)
    assert [row.loss for row in audition.modules.all()] == [7.0, 1.0, 1.0]
    assert not auditions.KIND.finish(first, seconds=9.0), "a worker that was given up changes nothing"


def test_a_worker_that_goes_gives_an_audition_back_without_counting_a_loss(base_model, ada):
    auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    auditions.KIND.take_next("w1")
    assert errands.release_all("w2") == 0
    assert errands.release_all("w1") == 1
    audition = Audition.objects.get()
    assert (audition.status, audition.losses) == ("waiting", 0)


def test_one_that_was_removed_while_it_ran_stops_without_a_word(base_model, ada, losses):
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    taken = auditions.KIND.take_next("w1")
    assert taken is not None
    auditions.forget(audition)
    running_errands.do(auditions.KIND, taken, partial(auditioning.measure, taken))
    assert_forgotten(audition)


def assert_forgotten(audition: Audition) -> None:
    """That somebody asked is all that is left."""
    audition.refresh_from_db()
    assert (audition.examples, audition.base_loss, audition.modules.count()) == ([], None, 0)
    assert audition.is_finished
    with pytest.raises(NoSuchAudition):
        auditions.seen_by(audition.asked_by, audition.pk)


def test_what_is_forgotten_still_counts_for_the_most_in_an_hour(base_model, ada, monkeypatch):
    monkeypatch.setattr(auditions, "KIND", replace(auditions.KIND, most_an_hour=2))
    for _ in range(2):
        auditions.forget(auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES))
    with pytest.raises(TooManyAuditions, match="2 measurements in the last hour"):
        auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)


def test_nobody_came_is_said_and_all_is_removed_after_a_day(base_model, ada):
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    Audition.objects.update(created_at=timezone.now() - timedelta(minutes=16))
    errands.sweep()
    audition.refresh_from_db()
    assert audition.error == "No worker could take it within fifteen minutes. Ask again later."
    Audition.objects.update(created_at=timezone.now() - timedelta(hours=25))
    errands.sweep()
    assert not Auditioned.objects.exists()


def test_limits_hold_for_each_person_and_the_same_question_is_not_asked_twice(base_model, ada):
    one = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    assert auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES) == one
    auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES[::-1])
    other = [*EXAMPLES, Example("a", "b")]
    with pytest.raises(TooManyAuditions, match="2 measurements waiting"):
        auditions.ask(person=ada, base_model=base_model, examples=other)
    auditions.ask(person=make_user("bob"), base_model=base_model, examples=other)
    Audition.objects.update(status="done")
    Audition.objects.bulk_create(
        Audition(asked_by=ada, base_model=base_model, examples=[], fitting=0, status="done")
        for _ in range(28)
    )
    with pytest.raises(TooManyAuditions, match="30 measurements in the last hour"):
        auditions.ask(person=ada, base_model=base_model, examples=other)


def test_what_cannot_be_measured_is_refused(ada):
    empty = make_base_model("demo/empty", kind="hosted")
    with pytest.raises(CandidateProblem, match="nothing to measure"):
        auditions.ask(person=ada, base_model=empty, examples=EXAMPLES)
    with pytest.raises(FewShotProblem):
        auditions.ask(person=ada, base_model=empty, examples=[])


def test_only_who_asked_sees_it_and_only_modules_they_may_see(base_model, ada):
    hidden = make_adapter("hidden", namespace=namespace_of(ada), base_model=base_model, visibility="private")
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    assert hidden.name in names(audition, ada)
    for person in (make_user("eve"), None):
        with pytest.raises(NoSuchAudition):
            auditions.seen_by(person, audition.pk)
    assert hidden.name not in names(audition, make_user("mallory"))


def test_why_it_has_not_begun_is_said(base_model, ada):
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    assert "No worker is running" in auditions.waits_for(audition)
    workers.report("w1")
    assert "A worker is free" in auditions.waits_for(audition)
    running = make_composition(owner=ada, base_model=base_model, modules=2)
    type(running).objects.filter(pk=running.pk).update(
        status="running", worker="w1", lease_until=timezone.now()
    )
    assert "All workers are at compositions" in auditions.waits_for(audition)


def test_the_page_shows_the_ranking_at_once_and_the_losses_when_they_are_there(base_model, ada, losses):
    client = signed_in(ada)
    given = {"base_model": base_model.name, "examples_text": LINES, "action": "measure"}
    asked = client.post("/modules/fit", given)
    assert asked.status_code == 302
    page = client.get(asked["Location"]).content.decode()
    assert "No worker is running now" in page
    assert "Look again" in page
    assert page.count('name="pin"') == 3
    audition = Audition.objects.get()
    full = [row.revision.adapter.full_name for row in auditions.modules_of(audition, ada)]
    losses |= {full[0]: 2.5, full[1]: 0.25, full[2]: 1.75}
    running_errands.run_waiting()
    answer = client.get(
        f"{asked['Location']}?seen=waiting-0", headers={"HX-Request": "true"}
    ).content.decode()
    assert "2 modules lower the loss" in answer
    assert "0.250" in answer
    assert "hx-trigger" not in answer, "it is done and still asks"
    ticked = [
        part.split('"')[0] for part in answer.split('name="pin" value="')[1:] if " checked" in part[:300]
    ]
    assert ticked == [full[1], full[2]]
    compose = client.post("/compose", {"action": "refresh", "base_model": base_model.name, "examples_text": LINES,
                                       "pin": ticked, "method": "auto", "audition": audition.pk})  # fmt: skip
    assert "loss 0.250, below the base" in compose.content.decode()
    assert client.post(f"{asked['Location']}/forget").status_code == 302
    assert_forgotten(audition)
    assert client.get(asked["Location"]).status_code == 404


def test_nothing_new_is_no_answer_so_that_ticks_stay(base_model, ada):
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    auditions.KIND.take_next("w1")
    address = audition.get_absolute_url()
    client = signed_in(ada)
    assert client.get(f"{address}?seen=running-0", headers={"HX-Request": "true"}).status_code == 204
    kept = auditions.modules_of(audition, ada)[2].revision.adapter.full_name
    answer = client.get(
        f"{address}?seen=waiting-0&pin={kept}", headers={"HX-Request": "true"}
    ).content.decode()
    assert answer.count(" checked") == 1


def test_the_compose_form_asks_and_shows_the_losses(base_model, ada, losses):
    client = signed_in(ada)
    given = {"base_model": base_model.name, "examples_text": LINES, "measure": "1"}
    asked = client.post("/compose/candidates", given).content.decode()
    audition = Audition.objects.get()
    assert f'name="audition" value="{audition.pk}"' in asked
    assert 'hx-trigger="every 1s"' in asked
    full = [row.revision.adapter.full_name for row in auditions.modules_of(audition, ada)]
    losses |= {full[0]: 2.5, full[1]: 2.25, full[2]: 1.75}
    running_errands.run_waiting()
    line = client.get(
        f"{audition.get_absolute_url()}?line=1", headers={"HX-Request": "true"}
    ).content.decode()
    assert 'hx-trigger="load"' in line
    listed = client.post(
        "/compose/candidates", {**given, "measure": "", "audition": audition.pk}
    ).content.decode()
    assert "1 of 3 modules alone lowers the loss" in listed
    assert listed.index(full[2]) < listed.index(full[0])
    changed = {**given, "measure": "", "audition": audition.pk, "examples_text": LINES + "\nMore.\tmore"}
    assert "measure again" in client.post("/compose/candidates", changed).content.decode()
    stranger = Client().post("/compose/candidates", {**given, "audition": audition.pk}).content.decode()
    assert "2.250" not in stranger
    assert "You are signed out." in stranger
    assert Audition.objects.count() == 1


def test_of_very_many_modules_the_form_loads_those_that_were_measured(
    base_model, ada, losses, settings, monkeypatch
):
    settings.MAX_CANDIDATES = 2
    monkeypatch.setattr(picking, "SHOWN", 2)
    make_modules(base_model, 20)
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    Audition.objects.update(status="done", base_loss=2.0)
    loaded = []

    def count(instance: Adapter, **_: Any) -> None:
        loaded.append(instance)

    post_init.connect(count, sender=Adapter)
    page = (
        signed_in(ada)
        .post("/compose/candidates", {"base_model": base_model.name, "audition": audition.pk})
        .content.decode()
    )
    assert audition.modules.first().revision.adapter.full_name in page
    post_init.disconnect(count, sender=Adapter)
    assert len(loaded) < 20


def test_the_api_asks_answers_and_forgets(base_model, ada, losses):
    headers = {"Authorization": f"Bearer {make_token(ada)}"}
    rows = [{"input": row.input, "output": row.output} for row in EXAMPLES]
    given = {"base_model": base_model.name, "examples": rows}
    client = Client()
    assert client.post("/api/v1/auditions/", given, "application/json").status_code == 401
    asked = client.post("/api/v1/auditions/", given, "application/json", headers=headers)
    assert (asked.status_code, asked.json()["status"], len(asked.json()["results"])) == (202, "waiting", 3)
    losses |= {row["module"]: 1.5 for row in asked.json()["results"]}
    running_errands.run_waiting()
    answer = client.get(asked["Location"], headers=headers).json()
    assert (answer["status"], answer["base_loss"], answer["results"][0]["loss"]) == ("done", 2.0, 1.5)
    other = {"Authorization": f"Bearer {make_token(make_user())}"}
    assert client.get(asked["Location"], headers=other).status_code == 404
    assert client.delete(asked["Location"], headers=headers).status_code == 204
    assert client.get(asked["Location"], headers=headers).status_code == 404
    changes: list[dict[str, Any]] = [{"base_model": "nobody/knows"}, {"examples": []}, {"extra": 1}]
    for bad in changes:
        answer = client.post("/api/v1/auditions/", {**given, **bad}, "application/json", headers=headers)
        assert answer.status_code in {400, 404}, answer.content


def test_the_page_of_limits_says_those_of_measuring():
    page = Client().get("/docs/limits").content.decode()
    assert f'waiting or running</th><td class="num">{auditions.MAX_UNFINISHED}</td>' in page
    assert f'Measurements in an hour</th><td class="num">{auditions.MAX_AN_HOUR}</td>' in page


def test_what_came_into_quarantine_meanwhile_is_not_measured(base_model, ada, losses):
    audition = auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    rows = auditions.modules_of(audition, ada)
    losses |= {row.revision.adapter.full_name: 1.0 for row in rows}
    moderation.quarantine(rows[0].revision.adapter, moderator=None, reason="x")
    assert running_errands.run_waiting("w1") == 1
    audition.refresh_from_db()
    assert audition.status == "done"
    measured = {row.pk for row in audition.modules.exclude(loss=None)}
    assert measured == {row.pk for row in rows[1:]}


def test_a_guest_whose_examples_are_too_many_to_keep_is_told_to_sign_in_first(base_model, monkeypatch):
    monkeypatch.setattr("compose.fit_views.MAX_DRAFT_BYTES", 10)
    given = {"base_model": base_model.name, "examples_text": LINES, "action": "measure"}
    refused = Client().post("/modules/fit", given)
    assert refused.status_code == 403
    assert "too large to keep" in refused.content.decode()


def test_a_guest_who_wants_losses_signs_in_and_finds_what_they_typed(base_model, ada):
    guest = Client()
    asked = guest.post(
        "/modules/fit", {"base_model": base_model.name, "examples_text": LINES, "action": "measure"}
    )
    assert asked["Location"] == "/accounts/login/?next=/modules/fit%3Fdraft%3D1"
    assert not Audition.objects.exists()
    guest.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    page = guest.get("/modules/fit?draft=1").content.decode()
    assert escape(LINES.splitlines()[-1]) in page
    assert f'<option value="{base_model.name}" selected>' in page


def test_one_whose_worker_was_lost_late_is_not_told_that_nobody_came(base_model, ada):
    auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES)
    auditions.KIND.take_next("w1")
    now = timezone.now()
    Audition.objects.update(
        created_at=now - timedelta(minutes=16),
        taken_at=now - timedelta(minutes=14),
        lease_until=now - timedelta(seconds=1),
    )
    errands.sweep()
    audition = Audition.objects.get()
    assert (audition.status, audition.losses) == ("waiting", 1)
    Audition.objects.update(taken_at=now - timedelta(minutes=31))
    errands.sweep()
    audition.refresh_from_db()
    assert audition.error == auditions.KIND.nobody_came
