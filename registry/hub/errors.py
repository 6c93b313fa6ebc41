"""Refusals as the Hub's clients read them: the header X-Error-Code decides which exception they raise."""

from __future__ import annotations

from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse, JsonResponse

from registry.errors import InspectionRefused
from web.errors import DomainError
from web.templatetags.formatting import THIN_SPACE

_PLAIN = str.maketrans(
    {
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "…": "...",
        "×": "x",
        "³": "3",
        "−": "-",
        "–": "-",
        THIN_SPACE: " ",
    }
)
_PROBLEMS_SHOWN = 10


class HubError(DomainError):
    """A refusal with the code that makes the client raise its own exception; "" for the plain one."""

    hub_code = ""
    status = 404


class RepositoryNotFound(HubError):
    code = "not_found"
    hub_code = "RepoNotFound"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no repository {name[:200]!r} here, or you may not see it.")


class RevisionNotFound(HubError):
    code = "revision_not_found"
    hub_code = "RevisionNotFound"

    def __init__(self, repository: str, revision: str) -> None:
        super().__init__(f"{repository} has no branch, tag or commit {revision[:200]!r}.")


class EntryNotFound(HubError):
    """`commit` tells the client which revision was looked at, so that it remembers that the file is not there."""

    code = "entry_not_found"
    hub_code = "EntryNotFound"

    def __init__(self, path: str, commit: str, message: str = "") -> None:
        super().__init__(message or f"There is nothing at {path[:300]!r} in revision {commit[:8]}.")
        self.commit = commit


class BadToken(HubError):
    """The client knows this sentence."""

    code = "bad_token"
    status = 401

    def __init__(self) -> None:
        super().__init__("Invalid credentials in Authorization header")


class TokenNeeded(HubError):
    code = "token_needed"
    status = 401

    def __init__(self) -> None:
        super().__init__(
            "Log in first: make a token under Settings, Tokens, and run `hf auth login` with it."
        )


class NotAllowed(HubError):
    code = "method_not_allowed"
    status = 405

    def __init__(self, method: str | None, allowed: Iterable[str]) -> None:
        super().__init__(f"{method} means nothing at this address.")
        self.allowed = sorted(allowed)


class Moved(Exception):
    """The repository has another name now."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(f"{old} is {new} now")
        self.old, self.new = old, new


def answer(error: DomainError, **also: str) -> JsonResponse:
    """The refusal as JSON, with `also`; its sentence stands in a header too, where clients look first."""
    message = in_ascii(sentence(error))
    content = {"error": message, "errors": [{"message": message}], **also}
    response = JsonResponse(content, status=error.status)
    response["X-Error-Message"] = in_header(message)
    if isinstance(error, HubError) and error.hub_code:
        response["X-Error-Code"] = error.hub_code
    if isinstance(error, EntryNotFound):
        response["X-Repo-Commit"] = error.commit
    if isinstance(error, NotAllowed):
        response["Allow"] = ", ".join(error.allowed)
    if error.retry_after_s:
        response["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="LoRA Commons"'
    return response


def in_plain_text(error: DomainError) -> HttpResponse:
    """As `answer`, for git, which shows people no other kind of text."""
    response = answer(error)
    response.content = f"{response['X-Error-Message']}\n".encode()
    response["Content-Type"] = "text/plain; charset=utf-8"
    return response


def moved(request: HttpRequest, move: Moved) -> JsonResponse:
    """307: the same request at the new name.

    The address is relative: for a file's HEAD clients follow no other, lest they leave for another site.
    """
    location = request.get_full_path().replace(f"/{move.old}", f"/{move.new}", 1)
    response = JsonResponse({"error": f"{move.old} is called {move.new} now."}, status=307)
    response["Location"] = location
    return response


def sentence(error: DomainError) -> str:
    if not isinstance(error, InspectionRefused):
        return error.message
    shown = [problem.message for problem in error.problems[:_PROBLEMS_SHOWN]]
    more = len(error.problems) - len(shown)
    return "\n".join([*shown, f"(and {more} more)"] if more else shown)


def in_ascii(text: str) -> str:
    """Header values have to be ASCII, and a body that says the same is not shown twice."""
    return text.translate(_PLAIN).encode("ascii", "replace").decode()


def in_header(text: str) -> str:
    """As `in_ascii`, and in one line: a name that somebody sent may hold any character."""
    return "".join(letter if letter.isprintable() else " " for letter in in_ascii(text))
