"""Making accounts: every person gets the namespace of their name."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.core import context
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from django import forms
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from registry import audit
from registry.models import Membership, Namespace, Token, User
from registry.names import InvalidName, check_namespace_name, name_like
from registry.rights import require_moderator
from web.addresses import client_address
from web.errors import Conflict

KNOWN_BROWSER = "known_browser"
KNOWN_BROWSER_S = 365 * 24 * 3600
# What else ends when somebody is blocked, in the same transaction.
ON_BLOCK: list[Callable[[User], None]] = []


class NameTaken(Conflict):
    code = "name_taken"

    def __init__(self, name: str, *, field: str = "username") -> None:
        super().__init__(
            f"The name {name!r} is taken, or was once; names are not handed out twice. Choose another.",
            fields={field: ["This name is taken."]},
        )


class NameOfAnother(NameTaken):
    """Of an account that was made past us; `give_name` is the way out."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.message = (
            f"The name {name!r} is taken by somebody else, or was once, so this account has no pages of its own. Ask the people "
            "who run this site for another name."
        )


class HasNamespace(Conflict):
    code = "has_namespace"

    def __init__(self, person: User) -> None:
        super().__init__(
            f"The name {person.username!r} is this account's own, and what is published under it keeps its addresses. Only an "
            "account whose name is somebody else's gets another."
        )


def check_user_name(name: str) -> None:
    """Raises InvalidName or NameTaken if no account may have this name: it is its namespace's too."""
    check_namespace_name(name)
    if Namespace.objects.filter(name__iexact=name).exists():
        raise NameTaken(name)


@transaction.atomic
def open_namespace(user: User) -> Namespace:
    """The namespace of a new account. Raises NameTaken or InvalidName."""
    check_user_name(user.username)
    return _open_namespace(user)


@transaction.atomic
def own_namespace(person: User) -> Namespace:
    """The namespace of a person's own name; opened now for an account that was made past us, as in a shell.

    Raises NameOfAnother where that name is an organisation's or another person's, or was once.
    """
    named = Namespace.objects.filter(name__iexact=person.username)
    own = named.filter(kind=Namespace.Kind.USER, memberships__user=person).first()
    if own is None and named.exists():
        raise NameOfAnother(person.username)
    return own or _open_namespace(person)


def _open_namespace(user: User) -> Namespace:
    namespace = Namespace.objects.create(name=user.username, kind=Namespace.Kind.USER)
    Membership.objects.create(namespace=namespace, user=user, role=Membership.Role.ADMIN)
    return namespace


def account_named(name: str) -> User | None:
    """The account of this name, in whichever capitals."""
    return User.objects.filter(username__iexact=name).first()


@transaction.atomic
def give_name(person: User, name: str) -> User:
    """Another name, and the namespace of it, for an account that was made past us under one that is somebody else's.

    Raises HasNamespace for any other account, NameTaken, InvalidName.
    """
    person = User.objects.select_for_update(no_key=True).get(pk=person.pk)
    named = Namespace.objects.filter(name__iexact=person.username)
    # Two of one name there can only be before the database forbade it (migration 0033), neither with a namespace perhaps.
    twins = User.objects.filter(username__iexact=person.username).exclude(pk=person.pk)
    is_own = named.filter(kind=Namespace.Kind.USER, memberships__user=person).exists()
    if is_own or not (named.exists() or twins.exists()):
        raise HasNamespace(person)
    check_user_name(name)
    if User.objects.filter(username__iexact=name).exists():
        raise NameTaken(name)
    audit.record(actor=None, action="rename", subject=person, detail=name)
    person.username = name
    person.save(update_fields=["username"])
    _open_namespace(person)
    return person


@transaction.atomic
def create_account(*, username: str, password: str | None, email: str = "", is_staff: bool = False) -> User:
    """An account with its namespace, as the sign-up page makes one. Raises NameTaken or InvalidName."""
    check_user_name(username)
    user = User.objects.create_user(
        username=username, email=email, password=password, is_staff=is_staff, is_superuser=is_staff
    )
    open_namespace(user)
    return user


@transaction.atomic
def addresses_of(user: User) -> list[EmailAddress]:
    """A person's e-mail addresses, the primary one first; also of accounts that a command made, which have but a field.

    One of them is always primary: allauth leaves the first that somebody adds without. Where nobody is told whose an
    address is, it may be somebody else's until it is confirmed, and is not used before.
    """
    if user.email and not EmailAddress.objects.filter(user=user, email__iexact=user.email).exists():
        EmailAddress.objects.create(user=user, email=user.email.lower())
    addresses = list(EmailAddress.objects.filter(user=user).order_by("-primary", "-verified", "pk"))
    if addresses and not addresses[0].primary and may_be_primary(addresses[0]):
        addresses[0].set_as_primary(conditional=True)
    return addresses


def may_be_primary(address: EmailAddress) -> bool:
    """Whether mail for its person may go to this address."""
    return address.verified or not settings.HIDES_WHOSE_ADDRESS


def block(person: User, *, moderator: User | None) -> None:
    """Nothing works for this person any more: sessions, tokens and what is computed for them end now (`ON_BLOCK`).

    What they published stays as it is.
    """
    if moderator is not None:
        require_moderator(moderator)
    with transaction.atomic():
        User.objects.filter(pk=person.pk).update(is_active=False)
        Token.objects.filter(user=person, revoked_at=None).update(revoked_at=timezone.now())
        for end in ON_BLOCK:
            end(person)
        audit.record(actor=moderator, action="block", subject=person)


def unblock(person: User, *, moderator: User | None) -> None:
    """They may sign in again and make new tokens. What ended when they were blocked stays ended."""
    if moderator is not None:
        require_moderator(moderator)
    with transaction.atomic():
        User.objects.filter(pk=person.pk).update(is_active=True)
        audit.record(actor=moderator, action="unblock", subject=person)


def _is_of_another(address: EmailAddress) -> bool:
    """Confirmed by another account, or given to one by whoever runs the site."""
    others = User.objects.exclude(pk=address.user_id)
    confirmed = EmailAddress.objects.filter(email__iexact=address.email, verified=True)
    given = others.filter(email__iexact=address.email, emailaddress=None)
    return confirmed.filter(user__in=others).exists() or given.exists()


class AccountAdapter(DefaultAccountAdapter):
    """allauth's hooks: a user name must be good as a namespace, and gets one.

    Guesses at a password are counted by account. A browser that has signed in to it before carries a signed cookie
    and is counted apart: strangers who use up the account's count do not lock its owner out. The idea is OWASP's
    "device cookies", https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies
    """

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return bool(settings.SIGN_UP_OPEN)

    def get_client_ip(self, request: HttpRequest) -> str:
        return client_address(request)

    def post_login(self, request: HttpRequest, user: Any, **details: Any) -> HttpResponse:
        with suppress(NameTaken):  # told where the namespace is needed
            own_namespace(user)
        response = super().post_login(request, user, **details)
        response.set_signed_cookie(
            KNOWN_BROWSER,
            f"{user.pk}:{secrets.token_hex(8)}",
            salt=KNOWN_BROWSER,
            max_age=KNOWN_BROWSER_S,
            secure=settings.HTTPS,
            httponly=True,
            samesite="Lax",
        )
        return response

    def send_confirmation_mail(self, request: HttpRequest, emailconfirmation: Any, signup: bool) -> None:
        """Whoever has the address already is told that somebody tried, and gets no link that could give it away."""
        address = emailconfirmation.email_address
        if settings.HIDES_WHOSE_ADDRESS and _is_of_another(address):
            self.send_account_already_exists_mail(address.email)
        else:
            super().send_confirmation_mail(request, emailconfirmation, signup)

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        key: str = super()._get_login_attempts_cache_key(request, **credentials)
        known = request.get_signed_cookie(KNOWN_BROWSER, "", salt=KNOWN_BROWSER, max_age=KNOWN_BROWSER_S)
        if not known:
            return key
        login = credentials.get("username") or credentials.get("email") or ""
        is_theirs = Q(username__iexact=login) | Q(email__iexact=login)
        is_known = User.objects.filter(is_theirs, pk=known.partition(":")[0]).exists() if login else False
        return f"{key}:{known}" if is_known else key

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Also of addresses and passwords; not of those who have nothing to show, since another server signs them in.

        Else they could add neither a second factor nor a password: allauth refuses what it cannot ask about.
        """
        if not self.get_reauthentication_methods(context.request.user):
            return False
        return bool(super().is_reauthentication_required(app=app, **kwargs))

    def clean_username(self, username: str, shallow: bool = False) -> str:
        # First: our rule is the narrower one, and says what is allowed here.
        try:
            (check_namespace_name if shallow else check_user_name)(username)
        except (InvalidName, NameTaken) as error:
            raise forms.ValidationError(error.message) from error
        return str(super().clean_username(username, shallow=shallow))

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        with transaction.atomic():
            user = super().save_user(request, user, form, commit=commit)
            if commit:
                open_namespace(user)
        return user


class OtherServerAdapter(DefaultSocialAccountAdapter):
    """allauth's hooks for who comes from another server (OIDC_ISSUER)."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return bool(settings.OIDC_SIGN_UP_OPEN)

    def get_signup_form_initial_data(self, sociallogin: SocialLogin) -> dict[str, str]:
        """What stands in the form at first: a name made of the one there, if nobody has it here."""
        given: dict[str, str] = super().get_signup_form_initial_data(sociallogin)
        name = name_like(given["username"] or given["email"])
        is_free = not Namespace.objects.filter(name__iexact=name).exists()
        return {**given, "username": name if is_free else ""}

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> User:
        """With the address that was left in the form, which nobody else has; one that was taken out is not kept."""
        chosen = (form.cleaned_data.get("email") or "").lower() if form else ""
        sociallogin.email_addresses = [
            address for address in sociallogin.email_addresses if address.email.lower() == chosen
        ]
        user: User = super().save_user(request, sociallogin, form)
        return user
