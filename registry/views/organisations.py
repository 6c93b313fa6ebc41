"""Organisations' pages: founding one, its settings and members, and what a person is asked to join."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from registry import organisations, rights
from registry.forms import InviteForm, OrganisationForm, ProfileForm
from registry.invitation_mail import tell_invited
from registry.models import Membership, Namespace
from registry.views.people import signed_in
from web.errors import DomainError
from web.refusals import show_refusal


@login_required
def organisation_new(request: HttpRequest) -> HttpResponse:
    """Found an organisation."""
    form = OrganisationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            organisation = organisations.create_organisation(founder=signed_in(request), **form.cleaned_data)
        except DomainError as error:
            show_refusal(form, error)
        else:
            messages.success(request, f"{organisation.name} is there. Ask people to join it.")
            return redirect("organisation_settings", namespace=organisation.name)
    return render(
        request, "registry/organisation_new.html", {"form": form}, status=400 if form.errors else 200
    )


@login_required
def my_organisations(request: HttpRequest) -> HttpResponse:
    """Where a person belongs, and where they are asked to."""
    return _my_organisations(request)


@login_required
@require_POST
def invitation_answer(request: HttpRequest, name: str) -> HttpResponse:
    """Accept or decline an invitation."""
    answer = request.POST.get("answer")
    if answer not in {"accept", "decline"}:
        raise DomainError("Nothing was answered: join, or decline.")
    if answer == "accept":
        membership = organisations.accept(name, person=signed_in(request))
        messages.success(request, f"You belong to {membership.namespace.name} now.")
        return redirect(membership.namespace)
    organisations.decline(name, person=signed_in(request))
    messages.success(request, "Declined.")
    return redirect("my_organisations")


@login_required
@require_POST
def organisation_leave(request: HttpRequest, name: str) -> HttpResponse:
    user = signed_in(request)
    organisation = rights.member_organisation(user, name)
    try:
        organisations.remove(organisation, actor=user, username=user.username)
    except organisations.LastAdmin as error:
        return _my_organisations(request, refused=error)
    messages.success(request, f"You have left {organisation.name}.")
    return redirect("my_organisations")


@login_required
def organisation_settings(request: HttpRequest, namespace: str) -> HttpResponse:
    """Members, roles and invitations; admins change them, other members look."""
    user = signed_in(request)
    if namespace.lower() == user.username.lower():
        return redirect("profile")
    organisation = rights.member_organisation(user, namespace)
    if request.method == "POST":
        rights.require_admin(user, organisation)
    form = ProfileForm(request.POST or None, of=organisation)
    if request.method == "POST" and form.is_valid():
        try:
            organisations.describe(organisation, actor=user, **form.cleaned_data)
        except DomainError as error:
            show_refusal(form, error)
        else:
            messages.success(request, "Saved.")
            return redirect("organisation_settings", namespace=organisation.name)
    return _settings_page(request, organisation, form=form)


@login_required
@require_POST
def organisation_invite(request: HttpRequest, namespace: str) -> HttpResponse:
    """Ask somebody to join."""
    user = signed_in(request)
    organisation = rights.member_organisation(user, namespace)
    rights.require_admin(user, organisation)
    form = InviteForm(request.POST)
    if form.is_valid():
        try:
            invitation = organisations.invite(organisation, actor=user, **form.cleaned_data)
        except DomainError as error:
            show_refusal(form, error)
        else:
            is_sent = tell_invited(invitation, origin=request.build_absolute_uri("/").rstrip("/"))
            how = "They get a mail." if is_sent else "No mail goes to them; it is on their start page."
            messages.success(request, f"{invitation.user} is asked to join. {how}")
            return redirect("organisation_settings", namespace=organisation.name)
    form.fields["username"].widget.attrs["autofocus"] = True  # it stands below the members, out of sight
    return _settings_page(request, organisation, invite=form)


@login_required
@require_POST
def organisation_member(request: HttpRequest, namespace: str, username: str) -> HttpResponse:
    """Change a member's role, or take them out."""
    user = signed_in(request)
    organisation = rights.member_organisation(user, namespace)
    try:
        if request.POST.get("action") == "remove":
            organisations.remove(organisation, actor=user, username=username)
            messages.success(request, f"{username} is no longer a member.")
            if username.lower() == user.username.lower():
                return redirect("my_organisations")
        else:
            role = request.POST.get("role", "")
            membership = organisations.change_role(organisation, actor=user, username=username, role=role)
            messages.success(request, f"{membership.user} has the role {membership.role} now.")
    except organisations.LastAdmin as error:
        return _settings_page(request, organisation, member_refused=error)
    return redirect("organisation_settings", namespace=organisation.name)


@login_required
@require_POST
def invitation_withdraw(request: HttpRequest, namespace: str, username: str) -> HttpResponse:
    """Take an invitation back."""
    user = signed_in(request)
    organisation = rights.member_organisation(user, namespace)
    organisations.withdraw_invitation(organisation, actor=user, username=username)
    messages.success(request, f"{username} is no longer asked.")
    return redirect("organisation_settings", namespace=organisation.name)


@login_required
@require_POST
def organisation_delete(request: HttpRequest, namespace: str) -> HttpResponse:
    """Delete an organisation, once its name has been typed."""
    user = signed_in(request)
    organisation = rights.member_organisation(user, namespace)
    rights.require_admin(user, organisation)
    if request.POST.get("confirm", "").strip() != organisation.name:
        return _settings_page(request, organisation, delete_error=f"Type {organisation.name} to delete it.")
    organisations.delete_organisation(organisation, actor=user)
    messages.success(request, f"{organisation.name} is deleted.")
    return redirect("my_organisations")


def _my_organisations(
    request: HttpRequest, *, refused: organisations.LastAdmin | None = None
) -> HttpResponse:
    user = signed_in(request)
    context = {
        "memberships": organisations.organisations_of(user),
        "invitations": organisations.invitations_for(user),
        "refused": refused,
    }
    return render(
        request, "registry/my_organisations.html", context, status=refused.status if refused else 200
    )


def _settings_page(
    request: HttpRequest,
    organisation: Namespace,
    *,
    form: ProfileForm | None = None,
    invite: InviteForm | None = None,
    delete_error: str = "",
    member_refused: organisations.LastAdmin | None = None,
) -> HttpResponse:
    is_admin = rights.is_admin(request.user, organisation)
    is_refused = bool(delete_error or (form and form.errors) or (invite and invite.errors))
    context: dict[str, Any] = {
        "organisation": organisation,
        "form": form or ProfileForm(of=organisation),
        "invite": invite or InviteForm(),
        "delete_error": delete_error,
        "typed": request.POST.get("confirm", ""),
        "member_refused": member_refused,
        "members": organisations.members_of(organisation),
        "invitations": organisations.invitations_of(organisation),
        "roles": Membership.Role.choices,
        "is_admin": is_admin,
        "held": organisations.held_by(organisation) if is_admin else {},
    }
    status = member_refused.status if member_refused else 400 if is_refused else 200
    return render(request, "registry/organisation_settings.html", context, status=status)
