"""Shapes of the compositions API; rules are the domain's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.utils.functional import cached_property
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from compose import jobs, naming
from compose.changed_since import changed_since
from compose.engine.metrics import METRICS
from compose.examples import FORMATS
from compose.licences import licence_of
from compose.models import Candidate, Composition, LogLine, Score, Trial, Tryout
from registry.models import Adapter
from registry.rights import owns
from registry.serializers import StrictSerializer

# What of a result is said in words, and what stands there when nothing is.
_SENTENCES: dict[str, Any] = {"verdict": "", "notes": []}
_ROW = {
    "type": "object",
    "required": ["input", "output"],
    "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
}


@extend_schema_field(
    {
        "oneOf": [{"type": "array", "items": _ROW}, {"type": "string"}],
        "example": [{"input": "Ann has a red ball. Who has it?", "output": "Ann"}],
    }
)
class ExamplesField(serializers.Field):
    """Rows as a list of objects, or text: JSON lines, a JSON list, CSV or TSV. Read by `compose.examples`."""

    default_error_messages = {"type": "Give a list of rows, or the rows as text."}

    def to_internal_value(self, data: Any) -> list[Any] | str:
        if not isinstance(data, list | str):
            self.fail("type")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(
    {
        "oneOf": [{"type": "string", "enum": ["auto"]}, {"type": "array", "items": {"type": "string"}}],
        "example": "auto",
    }
)
class CandidatesField(serializers.Field):
    """`"auto"`, or a list of `namespace/name` or `namespace/name@revision`."""

    default_error_messages = {"type": 'Give "auto", or a list of names such as "somebody/some-module".'}

    def to_internal_value(self, data: Any) -> list[str] | None:
        if data == "auto":
            return None
        if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
            self.fail("type")
        return data

    def to_representation(self, value: Any) -> Any:
        return "auto" if value is None else value


class NewCompositionSerializer(StrictSerializer):
    """A new composition. Without `examples` the few-shot rows of `task` are used."""

    base_model = serializers.CharField(
        required=False, help_text="Id or alias. May be left out with a task that has one of its own."
    )
    examples = ExamplesField(required=False, default=list, help_text="Few-shot rows, as a list or as text.")
    test_examples = ExamplesField(
        required=False,
        default=list,
        help_text="Rows to score on; one whose input is among the examples scores nothing. Without any, and without a task "
        "with hidden rows, a part is held out.",
    )
    format = serializers.ChoiceField(
        choices=FORMATS, default="auto", help_text="Of rows that are given as text."
    )
    candidates = CandidatesField(
        required=False,
        default=None,
        help_text="`auto` (all that fit; for `lorahub` at most 20, drawn by the seed), or names.",
    )
    pinned = serializers.ListField(
        child=serializers.CharField(max_length=300),
        required=False,
        default=list,
        max_length=200,
        help_text="Names that the automatic choice has to take.",
    )
    excluded = serializers.ListField(
        child=serializers.CharField(max_length=300),
        required=False,
        default=list,
        max_length=200,
        help_text="Names that the automatic choice has to leave.",
    )
    task = serializers.SlugField(required=False, help_text="Slug of a task that this is for.")
    method = serializers.CharField(default=jobs.DEFAULT_METHOD, help_text="`auto`, `lorahub` or `gradient`.")
    budget = serializers.IntegerField(
        required=False,
        allow_null=True,
        default=None,
        help_text="Trials. If left out: "
        + ", ".join(f"{usual} for {name}" for name, usual in jobs.USUAL_BUDGETS.items())
        + "; `auto` takes as many as its modules need, and may take all of a larger number.",
    )
    seed = serializers.IntegerField(default=jobs.DEFAULT_SEED)
    time_limit_s = serializers.IntegerField(
        default=0,
        help_text="Seconds of search after which it stops and keeps the best so far; 0: the budget alone ends it.",
    )
    metric = serializers.CharField(
        allow_blank=True,
        default="",
        help_text=f"What the result is scored by: {', '.join(f'`{name}`' for name in METRICS)}. If left out, the "
        "task’s own, or `exact_match`. The search goes by the loss on the examples.",
    )
    export_rank = serializers.IntegerField(
        default=0, help_text="Cut the composed adapter to this rank, by SVD; 0 leaves the mix as it is."
    )
    export_dtype = serializers.CharField(
        default="float32", help_text="Of the composed adapter: `float32`, `bfloat16` or `float16`."
    )
    title = serializers.CharField(required=False, allow_blank=True, default="")
    email_when_done = serializers.BooleanField(
        default=False, help_text="Send a mail to your address when it ends."
    )
    dry_run = serializers.BooleanField(default=False, help_text="Only say what would happen.")


class OfferedSerializer(serializers.Serializer):
    adapter = serializers.CharField()
    revision = serializers.CharField()
    reason = serializers.CharField()


class EstimateSerializer(serializers.Serializer):
    seconds = serializers.FloatField(
        allow_null=True, help_text="Of worker time; null when nothing is known yet."
    )
    based_on = serializers.IntegerField(help_text="Earlier compositions that this is the median of.")


class DryRunSerializer(serializers.Serializer):
    """What a request comes to. With `problems` it would be refused."""

    ok = serializers.BooleanField()
    problems = serializers.ListField(child=serializers.CharField())
    warnings = serializers.ListField(child=serializers.CharField())
    candidates = OfferedSerializer(many=True)
    candidates_note = serializers.CharField()
    few_shot = serializers.IntegerField(help_text="Rows that the search sees.")
    held_out = serializers.IntegerField(
        help_text="Rows that score the result; of a task's hidden rows all of them, whatever is among the examples."
    )
    split_note = serializers.CharField()
    metric = serializers.CharField(
        allow_null=True, help_text="What would be scored by; null where it is refused."
    )
    queue_place = serializers.IntegerField(allow_null=True)
    estimate = EstimateSerializer()


class CandidateSerializer(serializers.ModelSerializer):
    """A module of a composition. `adapter` is null when it is one that you may not see (any more)."""

    adapter = serializers.SerializerMethodField()
    revision = serializers.SerializerMethodField()

    class Meta:
        model = Candidate
        fields = ("adapter", "revision", "mixing_weight", "audition_loss", "attribution", "reason")

    def get_adapter(self, candidate: Candidate) -> str | None:
        return candidate.revision.adapter.full_name if self._is_visible(candidate) else None

    def get_revision(self, candidate: Candidate) -> str | None:
        return candidate.revision.commit if self._is_visible(candidate) else None

    def _is_visible(self, candidate: Candidate) -> bool:
        return candidate.revision.adapter_id in self.context["named"]


class ScoreSerializer(serializers.ModelSerializer):
    class Meta:
        model = Score
        fields = ("method", "metric", "split", "value", "low", "high", "n")


class ExportedSerializer(serializers.Serializer):
    """The adapter that was written."""

    kind = serializers.ChoiceField(choices=["paper", "concatenated", "truncated"])
    rank = serializers.IntegerField(help_text="The highest of all matrices.")
    dtype = serializers.CharField()
    relative_error = serializers.FloatField(
        help_text="Of its changes to the base beside the mix's own, Frobenius norm; 0 when nothing was cut or rounded."
    )


class OptionScoreSerializer(serializers.Serializer):
    method = serializers.CharField()
    metric = serializers.CharField()
    value = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()
    n = serializers.IntegerField()
    split = serializers.CharField()


class OptionScoresSerializer(serializers.Serializer):
    """Methods held to a small closed set of answers; what then is left of a gain is more than the answer's form."""

    options = serializers.IntegerField(help_text="At most for one row.")
    origin = serializers.ChoiceField(
        choices=["listed", "seen"], help_text="Listed in each row, or seen as the examples' answers."
    )
    rows = serializers.IntegerField(help_text="Held-out rows scored so, the first of them.")
    rows_held_out = serializers.IntegerField()
    scores = OptionScoreSerializer(many=True)
    sentence = serializers.CharField()


class ResultSerializer(serializers.Serializer):
    """What was found. Losses are mean token losses on the few-shot examples."""

    scores = ScoreSerializer(many=True)
    verdict = serializers.CharField()
    notes = serializers.ListField(child=serializers.CharField())
    mix = serializers.ChoiceField(choices=["paper", "exact"])
    precision = serializers.CharField(help_text="Float type the search ran in; what was found is float32.")
    exported = ExportedSerializer(allow_null=True)
    option_scores = OptionScoresSerializer(
        allow_null=True, help_text="Null where the answers are no small closed set, or nothing was held out."
    )
    loss = serializers.FloatField()
    base_loss = serializers.FloatField()
    trials = serializers.IntegerField()
    stopped_early = serializers.BooleanField()
    seconds = serializers.DictField(child=serializers.FloatField())
    versions = serializers.DictField(child=serializers.CharField())


class DerivedLicenseSerializer(serializers.Serializer):
    """What the licences of the modules with a weight allow: a proposal, no legal advice."""

    license = serializers.CharField()
    note = serializers.CharField(help_text="How it came about.")
    is_doubtful = serializers.BooleanField(help_text="A person has to look.")


class LogLineSerializer(serializers.ModelSerializer):
    """One thing that happened."""

    class Meta:
        model = LogLine
        fields = ("at", "attempt", "text")


class CompositionRowSerializer(serializers.ModelSerializer):
    """A composition in a list. Of its adapter and its task only what the reader may be told is fetched."""

    base_model = serializers.CharField(source="base_model.name")
    task = serializers.SerializerMethodField()
    owner = serializers.CharField(
        source="owner.username",
        allow_null=True,
        default=None,
        read_only=True,
        help_text="Null where their account is deleted.",
    )
    adapter = serializers.SerializerMethodField()
    queue_place = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()

    class Meta:
        model = Composition
        fields: tuple[str, ...] = (
            "id",
            "url",
            "title",
            "owner",
            "base_model",
            "task",
            "method",
            "budget",
            "seed",
            "time_limit_s",
            "metric",
            "export_rank",
            "export_dtype",
            "status",
            "wish",
            "stage",
            "stage_note",
            "step",
            "steps",
            "counted",
            "queue_place",
            "created_at",
            "started_at",
            "finished_at",
            "error",
            "adapter",
        )

    def get_adapter(self, composition: Composition) -> str | None:
        """The published adapter; null while there is none that you may see."""
        adapter: Adapter | None = composition.adapter
        return adapter.full_name if adapter is not None and adapter.deleted_at is None else None

    def get_task(self, composition: Composition) -> str | None:
        """Its slug; null where there is none that you may be told of."""
        return composition.task.slug if composition.task is not None else None

    def get_queue_place(self, composition: Composition) -> int | None:
        """1 for the next in line; null for one that does not wait."""
        if composition.status != Composition.Status.QUEUED:
            return None
        return self._places.get(composition.pk)

    @cached_property
    def _places(self) -> dict[str, int]:
        # Once for a whole page: in a list one serializer serves all rows.
        return {pk: place for place, pk in enumerate(jobs.queue_order(), 1)}

    def get_url(self, composition: Composition) -> str:
        """Its page."""
        return self.context["request"].build_absolute_uri(composition.get_absolute_url())


class CompositionSerializer(CompositionRowSerializer):
    """A composition with all it measured. The examples themselves are its owner's alone and are not repeated here."""

    title = serializers.SerializerMethodField()
    pinned = serializers.SerializerMethodField()
    excluded = serializers.SerializerMethodField()
    few_shot = serializers.SerializerMethodField()
    held_out = serializers.SerializerMethodField()
    candidates = CandidateSerializer(many=True)
    held_back = serializers.SerializerMethodField()
    changed_since = serializers.SerializerMethodField()
    derived_license = serializers.SerializerMethodField()
    result = serializers.SerializerMethodField()

    class Meta(CompositionRowSerializer.Meta):
        fields = (
            *CompositionRowSerializer.Meta.fields,
            "held_back",
            "few_shot",
            "held_out",
            "split_note",
            "candidates_note",
            "pinned",
            "excluded",
            "attempt",
            "worker",
            "heartbeat_at",
            "base_commit",
            "spec_sha256",
            "candidates",
            "changed_since",
            "derived_license",
            "result",
        )

    def get_title(self, composition: Composition) -> str:
        return str(self.context["title"])

    def get_pinned(self, composition: Composition) -> list[str]:
        """Names the automatic choice had to take; for the owner only."""
        return composition.pinned if self._is_owner(composition) else []

    def get_excluded(self, composition: Composition) -> list[str]:
        """Names the automatic choice had to leave; for the owner only."""
        return composition.excluded if self._is_owner(composition) else []

    def _is_owner(self, composition: Composition) -> bool:
        return owns(self.context["request"].user, composition.owner_id)

    def get_few_shot(self, composition: Composition) -> int:
        """Rows that the search sees."""
        return len(composition.examples)

    def get_held_out(self, composition: Composition) -> int:
        """Rows that score the result; of a task's hidden rows all of them until it is known, the result's own after it."""
        is_open = composition.has_hidden_test and composition.status != Composition.Status.SUCCEEDED
        revision = composition.task_revision if is_open else None
        return len(composition.test_examples if revision is None else revision.test)

    def get_held_back(self, composition: Composition) -> bool:
        """It waits for one of your own to end, since as many of yours run as may at once; told to the owner only."""
        return self._is_owner(composition) and jobs.is_held_back(composition)

    @extend_schema_field(DerivedLicenseSerializer(allow_null=True))
    def get_derived_license(self, composition: Composition) -> dict[str, Any] | None:
        found = licence_of(composition.candidates.all())
        if found is None:
            return None
        return dict(DerivedLicenseSerializer(replace(found, note=self._tell(composition)(found.note))).data)

    def _tell(self, composition: Composition) -> Callable[[str], str]:
        """Takes the names of modules that this person may not see out of what is said."""
        return naming.without_hidden(composition.candidates.all(), self.context["named"])

    def get_changed_since(self, composition: Composition) -> list[str]:
        """Sentences: what the result is made of or scored on that is otherwise now."""
        return changed_since(
            composition,
            task=composition.task,  # fetched where this person may be told of it
            candidates=list(composition.candidates.all()),
            named=self.context["named"],
        )

    @extend_schema_field(ResultSerializer(allow_null=True))
    def get_result(self, composition: Composition) -> dict[str, Any] | None:
        if composition.result is None:
            return None
        scores = ScoreSerializer(composition.scores.all(), many=True).data
        # Results of earlier versions lack these.
        later = {"precision": "float32", "exported": None, "option_scores": None}
        found = {**later, "scores": scores, **composition.result}
        tell = self._tell(composition)
        said = {name: found.get(name, empty) for name, empty in _SENTENCES.items()}
        told = {
            name: [tell(each) for each in text] if isinstance(text, list) else tell(text)
            for name, text in said.items()
        }
        return {**found, **told}


class CompositionPublishSerializer(StrictSerializer):
    """Where a composed adapter goes."""

    namespace = serializers.CharField(required=False, help_text="Your own when left out.")
    name = serializers.CharField()
    visibility = serializers.ChoiceField(choices=Adapter.Visibility.choices, default="private")
    description = serializers.CharField(required=False, allow_blank=True, default="", max_length=500)


class SharedSerializer(serializers.Serializer):
    """A link. Whoever has it sees the result, and never the examples."""

    url = serializers.CharField()


class TrialSerializer(serializers.ModelSerializer):
    """`mixing_weights` in the order of the composition's candidates."""

    mixing_weights = serializers.ListField(child=serializers.FloatField())

    class Meta:
        model = Trial
        fields = ("number", "mixing_weights", "loss", "objective")


class NewTryoutSerializer(StrictSerializer):
    """A text for a composed adapter to answer."""

    text = serializers.CharField(max_length=8192, trim_whitespace=False)


class TryoutSerializer(serializers.ModelSerializer):
    """`answers` maps `composed` and `zero_shot` to their texts, and is empty until `status` is `done`."""

    answers = serializers.DictField(child=serializers.CharField())

    class Meta:
        model = Tryout
        fields = ("id", "text", "status", "answers", "error", "seconds", "created_at")


class PredictionSerializer(serializers.Serializer):
    """What each method wrote for one row; `outputs` maps the method to its text."""

    input = serializers.CharField()
    expected = serializers.CharField()
    outputs = serializers.DictField(child=serializers.CharField())
    values = serializers.DictField(
        child=serializers.FloatField(), help_text="What each is worth by the composition’s metric, 0 to 1."
    )


class PredictionsSerializer(serializers.Serializer):
    results = PredictionSerializer(many=True)
