"""A further base model from its config.json: `manage.py add_base_model google/t5-v1_1-small config.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry.base_models import add_base_model, recheck
from web.errors import DomainError


class Command(BaseCommand):
    help = "Make a base model known by its config.json, and check the adapters that waited for it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="its id on the hub, such as google/flan-t5-large")
        parser.add_argument("config", type=Path, help="its config.json")
        parser.add_argument(
            "--alias", action="append", default=[], help="another name that adapters use for it"
        )
        parser.add_argument("--license", default="")

    def handle(self, *, name: str, config: Path, alias: list[str], license: str, **options: Any) -> None:
        try:
            base_model = add_base_model(name=name, config=config.read_bytes(), aliases=alias, license=license)
        except (DomainError, OSError) as error:
            raise CommandError(str(error)) from error
        recheck(base_model)
        self.stdout.write(
            f"{base_model.name}: {base_model.architecture}, {base_model.parameters:,} parameters, "
            f"{base_model.adapters.count()} adapters here"
        )
