"""Recipes: what they hold and what is refused."""

from __future__ import annotations

import json

import pytest

from compose import recipes
from compose.errors import RecipeProblem
from tests.compose.factories import finish, make_composition


def without(recipe: dict, *path: str) -> dict:
    copy = json.loads(json.dumps(recipe))
    place = copy
    for name in path[:-1]:
        place = place[int(name)] if isinstance(place, list) else place[name]
    del place[path[-1]]
    return copy


@pytest.mark.django_db
def test_a_recipe_names_everything_and_its_numbers_survive_json():
    composition = finish(make_composition())
    recipe = recipes.recipe(composition)
    assert recipes.read(recipes.as_text(recipe)) == recipe
    assert recipe["base_model"]["name"] == "demo/tiny-t5"
    assert [module["mixing_weight"] for module in recipe["modules"]] == [
        c.mixing_weight for c in composition.candidates.all()
    ]
    assert all(len(module["files"]["adapter_model.safetensors"]) == 64 for module in recipe["modules"])
    assert composition.weights_blob
    assert recipe["output"]["adapter_model.safetensors"] == composition.weights_blob.sha256
    assert "question" not in recipes.as_text(recipe)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda recipe: "{", "The recipe is not JSON"),
        (lambda recipe: "[" * 100_000, "The recipe is not JSON"),
        (lambda recipe: "[1]", "This is not a recipe"),
        (lambda recipe: recipe | {"format_version": 9}, "has the format version 9; this program reads 1"),
        (lambda recipe: without(recipe, "base_model", "commit"), "“base_model” needs “name” and “commit”"),
        (lambda recipe: recipe | {"mix": "cat"}, "“mix” is “paper” or “exact”"),
        (lambda recipe: recipe | {"modules": []}, "it names no modules"),
        (lambda recipe: recipe | {"export": {"rank": "two"}}, "“export” has a whole number as “rank”"),
        (lambda recipe: recipe | {"export": {"dtype": "int8"}}, "“export” has a whole number as “rank”"),
        (lambda recipe: recipe | {"export": 3}, "“export” has a whole number as “rank”"),
        (lambda recipe: without(recipe, "modules", "0", "mixing_weight"), "module 1 needs a number"),
        (
            lambda recipe: recipe | {"modules": [recipe["modules"][0] | {"mixing_weight": 10**400}]},
            "module 1 needs a number",
        ),
        (lambda recipe: without(recipe, "output", "adapter_config.json"), "“output” needs the sha256"),
    ],
)
def test_a_recipe_that_cannot_be_followed_says_why(change, sentence):
    changed = change(recipes.recipe(finish(make_composition())))
    with pytest.raises(RecipeProblem) as refusal:
        recipes.read(changed if isinstance(changed, str) else json.dumps(changed))
    assert sentence in refusal.value.message
