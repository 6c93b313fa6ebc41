"""What people type on the compose page and on the publish form.

The domain functions hold the rules; a form collects what they are given, and keeps all of it when they refuse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Exists, OuterRef, QuerySet
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from compose import candidates, jobs, naming
from compose import examples as few_shot
from compose.engine.metrics import EXACT_MATCH, METRICS
from compose.engine.types import FLOAT_TYPES, LARGEST_EXPORT_RANK, Example, ExportForm
from compose.errors import CandidateProblem, FewShotProblem
from compose.models import Composition
from registry import search
from registry.details import LIMITS
from registry.models import Adapter, BaseModel, Namespace, Revision, Task, User
from registry.rights import Person, composable_for, writable_namespaces
from registry.search import tasks_shown_to
from web.errors import DomainError

FEWEST_ROWS_SHOWN = 5
AUTO, PICKED = "auto", "picked"
FILE = "The file: "  # begins what is said of one
BASES_SHOWN = 200
# A draft waits in the session while its author signs in; the session is read on each of their requests.
MAX_DRAFT_BYTES = 512 * 1024
_DRAFT_FIELDS = (
    "task",
    "title",
    "base_model",
    "choice",
    "method",
    "budget",
    "seed",
    "time_limit",
    "metric",
    "export_rank",
    "export_dtype",
    "email",
    "examples_text",
    "test_text",
)


@dataclass
class GivenExamples:
    """Examples as they were given: in the table, pasted and as a file, all added together.

    `rows` and `text` are what the page shows again. What could be read from text or file has moved into `rows`.
    `wrong_rows` are the numbers of rows, from 1, that a problem is about. `numbers` are what stands beside each of the
    `examples` on the page: its row's number, or its place in a text or file that is still one.
    """

    rows: list[tuple[str, str]] = field(default_factory=list)
    wrong_rows: set[int] = field(default_factory=set)
    text: str = ""
    examples: list[Example] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_examples(data: QueryDict, files: Mapping[str, Any], *, is_live: bool = False) -> GivenExamples:
    """The few-shot examples of a compose form: columns `example_input` and `example_output`, text and file.

    `is_live`: the form stays as it was typed, empty rows and all.
    """
    given = GivenExamples(rows=_typed_rows(data))
    for number, (source, target) in enumerate(given.rows, 1):
        if source.strip() or target.strip():
            try:
                given.examples += few_shot.parse_examples([[source, target]], is_part=True)
                given.numbers.append(str(number))
            except FewShotProblem as problem:
                given.wrong_rows.add(number)
                given.problems += [text.replace("Row 1", f"Row {number}", 1) for text in problem.problems]
                if "\n" in source.strip() and not target.strip():
                    given.problems.append(
                        f"If row {number} is several rows, paste them under “Paste or give a file” instead."
                    )
    if not given.wrong_rows and not is_live:
        # What the domain says of examples counts them without the empty ones.
        given.rows = [row for row in given.rows if "".join(row).strip()]
        given.numbers = [str(number) for number in range(1, len(given.rows) + 1)]
    # The problems name the others by their numbers.
    while given.rows and not "".join(given.rows[-1]).strip():
        given.rows.pop()
    text = data.get("examples_text", "")
    _add(given, text, "The pasted text: ", field="examples", stays_as="pasted" if is_live else "")
    content = _file_bytes(files, "examples_file")
    _add(given, content, FILE, field="examples", stays_as="file" if is_live else "")
    return given


def read_test_examples(data: QueryDict, files: Mapping[str, Any]) -> GivenExamples:
    """The optional test rows: text and file. They stay text, since there may be thousands."""
    given = GivenExamples()
    _add(given, data.get("test_text", ""), "", field="test_examples")
    content = _file_bytes(files, "test_file")
    if content:
        before = len(given.examples)
        _add(given, content, FILE, field="test_examples")
        read = given.examples[before:]
        given.text = "\n".join([part for part in (given.text.rstrip("\n"), as_lines(read)) if part])
    return given


def as_lines(examples: Iterable[Example]) -> str:
    """Examples as one tab-separated line each, or as JSON lines where those would not read back as the same."""
    examples = list(examples)
    lines = "\n".join(f"{example.input}\t{example.output}" for example in examples)
    if _reads_back(lines, examples):
        return lines
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in few_shot.as_json(examples))


def _reads_back(lines: str, examples: list[Example]) -> bool:
    """Whether this text is read as these examples: tabs, headers or a bracket at its beginning may mean another format."""
    try:
        return few_shot.parse_examples(lines, field="rows", is_part=True) == examples
    except FewShotProblem:
        return not examples


def _typed_rows(data: QueryDict) -> list[tuple[str, str]]:
    """The table's rows with unix line ends; browsers send "\\r\\n"."""
    sources = [text.replace("\r\n", "\n") for text in data.getlist("example_input")]
    targets = [text.replace("\r\n", "\n") for text in data.getlist("example_output")]
    return list(zip(sources, targets, strict=False))


def _file_bytes(files: Mapping[str, Any], name: str) -> bytes:
    """The uploaded file, one byte beyond the limit at most: the domain then says that it is too large."""
    file = files.get(name)
    return b"" if file is None else bytes(file.read(settings.MAX_EXAMPLE_SET_BYTES + 1))


def _add(given: GivenExamples, content: str | bytes, prefix: str, *, field: str, stays_as: str = "") -> None:
    """Read text or bytes into `given`. Text that cannot be read stays where it was typed.

    What can be becomes rows of the table, but where it `stays_as` this one word says.
    """
    if not content or not content.strip():
        return
    try:
        found = few_shot.parse_examples(content, field=field, is_part=True)
    except FewShotProblem as problem:
        given.problems += [f"{prefix}{text}" for text in problem.problems]
        found = []
    first = 1 if stays_as else len(given.rows) + 1
    where = f" ({stays_as})" if stays_as else ""
    given.numbers += [f"{number}{where}" for number in range(first, first + len(found))]
    given.examples += found
    if field == "examples" and found and len(given.examples) <= settings.MAX_FEW_SHOT_EXAMPLES:
        given.rows += [(example.input, example.output) for example in found]
    elif isinstance(content, str):
        given.text = content


@dataclass(frozen=True)
class ShownRow:
    """One row of the table of examples. Of a wrong one with a single empty cell, that cell is what is wrong."""

    source: str
    target: str
    place: str
    is_wrong: bool

    @property
    def is_source_wrong(self) -> bool:
        return self.is_wrong and (not self.source.strip() or bool(self.target.strip()))

    @property
    def is_target_wrong(self) -> bool:
        return self.is_wrong and (not self.target.strip() or bool(self.source.strip()))


class ComposeForm(forms.Form):
    """The compose page. Bound, it also has `examples`, `test_examples` and `candidates` for the domain function."""

    task = forms.ModelChoiceField(
        queryset=Task.objects.none(),
        to_field_name="slug",
        required=False,
        error_messages={"invalid_choice": "There is no such task to compose for any more. Go on without it."},
    )
    title = forms.CharField(max_length=200, required=False, label="Name of the task")
    base_model = forms.ModelChoiceField(
        queryset=BaseModel.objects.none(),
        to_field_name="name",
        label="Base model",
        empty_label=None,
        error_messages={
            "required": "Choose the base model that the modules are to be composed for.",
            "invalid_choice": "We do not know this base model. Choose one of the list.",
        },
    )
    choice = forms.ChoiceField(
        choices=[(AUTO, "Choose for me"), (PICKED, "I pick them")],
        required=False,
        initial=AUTO,
        label="Modules",
    )
    method = forms.ChoiceField(
        initial=jobs.DEFAULT_METHOD,
        label="Method",
        error_messages={"invalid_choice": "There is no method of this name. Choose one of the list."},
    )
    budget = forms.IntegerField(
        min_value=1,
        max_value=settings.MAX_BUDGET,
        required=False,
        label="Budget",
        error_messages={
            "invalid": "The budget is a whole number of trials.",
            "min_value": "The search needs at least 1 trial.",
            "max_value": f"At most {settings.MAX_BUDGET} trials are run for one composition.",
        },
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=jobs.MAX_SEED,
        initial=jobs.DEFAULT_SEED,
        label="Seed",
        error_messages={
            "required": "Give a whole number; the same one repeats the same search.",
            "invalid": "The seed is a whole number.",
            "min_value": "The seed is 0 or more.",
            "max_value": "The seed is too large; 2147483647 is the largest.",
        },
    )

    time_limit = forms.IntegerField(
        min_value=1,
        max_value=24 * 60,
        required=False,
        label="Time limit",
        error_messages={
            "invalid": "The time limit is a whole number of minutes.",
            "min_value": "The time limit is at least a minute; leave it empty for none.",
            "max_value": "The time limit is at most 1,440 minutes, a day.",
        },
    )
    metric = forms.ChoiceField(
        choices=[(metric.name, metric.choice) for metric in METRICS.values()],
        required=False,
        initial=EXACT_MATCH,
        label="Scored by",
        error_messages={"invalid_choice": "There is no metric of this name. Choose one of the list."},
    )
    export_rank = forms.IntegerField(
        min_value=0,
        max_value=LARGEST_EXPORT_RANK,
        required=False,
        label="Rank of the adapter",
        error_messages={
            "invalid": "The rank is a whole number.",
            "min_value": "The rank is at least 1; leave it empty for the mix as it is.",
            "max_value": f"The rank is at most {LARGEST_EXPORT_RANK}.",
        },
    )
    export_dtype = forms.ChoiceField(
        choices=[(name, name) for name in FLOAT_TYPES],
        required=False,
        initial=FLOAT_TYPES[0],
        label="Float type",
        error_messages={"invalid_choice": "There is no float type of this name. Choose one of the list."},
    )
    email = forms.BooleanField(required=False, label="E-mail me when it is done")

    def __init__(
        self,
        data: QueryDict | None = None,
        files: MultiValueDict[str, UploadedFile] | None = None,
        *,
        person: Person,
        rows: Iterable[tuple[str, str]] = (),
        test_text: str = "",
        picked: Iterable[str] = (),
        pinned: Iterable[str] = (),
        excluded: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(data, files, **kwargs)
        self.person = person
        self.given = GivenExamples(rows=list(rows))
        self.test_given = GivenExamples(text=test_text)
        self.picked, self.pinned, self.excluded = list(picked), list(pinned), list(excluded)
        self.candidates: list[Revision] | None = None
        self.examples_are_gone = False  # asked for again, but its texts were removed
        self.modules_gone = 0  # of those picked then, how many cannot be picked any more
        if data is not None:
            self.given = read_examples(data, files or {})
            self.test_given = read_test_examples(data, files or {})
            self.picked, self.pinned, self.excluded = (
                names_in(data, field) for field in ("pick", "pin", "exclude")
            )
        self.fields["task"].queryset = tasks_shown_to(person).held_out()  # type: ignore[attr-defined]
        self.fields["base_model"].queryset = composable_bases(person)  # type: ignore[attr-defined]
        self.fields["method"].choices = Composition.Method.choices  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for problem in self.given.problems:
            self.add_error(None, forms.ValidationError(problem, code="examples"))
        for problem in self.test_given.problems:
            self.add_error(None, forms.ValidationError(problem, code="test_examples"))
        base_model = cleaned.get("base_model")
        if cleaned.get("choice") == PICKED and base_model:
            try:
                self.candidates = candidates.pick(self.picked, base_model, self.person)
            except CandidateProblem as problem:
                self.add_error("choice", problem.problems)
        return cleaned

    def request(self, owner: User, *, origin: str = "") -> jobs.CompositionRequest:
        """What this form asks for, in the name of `owner`; `origin` is the site's scheme and host, for a mail's link."""
        cleaned = self.cleaned_data
        return jobs.CompositionRequest(
            owner=owner,
            base_model=cleaned["base_model"],
            examples=self.given.examples,
            test_examples=self.test_given.examples,
            task=cleaned["task"],
            title=cleaned["title"],
            candidates=self.candidates,
            pinned=self.pinned,
            excluded=self.excluded,
            method=cleaned["method"],
            budget=cleaned["budget"],
            seed=cleaned["seed"],
            time_limit_s=60 * (cleaned["time_limit"] or 0),
            metric=cleaned["metric"],
            export=ExportForm(
                rank=cleaned["export_rank"] or 0, dtype=cleaned["export_dtype"] or FLOAT_TYPES[0]
            ),
            notice_origin=origin if cleaned["email"] else "",
        )

    def refuse(self, error: DomainError) -> None:
        """Put a refusal of the domain beside the input it is about."""
        places = {"candidates": "choice", "email_when_done": "email", "time_limit_s": "time_limit"}
        name = next((places.get(name, name) for name in error.fields), None)
        for sentence in error.sentences:
            if name in self.fields:
                self.add_error(name, sentence)
            else:  # the examples' table is no field of Django's
                self.add_error(None, forms.ValidationError(sentence, code=name))

    # --- what the template shows ------------------------------------------------------------------------------

    @property
    def shown_rows(self) -> list[ShownRow]:
        """The rows of the table, filled up with empty ones to type in."""
        rows = self.given.rows
        empty = max(FEWEST_ROWS_SHOWN - len(rows), 1 if self.is_bound or not rows else 0)
        return [
            ShownRow(source, target, f"example-{number}", self._is_wrong(number))
            for number, (source, target) in enumerate([*rows, *[("", "")] * empty], 1)
        ]

    def _is_wrong(self, number: int) -> bool:
        return number in self.given.wrong_rows or self.wrong_place == f"example-{number}"

    @property
    def wrong_place(self) -> str:
        """The id of the input that the examples' errors are about; where there are too few, that of the next empty row."""
        if not self.example_errors:
            return ""
        if self.given.wrong_rows:
            return f"example-{min(self.given.wrong_rows)}"
        if self.given.text:
            return "examples-text"
        is_of_file = any(problem.startswith(FILE) for problem in self.given.problems)
        return "examples-file" if is_of_file else f"example-{len(self.given.rows) + 1}"

    @property
    def places(self) -> dict[str, str]:
        """Where on the page the inputs are whose ids are not Django's own, by field or by what an error is about."""
        return {
            "task": "",
            "choice": "choice-picked",
            "examples": self.wrong_place,
            "test_examples": "test-text",
        }

    @property
    def example_errors(self) -> list[str]:
        return self._errors_about("examples")

    @property
    def test_errors(self) -> list[str]:
        return self._errors_about("test_examples")

    def _errors_about(self, code: str) -> list[str]:
        if not self.is_bound:
            return []
        return [str(error.messages[0]) for error in self.non_field_errors().as_data() if error.code == code]

    # --- a draft that waits for its author to sign in ------------------------------------------------------------

    def as_draft(self) -> dict[str, Any] | None:
        """All that was typed, as JSON for the session; None if it is too much for one."""
        draft: dict[str, Any] = {name: self.data.get(name, "") for name in _DRAFT_FIELDS}
        draft |= {
            "rows": self.given.rows,
            "examples_text": self.given.text,
            "test_text": self.test_given.text,
            "picked": self.picked,
            "pinned": self.pinned,
            "excluded": self.excluded,
        }
        size = sum(len(source) + len(target) for source, target in self.given.rows)
        size += len(self.given.text) + len(self.test_given.text)
        return draft if size <= MAX_DRAFT_BYTES else None

    @classmethod
    def from_draft(cls, draft: dict[str, Any], *, person: Person) -> ComposeForm:
        form = cls(
            person=person,
            rows=[(source, target) for source, target in draft["rows"]],
            test_text=draft["test_text"],
            picked=draft["picked"],
            pinned=draft.get("pinned", ()),
            excluded=draft.get("excluded", ()),
            initial={name: draft[name] for name in _DRAFT_FIELDS if draft.get(name) not in (None, "")},
        )
        form.given.text = draft["examples_text"]
        return form

    @classmethod
    def for_task(cls, task: Task, *, person: Person, **initial: Any) -> ComposeForm:
        """Filled with the few-shot rows of a task to try."""
        rows = task.rows.filter(split="few_shot").values_list("input", "output")
        # The title is everybody's once the adapter is, the name of a private task is not.
        title = "" if task.is_private else task.title
        initial = {"task": task.slug, "title": title, "metric": jobs.metric_for(task), **initial}
        if task.base_model is not None:
            initial.setdefault("base_model", task.base_model.name)
        return cls(person=person, rows=list(rows), initial=initial)

    @classmethod
    def again(cls, composition: Composition, *, person: Person) -> ComposeForm:
        """Filled with what an earlier composition of this person was asked for."""
        fitting = candidates.fitting(composition.base_model, person)
        offered = (
            composition.candidates.select_related("revision__adapter__namespace")
            .defer("revision__facts", "revision__warnings")
            .annotate(still_fits=Exists(fitting.filter(pk=OuterRef("revision__adapter"))))
        )
        task = naming.task_of(composition, person)
        are_gone = composition.examples_removed_at is not None
        # Rows of their own go before the hidden ones of a task.
        tests = [] if composition.has_hidden_test or are_gone else composition.test_examples
        form = cls(
            person=person,
            rows=[] if are_gone else [(row["input"], row["output"]) for row in composition.examples],
            test_text=as_lines(few_shot.from_json(tests)),
            picked=_as_picked([candidate.revision for candidate in offered], composition),
            pinned=composition.pinned,
            excluded=composition.excluded,
            initial={
                "task": task.slug if task is not None and task.is_held_out else "",
                "title": composition.title,
                "base_model": composition.base_model.name,
                "choice": PICKED if composition.is_picked else AUTO,
                "method": composition.method,
                "budget": composition.budget,
                "seed": composition.seed,
                "time_limit": math.ceil(composition.time_limit_s / 60) or None,  # a script may give seconds
                "metric": composition.metric,
                "export_rank": composition.export_rank or None,
                "export_dtype": composition.export_dtype,
            },
        )
        form.examples_are_gone = are_gone
        if composition.is_picked:
            form.modules_gone = sum(not candidate.still_fits for candidate in offered)
        return form


def _as_picked(revisions: Sequence[Revision], composition: Composition) -> list[str]:
    """Names for another pick of the same modules: those picked then in the versions of then, drawn ones in the newest."""
    return [
        named
        if composition.is_picked and revision.pk != revision.adapter.head_id
        else revision.adapter.full_name
        for revision, named in zip(revisions, candidates.names(revisions), strict=True)
    ]


def names_in(data: QueryDict, field: str) -> list[str]:
    """Names of modules, each once."""
    # No name holds a NUL, and Postgres would stumble over one in a lookup.
    return list(dict.fromkeys(name for name in data.getlist(field) if "\x00" not in name))


def composable_bases(person: Person) -> QuerySet[BaseModel]:
    """Base models that this person can compose for."""
    fitting = composable_for(person).filter(is_composable=True, base_model=OuterRef("pk"))
    return BaseModel.objects.filter(Exists(fitting)).order_by("kind", "name").defer("config", "matrices")


def base_models(person: Person, chosen: str) -> tuple[list[BaseModel], bool]:
    """Base models that this person can compose for, each with how many `modules` there are for it: hosted ones first, then
    by that.

    At most BASES_SHOWN, and the chosen one beside them; the second says whether there are more.
    """
    counts = search.families(person=person)

    def place(kind: str, pk: int, name: str) -> tuple[str, int, str]:
        return kind, -counts[pk], name  # "hosted" sorts before "referenced"

    known = BaseModel.objects.filter(pk__in=counts).defer("config", "matrices")
    if has_more := len(counts) > BASES_SHOWN:
        rows = sorted(known.values_list("kind", "pk", "name"), key=lambda row: place(*row))
        shown = [pk for number, (_, pk, name) in enumerate(rows) if number < BASES_SHOWN or name == chosen]
        known = known.filter(pk__in=shown)
    models = sorted(known, key=lambda model: place(model.kind, model.pk, model.name))
    for model in models:
        model.modules = counts[model.pk]  # type: ignore[attr-defined]
    return models, has_more


class PublishForm(forms.Form):
    """Where a composed adapter goes. Private first: sharing is a second, deliberate step."""

    namespace = forms.ModelChoiceField(
        queryset=Namespace.objects.none(), to_field_name="name", empty_label=None
    )
    name = forms.CharField(max_length=200, error_messages={"required": "Give it a name."})
    visibility = forms.ChoiceField(
        choices=[(Adapter.Visibility.PRIVATE, "Private"), (Adapter.Visibility.PUBLIC, "Public")],
        initial=Adapter.Visibility.PRIVATE,
    )
    description = forms.CharField(max_length=LIMITS["description"], required=False)

    def __init__(self, *args: Any, person: Person, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["namespace"].queryset = writable_namespaces(person).order_by("-kind", "name")  # type: ignore[attr-defined]
