"""Forms of django-allauth with rules of ours.

With HIDES_WHOSE_ADDRESS none of them tells whether an account has an address: whoever gives one that is taken gets the same
as for any other, an account or a row that waits for a link, and the mail goes to whom the address belongs
(`registry.accounts.AccountAdapter.send_confirmation_mail`). allauth's own way makes no account then, and whoever looks
for its public page would know.
"""

from __future__ import annotations

from allauth.account.adapter import get_adapter
from allauth.account.forms import AddEmailForm, SignupForm
from allauth.account.models import EmailAddress
from django.conf import settings

from registry.models import User


class SignUpForm(SignupForm):
    """The page for a new account."""

    def validate_unique_email(self, value: str) -> str:
        return value if settings.HIDES_WHOSE_ADDRESS else str(super().validate_unique_email(value))


class AddAddressForm(AddEmailForm):
    """An address is one account's: as at sign-up, and allauth's own form would let it be a second one's."""

    def clean_email(self) -> str:
        email: str = super().clean_email()
        if settings.HIDES_WHOSE_ADDRESS:
            return email
        is_taken = (
            EmailAddress.objects.filter(email__iexact=email).exclude(user=self.user).exists()
            or User.objects.filter(email__iexact=email).exclude(pk=self.user.pk).exists()
        )
        if is_taken:
            raise get_adapter().validation_error("email_taken")
        return email
