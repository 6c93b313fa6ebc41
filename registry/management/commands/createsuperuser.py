"""Django's own command; the account it makes has its namespace like every other."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.contrib.auth.management.commands import createsuperuser

from registry.accounts import check_user_name, open_namespace
from registry.models import Namespace, User
from web.errors import DomainError


class Command(createsuperuser.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        super().handle(*args, **options)
        for user in User.objects.filter(is_superuser=True):
            if not Namespace.objects.filter(name__iexact=user.username).exists():
                with suppress(DomainError):  # an account of before, whose name cannot be a namespace
                    open_namespace(user)

    def _validate_username(self, username: str, verbose_field_name: str, database: str) -> str | None:
        """Asked before anything is saved, on the command line and at the prompt."""
        refused: str | None = super()._validate_username(username, verbose_field_name, database)  # type: ignore[misc]
        if refused is None:
            try:
                check_user_name(username)
            except DomainError as error:
                return error.message
        return refused
