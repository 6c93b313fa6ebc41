from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig

if TYPE_CHECKING:
    from registry.models import Adapter, Namespace


class ComposeConfig(AppConfig):
    name = "compose"

    def ready(self) -> None:
        from registry import publishing

        publishing.BEFORE_SHOWN.append(_require_nameable_parents)


def _require_nameable_parents(adapter: Adapter, namespace: Namespace, visibility: str) -> None:
    from compose.publishing import require_nameable_parents  # not at the top: models are not loaded yet

    require_nameable_parents(adapter, namespace, visibility)
