"""How many API requests one client may make. A courtesy between users, not a defence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from web.addresses import client_address
from web.errors import DomainError
from web.rate_limits import Budget, Rate, spend

if TYPE_CHECKING:  # it reads which throttles there are when it is imported
    from rest_framework.views import APIView


class TooManyRequests(DomainError):
    code = "too_many_requests"
    status = 429

    def __init__(self, budget: Budget) -> None:
        super().__init__(f"You have made more than {budget.rate}. Go on in {budget.reset_s} seconds.")
        self.retry_after_s = budget.reset_s


class ClientThrottle(BaseThrottle):
    """For DRF's views: a person by whatever token or session, everybody else by their address. Answers say what is left."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        budget = spend_of(request._request, request.user, "rest", settings.REQUEST_RATES["api"])
        view.headers |= budget.headers()
        if budget.is_over:
            raise TooManyRequests(budget)
        return True


def spend_of(request: HttpRequest, person: object, name: str, rates: dict[str, str]) -> Budget:
    """Count a request of this person, or of a guest's address; `rates` has one for "user" and one for "anonymous"."""
    is_user = bool(getattr(person, "is_authenticated", False))
    kind, who = ("user", str(person.pk)) if is_user else ("anonymous", client_address(request))  # type: ignore[attr-defined]
    return spend(name, f"{kind}:{who}", Rate.parse(rates[kind]))
