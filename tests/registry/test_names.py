"""Which names nobody may have, since they are parts of addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.urls import URLResolver, get_resolver

from registry.models import User
from registry.names import RESERVED_NAMESPACES
from tests.factories import make_user


def first_words(patterns: list[Any], before: str = "") -> Iterator[str]:
    """What the addresses of the site begin with, where that is a word and no name of somebody."""
    for pattern in patterns:
        start = re.sub(r"\(\?P<\w+>", "(?:", before + str(pattern.pattern)).lstrip("^")
        word = re.match(r"(?:\(\?:)*([\w.|-]+)\)?(?:/|\$|$)", start)
        if word:
            yield from word[1].split("|")
        elif isinstance(pattern, URLResolver):
            yield from first_words(pattern.url_patterns, before + str(pattern.pattern))


def test_nobody_has_a_name_with_which_an_address_of_the_site_begins():
    words = set(first_words(get_resolver().url_patterns))
    assert {"modules", "api", "kernels", "sitemap.xml"} <= words
    assert words <= RESERVED_NAMESPACES


@pytest.mark.django_db
def test_not_even_a_shell_makes_a_second_account_of_a_name_in_other_capitals():
    make_user("ada")
    with pytest.raises(IntegrityError):
        User.objects.create_user("ADA")


@pytest.fixture
def before_names_were_once(db: None) -> Iterator[None]:
    """The schema in which a shell could make accounts whose names differ in capitals alone."""
    call_command("migrate", "registry", "0032", verbosity=0)
    yield
    User.objects.all().delete()
    call_command("migrate", verbosity=0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("before_names_were_once")
def test_an_upgrade_names_the_accounts_that_stand_in_its_way_and_goes_on_once_they_are_renamed():
    for name in ("ADA", "bob", "Bob", "carl"):  # neither bob has a page of their own
        User.objects.create_user(name)
    make_user("ada")
    with pytest.raises(CommandError) as refused:
        call_command("migrate", verbosity=0)
    said = str(refused.value)
    assert "Several accounts have one name, in other capitals" in said
    commands = re.findall(r"manage.py rename_account (\S+) NEW_NAME", said)
    assert commands == ["ADA", "Bob"]
    for number, name in enumerate(commands):
        call_command("rename_account", name, f"new-{number}", stdout=StringIO())
    call_command("migrate", verbosity=0)
    assert set(User.objects.values_list("username", flat=True)) == {"ada", "bob", "carl", "new-0", "new-1"}
    with pytest.raises(IntegrityError):
        User.objects.create_user("CARL")
