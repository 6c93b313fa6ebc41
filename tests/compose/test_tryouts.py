"""Trying a composed adapter on a text: who may, how many, and what comes back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import QuerySet
from django.test import Client
from django.utils import timezone

from compose import errands, jobs, running_errands, tryouts, worker
from compose.errors import BadTryout, LeaseLost, TooManyTryouts, WrongState
from compose.models import Composition, Tryout
from registry import storage
from registry.models import BaseModelFile, User
from tests.compose.factories import finish, make_composition
from tests.conftest import ROOT
from tests.factories import make_base_model, make_token, make_user
from web.templatetags.formatting import size

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _awake(rung: list[Any]) -> None:
    worker._draining.clear()


@pytest.fixture
def composed(ada: User) -> Composition:
    make_base_model("demo/tiny-t5", kind="hosted")
    return finish(make_composition(owner=ada, title="Colours"))


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def done(composition: Composition, person: User, text: str = "What colour?") -> Tryout:
    tryout = tryouts.ask(composition, person, text)
    taken = tryouts.KIND.take_next()
    assert taken == tryout
    tryouts.KIND.finish(tryout, answers={"composed": "red", "zero_shot": "the sea"}, seconds=0.4)
    return tryout


def test_a_text_is_asked_answered_and_read(composed: Composition, ada: User, rung: list[Any]):
    client = signed_in(ada)
    asked = client.post(
        f"{composed.get_absolute_url()}/try", {"text": "What colour?"}, headers={"HX-Request": "true"}
    )
    page = asked.content.decode()
    assert "Waiting for a free worker" in page
    assert "hx-trigger" in page
    assert rung[-1].task == "compose.tasks.run_errands"
    tryout = tryouts.KIND.take_next()
    assert tryout is not None
    tryouts.KIND.finish(tryout, answers={"composed": "red", "zero_shot": "the <sea>"}, seconds=0.4)
    answer = client.get(f"{composed.get_absolute_url()}/try/{tryout.pk}", headers={"HX-Request": "true"})
    page = answer.content.decode()
    assert "red" in page
    assert "the &lt;sea&gt;" in page
    assert "hx-trigger" not in page, "it has its answer and still asks"


def test_without_scripts_the_answer_has_a_page(composed: Composition, ada: User):
    client = signed_in(ada)
    asked = client.post(f"{composed.get_absolute_url()}/try", {"text": "What colour?"})
    assert asked.status_code == 302
    assert "Look again" in client.get(asked["Location"]).content.decode()
    refused = client.post(f"{composed.get_absolute_url()}/try", {"text": "  "})
    assert refused.status_code == 400
    assert "Write something for the adapter to read." in refused.content.decode()


def test_the_answer_is_that_of_whoever_asked_alone(composed: Composition, ada: User):
    tryout = done(composed, ada)
    address = f"{composed.get_absolute_url()}/try/{tryout.pk}"
    assert signed_in(make_user("mallory")).get(address).status_code == 404
    assert Client().get(address).status_code == 302
    assert Client().post(f"{composed.get_absolute_url()}/try", {"text": "x"}).status_code == 302
    stranger = signed_in(make_user("eve"))
    assert stranger.post(f"{composed.get_absolute_url()}/try", {"text": "x"}).status_code == 404


@pytest.mark.parametrize("text", ["", "  \n", "x" * 9000, "nul \x00", "half \ud800"])
def test_a_text_that_cannot_be_read_is_refused(composed: Composition, ada: User, text: str):
    with pytest.raises(BadTryout):
        tryouts.ask(composed, ada, text)
    assert not Tryout.objects.exists()


def test_a_person_may_wait_for_two_and_ask_sixty_an_hour(composed: Composition, ada: User):
    for _ in range(2):
        tryouts.ask(composed, ada, "What colour?")
    with pytest.raises(TooManyTryouts, match="2 texts waiting"):
        tryouts.ask(composed, ada, "What colour?")
    tryouts.ask(composed, make_user("bob"), "Bob has room of his own.")
    Tryout.objects.all().update(status="done")
    Tryout.objects.bulk_create(
        Tryout(composition=composed, asked_by=ada, text="x", status="done") for _ in range(58)
    )
    with pytest.raises(TooManyTryouts, match="60 texts in the last hour"):
        tryouts.ask(composed, ada, "What colour?")


def test_only_a_composition_with_an_adapter_can_be_tried(ada: User):
    with pytest.raises(WrongState):
        tryouts.ask(make_composition(owner=ada), ada, "What colour?")


def test_the_sweep_tells_those_nobody_came_for_and_forgets_texts_after_a_day(
    composed: Composition, ada: User, rung: list[Any]
):
    waiting = tryouts.ask(composed, ada, "waiting")
    Tryout.objects.filter(pk=waiting.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    rung.clear()
    errands.sweep()
    assert [ring.args for ring in rung] == [(waiting.pk,)]
    Tryout.objects.filter(pk=waiting.pk).update(created_at=timezone.now() - timedelta(minutes=4))
    errands.sweep()
    waiting.refresh_from_db()
    assert waiting.error == "No worker could take it within three minutes. Ask again later."
    lost = tryouts.ask(composed, ada, "lost")
    tryouts.KIND.take_next()
    Tryout.objects.filter(pk=lost.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    errands.sweep()
    lost.refresh_from_db()
    assert lost.status == "waiting", "what lost its worker once goes back in line"
    tryouts.KIND.take_next()
    Tryout.objects.filter(pk=lost.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    errands.sweep()
    lost.refresh_from_db()
    assert (lost.status, lost.error[:25]) == ("failed", "The worker was lost twice")
    Tryout.objects.all().update(created_at=timezone.now() - timedelta(days=2))
    errands.sweep()
    assert not Tryout.objects.exists()


def test_of_one_that_ran_too_long_twice_its_worker_is_not_called_lost(composed: Composition, ada: User):
    """As where its base model is fetched over a slow line first."""
    slow = tryouts.ask(composed, ada, "slow")
    for status in ("waiting", "failed"):
        taken = tryouts.KIND.take_next()
        assert taken is not None
        Tryout.objects.filter(pk=slow.pk).update(
            taken_at=timezone.now() - timedelta(minutes=16), lease_until=timezone.now() - timedelta(seconds=1)
        )
        with pytest.raises(LeaseLost):
            tryouts.KIND.beat(taken)
        errands.sweep()
        slow.refresh_from_db()
        assert slow.status == status
    assert slow.error == tryouts.KIND.took_too_long


def test_one_whose_lease_runs_out_in_the_midst_of_a_sweep_is_not_called_lost_twice(
    composed: Composition, ada: User
):
    tryout = tryouts.ask(composed, ada, "text")
    tryouts.KIND.take_next()

    def run_out(execute: Any, sql: str, *rest: Any) -> Any:
        found = execute(sql, *rest)
        if "losses" in sql.partition(" WHERE ")[0] and sql.startswith(
            "UPDATE"
        ):  # what is lost went back in line
            Tryout.objects.filter(pk=tryout.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        return found

    with connection.execute_wrapper(run_out):
        errands.sweep()
    tryout.refresh_from_db()
    assert tryout.error == ""
    errands.sweep()
    tryout.refresh_from_db()
    assert (tryout.status, tryout.losses) == ("waiting", 1)


def test_a_worker_at_a_composition_leaves_try_outs_to_others(composed: Composition, ada: User):
    tryouts.ask(composed, ada, "What colour?")
    with worker.hold_engine() as is_free:
        assert is_free
        assert running_errands.run_waiting() == 0
    assert Tryout.objects.get().status == "waiting"


def test_what_the_engine_cannot_load_is_told_in_its_words(composed: Composition, ada: User):
    tryouts.ask(composed, ada, "What colour?")
    assert running_errands.run_waiting() == 1
    tryout = Tryout.objects.get()
    assert tryout.status == "failed"
    assert tryout.error == "The base model demo/tiny-t5 is hosted here but has no files."


def test_the_api_asks_and_answers(composed: Composition, ada: User):
    headers = {"Authorization": f"Bearer {make_token(ada)}"}
    address = f"/api/v1/compositions/{composed.pk}/try/"
    client = Client()
    assert client.post(address, {"text": "x"}).status_code == 401
    asked = client.post(address, {"text": "What colour?"}, "application/json", headers=headers)
    assert (asked.status_code, asked.json()["status"]) == (202, "waiting")
    tryout = tryouts.KIND.take_next()
    assert tryout is not None
    tryouts.KIND.finish(tryout, answers={"composed": "red", "zero_shot": "sea"}, seconds=0.4)
    answer = client.get(asked["Location"], headers=headers).json()
    assert (answer["status"], answer["answers"]["composed"]) == ("done", "red")
    refused = client.post(address, {"text": " "}, "application/json", headers=headers)
    assert refused.status_code == 400


def test_a_real_adapter_answers_as_its_composition_predicted(ada: User):
    """The demo's base model and one of its modules, as a composed adapter would be stored."""
    base_model = make_base_model("demo/story-t5", kind="hosted", commit="d" * 40)
    for path in (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        blob = storage.store_stream([(ROOT / "demo/story-t5" / path).read_bytes()])
        BaseModelFile.objects.create(base_model=base_model, path=path, blob=blob)
    composition = finish(make_composition(owner=ada, base_model=base_model))
    module = ROOT / "demo/modules/story-lab/colour-twice"
    composition.weights_blob = storage.store_file(_copy(module / "adapter_model.safetensors"))
    composition.config_blob = storage.store_file(_copy(module / "adapter_config.json"))
    composition.save(update_fields=["weights_blob", "config_blob"])
    tryouts.ask(
        composition, ada, "On Monday Anna walked to the castle with a cat. There they saw three green pens."
    )
    assert running_errands.run_waiting() == 1
    tryout = Tryout.objects.get()
    assert tryout.error == ""
    assert tryout.answers["composed"] == "green green"
    assert tryout.answers["zero_shot"] != "green green"


def _copy(path: Any) -> Any:
    """A copy that storing may take."""
    from django.conf import settings

    copy = settings.UPLOAD_TMP_DIR / path.name
    copy.write_bytes(path.read_bytes())
    return copy


# --- The link for people one chooses -------------------------------------------------------------------------


def test_a_link_shows_the_result_without_the_examples_until_it_is_taken_back(
    composed: Composition, ada: User
):
    owner, stranger = signed_in(ada), Client()
    address = composed.get_absolute_url()
    owner.post(f"{address}/share")
    composed.refresh_from_db()
    assert f"?key={composed.share_key}" in owner.get(address).content.decode()
    link = f"{address}?key={composed.share_key}"
    page = stranger.get(link).content.decode()
    assert "The composed adapter is better than the base model." in page
    assert "question 1" not in page
    assert 'id="predictions"' not in page
    assert 'id="publish"' not in page
    assert f"recipe.json?key={composed.share_key}" in page
    assert stranger.get(f"{address}/recipe.json?key={composed.share_key}").status_code == 200
    assert stranger.get(f"{address}/predictions.csv?key={composed.share_key}").status_code == 404
    assert stranger.get(address).status_code == 404
    assert stranger.get(f"{address}?key=wrong").status_code == 404
    guest = signed_in(make_user())
    asked = guest.post(f"{address}/try?key={composed.share_key}", {"text": "What colour?"}, follow=True)
    assert "Waiting for a free worker" in asked.content.decode()
    owner.post(f"{address}/unshare")
    assert stranger.get(link).status_code == 404


def test_only_the_owner_makes_and_takes_back_links(composed: Composition, ada: User):
    jobs.share(composed, ada)
    key = composed.share_key
    for action in ("share", "unshare"):
        assert signed_in(make_user()).post(f"{composed.get_absolute_url()}/{action}").status_code == 404
        assert Client().post(f"{composed.get_absolute_url()}/{action}").status_code == 302
    composed.refresh_from_db()
    assert composed.share_key == key


def test_a_link_of_another_composition_opens_only_that_one(composed: Composition, ada: User):
    other = make_composition(owner=ada)
    jobs.share(other, ada)
    assert Client().get(f"{composed.get_absolute_url()}?key={other.share_key}").status_code == 404


def test_the_page_of_limits_says_those_of_trying():
    page = Client().get("/docs/limits").content.decode()
    assert f'<td class="num">{size(tryouts.MAX_TEXT_BYTES)}</td>' in page
    assert f'waiting for an answer</th><td class="num">{tryouts.MAX_UNFINISHED}</td>' in page
    assert f'in an hour</th><td class="num">{tryouts.MAX_AN_HOUR}</td>' in page


def test_a_worker_goes_on_to_the_next_where_what_it_took_goes_with_an_account(
    composed: Composition, ada: User, monkeypatch: pytest.MonkeyPatch
):
    gone, stays = (tryouts.ask(composed, ada, text) for text in ("one", "two"))
    update = QuerySet.update

    def delete_after(rows: QuerySet[Tryout], **fields: object) -> int:
        monkeypatch.setattr(QuerySet, "update", update)
        changed = update(rows, **fields)
        Tryout.objects.filter(pk=gone.pk).delete()
        return changed

    monkeypatch.setattr(QuerySet, "update", delete_after)
    assert tryouts.KIND.take_next() == stays
