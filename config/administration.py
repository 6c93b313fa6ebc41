"""The administration: Django's own, ordered by what people come for and in the site's colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

# Subjects in the order of the first page, with the tables of each.
SUBJECTS = {
    "Moderation": ("Report", "Adapter", "AuditEntry"),
    "People": (
        "User", "Namespace", "Token", "EmailAddress", "Authenticator", "UserSession", "SocialAccount", "Group",
    ),
    "Catalogue": ("BaseModel", "Task", "TaskRow", "Revision", "Origin", "FormerName"),
    "Jobs and messages": ("Composition", "ImportJob", "ImportItem", "PushJob", "Webhook", "Delivery"),
    "What people do": ("Download", "Like", "Follow", "SavedSearch", "NewsMail"),
    "What the site keeps for itself": (
        "Blob", "SentBlob", "IdempotentAnswer", "AdapterScore", "AdapterText", "SearchRow", "SearchClock",
        "TaskRevision", "WeightStatistics",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Waiting:
    """A number on the first page that somebody may want to act on, and where."""

    count: int
    things: str  # one and many
    which: str
    address: str


class AdministrationConfig(AdminConfig):
    default_site = "config.administration.Administration"


class Administration(admin.AdminSite):
    """Signs in as everywhere on the site, so that limits and second factors hold here too."""

    site_header = "LoRA Commons"
    site_title = "LoRA Commons"
    index_title = "Administration"
    # The first page has all of it; beside a list it takes the room of the columns.
    enable_nav_sidebar = False

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        from allauth.account.decorators import secure_admin_login

        answer: HttpResponse = secure_admin_login(super().login)(request, extra_context)
        return answer

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Tables by subject instead of by the Python package they are written in; a package's own page is Django's."""
        by_package = super().get_app_list(request, app_label)
        if app_label is not None:
            return by_package
        tables = {table["object_name"]: table for package in by_package for table in package["models"]}
        subjects = [
            {
                "name": subject,
                "app_label": subject.lower().replace(" ", "-"),
                "app_url": reverse("admin:index", current_app=self.name),
                "has_module_perms": True,
                "models": [tables.pop(name) for name in names if name in tables],
            }
            for subject, names in SUBJECTS.items()
        ]
        others = [
            {**package, "models": [table for table in package["models"] if table["object_name"] in tables]}
            for package in by_package
        ]
        return [subject for subject in [*subjects, *others] if subject["models"]]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        return super().index(request, {"waiting": _waiting(), **(extra_context or {})})


def _waiting() -> list[Waiting]:
    from compose.models import Composition
    from registry import moderation
    from registry.models import Adapter, Delivery

    adapters = reverse("admin:registry_adapter_changelist")
    deliveries = reverse("admin:registry_delivery_changelist")
    compositions = reverse("admin:compose_composition_changelist")
    status = Composition.Status
    return [
        Waiting(
            moderation.queue().count(),
            "adapter,adapters",
            "with reports nobody has looked at",
            reverse("moderation"),
        ),
        Waiting(
            moderation.task_queue().count(),
            "task,tasks",
            "with reports nobody has looked at",
            reverse("moderation"),
        ),
        Waiting(
            Adapter.objects.filter(deleted_at=None).exclude(quarantined_at=None).count(),
            "adapter,adapters",
            "in quarantine",
            f"{adapters}?state=quarantined",
        ),
        Waiting(
            Composition.objects.filter(status=status.FAILED).count(),
            "composition,compositions",
            "that failed",
            f"{compositions}?status__exact={status.FAILED.value}",
        ),
        Waiting(
            Delivery.objects.filter(status=Delivery.Status.GIVEN_UP).count(),
            "message,messages",
            "to webhooks that were given up",
            f"{deliveries}?status__exact={Delivery.Status.GIVEN_UP.value}",
        ),
    ]
