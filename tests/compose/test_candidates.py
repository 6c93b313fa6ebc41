from __future__ import annotations

import pytest
from django.utils import timezone

from compose import candidates
from compose.errors import CandidateProblem
from registry import moving
from registry.models import Adapter, Ref, Revision
from tests.compose.factories import make_modules
from tests.factories import make_adapter, make_base_model, make_revision, make_user

pytestmark = pytest.mark.django_db


def facts(rank: int = 2, layers: int = 2) -> dict:
    names = [f"layer.{number}.q" for number in range(layers)]
    return {
        "ranks": [rank],
        "target_names": ["q"],
        "target_matrices": layers,
        "tensors": [{"name": f"{name}.lora_A", "dtype": "F32", "shape": [rank, 8]} for name in names],
    }


def full_names(chosen) -> list[str]:
    return [revision.adapter.full_name for revision, _ in chosen]


def problems(*names: str, base_model, method: str = "lorahub") -> list[str]:
    person = make_user()
    with pytest.raises(CandidateProblem) as refusal:
        candidates.check(candidates.pick(names, base_model, person), base_model, person, method=method)
    return refusal.value.problems


def test_twenty_are_drawn_by_the_seed_with_the_reason():
    base_model = make_base_model()
    make_modules(base_model, 26)
    person = make_user()
    chosen, note = candidates.choose(base_model, person, seed=3)
    assert len(chosen) == 20
    assert note == "20 of the 26 modules that fit demo/tiny-t5, drawn by seed 3."
    assert {reason for _, reason in chosen} == {"drawn by seed 3 from 26 that fit"}
    assert full_names(chosen) == full_names(candidates.choose(base_model, person, seed=3)[0])
    assert full_names(chosen) != full_names(candidates.choose(base_model, person, seed=4)[0])


def test_all_are_taken_when_they_are_few():
    base_model = make_base_model()
    modules = make_modules(base_model, 4)
    chosen, _ = candidates.choose(base_model, make_user(), seed=1)
    assert full_names(chosen) == [module.full_name for module in modules]


def test_many_are_picked_in_few_queries(django_assert_max_num_queries):
    base_model, person = make_base_model(), make_user()
    names = [module.full_name.upper() for module in make_modules(base_model, 20)]
    with django_assert_max_num_queries(2):
        picked = candidates.pick(names, base_model, person)
    assert [revision.adapter.full_name.upper() for revision in picked] == names


def test_only_what_fits_and_what_this_person_may_see_is_chosen():
    base_model, other = make_base_model(), make_base_model("demo/other")
    owner = make_user()
    make_modules(base_model, 2, owner=owner)
    make_adapter("elsewhere", base_model=other)
    make_adapter("odd", base_model=base_model, is_composable=False)
    make_adapter("hidden", base_model=base_model, visibility="private", owner=owner)
    make_adapter("held", base_model=base_model, quarantined_at=timezone.now(), owner=owner)
    make_adapter("gone", base_model=base_model, deleted_at=timezone.now())
    make_adapter("made-here", base_model=base_model, kind="composed")
    names = {name.split("/")[1] for name in full_names(candidates.choose(base_model, make_user(), seed=1)[0])}
    assert names == {"part-0", "part-1"}
    own = {name.split("/")[1] for name in full_names(candidates.choose(base_model, owner, seed=1)[0])}
    assert own == {"part-0", "part-1", "hidden"}


def test_the_same_weights_are_offered_once():
    base_model = make_base_model()
    make_modules(base_model, 3)
    Revision.objects.update(tensor_sha256="a" * 64)
    assert len(candidates.choose(base_model, make_user(), seed=1)[0]) == 1


def test_modules_of_another_shape_are_left_out_and_said():
    base_model = make_base_model()
    make_modules(base_model, 3, facts=facts(rank=2))
    make_modules(base_model, 1, facts=facts(rank=4))
    make_modules(base_model, 1, facts={**facts(rank=2, layers=3), "target_matrices": 2})
    chosen, note = candidates.choose(base_model, make_user(), seed=1)
    assert len(chosen) == 3
    assert note == (
        "All 3 modules that fit demo/tiny-t5. 2 more fit the base model but differ in rank or target matrices."
    )


def test_composed_adapters_and_copies_are_said_to_wait_for_being_picked():
    base_model = make_base_model()
    mine, *_ = make_modules(base_model, 3)
    for kind in ("composed", "module"):
        copy = make_adapter(base_model=base_model, kind=kind, is_composable=True)
        copy.head.tensor_sha256 = mine.head.tensor_sha256 = "a" * 64
        copy.head.save()
        mine.head.save()
    chosen, note = candidates.choose(base_model, make_user(), seed=1, method="auto")
    assert len(chosen) == 3
    assert note == (
        "All 3 modules that fit demo/tiny-t5. 2 more are composed adapters or copies, only taken if picked."
    )


def test_a_method_of_the_exact_mix_takes_every_shape_and_more_than_twenty():
    base_model = make_base_model()
    make_modules(base_model, 22, facts=facts(rank=2))
    make_modules(base_model, 3, facts=facts(rank=4))
    person = make_user()
    chosen, note = candidates.choose(base_model, person, seed=1, method="auto")
    assert len(chosen) == 25
    assert note == "All 25 modules that fit demo/tiny-t5."
    candidates.check([revision for revision, _ in chosen], base_model, person, method="auto")


def test_nothing_that_fits_is_said_with_what_to_do():
    with pytest.raises(CandidateProblem, match="Upload one, or choose another base model"):
        candidates.choose(make_base_model(), make_user(), seed=1)


def test_picked_names_may_carry_a_revision():
    base_model = make_base_model()
    adapter = make_adapter("one", base_model=base_model)
    old = adapter.head
    assert old
    make_revision(adapter)
    Ref.objects.create(adapter=adapter, kind="tag", name="v1", revision=old)
    person = make_user()
    name = adapter.full_name
    for wanted, expected in (
        ("", adapter.head),
        ("@main", adapter.head),
        ("@v1", old),
        (f"@{old.commit[:8]}", old),
    ):
        assert candidates.pick([name + wanted], base_model, person) == [expected]


def test_each_pick_that_cannot_be_used_gets_its_sentence():
    base_model = make_base_model()
    one = make_adapter("one", base_model=base_model)
    assert problems("no/where", "nonsense", f"{one.full_name}@abc", base_model=base_model) == [
        "There is no LoRA module 'no/where' here, or you may not see it.",
        "There is no LoRA module 'nonsense' here, or you may not see it.",
        f"{one.full_name} has no revision 'abc'.",
    ]


def test_a_private_module_of_somebody_else_is_as_if_it_were_not_there():
    base_model = make_base_model()
    hidden = make_adapter("hidden", base_model=base_model, visibility="private")
    [sentence] = problems(hidden.full_name, base_model=base_model)
    assert sentence == f"There is no LoRA module {hidden.full_name!r} here, or you may not see it."


def test_what_does_not_fit_or_compose_is_refused_with_the_reason():
    base_model = make_base_model()
    other = make_adapter("other", base_model=make_base_model("demo/other"))
    odd = make_adapter("odd", base_model=base_model, is_composable=False)
    Revision.objects.filter(adapter=odd).update(composable_reason="it uses DoRA.")
    assert problems(other.full_name, odd.full_name, base_model=base_model) == [
        f"{other.full_name} was made for demo/other, not for demo/tiny-t5.",
        f"{odd.full_name} cannot be composed: it uses DoRA.",
    ]


def test_duplicates_and_unequal_shapes_are_refused():
    base_model = make_base_model()
    one = make_adapter("one", base_model=base_model, facts=facts(2))
    two = make_adapter("two", base_model=base_model, facts=facts(4))
    assert problems(one.full_name, one.full_name, base_model=base_model) == [
        f"{one.full_name} is picked twice."
    ]
    assert problems(one.full_name, two.full_name, base_model=base_model) == [
        f"{two.full_name} differs from {one.full_name} in rank or target matrices; the method lorahub mixes equal "
        "ones only."
    ]
    Revision.objects.update(tensor_sha256="a" * 64)
    assert problems(one.full_name, two.full_name, base_model=base_model) == [
        f"{two.full_name} and {one.full_name} have the same weights; pick one of them."
    ]


def test_choosing_among_many_takes_few_queries(django_assert_max_num_queries):
    base_model = make_base_model()
    make_modules(base_model, 30)
    person = make_user()
    assert Adapter.objects.count() == 30
    with django_assert_max_num_queries(3):
        candidates.choose(base_model, person, seed=1)


def test_pinned_ones_come_first_and_others_fill_up_to_the_limit():
    base_model = make_base_model()
    make_modules(base_model, 26)
    person = make_user()
    names = [module.full_name for module in Adapter.objects.filter(name__in=["part-3", "part-20"])]
    chosen, note = candidates.choose(base_model, person, seed=1, pinned=names)
    assert full_names(chosen)[:2] == names
    assert len(set(full_names(chosen))) == len(chosen) == 20
    assert [reason for _, reason in chosen][:3] == [
        "pinned",
        "pinned",
        "drawn by seed 1 from 24 that fit",
    ]
    assert note == "2 pinned and 18 more that fit."


@pytest.mark.parametrize("method", ["auto", "lorahub"])
def test_beside_a_version_that_is_pinned_its_modules_newest_one_is_not_drawn(method: str):
    base_model = make_base_model()
    adapter, other = (make_adapter(name, base_model=base_model) for name in ("one", "two"))
    old = adapter.head
    assert old
    make_revision(adapter)
    chosen, note = candidates.choose(
        base_model, make_user(), 1, method=method, pinned=[f"{adapter.full_name}@{old.commit[:8]}"]
    )
    assert [revision for revision, _ in chosen] == [old, other.head]
    assert note == "1 pinned and 1 more that fit."


def test_with_lorahub_the_others_have_the_shape_of_the_pinned_one():
    base_model = make_base_model()
    owner = make_user()
    make_modules(base_model, 3, owner=owner, facts=facts(rank=2))
    pinned = make_adapter("wide", owner=owner, base_model=base_model, facts=facts(rank=4))
    alike = make_adapter("wide-too", owner=owner, base_model=base_model, facts=facts(rank=4))
    chosen, note = candidates.choose(base_model, make_user(), seed=1, pinned=[pinned.full_name])
    assert full_names(chosen) == [pinned.full_name, alike.full_name]
    assert note == (
        "1 pinned and 1 more that fit. 3 more fit the base model but differ in rank or target matrices."
    )
    chosen, note = candidates.choose(
        base_model, make_user(), seed=1, method="auto", pinned=[pinned.full_name]
    )
    assert len(chosen) == 5


def test_excluded_ones_are_left_and_said():
    base_model = make_base_model()
    first, *others = make_modules(base_model, 4)
    chosen, note = candidates.choose(base_model, make_user(), seed=1, excluded=[first.full_name])
    assert full_names(chosen) == [module.full_name for module in others]
    assert note == "All 3 modules that fit demo/tiny-t5. 1 left out by hand."


def test_names_that_are_not_there_or_in_both_lists_are_refused():
    base_model = make_base_model()
    module, other = make_modules(base_model, 2)
    person = make_user()
    with pytest.raises(CandidateProblem, match="is pinned and left out at once"):
        candidates.choose(base_model, person, 1, pinned=[module.full_name], excluded=[module.full_name])
    with pytest.raises(CandidateProblem, match="There is no LoRA module 'no/body'"):
        candidates.choose(base_model, person, 1, excluded=["no/body"])
    with pytest.raises(CandidateProblem, match="You left out every LoRA module"):
        candidates.choose(base_model, person, 1, excluded=[module.full_name, other.full_name])


def test_by_its_old_name_a_module_is_found_by_those_who_may_see_it():
    base_model, owner = make_base_model(), make_user("ann")
    module, other = make_modules(base_model, 2, owner=owner)
    old = module.full_name
    moving.move(module, actor=owner, namespace=module.namespace, name="renamed")
    person = make_user()
    [found] = candidates.pick([f"{old.upper()}@main"], base_model, person)
    assert found.adapter.full_name == "ann/renamed"
    chosen, _ = candidates.choose(base_model, person, 1, excluded=[old])
    assert full_names(chosen) == [other.full_name]
    Adapter.objects.filter(pk=module.pk).update(visibility="private")
    with pytest.raises(CandidateProblem, match=f"There is no LoRA module '{old}'"):
        candidates.pick([old], base_model, person)


def test_very_many_names_are_refused_before_any_is_looked_up(django_assert_num_queries):
    base_model, person = make_base_model(), make_user()
    with (
        django_assert_num_queries(0),
        pytest.raises(CandidateProblem, match="You picked 1,000 modules; at most 200"),
    ):
        candidates.pick(["no/body"] * 1_000, base_model, person)
