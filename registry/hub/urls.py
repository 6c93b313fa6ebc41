"""Addresses of the Hub protocol. A repository is `namespace/name`; names of one segment are asked for too."""

from django.urls import path, re_path

from registry.hub import listing, parts, people, reading, transfer, writing, xet, xet_reading

_REPO = r"(?P<repo>[^/]+(?:/[^/]+)?)"
_API = rf"^api/models/{_REPO}"
_FULL = r"^(?P<repo>[^/]+/[^/]+)"

urlpatterns = [
    path("api/whoami-v2", people.whoami),
    path("api/agent-harnesses", people.agent_harnesses),
    path("v1/telemetry", people.telemetry),
    path("api/users/<str:name>/overview", people.overview),
    path("api/organizations/<str:name>/overview", people.overview),
    path("api/organizations/<str:name>/members", people.members),
    path("api/users/<str:name>/likes", people.liked_by),
    path("api/settings/repositories", people.repositories_of),
    path("api/organizations/<str:name>/settings/repositories", people.repositories_of),
    path("api/repos/create", writing.create),
    path("api/repos/delete", writing.delete),
    path("api/repos/move", writing.move),
    path("api/validate-yaml", writing.validate_yaml),
    path("api/models", listing.models),
    re_path(rf"{_API}/revision/(?P<revision>.+)$", reading.revision_info),
    re_path(rf"{_API}/tree/(?P<rest>.+)$", reading.tree),
    re_path(rf"{_API}/paths-info/(?P<revision>.+)$", reading.paths_info),
    re_path(rf"{_API}/refs$", reading.refs),
    re_path(rf"{_API}/commits/(?P<revision>.+)$", reading.commits),
    re_path(rf"{_API}/like$", people.like),
    re_path(rf"{_API}/likers$", people.likers),
    re_path(rf"{_API}/settings$", writing.change_settings),
    re_path(rf"{_API}/branch/(?P<name>.+)$", writing.branch),
    re_path(rf"{_API}/tag/(?P<name>.+)$", writing.tag),
    re_path(rf"{_API}/preupload/(?P<revision>.+)$", writing.preupload),
    re_path(rf"{_API}/commit/(?P<revision>.+)$", writing.commit),
    re_path(rf"{_API}/duplicate$", writing.duplicate),
    re_path(rf"{_API}/lfs-files/duplicate$", writing.copy_files),
    re_path(rf"{_API}/xet-read-token/(?P<revision>.+)$", xet_reading.read_token),
    re_path(rf"{_API}/xet-write-token/(?P<revision>.+)$", xet.write_token),
    re_path(rf"{_API}/auth-check$", people.may_read),
    re_path(rf"{_API}/auth-check/write$", people.may_change),
    re_path(rf"{_API}/?$", reading.info),
    path("api/models/<path:rest>", reading.not_served),
    re_path(r"^api/(?P<kind>datasets|spaces|kernels)/(?P<rest>.+)$", reading.nothing_here),
    re_path(
        r"^(?P<kind>datasets|spaces|kernels)/(?P<rest>.+/(?:resolve|raw|info/lfs)/.*)$", reading.nothing_here
    ),
    path("xet/read/v1/reconstructions/<str:sha256>", xet_reading.reconstruction),
    path("xet/read/files/<str:ticket>", xet_reading.chunks, name="hub_xet_file"),
    path("xet/<str:scope>/v1/xorbs/default/<str:xorb>", xet.put_xorb),
    path("xet/<str:scope>/v1/shards", xet.put_shard),
    path("xet/<path:rest>", xet.not_needed),
    path("api/lfs/<str:ticket>", transfer.put, name="hub_lfs_put"),
    path("api/lfs/<str:ticket>/parts/<int:number>", parts.put_part, name="hub_lfs_part"),
    path("api/lfs/<str:ticket>/complete", parts.complete, name="hub_lfs_complete"),
    re_path(rf"{_FULL}\.git/info/lfs/objects/batch$", transfer.batch),
    re_path(rf"{_FULL}\.git/info/lfs/objects/verify$", transfer.verify, name="hub_lfs_verify"),
    re_path(rf"{_FULL}\.git/(?P<what>.+)$", reading.no_git),
    re_path(rf"{_FULL}/(?P<what>info/refs)$", reading.no_git),
    re_path(rf"^{_REPO}/resolve/(?P<rest>[^/]+/.+)$", reading.resolve),
    re_path(rf"{_FULL}/resolve/(?P<rest>[^/]*)/?$", reading.resolve),
    re_path(rf"{_FULL}/raw/(?P<rest>.+)$", reading.raw),
    re_path(rf"{_FULL}/(?:commit|tree|blob)/(?P<rest>.+)$", reading.show),
    re_path(r"^api/(?!v1/)(?P<rest>.+)$", reading.unknown),
]
