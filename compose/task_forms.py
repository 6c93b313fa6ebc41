"""What people type to make a task, to change what is said about one, and to give it new rows."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from compose import examples as reading
from compose import jobs, making_tasks
from compose.engine.metrics import EXACT_MATCH, METRICS
from compose.engine.types import Example
from compose.errors import FewShotProblem
from compose.forms import as_lines, base_models, composable_bases
from compose.making_tasks import LIMITS, Division
from registry.forms import LicenceFields, LinesField, writable_names
from registry.models import BaseModel, Task, User
from web.errors import DomainError
from web.refusals import show_refusal

SENTENCES_SHOWN = 12
VISIBILITIES = [
    ("public", "Public: everybody sees its name, the shown rows and its leaderboard, and composes for it"),
    ("private", "Private: only members of the namespace see that it is there"),
]


class SaidFields(LicenceFields):
    """What is said about a task."""

    title = forms.CharField(
        label="Name",
        max_length=LIMITS["title"],
        error_messages={"required": "Give the task a name."},
        widget=forms.TextInput(
            attrs={"placeholder": "Colour of the thing, in brackets", "autocomplete": "off"}
        ),
    )
    description = LinesField(
        label="What is to be done",
        required=False,
        max_length=LIMITS["description"],
        widget=forms.Textarea(
            attrs={"rows": 3, "placeholder": "Reads a short story and says the colour that is named in it."}
        ),
    )
    base_model = forms.ModelChoiceField(
        queryset=BaseModel.objects.none(),
        to_field_name="name",
        label="Base model",
        required=False,
        empty_label="Any",
        error_messages={
            "invalid_choice": "There is no base model of this name here that can be composed for. Choose one of the list."
        },
    )
    source = forms.CharField(
        label="Where the rows are from",
        required=False,
        max_length=LIMITS["source"],
        widget=forms.TextInput(
            attrs={"placeholder": "A data set, an address, or “written by us”", "autocomplete": "off"}
        ),
    )

    metric = forms.ChoiceField(
        label="Scored by",
        required=False,
        choices=[(metric.name, metric.choice) for metric in METRICS.values()],
        initial=EXACT_MATCH,
        error_messages={"invalid_choice": "There is no metric of this name. Choose one of the list."},
    )
    visibility = forms.ChoiceField(
        label="Who sees it", choices=VISIBILITIES, required=False, initial="public", widget=forms.RadioSelect
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["license"].label = "Licence of the rows"
        self.bases_offered: list[str] = []

    def _take_bases(self, known: QuerySet[BaseModel], user: User) -> None:
        """Let the base model be one of `known`: all in a list to choose from, of very many those with the most modules as
        offers while the name of any is typed.
        """
        field: Any = self.fields["base_model"]
        field.queryset = known
        offered, has_more = base_models(user, "")
        if has_more:
            self.bases_offered = [base_model.name for base_model in offered]
            field.widget = forms.TextInput(
                attrs={
                    "list": "base-models",
                    "spellcheck": "false",
                    "autocomplete": "off",
                    "placeholder": "Any",
                }
            )

    def said(self) -> dict[str, Any]:
        """For `create_task` and `change_task`."""
        names = ("title", "description", "base_model", "source", "license")
        said = {name: self.cleaned_data[name] for name in names}
        # A form without one of these means what there is.
        if metric := self.cleaned_data["metric"]:
            said["metric"] = metric
        if visibility := self.cleaned_data["visibility"]:
            said["is_private"] = visibility == "private"
        return said


class RowFields(forms.Form):
    """The rows of a task, pasted and as a file, both added together, and how they are divided."""

    rows = forms.CharField(
        label="Typed or pasted",
        required=False,
        strip=False,
        widget=forms.Textarea(
            attrs={
                "rows": 10,
                "class": "mono",
                "spellcheck": "false",
                "wrap": "off",
                "placeholder": '{"input": "They saw red hats.", "output": "[red]"}',
            }
        ),
    )
    file = forms.FileField(
        label="or a file of them",
        required=False,
        allow_empty_file=True,
        widget=forms.FileInput(
            attrs={"accept": ".jsonl,.json,.csv,.tsv,.txt,text/plain,text/csv,application/json"}
        ),
    )
    shown = forms.IntegerField(
        label="Rows that are shown",
        required=False,
        widget=forms.NumberInput(
            attrs={
                "min": settings.MIN_FEW_SHOT_EXAMPLES,
                "max": settings.MAX_FEW_SHOT_EXAMPLES,
                "placeholder": "a third, at most 20",
            }
        ),
        error_messages={"invalid": "How many rows are shown is a whole number."},
    )
    seed = forms.IntegerField(
        label="Seed",
        required=False,
        initial=jobs.DEFAULT_SEED,
        error_messages={"invalid": "The seed is a whole number."},
    )

    def divide(self, *, base_model: BaseModel | None = None, task: Task | None = None) -> Division | None:
        """What the rows come to, None where they are refused: the sentences then stand beside them.

        What was read from a file has moved into the text, since a page cannot keep a file.
        """
        rows = self._read()
        if self.errors:
            return None
        seed = self.cleaned_data["seed"]
        try:
            return making_tasks.divide(
                rows,
                shown=self.cleaned_data["shown"],
                seed=jobs.DEFAULT_SEED if seed is None else seed,
                base_model=base_model,
                task=task,
            )
        except FewShotProblem as problem:
            self._refuse_rows(problem)
        except DomainError as error:
            show_refusal(self, error)
        return None

    def _read(self) -> list[Example]:
        rows: list[Example] = []
        text = self.cleaned_data.get("rows") or ""
        file = self.cleaned_data.get("file")
        content = b"" if file is None else bytes(file.read(settings.MAX_EXAMPLE_SET_BYTES + 1))
        for name, given in (("rows", text), ("file", content)):
            if given.strip():
                try:
                    rows += reading.parse_examples(given, field="rows", is_part=True)
                except FewShotProblem as problem:
                    self._refuse_rows(problem, name)
        if not rows and not self.errors:
            self.add_error("rows", reading.NO_EXAMPLES)
        if content.strip() and not self.errors.get("file"):
            moved = as_lines(rows) if not self.errors.get("rows") else text
            self.data = MultiValueDict({**dict(self.data.lists()), "rows": [moved]})  # type: ignore[attr-defined]
        return rows

    def _refuse_rows(self, problem: FewShotProblem, name: str = "rows") -> None:
        for sentence in problem.problems[:SENTENCES_SHOWN]:
            self.add_error(name, sentence)
        if len(problem.problems) > SENTENCES_SHOWN:
            self.add_error(name, f"And {len(problem.problems) - SENTENCES_SHOWN:,} more like these.")


class NewTaskForm(SaidFields, RowFields):
    namespace = forms.ChoiceField(label="Publish as")

    def __init__(
        self,
        data: QueryDict | None = None,
        files: MultiValueDict[str, UploadedFile] | None = None,
        *,
        user: User,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, files, **kwargs)
        self.fields["namespace"].choices = [(name, name) for name in writable_names(user)]  # type: ignore[attr-defined]
        self._take_bases(composable_bases(user), user)


class TaskForm(SaidFields):
    """What may be changed without touching the rows."""

    # What the page said when it was opened: a click on "Save" for another field is no wish to go back to that.
    shown_visibility = forms.CharField(required=False, widget=forms.HiddenInput)
    shown_metric = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, task: Task, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Its own too, whether or not anything is there to compose for it now: saving another field must not drop it.
        offered = Q(pk__in=composable_bases(user).values("pk")) | Q(pk=task.base_model_id)
        known = BaseModel.objects.filter(offered).order_by("kind", "name").defer("config", "matrices")
        self._take_bases(known, user)
        if task.metric not in METRICS:  # one that others report by stays as it is
            field: Any = self.fields["metric"]
            field.choices = [*field.choices, (task.metric, task.metric)]

    def said(self) -> dict[str, Any]:
        said = super().said()
        for field, name in (("visibility", "is_private"), ("metric", "metric")):
            if self.cleaned_data[field] == self.cleaned_data[f"shown_{field}"]:
                said.pop(name, None)
        return said

    @classmethod
    def of(cls, task: Task, *, user: User) -> TaskForm:
        visibility = "private" if task.is_private else "public"
        return cls(
            task=task,
            user=user,
            initial={
                "title": task.title,
                "description": task.description,
                "base_model": task.base_model.name if task.base_model else "",
                "source": task.source,
                "metric": task.metric,
                "visibility": visibility,
                "shown_visibility": visibility,
                "shown_metric": task.metric,
                **cls.initial_for(task.license),
            },
        )
