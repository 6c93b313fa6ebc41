"""Small drawings of our own, inlined so that they take the colour of the text beside them."""

from __future__ import annotations

from functools import cache

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

# Drawn on a 16 × 16 grid with a stroke of 1.5.
_SHAPES = {
    "search": '<circle cx="7" cy="7" r="4.25"/><path d="M10.2 10.2 14 14"/>',
    "menu": '<path d="M2 4h12M2 8h12M2 12h12"/>',
    "chevron": '<path d="m4 6 4 4 4-4"/>',
    "right": '<path d="m6 4 4 4-4 4"/>',
    "copy": '<rect x="5.5" y="5.5" width="8" height="8" rx="1.5"/><path d="M10.5 3.5v-1h-8v8h1"/>',
    "download": '<path d="M8 2v8m-3.2-3L8 10.2 11.2 7M2.5 13.5h11"/>',
    "upload": '<path d="M8 10.5v-8M4.8 5.5 8 2.3l3.2 3.2M2.5 13.5h11"/>',
    "file": '<path d="M9 1.75H4v12.5h8V4.75z"/><path d="M9 1.75v3h3"/>',
    "folder": '<path d="M1.75 4v8.5h12.5v-7H8L6.5 4z"/>',
    "lock": '<rect x="3" y="7" width="10" height="6.5" rx="1.5"/><path d="M5.25 7V5a2.75 2.75 0 0 1 5.5 0v2"/>',
    "key": '<circle cx="5" cy="11" r="2.75"/><path d="m7 9 6-6m-2.5 2.5 2 2"/>',
    "check": '<path d="m3 8.5 3.2 3.2L13 4.8"/>',
    "cross": '<path d="m4 4 8 8m0-8-8 8"/>',
    "warning": '<path d="M8 2 14.5 13.5h-13z"/><path d="M8 6.5v3.2m0 1.6v.4"/>',
    "plus": '<path d="M8 3v10M3 8h10"/>',
    "mix": '<path d="M2 4h3.5L10.5 12H14M2 12h3.5l1.4-2.2M9.2 6.1 10.5 4H14"/>',
    "edit": '<path d="m3 13 .6-3L11 2.6 13.4 5 6 12.4z"/>',
    "trash": '<path d="M2.5 4.5h11M6 4.5v-2h4v2m-6 0 .6 9h6.8l.6-9"/>',
    "user": '<circle cx="8" cy="5.2" r="2.7"/><path d="M2.8 14c.4-3 2.4-4.6 5.2-4.6s4.8 1.6 5.2 4.6"/>',
    "users": '<circle cx="6" cy="5.5" r="2.4"/><path d="M1.5 13.5c.3-2.7 2-4 4.5-4s4.2 1.3 4.5 4M10 3.3a2.4 2.4 0 0 1 0 4.4m1.8 2.2c1.6.5 2.5 1.7 2.7 3.6"/>',
    "heart": '<path d="M8 13.3C3.6 10.2 2 8.2 2 5.9A2.9 2.9 0 0 1 4.9 3C6.3 3 7.4 3.8 8 5c.6-1.2 1.7-2 3.1-2A2.9 2.9 0 0 1 14 5.9c0 2.3-1.6 4.3-6 7.4z"/>',
    "bell": '<path d="M3.5 11.5h9c-.9-1-1.200-2-1.200-4.200a3.300 3.300 0 0 0-6.600 0c0 2.200-.3 3.200-1.200 4.200zM6.700 13.700h2.600"/>',
    "flag": '<path d="M3.5 14V2.5M3.5 3h8.6l-1.7 3 1.7 3H3.5"/>',
    "shield": '<path d="M8 1.8 13 3.6v4c0 3.2-2 5.4-5 6.6-3-1.2-5-3.4-5-6.6v-4z"/>',
    "out": '<path d="M6.5 2.5H3v11h3.5M7 8h7m-2.8-2.8L14 8l-2.8 2.8"/>',
    "filter": '<path d="M2 4h12M4.5 8h7M6.5 12h3"/>',
}


@register.simple_tag
@cache  # thirty and more stand on a page
def icon(name: str, size: int = 16) -> SafeString:
    """The drawing of this name; decoration only, so say it in words too."""
    return format_html(
        '<svg class="icon" width="{0}" height="{0}" viewBox="0 0 16 16" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{1}</svg>',
        size,
        mark_safe(_SHAPES[name]),  # noqa: S308 - our own constants
    )
