"""Why a composition is refused or failed, in sentences for its owner."""

from __future__ import annotations

from django.conf import settings

from compose.engine.wording import first_of
from web.errors import Conflict, DomainError, NotFound


class FewShotProblem(DomainError):
    """Mistakes in a set of examples; each sentence names the row."""

    code = "few_shot_problem"

    def __init__(self, problems: list[str] | str, *, field: str = "examples") -> None:
        problems = [problems] if isinstance(problems, str) else problems
        more = len(problems) - 1
        rest = f" ({more} more problem{'s' if more > 1 else ''} like this.)" if more else ""
        super().__init__(problems[0] + rest, fields={field: problems[:20]})
        self.problems = problems

    @property
    def sentences(self) -> list[str]:
        return self.problems[:20]


class CandidateProblem(DomainError):
    """A module that cannot be offered to this composition."""

    code = "candidate_problem"

    def __init__(self, problems: list[str] | str) -> None:
        problems = [problems] if isinstance(problems, str) else problems
        super().__init__(problems[0], fields={"candidates": problems[:20]})
        self.problems = problems

    @property
    def sentences(self) -> list[str]:
        return self.problems[:20]


class BadSetting(DomainError):
    """A number or name outside of what a composition can be asked for."""

    code = "bad_setting"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message, fields={field: [message]})


class TooManyWaiting(DomainError):
    code = "too_many_waiting"
    status = 429

    def __init__(self, waiting: int) -> None:
        super().__init__(
            f"You have {waiting} compositions waiting, and {settings.MAX_WAITING_JOBS_PER_USER} is the most one "
            "person may have. Wait until one starts, or cancel one."
        )


class BadTryout(DomainError):
    """A text that the adapter cannot be tried on."""

    code = "bad_tryout"

    def __init__(self, message: str) -> None:
        super().__init__(message, fields={"text": [message]})


class TooManyTryouts(DomainError):
    code = "too_many_tryouts"
    status = 429


class TooManyAuditions(DomainError):
    code = "too_many_auditions"
    status = 429


class NoSuchAudition(NotFound):
    def __init__(self) -> None:
        super().__init__("There is no such measurement, or it was removed: they are kept for a day.")


class NoSuchComposition(NotFound):
    def __init__(self) -> None:
        super().__init__("There is no such composition, or you may not see it.")


class WrongState(Conflict):
    """The composition is in a state in which this cannot be done."""

    code = "wrong_state"


class LeaseLost(Exception):
    """This attempt no longer holds its composition or errand: it was taken for dead, cancelled or released."""


class BaseUnavailable(DomainError):
    """The base model's files could not be laid out for the worker."""

    code = "base_unavailable"
    status = 502


class HubAway(BaseUnavailable):
    """Its hub did not give the files now; a moment later it may."""


class RecipeProblem(DomainError):
    """A recipe that cannot be followed, or whose result differs from what it promises."""

    code = "recipe_problem"


class PrivateParents(DomainError):
    """A composed adapter names its parents to whoever sees it, and some of them are not for all of these."""

    code = "private_parents"
    status = 409

    def __init__(self, names: list[str], readers: str) -> None:
        shown = first_of(names, most=5)
        super().__init__(
            f"A composed adapter names what it is made of to {readers}, and of its candidates these are private: {shown}. "
            "Publish it privately under your own name, or make them public first.",
            fields={"visibility": ["Some of its candidates are private."]},
        )


class TaskInQuarantine(DomainError):
    code = "task_in_quarantine"
    status = 409

    def __init__(self, title: str) -> None:
        super().__init__(
            f"{title} was put into quarantine by the people who run this site. Compose on your examples without naming it.",
            fields={"task": ["In quarantine."]},
        )


class HiddenRowsDoNotFit(DomainError):
    """Hidden rows are nobody's to shorten, and nothing is said of one of them."""

    code = "hidden_rows_do_not_fit"

    def __init__(self, base_model: str) -> None:
        super().__init__(
            f"Among the task's hidden rows are some that {base_model} does not take: they are too long for it, or without any "
            "token that it knows. Choose another base model, or compose on the same examples without naming the task."
        )


class GoneMeanwhile(Conflict):
    """What a composition is to be made of went while it was asked for."""

    code = "gone_meanwhile"

    def __init__(self, names: list[str], *, field: str, advice: str) -> None:
        verb = "was" if len(names) == 1 else "were"
        super().__init__(
            f"{first_of(names, most=5)} {verb} deleted or hidden at the moment you asked, so nothing was queued. {advice}",
            fields={field: ["Gone since you chose."]},
        )


class ParentInQuarantine(DomainError):
    """What the people who run this site have hidden does not go on under another name."""

    code = "parent_in_quarantine"
    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The people who run this site put into quarantine what this is made of, {name}. Compose again without it, or "
            "wait until it is released."
        )
