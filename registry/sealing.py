"""Secrets of people that we have to use later: sealed so that the database alone does not give them away.

The key is derived from SECRET_KEY, which lies in the environment (embedded: in a file of its own) and never in the
database. A sealed text is bound to what it was sealed for, so that it opens nothing when it is copied to another row,
and stops opening after a while. See docs/decisions/0010.
"""

from __future__ import annotations

import base64
import json

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

_PURPOSE = b"lora commons: tokens for other hubs"


def seal(secret: str, *, purpose: str) -> str:
    """`secret` as a text that only `unseal` with the same purpose opens; "" stays ""."""
    if not secret:
        return ""
    return _box().encrypt(json.dumps([purpose, secret]).encode()).decode()


def unseal(sealed: str, *, purpose: str, kept_s: int) -> str | None:
    """What was sealed; None if it is older than `kept_s` seconds, was sealed for something else or by another key."""
    if not sealed:
        return ""
    try:
        said_purpose, secret = json.loads(_box().decrypt(sealed.encode(), ttl=kept_s))
    except InvalidToken:
        return None
    return str(secret) if said_purpose == purpose else None


def seal_anew(sealed: str) -> str | None:
    """What was sealed, by SECRET_KEY and no key of before, as old as it was; None if no key of ours opens it."""
    if not sealed:
        return ""
    try:
        return _box().rotate(sealed.encode()).decode()
    except InvalidToken:
        return None


def _box() -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet([Fernet(_derive(str(key))) for key in keys])


def _derive(key: str) -> bytes:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(key.encode())
    return base64.urlsafe_b64encode(derived)
