"""What people type to import from another Hub, or to push to one. Rules live in the domain functions."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings

from registry.forms import VISIBILITIES, writable_names
from registry.models import Adapter, User

_SOURCES_SHOWN = "lorahub/flan_t5_large-*\nsomebody/their-adapter"


class TokenField(forms.CharField):
    """A token for another Hub: never sent back to the page, not even after a mistake."""

    def __init__(self, *, help_text: str, required: bool) -> None:
        super().__init__(
            label="Your token there",
            required=required,
            max_length=1000,
            help_text=help_text,
            widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        )


class ImportForm(forms.Form):
    sources = forms.CharField(
        label="What to import",
        max_length=100_000,
        widget=forms.Textarea(
            attrs={"rows": 4, "class": "mono", "spellcheck": "false", "placeholder": _SOURCES_SHOWN}
        ),
        help_text="Ids, or patterns with *, one a line.",
    )
    endpoint = forms.ChoiceField(label="From")
    namespace = forms.ChoiceField(label="Into")
    revision = forms.CharField(
        label="Revision",
        required=False,
        max_length=255,
        widget=forms.TextInput(attrs={"placeholder": "main", "spellcheck": "false", "autocomplete": "off"}),
    )
    name = forms.CharField(
        label="Name here",
        required=False,
        max_length=96,
        widget=forms.TextInput(
            attrs={"placeholder": "as it is there", "spellcheck": "false", "autocomplete": "off"}
        ),
        help_text="Only for a single repository.",
    )
    token = TokenField(
        required=False, help_text="Only for what is private there. Kept sealed until the import ends."
    )
    visibility = forms.ChoiceField(
        choices=VISIBILITIES,
        widget=forms.RadioSelect,
        initial=Adapter.Visibility.PUBLIC,
    )

    overwrite = forms.BooleanField(
        required=False, label="A newer commit there becomes the newest version, on top of those made here"
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _offer(self, "endpoint", [(address, _shown(address)) for address in settings.IMPORT_ENDPOINTS])
        _offer(self, "namespace", [(name, name) for name in writable_names(user)])

    def clean_sources(self) -> list[str]:
        sources: str = self.cleaned_data["sources"]
        return sources.replace(",", " ").split()


class PushForm(forms.Form):
    endpoint = forms.ChoiceField(label="To")
    target = forms.CharField(
        label="Name there",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocomplete": "off"}),
        help_text="namespace/name; without a namespace it is your own there.",
    )
    token = TokenField(
        required=True,
        help_text="One that may write. Kept sealed until the push ends, and never shown or logged.",
    )
    visibility = forms.ChoiceField(
        choices=[(Adapter.Visibility.PRIVATE, "Private"), (Adapter.Visibility.PUBLIC, "Public")],
        widget=forms.RadioSelect,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _offer(self, "endpoint", [(address, _shown(address)) for address in settings.PUSH_ENDPOINTS])


def _offer(form: forms.Form, name: str, choices: list[tuple[str, str]]) -> None:
    form.fields[name].choices = choices  # type: ignore[attr-defined]


def _shown(address: str) -> str:
    return address.partition("://")[2]
