"""How often an answer asks the database: a few times at every address, however much there is."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext

from registry.models import Adapter, Follow, Like, Membership, User
from tests.compose.factories import finish, make_composition
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_revision,
    make_task,
    make_token,
    make_user,
)
from tests.test_rights_matrix import ROUTES, World, ask, quiet, world

__all__ = ["quiet", "world"]  # fixtures

MOST = 15
MORE = 25
# Django's and allauth's own pages, which we do not write; and what answers with everything there is, by its nature.
NOT_OURS = ("accounts/", "admin/")
# One question for each kind of thing that a person has, and all of it in the answer.
ALL_THERE_IS = {"/settings/data.json": 30}


def grow(world: World, numbers: range) -> None:
    """More of everything that some page or list shows: adapters, versions, files, people, jobs, tasks."""
    lab, base_model = world.adapter.namespace, world.adapter.base_model
    will = User.objects.get(username="will")
    task = make_task(f"busy-{numbers.start}", rows=2, test_rows=2, is_held_out=True)
    for number in numbers:
        person = make_user(f"person-{number}")
        Membership.objects.create(namespace=lab, user=person, role="read")
        Membership.objects.create(namespace=make_organisation(f"group-{number}"), user=will, role="admin")
        adapter = make_adapter(f"more-{number}", namespace=lab, base_model=base_model, task=task)
        make_revision(world.adapter, files={f"extra-{place}.txt": b"x" for place in range(number)})
        Like.objects.create(adapter=adapter, user=will)
        Follow.objects.create(adapter=adapter, user=will)
        make_token(will, name=f"more-{number}")
        make_base_model(f"maker/base-{number}")
        make_task(f"more-{number}", rows=1, test_rows=1, is_held_out=number % 2 == 0)
    Adapter.objects.filter(name__startswith="more-").update(created_by=will)
    for _ in numbers:
        finish(make_composition(owner=will, task=task))


def counted(world: World) -> dict[str, int]:
    """Address -> queries of a GET by will, who writes; savepoints of the trial itself apart."""
    browser = next(visitor for visitor in world.visitors if visitor.name == "writer")
    script = next(visitor for visitor in world.visitors if visitor.token == "write")
    counts = {}
    for name, route in ROUTES.items():
        if "GET" not in route.needs or name.startswith(NOT_OURS):
            continue
        url = route.url.replace("COMMIT", world.commit).replace("JOB", world.job)
        visitor = script if route.door in {"hub", "api"} else browser
        with CaptureQueriesContext(
            connection,
        ) as queries:
            ask(visitor, route, "GET", url)
        counts[url] = sum(1 for query in queries if "SAVEPOINT" not in query["sql"])
    return counts


def test_no_address_asks_more_often_than_it_may_and_none_asks_more_where_there_is_more(world: World):
    grow(world, range(2))
    before = counted(world)
    grow(world, range(2, MORE))
    after = counted(world)
    assert len(after) > 80
    too_many = {url: count for url, count in after.items() if count > ALL_THERE_IS.get(url, MOST)}
    growing = {url: (before[url], after[url]) for url in after if after[url] > before[url]}
    assert (too_many, growing) == ({}, {})
