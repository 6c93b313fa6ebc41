"""People, the names they publish under, and the tokens of their scripts."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import models
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils import timezone

if TYPE_CHECKING:
    from registry.models.adapters import Adapter

MAX_ABOUT = 280
MAX_WEBSITE = 200
_is_address = URLValidator(
    schemes=["https", "http"],
    message="This is no address of a website. Give a whole one, such as https://example.org/lab.",
)
TOKEN_PREFIX = "lr_"  # noqa: S105 - lets secret scanners find a leaked one


def check_website(address: str) -> None:
    """Raises ValidationError unless it is an address whose host, as we show it, is the one that browsers ask for."""
    _is_address(address)
    host = urlsplit(address).netloc
    if "@" in host:
        raise ValidationError("Leave the name before the @ out: everybody would see it.")
    if not host.isascii():
        # Which ASCII letters stand for the others is not the same to all that asks for them.
        raise ValidationError(
            "Give the host as browsers ask for it, in ASCII letters: xn--bcher-kva.example for bücher.example."
        )


class User(AbstractUser):
    """A person with an account. Their namespace has the same name as `username`."""

    # The token that speaks for them in this request, set by `authentication.find_token`; None where they are here
    # themselves, by a session. `rights` asks it, since a token may be allowed less than its person.
    acting_token: Token | None = None

    class Meta(AbstractUser.Meta):
        constraints: ClassVar = [models.UniqueConstraint(Lower("username"), name="username_once")]

    def __str__(self) -> str:
        return self.username


class Namespace(models.Model):
    """A name that owns adapters: a person's or an organisation's. Never deleted, so a name is never handed out twice."""

    class Kind(models.TextChoices):
        USER = "user"
        ORGANISATION = "organisation"

    name = models.CharField(max_length=96)
    kind = models.CharField(max_length=12, choices=Kind.choices, default=Kind.USER)
    full_name = models.CharField(max_length=200, blank=True)
    about = models.CharField(
        max_length=MAX_ABOUT, blank=True, db_default="", help_text="In a line, for its page."
    )
    website = models.CharField(
        max_length=MAX_WEBSITE,
        blank=True,
        db_default="",
        validators=[check_website],
    )
    created_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True, blank=True, help_text="Its people are gone; its name stays.")

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("name"), name="namespace_name_once")]
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("namespace", args=[self.name])

    @property
    def is_organisation(self) -> bool:
        return self.kind == self.Kind.ORGANISATION

    @property
    def website_host(self) -> str:
        """Whose the website is, as it is asked for (`check_website`): letters that look like others are told apart."""
        return urlsplit(self.website).hostname or ""


class Membership(models.Model):
    """What a person may do in a namespace; in their own they are admin."""

    class Role(models.TextChoices):
        READ = "read"
        WRITE = "write"
        ADMIN = "admin"

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role.choices)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["namespace", "user"], name="membership_once")
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.namespace} ({self.role})"


class Invitation(models.Model):
    """An organisation asks a person to join it. They become a member when they accept; until then nobody sees it."""

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="invitations")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=8, choices=Membership.Role.choices)
    invited_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["namespace", "user"], name="invitation_once")
        ]
        ordering: ClassVar = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.user} to {self.namespace} ({self.role})"


class TokenQuerySet(models.QuerySet["Token"]):
    def usable(self) -> TokenQuerySet:
        return self.filter(revoked_at=None, user__is_active=True).filter(
            models.Q(expires_at=None) | models.Q(expires_at__gt=timezone.now())
        )


class Token(models.Model):
    """The right of a script to act for a person. Only the hash of the secret is kept: 160 random bits need no salt.

    One with a `namespace` or an `adapter` is limited to that: of what is private it sees nothing else, and it changes
    nothing else. What it may do there is never more than what its person may.
    """

    class Scope(models.TextChoices):
        READ = "read"
        WRITE = "write"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    scope = models.CharField(max_length=8, choices=Scope.choices, default=Scope.READ)
    namespace = models.ForeignKey(
        Namespace, null=True, blank=True, on_delete=models.CASCADE, related_name="limited_tokens"
    )
    adapter = models.ForeignKey(
        "registry.Adapter", null=True, blank=True, on_delete=models.CASCADE, related_name="limited_tokens"
    )
    hint = models.CharField(max_length=12, help_text="The first characters, to recognise it by.")
    secret_sha256 = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = TokenQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(namespace=None) | models.Q(adapter=None), name="token_has_one_limit"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"

    @classmethod
    def issue(
        cls,
        *,
        user: User,
        name: str,
        scope: str,
        days: int | None = None,
        namespace: Namespace | None = None,
        adapter: Adapter | None = None,
    ) -> tuple[Token, str]:
        """A new token and its secret; the secret is shown once and never again. `days` None: it does not expire."""
        secret = TOKEN_PREFIX + secrets.token_hex(20)
        expires_at = timezone.now() + timedelta(days=days) if days else None
        token = cls.objects.create(
            user=user,
            name=name,
            scope=scope,
            namespace=namespace,
            adapter=adapter,
            hint=secret[:8],
            secret_sha256=cls.digest(secret),
            expires_at=expires_at,
        )
        return token, secret

    @staticmethod
    def digest(secret: str) -> str:
        return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def is_limited(self) -> bool:
        return self.namespace_id is not None or self.adapter_id is not None

    @property
    def limit(self) -> str:
        """The name of what it is limited to, as its person may know it; empty for one that is good for all that they may."""
        if self.adapter is None:
            return self.namespace.name if self.namespace is not None else ""
        is_hidden = self.adapter.is_private or self.adapter.is_quarantined
        members = Membership.objects.filter(namespace=self.adapter.namespace_id, user=self.user_id)
        return (
            "a module that you see no more" if is_hidden and not members.exists() else self.adapter.full_name
        )

    @property
    def is_usable(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())


class IdempotentAnswer(models.Model):
    """The answer to a POST that carried an Idempotency-Key, given again to its repetitions for a day."""

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    key = models.CharField(max_length=255)
    request_sha256 = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(
        null=True, help_text="Empty while the first request still runs."
    )
    body = models.JSONField(null=True)
    location = models.CharField(max_length=500, blank=True, default="", help_text="Of what was made.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once")]

    def __str__(self) -> str:
        return self.key
