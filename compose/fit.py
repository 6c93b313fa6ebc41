"""Which modules fit a task, from a few pasted examples, before any job: a ranked list with the reasons for each.

What speaks for a module: that the answers of its own task look like yours and use the same words, that its inputs read
like yours, that what is written about it names what your examples are about, and that it has helped other people's
compositions. All of it is read from the registry; nothing is loaded or run.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from compose import candidates
from compose.engine.types import Example
from registry.models import Adapter, AdapterText, BaseModel, SearchRow, TaskRow
from registry.rights import Person
from registry.search import show_tasks, tasks_hidden_from

# What each kind of evidence counts of the whole. Set on half of the demo's tasks, see docs/search.md.
WEIGHTS = {"answers": 0.35, "form": 0.25, "inputs": 0.15, "text": 0.15, "past": 0.10}
MOST_CONSIDERED = 3000
MOST_ROWS = 30  # of a task, compared with the examples
STEM = 6  # letters of a word that count: "colours" and "colour" are one
MIN_SHARE = 0.05  # below this a kind of evidence is no reason to name
TEXT_READ = 4000  # characters of what is written about a module
USUAL_WORDS = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "to",
        "in",
        "on",
        "at",
        "is",
        "are",
        "was",
        "were",
        "be",
        "and",
        "or",
        "not",
        "it",
        "its",
        "this",
        "that",
        "with",
        "for",
        "as",
        "by",
        "from",
        "say",
        "they",
        "there",
        "he",
        "she",
        "his",
        "her",
        "lora",
        "adapter",
        "module",
        "model",
        "base",
        "trained",
    ]
)


@dataclass(frozen=True)
class Fit:
    """How much speaks for a module, 0 to 1 in all and for each kind of evidence, and why in words."""

    adapter: Adapter
    value: float
    parts: Mapping[str, float]
    reasons: list[str]

    @property
    def is_supported(self) -> bool:
        """Whether anything speaks for it beyond that it fits the base model."""
        return self.value >= MIN_SHARE


@dataclass(frozen=True)
class Fits:
    """The best first. `considered` of the `fitting` modules were compared: all, unless there are very many."""

    ranked: list[Fit]
    considered: int
    fitting: int


@dataclass(frozen=True)
class Reading:
    """A set of examples or a task's rows as what can be compared."""

    inputs: Counter[str]
    answers: Counter[str]
    forms: Counter[str]
    count: int


@dataclass
class _Known:
    """What is read once for all modules."""

    texts: dict[int, str]
    rows: dict[int, Reading]
    rows_frequency: Counter[str]
    text_frequency: Counter[str]
    past: dict[int, tuple[float, int]]
    most_useful: float = 0.0
    words_of: dict[int, Counter[str]] = field(default_factory=dict)


def rank_modules(
    *, examples: Sequence[Example], base_model: BaseModel, person: Person, limit: int = 20
) -> Fits:
    """The modules for `base_model` that this person may see, those first that most speaks for.

    Where more than MOST_CONSIDERED fit, the most downloaded of them are compared.
    """
    modules = candidates.fitting(base_model, person).filter(kind=Adapter.Kind.MODULE)
    fitting = modules.count()
    considered = list(modules.order_by("-downloads", "-pk")[:MOST_CONSIDERED])
    show_tasks(considered, person=person)
    mine = read(examples)
    known = _look_up(considered, person)
    fits = [_fit(adapter, mine, known) for adapter in considered]
    fits.sort(key=lambda fit: (-fit.value, fit.adapter.full_name))
    return Fits(ranked=fits[:limit], considered=len(considered), fitting=fitting)


def read(examples: Iterable[Example]) -> Reading:
    """Examples as words of their inputs, words of their answers, and the forms of these."""
    rows = list(examples)
    answers = " ".join(row.output for row in rows)
    return Reading(
        inputs=_words(" ".join(row.input for row in rows)),
        answers=_words(answers) or _words(answers, with_usual=True),
        forms=Counter(form_of(row.output) for row in rows),
        count=len(rows),
    )


def form_of(answer: str) -> str:
    """An answer without what it says: words as x, repeated ones as =, numbers as 0; marks and order stay.

    `It is red.` -> `it is x.`, `"red"` -> `"x"`, `red red` -> `x =`. Of a long answer the first words count.
    """
    pieces = re.findall(r"\d+|[^\W\d_]+|[^\w\s]", answer.strip())[:12]
    seen: set[str] = set()
    form = []
    for piece in pieces:
        lower = piece.lower()
        if piece.isdigit():
            form.append("0")
        elif not piece[0].isalpha() or lower in USUAL_WORDS:
            form.append(lower)
        else:
            form.append("=" if lower in seen else "x")
            seen.add(lower)
    return " ".join(form)


def _look_up(modules: Sequence[Adapter], person: Person) -> _Known:
    ids = [adapter.pk for adapter in modules]
    texts = {
        row.pk: f"{row.names} {row.about} {row.card}"[:TEXT_READ]
        for row in AdapterText.objects.filter(pk__in=ids)
    }
    rows: dict[int, list[Example]] = {}
    tasks = {adapter.task_id for adapter in modules if adapter.task_id}
    # The reasons quote the rows, so those of a task that is hidden from this person are no evidence.
    tasks -= set(tasks_hidden_from(person).filter(pk__in=tasks).values_list("pk", flat=True))
    shown = TaskRow.objects.filter(
        task_id__in=tasks,
        split=TaskRow.Split.FEW_SHOT,
        position__lt=MOST_ROWS,
    ).values_list("task_id", "input", "output")
    for task_id, given, expected in shown:
        rows.setdefault(task_id, []).append(Example(given, expected))
    readings = {task_id: read(examples) for task_id, examples in rows.items()}
    past = {
        pk: (usefulness, uses)
        for pk, usefulness, uses in SearchRow.objects.filter(pk__in=ids, uses__gt=0).values_list(
            "adapter_id", "usefulness", "uses"
        )
    }
    known = _Known(
        texts=texts,
        rows=readings,
        rows_frequency=Counter(word for reading in readings.values() for word in {*reading.inputs, *reading.answers}),
        text_frequency=Counter(),
        past=past,
        most_useful=max((usefulness for usefulness, _ in past.values()), default=0.0),
    )  # fmt: skip
    for pk, text in texts.items():
        known.words_of[pk] = _words(text)
        known.text_frequency.update(set(known.words_of[pk]))
    return known


def _fit(adapter: Adapter, mine: Reading, known: _Known) -> Fit:
    parts: dict[str, float] = {}
    reasons: list[str] = []
    theirs = known.rows.get(adapter.task_id or 0)
    if theirs is not None:
        _compare_rows(mine, theirs, known, parts, reasons)
    text = known.words_of.get(adapter.pk, Counter())
    about = mine.inputs + mine.answers
    parts["text"] = _cosine(about, text, known.text_frequency, len(known.texts))
    shared = _most_telling(about, text, known.text_frequency)
    if parts["text"] >= MIN_SHARE and shared:
        reasons.append(f"what is written about it names {_listed(shared)}")
    if adapter.pk in known.past:
        usefulness, uses = known.past[adapter.pk]
        parts["past"] = usefulness / known.most_useful if known.most_useful else 0.0
        reasons.append(
            f"{uses} composition{'' if uses == 1 else 's'} by others than its author gave it a weight"
        )
    value = sum(WEIGHTS[name] * share for name, share in parts.items())
    return Fit(adapter, round(value, 4), parts, reasons or ["it fits the base model; nothing else is known"])


def _compare_rows(
    mine: Reading, theirs: Reading, known: _Known, parts: dict[str, float], reasons: list[str]
) -> None:
    total = len(known.rows)
    parts["answers"] = _cosine(mine.answers, theirs.answers, known.rows_frequency, total)
    if parts["answers"] >= MIN_SHARE:
        shared = _most_telling(mine.answers, theirs.answers, known.rows_frequency)
        reasons.append(f"its task's answers use the same words: {_listed(shared)}")
    alike = sum(count for form, count in mine.forms.items() if form in theirs.forms)
    parts["form"] = alike / mine.count
    if alike:
        # Of equals always the same one: a set has another order in each process.
        form = max(mine.forms.keys() & theirs.forms.keys(), key=lambda form: (mine.forms[form], form))
        whose = "yours" if alike == mine.count else f"{alike} of your {mine.count}"
        reasons.append(f"its task's answers have the form of {whose}: {form}")
    parts["inputs"] = _cosine(mine.inputs, theirs.inputs, known.rows_frequency, total)
    if parts["inputs"] >= 3 * MIN_SHARE:
        reasons.append(f"its task's inputs read like yours ({parts['inputs']:.2f} of 1)")


def _words(text: str, *, with_usual: bool = False) -> Counter[str]:
    words = re.findall(r"[^\W_]+", text.lower())
    return Counter(word[:STEM] for word in words if with_usual or word not in USUAL_WORDS)


def _cosine(left: Counter[str], right: Counter[str], frequency: Counter[str], total: int) -> float:
    """The cosine of two texts' words, rare words counting more (tf-idf): 0 to 1."""
    if not left or not right:
        return 0.0

    def weighed(words: Counter[str]) -> dict[str, float]:
        return {
            word: (1 + math.log(count)) * math.log((1 + total) / (0.5 + frequency[word])) ** 2
            for word, count in words.items()
            if frequency[word] <= total
        }

    a, b = weighed(left), weighed(right)
    product = sum(value * b[word] for word, value in a.items() if word in b)
    lengths = math.sqrt(sum(value**2 for value in a.values()) * sum(value**2 for value in b.values()))
    return product / lengths if lengths else 0.0


def _most_telling(left: Counter[str], right: Counter[str], frequency: Counter[str]) -> list[str]:
    shared = sorted(left.keys() & right.keys(), key=lambda word: (frequency[word], -left[word], word))
    return shared[:3]


def _listed(words: Sequence[str]) -> str:
    # A word that is as long as what is kept of one may go on.
    return ", ".join(f"{word}…" if len(word) == STEM else word for word in words)
