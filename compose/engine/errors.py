"""Why a composition could not be made: each error is a sentence for the person who asked for it."""

from __future__ import annotations

from collections.abc import Mapping

from compose.engine.wording import first_of


class EngineError(Exception):
    """Base of every error whose `message` may be shown as it stands."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnusableBase(EngineError):
    """The base model cannot be loaded or is of a kind we do not compose for."""


class IncompatibleModule(EngineError):
    """A module does not fit the base, the other modules, or the mix."""


class DoesNotFit(IncompatibleModule):
    """Modules are not made for this base; `reasons` says by each one's name why, as the end of a sentence."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        said = first_of(
            [f"The module {name} does not fit the base model: {reason}." for name, reason in reasons.items()],
            most=3,
            separator=" ",
        )
        super().__init__(f"{said} Leave {'it' if len(reasons) == 1 else 'them'} out.")
        self.reasons = dict(reasons)


class NoModules(EngineError):
    """There is nothing to compose."""


class NoExamples(EngineError):
    """There is nothing to adapt to."""


class EmptyExample(EngineError):
    """An example tokenises to nothing."""


class ExamplesTooLong(EngineError):
    """An example does not fit the context of the base model."""


class UnusableTestRow(EngineError):
    """A row that would score the result is empty to the base model, or does not fit its context."""


class BadInput(EngineError):
    """A file, number or name given to the engine is not usable."""


class LossNotFinite(EngineError):
    """A loss came out as NaN or infinity."""


class OutOfMemory(EngineError):
    """Even one row at a time does not fit the device."""


class Cancelled(EngineError):
    """The observer asked to cancel."""

    def __init__(self, message: str = "The composition was cancelled.") -> None:
        super().__init__(message)
