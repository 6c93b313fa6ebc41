"""Parts that many pages share: the mark, code with a copy button, notices."""

from __future__ import annotations

import html
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from django import template
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.forms import BaseForm, BoundField
from django.template import Context
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from web import mail
from web.typed_by import mark_of

register = template.Library()

# The mark: a three by three grid of mixing weights, blue adds and amber takes away.
_MARK = [
    ("plus", 1.0), ("plus", 0.45), ("minus", 0.9),
    ("plus", 0.25), ("plus", 1.0), ("plus", 0.6),
    ("minus", 0.5), ("plus", 0.75), ("plus", 1.0),
]  # fmt: skip


@register.simple_tag
def sends_mail() -> bool:
    """Whether mail leaves this site; without a mail server it is written to the log."""
    return mail.is_sent()


@register.simple_tag
def takes_sign_ups() -> bool:
    """Whether anybody may make an account by the sign-up page."""
    return bool(settings.SIGN_UP_OPEN)


@register.simple_tag
def knows_other_server() -> bool:
    """Whether another server signs people in here as well."""
    return bool(settings.SOCIALACCOUNT_PROVIDERS)


@register.simple_tag
@cache
def mark(size: int = 22) -> SafeString:
    """Our mark as an inline picture."""
    squares = "".join(
        f'<rect class="{sign}" x="{i % 3 * 7.5}" y="{i // 3 * 7.5}" width="6.5" height="6.5" rx="1.5" opacity="{opacity}"/>'
        for i, (sign, opacity) in enumerate(_MARK)
    )
    return format_html(
        '<svg class="mark" width="{0}" height="{0}" viewBox="0 0 22 22" aria-hidden="true">{1}</svg>',
        size,
        mark_safe(squares),  # noqa: S308 - our own constants
    )


@register.simple_tag(takes_context=True)
def reader(context: Context) -> str:
    """The mark of who reads the page, by which scripts and forms know whose text it is that they keep."""
    person = context.get("user")
    return mark_of(person) if person is not None else ""


@register.simple_block_tag(takes_context=True, end_name="end_page_title")
def page_title(context: Context, content: str) -> SafeString:
    """The page's title, and with it what other sites show of the page where somebody posts its address."""
    title = " ".join(html.unescape(content).split())
    facts = [("og:title", title), ("og:site_name", "LoRA Commons"), ("og:type", "website")]
    with suppress(KeyError, DisallowedHost):
        facts.append(("og:image", context["request"].build_absolute_uri(static("mark.png"))))
    return format_html(
        '<title>{}</title>\n{}\n<meta name="twitter:card" content="summary">',
        title,
        format_html_join("\n", '<meta property="{}" content="{}">', facts),
    )


# --- Forms that were refused ------------------------------------------------------------------------------

# What pages call a refusal that no form of Django's holds.
_REFUSALS = (
    "base_problem",
    "delete_error",
    "error",
    "member_refused",
    "not_saved",
    "problem",
    "problems",
    "refusal",
    "refused",
)


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one input: `place` is the id to go to, empty for what is about none of them."""

    place: str
    label: str
    sentence: str


@register.simple_tag(takes_context=True)
def form_state(context: Context) -> str:
    """What the page's title begins with when it comes back with a refusal: it is read first."""
    shown = context.flatten()
    # By its type: `isinstance` would wake what is lazy, and give each guest a token for forms that the page has not.
    forms: list[Any] = [value for value in shown.values() if issubclass(type(value), BaseForm)]
    is_refused = any(form.is_bound and form.errors for form in forms)
    return "Error: " if is_refused or any(shown.get(name) for name in _REFUSALS) else ""


@register.simple_tag
def mistakes_of(form: BaseForm) -> list[Mistake]:
    """The first mistake of each input, and all that are about none. `form.places` names ids that are not Django's own."""
    places: dict[str, str] = getattr(form, "places", {})
    found: dict[str, Mistake] = {}
    for error in form.non_field_errors().as_data():
        sentence = str(error.messages[0])
        place = places.get(error.code or "", "")
        found.setdefault(place or sentence, Mistake(place, "", sentence))
    for field in form:
        if field.errors:
            own = field.id_for_label or f"{field.auto_id}_0"  # the first of several choices
            place = "" if field.is_hidden else places.get(field.name, own)
            found.setdefault(place or field.name, Mistake(place, str(field.label), str(field.errors[0])))
    return list(found.values())


@register.simple_tag
def input_of(field: BoundField, hint: str = "") -> SafeString:
    """The input of a field, tied to the hint and the mistakes that stand below it."""
    below = [("helptext", bool(hint or field.help_text)), ("error", bool(field.errors))]
    ids = " ".join(f"{field.auto_id}_{part}" for part, is_there in below if is_there)
    return field.as_widget(attrs={"aria-describedby": ids} if ids else None)


@register.inclusion_tag("web/_code.html")
def code(text: str, label: str = "Copy", wrap: bool = False) -> dict[str, Any]:
    """Text to be copied, in a block with its button. `label` says what the button copies."""
    return {"text": text, "label": label, "wrap": wrap}


@register.inclusion_tag("web/_copy.html")
def copy_button(text: str, label: str = "Copy", face: str = "") -> dict[str, Any]:
    """A button that copies `text`; `label` says so where there is no visible word, `face`, to be its name."""
    return {"text": text, "label": label, "face": face}


@register.simple_block_tag(end_name="end_code_lines")
def code_lines(content: str, label: str = "Copy") -> SafeString:
    """`{% code_lines "Copy the command" %}…{% end_code_lines %}`: what stands between, as a block to copy."""
    return render_to_string("web/_code.html", code(html.unescape(content), label))
