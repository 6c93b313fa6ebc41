"""Base models by their name on the hub that workers fetch them from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from registry import bases_on_hub, shapes
from registry.models import BaseModel
from registry.patience import Patience
from tests.factories import DEMO, host_demo_base, make_base_model, make_token, make_user
from tests.fake_hub import Answer, FakeHub, as_json, fake_hub

pytestmark = pytest.mark.django_db
CONFIG = {"model_type": "t5", "d_model": 8}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b"{}",
    "model-00001-of-00001.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
}


@pytest.fixture
def hub(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Where workers fetch base models; sizes are worked out of nothing."""
    found = shapes.BaseShapes("T5ForConditionalGeneration", "SEQ_2_SEQ_LM", {"q": (8, 8)}, parameters=64)
    monkeypatch.setattr(shapes, "compute_shapes", lambda config: found)
    with fake_hub(repositories={"lab/tiny": FILES}) as hub:
        settings.HUB_ENDPOINT = hub.address
        settings.IMPORT_ENDPOINTS = ["https://elsewhere.example", hub.address]
        yield hub


def add(name: str = "lab/tiny", **more: Any) -> Any:
    headers = {"Authorization": f"Bearer {make_token(make_user())}"}
    return Client().post("/api/v1/base-models/", {"name": name, **more}, "application/json", headers=headers)


def test_the_name_is_enough_and_nothing_but_the_config_is_fetched(hub: FakeHub):
    answer = add(aliases=["tiny"], license="mit")
    assert answer.status_code == 201
    assert answer.json()["name"] == "lab/tiny"
    base = BaseModel.objects.named("tiny")
    assert base is not None
    assert (base.name, base.kind, base.license, base.config) == ("lab/tiny", "referenced", "mit", CONFIG)
    assert [path.rpartition("/")[2] for path, _ in hub.requests if "/resolve/" in path] == ["config.json"]
    assert not any("authorization" in headers for _, headers in hub.requests)


def test_the_page_says_where_the_config_is_read_and_adds_by_the_name(hub: FakeHub):
    client = Client()
    client.force_login(make_user())
    page = client.get("/base-models/new?name=lab%2Ftiny").content.decode()
    assert f"Left empty, it is read at {hub.address.partition('://')[2]}" in page
    answer = client.post("/base-models/new", {"name": "lab/tiny"})
    assert answer["Location"] == "/base-models/lab/tiny"
    refused = client.post("/base-models/new", {"name": "lab/none"})
    assert refused.status_code == 400
    assert "has no model lab/none that everybody may see" in refused.content.decode()


def test_what_was_renamed_there_is_known_by_both_names(hub: FakeHub):
    commit = hub.commit("lab/tiny")
    hub.before = lambda path, headers: (
        as_json({"id": "lab/tiny", "sha": commit}) if path.startswith("/api/models/tiny/") else None
    )
    assert add("tiny").json()["name"] == "lab/tiny"
    assert BaseModel.objects.named("tiny") == BaseModel.objects.get()


def without(path: str) -> dict[str, bytes]:
    return {name: content for name, content in FILES.items() if name != path}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (without("config.json"), "has no config.json: it is no model of transformers."),
        (without("tokenizer.json"), "has no tokenizer: it reads no text, or not without code of its own."),
        (
            without("model-00001-of-00001.safetensors"),
            "has no weights in safetensors, and workers load no others.",
        ),
        ({**FILES, "config.json": b"[]"}, "config.json"),
        ({**FILES, "config.json": b"no json"}, "cannot be read."),
        ({**FILES, "config.json": b'{"peft_type": "LORA"}'}, "This is the config of an adapter."),
    ],
)
def test_what_workers_could_not_load_is_refused_with_what_it_lacks(
    hub: FakeHub, files: dict[str, bytes], sentence: str
):
    hub.repositories["lab/tiny"] = files
    answer = add()
    assert answer.status_code in {400, 422}
    assert sentence in answer.json()["message"]
    assert not BaseModel.objects.exists()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_not_there_or_private_is_told_as_that(hub: FakeHub, status: int):
    hub.before = lambda path, headers: (status, {}, b"") if path.startswith("/api/models/lab/") else None
    answer = add()
    assert answer.status_code == 400
    [sentence] = answer.json()["fields"]["name"]
    assert sentence == (
        f"{hub.address} has no model lab/tiny that everybody may see. Check the name, or give its config.json."
    )


def test_what_is_gated_there_is_told_as_that(hub: FakeHub):
    hub.before = lambda path, headers: (
        (403, {"X-Error-Code": "GatedRepo"}, b"") if "/resolve/" in path else None
    )
    assert "lab/tiny is gated at" in add().json()["fields"]["name"][0]
    assert not BaseModel.objects.exists()


@pytest.mark.parametrize("answer", [(503, {"Retry-After": "60"}, b""), (429, {}, b""), None])
def test_a_hub_that_does_not_answer_is_asked_once_and_nobody_waits(
    hub: FakeHub, answer: Answer | None, settings: Any
):
    hub.before = lambda path, headers: answer
    if answer is None:
        settings.HUB_ENDPOINT = settings.IMPORT_ENDPOINTS[0] = "http://127.0.0.1:9"
    told = add()
    assert (told.status_code, told.json()["code"], told["Retry-After"]) == (502, "hub_away", "60")
    assert "or give the config.json of the model" in told.json()["message"]
    assert len(hub.requests) == (0 if answer is None else 1)


def test_a_hub_that_answers_each_time_and_takes_too_long_in_all_is_given_up(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bases_on_hub, "AT_ONCE", Patience(all_s=0.3))

    def slowly(path: str, headers: Any) -> None:
        time.sleep(0.2)

    hub.before = slowly
    assert add().json()["code"] == "hub_away"
    assert not BaseModel.objects.exists()


def test_a_hub_that_is_not_listed_is_never_asked(hub: FakeHub, settings: Any):
    settings.IMPORT_ENDPOINTS = ["https://elsewhere.example"]
    answer = add()
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["config"])
    assert hub.requests == []


def test_one_that_is_known_here_is_not_asked_for(hub: FakeHub):
    make_base_model("lab/tiny")
    assert add().status_code == 409
    assert hub.requests == []


@pytest.mark.django_db(transaction=True)
def test_our_own_hub_protocol_tells_what_is_needed(live_server: Any):
    base = host_demo_base("demo/story-t5")
    called, config = bases_on_hub._look_up(live_server.url, "Demo/Story-T5")
    assert (called, config) == (base.name, json.loads((DEMO / "story-t5" / "config.json").read_text()))
