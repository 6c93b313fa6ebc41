"""What an owner says about the training of a module: kept, shown, in the snippet, and from the card."""

from __future__ import annotations

import importlib

import pytest
from django.apps import apps
from django.test import Client

from registry import details, preparing, publishing, snippets
from registry.models import Adapter, User
from tests.factories import make_adapter, make_token, namespace_of

pytestmark = pytest.mark.django_db
SAID = {
    "dataset": "stories-v2",
    "dataset_revision": "3f2a91c",
    "training": "3 epochs, 2,000 rows",
    "leakage": "The base read these stories, not the questions.",
    "prompt_template": 'Read "this": {input}\nAnswer:',
}


@pytest.fixture
def module(ada: User) -> Adapter:
    return make_adapter("colours", namespace=namespace_of(ada))


def test_what_it_was_trained_on_is_kept_by_the_api_and_shown_on_the_page(ada, module):
    headers = {"Authorization": f"Bearer {make_token(ada)}"}
    client = Client()
    address = f"/api/v1/adapters/{module.full_name}/"
    assert client.patch(address, SAID, "application/json", headers=headers).status_code == 200
    found = client.get(address).json()
    assert {name: found[name] for name in SAID} == SAID
    page = client.get(module.get_absolute_url()).content.decode()
    for words in ("stories-v2", "3f2a91c", "3 epochs, 2,000 rows", "not the questions"):
        assert words in page


def test_the_form_keeps_it_too(ada, module):
    client = Client()
    client.force_login(ada)
    address = f"{module.get_absolute_url()}/settings"
    assert "Revision of the data" in client.get(address).content.decode()
    given = {"visibility": "public", "base_model": "", "tags": "", "license": "", **SAID}
    assert client.post(address, given).status_code == 302
    module.refresh_from_db()
    assert module.leakage == SAID["leakage"]
    assert module.prompt_template.replace("\r\n", "\n") == SAID["prompt_template"]


def test_the_prompt_stands_in_the_snippet_and_runs_whatever_it_holds(ada, module):
    module = publishing.update_adapter(module, actor=ada, prompt_template='{"a": \'{input}\'} \\ "é"\n')
    assert module.head is not None
    for way in snippets.snippets_for(module, module.head, site="http://here")[:2]:
        line = next(line for line in way.text.splitlines() if line.startswith("prompt = "))
        made: dict[str, str] = {}
        exec(line, made)
        assert made["prompt"] == '{"a": \'your text\'} \\ "é"'


def test_a_prompt_template_without_a_place_for_the_text_is_refused(ada, module):
    with pytest.raises(details.BadDetail, match="has to hold"):
        publishing.update_adapter(module, actor=ada, prompt_template="Answer:")


@pytest.mark.parametrize("name", ["dataset", "dataset_revision", "training", "leakage", "prompt_template"])
def test_texts_that_are_too_long_are_refused_by_name(ada, module, name):
    with pytest.raises(details.BadDetail, match="characters"):
        publishing.update_adapter(module, actor=ada, **{name: "{input}" + "x" * 1000})


def test_a_card_fills_what_nobody_said():
    said = preparing.said_by_card({"datasets": ["squad", "boolq"], "prompt_template": "Q: {input}"})
    assert (said["dataset"], said["prompt_template"]) == ("squad, boolq", "Q: {input}")
    assert preparing.said_by_card({"prompt_template": "no place"})["prompt_template"] == ""


def test_how_many_parameters_it_has_stands_in_the_list():
    adapter = make_adapter("big", facts={"rank": 8, "parameters": 36_864})
    migration = importlib.import_module("registry.migrations.0011_parameters_of_every_adapter")
    migration.write_parameters(apps, None)
    adapter.refresh_from_db()
    assert adapter.parameters == 36_864
    assert "37k params" in Client().get("/modules").content.decode()
