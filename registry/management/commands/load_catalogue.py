"""The catalogue of common base models into the database: `manage.py load_catalogue`. Harmless to repeat."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from registry.base_models import ensure_base_model
from registry.catalogue import entries


class Command(BaseCommand):
    help = "Make the base models of the catalogue known, and check the adapters that waited for one."

    def handle(self, **options: Any) -> None:
        changed = 0
        for entry in entries():
            _, is_changed = ensure_base_model(
                name=entry.name,
                architecture=entry.architecture,
                task_type=entry.task_type,
                matrices=entry.matrices,
                parameters=entry.parameters,
                config=entry.config,
                aliases=entry.aliases,
                license=entry.license,
            )
            changed += is_changed
        self.stdout.write(f"{len(entries())} base models, {changed} of them new or changed")
