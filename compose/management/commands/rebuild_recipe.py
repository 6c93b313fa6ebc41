"""A composed adapter again, from its recipe."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from compose import recipes
from web.errors import DomainError


class Command(BaseCommand):
    help = "Make a composed adapter again from its recipe.json, byte for byte, out of the revisions of this site."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("recipe", type=Path, help="The recipe.json of a composed adapter.")
        parser.add_argument(
            "out", type=Path, help="Folder for adapter_config.json and adapter_model.safetensors."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            text = options["recipe"].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{options['recipe']} cannot be read: {error}") from error
        try:
            recipes.rebuild(recipes.read(text), options["out"])
        except DomainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{options['out']} holds the adapter, equal to the recipe's in every byte.")
