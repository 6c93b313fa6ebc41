"""Pages of an adapter that was moved, asked for by a name that it had before."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from registry import moving
from registry.models import Adapter
from web.errors import NotFound

View = Callable[..., HttpResponseBase]


def leads_on(view: View) -> View:
    """The view of an adapter; by an old name of it, whoever may see it is led to the same under its name now."""

    @wraps(view)
    def found_by_any_name(
        request: HttpRequest, namespace: str, name: str, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        try:
            return view(request, namespace, name, *args, **kwargs)
        except NotFound:
            moved = moving.moved_from(namespace, name) if request.method in {"GET", "HEAD"} else None
            # Without a word of its new name to those who may not see it.
            if moved is None or not Adapter.objects.visible_to(request.user).filter(pk=moved.pk).exists():
                raise
        return redirect(request.get_full_path().replace(f"/{namespace}/{name}", f"/{moved.full_name}", 1))

    return found_by_any_name
