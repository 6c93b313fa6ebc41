"""Refusals of the domain on a page's form."""

from __future__ import annotations

from django import forms

from web.errors import DomainError


def show_refusal(form: forms.BaseForm, error: DomainError) -> None:
    """Put a refusal beside the input it is about, or above the form where it is about none of them."""
    # The message is the whole sentence; the fields' own are short, since they were made for scripts.
    form.add_error(next((name for name in error.fields if name in form.fields), None), error.message)
