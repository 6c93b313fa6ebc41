"""The shapes of the registry's API. Rules are the domain functions' business."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from registry import download_days
from registry.models import Adapter, AdapterScore, BaseModel, Namespace, Revision, RevisionFile, Task, Token
from registry.preparing import Report
from registry.search import fits_of, task_scores


class StrictSerializer(serializers.Serializer):
    """Refuses names that it does not know: a mistyped field must not be silently ignored. Says which choices there are."""

    default_error_messages = {"invalid": "Send the fields as one JSON object, not as {datatype}."}

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        for field in fields.values():
            if isinstance(field, serializers.ChoiceField):
                known = ", ".join(map(str, field.choices))
                field.error_messages["invalid_choice"] = f'"{{input}}" is none of these: {known}.'
        return dict(fields)

    def to_internal_value(self, data: Any) -> Any:
        if hasattr(data, "keys"):
            unknown = [name for name in data.keys() if name not in self.fields]  # noqa: SIM118 - a QueryDict
            if unknown:
                allowed = ", ".join(self.fields)
                raise serializers.ValidationError(
                    {
                        str(name)[:100]: [f"There is no such field; there are: {allowed}."]
                        for name in unknown[:10]
                    }
                )
        return super().to_internal_value(data)


# --- Adapters ----------------------------------------------------------------------------------------------


class TaskNameSerializer(serializers.ModelSerializer[Task]):
    class Meta:
        model = Task
        fields = ["slug", "title"]


class AdapterSerializer(serializers.ModelSerializer[Adapter]):
    """An adapter in a list."""

    id = serializers.CharField(source="full_name", read_only=True, help_text="namespace/name")
    namespace = serializers.CharField(source="namespace.name", read_only=True)
    task = TaskNameSerializer(source="shown_task", read_only=True, allow_null=True)
    base_model = serializers.CharField(
        source="base_model.name",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="null: not known here.",
    )
    base_fit = serializers.SerializerMethodField(help_text="fits, unchecked or differs.")
    composable = serializers.BooleanField(source="is_composable", read_only=True)
    composable_reason = serializers.SerializerMethodField(help_text="Why not, when it is not.")
    composes_with = serializers.SerializerMethodField(help_text="Other adapters it can be composed with.")
    revision = serializers.SerializerMethodField(help_text="Commit of the newest revision.")
    tags = serializers.ListField(child=serializers.CharField(), read_only=True)
    published_at = serializers.DateTimeField(
        read_only=True,
        help_text="When everybody could first see it, by which new ones are found; when it was made, until then.",
    )
    url = serializers.SerializerMethodField(help_text="Its page.")

    class Meta:
        model = Adapter
        fields = [
            "id", "namespace", "name", "kind", "visibility", "description", "license", "language", "tags", "task",
            "base_model", "base_model_label", "base_fit", "composable", "composable_reason", "composes_with", "rank",
            "parameters", "dataset", "dataset_revision", "training", "leakage", "prompt_template", "size_bytes", "best_score", "best_score_metric", "downloads", "likes", "revision", "created_at", "published_at", "updated_at", "url",
        ]  # fmt: skip
        read_only_fields = fields

    def get_base_fit(self, adapter: Adapter) -> str:
        return adapter.head.base_fit if adapter.head else Revision.BaseFit.UNCHECKED

    def get_composable_reason(self, adapter: Adapter) -> str:
        return adapter.head.composable_reason if adapter.head else ""

    def get_composes_with(self, adapter: Adapter) -> int:
        return getattr(adapter, "composes_with", 0)

    def get_revision(self, adapter: Adapter) -> str | None:
        return adapter.head.commit if adapter.head else None

    def get_url(self, adapter: Adapter) -> str:
        return self.context["request"].build_absolute_uri(adapter.get_absolute_url())


class FacetValueSerializer(serializers.Serializer):
    value = serializers.CharField(help_text="As the parameter takes it.")
    label = serializers.CharField(help_text="As people read it.")  # type: ignore[assignment]
    count = serializers.IntegerField()


class FacetSerializer(serializers.Serializer):
    parameter = serializers.CharField()
    values = FacetValueSerializer(many=True)
    more = serializers.IntegerField(help_text="Values that are not listed, for being the rarest.")


class FacetsSerializer(serializers.Serializer):
    count = serializers.IntegerField(help_text="Adapters that fit all parameters.")
    facets = FacetSerializer(many=True)


class FileSerializer(serializers.ModelSerializer[RevisionFile]):
    size_bytes = serializers.IntegerField(source="blob.size_bytes", read_only=True)
    sha256 = serializers.CharField(source="blob.sha256", read_only=True)
    git_sha1 = serializers.CharField(
        source="blob.git_sha1", read_only=True, help_text="git's blob id; empty for files above 32 MiB."
    )
    url = serializers.SerializerMethodField(help_text="Where its bytes are, of this very revision.")

    class Meta:
        model = RevisionFile
        fields = ["path", "size_bytes", "sha256", "git_sha1", "url"]

    def get_url(self, file: RevisionFile) -> str:
        return self.context["file_url"](file)


class FileListSerializer(serializers.Serializer):
    revision = serializers.CharField(help_text="Commit that these files belong to.")
    results = FileSerializer(many=True)


class TaskScoreSerializer(serializers.ModelSerializer[AdapterScore]):
    """What an adapter reaches on a task, and who says so."""

    task = serializers.SerializerMethodField(help_text="Its slug; null for one that you may not be told of.")
    task_revision = serializers.IntegerField(
        source="task_revision.number",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="Whose hidden rows it was computed on; null for what is reported.",
    )
    verified = serializers.SerializerMethodField(help_text="Computed by this site.")

    class Meta:
        model = AdapterScore
        fields = [
            "task",
            "task_revision",
            "metric",
            "value",
            "low",
            "high",
            "n",
            "verified",
            "note",
            "created_at",
        ]
        read_only_fields = fields

    def get_task(self, score: AdapterScore) -> str | None:
        return score.task.slug if getattr(score, "is_named", False) else None

    def get_verified(self, score: AdapterScore) -> bool:
        return score.source == AdapterScore.Source.VERIFIED


class DownloadDaySerializer(serializers.Serializer):
    day = serializers.DateField(help_text="Of UTC.")
    count = serializers.IntegerField(help_text="Each client once for each version.")


class AdapterDetailSerializer(AdapterSerializer):
    """An adapter with everything known about its newest revision."""

    facts = serializers.SerializerMethodField(help_text="What was read from config and tensor header.")
    warnings = serializers.SerializerMethodField()
    files = serializers.SerializerMethodField()
    scores = serializers.SerializerMethodField(help_text="On tasks, the newest first.")
    downloads_by_day = serializers.SerializerMethodField(
        help_text="Of the last 30 days, today last; none before it was made."
    )

    class Meta(AdapterSerializer.Meta):
        fields = [*AdapterSerializer.Meta.fields, "facts", "warnings", "files", "scores", "downloads_by_day"]
        read_only_fields = fields

    def get_facts(self, adapter: Adapter) -> dict[str, Any]:
        return adapter.head.facts if adapter.head else {}

    def get_warnings(self, adapter: Adapter) -> list[str]:
        return adapter.head.warnings if adapter.head else []

    def get_files(self, adapter: Adapter) -> FileSerializer(many=True):  # type: ignore[valid-type]
        if adapter.head is None:
            return []
        return FileSerializer(adapter.head.files_by_path(), many=True, context=self.context).data

    def get_scores(self, adapter: Adapter) -> TaskScoreSerializer(many=True):  # type: ignore[valid-type]
        return TaskScoreSerializer(task_scores(adapter, self.context["request"].user), many=True).data

    def get_downloads_by_day(self, adapter: Adapter) -> DownloadDaySerializer(many=True):  # type: ignore[valid-type]
        return DownloadDaySerializer(download_days.days_of(adapter), many=True).data


class RevisionSerializer(serializers.ModelSerializer[Revision]):
    parent = serializers.CharField(  # type: ignore[assignment]
        source="parent.commit", read_only=True, allow_null=True, default=None
    )
    author = serializers.CharField(source="author.username", read_only=True, allow_null=True, default=None)
    composable = serializers.BooleanField(source="is_composable", read_only=True)
    warnings = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Revision
        fields = [
            "commit", "parent", "author", "message", "created_at", "base_fit", "composable", "composable_reason",
            "tensor_sha256", "size_bytes", "warnings",
        ]  # fmt: skip


class RevisionDetailSerializer(RevisionSerializer):
    """A revision with everything known about it."""

    facts = serializers.DictField(read_only=True, help_text="What was read from config and tensor header.")
    files = serializers.SerializerMethodField()

    class Meta(RevisionSerializer.Meta):
        fields = [*RevisionSerializer.Meta.fields, "facts", "files"]

    def get_files(self, revision: Revision) -> FileSerializer(many=True):  # type: ignore[valid-type]
        return FileSerializer(revision.files_by_path(), many=True, context=self.context).data


class HashMatchSerializer(serializers.ModelSerializer[Revision]):
    adapter = serializers.CharField(source="adapter.full_name", read_only=True)
    path = serializers.CharField(
        read_only=True, allow_null=True, help_text="The file with this hash; null if its tensors have it."
    )
    is_newest = serializers.SerializerMethodField()

    class Meta:
        model = Revision
        fields = ["adapter", "commit", "created_at", "path", "is_newest"]

    def get_is_newest(self, revision: Revision) -> bool:
        return revision.pk == revision.adapter.head_id


_TEXT: dict[str, Any] = {"required": False, "allow_blank": True, "default": ""}


class UploadSerializer(StrictSerializer):
    """The files of an adapter as multipart/form-data. A file name may be a path; a folder around all is taken off."""

    files = serializers.ListField(
        child=serializers.FileField(allow_empty_file=True),
        allow_empty=False,
        help_text="Repeated: adapter_config.json, adapter_model.safetensors, README.md, ...",
        error_messages={"required": "Send the adapter's files, each as a field named files."},
    )
    base_model = serializers.CharField(**_TEXT, help_text="Its id or another name; else the config says.")


class PublishSerializer(UploadSerializer):
    """An upload and what is said about it. What is left out comes from the card, or stays as it was."""

    name = serializers.CharField()
    namespace = serializers.CharField(**_TEXT, help_text="Yours unless given.")
    task = serializers.CharField(**_TEXT, help_text="Slug or title of what it was trained on.")
    license = serializers.CharField(**_TEXT)
    description = serializers.CharField(**_TEXT)
    language = serializers.CharField(**_TEXT)
    visibility = serializers.ChoiceField(
        choices=Adapter.Visibility.choices, required=False, allow_blank=True, default=""
    )
    tags = serializers.ListField(
        child=serializers.CharField(), required=False, default=list, help_text="Repeated, or with commas."
    )
    message = serializers.CharField(**_TEXT, help_text="What is new in this revision.")


class AdapterChangesSerializer(StrictSerializer):
    description = serializers.CharField(required=False, allow_blank=True)
    license = serializers.CharField(required=False, allow_blank=True)
    language = serializers.CharField(required=False, allow_blank=True)
    dataset = serializers.CharField(required=False, allow_blank=True, help_text="What it was trained on.")
    dataset_revision = serializers.CharField(required=False, allow_blank=True)
    training = serializers.CharField(required=False, allow_blank=True, help_text="Epochs and the like.")
    leakage = serializers.CharField(
        required=False, allow_blank=True, help_text="What the base model or a test set may have seen of it."
    )
    prompt_template = serializers.CharField(
        required=False, allow_blank=True, trim_whitespace=False, help_text="With {input} where the text goes."
    )
    visibility = serializers.ChoiceField(choices=Adapter.Visibility.choices, required=False)
    tags = serializers.ListField(child=serializers.CharField(), required=False)
    task = serializers.CharField(required=False, allow_blank=True, help_text="Slug or title; empty for none.")
    base_model = serializers.CharField(
        required=False, help_text="Compared with the weights before it is kept."
    )


class MoveSerializer(StrictSerializer):
    """What is left away stays as it is."""

    namespace = serializers.CharField(required=False, help_text="A namespace that you may write to.")
    name = serializers.CharField(required=False)


class ProblemSerializer(serializers.Serializer):
    file = serializers.CharField()
    message = serializers.CharField()
    where = serializers.CharField(help_text="Key or tensor.")
    found = serializers.CharField()
    expected = serializers.CharField()
    times = serializers.IntegerField(
        help_text="More than 1 where one sentence stands for many that are not listed."
    )


class LeftOutSerializer(serializers.Serializer):
    path = serializers.CharField()
    why = serializers.CharField()


class SizedFileSerializer(serializers.Serializer):
    path = serializers.CharField()
    size_bytes = serializers.IntegerField()


class ReportSerializer(serializers.Serializer[Report]):
    """What publishing these files would do."""

    publishable = serializers.BooleanField(source="is_publishable")
    problems = ProblemSerializer(many=True)
    warnings = serializers.ListField(child=serializers.CharField())
    left_out = LeftOutSerializer(many=True)
    files = SizedFileSerializer(many=True, help_text="What would be kept.")
    facts = serializers.DictField()
    composable = serializers.BooleanField(source="is_composable")
    composable_reason = serializers.CharField()
    base_model = serializers.CharField(source="base_model.name", allow_null=True, default=None)
    base_model_label = serializers.CharField()
    base_fit = serializers.CharField()
    composes_with = serializers.IntegerField()
    defaults = serializers.DictField(
        help_text="Licence, language, tags, data set and prompt template as the card gives them."
    )


# --- Base models, tasks, people -----------------------------------------------------------------------------


class BaseModelSerializer(serializers.ModelSerializer[BaseModel]):
    aliases = serializers.SerializerMethodField()
    adapters = serializers.SerializerMethodField(help_text="How many you can see that were made for it.")
    url = serializers.SerializerMethodField()

    class Meta:
        model = BaseModel
        fields = [
            "name", "kind", "architecture", "task_type", "license", "parameters", "aliases", "adapters", "url",
        ]  # fmt: skip

    def get_aliases(self, base_model: BaseModel) -> list[str]:
        return [alias.text for alias in base_model.aliases.all()]

    def get_adapters(self, base_model: BaseModel) -> int:
        return getattr(base_model, "visible_adapters", 0)

    def get_url(self, base_model: BaseModel) -> str:
        return self.context["request"].build_absolute_uri(base_model.get_absolute_url())


class BaseModelFileSerializer(serializers.Serializer):
    path = serializers.CharField()
    size_bytes = serializers.IntegerField(source="blob.size_bytes")
    sha256 = serializers.CharField(source="blob.sha256")
    url = serializers.SerializerMethodField()

    def get_url(self, file: Any) -> str:
        return self.context["file_url"](file)


class BaseModelDetailSerializer(BaseModelSerializer):
    matrices = serializers.DictField(
        child=serializers.ListField(child=serializers.IntegerField()),
        read_only=True,
        help_text="Path of a linear matrix, layer numbers as {first..last} -> [in, out].",
    )
    config = serializers.DictField(read_only=True)
    files = BaseModelFileSerializer(many=True, read_only=True, help_text="Of one that is hosted here.")
    recheck_wanted_at = serializers.DateTimeField(
        read_only=True,
        allow_null=True,
        help_text="Since then its adapters wait to be compared with it; null: none waits.",
    )
    rechecked_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="When they were compared last."
    )
    adapters_by_fit = serializers.SerializerMethodField(
        help_text="How many that you can see fit it, differ from it, or could not be compared (unchecked)."
    )

    class Meta(BaseModelSerializer.Meta):
        fields = [
            *BaseModelSerializer.Meta.fields, "matrices", "config", "files", "recheck_wanted_at", "rechecked_at",
            "adapters_by_fit",
        ]  # fmt: skip

    def get_adapters_by_fit(self, base_model: BaseModel) -> dict[str, int]:
        listed = self.get_adapters(base_model)
        return fits_of(base_model, listed=listed, person=self.context["request"].user)


class NewBaseModelSerializer(StrictSerializer):
    name = serializers.CharField(help_text="Its id on the hub, such as google/flan-t5-large.")
    config = serializers.DictField(
        required=False, help_text="The content of its config.json; read on the hub where it is left out."
    )
    aliases = serializers.ListField(child=serializers.CharField(), required=False, default=list)
    license = serializers.CharField(**_TEXT)


class ExampleSerializer(serializers.Serializer):
    input = serializers.CharField()
    output = serializers.CharField()


class TaskSerializer(serializers.ModelSerializer[Task]):
    """A task. Its test rows are never given."""

    base_model = serializers.CharField(
        source="base_model.name", read_only=True, allow_null=True, default=None
    )
    held_out = serializers.BooleanField(source="is_held_out", read_only=True)
    visibility = serializers.SerializerMethodField(help_text="private: only members of its owner see it.")
    owner = serializers.SerializerMethodField(help_text="null: the site's own, or of somebody who is gone.")
    revision = serializers.SerializerMethodField(help_text="The newest; null for a task without rows.")
    seed = serializers.SerializerMethodField(
        help_text="That drew the hidden rows, where they were drawn here."
    )
    tags = serializers.ListField(child=serializers.CharField(), read_only=True)
    examples = serializers.SerializerMethodField(help_text="Few-shot rows, where it has them.")
    test_rows = serializers.SerializerMethodField(help_text="How many hidden rows it is scored on.")
    published_at = serializers.DateTimeField(
        read_only=True, help_text="When everybody could first see it; when it was made, until then."
    )
    url = serializers.SerializerMethodField()

    class Meta:
        model = Task
        fields = [
            "slug", "title", "description", "metric", "tags", "base_model", "owner", "source", "license", "held_out",
            "visibility", "revision", "seed", "examples", "test_rows", "created_at", "published_at", "url",
        ]  # fmt: skip

    def get_owner(self, task: Task) -> str | None:
        return task.owner.name if task.owner is not None and task.owner.deleted_at is None else None

    @extend_schema_field(serializers.ChoiceField(choices=Adapter.Visibility.choices))
    def get_visibility(self, task: Task) -> str:
        return "private" if task.is_private else "public"

    def get_revision(self, task: Task) -> int | None:
        return getattr(task, "revision", None)

    def get_seed(self, task: Task) -> int | None:
        return getattr(task, "seed", None)

    def get_examples(self, task: Task) -> ExampleSerializer(many=True):  # type: ignore[valid-type]
        return [{"input": row.input, "output": row.output} for row in getattr(task, "shown_rows", [])]

    def get_test_rows(self, task: Task) -> int:
        return getattr(task, "hidden_rows", 0)

    def get_url(self, task: Task) -> str:
        return self.context["request"].build_absolute_uri(task.get_absolute_url())


class NamespaceRoleSerializer(serializers.Serializer):
    name = serializers.CharField(source="namespace.name")
    kind = serializers.ChoiceField(source="namespace.kind", choices=Namespace.Kind.choices)
    role = serializers.CharField()


class TokenSerializer(serializers.ModelSerializer[Token]):
    limit = serializers.CharField(
        read_only=True, help_text="The namespace or adapter that it is only for; empty for all."
    )
    hint = serializers.CharField(read_only=True, help_text="Its first characters.")

    class Meta:
        model = Token
        fields = [
            "id", "name", "scope", "limit", "hint", "created_at", "expires_at", "last_used_at", "revoked_at",
        ]  # fmt: skip
        read_only_fields = fields


class WhoAmISerializer(serializers.Serializer):
    username = serializers.CharField()
    namespaces = NamespaceRoleSerializer(many=True)
    token = TokenSerializer(allow_null=True)
