"""Liking and following: buttons that post and lead back, and the lists of what was pressed."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from registry import following, likes, news_mail, search
from registry.models import Adapter, Namespace, SavedSearch
from registry.rights import visible_adapter
from registry.views.people import signed_in
from web import mail
from web.errors import DomainError
from web.pagination import paginate

PAGE = 30
FOLLOWS = 100
LISTS = ("following", "liked")  # pages that have these buttons as well


@login_required
def followed(request: HttpRequest) -> HttpResponse:
    """What is new of what somebody follows; beside it what they follow, a page at a time, and the searches they keep."""
    user = signed_in(request)
    cursor = request.GET.get("cursor")
    follows = paginate(following.followed_by(user), order=("-created_at", "-id"), cursor=cursor, size=FOLLOWS)
    context = {
        "news": following.news_for(user, count=PAGE),
        "follows": follows.items,
        "next_cursor": follows.next_cursor,
        "has_cursor": bool(cursor),
        "saved_searches": SavedSearch.objects.filter(user=user),
        "is_mailed": news_mail.is_wanted(user),
        "sends_mail": mail.is_sent(),
        "is_confirmed": news_mail.has_confirmed_address(user),
    }
    return render(request, "registry/following.html", context)


@login_required
@require_POST
def mail_news(request: HttpRequest) -> HttpResponse:
    """Ask for mails of what is new, or with `undo` for no more."""
    user = signed_in(request)
    if request.POST.get("undo"):
        news_mail.end(user)
        messages.success(request, "You get no more mails of what is new.")
        return redirect("following")
    try:
        news_mail.begin(user, origin=request.build_absolute_uri("/")[:-1])
    except DomainError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"What is new goes to {user.email} from tomorrow on.")
    return redirect("following")


@csrf_exempt  # mail programs post here themselves (RFC 8058); the key is what lets them
@require_http_methods(["GET", "HEAD", "POST"])
def mail_no_news(request: HttpRequest, key: str) -> HttpResponse:
    """The way out that stands in each such mail, for whoever holds its key, signed in or not."""
    person = news_mail.person_of(key)
    if request.method == "POST":
        news_mail.end(person)
    context = {"person": person, "is_over": not news_mail.is_wanted(person)}
    return render(request, "registry/no_news.html", context)


@login_required
def liked(request: HttpRequest) -> HttpResponse:
    """What somebody likes, the latest first."""
    mine = likes.liked_by(signed_in(request))
    page = paginate(mine, order=("-created_at", "-id"), cursor=request.GET.get("cursor"), size=PAGE)
    adapters = search.rows_of([like.adapter_id for like in page.items], person=signed_in(request))
    return render(request, "registry/liked.html", {"adapters": adapters, "next_cursor": page.next_cursor})


@login_required
@require_POST
def like_adapter(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Like an adapter, or with `undo` no longer."""
    shown = visible_adapter(request.user, namespace, name)
    act = likes.unlike if request.POST.get("undo") else likes.like
    act(shown, actor=signed_in(request))
    return _back(request, shown, said=f"You no longer like {shown.full_name}.")


@login_required
@require_POST
def follow_adapter(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """Follow an adapter, or with `undo` no longer."""
    shown = visible_adapter(request.user, namespace, name)
    act = following.unfollow if request.POST.get("undo") else following.follow
    act(user=signed_in(request), adapter=shown)
    return _back(request, shown, said=f"You no longer follow {shown.full_name}.")


@login_required
@require_POST
def follow_namespace(request: HttpRequest, namespace: str) -> HttpResponse:
    """Follow a person or an organisation, or with `undo` no longer."""
    owner = get_object_or_404(Namespace, name__iexact=namespace, deleted_at=None)
    act = following.unfollow if request.POST.get("undo") else following.follow
    act(user=signed_in(request), namespace=owner)
    return _back(request, owner, said=f"You no longer follow {owner.name}.")


def _back(request: HttpRequest, subject: Adapter | Namespace, *, said: str) -> HttpResponse:
    """To the list that the button stood in, where its row is gone and that is said; else to the subject's own page."""
    if (listed := request.POST.get("back")) in LISTS:
        messages.success(request, said)
        return redirect(listed)
    return redirect(subject)
