"""Atom feeds: new versions of an adapter, of a namespace, and of whatever a search finds. They show what everybody sees."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.utils.feedgenerator import Atom1Feed
from django.utils.html import escape
from django.views.decorators.http import conditional_page, require_safe

from registry import following, search
from registry.models import Adapter, Namespace, Revision
from registry.rights import visible_adapter
from registry.search import AdapterQuery
from registry.views.old_names import leads_on
from web.errors import NotFound

ENTRIES = 30
# What XML 1.0 cannot hold in any spelling: one of them, and no reader takes the feed.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@require_safe
@conditional_page
def modules_feed(request: HttpRequest) -> HttpResponse:
    """The newest adapters of a search, by the parameters of the list."""
    asked = AdapterQuery.parse(request.GET)
    query = replace(asked, sort="new", cursor="", limit=ENTRIES)
    found = search.find(query, person=None)
    words = ", ".join(
        value if name == "q" else f"{name.replace('_', ' ')} {value}"
        for name, value in query.as_url_params().items()
        if name not in {"sort", "limit"}
    )
    heads = []
    for adapter in found.items:
        if adapter.head is not None:
            adapter.head.adapter = adapter
            heads.append(adapter.head)
    # The search is in the feed's id as well: a reader takes two feeds with one id for the same.
    path = "/modules" + (f"?{asked.url_with()}" if asked.url_with() else "")
    return _feed(request, f"New LoRA modules{f': {words}' if words else ''}", path, heads)


@require_safe
@conditional_page
def namespace_feed(request: HttpRequest, namespace: str) -> HttpResponse:
    owner = Namespace.objects.filter(name__iexact=namespace, deleted_at=None).first()
    if owner is None:
        raise NotFound(f"There is nobody called {namespace!r} here.")
    public = Adapter.objects.visible_to(None).filter(namespace=owner)
    return _feed(
        request,
        f"LoRA modules of {owner.name}",
        owner.get_absolute_url(),
        following.newest_of(public, count=ENTRIES),
    )


@require_safe
@conditional_page
@leads_on
def adapter_feed(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    shown = visible_adapter(AnonymousUser(), namespace, name)
    versions = following.newest_of(Adapter.objects.filter(pk=shown.pk), count=ENTRIES)
    return _feed(request, f"Versions of {shown.full_name}", shown.get_absolute_url(), versions)


def _feed(request: HttpRequest, title: str, path: str, versions: Iterable[Revision]) -> HttpResponse:
    feed = Atom1Feed(
        title=_for_xml(f"{title} · LoRA Commons"),
        link=request.build_absolute_uri(path),
        description=_for_xml(title),
        feed_url=request.build_absolute_uri(),
    )
    for version in versions:
        adapter = version.adapter
        address = request.build_absolute_uri(f"{adapter.get_absolute_url()}/revisions/{version.commit}")
        feed.add_item(
            title=_for_xml(f"{adapter.full_name}: {version.message}"),
            link=address,
            unique_id=address,
            description=escape(_for_xml(adapter.description)),  # Atom1Feed says that it is HTML
            author_name=adapter.namespace.name,
            pubdate=version.published_at,
            updateddate=version.published_at,
            categories=[
                _for_xml(text)
                for text in (
                    adapter.shown_task.title if adapter.shown_task else "",
                    adapter.base_model.name if adapter.base_model else "",
                )
                if text
            ],
        )
    return HttpResponse(feed.writeString("utf-8"), content_type="application/atom+xml; charset=utf-8")


def _for_xml(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)
