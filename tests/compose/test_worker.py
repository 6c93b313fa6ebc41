"""The worker with a fake engine: what it writes, how it obeys, and what it does when something breaks."""

from __future__ import annotations

import errno
import time
import weakref
from datetime import timedelta
from functools import partial
from html import unescape
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from django.db import DataError, IntegrityError, InterfaceError, OperationalError, ProgrammingError
from django.test import Client
from django.utils import timezone

from compose import blocking, in_touch, jobs, status_page, worker
from compose import candidates as choosing
from compose.engine.errors import BadInput, DoesNotFit
from compose.engine.types import Example
from compose.errors import BaseUnavailable, CandidateProblem, LeaseLost
from compose.jobs import holding
from compose.models import Composition
from registry import accounts, moderation, publishing, storage, task_sets
from registry.models import Adapter, BaseModel, BaseModelFile, Task
from tests import fakes
from tests.compose.factories import make_composition, make_examples, make_modules, make_trials, owner_of
from tests.factories import make_base_model, make_revision, make_task, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fake_engine")]


def hosted_base(name: str = "demo/tiny-t5"):
    base_model = make_base_model(name, kind="hosted", commit="a" * 40)
    blob = storage.store_stream([b'{"model_type": "t5"}'])
    BaseModelFile.objects.create(base_model=base_model, path="config.json", blob=blob)
    return base_model


def queue(**options) -> Composition:
    base_model = options.pop("base_model", None) or hosted_base()
    return make_composition(base_model=base_model, **options)


def claim(composition: Composition, name: str = "worker") -> Composition:
    claimed = jobs.claim(composition.pk, name)
    assert claimed is not None
    return claimed


def sweep_when_leases_are_over() -> dict[str, int]:
    Composition.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    return jobs.sweep()


def work(composition: Composition) -> Composition:
    assert worker.run_next("worker")
    composition.refresh_from_db()
    return composition


def test_a_composition_goes_from_claim_to_result(settings):
    composition = work(queue(budget=10, examples=make_examples(20)))
    assert composition.status == "succeeded", composition.error
    assert composition.trials.count() == 10
    assert [score.method for score in composition.scores.all()] == ["zero_shot", "best_single", "lorahub"]
    assert {score.split for score in composition.scores.all()} == {"held_out"}
    assert composition.weights_blob
    assert composition.config_blob
    assert storage.open_blob(composition.weights_blob).read().startswith(b"[")
    assert b"demo/tiny-t5" in storage.open_blob(composition.config_blob).read()
    assert list((settings.WORKER_CACHE_DIR / "jobs").iterdir()) == []


def test_a_worker_beside_it_that_is_just_done_disturbs_nobody(settings):
    folder = settings.WORKER_CACHE_DIR / "jobs"
    folder.mkdir(parents=True)
    (folder / "listed-and-gone").symlink_to("nowhere")
    composition = work(queue(budget=2))
    assert composition.status == "succeeded", composition.error


def test_an_empty_queue_is_no_work():
    assert not worker.run_next("worker")


def test_the_same_request_gives_the_same_weights_and_another_seed_others():
    base_model = hosted_base()
    one, two, other = (work(queue(base_model=base_model, seed=seed)) for seed in (1, 1, 2))
    weights = [[c.mixing_weight for c in done.candidates.all()] for done in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]
    assert one.weights_blob == two.weights_blob


def test_a_second_job_on_the_same_base_loads_nothing_again():
    base_model = hosted_base()
    work(queue(base_model=base_model))
    work(queue(base_model=base_model))
    cache = worker.warm_cache()
    assert isinstance(cache, fakes.WarmCache)
    assert cache.loads["base"] == 1


def test_recorded_trials_are_replayed_and_the_result_is_that_of_an_undisturbed_run():
    base_model = hosted_base()
    undisturbed = work(queue(base_model=base_model, budget=12))
    disturbed = queue(base_model=base_model, budget=12)
    first = claim(disturbed, "lost")
    jobs.record_trials(first, jobs.recorded_trials(undisturbed)[:7])
    jobs.release(first)
    work(disturbed)
    assert (disturbed.attempt, disturbed.status) == (2, "succeeded")
    assert disturbed.weights_blob == undisturbed.weights_blob
    assert jobs.recorded_trials(disturbed) == jobs.recorded_trials(undisturbed)


def test_a_mistake_of_the_user_is_told_in_the_engines_words():
    done = work(queue(examples=[Example("bad", "x"), Example("b", "y")]))
    assert (done.status, done.error) == ("failed", "Row 1 tokenises to nothing; write something else.")


def test_a_test_row_that_the_base_does_not_take_is_named_unless_it_is_a_hidden_one(ada):
    base_model = hosted_base()
    make_modules(base_model, owner=ada)
    rows = [{"input": f"hidden {number}", "output": "x"} for number in range(20)]
    long = [*rows, {"input": "long", "output": "x"}]
    task = make_task("passing", base_model=base_model, is_held_out=True)
    task_sets.save_rows(task, few_shot=rows[:5], test=long)
    for_the_task = [
        work(queue(base_model=base_model, task=task, examples=make_examples(5))),
        work(queue(base_model=base_model, task=task, examples=(Example("hidden 3", "x"), *make_examples(5)))),
    ]
    [told] = {done.error for done in for_the_task}
    assert "they are too long for it" in told
    own = work(queue(base_model=base_model, test_examples=[Example("long", "x")]))
    assert own.error == "The input of the test row 1 has 3,001 tokens."


def test_a_mistake_of_ours_is_logged_and_told_without_its_details(caplog):
    done = work(queue(examples=[Example("boom", "x"), Example("b", "y")]))
    assert done.status == "failed"
    assert done.error == worker.OUR_ERROR
    assert "a secret of ours" in caplog.text


STORE_ERRORS = [
    EndpointConnectionError(endpoint_url="http://s3"),
    ReadTimeoutError(endpoint_url="http://s3"),
    ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"),
]


@pytest.mark.parametrize("away", STORE_ERRORS)
def test_a_composition_whose_object_store_is_away_goes_back_in_line_and_on_from_its_trials(monkeypatch, away):
    """However often: that is no loss of a worker, and nothing is said of memory."""
    composition = queue(budget=10)
    said = (
        "This site's store of files did not answer. It is tried again within 60 seconds, from its trials on."
    )
    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(storage, "store_file", lambda _path: (_ for _ in ()).throw(away))
            assert work(composition).status == "running"
        assert composition.stage_note == said
        assert jobs.sweep()["requeued"] == 0, "not before its lease has run out"
        assert sweep_when_leases_are_over()["requeued"] == 1
    composition.refresh_from_db()
    assert (composition.status, composition.losses, composition.trials.count()) == ("queued", 0, 10)
    assert composition.log.filter(text=said).count() == 4
    assert work(composition).status == "succeeded"


def test_a_composition_whose_object_store_stays_away_ends_and_says_so(monkeypatch):
    away = STORE_ERRORS[0]
    composition = queue(budget=2)
    monkeypatch.setattr(holding, "MOST_ATTEMPTS", 2)
    monkeypatch.setattr(storage, "store_file", lambda _path: (_ for _ in ()).throw(away))
    work(composition)
    sweep_when_leases_are_over()
    assert (work(composition).status, composition.error) == (
        "failed",
        "This site's store of files did not answer. That was so at 2 attempts. Ask again later, or tell the people who run "
        "this site.",
    )


@pytest.mark.parametrize(
    "error", [OperationalError("server closed the connection"), InterfaceError("closed")]
)
def test_a_composition_whose_database_was_away_is_given_up_when_it_is_back_and_no_worker_counts_as_lost(
    monkeypatch, error
):
    composition = queue(budget=10)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "finish", lambda *_, **__: (_ for _ in ()).throw(error))
        assert (work(composition).status, composition.worker) == ("running", "worker")
    worker.say_given_up()
    composition.refresh_from_db()
    assert (composition.status, composition.worker) == ("running", "")
    assert status_page.all_workers() == []
    assert sweep_when_leases_are_over()["requeued"] == 1
    assert (work(composition).status, composition.losses) == ("succeeded", 0)


def test_what_was_given_up_is_said_again_until_the_database_hears_it_and_nothing_where_another_is_at_it(
    monkeypatch,
):
    composition = queue(budget=10)
    away = OperationalError("server closed the connection")
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "finish", lambda *_, **__: (_ for _ in ()).throw(away))
        work(composition)
        patch.setattr(jobs, "give_up", lambda *_, **__: (_ for _ in ()).throw(away))
        with pytest.raises(OperationalError):
            worker.say_given_up()
    sweep_when_leases_are_over()
    taken = jobs.claim(composition.pk, "another")
    worker.say_given_up()
    assert taken is not None
    assert jobs.beat(taken) == ""
    assert not worker._given_up


def written_on_a_full_disk() -> None:
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise BadInput("The composed adapter cannot be written.") from error


@pytest.mark.parametrize("where", ["in the engine", "in the job's folder"])
def test_a_worker_whose_disk_is_full_leaves_its_composition_to_others(monkeypatch, where):
    """Else it would take one after the other out of the line, and each would fail."""
    composition = queue(budget=2)
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        if where == "in the engine":
            patch.setattr(fakes, "compose", lambda *_, **__: written_on_a_full_disk())
        else:
            patch.setattr(worker.worker_cache, "jobs_folder", lambda: (_ for _ in ()).throw(full))
        assert work(composition).status == "running"
        assert composition.stage_note.startswith(worker.DISK_FULL)
    sweep_when_leases_are_over()
    assert (work(composition).status, composition.losses) == ("succeeded", 0)


def test_a_worker_takes_nothing_while_its_disk_has_no_room(settings):
    """Else it would take what waits again at every lease."""
    composition, room = queue(budget=2), settings.MIN_FREE_DISK_BYTES
    settings.MIN_FREE_DISK_BYTES = 2**60
    assert not worker.run_next("worker")
    composition.refresh_from_db()
    assert (composition.status, composition.attempt) == ("queued", 0)
    settings.MIN_FREE_DISK_BYTES = room
    assert worker.run_next("worker")


def test_a_base_model_that_is_too_large_for_the_disk_is_not_fetched_again_and_again(monkeypatch):
    def too_large(*_: object, **__: object) -> None:
        raise BaseUnavailable("The worker's disk has no space left.") from OSError(errno.ENOSPC, "No space")

    monkeypatch.setattr(worker.bases, "of_composition", too_large)
    done = work(queue())
    assert (done.status, done.error) == ("failed", "The worker's disk has no space left.")


@pytest.mark.parametrize("full", [storage.StorageFull, storage.StorageBroken])
def test_a_composition_whose_result_the_sites_disk_does_not_take_is_tried_again(monkeypatch, full):
    composition = queue(budget=2)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "store_file", lambda _path: (_ for _ in ()).throw(full()))
        assert work(composition).status == "running"
        assert composition.stage_note.startswith(worker.STORE_FULL)
    sweep_when_leases_are_over()
    assert (work(composition).status, composition.losses) == ("succeeded", 0)


def test_what_the_object_store_refuses_is_a_mistake_of_ours(monkeypatch):
    refused = ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject")
    composition = queue(budget=2)
    monkeypatch.setattr(storage, "store_file", lambda _path: (_ for _ in ()).throw(refused))
    assert work(composition).error == worker.OUR_ERROR


def picked_by_hand() -> Composition:
    base_model = hosted_base()
    picked = [adapter.head for adapter in make_modules(base_model, 3)]
    return queue(base_model=base_model, candidates=picked)


def test_a_module_that_does_not_fit_after_all_is_named_and_offered_no_more(monkeypatch):
    composition = picked_by_hand()
    misfit = composition.candidates.order_by("position")[1].revision

    def refused(request, **_options):
        raise DoesNotFit({request.modules[1].name: "it adapts x.y, which is not a linear matrix of the base"})

    monkeypatch.setattr(fakes, "compose", refused)
    done = work(composition)
    assert (done.status, done.error) == (
        "failed",
        f"The module {misfit.adapter.full_name} does not fit the base model: it adapts x.y, which is not a linear "
        "matrix of the base. Leave it out.",
    )
    misfit.refresh_from_db()
    assert (misfit.base_fit, misfit.is_composable) == ("differs", False)
    assert misfit.composable_reason == ("It adapts x.y, which is not a linear matrix of the base.")
    assert not misfit.adapter.is_composable
    assert Adapter.objects.filter(is_composable=True).count() == composition.candidates.count() - 1
    with pytest.raises(CandidateProblem, match="cannot be composed: It adapts x"):
        choosing.pick([misfit.adapter.full_name], composition.base_model, None)


def test_of_two_versions_of_a_module_the_one_that_does_not_fit_is_named_and_nothing_is_left_out(monkeypatch):
    base_model = hosted_base()
    [adapter] = make_modules(base_model, 1)
    older = adapter.head
    newer = make_revision(adapter)
    composition = queue(base_model=base_model, candidates=[older, newer])

    def refused(request, **_options):
        raise DoesNotFit({request.modules[1].name: "it adapts x"})

    monkeypatch.setattr(fakes, "compose", refused)
    done = work(composition)
    name = f"{adapter.full_name}@{newer.short_commit}"
    assert done.error == f"The module {name} does not fit the base model: it adapts x. Leave it out."
    assert "left out" not in done.candidates_note
    assert not any("Goes on" in line.text for line in done.log.all())


def test_what_was_chosen_by_itself_and_does_not_fit_is_left_out_and_the_rest_composed(monkeypatch):
    composition = queue(budget=3)
    misfit, *rest = composition.candidates.order_by("position")
    compose = fakes.compose

    def refused(request, **options):
        if len(request.modules) == 3:
            raise DoesNotFit({request.modules[0].name: "it adapts x"})
        return compose(request, **options)

    monkeypatch.setattr(fakes, "compose", refused)
    done = work(composition)
    assert (done.status, done.error) == ("succeeded", "")
    assert [row.pk for row in done.candidates.order_by("position")] == [row.pk for row in rest]
    assert [row.position for row in done.candidates.order_by("position")] == [0, 1]
    assert done.candidates_note.endswith(" 1 module left out, which did not fit.")
    name = misfit.revision.adapter.full_name
    assert any(name in line.text for line in done.log.all())
    assert name not in done.candidates_note
    misfit.revision.refresh_from_db()
    assert not misfit.revision.is_composable


def test_what_was_loaded_before_something_was_left_out_is_let_go_first(monkeypatch):
    class Loaded:
        """A base model."""

    kept: list[weakref.ref[Loaded]] = []
    compose = fakes.compose

    def refused(request, **options):
        if kept:
            assert kept[0]() is None
            return compose(request, **options)
        base = Loaded()
        kept.append(weakref.ref(base))
        raise DoesNotFit({request.modules[0].name: "it adapts x"})

    monkeypatch.setattr(fakes, "compose", refused)
    assert work(queue(budget=3)).status == "succeeded"


def test_a_composition_of_nothing_that_fits_fails(monkeypatch):
    def refused(request, **_options):
        raise DoesNotFit({module.name: "it adapts x" for module in request.modules})

    monkeypatch.setattr(fakes, "compose", refused)
    done = work(queue())
    assert done.status == "failed"
    assert done.error.endswith("Leave them out.")


def test_a_module_that_has_another_base_model_since_is_offered_on(monkeypatch):
    composition = picked_by_hand()
    moved = composition.candidates.order_by("position")[1].revision
    Adapter.objects.filter(pk=moved.adapter_id).update(base_model=make_base_model("demo/another"))

    def refused(request, **_options):
        raise DoesNotFit({module.name: "it adapts x" for module in request.modules[:2]})

    monkeypatch.setattr(fakes, "compose", refused)
    assert work(composition).status == "failed"
    moved.refresh_from_db()
    assert moved.is_composable
    assert moved.adapter.is_composable
    assert Adapter.objects.filter(is_composable=True).count() == composition.candidates.count() - 1


@pytest.mark.parametrize("error", [DataError, IntegrityError, ProgrammingError])
def test_what_no_database_takes_fails_at_once_and_is_not_tried_again(monkeypatch, error):
    def refuse(*args, **kwargs):
        raise error("unsupported Unicode escape sequence")

    monkeypatch.setattr(jobs, "finish", refuse)
    done = work(queue())
    assert (done.status, done.error, done.losses) == ("failed", worker.OUR_ERROR, 0)


def test_a_base_without_files_fails_with_a_sentence():
    done = work(queue(base_model=make_base_model("demo/empty", kind="hosted", commit="b" * 40)))
    assert done.error == "The base model demo/empty is hosted here but has no files."


def test_a_base_that_changed_since_fails_with_a_sentence():
    composition = queue()
    composition.base_model.commit = "c" * 40
    composition.base_model.save(update_fields=["commit"])
    assert "changed after this composition was asked for" in work(composition).error


class AtTrial:
    """Does something once, when the engine has told the trial of this number."""

    def __init__(self, monkeypatch, number: int, act) -> None:
        told = in_touch.Reporter.on_trial

        def on_trial(reporter, trial):
            told(reporter, trial)
            if trial.number == number:
                act()

        monkeypatch.setattr(in_touch.Reporter, "on_trial", on_trial)


def test_cancel_takes_effect_before_the_next_evaluation(monkeypatch):
    composition = queue(budget=40)
    AtTrial(monkeypatch, 5, lambda: jobs.cancel(composition, composition.owner))
    work(composition)
    assert composition.status == "cancelled"
    assert composition.trials.count() <= 5
    assert composition.finished_at


def test_what_runs_for_somebody_who_is_blocked_ends_and_the_worker_goes_on_to_others(monkeypatch):
    bob, base_model = make_user("bob"), hosted_base()
    composition = queue(owner=bob, base_model=base_model, budget=400)
    AtTrial(monkeypatch, 3, lambda: accounts.block(bob, moderator=None))
    work(composition)
    assert (composition.status, composition.error) == ("cancelled", blocking.WHY)
    assert composition.trials.count() <= 3
    assert composition.result is None
    assert work(queue(base_model=base_model, budget=2)).status == "succeeded"


def test_stop_keeps_the_best_and_finishes(monkeypatch):
    composition = queue(budget=40)
    AtTrial(monkeypatch, 5, lambda: jobs.stop(composition, composition.owner))
    work(composition)
    assert composition.status == "succeeded"
    assert composition.trials.count() == 5
    assert composition.result
    assert composition.result["stopped_early"]


class Clock:
    """The worker's time, which goes on when told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(in_touch, "time", SimpleNamespace(monotonic=lambda: self.now, time=time.time))

    def go_on(self, seconds: float) -> None:
        self.now += seconds


def test_a_time_limit_stops_the_search_and_keeps_the_best(monkeypatch):
    composition, clock = queue(time_limit_s=60, budget=40), Clock(monkeypatch)
    AtTrial(monkeypatch, 3, partial(clock.go_on, 61))
    done = work(composition)
    assert done.status == "succeeded"
    assert done.result
    assert done.result["stopped_early"]
    assert len(jobs.recorded_trials(done)) == 3
    assert "Stopped early by its time limit." in page_of(done)


def test_a_time_limit_is_of_the_search_and_not_of_what_comes_before_it(monkeypatch):
    composition, clock = queue(time_limit_s=60, budget=8), Clock(monkeypatch)
    on_audition = in_touch.Reporter.on_audition

    def slow(reporter, *heard):
        clock.go_on(61)
        on_audition(reporter, *heard)

    monkeypatch.setattr(in_touch.Reporter, "on_audition", slow)
    assert work(composition).trials.count() == 8


def test_of_a_time_limit_another_attempt_has_what_those_before_it_left(monkeypatch):
    composition, clock = queue(time_limit_s=60, budget=40), Clock(monkeypatch)

    def lose() -> None:
        clock.go_on(50)
        monkeypatch.setattr(in_touch, "KEPT_EVERY_S", 0)

    def go() -> None:
        worker._draining.set()
        jobs.release_all("worker")

    AtTrial(monkeypatch, 5, lose)
    AtTrial(monkeypatch, 6, go)
    work(composition)
    worker._draining.clear()
    assert composition.status == "queued"
    recorded = composition.trials.count()
    assert recorded >= 5
    AtTrial(monkeypatch, recorded + 2, partial(clock.go_on, 11))
    done = work(composition)
    assert done.result
    assert done.result["stopped_early"]
    assert done.trials.count() == recorded + 2, "eleven seconds more, and not sixty"
    assert done.searched_s == 61


def test_another_attempt_is_given_what_those_before_it_kept(monkeypatch):
    composition, given = queue(budget=2), []
    compose = fakes.compose

    def keeps(request, *, observer, **more):
        given.append(observer.kept("answers"))
        observer.keep("answers", ["red"])
        if len(given) == 1:
            observer.flush()
            raise OSError(errno.ENOSPC, "No space left on device")
        return compose(request, observer=observer, **more)

    monkeypatch.setattr(fakes, "compose", keeps)
    work(composition)
    sweep_when_leases_are_over()
    assert work(composition).status == "succeeded"
    assert given == [None, ["red"]]


def test_who_cancels_while_it_is_written_has_it_cancelled(monkeypatch):
    composition = queue(budget=4)
    finish = jobs.finish

    def cancelled_first(*arguments, **options):
        jobs.cancel(composition, composition.owner)
        finish(*arguments, **options)

    monkeypatch.setattr(jobs, "finish", cancelled_first)
    done = work(composition)
    assert (done.status, done.result, done.scores.count()) == ("cancelled", None, 0)


def test_an_attempt_that_lost_its_lease_stops_and_writes_nothing(monkeypatch):
    composition = queue(budget=40)

    def lose() -> None:
        Composition.objects.filter(pk=composition.pk).update(status="queued", lease_until=None)

    AtTrial(monkeypatch, 5, lose)
    work(composition)
    assert composition.status == "queued"
    assert composition.trials.count() <= 5


def test_a_worker_that_is_told_to_go_gives_its_work_back(monkeypatch):
    composition = queue(budget=40)

    def go() -> None:
        worker._draining.set()
        jobs.release_all("worker")

    AtTrial(monkeypatch, 5, go)
    work(composition)
    assert (composition.status, composition.losses) == ("queued", 0)
    assert not worker.run_next("worker"), "a draining worker takes nothing"


def test_the_heart_renews_the_lease_and_notices_its_loss(settings):
    settings.JOB_HEARTBEAT_S = 0.05
    composition = claim(queue())
    before = composition.lease_until
    with in_touch.Heart(composition.pk, partial(jobs.beat, composition)) as heart:
        wait(Composition.objects.filter(pk=composition.pk, lease_until__gt=before).exists)
        Composition.objects.filter(pk=composition.pk).update(attempt=9)
        wait(heart.lost.is_set)
        with pytest.raises(LeaseLost):
            heart.check()


def wait(condition) -> None:
    from tests.conftest import wait_for

    wait_for(condition, seconds=10, what="what the test waits for")


def test_trials_are_written_in_groups_and_none_is_forgotten(monkeypatch):
    writes = []
    record = jobs.record_trials

    def count_and_record(composition, trials):
        writes.append(len(trials))
        record(composition, trials)

    monkeypatch.setattr(jobs, "record_trials", count_and_record)
    done = work(queue(budget=200))
    assert done.trials.count() == 200
    assert len([count for count in writes if count]) < 50


def test_a_search_goes_on_from_its_recorded_trials_and_one_beside_it_begins_at_its_beginning():
    composition = claim(queue())
    reporter = in_touch.Reporter(
        composition, in_touch.Heart(composition.pk, partial(jobs.beat, composition)), recorded=make_trials(90)
    )
    for stage, most, step in (("audition", 0, 0), ("search", 300, 90), ("search", 40, 0)):
        reporter.on_stage(stage, trials=most)
        composition.refresh_from_db()
        assert (composition.step, composition.steps) == (step, most)


def test_a_finished_job_rings_for_the_next(rung):
    base_model = hosted_base()
    owner = make_user()
    first, second = (queue(base_model=base_model, owner=owner) for _ in range(2))
    rung.clear()
    work(first)
    assert [ring.args[0] for ring in rung] == [second.pk]


def test_the_task_works_on_whoever_is_first_in_line_and_a_double_does_nothing(rung):
    composition = queue()
    [ring] = rung
    ring.answer()
    ring.answer()
    composition.refresh_from_db()
    assert (composition.status, composition.attempt) == ("succeeded", 1)


def test_two_revisions_of_one_adapter_have_two_names(tmp_path):
    from tests.factories import make_adapter, make_revision

    adapter = make_adapter("twice")
    first = adapter.head
    assert first
    second = make_revision(adapter)
    names = [module.name for module in worker.lay_out_modules([first, second], tmp_path)]
    assert names[0] == adapter.full_name
    assert names[1] == f"{adapter.full_name}@{second.short_commit}"


def test_what_it_takes_at_the_moment_it_is_told_to_go_is_given_back_at_once(monkeypatch):
    composition = queue()
    claim_next = jobs.claim_next

    def told_to_go(*args, **kwargs):
        found = claim_next(*args, **kwargs)
        worker._draining.set()
        return found

    monkeypatch.setattr(jobs, "claim_next", told_to_go)
    assert not worker.run_next("worker")
    composition.refresh_from_db()
    assert (composition.status, composition.attempt, composition.losses) == ("queued", 1, 0)


# --- What it is made of or scored on changes while it runs ---------------------------------------------------------


def page_of(composition: Composition) -> str:
    client = Client()
    client.force_login(owner_of(composition))
    return unescape(client.get(composition.get_absolute_url()).content.decode())


def queue_for_task(ada, **task) -> Composition:
    base_model = hosted_base()
    make_modules(base_model, owner=ada)
    made = make_task("passing", rows=5, test_rows=20, base_model=base_model, is_held_out=True, **task)
    return queue(base_model=base_model, task=made, examples=(), budget=6, owner=make_user("bob"))


def test_what_runs_for_a_task_that_is_deleted_is_finished_without_it(ada, monkeypatch):
    composition = queue_for_task(ada)
    AtTrial(monkeypatch, 3, lambda: Task.objects.all().delete())
    work(composition)
    assert (composition.status, composition.task, composition.task_revision) == ("succeeded", None, None)
    assert composition.predictions == [], "of hidden rows that nobody can say who may see"
    assert composition.scores.filter(split="held_out", n=20).exists()
    assert page_of(composition)


def test_what_runs_for_a_task_that_gets_other_rows_is_scored_on_those_of_then_and_says_so(ada, monkeypatch):
    composition = queue_for_task(ada)
    then = composition.task_revision
    rows = [{"input": f"new {number}", "output": "x"} for number in range(30)]
    AtTrial(
        monkeypatch,
        3,
        lambda: task_sets.save_rows(Task.objects.get(), few_shot=rows[:5], test=rows[5:]),
    )
    work(composition)
    assert composition.task_revision == then
    assert "this is scored on its revision 1, and the newest is 2" in page_of(composition)
    again = work(queue_again(composition))
    assert again.task_revision != then
    assert "this is scored on its revision" not in page_of(again)


def queue_again(composition: Composition) -> Composition:
    return queue(base_model=composition.base_model, task=composition.task, examples=(), budget=6)


def test_of_what_runs_with_a_module_that_is_put_into_quarantine_the_page_says_that_it_is_not_published(
    ada, monkeypatch
):
    composition = queue_for_task(ada)
    module = Adapter.objects.get(name="part-1")
    AtTrial(monkeypatch, 3, lambda: moderation.quarantine(module, moderator=None, reason="It is a copy."))
    work(composition)
    assert composition.status == "succeeded"
    assert "This cannot be published now" in page_of(composition)
    moderation.release(module, moderator=None)
    assert "This cannot be published now" not in page_of(composition)


def test_of_what_runs_with_a_module_that_becomes_private_the_page_says_what_it_is_not_published_as(
    ada, monkeypatch
):
    composition = queue_for_task(ada)
    assert "Private among its modules" not in page_of(composition)
    AtTrial(monkeypatch, 3, lambda: Adapter.objects.filter(name="part-1").update(visibility="private"))
    work(composition)
    page = page_of(composition)
    assert "Private among its modules: a module that is not public. Publish it privately" in page
    assert "ada/part-1" not in page.partition('class="log"')[0]


def test_what_runs_with_a_module_that_is_deleted_is_finished_and_names_it(ada, monkeypatch):
    composition = queue_for_task(ada)
    AtTrial(monkeypatch, 3, lambda: publishing.withdraw(Adapter.objects.get(name="part-1"), actor=ada))
    work(composition)
    assert composition.status == "succeeded"
    page = page_of(composition)
    assert "ada/part-1" in page
    assert 'href="/ada/part-1"' not in page


def test_what_runs_on_a_base_model_whose_files_change_is_finished_and_says_so(ada, monkeypatch):
    composition = queue_for_task(ada)
    AtTrial(monkeypatch, 3, lambda: BaseModel.objects.update(commit="d" * 40))
    work(composition)
    assert composition.status == "succeeded"
    assert "The files of demo/tiny-t5 changed since: this is made for those of then" in page_of(composition)
