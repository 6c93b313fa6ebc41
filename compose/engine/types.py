"""What goes into a composition and what comes out of it; pure Python, so the web side may import it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compose.engine.errors import Cancelled
from compose.engine.metrics import EXACT_MATCH


@dataclass(frozen=True)
class Example:
    """One few-shot example or test row."""

    input: str
    output: str


@dataclass(frozen=True)
class Module:
    """A PEFT adapter folder holding adapter_config.json and adapter_model.safetensors."""

    name: str
    path: Path


@dataclass(frozen=True)
class Trial:
    """One evaluated vector of mixing weights; `number` counts from 1.

    `loss` is the mean token loss of all examples as one batch, in nats; `objective` is what the method minimises.
    """

    number: int
    mixing_weights: tuple[float, ...]
    loss: float
    objective: float


@dataclass(frozen=True)
class Score:
    """One number of the result block: a mean over rows, from 0 to 1, with its 95 % interval.

    `metric` is one of `metrics.METRICS`, or "option_likelihood".
    `split` is "held_out" (test rows), "leave_one_out" (each example predicted by a mix found without it) or
    "few_shot" (the examples themselves, which says nothing about other rows).
    """

    method: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    split: str


@dataclass(frozen=True)
class OptionScores:
    """The methods held to a small closed set of answers, each by its most likely one.

    `origin` is "listed" (in each row) or "seen" (as answers of the examples); `rows` of `rows_held_out` were scored.
    """

    options: int  # at most for one row
    origin: str
    rows: int
    rows_held_out: int
    scores: list[Score]
    sentence: str


@dataclass(frozen=True)
class Prediction:
    """What every method generated for one row; `outputs` maps the method to its text."""

    input: str
    expected: str
    outputs: dict[str, str]


FLOAT_TYPES = ("float32", "bfloat16", "float16")
LARGEST_EXPORT_RANK = 1024


@dataclass(frozen=True)
class ExportForm:
    """What the exported adapter looks like.

    `rank`: 0 keeps the mix as it is (the paper mix at its modules' rank, the exact mix as its modules put together);
    any other number cuts every matrix to at most that rank. `dtype` is one of FLOAT_TYPES.
    """

    rank: int = 0
    dtype: str = "float32"


@dataclass(frozen=True)
class Exported:
    """What was written: "paper", "concatenated" or "truncated".

    `rank` is the highest of all matrices; `relative_error` that of the changes to the base (Frobenius norm), cut and
    rounded as they are written.
    """

    kind: str
    rank: int
    dtype: str
    relative_error: float


@dataclass(frozen=True)
class Request:
    """Everything a composition depends on: the same request gives the same result and the same exported bytes.

    `budget` counts trials. `base_name` is what the exported adapter names as its base model; empty: what the
    modules name. `out` is the folder to export to; None: no export. `dtype` is the search's float type, "auto": what
    this machine does faster, where the method bears it. `metric` is what the result is scored by, one of
    `metrics.METRICS`; the search knows the loss alone.
    """

    base: Path
    modules: tuple[Module, ...]
    examples: tuple[Example, ...]
    test: tuple[Example, ...] = ()
    method: str = "lorahub"
    budget: int = 40
    seed: int = 1
    out: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    base_name: str = ""
    export: ExportForm = ExportForm()
    metric: str = EXACT_MATCH


@dataclass
class Result:
    """What `run.compose` found; lists with one entry per module follow the order of `modules`.

    `audition` is the loss of every module alone, not a number for one that was left out, `attribution` the rise of the loss without it (0 for a module
    that is not in the mix). `seconds` has "load", "search", "evaluate" and "export". `precision` is the float type the
    search ran in; losses of the result are float32. `exported` is None where nothing was to be written, `option_scores`
    where the answers are no small closed set or there are no test rows.
    """

    modules: list[str]
    mixing_weights: list[float]
    mix: str
    trials: list[Trial]
    scores: list[Score]
    predictions: list[Prediction]
    audition: list[float]
    base_loss: float
    loss: float
    attribution: list[float]
    verdict: str
    notes: list[str]
    seconds: dict[str, float]
    stopped_early: bool
    versions: dict[str, str] = field(default_factory=dict)
    precision: str = "float32"
    exported: Exported | None = None
    option_scores: OptionScores | None = None


class Observer:
    """Follows a composition and may end it; override what you need, the defaults do nothing."""

    def on_stage(self, stage: str, message: str = "", *, trials: int = 0) -> None:
        """A stage began: "load", "audition", "search", "evaluate" or "export".

        "search" comes twice where LoraHub is measured beside another method; `trials` is how many it takes at most.
        """

    def on_audition(self, base_loss: float, losses: Sequence[float]) -> None:
        """The audition is over: loss of the bare base, and of every module alone in the order of the request.

        The loss of a module that is left out is not a number.
        """

    def on_trial(self, trial: Trial) -> None:
        """A new trial was evaluated; replayed ones are not told again."""

    def on_progress(self, done: int, total: int, counted: str) -> None:
        """From 0 on: how many of the "trials" of LoraHub's search beside another method. Inside "evaluate" of those of searches
        again, then of the "answers" of all methods and then of the "rows" whose options are compared.
        """

    def keep(self, key: str, value: Any) -> None:
        """Something that took long, as JSON, for the next attempt."""

    def kept(self, key: str) -> Any:
        """What an earlier attempt gave `keep` under this key; None if nothing."""
        return None

    def wanted(self) -> str:
        """Asked between evaluations: "go", "stop" (keep the best so far) or "cancel"."""
        return "go"

    def checked(self) -> str:
        """What is wanted, "go" or "stop". Raises Cancelled."""
        wish = self.wanted()
        if wish == "cancel":
            raise Cancelled
        return wish
