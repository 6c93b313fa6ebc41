"""Names of namespaces and adapters: the Hub's rules, since its clients check them too."""

from __future__ import annotations

import re
import unicodedata

from web.errors import DomainError

MAX_NAME_LENGTH = 96
# First path segments of our own pages, what a browser or crawler asks of every site, and what the Hub's clients take for a
# kind of repository.
RESERVED_NAMESPACES = frozenset({
    "about", "accounts", "activity", "admin", "api", "apple-touch-icon.png", "base-models", "blog", "buckets",
    "compose", "compositions", "datasets", "docs", "explore", "favicon.ico", "favicon.svg", "feed",
    "feeds", "hashes", "health", "healthz", "help", "home", "import", "imports", "jobs", "join", "kernels", "legal", "login", "logout", "media",
    "metrics", "models", "moderation", "modules", "new", "notifications", "oauth", "organizations", "organisations",
    "privacy", "pushes", "robots.txt", "search", "security", "settings", "signup", "sitemap.xml", "spaces",
    "static", "status", "support", "tasks", "terms", "upload", "v1", "webhooks", "well-known", "xet",
})  # fmt: skip
# Base models of one segment have their files at `name/resolve/…`, organisations their settings at `name/settings`,
# and everybody a feed and a button to follow them.
RESERVED_ADAPTERS = frozenset({"resolve", "settings", "follow", "feed.atom"})
_ALLOWED = re.compile(r"[A-Za-z0-9._-]+\Z")


class InvalidName(DomainError):
    code = "invalid_name"

    def __init__(self, name: str, reason: str, *, field: str = "name") -> None:
        super().__init__(f"{name[:100]!r} cannot be a name: {reason}", fields={field: [reason]})


def check_namespace_name(name: str, *, field: str = "namespace") -> None:
    """Raises InvalidName if no person or organisation may have this name; `field` is where it was asked for."""
    _check(name, field=field)
    if name.lower() in RESERVED_NAMESPACES:
        raise InvalidName(name, "it is an address of this site. Choose another.", field=field)


def check_adapter_name(name: str) -> None:
    """Raises InvalidName if no adapter may have this name."""
    _check(name, field="name")
    if name.lower() in RESERVED_ADAPTERS:
        raise InvalidName(name, "it is part of other addresses here. Choose another.")


def name_like(text: str) -> str:
    """A name for a person that looks like what they are called elsewhere (`Ödd Person@corp.example` -> `Odd-Person`), or ""."""
    letters = unicodedata.normalize("NFKD", text.partition("@")[0]).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*", letters)
    name = "-".join(words)[:MAX_NAME_LENGTH].rstrip("-.")
    try:
        check_namespace_name(name)
    except InvalidName:
        return ""
    return name


def _check(name: str, *, field: str) -> None:
    if not name:
        raise InvalidName(name, "it is empty.", field=field)
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidName(name, f"it has {len(name)} characters; {MAX_NAME_LENGTH} are allowed.", field=field)
    if not _ALLOWED.match(name):
        raise InvalidName(name, "only letters A-Z, digits, '-', '_' and '.' are allowed.", field=field)
    if name[0] in "-." or name[-1] in "-.":
        raise InvalidName(name, "it must not begin or end with '-' or '.'.", field=field)
    if "--" in name or ".." in name:
        raise InvalidName(name, "'--' and '..' are not allowed in it.", field=field)
    if name.lower().endswith((".git", ".ipynb")):
        raise InvalidName(name, "it must not end with '.git' or '.ipynb'.", field=field)
