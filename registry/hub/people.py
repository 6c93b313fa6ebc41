"""Who the caller is, what people are called, and what the client asks of every server."""

from __future__ import annotations

from allauth.account.models import EmailAddress
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse, JsonResponse

from registry import likes, search
from registry.hub import answers, pages, repositories
from registry.hub.doors import Caller, by_method, door, empty, freely
from registry.hub.errors import HubError
from registry.models import Adapter, Like, Membership, Namespace, User
from registry.rights import require_change, require_whole_account
from registry.search import AdapterQuery
from web.pagination import Page, paginate

REPOSITORIES_PAGE = 1000
MEMBERS_PAGE = 100
LIKES_PAGE = 1000


class NobodyOfThisName(HubError):
    code = "not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is nobody called {name[:100]!r} here.")


@door("GET")
def whoami(request: HttpRequest, caller: Caller) -> JsonResponse:
    """The person whose token this is, and where they are a member."""
    person = caller.signed_in()
    assert caller.token is not None
    memberships = Membership.objects.filter(user=person).select_related("namespace")
    organisations = [
        {
            "type": "org",
            "name": membership.namespace.name,
            "fullname": membership.namespace.full_name or membership.namespace.name,
            "roleInOrg": membership.role,
            "avatarUrl": "",
        }
        for membership in memberships
        if membership.namespace.kind == Namespace.Kind.ORGANISATION
    ]
    mine = [row.namespace for row in memberships if row.namespace.name == person.username]
    token = {"displayName": caller.token.name, "role": caller.token.scope}
    return JsonResponse(
        {
            "type": "user",
            "id": str(person.pk),
            "name": person.username,
            "fullname": next((own.full_name for own in mine if own.full_name), person.username),
            "email": person.email,
            "emailVerified": _is_confirmed(person),
            "orgs": organisations,
            "isPro": False,
            "avatarUrl": "",
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def _is_confirmed(person: User) -> bool:
    addresses = EmailAddress.objects.filter(user=person, email__iexact=person.email, verified=True)
    return bool(person.email) and addresses.exists()


@door("GET")
def overview(request: HttpRequest, caller: Caller, name: str) -> JsonResponse:
    """A person or an organisation by name, as their page shows them."""
    namespace = _called(name)
    is_person = not namespace.is_organisation
    found = {
        "type": "user" if is_person else "org",
        "user" if is_person else "name": namespace.name,
        "fullname": namespace.full_name or namespace.name,
        "avatarUrl": "",
        "details": namespace.about,
        "numModels": search.count(AdapterQuery(namespace=namespace.name), person=caller.person),
    }
    return JsonResponse(found if is_person else {**found, "numUsers": namespace.memberships.count()})


@door("GET")
def members(request: HttpRequest, caller: Caller, name: str) -> JsonResponse:
    """Who belongs to an organisation, by name."""
    namespace = _called(name)
    if not namespace.is_organisation:
        raise NobodyOfThisName(name)
    people = User.objects.filter(memberships__namespace=namespace).order_by("username")
    rows, next_cursor = pages.page(request, people, size=MEMBERS_PAGE)
    own = Namespace.objects.filter(name__in=[person.username for person in rows])
    full_names = dict(own.values_list("name", "full_name"))
    entries: list[object] = [
        {
            "type": "user",
            "user": person.username,
            "fullname": full_names.get(person.username) or person.username,
            "avatarUrl": "",
        }
        for person in rows
    ]
    return pages.json_page(request, entries, next_cursor=next_cursor)


def _called(name: str) -> Namespace:
    """Raises NobodyOfThisName."""
    found = Namespace.objects.filter(name__iexact=name, deleted_at=None).first()
    if found is None:
        raise NobodyOfThisName(name)
    return found


@door("GET")
def repositories_of(request: HttpRequest, caller: Caller, name: str = "") -> JsonResponse:
    """The repositories of the caller, or of the organisation `name` as far as they see them, with their sizes."""
    person = caller.signed_in()
    namespace = _called(name or person.get_username())
    found = Adapter.objects.visible_to(person).filter(namespace=namespace).select_related("namespace")
    total = found.aggregate(size=Sum("size_bytes"))["size"] or 0
    page = paginate(found, order=("id",), cursor=request.GET.get("cursor"), size=REPOSITORIES_PAGE)
    entries: list[object] = [
        {
            "id": adapter.full_name,
            "type": "model",
            "updatedAt": answers.date(adapter.updated_at),
            "visibility": adapter.visibility,
            "storage": adapter.size_bytes or 0,
            "storagePercent": round(100 * (adapter.size_bytes or 0) / total, 2) if total else 0,
        }
        for adapter in page.items
    ]
    return pages.json_page(request, entries, next_cursor=page.next_cursor)


@door("GET")
def may_read(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    """200 if the caller may read the repository, else the refusal."""
    repositories.find(caller.person, repo)
    return JsonResponse({})


@door("GET")
def may_change(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    """200 if the caller may write to the repository, else the refusal."""
    repository = repositories.find(caller.person, repo)
    person: User = caller.writer()
    if repository.adapter is None:
        raise repositories.NotWritable(repository.name)
    require_change(person, repository.adapter)
    return JsonResponse({})


@door("GET")
def liked_by(request: HttpRequest, caller: Caller, name: str) -> JsonResponse:
    """What a person likes, as far as the caller may see it."""
    _called(name)
    visible = Adapter.objects.visible_to(caller.person).values("pk")
    rows = Like.objects.filter(user__username__iexact=name, adapter__in=visible)
    page = _page_of_likes(request, rows.select_related("adapter__namespace"))
    found: list[object] = [
        {
            "createdAt": answers.date(row.created_at),
            "repo": {"name": row.adapter.full_name, "type": "model"},
        }
        for row in page.items
    ]
    return pages.json_page(request, found, next_cursor=page.next_cursor)


@door("GET")
def likers(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    """Who likes a repository."""
    repository = repositories.find(caller.person, repo)
    if repository.adapter is None:
        return JsonResponse([], safe=False)
    rows = Like.objects.filter(adapter=repository.adapter).select_related("user")
    page = _page_of_likes(request, rows)
    names = [row.user.username for row in page.items]
    found: list[object] = [{"user": name, "fullname": name, "avatarUrl": ""} for name in names]
    return pages.json_page(request, found, next_cursor=page.next_cursor)


def _page_of_likes(request: HttpRequest, rows: QuerySet[Like]) -> Page[Like]:
    """The newest first."""
    order = ("-created_at", "-id")
    return paginate(rows, order=order, cursor=request.GET.get("cursor"), size=LIKES_PAGE)


@door("POST")
def _like(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    likes.like(_likeable(caller, repo), actor=_liker(caller))
    return JsonResponse({})


@door("DELETE")
def _unlike(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    likes.unlike(_likeable(caller, repo), actor=_liker(caller))
    return JsonResponse({})


like = by_method(POST=_like, DELETE=_unlike)


def _liker(caller: Caller) -> User:
    person = caller.writer()
    require_whole_account(person)
    return person


def _likeable(caller: Caller, repo: str) -> Adapter:
    adapter = repositories.find(caller.person, repo).adapter
    if adapter is None:
        raise repositories.NotWritable(repo)
    return adapter


@door("GET")
def agent_harnesses(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Nothing to tell; a 404 would be asked again by every process."""
    return JsonResponse({"standardEnvVars": [], "harnesses": {}})


@freely("POST")
def telemetry(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Taken and dropped, unread."""
    return empty()
