"""The lineage of an adapter, gathered and drawn: both ways, two generations, cut where there are very many."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from compose import candidates as fitting
from compose import lineage, naming, usefulness
from compose.models import Candidate, Composition
from registry import publishing
from registry.models import Adapter, Origin, User
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import make_adapter, make_base_model, make_revision, make_user, namespace_of

pytestmark = pytest.mark.django_db


def mix(name: str, parts: list[Adapter], owner: User, weights: list[float] | None = None) -> Adapter:
    """A published adapter that is composed of these, with weights 0.5, -0.4, 0.3 ... unless given."""
    base_model = parts[0].base_model
    composition = make_composition(owner=owner, base_model=base_model, modules=0,
                                   candidates=[part.head for part in parts], method="auto")  # fmt: skip
    finish(composition)
    given = weights or [(0.5 - 0.1 * number) * (-1) ** number for number in range(len(parts))]
    for candidate, weight in zip(Candidate.objects.filter(composition=composition), given, strict=True):
        Candidate.objects.filter(pk=candidate.pk).update(mixing_weight=weight)
    composed = make_adapter(name, namespace=namespace_of(owner), base_model=base_model, kind="composed")
    Composition.objects.filter(pk=composition.pk).update(adapter=composed)
    return composed


def names(nodes: list[lineage.Node]) -> list[str]:
    return [node.name for node in nodes]


def test_a_family_has_two_generations_each_way(ada):
    parts = make_modules(make_base_model(), 3, owner=ada)
    first = mix("first", parts, ada)
    second = mix("second", [first, parts[0]], ada)
    third = mix("third", [second, parts[1]], ada)
    of_first = lineage.family(first, ada)
    assert [names(column) for column in of_first.columns] == [
        ["part-0", "part-1", "part-2"], ["first"], ["second"], ["third"],
    ]  # fmt: skip
    of_third = lineage.family(third, ada)
    assert names(of_third.columns[0]) == ["first", "part-0"]
    assert [(edge.parent.name, edge.weight) for edge in of_third.relations if edge.child.name == "third"] == [
        ("second", 0.5), ("part-1", -0.4),
    ]  # fmt: skip
    assert all(edge.parent.x < edge.child.x for edge in of_third.lines)


def test_a_module_nobody_used_has_no_picture(ada):
    module = make_modules(make_base_model(), 1)[0]
    assert lineage.family(module, ada).is_alone
    assert "Lineage, drawn" not in Client().get(module.get_absolute_url()).content.decode()


def test_what_has_weight_zero_is_no_parent(ada):
    parts = make_modules(make_base_model(), 3, owner=ada)
    composed = mix("first", parts, ada, [0.5, 0.0, 0.1])
    assert names(lineage.family(composed, ada).columns[0]) == ["part-0", "part-2"]


def test_very_many_are_cut_with_how_many_more_and_a_way_to_the_list(ada):
    parts = make_modules(make_base_model(), 12, owner=ada)
    composed = mix("first", parts, ada, [1.0 - number / 20 for number in range(12)])
    found = lineage.family(composed, ada)
    assert names(found.columns[0]) == [*(f"part-{number}" for number in range(8)), "and 4 more"]
    more = found.columns[0][-1]
    assert more.url == f"{composed.get_absolute_url()}/lineage#parents"
    page = Client().get(more.url).content.decode()
    assert "Made of 12 modules" in page
    assert "part-11" in page
    for number in range(9):
        mix(f"child-{number}", [parts[0], parts[1]], ada)
    found = lineage.family(parts[0], ada)
    assert names(found.columns[1])[-1] == "and 2 more"
    assert "child-0" in Client().get(found.columns[1][-1].url).content.decode()


def test_children_one_may_not_see_are_not_drawn_and_hidden_parents_have_no_name(ada):
    parts = make_modules(make_base_model(), 2, owner=ada)
    composed = mix("first", parts, ada)
    Adapter.objects.filter(pk=parts[0].pk).update(visibility="private")
    page = Client().get(composed.get_absolute_url() + "/lineage").content.decode()
    assert "part-0" not in page
    assert naming.HIDDEN in page
    Adapter.objects.filter(pk=composed.pk).update(visibility="private")
    assert lineage.family(parts[1], None).is_alone
    assert not lineage.family(parts[1], ada).is_alone


def test_where_it_was_imported_from_is_drawn(ada):
    module = make_modules(make_base_model(), 1)[0]
    assert module.head is not None
    Origin.objects.create(
        revision=module.head, endpoint="https://hub.example", source="lorahub/one", commit="c" * 40
    )
    page = Client().get(module.get_absolute_url()).content.decode()
    assert 'href="https://hub.example/lorahub/one/tree/' in page
    assert "was imported as" in page


def test_the_pages_take_few_queries_at_any_size(ada):
    parts = make_modules(make_base_model(), 12, owner=ada)
    composed = mix("first", parts, ada)
    for number in range(4):
        mix(f"child-{number}", [composed, parts[0]], ada)
    for address in (composed.get_absolute_url(), f"{composed.get_absolute_url()}/lineage"):
        Client().get(address)
        with CaptureQueriesContext(connection) as queries:
            page = Client().get(address)
        assert page.status_code == 200
        assert len(queries) <= 20, "\n".join(q["sql"][:400] for q in queries)


def test_two_versions_of_one_adapter_shift_nobodys_parents(ada):
    parts = make_modules(make_base_model(), 4, owner=ada)
    first, second = mix("first", parts[:2], ada), mix("second", parts[2:], ada)
    made = mix("made", [first, parts[0], second], ada)
    newer = make_revision(first, tensor_sha256="b" * 64)
    candidates = Candidate.objects.filter(composition__adapter=made)
    candidates.filter(revision__adapter=parts[0]).update(revision=newer)
    found = lineage.family(made, ada)
    edges = {(edge.parent.name, edge.child.name) for edge in found.relations}
    assert edges == {
        ("first", "made"), ("second", "made"),
        ("part-0", "first"), ("part-1", "first"), ("part-2", "second"), ("part-3", "second"),
    }  # fmt: skip
    use = lineage.use_of(first, ada)
    assert (use.tried, use.count) == (1, 1)
    assert fitting.experience_with([first.pk], ada)[first.pk].offered == 1
    Composition.objects.update(owner=make_user())
    assert usefulness.usefulness()[first.pk].uses == 1


def test_what_a_hidden_parent_is_made_of_is_not_drawn(ada):
    parts = make_modules(make_base_model(), 3, owner=ada)
    first = mix("first", parts[:2], ada)
    made = mix("made", [first, parts[2]], ada)
    assert len(lineage.family(made, None).columns) == 3
    Adapter.objects.filter(pk=first.pk).update(visibility="private")
    made = Adapter.objects.get(pk=made.pk)
    found = lineage.family(made, None)
    assert [names(column) for column in found.columns] == [["not public", "part-2"], ["made"]]
    assert len(lineage.family(made, ada).columns) == 3


# --- By script ---------------------------------------------------------------------------------------------------


def test_a_script_is_told_both_ways_in_pages(ada):
    parts = make_modules(make_base_model(), 3, owner=ada)
    made = [mix(f"mix-{number}", parts, ada, [0.5, 0.0, -0.7]) for number in range(3)]
    of_mix = Client().get("/api/v1/adapters/ada/mix-0/lineage/").json()
    assert of_mix["composition"] == Composition.objects.get(adapter=made[0]).pk
    assert [(use["adapter"], use["mixing_weight"]) for use in of_mix["made_of"]] == [
        ("ada/part-2", -0.7), ("ada/part-0", 0.5),
    ]  # fmt: skip
    assert (of_mix["results"], of_mix["next"], of_mix["imported_from"]) == ([], None, None)
    first = Client().get("/api/v1/adapters/ada/part-0/lineage/?limit=2").json()
    rest = Client().get(first["next"]).json()
    assert [use["adapter"] for use in first["results"] + rest["results"]] == [
        "ada/mix-2",
        "ada/mix-1",
        "ada/mix-0",
    ]
    assert (first["composition"], first["made_of"], rest["next"]) == (None, [], None)
    assert Client().get("/api/v1/adapters/ada/part-1/lineage/").json()["results"] == []


def test_a_script_is_told_of_what_is_deleted_and_of_nothing_hidden(ada):
    parts = make_modules(make_base_model(), 3, owner=ada)
    mix("mine", parts, ada)
    publishing.withdraw(parts[0], actor=ada)
    Adapter.objects.filter(pk=parts[1].pk).update(visibility="private")
    uses = Client().get("/api/v1/adapters/ada/mine/lineage/").json()["made_of"]
    assert [(use["adapter"], use["deleted"]) for use in uses] == [
        ("ada/part-0", True), (None, False), ("ada/part-2", False),
    ]  # fmt: skip
    assert uses[1]["revision"] is None


def test_a_script_is_told_where_it_was_imported_from(ada):
    module = make_adapter("m", owner=ada)
    Origin.objects.create(
        revision=module.revisions.get(), endpoint="https://hub.example", source="x/y", commit="c" * 40
    )
    told = Client().get("/api/v1/adapters/ada/m/lineage/").json()["imported_from"]
    assert (told["source"], told["url"]) == ("x/y", f"https://hub.example/x/y/tree/{'c' * 40}")
