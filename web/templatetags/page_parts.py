"""Parts that many pages share: the mark, code with a copy button, notices."""

from __future__ import annotations

import html
from contextlib import suppress
from typing import Any

from django import template
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.template import Context
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

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
    return bool(settings.EMAIL_HOST)


@register.simple_tag
def takes_sign_ups() -> bool:
    """Whether anybody may make an account by the sign-up page."""
    return bool(settings.SIGN_UP_OPEN)


@register.simple_tag
def knows_other_server() -> bool:
    """Whether another server signs people in here as well."""
    return bool(settings.SOCIALACCOUNT_PROVIDERS)


@register.simple_tag
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


@register.inclusion_tag("web/_code.html")
def code(text: str, label: str = "Copy", wrap: bool = False) -> dict[str, Any]:
    """Text to be copied, in a block with its button. `label` says what the button copies."""
    return {"text": text, "label": label, "wrap": wrap}


@register.inclusion_tag("web/_copy.html")
def copy_button(text: str, label: str = "Copy", face: str = "") -> dict[str, Any]:
    """A button that copies `text`; `label` is its accessible name, `face` the visible word, if any."""
    return {"text": text, "label": label, "face": face}


@register.simple_block_tag(end_name="end_code_lines")
def code_lines(content: str, label: str = "Copy") -> SafeString:
    """`{% code_lines "Copy the command" %}…{% end_code_lines %}`: what stands between, as a block to copy."""
    return render_to_string("web/_code.html", code(html.unescape(content), label))
