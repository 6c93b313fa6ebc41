"""The card of an adapter: as its page shows it, and the page on which its owners write it."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from registry import cards, commits, publishing
from registry.cards import CardRefused
from registry.errors import InspectionRefused
from registry.filenames import CARD
from registry.forms import CardForm
from registry.models import Adapter, Revision
from registry.publishing import MAIN
from registry.rights import writable_adapter
from registry.views.old_names import leads_on
from registry.views.people import signed_in
from web.errors import DomainError
from web.refusals import show_refusal

_HEADING = re.compile(r"(</?h)([1-5])>")


@login_required
@leads_on
def adapter_card(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Write the card: `action=preview` shows what would come of it, anything else makes a version with it."""
    adapter = writable_adapter(request.user, namespace, name)
    head = commits.branch_head(adapter, MAIN)
    form = CardForm(request.POST or None, initial={"card": publishing.card_of(head), "parent": head.commit})
    preview = None
    if request.method == "POST" and form.is_valid():
        try:
            if request.POST.get("action") == "preview":
                preview = as_html(form.cleaned_data["card"], adapter, head)
            else:
                saved = commits.write_card(
                    adapter,
                    actor=signed_in(request),
                    text=form.cleaned_data["card"],
                    parent=form.cleaned_data["parent"],
                ).revision
                is_new = saved.commit != form.cleaned_data["parent"]
                messages.success(
                    request, "The card is saved, as a new version." if is_new else "The card is as it was."
                )
                return redirect(adapter)
        except commits.StaleParent as error:
            show_refusal(form, error)
            # Whoever has read that, and saves again, knows what they replace.
            form.data = {**form.cleaned_data, "parent": head.commit}
        except CardRefused as refused:
            form.add_error("card", refused.problem.message)
        except InspectionRefused as error:
            form.add_error("card", error.message)
        except DomainError as error:
            show_refusal(form, error)
    context: dict[str, Any] = {"section": "modules", "adapter": adapter, "form": form, "preview": preview}
    return render(request, "registry/adapter_card.html", context, status=400 if form.errors else 200)


def as_html(text: str, adapter: Adapter, revision: Revision) -> str:
    """A card as its page shows it, safe. Raises CardRefused."""
    html = cards.render_card(text, file_address=_folder_address(adapter, revision)).html
    # The page has its own first heading; a card's is one of its parts, and what is below that one below it.
    if "<h1>" in html:
        html = _HEADING.sub(lambda found: f"{found[1]}{int(found[2]) + 1}>", html)
    return html


def _folder_address(adapter: Adapter, revision: Revision) -> str:
    """What stands before every file's path; for the relative links and pictures of a card."""
    card = reverse("adapter_file", args=[adapter.namespace.name, adapter.name, revision.commit, CARD])
    return card.removesuffix(CARD)
