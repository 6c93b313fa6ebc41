"""The one kind of error that people see: a stable code and a sentence that says what to do."""

from __future__ import annotations

NOTHING_HERE = "There is nothing at this address, or you may not see it."


class DomainError(Exception):
    """A request that we refuse, in words for the person who made it.

    `code` is stable and made for scripts, `message` is shown as it stands, `fields` maps the name of an
    input to the sentences about it, `status` is the HTTP status of the refusal, `retry_after_s` goes into its header.
    `advice` is what else a page says: what to do instead.
    """

    code = "refused"
    status = 400
    retry_after_s = 0
    advice = ""

    def __init__(self, message: str, *, fields: dict[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields or {}

    @property
    def sentences(self) -> list[str]:
        """What a page lists: the message, or each mistake of several by itself."""
        return [self.message]


class NotFound(DomainError):
    """Also what a stranger gets for something private: its existence is not told."""

    code = "not_found"
    status = 404


class Forbidden(DomainError):
    code = "forbidden"
    status = 403


class SignedOut(DomainError):
    """For scripts of pages; people are sent to sign in."""

    code = "signed_out"
    status = 401

    def __init__(self) -> None:
        super().__init__("You are signed out. Sign in in another tab, then repeat this.")


class WrongMethod(DomainError):
    code = "method_not_allowed"
    status = 405


class Conflict(DomainError):
    code = "conflict"
    status = 409


class LengthNeeded(DomainError):
    code = "length_needed"
    status = 411

    def __init__(self) -> None:
        super().__init__(
            "Say how long the body is (Content-Length). One that comes in chunks without it is not read here."
        )
