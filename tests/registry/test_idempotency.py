from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from registry import idempotency, publishing
from registry.models import Adapter, IdempotentAnswer, Revision
from tests.factories import make_token, make_user
from tests.registry.test_api import Script, adapter_files, assert_refused

pytestmark = pytest.mark.django_db
KEY = "5f0c7d2e-once"


def test_the_same_key_with_the_same_request_is_done_once_and_answered_twice(tmp_path):
    script = Script(make_token(make_user()))
    files = adapter_files(tmp_path / "a")
    answers = [script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert answers[1]["Idempotent-Replayed"] == "true"
    assert answers[1]["Location"] == answers[0]["Location"] != ""
    assert Revision.objects.count() == 1


def test_the_same_key_with_another_request_is_422(tmp_path):
    script = Script(make_token(make_user()))
    files = adapter_files(tmp_path / "a")
    script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY})
    other_name = script.upload("adapters/", files, {"name": "n"}, **{"Idempotency-Key": KEY})
    assert_refused(other_name, 422, "Idempotency-Key")
    other_bytes = {**files, "README.md": b"# Other"}
    assert_refused(script.upload("adapters/", other_bytes, {"name": "m"}, **{"Idempotency-Key": KEY}), 422)
    assert Adapter.objects.count() == 1


def test_a_refusal_is_repeated_with_its_sentence(tmp_path):
    script = Script(make_token(make_user()))
    files = adapter_files(tmp_path / "a", lora_alpha=-1)
    answers = [script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].json() == answers[1].json()
    assert "Idempotent-Replayed" in answers[1]


def test_keys_belong_to_one_person(tmp_path):
    files = adapter_files(tmp_path / "a")
    for _ in range(2):
        script = Script(make_token(make_user()))
        assert script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY}).status_code == 201
    assert Adapter.objects.count() == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", " "])
def test_a_key_that_is_none_is_refused(tmp_path, key):
    script = Script(make_token(make_user()))
    answer = script.upload(
        "adapters/", adapter_files(tmp_path / "a"), {"name": "m"}, **{"Idempotency-Key": key}
    )
    assert_refused(answer, 400, "Idempotency-Key")


def test_an_error_on_our_side_leaves_the_key_free(tmp_path, monkeypatch):
    script = Script(make_token(make_user()))
    script.client.raise_request_exception = False
    files = adapter_files(tmp_path / "a")
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "write_revision", lambda *args, **kwargs: 1 / 0)
        assert script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY}).status_code == 500
    assert not IdempotentAnswer.objects.exists()
    assert script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY}).status_code == 201


def test_a_refusal_of_the_moment_leaves_the_key_free(tmp_path, settings):
    script = Script(make_token(make_user()))
    files = adapter_files(tmp_path / "a")
    missing = script.upload("adapters/", files, {"name": "m", "namespace": "lab"}, **{"Idempotency-Key": KEY})
    assert missing.status_code == 404
    assert not IdempotentAnswer.objects.exists()


def test_answers_are_forgotten_after_a_day(tmp_path):
    user = make_user()
    script = Script(make_token(user))
    files = adapter_files(tmp_path / "a")
    script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY})
    IdempotentAnswer.objects.update(created_at=timezone.now() - timedelta(hours=25))
    again = script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY})
    assert again.status_code == 200
    IdempotentAnswer.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert idempotency.sweep_answers() == 1


@pytest.mark.django_db(transaction=True)
def test_while_the_first_request_runs_its_repetition_is_409(tmp_path, monkeypatch):
    script = Script(make_token(make_user()))
    files = adapter_files(tmp_path / "a")
    inside, go_on = threading.Event(), threading.Event()
    really_store = publishing._store

    def wait(files: object) -> object:
        inside.set()
        assert go_on.wait(20)
        return really_store(files)  # type: ignore[arg-type]

    monkeypatch.setattr(publishing, "_store", wait)
    answers: list[int] = []

    def first() -> None:
        try:
            answers.append(
                script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY}).status_code
            )
        finally:
            connection.close()

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(20)
    assert_refused(script.upload("adapters/", files, {"name": "m"}, **{"Idempotency-Key": KEY}), 409)
    go_on.set()
    thread.join()
    assert answers == [201]
