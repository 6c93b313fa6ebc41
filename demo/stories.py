"""The demo's language tasks: short templated stories, what is asked about them, and the shape of the answer.

A task is a pair: a *function* (who, which colour, how many, ...) gives the answer word, a *form* (in quotes, twice,
in a sentence, ...) dresses it. Some pairs have a module, others are held out and trained on by nobody; a held-out
task needs the function of one module and the form of another, which is what composing is for.

Everything here is a pure function of a `random.Random`, so the same seed gives the same rows on every machine.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Tom Anna Ben Clara David Emma Frank Greta Henry Ida Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tess"
    " Victor Wendy Yara Zoe"
)
THINGS = _words(
    "apples balls boats books boxes candles cars chairs coins cups drums flags hats kites lamps pens plates"
    " ribbons scarves shells stones stamps toys umbrellas"
)
COLOURS = _words("red blue green yellow black white brown pink purple grey golden silver")
ANIMALS = _words("dog cat horse goat hen donkey parrot rabbit mouse cow sheep fox")
PLACES = _words(
    "garden kitchen market museum school park station library harbour forest castle bakery theatre stable"
    " tower village"
)
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NUMBERS = _words("two three four five six seven eight nine ten")
GOOD_MOODS = _words("lovely wonderful splendid merry bright fine")
BAD_MOODS = _words("awful gloomy terrible sad dull bitter")


@dataclass(frozen=True)
class Row:
    """One example: what a model reads and what it should write."""

    input: str
    output: str


@dataclass(frozen=True)
class Story:
    """The facts of one story, each a word that some function answers with, and its wording."""

    who: str
    animal: str
    place: str
    day: str
    count: str
    one_more: str  # the number after `count`
    colour: str
    thing: str
    mood: str  # "good" or "bad"; the text says it with another word
    text: str


@dataclass(frozen=True)
class Function:
    """What is asked about a story; `fact` names the story's field that answers it."""

    key: str
    title: str
    question: str
    fact: str


@dataclass(frozen=True)
class Form:
    """How the answer is dressed; `template` holds the word as {}."""

    key: str
    title: str
    order: str
    template: str


FUNCTIONS: tuple[Function, ...] = (
    Function("who", "Who is it about?", "Who is it about?", "who"),
    Function("animal", "Which animal?", "Which animal came along?", "animal"),
    Function("thing", "Which things?", "Which things are named?", "thing"),
    Function("colour", "Which colour?", "Which colour is named?", "colour"),
    Function("place", "Where?", "Where was it?", "place"),
    Function("count", "How many?", "How many were there?", "count"),
    Function("one-more", "How many with one more?", "How many with one more?", "one_more"),
    Function("mood", "Good or bad?", "Was it good or bad?", "mood"),
    Function("day", "On which day?", "On which day was it?", "day"),
)

FORMS: tuple[Form, ...] = (
    Form("plain", "one word", "Say one word.", "{}"),
    Form("in-a-sentence", "a full sentence", "Say a sentence.", "It is {}."),
    Form("in-quotes", "in quotes", "Say it in quotes.", '"{}"'),
    Form("twice", "said twice", "Say it twice.", "{} {}"),
    Form("with-a-label", "with a label", "Say it with a label.", "Answer: {}"),
    Form("in-brackets", "in brackets", "Say it in brackets.", "[{}]"),
    Form("aloud", "said aloud", "Say it aloud.", "{}!"),
)

_MEETINGS = (
    "{who} and a {animal} were in the {place} on {day}.",
    "On {day} {who} walked to the {place} with a {animal}.",
    "{who} went to the {place} with a {animal} on {day}.",
    "On {day} {who} met a {animal} in the {place}.",
)
_FINDS = (
    "They found {count} {colour} {thing}.",
    "There they saw {count} {colour} {thing}.",
    "They carried {count} {colour} {thing} home.",
    "They counted {count} {colour} {thing} there.",
)
_MOODS = ("The day was {mood}.", "The weather was {mood}.", "It all felt {mood}.")
_ORDERS = ("{meeting} {find} {mood}", "{meeting} {mood} {find}", "{mood} {meeting} {find}")


def tell(rng: random.Random) -> Story:
    """Draw one story."""
    number = rng.randrange(len(NUMBERS) - 1)
    mood = rng.choice(("good", "bad"))
    facts = {
        "who": rng.choice(NAMES),
        "animal": rng.choice(ANIMALS),
        "place": rng.choice(PLACES),
        "day": rng.choice(DAYS),
        "count": NUMBERS[number],
        "colour": rng.choice(COLOURS),
        "thing": rng.choice(THINGS),
    }
    text = rng.choice(_ORDERS).format(
        meeting=rng.choice(_MEETINGS).format(**facts),
        find=rng.choice(_FINDS).format(**facts),
        mood=rng.choice(_MOODS).format(mood=rng.choice(GOOD_MOODS if mood == "good" else BAD_MOODS)),
    )
    return Story(**facts, one_more=NUMBERS[number + 1], mood=mood, text=text)


@dataclass(frozen=True)
class Pair:
    """A function and a form: one task. `ending` closes every input (a causal base needs to know where to reply)."""

    function: Function
    form: Form
    ending: str = ""

    @property
    def key(self) -> str:
        return f"{self.function.key}-{self.form.key}"

    @property
    def title(self) -> str:
        return f"{self.function.title.rstrip('?')}, {self.form.title}"

    @property
    def instruction(self) -> str:
        return f"{self.function.question} {self.form.order}"

    def row(self, story: Story, *, instructed: bool) -> Row:
        """The example this story makes; without the instruction the task can only be inferred."""
        asked = f"{self.instruction} {story.text}" if instructed else story.text
        word = getattr(story, self.function.fact)
        return Row(input=f"{asked}{self.ending}", output=self.form.template.replace("{}", word))

    def rows(self, rng: random.Random, *, instructed: float) -> Iterator[Row]:
        """Endless examples; `instructed` is the share of them that carries the instruction."""
        while True:
            story = tell(rng)
            yield self.row(story, instructed=rng.random() < instructed)


def distinct_rows(
    pair: Pair, rng: random.Random, count: int, *, excluding: frozenset[str] = frozenset()
) -> list[Row]:
    """`count` rows without instruction, all with different inputs, none of them in `excluding`."""
    rows: dict[str, Row] = {}
    while len(rows) < count:
        row = pair.row(tell(rng), instructed=False)
        if row.input not in excluding:
            rows.setdefault(row.input, row)
    return list(rows.values())


def telling_rows(pair: Pair, rng: random.Random, count: int) -> list[Row]:
    """`count` rows as a careful person picks them: the answers differ as far as the function lets them.

    Good-or-bad has only two answers, so they alternate; otherwise no answer comes twice.
    """
    rows: list[Row] = []
    while len(rows) < count:
        row = pair.row(tell(rng), instructed=False)
        recent = rows[-1:] if pair.function.key == "mood" else rows
        if row.output not in {other.output for other in recent}:
            rows.append(row)
    return rows


def vocabulary() -> list[str]:
    """Every token that a story, an instruction or an answer can hold, in a fixed order."""
    texts = [
        *_MEETINGS,
        *_FINDS,
        *_MOODS,
        *(form.template for form in FORMS),
        *(form.order for form in FORMS),
    ]
    texts += [function.question for function in FUNCTIONS]
    words = {word for text in texts for word in split(text) if not word.startswith("{")}
    words |= {
        *NAMES,
        *THINGS,
        *COLOURS,
        *ANIMALS,
        *PLACES,
        *DAYS,
        *NUMBERS,
        *GOOD_MOODS,
        *BAD_MOODS,
        "good",
        "bad",
        "Reply",
    }
    return sorted(words)


def split(text: str) -> list[str]:
    """Words, {slots} and single punctuation marks, in order."""
    spaced = "".join(
        character if character.isalnum() or character in "{}_" else f" {character} " for character in text
    )
    return spaced.replace("}", "} ").replace("{", " {").split()
