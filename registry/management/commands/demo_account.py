"""The account that `dev.py up` shows: a login and a write token, the same ones each time."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from registry.accounts import create_account
from registry.authentication import find_token
from registry.models import Token, User

CHANGED = "(the password you chose)"


class Command(BaseCommand):
    help = "Make sure that a local account exists, and keep its password and token in a file only its owner reads."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--file", type=Path, required=True, help="where password and token are kept")
        parser.add_argument("--username", default="demo")

    def handle(self, *, file: Path, username: str, **options: Any) -> None:
        kept = json.loads(file.read_text()) if file.exists() else {}
        account = local_account(username=username, kept=kept)
        if account != kept:
            write_privately(file, json.dumps(account))
        self.stdout.write(f"Login and token of {username} are in {file}.")  # not here: this goes to logs


@transaction.atomic
def local_account(*, username: str, kept: dict[str, str]) -> dict[str, str]:
    """{"username", "password", "token"} that work now, as far as possible those in `kept`.

    A password that the person changed since stays theirs. One that nobody can know, because `kept` is lost, is
    made anew, and so is a token that was revoked.
    """
    user = User.objects.filter(username=username).first()
    password = kept.get("password", "")
    if user is None:
        password = secrets.token_urlsafe(12)
        user = create_account(username=username, password=password, is_staff=True)
    elif not password:
        password = secrets.token_urlsafe(12)
        user.set_password(password)
        user.is_staff = user.is_superuser = True
        user.save(update_fields=["password", "is_staff", "is_superuser"])
    elif not user.check_password(password):
        password = CHANGED
    token = find_token(kept.get("token", ""))
    secret = kept.get("token", "")
    if token is None or token.user_id != user.pk or token.scope != Token.Scope.WRITE:
        _, secret = Token.issue(user=user, name="made by dev.py up", scope=Token.Scope.WRITE)
    return {"username": username, "password": password, "token": secret}


def write_privately(path: Path, text: str) -> None:
    """Write `text` to a file that nobody else could read at any moment."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)
