"""How many API requests one client may make. A courtesy between users, not a defence."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from web.addresses import client_address
from web.rate_limits import Budget, Rate, spend


class ClientThrottle(BaseThrottle):
    """For DRF's views: a person by whatever token or session, everybody else by their address."""

    budget: Budget

    def allow_request(self, request: Request, view: object) -> bool:
        self.budget = spend_of(request._request, request.user, "rest", settings.REQUEST_RATES["api"])
        return not self.budget.is_over

    def wait(self) -> float:
        return self.budget.reset_s


def spend_of(request: HttpRequest, person: object, name: str, rates: dict[str, str]) -> Budget:
    """Count a request of this person, or of a guest's address; `rates` has one for "user" and one for "anonymous"."""
    is_user = bool(getattr(person, "is_authenticated", False))
    kind, who = ("user", str(person.pk)) if is_user else ("anonymous", client_address(request))  # type: ignore[attr-defined]
    return spend(name, f"{kind}:{who}", Rate.parse(rates[kind]))
