"""Liking and following: buttons that post and lead back, and the lists of what was pressed."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from registry import following, likes
from registry.models import Adapter, Namespace, SavedSearch
from registry.rights import visible_adapter
from registry.views.people import signed_in
from web.pagination import paginate

PAGE = 30
LISTS = ("following", "liked")  # pages that have these buttons as well


@login_required
def followed(request: HttpRequest) -> HttpResponse:
    """What is new of what somebody follows; beside it all that they follow and the searches they keep."""
    user = signed_in(request)
    context = {
        "news": list(following.news_for(user)[:PAGE]),
        "follows": following.followed_by(user),
        "saved_searches": SavedSearch.objects.filter(user=user),
    }
    return render(request, "registry/following.html", context)


@login_required
def liked(request: HttpRequest) -> HttpResponse:
    """What somebody likes, the latest first."""
    mine = likes.liked_by(signed_in(request))
    page = paginate(mine, order=("-created_at", "-id"), cursor=request.GET.get("cursor"), size=PAGE)
    adapters = likes.adapters_of(page.items, person=signed_in(request))
    return render(request, "registry/liked.html", {"adapters": adapters, "next_cursor": page.next_cursor})


@login_required
@require_POST
def like_adapter(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Like an adapter, or with `undo` no longer."""
    shown = visible_adapter(request.user, namespace, name)
    act = likes.unlike if request.POST.get("undo") else likes.like
    act(shown, actor=signed_in(request))
    return _back(request, shown, said=f"You no longer like {shown.full_name}.")


@login_required
@require_POST
def follow_adapter(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Follow an adapter, or with `undo` no longer."""
    shown = visible_adapter(request.user, namespace, name)
    act = following.unfollow if request.POST.get("undo") else following.follow
    act(user=signed_in(request), adapter=shown)
    return _back(request, shown, said=f"You no longer follow {shown.full_name}.")


@login_required
@require_POST
def follow_namespace(request: HttpRequest, namespace: str) -> HttpResponse:
    """Follow a person or an organisation, or with `undo` no longer."""
    owner = get_object_or_404(Namespace, name__iexact=namespace, deleted_at=None)
    act = following.unfollow if request.POST.get("undo") else following.follow
    act(user=signed_in(request), namespace=owner)
    return _back(request, owner, said=f"You no longer follow {owner.name}.")


def _back(request: HttpRequest, subject: Adapter | Namespace, *, said: str) -> HttpResponse:
    """To the list that the button stood in, where its row is gone and that is said; else to the subject's own page."""
    if (listed := request.POST.get("back")) in LISTS:
        messages.success(request, said)
        return redirect(listed)
    return redirect(subject)
