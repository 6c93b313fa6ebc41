"""Base models by their name on the hub that workers fetch them from: their config.json is read there, nothing is kept of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from django.conf import settings

from registry.base_models import TOKENIZER_FILES, BaseModelKnown, add_base_model, check_base_model_name
from registry.details import BadDetail
from registry.models import BaseModel
from registry.other_hubs import HubSilent, NotOpen, OtherHub
from registry.patience import Patience
from web.errors import DomainError

USUAL_HUB = "https://huggingface.co"  # where workers go without HUB_ENDPOINT
CONFIG = "config.json"
WEIGHTS = "model*.safetensors"
AT_ONCE = Patience(head_s=10, body_s=10, all_s=20)  # somebody waits


class HubAway(DomainError):
    code = "hub_away"
    status = 502
    retry_after_s = 60

    def __init__(self, hub: str) -> None:
        super().__init__(
            f"{hub} does not answer, or not in time. Try again in some minutes, or give the config.json of the model."
        )


def hub_of_bases() -> str:
    """The hub that is asked; "" where it is none of those that this site reads from (IMPORT_ENDPOINTS)."""
    hub = (settings.HUB_ENDPOINT or USUAL_HUB).rstrip("/")
    return hub if hub in settings.IMPORT_ENDPOINTS else ""


def add_from_hub(*, name: str, aliases: Sequence[str] = (), license: str = "") -> BaseModel:
    """A base model by its name there, under the one that it has there now; it has to be one that workers can fetch.

    Raises BadDetail, HubAway, ImportFailed, and what `add_base_model` does.
    """
    name = check_base_model_name(name)
    if known := BaseModel.objects.named(name):
        raise BaseModelKnown(name, known)
    hub = hub_of_bases()
    if not hub:
        raise BadDetail("config", "Give the config.json of the base model: its hub is not asked from here.")
    called, config = _look_up(hub, name)
    if called.lower() != name.lower():
        aliases = [name, *aliases]
    return add_base_model(name=called, config=config, aliases=aliases, license=license)


def _look_up(hub: str, name: str) -> tuple[str, Any]:
    """(what it is called there, what its config.json holds)."""

    def not_now(seconds: float) -> NoReturn:
        raise HubAway(hub)

    try:
        with OtherHub(hub, sleep=not_now, patience=AT_ONCE) as there:
            try:
                called, commit = there.commit_of(name)
                _require_loadable(called, hub, {file.path for file in there.files_of(called, commit)})
            except NotOpen as error:
                raise BadDetail(
                    "name",
                    f"{hub} has no model {name} that everybody may see. Check the name, or give its config.json.",
                ) from error
            try:
                return called, there.json_of(called, commit, CONFIG)
            except NotOpen as error:
                raise BadDetail(
                    "name",
                    f"{called} is gated at {hub}, so workers cannot fetch it. With its config.json, given here, modules are "
                    "checked against it; to compose, ask the people who run this site to host it.",
                ) from error
    except HubSilent as error:
        raise HubAway(hub) from error


def _require_loadable(name: str, hub: str, there: set[str]) -> None:
    """Raises BadDetail for what is no language model that workers load."""
    if CONFIG not in there:
        raise BadDetail("name", f"{name} at {hub} has no {CONFIG}: it is no model of transformers.")
    if not there & TOKENIZER_FILES:
        raise BadDetail(
            "name", f"{name} at {hub} has no tokenizer: it reads no text, or not without code of its own."
        )
    if not any(fnmatchcase(path, WEIGHTS) for path in there):
        raise BadDetail(
            "name",
            f"{name} at {hub} has no weights in safetensors, and workers load no others. With its {CONFIG}, given here, "
            "modules are checked against it.",
        )
