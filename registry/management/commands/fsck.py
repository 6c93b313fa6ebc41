"""Whether every row has its bytes and all bytes their hash and row."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from registry import fsck
from registry.models import Blob

CLEAN, WRONG, NOT_CHECKED = 0, 1, 2


class Command(BaseCommand):
    help = (
        "Check that every blob's row has its bytes, that they have its sha256, and that all bytes have a row. "
        "Ends with 0 if nothing is wrong or all was repaired, 1 if something is wrong, 2 if it could not be checked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--quick", action="store_true", help="Compare sizes only; read no bytes.")
        parser.add_argument(
            "--repair",
            action="store_true",
            help="Remove orphans and rows that nothing refers to, once they are a day old; put damaged bytes aside.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        left = 0
        try:
            for finding in fsck.check(hashes=not options["quick"]):
                done = fsck.repair(finding) if options["repair"] else ""
                self.stdout.write(f"{finding}{f' ({done})' if done else ''}")
                left += not (done and fsck.is_healed(finding))
            checked = Blob.objects.count()
        except Exception as error:  # a database or storage that does not answer is no clean one
            self.stderr.write(f"The check did not come to its end: {error}")
            sys.exit(NOT_CHECKED)
        compared = "sizes" if options["quick"] else "hashes"
        self.stdout.write(
            f"{checked:,} blob{'' if checked == 1 else 's'}, {compared} compared: "
            f"{'nothing is wrong' if not left else f'{left:,} wrong'}."
        )
        if left:
            sys.exit(WRONG)
