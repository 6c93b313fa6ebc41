"""Django's own command; the account it makes has its namespace like every other."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.management.commands import createsuperuser

from registry.accounts import open_namespace
from registry.models import Namespace, User


class Command(createsuperuser.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        super().handle(*args, **options)
        for user in User.objects.filter(is_superuser=True):
            if not Namespace.objects.filter(name__iexact=user.username).exists():
                open_namespace(user)
