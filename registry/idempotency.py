"""`Idempotency-Key`: a POST that a script sends again, because it heard no answer, is done once.

The same key with the same request gets the same answer for a day; with another request, 422; while the first still
runs, 409. Source: IETF draft "The Idempotency-Key HTTP Header Field". `once` is the same for a form of a page.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.http import QueryDict
from django.utils import timezone
from django.utils.datastructures import MultiValueDict
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry.models import IdempotentAnswer, User
from registry.uploads import UploadOnDisk
from web.errors import Conflict, DomainError

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
# A first request that has not answered by then died with its process; its key may be used again.
GIVEN_UP = timedelta(hours=1)
# A form that comes again after this was sent again on purpose.
DOUBLE_CLICK = timedelta(minutes=1)
# Refusals of the moment: the same request may well succeed later, so they are not kept.
PASSING = frozenset({401, 403, 404, 408, 409, 413, 429})

Post = Callable[..., Response]


class BadKey(DomainError):
    code = "bad_idempotency_key"

    def __init__(self) -> None:
        super().__init__(
            f"{HEADER} must be 1 to 255 printable ASCII characters, such as a UUID.",
            fields={HEADER: ["1 to 255 printable ASCII characters."]},
        )


class KeyReused(DomainError):
    code = "idempotency_key_reused"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            f"This {HEADER} came with another request before. Use a new key for a new request.",
            fields={HEADER: ["Used for another request."]},
        )


class StillRunning(Conflict):
    code = "still_running"

    def __init__(self) -> None:
        super().__init__(
            f"The first request with this {HEADER} is still running. Ask again in a moment.",
            fields={HEADER: ["The first request still runs."]},
        )


def idempotent(post: Post) -> Post:
    """For a DRF view's `post`: heeds `Idempotency-Key`. Without the header the view is as it was."""

    @functools.wraps(post)
    def answer(view: APIView, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(HEADER)
        if key is None or not isinstance(request.user, User):
            return post(view, request, *args, **kwargs)
        _check_key(key)
        row = _claim(request, request.user, key)
        if row.status is not None:
            again = Response(row.body, status=row.status, headers={"Idempotent-Replayed": "true"})
            if row.location:
                again["Location"] = row.location
            return again
        try:
            response = _answer_of(post, view, request, args, kwargs)
        except BaseException:
            row.delete()
            raise
        if response.status_code >= 500 or response.status_code in PASSING:
            row.delete()
        else:
            # Not `save`: the row went if the account was deleted meanwhile, and what was done is done.
            IdempotentAnswer.objects.filter(pk=row.pk).update(
                status=response.status_code,
                body=_as_json(response.data),
                location=response.headers.get("Location", "")[:500],
            )
        return response

    return answer


def once(
    user: User,
    form: QueryDict,
    files: MultiValueDict[str, Any],
    prepare: Callable[[], Callable[[], str]],
) -> str:
    """What was made, by its id; for a form that was just sent, with the same `form_token`, what it made then.

    `prepare` reads and decides, and gives back what makes the thing; others can write until that is called. Two at once
    make one thing: the second waits for the first. A form without a token is always new.
    """
    token = form.get("form_token", "")
    if not token:
        return prepare()()
    sent = {name: form.getlist(name) for name in form if name != "csrfmiddlewaretoken"}
    contents = {name: [_of_file(file) for file in files.getlist(name)] for name in files}
    digest = hashlib.sha256(json.dumps([sent, contents], sort_keys=True).encode()).hexdigest()
    key = f"form {digest}"
    answers = IdempotentAnswer.objects.filter(user=user, key=key)
    before = timezone.now() - DOUBLE_CLICK
    made = answers.filter(created_at__gte=before).first()
    if made is not None:
        return str(made.body)
    make = prepare()
    with transaction.atomic():
        answers.filter(created_at__lt=before).delete()
        row, is_new = answers.get_or_create(user=user, key=key, defaults={"request_sha256": digest})
        if not is_new:
            return str(row.body)
        row.status, row.body = 302, make()
        row.save(update_fields=["status", "body"])
    return str(row.body)


def sweep_answers() -> int:
    """Forget answers older than a day. Returns how many."""
    return IdempotentAnswer.objects.filter(created_at__lt=timezone.now() - KEPT).delete()[0]


def _check_key(key: str) -> None:
    if not (0 < len(key) <= 255 and all(" " <= letter <= "~" for letter in key) and key.strip()):
        raise BadKey


def _claim(request: Request, user: User, key: str) -> IdempotentAnswer:
    """The key's row: with the old answer, or without one and ours to fill. Raises KeyReused or StillRunning."""
    wanted = request_digest(request)
    now = timezone.now()
    with transaction.atomic():
        stale = IdempotentAnswer.objects.filter(user=user, key=key)
        stale.filter(created_at__lt=now - KEPT).delete()
        stale.filter(status=None, created_at__lt=now - GIVEN_UP).delete()
        row, is_new = IdempotentAnswer.objects.get_or_create(
            user=user, key=key, defaults={"request_sha256": wanted}
        )
    if row.request_sha256 != wanted:
        raise KeyReused
    if not is_new and row.status is None:
        raise StillRunning
    return row


def request_digest(request: Request) -> str:
    """sha256 of address and content: fields in any order, files by name and sha256."""
    parts = [request.method, request.get_full_path(), _canonical(request.data)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def _canonical(data: Any) -> str:
    if isinstance(data, QueryDict):
        data = {
            name: [_of_file(value) if isinstance(value, UploadOnDisk) else value for value in values]
            for name, values in data.lists()
        }
    return json.dumps(data, sort_keys=True, ensure_ascii=True)


def _of_file(file: UploadOnDisk) -> list[str]:
    return [file.path_in_folder, file.sha256]


def _answer_of(
    post: Post, view: APIView, request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Response:
    """What `post` answers, a refusal included, since a repeated mistake deserves the same sentence."""
    try:
        return post(view, request, *args, **kwargs)
    except Exception as error:
        return view.handle_exception(error)


def _as_json(data: Any) -> Any:
    return json.loads(JSONRenderer().render(data)) if data is not None else None
