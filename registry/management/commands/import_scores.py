"""A table of modules and tasks as self-reported scores: `manage.py import_scores table.csv --by ada --note "..."`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry import reported_scores
from registry.models import Namespace, User
from registry.organisations import create_organisation
from web.errors import DomainError


class Command(BaseCommand):
    help = (
        "Keep the scores of a CSV (module, then a column for each task) as self-reported. Harmless to repeat."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("table", type=Path)
        parser.add_argument("--by", required=True, help="username of the person who reports them")
        parser.add_argument("--note", required=True, help="who measured them and where they were published")
        parser.add_argument("--percent", action="store_true", help="the numbers go from 0 to 100")
        parser.add_argument(
            "--task-prefix", default="", help="what every task's slug begins with, such as bbh-"
        )
        parser.add_argument("--base", default="", help="base model of modules that are made")
        parser.add_argument(
            "--make-missing",
            action="store_true",
            help="enter modules that are not here by name alone, without files",
        )
        parser.add_argument(
            "--make-namespace",
            default="",
            help="an organisation to make for them where there is none yet, with the person as admin",
        )

    def handle(self, *, table: Path, by: str, note: str, **options: Any) -> None:
        person = User.objects.filter(username=by).first()
        if person is None:
            raise CommandError(f"There is no account {by!r}.")
        organisation = options["make_namespace"]
        try:
            if organisation and not Namespace.objects.filter(name__iexact=organisation).exists():
                create_organisation(founder=person, name=organisation)
            outcome = reported_scores.keep(
                reported_scores.read_table(table, in_percent=options["percent"]),
                by=person,
                note=note,
                task_prefix=options["task_prefix"],
                base_model=options["base"],
                make_missing=options["make_missing"],
            )
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"The table cannot be read: {error}") from error
        except DomainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(
            f"{outcome.scores} scores of {outcome.modules} modules ({outcome.made} of them new) on {outcome.tasks} tasks"
        )
        for name in outcome.unknown:
            self.stdout.write(f"left out, there is no such module here: {name}")
