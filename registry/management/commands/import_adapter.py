"""Adapters of another Hub: `manage.py import_adapter 'lorahub/flan_t5_large-*' --user demo`. Run again, it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry import importing
from registry.models import User
from registry.rights import writable_namespace
from web.errors import DomainError


class Command(BaseCommand):
    help = "Import adapters from another Hub, each pinned to a commit; what is here already is passed over."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("sources", nargs="+", help="ids, or patterns such as 'lorahub/flan_t5_large-*'")
        parser.add_argument("--user", required=True, help="who imports them")
        parser.add_argument("--namespace", default="", help="where they go; the user's own unless given")
        parser.add_argument("--revision", default="", help="branch, tag or commit; main unless given")
        parser.add_argument("--endpoint", default="", help="one of IMPORT_ENDPOINTS; the first unless given")
        parser.add_argument("--token-file", type=Path, help="holds the user's own token for the other Hub")
        parser.add_argument("--private", action="store_true")
        parser.add_argument(
            "--overwrite", action="store_true", help="also on top of versions that were made here since"
        )

    def handle(self, *, sources: list[str], user: str, **options: Any) -> None:
        try:
            actor = User.objects.get(username=user)
            namespace = writable_namespace(actor, options["namespace"] or user)
            token = options["token_file"].read_text().strip() if options["token_file"] else ""
            hub = {"endpoint": options["endpoint"], "token": token}
            found = importing.find_sources(importing.check_sources(sources), **hub)
        except User.DoesNotExist as error:
            raise CommandError(f"There is nobody called {user!r} here.") from error
        except (DomainError, OSError) as error:
            raise CommandError(str(error)) from error
        failed = 0
        for number, source in enumerate(found, start=1):
            try:
                done = importing.import_adapter(
                    actor=actor,
                    namespace=namespace,
                    source=source,
                    revision=options["revision"],
                    visibility="private" if options["private"] else "",
                    overwrite=options["overwrite"],
                    **hub,
                )
            except DomainError as error:
                failed += 1
                self.stderr.write(f"{number}/{len(found)} {source}: {error.message}")
                continue
            what = f"{done.fetched_bytes:,} bytes fetched" if done.is_new else "here already"
            self.stdout.write(f"{number}/{len(found)} {done.adapter} at {done.commit[:12]}: {what}")
        if failed:
            raise CommandError(f"{failed} of {len(found)} were not imported. Run the command again to go on.")
