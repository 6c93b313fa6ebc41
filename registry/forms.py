"""What people type on the registry's pages. Rules live in the domain functions; forms only read and keep input."""

from __future__ import annotations

from typing import Any

from django import forms

from registry.bases_on_hub import hub_of_bases
from registry.cards import MAX_CARD_BYTES
from registry.details import LIMITS, MAX_FULL_NAME
from registry.models import Adapter, Membership, Namespace, Report, Token, User
from registry.models.accounts import MAX_ABOUT, MAX_WEBSITE
from registry.rights import may_take_away, writable_namespaces

# Ids as the Hub writes them, most used first.
LICENCES = [
    ("apache-2.0", "Apache-2.0"),
    ("mit", "MIT"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("cc-by-4.0", "CC BY 4.0"),
    ("cc-by-sa-4.0", "CC BY-SA 4.0"),
    ("cc-by-nc-4.0", "CC BY-NC 4.0, no commercial use"),
    ("cc0-1.0", "CC0 1.0, public domain"),
    ("gpl-3.0", "GPL-3.0"),
    ("agpl-3.0", "AGPL-3.0"),
    ("openrail", "OpenRAIL"),
    ("llama2", "Llama 2 licence"),
    ("llama3", "Llama 3 licence"),
    ("llama3.1", "Llama 3.1 licence"),
    ("llama3.2", "Llama 3.2 licence"),
    ("gemma", "Gemma terms"),
]
OTHER = "other"
_KNOWN_LICENCES = {value for value, _ in LICENCES}


class LinesField(forms.CharField):
    """A text of several lines, each ended by one character: browsers send two, which a model or a script would read."""

    def to_python(self, value: Any) -> str:
        return str(super().to_python(value)).replace("\r\n", "\n")


class LicenceFields(forms.Form):
    """A choice of common licences, and a line for any other."""

    license = forms.ChoiceField(
        label="Licence",
        required=False,
        choices=[("", "Not said"), *LICENCES, (OTHER, "Another …")],
    )
    license_other = forms.CharField(
        label="Which licence",
        required=False,
        max_length=LIMITS["license"],
        widget=forms.TextInput(attrs={"placeholder": "SPDX id or name"}),
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        other = data.pop("license_other", "").strip()
        if data.get("license") == OTHER:
            if not other:
                self.add_error("license_other", "Name the licence, or choose “Not said”.")
            data["license"] = other
        return data

    @staticmethod
    def initial_for(license: str) -> dict[str, str]:
        """How the two fields begin for a licence that is already set."""
        if license.lower() in _KNOWN_LICENCES or not license:
            return {"license": license.lower()}
        return {"license": OTHER, "license_other": license}


VISIBILITIES = [
    (Adapter.Visibility.PUBLIC, "Public: anybody can find, download and compose it"),
    (Adapter.Visibility.PRIVATE, "Private: only members of the namespace see it"),
]


class UploadForm(LicenceFields):
    """What is said about the files; the files themselves come beside it, as many as there are.

    No input says autocomplete="off": browsers would not bring back what was typed on the way back here.
    """

    namespace = forms.ChoiceField(label="Publish as")
    name = forms.CharField(
        label="Name",
        max_length=200,
        widget=forms.TextInput(attrs={"spellcheck": "false", "placeholder": "colour-in-a-sentence"}),
    )
    base_model = forms.CharField(
        label="Base model",
        required=False,
        max_length=LIMITS["base_model"],
        widget=forms.TextInput(
            attrs={
                "list": "base-models",
                "spellcheck": "false",
                "placeholder": "google/flan-t5-large",
            }
        ),
    )
    task = forms.CharField(
        label="Trained on",
        required=False,
        max_length=LIMITS["task"],
        widget=forms.TextInput(
            attrs={
                "list": "tasks",
                "placeholder": "An existing task, or a few words for a new one",
            }
        ),
    )
    description = forms.CharField(
        label="In one sentence",
        required=False,
        max_length=LIMITS["description"],
        widget=forms.TextInput(attrs={"placeholder": "Names the colour of the thing, in a full sentence"}),
    )
    visibility = forms.ChoiceField(
        choices=VISIBILITIES,
        widget=forms.RadioSelect,
        initial=Adapter.Visibility.PUBLIC,
    )
    card = forms.CharField(
        label="Card",
        required=False,
        max_length=250_000,
        widget=forms.Textarea(
            attrs={
                "rows": 6,
                "class": "mono",
                "placeholder": "What it does, what it was trained on, how to prompt it. Markdown.",
            }
        ),
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = writable_names(user)
        self.fields["namespace"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]
        self.order_fields(["namespace", "name", "base_model", "task", "description", "license"])


class AdapterForm(LicenceFields):
    """What an owner may change without a new version."""

    description = forms.CharField(label="In one sentence", required=False, max_length=LIMITS["description"])
    task = forms.CharField(
        label="Trained on",
        required=False,
        max_length=LIMITS["task"],
        widget=forms.TextInput(attrs={"list": "tasks"}),
    )
    base_model = forms.CharField(
        label="Base model",
        required=False,
        max_length=LIMITS["base_model"],
        widget=forms.TextInput(attrs={"list": "base-models", "spellcheck": "false"}),
    )
    dataset = forms.CharField(label="Data set", required=False, max_length=LIMITS["dataset"])
    dataset_revision = forms.CharField(
        label="Revision of the data", required=False, max_length=LIMITS["dataset_revision"]
    )
    training = forms.CharField(label="Training", required=False, max_length=LIMITS["training"])
    leakage = forms.CharField(label="Seen before?", required=False, max_length=LIMITS["leakage"])
    prompt_template = LinesField(
        label="Prompt template",
        required=False,
        max_length=LIMITS["prompt_template"],
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "mono"}),
    )
    language = forms.CharField(label="Language", required=False, max_length=LIMITS["language"])
    tags = forms.CharField(label="Tags", required=False, max_length=2000, help_text="Separated by commas.")
    visibility = forms.ChoiceField(
        choices=VISIBILITIES,
        widget=forms.RadioSelect,
    )

    def clean_tags(self) -> list[str]:
        return [tag.strip() for tag in self.cleaned_data["tags"].split(",") if tag.strip()]


class CardForm(forms.Form):
    """A card as it stands in its file, and the commit it was written on."""

    card = LinesField(
        label="README.md",
        required=False,
        strip=False,
        max_length=MAX_CARD_BYTES,
        widget=forms.Textarea(attrs={"rows": 24, "class": "mono"}),
    )
    parent = forms.CharField(required=False, max_length=40, widget=forms.HiddenInput)


class MoveForm(forms.Form):
    """Another name for an adapter, another namespace, or both."""

    namespace = forms.ChoiceField(label="Namespace")
    name = forms.CharField(
        label="Name",
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, user: User, adapter: Adapter, **kwargs: Any) -> None:
        here = {"namespace": adapter.namespace.name, "name": adapter.name}
        super().__init__(*args, **{**kwargs, "initial": here, "prefix": "move"})
        self.full_name = adapter.full_name
        self.may_take_away = may_take_away(user, adapter)
        names = writable_names(user) if self.may_take_away else [adapter.namespace.name]
        self.fields["namespace"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if "name" in data and f"{data.get('namespace')}/{data['name']}" == self.full_name:
            self.add_error(
                "name", f"It is called {self.full_name} already. Give it another name, or another namespace."
            )
        return data


class BaseModelForm(forms.Form):
    """A base model by its config.json, so that adapters for it can be checked."""

    name = forms.CharField(
        label="Name",
        max_length=200,
        widget=forms.TextInput(
            attrs={"placeholder": "organisation/model", "autocomplete": "off", "spellcheck": "false"}
        ),
        help_text="The id that people use for it on a hub.",
    )
    aliases = forms.CharField(
        label="Other names",
        required=False,
        max_length=5000,
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
        help_text="Mirrors, older ids, paths that adapters name. One a line.",
    )
    config = forms.FileField(label="config.json", required=False)
    config_text = forms.CharField(
        label="or paste it",
        required=False,
        widget=forms.Textarea(attrs={"rows": 8, "class": "mono", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hub = hub_of_bases()
        if self.hub:
            self.fields[
                "config"
            ].help_text = (
                f"Left empty, it is read at {self.hub.partition('://')[2]}, where workers fetch the model."
            )

    def clean_aliases(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["aliases"].splitlines() if line.strip()]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        has_config = data.get("config") is not None or data.get("config_text", "").strip()
        if not has_config and not self.hub:
            self.add_error("config", "Choose the config.json of the base model, or paste its text.")
        return data


class TokenForm(forms.Form):
    name = forms.CharField(
        label="Name",
        max_length=100,
        widget=forms.TextInput(attrs={"placeholder": "training box", "autocomplete": "off"}),
    )
    scope = forms.ChoiceField(
        label="May",
        choices=[
            (Token.Scope.READ, "read, also what is private"),
            (Token.Scope.WRITE, "read, publish and compose"),
        ],
    )
    days = forms.TypedChoiceField(
        label="Expires",
        required=False,
        coerce=int,
        empty_value=None,
        choices=[("30", "in 30 days"), ("90", "in 90 days"), ("365", "in a year"), ("", "never")],
        initial="90",
    )
    limit = forms.CharField(
        label="Only for",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"list": "token-limits", "autocomplete": "off", "spellcheck": "false"}),
    )


class ProfileForm(forms.Form):
    """What a person or an organisation says of itself."""

    full_name = forms.CharField(label="Name to show", required=False, max_length=MAX_FULL_NAME)
    about = forms.CharField(label="In one line", required=False, max_length=MAX_ABOUT)
    website = forms.CharField(
        label="Website",
        required=False,
        max_length=MAX_WEBSITE,
        widget=forms.URLInput(attrs={"placeholder": "https://example.org", "autocomplete": "url"}),
    )

    def __init__(self, data: Any = None, *, of: Namespace) -> None:
        super().__init__(data, initial={name: getattr(of, name) for name in self.base_fields})
        name = "organization" if of.is_organisation else "name"
        self.fields["full_name"].widget.attrs["autocomplete"] = name


class ReportForm(forms.Form):
    """What is wrong with an adapter, in the eyes of a visitor."""

    reason = forms.ChoiceField(label="What is wrong", choices=Report.Reason.choices, widget=forms.RadioSelect)
    text = forms.CharField(
        label="In your words", required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 4})
    )


class OrganisationForm(forms.Form):
    name = forms.CharField(
        label="Name",
        max_length=200,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "story-lab"}
        ),
        help_text="Its modules appear as name/module. Letters, digits, '-', '_' and '.'. It cannot be changed later.",
    )
    full_name = forms.CharField(
        label="Name to show",
        required=False,
        max_length=MAX_FULL_NAME,
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )


class InviteForm(forms.Form):
    username = forms.CharField(
        label="User name",
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    role = forms.ChoiceField(
        label="May",
        choices=[
            (Membership.Role.READ, "read: see what is private"),
            (Membership.Role.WRITE, "write: publish, change, rename and delete"),
            (
                Membership.Role.ADMIN,
                "admin: also decide who belongs and what its page says, and move modules elsewhere",
            ),
        ],
        initial=Membership.Role.WRITE,
    )


def writable_names(user: User) -> list[str]:
    """Namespaces in which this person may publish, their own first."""
    names = writable_namespaces(user).values_list("name", flat=True)
    return sorted(names, key=lambda name: (name.lower() != user.username.lower(), name.lower()))
