"""What the demo collection holds: two bases, their modules and the held-out tasks, by name."""

from dataclasses import dataclass
from pathlib import Path

from demo.stories import FORMS, FUNCTIONS, Pair

FOLDER = Path(__file__).resolve().parent

# Who publishes what: each answer form has its namespace, so that the demo has several contributors.
_NAMESPACES = {
    "plain": "plain-tools",
    "in-a-sentence": "reading-group",
    "in-quotes": "forms-lab",
    "twice": "story-lab",
    "with-a-label": "labels-lab",
    "in-brackets": "forms-lab",
    "aloud": "story-lab",
}


@dataclass(frozen=True)
class Base:
    """One demo base model and which pairs of function and form its modules and held-out tasks take."""

    id: str
    architecture: str  # "t5" or "llama"
    title: str
    trained: tuple[Pair, ...]
    held_out: tuple[Pair, ...]

    @property
    def name(self) -> str:
        """The name modules use in base_model_name_or_path; also the folder, seen from the repository."""
        return f"demo/{self.id}"

    def task(self, pair: Pair) -> str:
        """The task's slug; the causal base's tasks carry a prefix, so that both can have the same pair."""
        return pair.key if self.architecture == "t5" else f"{self.architecture}-{pair.key}"

    def namespace(self, pair: Pair) -> str:
        return _NAMESPACES[pair.form.key] if self.architecture == "t5" else "causal-corner"


def _pairs(functions: int, forms: int, offsets: dict[int, int], ending: str = "") -> tuple[Pair, ...]:
    """For each offset, the first so many functions, each with the form that lies that far behind it, in a circle."""
    return tuple(
        Pair(FUNCTIONS[number], FORMS[(number + offset) % forms], ending)
        for number in range(functions)
        for offset, taken in offsets.items()
        if number < taken
    )


# With seven forms the offsets 0, 1, 3 are a perfect difference set: any two of the first seven functions share
# exactly one form. So each function is known in three forms, each form from three functions or more, and a
# held-out pair always has its function in one module and its form in another.
T5 = Base(
    id="story-t5",
    architecture="t5",
    title="Story T5",
    trained=_pairs(9, 7, {0: 9, 1: 9, 3: 9}),
    held_out=_pairs(9, 7, {2: 9, 5: 5}),
)

LLAMA = Base(
    id="story-llama",
    architecture="llama",
    title="Story Llama",
    trained=_pairs(4, 4, {0: 4, 1: 4}, ending=" Reply:"),
    held_out=_pairs(4, 4, {2: 4}, ending=" Reply:"),
)

BASES = (T5, LLAMA)
