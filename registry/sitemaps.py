"""What crawlers are told there is: the pages that everybody may see, a thousand to a file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.contrib.sitemaps import Sitemap
from django.db.models import Max, QuerySet
from django.urls import reverse

from registry import search
from registry.models import Adapter, BaseModel, Namespace, Task

EACH = 1000


class Pages(Sitemap):
    """The ways in."""

    def items(self) -> list[str]:
        return ["home", "modules", "tasks", "base_models", "status", "docs"]

    def location(self, item: str) -> str:
        return reverse(item)


class PublicModules:
    """All of them, for a paginator: counted and cut into pages in memory, where the database would walk through all before one."""

    def __init__(self) -> None:
        self.ids = search.ids_everybody_sees()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Adapter]:
        return iter(self[:])

    def __getitem__(self, part: slice) -> QuerySet[Adapter]:
        shown = Adapter.objects.visible_to(None).filter(pk__in=self.ids[part].tolist())
        return shown.select_related("namespace").only("name", "updated_at", "namespace__name").order_by("pk")


class Modules(Sitemap):
    limit = EACH

    def items(self) -> PublicModules:
        return PublicModules()

    def lastmod(self, item: Adapter) -> datetime:
        return item.updated_at

    def get_latest_lastmod(self) -> datetime | None:
        """Asked, where Django's own reads every module."""
        newest: datetime | None = Adapter.objects.visible_to(None).aggregate(newest=Max("updated_at"))[
            "newest"
        ]
        return newest


class Tasks(Sitemap):
    limit = EACH

    def items(self) -> QuerySet[Task]:
        return search.tasks_shown_to(None).only("slug").order_by("pk")


class BaseModels(Sitemap):
    limit = EACH

    def items(self) -> QuerySet[BaseModel]:
        return BaseModel.objects.only("name").order_by("pk")


class People(Sitemap):
    """Whoever has something that everybody may see; what others call themselves is nobody's business."""

    limit = EACH

    def items(self) -> QuerySet[Namespace]:
        with_modules = Adapter.objects.visible_to(None).values("namespace")
        return Namespace.objects.filter(deleted_at=None, pk__in=with_modules).only("name").order_by("pk")


SITEMAPS: dict[str, type[Sitemap]] = {
    "pages": Pages,
    "modules": Modules,
    "tasks": Tasks,
    "base-models": BaseModels,
    "people": People,
}
