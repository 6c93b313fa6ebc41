"""What other libraries put into the administration, as ours: every act in the book, and no secret on a page.

Their own pages show the key of a person's session, the secret of their second factor and the tokens of other servers,
and let them be typed.
"""

from __future__ import annotations

from typing import Any

from allauth.account.admin import EmailAddressAdmin as TheirEmailAddressAdmin
from allauth.account.models import EmailAddress
from allauth.mfa.admin import AuthenticatorAdmin as TheirAuthenticatorAdmin
from allauth.mfa.models import Authenticator
from allauth.socialaccount.admin import SocialAccountAdmin as TheirSocialAccountAdmin
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.admin import UserSessionAdmin as TheirUserSessionAdmin
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as TheirGroupAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest

from registry import audit
from registry.admin import Audited, ReadOnly
from registry.views.people import signed_in

for _model in (Group, EmailAddress, Authenticator, UserSession, SocialAccount):
    admin.site.unregister(_model)
# Which server people may come from is for the environment to say (OIDC_ISSUER), and its tokens are nobody's to read.
admin.site.unregister([SocialApp, SocialToken])


class OnlyDeleted(Audited):
    """Taken away from somebody who asks for it, such as the factor of a lost telephone; made by themselves alone."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Group)
class GroupAdmin(Audited, TheirGroupAdmin):
    pass


@admin.register(EmailAddress)
class EmailAddressAdmin(Audited, TheirEmailAddressAdmin):
    @admin.action(description="Say that the addresses are theirs", permissions=["change"])
    def make_verified(self, request: HttpRequest, addresses: QuerySet[EmailAddress]) -> None:
        for address in addresses.filter(verified=False):
            audit.record(actor=signed_in(request), action="verify address", subject=address)
        super().make_verified(request, addresses)


@admin.register(Authenticator)
class AuthenticatorAdmin(OnlyDeleted, TheirAuthenticatorAdmin):
    exclude = ("data",)


@admin.register(UserSession)
class UserSessionAdmin(ReadOnly, TheirUserSessionAdmin):
    exclude = ("session_key", "data")


@admin.register(SocialAccount)
class SocialAccountAdmin(OnlyDeleted, TheirSocialAccountAdmin):
    exclude = ("extra_data",)
