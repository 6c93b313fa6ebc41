from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate


class RegistryConfig(AppConfig):
    name = "registry"

    def ready(self) -> None:
        # The one pair of signals: Django offers no other hook around migrations, and what is hung on tables has to be
        # off while they change and on again after.
        pre_migrate.connect(_before_migrations, sender=self)
        post_migrate.connect(_after_migrations, sender=self)


def _before_migrations(using: str, plan: list[Any] | None = None, **_: Any) -> None:
    from registry.search import upkeep

    if plan:
        upkeep.step_aside(using)


def _after_migrations(using: str, plan: list[Any] | None = None, **_: Any) -> None:
    from registry.search import upkeep

    upkeep.set_up(using, is_changed=bool(plan))
