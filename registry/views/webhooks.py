"""A person's webhooks: making them, what was sent, and sending it again."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from registry import webhooks as hooks
from registry.models import Webhook
from registry.views import secrets_shown
from registry.views.people import signed_in
from web.errors import DomainError

DELIVERIES_SHOWN = 50
SHOWN_ONCE = "webhook_secret"


@login_required
@never_cache
def webhooks(request: HttpRequest) -> HttpResponse:
    """The list, a form for a new one, and the latest deliveries. The secret of a new one is shown once, after the form."""
    user = signed_in(request)
    context: dict[str, object] = {"events": hooks.EVENTS, "url": "", "chosen": list(hooks.EVENTS)}
    status = 200
    if request.method == "POST":
        url, chosen = request.POST.get("url", ""), request.POST.getlist("events")
        try:
            _, secret = hooks.create(user=user, url=url, events=chosen)
        except DomainError as error:
            field = next(iter(error.fields), "")
            context |= {"url": url, "chosen": chosen, "problem": error.message, "problem_field": field}
            status = error.status
        else:
            # To another page, so that loading it again makes no second webhook.
            secrets_shown.keep(request, secret, purpose=SHOWN_ONCE)
            return redirect("webhooks")
    else:
        context["secret"] = secrets_shown.take(request, purpose=SHOWN_ONCE)
    context["webhooks"] = list(Webhook.objects.filter(user=user))
    context["deliveries"] = list(hooks.latest_deliveries(user, DELIVERIES_SHOWN))
    return render(request, "registry/webhooks.html", context, status=status)


@login_required
@require_POST
def webhook_remove(request: HttpRequest, webhook_id: int) -> HttpResponse:
    hooks.remove(user=signed_in(request), pk=webhook_id)
    messages.success(request, "The webhook is removed.")
    return redirect("webhooks")


@login_required
@require_POST
def webhook_switch_on(request: HttpRequest, webhook_id: int) -> HttpResponse:
    hooks.switch_on(user=signed_in(request), pk=webhook_id)
    return redirect("webhooks")


@login_required
@require_POST
def webhook_test(request: HttpRequest, webhook_id: int) -> HttpResponse:
    hooks.send_test(user=signed_in(request), pk=webhook_id)
    messages.success(request, "A ping is sent within seconds. Load this page again to see how it went.")
    return redirect("webhooks")


@login_required
@require_POST
def delivery_replay(request: HttpRequest, delivery_id: int) -> HttpResponse:
    hooks.replay(user=signed_in(request), pk=delivery_id)
    messages.success(request, "It is sent once more within seconds.")
    return redirect("webhooks")
