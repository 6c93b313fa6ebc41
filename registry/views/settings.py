"""What a person changes about themselves: name, e-mail, access tokens."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from registry import tokens
from registry.forms import ProfileForm, TokenForm
from registry.models import Namespace
from registry.views.people import signed_in
from web.errors import DomainError


@login_required
def profile(request: HttpRequest) -> HttpResponse:
    """Name to show and e-mail."""
    user = signed_in(request)
    own = Namespace.objects.filter(name=user.username).first()
    said = {"full_name": own.full_name if own else "", "email": user.email}
    form = ProfileForm(request.POST or None, initial=said)
    if request.method == "POST" and form.is_valid():
        user.email = form.cleaned_data["email"]
        user.save(update_fields=["email"])
        if own:
            own.full_name = form.cleaned_data["full_name"].strip()
            own.save(update_fields=["full_name"])
        messages.success(request, "Saved.")
        return redirect("profile")
    return render(request, "registry/profile.html", {"form": form}, status=400 if form.errors else 200)


@login_required
@never_cache
def access_tokens(request: HttpRequest) -> HttpResponse:
    """A person's tokens. A new one's secret is on the answer to the form, and nowhere else again."""
    user = signed_in(request)
    form = TokenForm(request.POST or None)
    secret = ""
    if request.method == "POST" and form.is_valid():
        try:
            _, secret = tokens.issue_token(user=user, **form.cleaned_data)
        except DomainError as error:
            form.add_error(next((key for key in error.fields if key in form.fields), None), error.message)
        else:
            form = TokenForm()
    context = {
        "form": form,
        "secret": secret,
        "tokens": tokens.tokens_of(user)[:200],
        "limits": tokens.possible_limits(user),
        "site": request.build_absolute_uri("/").rstrip("/"),
    }
    return render(request, "registry/tokens.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def token_revoke(request: HttpRequest, token_id: int) -> HttpResponse:
    token = tokens.revoke_token(user=signed_in(request), token_id=token_id)
    messages.success(request, f"The token “{token.name}” no longer works.")
    return redirect("tokens")
