"""Reports to the moderators by script: those of the page, with an account."""

from __future__ import annotations

from typing import Any

import pytest

from registry import moderation, moving
from registry.models import Adapter, Report, User
from tests.factories import make_adapter, make_task, make_token, make_user, namespace_of
from tests.registry.test_api import Script, assert_refused

pytestmark = pytest.mark.django_db


@pytest.fixture
def eve() -> User:
    return make_user("eve")


@pytest.fixture
def script(eve: User) -> Script:
    return Script(make_token(eve))


@pytest.fixture
def module() -> Adapter:
    return make_adapter("m", owner=make_user("ada"))


def report(script: Script, path: str = "adapters/ada/m", **said: Any) -> Any:
    return script.send("POST", f"{path}/report/", {"reason": "malicious", **said})


def test_a_module_and_a_task_are_reported_and_wait_for_a_moderator(
    script: Script, module: Adapter, eve: User
):
    task = make_task("odd", rows=2, test_rows=2, is_held_out=True)
    assert report(script, text="It opens\na shell").status_code == 204
    assert report(script, "tasks/odd", reason="private_data").status_code == 204
    [of_task, of_module] = Report.objects.all()
    assert (of_module.adapter, of_module.text, of_module.reporter) == (module, "It opens a shell", eve)
    assert (of_task.task, of_task.reason, of_task.outcome) == (task, "private_data", "")
    assert list(moderation.queue()) == [module]
    assert_refused(report(script), 409)


def test_what_is_no_report_is_refused_by_field(script: Script, module: Adapter):
    for said, field in (
        ({"reason": "king"}, "reason"),
        ({"reason": None}, "reason"),
        ({"reason": "other"}, "text"),
        ({"text": "x" * 2001}, "text"),
        ({"outcome": "quarantined"}, "outcome"),
    ):
        assert_refused(report(script, **said), 400, field)
    assert not Report.objects.exists()


def test_who_does_not_see_it_or_is_nobody_reports_nothing(script: Script, module: Adapter, eve: User):
    assert_refused(report(Script()), 401)
    assert_refused(report(Script(make_token(eve, "read"))), 403)
    assert_refused(report(Script(make_token(eve, namespace=namespace_of(eve)))), 403)
    Adapter.objects.update(visibility="private")
    absent = report(script, "adapters/ada/absent")
    assert assert_refused(report(script), 404)["message"] == absent.json()["message"].replace("absent", "m")
    make_task("hidden", rows=2, test_rows=2, is_held_out=True, is_private=True, owner=module.namespace)
    assert_refused(report(script, "tasks/hidden"), 404)
    assert not Report.objects.exists()


def test_the_limits_of_the_page_hold(script: Script, module: Adapter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moderation, "MAX_REPORTS_PER_PERSON", 1)
    make_adapter("n", namespace=module.namespace)
    assert report(script).status_code == 204
    assert_refused(report(script, "adapters/ada/n"), 429)


def test_by_its_old_name_a_module_is_led_to(script: Script, module: Adapter):
    moving.move(module, actor=User.objects.get(username="ada"), namespace=module.namespace, name="new")
    answer = report(script)
    assert (answer.status_code, answer["Location"]) == (307, "/api/v1/adapters/ada/new/report/")
