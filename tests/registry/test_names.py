"""Which names nobody may have, since they are parts of addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.urls import URLResolver, get_resolver

from registry.names import RESERVED_NAMESPACES


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
