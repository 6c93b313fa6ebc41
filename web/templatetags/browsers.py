"""Which browser on which system somebody came with, by what it says of itself.

Every browser claims to be several others, and many that claim to be Chrome are none: a pattern holds to the end of the text, so that
what says more of itself than we know matches nothing.
"""

from __future__ import annotations

import re

from django import template

register = template.Library()

_END = r"Safari/[\d.]+$"
_BROWSERS = {
    "Firefox": rf"\) Gecko/[\d.]+ Firefox/[\d.]+$|\) FxiOS/[\d.]+ .*{_END}",
    "Edge": rf"\) (?:Headless)?Chrome/[\d.]+(?: Mobile)? Safari/[\d.]+ EdgA?/[\d.]+$|\) Version/[\d.]+ EdgiOS/[\d.]+ .*{_END}",
    "Opera": r"\) Chrome/[\d.]+(?: Mobile)? Safari/[\d.]+ OPR/[\d.]+$",
    "Samsung Internet": rf"\) SamsungBrowser/[\d.]+ Chrome/[\d.]+(?: Mobile)? {_END}",
    "Chrome": rf"\) (?:Headless)?Chrome/[\d.]+(?: Mobile)? {_END}|\) CriOS/[\d.]+ .*{_END}",
    "Safari": rf"\((?:iPhone|iPad|Macintosh);.*\) Version/[\d.]+(?: Mobile/\w+)? {_END}",
}
# The first that fits. An iPad says that it is a Mac, as does an iPhone that is to show the large page: browsers that are not
# Apple's give themselves away.
_SYSTEMS = {
    "iPhone": r"\(iPhone;",
    "iPad": r"\(iPad;",
    "iPhone or iPad": r"\(Macintosh;.*(?:CriOS|FxiOS|EdgiOS)/",
    "Mac or iPad": r"\(Macintosh;.*\) Version/",
    "Mac": r"\(Macintosh;",
    "Android": r"\((?:Linux; )?Android ",
    "ChromeOS": r"\(X11; CrOS ",
    "Windows": r"\(Windows NT ",
    "Linux": r"\((?:X11|Wayland); (?:Ubuntu; )?Linux ",
}


@register.filter
def browser(user_agent: str) -> str:
    """`Firefox on Linux`; only `Firefox` on a system that we do not know, and empty for anything else than a browser that we do."""
    name = _first(_BROWSERS, user_agent)
    system = _first(_SYSTEMS, user_agent)
    return f"{name} on {system}" if name and system else name


def _first(known: dict[str, str], text: str) -> str:
    return next((name for name, pattern in known.items() if re.search(pattern, text)), "")
