"""Another name for an account that was made in a shell under a name that is somebody else's."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry import accounts
from registry.models import User
from web.errors import DomainError


class Command(BaseCommand):
    help = (
        "Give an account that was made in a shell, and whose name is somebody else's or was once, another name. Names of other "
        "accounts stay."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="exactly as it is, with its capitals")
        parser.add_argument("new_name")

    def handle(self, *args: Any, **options: Any) -> None:
        person = User.objects.filter(username=options["username"]).first()
        if person is None:
            raise CommandError(f"There is nobody called exactly {options['username']!r} here.")
        try:
            renamed = accounts.give_name(person, options["new_name"])
        except DomainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{options['username']} is {renamed} now. Password, tokens and sessions stay.")
