"""Forms of django-allauth with rules of ours."""

from __future__ import annotations

from allauth.account.adapter import get_adapter
from allauth.account.forms import AddEmailForm
from allauth.account.models import EmailAddress

from registry.models import User


class AddAddressForm(AddEmailForm):
    """An address is one account's: as at sign-up, and allauth's own form would let it be a second one's."""

    def clean_email(self) -> str:
        email: str = super().clean_email()
        is_taken = (
            EmailAddress.objects.filter(email__iexact=email).exclude(user=self.user).exists()
            or User.objects.filter(email__iexact=email).exclude(pk=self.user.pk).exists()
        )
        if is_taken:
            raise get_adapter().validation_error("email_taken")
        return email
