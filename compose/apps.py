from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig

if TYPE_CHECKING:
    from registry.models import Adapter


class ComposeConfig(AppConfig):
    name = "compose"

    def ready(self) -> None:
        from registry import publishing

        publishing.BEFORE_PUBLIC.append(_require_public_parents)


def _require_public_parents(adapter: Adapter) -> None:
    from compose.publishing import require_public_parents  # not at the top: models are not loaded yet

    require_public_parents(adapter)
