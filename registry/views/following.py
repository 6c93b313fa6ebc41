"""Liking and following: buttons that post and lead back."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from registry import following, likes
from registry.models import Namespace
from registry.rights import visible_adapter
from registry.views.people import signed_in


@login_required
@require_POST
def like_adapter(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Like an adapter, or with `undo` no longer."""
    shown = visible_adapter(request.user, namespace, name)
    act = likes.unlike if request.POST.get("undo") else likes.like
    act(shown, actor=signed_in(request))
    return redirect(shown)


@login_required
@require_POST
def follow_adapter(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Follow an adapter, or with `undo` no longer."""
    shown = visible_adapter(request.user, namespace, name)
    act = following.unfollow if request.POST.get("undo") else following.follow
    act(user=signed_in(request), adapter=shown)
    return redirect(shown)


@login_required
@require_POST
def follow_namespace(request: HttpRequest, namespace: str) -> HttpResponse:
    """Follow a person or an organisation, or with `undo` no longer."""
    owner = get_object_or_404(Namespace, name__iexact=namespace, deleted_at=None)
    act = following.unfollow if request.POST.get("undo") else following.follow
    act(user=signed_in(request), namespace=owner)
    return redirect(owner)
