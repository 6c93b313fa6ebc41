"""What a person changes about themselves: name, e-mail addresses, access tokens."""

from __future__ import annotations

from allauth.account.views import email as allauth_email
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from registry import accounts, profiles, tokens
from registry.forms import ProfileForm, TokenForm
from registry.views import secrets_shown
from registry.views.people import signed_in
from web import mail
from web.errors import DomainError
from web.refusals import show_refusal

SHOWN_ONCE = "shown_once"


@login_required
def profile(request: HttpRequest) -> HttpResponse:
    """What is shown of a person; addresses stand beside it, and are changed on a page of their own."""
    user = signed_in(request)
    own = accounts.own_namespace(user)
    form = ProfileForm(request.POST or None, of=own)
    if request.method == "POST" and form.is_valid():
        try:
            profiles.change(own, **form.cleaned_data)
        except DomainError as error:
            show_refusal(form, error)
        else:
            messages.success(request, "Saved.")
            return redirect("profile")
    context = {"form": form, "addresses": accounts.addresses_of(user)}
    return render(request, "registry/profile.html", context, status=400 if form.errors else 200)


@login_required
def email_addresses(request: HttpRequest) -> HttpResponse:
    """allauth's page of them, which asks for the password before it changes any."""
    addresses = accounts.addresses_of(signed_in(request))
    if "action_primary" in request.POST:
        wanted = next((one for one in addresses if one.email == request.POST.get("email", "").lower()), None)
        if wanted is not None and not accounts.may_be_primary(wanted):
            messages.error(request, "Confirm this address first, by the link in the mail that went to it.")
            return redirect("account_email")
    answer: HttpResponse = allauth_email(request)
    if "action_send" in request.POST and not len(messages.get_messages(request)):
        # allauth sends one in three minutes, and says nothing about those that it does not send.
        messages.info(
            request,
            "A link went to this address a moment ago. Look into the spam folder, or wait three minutes."
            if mail.is_sent()
            else "This site sends no mail: the link of a moment ago stands in its log.",
        )
    return answer


@login_required
@never_cache
def access_tokens(request: HttpRequest) -> HttpResponse:
    """A person's tokens. A new one's secret is on the page that the form leads to, and nowhere else again."""
    user = signed_in(request)
    form = TokenForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            _, secret = tokens.issue_token(user=user, **form.cleaned_data)
        except DomainError as error:
            show_refusal(form, error)
        else:
            # To another page, so that loading it again makes no second token.
            secrets_shown.keep(request, secret, purpose=SHOWN_ONCE)
            return redirect("tokens")
    context = {
        "form": form,
        "secret": secrets_shown.take(request, purpose=SHOWN_ONCE) if request.method == "GET" else "",
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
