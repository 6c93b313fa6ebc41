"""Who the caller is, what people are called, and what the client asks of every server."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse

from registry.hub import repositories
from registry.hub.doors import Caller, door, empty
from registry.hub.errors import HubError
from registry.models import Membership, Namespace, User
from registry.rights import require_write


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
    token = {"displayName": caller.token.name, "role": caller.token.scope}
    return JsonResponse(
        {
            "type": "user",
            "id": str(person.pk),
            "name": person.username,
            "fullname": person.get_full_name() or person.username,
            "email": person.email,
            "emailVerified": True,
            "orgs": organisations,
            "isPro": False,
            "avatarUrl": "",
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


@door("GET")
def overview(request: HttpRequest, caller: Caller, name: str) -> JsonResponse:
    """A person or an organisation by name."""
    namespace = Namespace.objects.filter(name__iexact=name).first()
    if namespace is None:
        raise NobodyOfThisName(name)
    is_person = namespace.kind == Namespace.Kind.USER
    full_name = namespace.full_name or namespace.name
    return JsonResponse(
        {
            "type": "user" if is_person else "org",
            "user" if is_person else "name": namespace.name,
            "fullname": full_name,
            "avatarUrl": "",
        }
    )


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
    require_write(person, repository.adapter.namespace)
    return JsonResponse({})


@door("GET")
def agent_harnesses(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Nothing to tell; a 404 would be asked again by every process."""
    return JsonResponse({"standardEnvVars": [], "harnesses": {}})


@door("POST")
def telemetry(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Taken and dropped, unread."""
    return empty()
