"""Pages around a finished composition: trying its adapter on a text, the link for people one chooses, and removing it."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from compose import jobs, naming, removing, tryouts
from compose.models import Composition, Tryout
from registry.views.people import signed_in
from web.errors import DomainError


@login_required
@require_POST
def try_out(request: HttpRequest, composition_id: str) -> HttpResponse:
    """Ask a worker what the adapter writes for a text; the answer comes into the page by itself."""
    found = jobs.visible_composition(request.user, composition_id, key=request.GET.get("key", ""))
    text = request.POST.get("text", "")
    try:
        tryout = tryouts.ask(found, signed_in(request), text)
    except DomainError as error:
        # htmx shows no answer of 4xx on its own; the sentence is what there is to show.
        status = 200 if request.htmx else error.status  # type: ignore[attr-defined]
        return _show(request, found, None, status=status, error=error, typed=text)
    if request.htmx:  # type: ignore[attr-defined]
        return _show(request, found, tryout)
    return redirect(f"{found.get_absolute_url()}/try/{tryout.pk}{key_query(request, found)}")


def key_query(request: HttpRequest, found: Composition) -> str:
    """What keeps open, behind the links of a page, what its owner's link opened."""
    return f"?key={found.share_key}" if request.GET.get("key") else ""


@login_required
@require_safe
def tryout(request: HttpRequest, composition_id: str, tryout_id: str) -> HttpResponse:
    """One's own question with its answer: a fragment that asks for itself until it is there, or a page."""
    found = jobs.visible_composition(request.user, composition_id, key=request.GET.get("key", ""))
    return _show(request, found, tryouts.seen_by(request.user, found, tryout_id))


def _show(
    request: HttpRequest,
    found: Composition,
    tryout: Tryout | None,
    *,
    status: int = 200,
    error: DomainError | None = None,
    typed: str = "",
) -> HttpResponse:
    template = "compose/_tryout.html" if request.htmx else "compose/tryout.html"  # type: ignore[attr-defined]
    return render(
        request,
        template,
        {
            "composition": found,
            "title": naming.title_of(found, request.user),
            "tryout": tryout,
            "error": error,
            "typed": typed,
            "section": "compose",
            "key_query": key_query(request, found),
        },
        status=status,
    )


@login_required
@require_POST
def share(request: HttpRequest, composition_id: str) -> HttpResponse:
    found = jobs.visible_composition(request.user, composition_id)
    jobs.share(found, request.user)
    messages.success(
        request, "The link is on the page. Whoever has it sees the result, and never your examples."
    )
    return redirect(f"{found.get_absolute_url()}#share")


@login_required
@require_POST
def unshare(request: HttpRequest, composition_id: str) -> HttpResponse:
    found = jobs.visible_composition(request.user, composition_id)
    jobs.unshare(found, request.user)
    messages.success(request, "The link leads nowhere from now on.")
    return redirect(found)


@login_required
@require_POST
def remove_texts(request: HttpRequest, composition_id: str) -> HttpResponse:
    found = jobs.visible_composition(request.user, composition_id)
    removing.remove_texts(found, request.user)
    messages.success(request, "Its texts are removed.")
    return redirect(found)


@login_required
@require_POST
def remove(request: HttpRequest, composition_id: str) -> HttpResponse:
    found = jobs.visible_composition(request.user, composition_id)
    removing.remove(found, request.user)
    messages.success(request, f"“{found.title}” is removed.")
    return redirect("compositions")
