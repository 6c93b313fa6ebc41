"""All that the site keeps of one person, as one JSON text: what they may take with them.

Secrets are not in it (passwords, tokens, keys: of most only a hash is here), nor what belongs to others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Case, F, Q, QuerySet, When

from compose.models import Audition, Composition, Tryout
from registry import following
from registry.accounts import own_namespace
from registry.models import (
    Adapter,
    AdapterScore,
    Delivery,
    ImportJob,
    Invitation,
    Like,
    Membership,
    NewsMail,
    PushJob,
    Report,
    Revision,
    SavedSearch,
    Task,
    Token,
    User,
    Webhook,
)
from registry.search import tasks_shown_to

FORMAT = "lora-commons/own-data"
FORMAT_VERSION = 1
ROWS_AT_ONCE = 100
Rows = Iterable[Mapping[str, Any]]


def as_json(person: User) -> Iterator[str]:
    """The text piece by piece: there may be more compositions than fit into memory."""
    own = own_namespace(person)
    account = {
        "username": person.username,
        "name": own.full_name,
        "about": own.about,
        "website": own.website,
        "email": person.email,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "joined": person.date_joined,
        "last_sign_in": person.last_login,
    }
    yield f'{{\n"format": "{FORMAT}",\n"format_version": {FORMAT_VERSION},\n"account": {_json(account)}'
    for name, rows in sections(person).items():
        yield f',\n"{name}": ['
        for number, row in enumerate(rows):
            yield (",\n  " if number else "\n  ") + _json(row)
        yield "]"
    yield "\n}\n"


def sections(person: User) -> dict[str, Rows]:
    """Each list of the text; every one is asked for when it is gone through."""
    seen = Adapter.objects.visible_to(person)
    # Who left an organisation made its private tasks, and sees them no more.
    told = Q(is_private=False) | Q(pk__in=tasks_shown_to(person).values("pk"))
    tasks = Task.objects.filter(told, created_by=person)
    factors = Authenticator.objects.filter(user=person)
    return {
        "email_addresses": _of(EmailAddress.objects.filter(user=person), "email", "verified", "primary"),
        "second_factors": (
            {"type": factor.type, "name": str(factor), "created_at": factor.created_at} for factor in factors
        ),
        "linked_accounts": _of(
            SocialAccount.objects.filter(user=person), "provider", "uid", "extra_data", "date_joined"
        ),
        "sessions": _of(
            UserSession.objects.filter(user=person), "ip", "user_agent", "created_at", "last_seen_at"
        ),
        "tokens": _of(
            Token.objects.filter(user=person),
            "name", "hint", "scope", "created_at", "expires_at", "last_used_at", "revoked_at",
            only_for=F("namespace__name"), only_for_adapter=F("adapter__name"),
        ),
        "organisations": _of(
            Membership.objects.filter(user=person, namespace__kind="organisation", namespace__deleted_at=None),
            "role", organisation=F("namespace__name"),
        ),
        "invitations": _of(
            Invitation.objects.filter(user=person), "role", "created_at", organisation=F("namespace__name")
        ),
        "adapters": _of(
            seen.filter(namespace=own_namespace(person)),
            "name", "kind", "visibility", "description", "license", "language", "tags", "dataset",
            "dataset_revision", "training", "leakage", "prompt_template", "downloads", "likes", "created_at",
            "first_public_at", "updated_at", base=F("base_model_label"),
        ),
        "tasks_by_you": _of(
            tasks,
            "slug", "title", "description", "metric", "tags", "source", "license", "created_at",
        ),
        "versions_by_you": _of(
            Revision.objects.filter(author=person, adapter__in=seen),
            "commit", "message", "description", "created_at", "size_bytes",
            namespace=F("adapter__namespace__name"), adapter_name=F("adapter__name"),
        ),
        "scores_by_you": _of(
            AdapterScore.objects.filter(reported_by=person, adapter__in=seen),
            "metric", "value", "n", "note", "created_at",
            namespace=F("adapter__namespace__name"), adapter_name=F("adapter__name"),
        ),
        "likes": _of(
            Like.objects.filter(user=person, adapter__in=seen), "created_at",
            namespace=F("adapter__namespace__name"), adapter_name=F("adapter__name"),
        ),
        "follows": _of(
            following.followed_by(person), "created_at",
            everything_of=F("namespace__name"), namespace_of_adapter=F("adapter__namespace__name"),
            adapter_name=F("adapter__name"),
        ),
        "saved_searches": _of(SavedSearch.objects.filter(user=person), "name", "parameters", "created_at"),
        "mails_of_what_is_new": _of(NewsMail.objects.filter(user=person), "told_until"),
        "webhooks": _of(Webhook.objects.filter(user=person), "url", "events", "is_active", "created_at"),
        "webhook_deliveries": _of(
            Delivery.objects.filter(webhook__user=person), "event", "payload", "status", "created_at",
            url=F("webhook__url"),
        ),
        "imports": _of(
            ImportJob.objects.filter(owner=person), "id", "endpoint", "sources", "status", "error", "created_at"
        ),
        "pushes": _of(
            PushJob.objects.filter(owner=person), "id", "endpoint", "target", "status", "error", "created_at"
        ),
        "reports_by_you": _of(
            Report.objects.filter(reporter=person), "reason", "text", "outcome", "created_at"
        ),
        "compositions": _compositions(person),
        "tryouts": _of(
            Tryout.objects.filter(asked_by=person), "composition_id", "text", "answers", "created_at"
        ),
        "auditions": _of(
            Audition.objects.filter(asked_by=person), "id", "examples", "base_loss", "created_at"
        ),
    }  # fmt: skip


def _compositions(person: User) -> Rows:
    told = Q(task__is_private=False) | Q(task__in=tasks_shown_to(person).values("pk"))
    rows = _of(
        Composition.objects.filter(owner=person),
        "id", "title", "method", "budget", "seed", "metric", "status", "error", "created_at", "finished_at", "examples",
        "has_hidden_test", "test_examples", "predictions", "pinned", "excluded",
        base=F("base_model__name"), for_task=Case(When(told, then=F("task__slug"))),
    )  # fmt: skip
    for row in rows:
        # A task's hidden rows are not the person's: nobody is shown them as a whole.
        yield {**row, "test_examples": []} if row["has_hidden_test"] else row


def _of(rows: QuerySet[Any], *names: str, **expressions: F | Case) -> Rows:
    return rows.order_by("pk").values(*names, **expressions).iterator(chunk_size=ROWS_AT_ONCE)


def _json(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)
