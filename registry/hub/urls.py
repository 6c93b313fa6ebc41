"""Addresses of the Hub protocol. A repository is `namespace/name`; names of one segment are asked for too."""

from django.urls import path, re_path

from registry.hub import listing, people, reading

_REPO = r"(?P<repo>[^/]+(?:/[^/]+)?)"
_API = rf"^api/models/{_REPO}"
_FULL = r"^(?P<repo>[^/]+/[^/]+)"

urlpatterns = [
    path("api/whoami-v2", people.whoami),
    path("api/agent-harnesses", people.agent_harnesses),
    path("v1/telemetry", people.telemetry),
    path("api/users/<str:name>/overview", people.overview),
    path("api/organizations/<str:name>/overview", people.overview),
    path("api/models", listing.models),
    re_path(rf"{_API}/revision/(?P<revision>.+)$", reading.revision_info),
    re_path(rf"{_API}/tree/(?P<rest>.+)$", reading.tree),
    re_path(rf"{_API}/paths-info/(?P<revision>.+)$", reading.paths_info),
    re_path(rf"{_API}/refs$", reading.refs),
    re_path(rf"{_API}/commits/(?P<revision>.+)$", reading.commits),
    re_path(rf"{_API}/auth-check$", people.may_read),
    re_path(rf"{_API}/auth-check/write$", people.may_change),
    re_path(rf"{_API}$", reading.info),
    path("api/models/<path:rest>", reading.nothing_here),
    re_path(r"^api/(?P<rest>(?:datasets|spaces|kernels|repos|collections)(?:/.*)?)$", reading.nothing_here),
    re_path(r"^(?P<rest>(?:datasets|spaces|kernels)/.+/(?:resolve|raw|info/lfs)/.*)$", reading.nothing_here),
    re_path(rf"^{_REPO}/resolve/(?P<rest>[^/]+/.+)$", reading.resolve),
    re_path(rf"{_FULL}/(?:commit|tree|blob)/(?P<rest>.+)$", reading.show),
]
