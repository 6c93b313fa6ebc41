"""The end of an account: taking one's data along, and deleting it."""

from __future__ import annotations

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from compose import leaving, own_data
from registry.accounts import KNOWN_BROWSER
from registry.views.people import signed_in
from web.errors import Conflict
from web.templatetags.formatting import plural, size


@login_required
@never_cache
@require_safe
def own_data_file(request: HttpRequest) -> StreamingHttpResponse:
    """All that the site keeps of who asks, as a file."""
    user = signed_in(request)
    response = StreamingHttpResponse(own_data.as_json(user), content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="{user.username}-lora-commons.json"'
    return response


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@reauthentication_required(app="allauth.account", allow_get=True)
def account_delete(request: HttpRequest) -> HttpResponse:
    """What deleting the account would do; done once its name has been typed and the password given again."""
    user = signed_in(request)
    typed = request.POST.get("confirm", "").strip()
    error, status = "", 200
    if request.method == "POST" and typed != user.username:
        error, status = f"Type {user.username} to delete your account.", 400
    elif request.method == "POST":
        try:
            leaving.delete_account(user, actor=user)
        except Conflict as refused:
            error, status = refused.message, refused.status
        else:
            logout(request)
            messages.success(request, f"The account {user.username} is deleted.")
            answer = redirect("home")
            answer.delete_cookie(KNOWN_BROWSER)
            return answer
    held = leaving.held_by(user)
    context = {"held": held, "happens": _happens(held), "typed": typed, "error": error}
    return render(request, "compose/account_delete.html", context, status=status)


def _happens(held: leaving.Held) -> list[tuple[str, str]]:
    """What deleting the account does: of what, and in a sentence or two."""
    counts = held.counts
    said = [
        ("Modules", _of_modules(held) if held.adapters else "You have none."),
        ("Compositions", _of_compositions(held) if held.compositions else "You have none."),
    ]
    if held.tasks:
        said.append(("Tasks", _of_tasks(held)))
    if counts["imports"] or counts["pushes"]:
        under_way = _listed(counts, imports="import,imports", pushes="push,pushes")
        said.append(
            ("Other Hubs", f"Under way and cancelled: {under_way}. What is at another Hub stays there.")
        )
    left = _listed(counts, organisations="organisation,organisations")
    marks = _listed(
        counts, likes="like,likes", follows="follow,follows", searches="saved search,saved searches",
        webhooks="webhook,webhooks",
    )  # fmt: skip
    ended = _listed(
        counts, sessions="session,sessions", tokens="access token,access tokens",
        addresses="e-mail address,e-mail addresses", factors="second factor or passkey,second factors and passkeys",
        accounts="linked account,linked accounts",
    )  # fmt: skip
    said += [
        ("Organisations", f"You leave {left}." if left else "You belong to none."),
        ("Likes and more", f"Removed: {marks}." if marks else "You have none."),
        ("Signing in", f"Ended or removed: {ended}. Nothing signs you in any more."),
        (
            "What stays",
            "Without your name: versions that you published in organisations, scores that you reported, and reports "
            "about modules.",
        ),
    ]
    return said


def _of_modules(held: leaving.Held) -> str:
    private = held.counts["private"]
    many = f"{plural(held.adapters, 'module,modules')}{f' ({private:,} private)' if private else ''}"
    gone = f"{many} with {size(held.size_bytes)} in all versions: gone for everybody."
    if not held.used_by_others:
        return f"{gone} Nobody else has composed with {'it' if held.adapters == 1 else 'them'}."
    return (
        f"{gone} Others have composed with {held.used_by_others:,} of them: what they made keeps working, and its "
        "history keeps the names of those that were public."
    )


def _of_compositions(held: leaving.Held) -> str:
    removed = held.compositions - held.kept
    said = f"Of {held.compositions:,}, {plural(removed, 'is,are')} removed with examples, answers and scores."
    if held.unfinished:
        said += f" Of these {plural(held.unfinished, 'has,have')} not ended and {'is' if held.unfinished == 1 else 'are'} cancelled."
    if held.kept:
        said += (
            f" {plural(held.kept, 'stays,stay')}, without your name, examples and answers: what was made there is in an "
            "organisation or in a composition of somebody else."
        )
    return said


def _of_tasks(held: leaving.Held) -> str:
    kept = held.tasks - held.tasks_removed
    said = f"Of {plural(held.tasks, 'task,tasks')}, {plural(held.tasks_removed, 'is,are')} removed with the rows."
    if kept:
        said += f" {plural(kept, 'stays,stay')}, without your name, since somebody uses {'it' if kept == 1 else 'them'}."
    return said


def _listed(counts: dict[str, int], **words: str) -> str:
    """`3 likes, 1 follow and 2 webhooks`: those of which there are any; empty where there are none."""
    said = [plural(counts[name], word) for name, word in words.items() if counts[name]]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
