"""Making accounts: every person gets the namespace of their name."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django import forms
from django.db import transaction
from django.http import HttpRequest

from registry.models import Membership, Namespace, User
from registry.names import InvalidName, check_namespace_name
from web.errors import Conflict


class NameTaken(Conflict):
    code = "name_taken"

    def __init__(self, name: str, *, field: str = "username") -> None:
        super().__init__(
            f"The name {name!r} is taken, or was once; names are not handed out twice. Choose another.",
            fields={field: ["This name is taken."]},
        )


@transaction.atomic
def open_namespace(user: User) -> Namespace:
    """The namespace of a new account. Raises NameTaken or InvalidName."""
    check_namespace_name(user.username)
    if Namespace.objects.filter(name__iexact=user.username).exists():
        raise NameTaken(user.username)
    namespace = Namespace.objects.create(name=user.username, kind=Namespace.Kind.USER)
    Membership.objects.create(namespace=namespace, user=user, role=Membership.Role.ADMIN)
    return namespace


@transaction.atomic
def create_account(*, username: str, password: str | None, email: str = "", is_staff: bool = False) -> User:
    """An account with its namespace, as the sign-up page makes one. Raises NameTaken or InvalidName."""
    check_namespace_name(username)
    user = User.objects.create_user(
        username=username, email=email, password=password, is_staff=is_staff, is_superuser=is_staff
    )
    open_namespace(user)
    return user


class AccountAdapter(DefaultAccountAdapter):
    """allauth's hooks: a user name must be good as a namespace, and gets one."""

    def clean_username(self, username: str, shallow: bool = False) -> str:
        username = super().clean_username(username, shallow=shallow)
        try:
            check_namespace_name(username)
        except InvalidName as error:
            raise forms.ValidationError(error.message) from error
        if not shallow and Namespace.objects.filter(name__iexact=username).exists():
            raise forms.ValidationError(NameTaken(username).message)
        return username

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        with transaction.atomic():
            user = super().save_user(request, user, form, commit=commit)
            if commit:
                open_namespace(user)
        return user
