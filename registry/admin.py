"""The registry's tables for the people who run the site. What only code may write is shown and not editable."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import UserAdmin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from registry import accounts, audit, base_models, moderation
from registry.accounts import open_namespace
from registry.models import (
    Adapter,
    AdapterScore,
    AdapterText,
    AuditEntry,
    BaseModel,
    BaseModelAlias,
    BaseModelFile,
    Blob,
    Delivery,
    Download,
    Follow,
    FormerName,
    IdempotentAnswer,
    ImportItem,
    ImportJob,
    Invitation,
    Like,
    Membership,
    Namespace,
    NewsMail,
    Origin,
    PushJob,
    Ref,
    Report,
    Revision,
    RevisionFile,
    SavedSearch,
    SearchClock,
    SearchRow,
    SentBlob,
    Task,
    TaskRevision,
    TaskRow,
    Token,
    User,
    Webhook,
    WeightStatistics,
)
from registry.storage import unreferenced
from registry.tokens import revoke_token
from registry.views.people import signed_in

UNSAID_REASON = "The people who run this site are looking into it. Ask them what is wrong."


class ReadOnly:
    """Rows that are facts: looked at, never typed."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Audited:
    """Every act of the administration, the small ones too, is an entry in the book of `audit`."""

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        audit.record(actor=signed_in(request), action="admin: add", subject=obj, detail=_said(message))
        return super().log_addition(request, obj, message)  # type: ignore[misc]

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        audit.record(actor=signed_in(request), action="admin: change", subject=obj, detail=_said(message))
        return super().log_change(request, obj, message)  # type: ignore[misc]

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for obj in queryset:
            audit.record(actor=signed_in(request), action="admin: delete", subject=obj)
        return super().log_deletions(request, queryset)  # type: ignore[misc]


def _said(message: Any) -> str:
    """What was changed, in Django's words."""
    return (
        LogEntry(change_message=json.dumps(message)).get_change_message()
        if isinstance(message, list)
        else str(message)
    )


@admin.register(User)
class PersonAdmin(Audited, UserAdmin):
    """People. They are blocked here, and delete their accounts themselves: in their settings, or by `manage.py delete_account`."""

    list_display = ("username", "email", "is_active", "is_staff", "date_joined", "last_login")
    actions = ("block", "unblock")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change:
            open_namespace(obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # Blocking is an action: a mere tick would leave the tokens to whoever unticks it.
        return ("username", "is_active", "last_login", "date_joined") if obj else ()

    @admin.action(description="Block: no sign-in, sessions and tokens end at once")
    def block(self, request: HttpRequest, people: QuerySet[User]) -> None:
        for person in people.filter(is_active=True).exclude(pk=signed_in(request).pk):
            accounts.block(person, moderator=signed_in(request))
            self.message_user(request, f"{person} is blocked.")

    @admin.action(description="Unblock: may sign in again, with new tokens")
    def unblock(self, request: HttpRequest, people: QuerySet[User]) -> None:
        for person in people.filter(is_active=False):
            accounts.unblock(person, moderator=signed_in(request))
            self.message_user(request, f"{person} is unblocked.")


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


class InvitationInline(ReadOnly, admin.TabularInline):
    model = Invitation
    fields = ("user", "role", "invited_by", "created_at")
    readonly_fields = fields
    extra = 0


@admin.register(Namespace)
class NamespaceAdmin(Audited, admin.ModelAdmin):
    list_display = ("name", "kind", "full_name", "adapter_count", "created_at")
    list_filter = ("kind",)
    search_fields = ("name", "full_name")
    inlines = (MembershipInline, InvitationInline)
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Namespace]:
        return super().get_queryset(request).annotate(adapter_count=Count("adapters"))

    def get_readonly_fields(self, request: HttpRequest, obj: Namespace | None = None) -> tuple[str, ...]:
        return ("name", "kind", "created_at") if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a name is never handed out twice

    @admin.display(description="Adapters", ordering="adapter_count")
    def adapter_count(self, namespace: Any) -> int:
        return int(namespace.adapter_count)


@admin.register(Token)
class TokenAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("name", "user", "scope", "hint", "created_at", "last_used_at", "expires_at", "revoked_at")
    list_filter = ("scope",)
    search_fields = ("name", "user__username", "hint")
    list_select_related = ("user",)
    exclude = ("secret_sha256",)
    actions = ("revoke",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None  # the list, for its actions

    @admin.action(description="Revoke the chosen tokens")
    def revoke(self, request: HttpRequest, tokens: QuerySet[Token]) -> None:
        usable = list(tokens.filter(revoked_at=None))
        for token in usable:
            revoke_token(user=token.user, token_id=token.pk)
            audit.record(actor=signed_in(request), action="revoke", subject=token, detail=f"of {token.user}")
        self.message_user(request, f"Revoked {len(usable)} tokens.")


class RevisionInline(ReadOnly, admin.TabularInline):
    model = Revision
    fields = ("short_commit", "message", "author", "created_at", "base_fit", "is_composable", "size_bytes")
    readonly_fields = fields
    show_change_link = True
    extra = 0


class RefInline(ReadOnly, admin.TabularInline):
    model = Ref
    fields = ("kind", "name", "revision")
    extra = 0


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("shown", "Shown"), ("quarantined", "In quarantine"), ("deleted", "Deleted")]

    def queryset(self, request: HttpRequest, adapters: QuerySet[Adapter]) -> QuerySet[Adapter]:
        wanted = {
            "shown": Q(quarantined_at=None, deleted_at=None),
            "quarantined": Q(quarantined_at__isnull=False, deleted_at=None),
            "deleted": Q(deleted_at__isnull=False),
        }
        return adapters.filter(wanted.get(self.value() or "", Q()))


@admin.register(Adapter)
class AdapterAdmin(Audited, admin.ModelAdmin):
    list_display = (
        "full_name", "state", "visibility", "kind", "base_model", "downloads", "created_at", "is_composable",
    )  # fmt: skip
    list_filter = (StateFilter, "visibility", "kind", "is_composable")
    search_fields = ("name", "namespace__name", "description", "base_model__name")
    list_select_related = ("namespace", "base_model")
    date_hierarchy = "created_at"
    inlines = (RevisionInline, RefInline)
    autocomplete_fields = ("task",)
    fieldsets = (
        ("What it is", {"fields": ("namespace", "name", "kind", "visibility", "head", "created_by", "created_at", "first_public_at", "renewed_at", "updated_at", "deleted_at")}),
        ("What its owner says about it", {"fields": ("description", "license", "language", "tags", "task")}),
        ("How it was trained", {"fields": ("dataset", "dataset_revision", "training", "leakage", "prompt_template")}),
        ("What its files say", {"fields": ("base_model", "base_model_label", "rank", "parameters", "size_bytes", "is_composable")}),
        ("Standing", {"fields": ("best_score", "best_score_metric", "downloads", "likes", "quarantined_at", "quarantine_reason")}),
    )  # fmt: skip
    readonly_fields = (
        "namespace", "name", "kind", "visibility", "base_model", "base_model_label", "head", "rank", "parameters",
        "size_bytes", "is_composable", "best_score", "best_score_metric", "downloads", "likes", "created_by", "created_at", "first_public_at", "renewed_at", "updated_at", "deleted_at", "quarantined_at",
        "quarantine_reason",
    )  # fmt: skip
    actions = ("quarantine", "release")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # lineage never breaks; its page withdraws an adapter

    @admin.display(description="State")
    def state(self, adapter: Adapter) -> str:
        if adapter.deleted_at:
            return "deleted"
        return "quarantined" if adapter.quarantined_at else "shown"

    @admin.action(description="Quarantine: hide from everybody but its members")
    def quarantine(self, request: HttpRequest, adapters: QuerySet[Adapter]) -> None:
        for adapter in adapters.filter(quarantined_at=None, deleted_at=None):
            moderation.quarantine(adapter, moderator=signed_in(request), reason=UNSAID_REASON)
            self.message_user(request, f"{adapter} is in quarantine.")

    @admin.action(description="Release from quarantine")
    def release(self, request: HttpRequest, adapters: QuerySet[Adapter]) -> None:
        for adapter in adapters.exclude(quarantined_at=None):
            moderation.release(adapter, moderator=signed_in(request))
            self.message_user(request, f"{adapter} is shown again.")


class RevisionFileInline(ReadOnly, admin.TabularInline):
    model = RevisionFile
    fields = ("path", "blob", "is_lfs")
    extra = 0


@admin.register(Revision)
class RevisionAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("adapter", "short_commit", "message", "author", "created_at", "base_fit", "is_composable")
    list_filter = ("base_fit", "is_composable")
    search_fields = ("commit", "adapter__name", "adapter__namespace__name", "tensor_sha256")
    list_select_related = ("adapter__namespace", "author")
    inlines = (RevisionFileInline,)


class ReferencedFilter(admin.SimpleListFilter):
    title = "use"
    parameter_name = "use"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Nothing refers to it")]

    def queryset(self, request: HttpRequest, blobs: QuerySet[Blob]) -> QuerySet[Blob]:
        return blobs.filter(pk__in=unreferenced().values("pk")) if self.value() == "no" else blobs


@admin.register(Blob)
class BlobAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("sha256", "size", "created_at", "last_stored_at")
    list_filter = (ReferencedFilter,)
    search_fields = ("sha256", "git_sha1")

    @admin.display(description="Size", ordering="size_bytes")
    def size(self, blob: Blob) -> str:
        return filesizeformat(blob.size_bytes)


class AliasInline(admin.TabularInline):
    model = BaseModelAlias
    extra = 0


class BaseModelFileInline(ReadOnly, admin.TabularInline):
    model = BaseModelFile
    fields = ("path", "blob")
    extra = 0


@admin.register(BaseModel)
class BaseModelAdmin(Audited, admin.ModelAdmin):
    list_display = ("name", "kind", "architecture", "task_type", "parameters", "license")
    list_filter = ("kind", "task_type", "architecture")
    search_fields = ("name", "aliases__text")
    readonly_fields = (
        "name", "kind", "architecture", "task_type", "parameters", "config", "matrices", "commit", "created_at",
        "recheck_wanted_at", "rechecked_at",
    )  # fmt: skip
    inlines = (AliasInline, BaseModelFileInline)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # added from a config.json, by page, API or command

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if any(formset.model is BaseModelAlias and formset.has_changed() for formset in formsets):
            base_models.want_recheck(form.instance)


@admin.register(Task)
class TaskAdmin(Audited, admin.ModelAdmin):
    list_display = (
        "slug", "title", "metric", "base_model", "is_held_out", "is_private", "row_count", "created_at",
    )  # fmt: skip
    list_filter = ("is_held_out", "is_private", "metric")
    search_fields = ("slug", "title")
    list_select_related = ("base_model",)
    autocomplete_fields = ("base_model", "owner")
    # By the moderators' page; and the task's own, where another metric makes another revision, and where is asked
    # whether anybody else has used what is to be private.
    readonly_fields = (
        "metric", "created_by", "first_public_at", "quarantined_at", "quarantine_reason", "is_private",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        return super().get_queryset(request).annotate(row_count=Count("rows"))

    @admin.display(description="Rows", ordering="row_count")
    def row_count(self, task: Any) -> int:
        return int(task.row_count)


@admin.register(TaskRow)
class TaskRowAdmin(ReadOnly, admin.ModelAdmin):
    """The rows that everybody sees; the hidden ones are read by our scoring alone."""

    list_display = ("task", "position", "input", "output")
    search_fields = ("task__slug", "input")
    list_select_related = ("task",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskRow]:
        return super().get_queryset(request).filter(split=TaskRow.Split.FEW_SHOT)


@admin.register(TaskRevision)
class TaskRevisionAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("task", "number", "metric", "seed", "created_at")
    search_fields = ("task__slug",)
    list_select_related = ("task",)
    exclude = ("test",)


@admin.register(Download)
class DownloadAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("revision", "day")
    date_hierarchy = "day"
    list_select_related = ("revision",)


@admin.register(FormerName)
class FormerNameAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("__str__", "adapter", "moved_at")
    list_select_related = ("namespace", "adapter__namespace")


@admin.register(Like)
class LikeAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("adapter", "user", "created_at")
    list_select_related = ("adapter__namespace", "user")


@admin.register(SentBlob)
class SentBlobAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("blob", "user", "sent_at")
    list_select_related = ("blob", "user")


@admin.register(IdempotentAnswer)
class IdempotentAnswerAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("key", "user", "status", "created_at")
    list_select_related = ("user",)
    exclude = ("body",)


@admin.register(Report)
class ReportAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("adapter", "task", "reason", "reporter", "created_at", "outcome")
    list_filter = ("outcome", "reason")
    search_fields = ("adapter__name", "text")
    list_select_related = ("adapter__namespace", "task", "reporter")


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("at", "actor_name", "action", "subject_kind", "subject_name", "detail")
    list_filter = ("action", "subject_kind")
    search_fields = ("actor_name", "subject_name", "detail")
    date_hierarchy = "at"


@admin.register(Webhook)
class WebhookAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("url", "user", "is_active", "failures", "created_at")
    list_filter = ("is_active",)
    list_select_related = ("user",)
    exclude = ("secret",)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("webhook", "event", "status", "attempts", "answered", "next_try_at")
    list_filter = ("status", "event")
    list_select_related = ("webhook",)


@admin.register(ImportJob, PushJob)
class HubJobAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("id", "owner", "endpoint", "status", "created_at")
    list_filter = ("status",)
    search_fields = ("id", "owner__username")
    list_select_related = ("owner",)
    exclude = ("sealed_token",)


@admin.register(ImportItem)
class ImportItemAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("source", "job", "status", "attempts")
    list_filter = ("status",)
    search_fields = ("source",)


@admin.register(Origin)
class OriginAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("source", "endpoint", "commit", "imported_at")
    search_fields = ("source",)


@admin.register(
    AdapterScore, AdapterText, Follow, NewsMail, SavedSearch, SearchClock, SearchRow, WeightStatistics
)
class FactAdmin(ReadOnly, admin.ModelAdmin):
    """What the site itself wrote, or one person for themselves: to look at."""

    list_display = ("pk", "__str__")


from registry import sign_in_admin  # noqa: E402, F401 - at the end: it needs what is above
