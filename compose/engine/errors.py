"""Why a composition could not be made: each error is a sentence for the person who asked for it."""


class EngineError(Exception):
    """Base of every error whose `message` may be shown as it stands."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnusableBase(EngineError):
    """The base model cannot be loaded or is of a kind we do not compose for."""


class IncompatibleModule(EngineError):
    """A module does not fit the base, the other modules, or the mix."""


class NoModules(EngineError):
    """There is nothing to compose."""


class NoExamples(EngineError):
    """There is nothing to adapt to."""


class EmptyExample(EngineError):
    """An example tokenises to nothing."""


class ExamplesTooLong(EngineError):
    """An example does not fit the context of the base model."""


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
