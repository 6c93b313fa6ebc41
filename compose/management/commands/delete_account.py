"""An account deleted for somebody who asked the people who run the site to."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from compose import leaving
from registry import accounts
from web.errors import DomainError
from web.templatetags.formatting import plural


class Command(BaseCommand):
    help = "Delete an account as its person would in the settings, or say what that would delete. There is no way back."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--yes", action="store_true", help="do it")

    def handle(self, *args: Any, **options: Any) -> None:
        person = accounts.account_named(options["username"])
        if person is None:
            raise CommandError(f"There is nobody called {options['username']!r} here.")
        if not options["yes"]:
            held = leaving.held_by(person)
            self.stdout.write(
                f"{person} has {plural(held.adapters, 'adapter,adapters')} and "
                f"{plural(held.compositions, 'composition,compositions')}, of which {held.kept:,} stay without an "
                f"owner, and {plural(held.tasks, 'task,tasks')}, of which {held.tasks_removed:,} go."
            )
            for obstacle in held.obstacles:
                self.stdout.write(obstacle.message)
            has_way = "First do what stands above." if held.obstacles else "Add --yes to do it."
            self.stdout.write(f"Nothing was deleted. {has_way}")
            return
        try:
            leaving.delete_account(person, actor=None)
        except DomainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"The account {person} is deleted.")
