"""Who may do what, at every address: each route of the URL configuration, asked by every kind of visitor.

A route that is not in ROUTES fails the suite. Add a line that says through which door it goes (`page`: cookies count;
`api`: cookies and tokens; `hub`: tokens only; `ticket`: neither), what each method needs, and an address to ask.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from compose.models import Composition
from registry.models import Adapter, Invitation, Membership, Namespace, Ref, Task, Token, User
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_token,
    make_user,
    namespace_of,
)
from tests.visitors import client_of

# --- The table ---------------------------------------------------------------------------------------------

PUBLIC = "anybody"
ACCOUNT = "any account"  # by a token: one without a limit
ANY_TOKEN = "any account, by any token"
FEED = "everybody, while the adapter is public"
SEE = "whoever sees the adapter"
CHANGE = "whoever may write to the adapter"
MOVE = "whoever may write to its whole namespace"
LIKE = "any account that sees the adapter"
MEMBER = "members of the organisation"
WHOLE = "members of the organisation, by a token that is good for all of it"
ADMIN = "admins of the organisation"
TASK = "admins of the organisation that the task belongs to, and moderators unless it is private"
SEE_TASK = "whoever sees the task; one in quarantine moderators too"
REPORT_TASK = "any account that sees the task"
SHOW_TASK = "everybody, while everybody sees the task"
MODERATE_TASK = "staff, and a page of ours; a private task only where it was reported"
STAFF = "staff"
MODERATE = "staff, and a page of ours"
MODERATE_IT = "staff, and a page of ours; a private adapter only where it was reported"
OWN = "the person who asked for the composition"
TICKET = "whoever holds a signed address"
NOTHING = "nobody: there is nothing"
SAYS_THAT_IT_FAILED = "a page for somebody whom another server did not let in"
LEADS_TO_SIGN_IN = "a step of signing in; elsewhere it leads to its begin"
ACCOUNT_NOTHING = "any account, and then there is nothing"
SWITCHED_OFF = "nobody: who is signed in is told so"

A = "lab/target"


@dataclass(frozen=True)
class Route:
    door: str
    url: str
    needs: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)


def page(url: str, body: dict[str, Any] | None = None, **needs: str) -> Route:
    return Route("page", url, needs, body or {})


def api(url: str, body: Any = None, **needs: str) -> Route:
    return Route("api", f"/api/v1/{url}", needs, body or {})


def hub(url: str, body: Any = None, **needs: str) -> Route:
    return Route("hub", url, needs, body or {})


_HUB = r"^api/models/(?P<repo>[^/]+(?:/[^/]+)?)"
_ADAPTER = "<str:namespace>/<str:name>"
_API_ADAPTER = f"api/v1/adapters/{_ADAPTER}"
_ORG = "<str:namespace>/settings"
_JOB = "compositions/<slug:composition_id>"
_API_JOB = "api/v1/compositions/<str:id>"

ROUTES: dict[str, Route] = {
    # Pages of no subject
    "": page("/", GET=PUBLIC),
    "docs": page("/docs", GET=PUBLIC),
    "docs/<slug:page>": page("/docs/api", GET=PUBLIC),
    "robots.txt": page("/robots.txt", GET=PUBLIC),
    "sitemap.xml": page("/sitemap.xml", GET=PUBLIC),
    "sitemap-<slug:section>.xml": page("/sitemap-modules.xml", GET=PUBLIC),
    "favicon.ico": page("/favicon.ico", GET=PUBLIC),
    "api/schema/": Route("api", "/api/schema/", {"GET": PUBLIC}),
    "api/docs/": page("/api/docs/", GET=PUBLIC),
    "api/docs": page("/api/docs", GET=PUBLIC),
    "api/": page("/api/", GET=PUBLIC),
    "api": page("/api", GET=PUBLIC),
    "api/v1": page("/api/v1", GET=PUBLIC),
    "api/v1/": page("/api/v1/", GET=PUBLIC),
    "api/health": page("/api/health", GET=PUBLIC),
    "status": page("/status", GET=PUBLIC),
    "metrics": page("/metrics", GET=NOTHING),  # without its token
    # Signing in: allauth's own pages
    "accounts/login/": page("/accounts/login/", GET=PUBLIC, POST=PUBLIC),
    "accounts/signup/": page("/accounts/signup/", GET=PUBLIC, POST=PUBLIC),
    "accounts/logout/": page("/accounts/logout/", GET=PUBLIC, POST=PUBLIC),
    "accounts/inactive/": page("/accounts/inactive/", GET=PUBLIC),
    "accounts/reauthenticate/": page("/accounts/reauthenticate/", GET=ACCOUNT, POST=ACCOUNT),
    "accounts/reauthenticate/code/": page(
        "/accounts/reauthenticate/code/", GET=SWITCHED_OFF, POST=SWITCHED_OFF
    ),
    "accounts/reauthenticate/code/confirm/": page(
        "/accounts/reauthenticate/code/confirm/", GET=SWITCHED_OFF, POST=SWITCHED_OFF
    ),
    "accounts/email/": page("/accounts/email/", GET=ACCOUNT, POST=ACCOUNT),
    "accounts/confirm-email/": page("/accounts/confirm-email/", GET=PUBLIC),
    r"accounts/^confirm-email/(?P<key>[-:\w]+)/$": page("/accounts/confirm-email/x/", GET=PUBLIC),
    "accounts/password/change/": page("/accounts/password/change/", GET=ACCOUNT, POST=ACCOUNT),
    "accounts/password/set/": page("/accounts/password/set/", GET=ACCOUNT, POST=ACCOUNT),
    "accounts/password/reset/": page("/accounts/password/reset/", GET=PUBLIC, POST=PUBLIC),
    "accounts/password/reset/done/": page("/accounts/password/reset/done/", GET=PUBLIC),
    "accounts/password/reset/key/done/": page("/accounts/password/reset/key/done/", GET=PUBLIC),
    "accounts/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": page(
        "/accounts/password/reset/key/1-x/", GET=PUBLIC
    ),
    "accounts/login/code/confirm/": page("/accounts/login/code/confirm/", GET=PUBLIC),
    # Second factors and sessions: a change asks for the password first, which is a redirect
    "accounts/2fa/": page("/accounts/2fa/", GET=ACCOUNT),
    "accounts/2fa/authenticate/": page(
        "/accounts/2fa/authenticate/", GET=LEADS_TO_SIGN_IN, POST=LEADS_TO_SIGN_IN
    ),
    "accounts/2fa/reauthenticate/": page("/accounts/2fa/reauthenticate/", GET=ACCOUNT, POST=ACCOUNT),
    "accounts/2fa/totp/activate/": page("/accounts/2fa/totp/activate/", GET=ACCOUNT, POST=ACCOUNT),
    "accounts/2fa/totp/deactivate/": page(
        "/accounts/2fa/totp/deactivate/", GET=ACCOUNT_NOTHING, POST=ACCOUNT_NOTHING
    ),
    "accounts/2fa/recovery-codes/": page("/accounts/2fa/recovery-codes/", GET=ACCOUNT_NOTHING),
    "accounts/2fa/recovery-codes/generate/": page(
        "/accounts/2fa/recovery-codes/generate/", GET=ACCOUNT, POST=ACCOUNT
    ),
    "accounts/2fa/recovery-codes/download/": page(
        "/accounts/2fa/recovery-codes/download/", GET=ACCOUNT_NOTHING
    ),
    "accounts/2fa/webauthn/": page("/accounts/2fa/webauthn/", GET=ACCOUNT),
    "accounts/2fa/webauthn/add/": page("/accounts/2fa/webauthn/add/", GET=ACCOUNT, POST=ACCOUNT),
    "accounts/2fa/webauthn/reauthenticate/": page(
        "/accounts/2fa/webauthn/reauthenticate/", GET=ACCOUNT, POST=ACCOUNT
    ),
    "accounts/2fa/webauthn/keys/<int:pk>/remove/": page(
        "/accounts/2fa/webauthn/keys/0/remove/", POST=ACCOUNT
    ),
    "accounts/2fa/webauthn/keys/<int:pk>/edit/": page("/accounts/2fa/webauthn/keys/0/edit/", POST=ACCOUNT),
    "accounts/2fa/webauthn/login/": page("/accounts/2fa/webauthn/login/", GET=PUBLIC),
    "accounts/sessions/": page("/accounts/sessions/", GET=ACCOUNT, POST=ACCOUNT),
    # Another server's accounts; in tests none is set
    "accounts/3rdparty/": page("/accounts/3rdparty/", GET=ACCOUNT),
    "accounts/3rdparty/signup/": page("/accounts/3rdparty/signup/", GET=PUBLIC),
    "accounts/3rdparty/login/cancelled/": page("/accounts/3rdparty/login/cancelled/", GET=PUBLIC),
    "accounts/3rdparty/login/error/": page("/accounts/3rdparty/login/error/", GET=SAYS_THAT_IT_FAILED),
    "accounts/social/signup/": page("/accounts/social/signup/", GET=PUBLIC),
    "accounts/social/connections/": page("/accounts/social/connections/", GET=PUBLIC),
    "accounts/social/login/cancelled/": page("/accounts/social/login/cancelled/", GET=PUBLIC),
    "accounts/social/login/error/": page("/accounts/social/login/error/", GET=PUBLIC),
    "accounts/oidc/<str:provider_id>/login/": page("/accounts/oidc/oidc/login/", GET=NOTHING),
    "accounts/oidc/<str:provider_id>/login/callback/": page(
        "/accounts/oidc/oidc/login/callback/", GET=NOTHING
    ),
    "accounts/oidc/^(?P<provider_id>[^/]+)/login/": page("/accounts/oidc/oidc/login/", GET=NOTHING),
    "accounts/oidc/^(?P<provider_id>[^/]+)/login/callback/": page(
        "/accounts/oidc/oidc/login/callback/", GET=NOTHING
    ),
    # Finding
    "modules": page("/modules", GET=PUBLIC),
    "base-models": page("/base-models", GET=PUBLIC),
    "base-models/new": page("/base-models/new", GET=ACCOUNT, POST=ACCOUNT),
    "base-models/<path:name>": page("/base-models/demo/tiny-t5", GET=PUBLIC),
    "base-models/<path:name>/download.zip": page("/base-models/demo/tiny-t5/download.zip", GET=NOTHING),
    "base-models/<path:name>/download/<path:path>": page("/base-models/demo/tiny-t5/download/x", GET=NOTHING),
    "hashes": page("/hashes", GET=PUBLIC),
    "modules/fit": page("/modules/fit", GET=PUBLIC, POST=PUBLIC),
    "modules/fit/<slug:audition_id>": page("/modules/fit/0", GET=ACCOUNT_NOTHING),
    "modules/fit/<slug:audition_id>/forget": page("/modules/fit/0/forget", POST=ACCOUNT_NOTHING),
    "modules/saved": page("/modules/saved", POST=ACCOUNT),
    "modules/saved/<int:search_id>/remove": page("/modules/saved/0/remove", POST=ACCOUNT_NOTHING),
    "<str:namespace>/follow": page("/lab/follow", POST=ACCOUNT),
    "tasks": page("/tasks", GET=PUBLIC),
    "tasks/<slug:slug>": page("/tasks/labs", GET=SEE_TASK),
    "tasks/new": page("/tasks/new", GET=ACCOUNT, POST=ACCOUNT),
    "tasks/<slug:slug>/edit": page("/tasks/labs/edit", GET=TASK, POST=TASK),
    "tasks/<slug:slug>/rows": page("/tasks/labs/rows", GET=TASK, POST=TASK),
    "tasks/<slug:slug>/delete": page("/tasks/labs/delete", POST=TASK),
    "tasks/<slug:slug>/report": page("/tasks/labs/report", GET=SEE_TASK, POST=SEE_TASK),
    "tasks/<slug:slug>/moderate": page("/tasks/labs/moderate", POST=MODERATE_TASK),
    "tasks/<slug:slug>/embed": page("/tasks/labs/embed", GET=SHOW_TASK),
    "tasks/<slug:slug>/leaderboard.csv": page("/tasks/labs/leaderboard.csv", GET=SEE_TASK),
    "<str:namespace>": page("/lab", GET=PUBLIC),
    # Moderation
    "moderation": page("/moderation", GET=MODERATE),
    "moderation/people/<str:namespace>/blank": page(
        "/moderation/people/lab/blank", {"reason": "spam"}, POST=MODERATE
    ),
    f"{_ADAPTER}/moderate": page(f"/{A}/moderate", POST=MODERATE_IT),
    f"{_ADAPTER}/report": page(f"/{A}/report", GET=SEE, POST=SEE),
    # Feeds show what everybody sees, to everybody
    "modules/feed.atom": page("/modules/feed.atom", GET=PUBLIC),
    "<str:namespace>/feed.atom": page("/lab/feed.atom", GET=PUBLIC),
    f"{_ADAPTER}/feed.atom": page(f"/{A}/feed.atom", GET=FEED),
    # One adapter
    _ADAPTER: page(f"/{A}", GET=SEE),
    f"{_ADAPTER}/compare": page(f"/{A}/compare", GET=SEE),
    f"{_ADAPTER}/like": page(f"/{A}/like", POST=LIKE),
    f"{_ADAPTER}/follow": page(f"/{A}/follow", POST=LIKE),
    f"{_ADAPTER}/lineage": page(f"/{A}/lineage", GET=SEE),
    f"{_ADAPTER}/versions": page(f"/{A}/versions", GET=SEE),
    f"{_ADAPTER}/revisions/<str:commit>": page(f"/{A}/revisions/COMMIT", GET=SEE),
    f"{_ADAPTER}/download/<str:commit>.zip": page(f"/{A}/download/COMMIT.zip", GET=SEE, HEAD=SEE),
    f"{_ADAPTER}/download/<str:commit>/<path:path>": page(
        f"/{A}/download/COMMIT/adapter_config.json", GET=SEE, HEAD=SEE
    ),
    f"{_ADAPTER}/settings": page(f"/{A}/settings", GET=CHANGE, POST=CHANGE),
    f"{_ADAPTER}/card": page(f"/{A}/card", GET=CHANGE, POST=CHANGE),
    f"{_ADAPTER}/move": page(
        f"/{A}/move", {"move-namespace": "lab", "move-name": "moved"}, GET=CHANGE, POST=CHANGE
    ),
    f"{_ADAPTER}/delete": page(f"/{A}/delete", {"confirm": "target"}, POST=CHANGE),
    "upload": page("/upload", GET=ACCOUNT, POST=ACCOUNT),
    "upload/check": page("/upload/check", POST=ACCOUNT),
    # A person's own
    "settings/following": page("/settings/following", GET=ACCOUNT),
    "settings/following/mail": page("/settings/following/mail", POST=ACCOUNT),
    "settings/following/no-mail/<str:key>": page("/settings/following/no-mail/x", GET=NOTHING, POST=NOTHING),
    "settings/liked": page("/settings/liked", GET=ACCOUNT),
    "settings/webhooks": page("/settings/webhooks", GET=ACCOUNT, POST=ACCOUNT),
    "settings/webhooks/<int:webhook_id>/on": page("/settings/webhooks/0/on", POST=ACCOUNT_NOTHING),
    "settings/webhooks/<int:webhook_id>/test": page("/settings/webhooks/0/test", POST=ACCOUNT_NOTHING),
    "settings/webhooks/<int:webhook_id>/remove": page("/settings/webhooks/0/remove", POST=ACCOUNT_NOTHING),
    "settings/deliveries/<int:delivery_id>/replay": page(
        "/settings/deliveries/0/replay", POST=ACCOUNT_NOTHING
    ),
    "settings": page("/settings", GET=ACCOUNT, POST=ACCOUNT),
    "settings/data.json": page("/settings/data.json", GET=ACCOUNT),
    # The POST asks for the password first, which is a redirect
    "settings/delete": page("/settings/delete", GET=ACCOUNT, POST=ACCOUNT),
    "settings/tokens": page("/settings/tokens", GET=ACCOUNT, POST=ACCOUNT),
    "settings/tokens/<int:token_id>/revoke": page("/settings/tokens/0/revoke", POST=ACCOUNT_NOTHING),
    "settings/organizations": page("/settings/organizations", GET=ACCOUNT),
    "settings/organizations/<str:name>/answer": page(
        "/settings/organizations/other/answer", {"answer": "decline"}, POST=ACCOUNT_NOTHING
    ),
    "settings/organizations/<str:name>/leave": page("/settings/organizations/lab/leave", POST=MEMBER),
    # Organisations
    "organizations/new": page("/organizations/new", GET=ACCOUNT, POST=ACCOUNT),
    _ORG: page("/lab/settings", GET=MEMBER, POST=ADMIN),
    f"{_ORG}/invite": page("/lab/settings/invite", {"username": "eve", "role": "read"}, POST=ADMIN),
    f"{_ORG}/members/<str:username>": page("/lab/settings/members/ada", {"role": "admin"}, POST=ADMIN),
    f"{_ORG}/invitations/<str:username>": page("/lab/settings/invitations/guest", POST=ADMIN),
    f"{_ORG}/delete": page("/lab/settings/delete", {"confirm": "la"}, POST=ADMIN),
    # Composing
    "compose": page("/compose", GET=PUBLIC),
    "compose/check": page("/compose/check", POST=PUBLIC),
    "compose/candidates": page("/compose/candidates", GET=PUBLIC),
    "compositions": page("/compositions", GET=ACCOUNT),
    _JOB: page("/compositions/JOB", GET=OWN),
    f"{_JOB}/progress": page("/compositions/JOB/progress", GET=OWN),
    f"{_JOB}/stop": page("/compositions/JOB/stop", POST=OWN),
    f"{_JOB}/cancel": page("/compositions/JOB/cancel", POST=OWN),
    f"{_JOB}/share": page("/compositions/JOB/share", POST=OWN),
    f"{_JOB}/unshare": page("/compositions/JOB/unshare", POST=OWN),
    f"{_JOB}/remove-texts": page("/compositions/JOB/remove-texts", POST=OWN),
    f"{_JOB}/remove": page("/compositions/JOB/remove", POST=OWN),
    f"{_JOB}/try": page("/compositions/JOB/try", POST=OWN),
    f"{_JOB}/try/<slug:tryout_id>": page("/compositions/JOB/try/0", GET=ACCOUNT_NOTHING),
    f"{_JOB}/publish": page("/compositions/JOB/publish", POST=OWN),
    f"{_JOB}/recipe.json": page("/compositions/JOB/recipe.json", GET=OWN),
    f"{_JOB}/trials.json": page("/compositions/JOB/trials.json", GET=OWN),
    f"{_JOB}/predictions.csv": page("/compositions/JOB/predictions.csv", GET=OWN),
    # Work with other Hubs: a person's own jobs; here there is none
    "import": page("/import", GET=ACCOUNT, POST=ACCOUNT),
    "imports": page("/imports", GET=ACCOUNT),
    "imports/<str:id>": page("/imports/0", GET=ACCOUNT_NOTHING),
    "imports/<str:id>/progress": page("/imports/0/progress", GET=ACCOUNT_NOTHING),
    "imports/<str:id>/cancel": page("/imports/0/cancel", POST=ACCOUNT_NOTHING),
    "pushes": page("/pushes", GET=ACCOUNT),
    "pushes/<str:id>": page("/pushes/0", GET=ACCOUNT_NOTHING),
    "pushes/<str:id>/progress": page("/pushes/0/progress", GET=ACCOUNT_NOTHING),
    "pushes/<str:id>/cancel": page("/pushes/0/cancel", POST=ACCOUNT_NOTHING),
    f"{_ADAPTER}/push": page(f"/{A}/push", GET=CHANGE, POST=CHANGE),
    "api/v1/imports/": api("imports/", GET=ACCOUNT, POST=ACCOUNT),
    "api/v1/imports/<str:id>/": api("imports/0/", GET=ACCOUNT_NOTHING),
    "api/v1/imports/<str:id>/items/": api("imports/0/items/", GET=ACCOUNT_NOTHING),
    "api/v1/imports/<str:id>/cancel/": api("imports/0/cancel/", POST=ACCOUNT_NOTHING),
    "api/v1/pushes/": api("pushes/", GET=ACCOUNT, POST=ACCOUNT),
    "api/v1/pushes/<str:id>/": api("pushes/0/", GET=ACCOUNT_NOTHING),
    "api/v1/pushes/<str:id>/cancel/": api("pushes/0/cancel/", POST=ACCOUNT_NOTHING),
    # REST
    "api/v1/adapters/fit/": api("adapters/fit/", POST=PUBLIC),
    "api/v1/auditions/": api("auditions/", POST=ACCOUNT),
    "api/v1/auditions/<str:id>/": api("auditions/0/", GET=ACCOUNT_NOTHING, DELETE=ACCOUNT_NOTHING),
    "api/v1/status/": api("status/", GET=PUBLIC),
    "api/v1/adapters/": api("adapters/", GET=PUBLIC, POST=ANY_TOKEN),
    "api/v1/adapters/facets/": api("adapters/facets/", GET=PUBLIC),
    "api/v1/adapters/validate/": api("adapters/validate/", POST=ANY_TOKEN),
    f"{_API_ADAPTER}/": api(f"adapters/{A}/", {"description": "x"}, GET=SEE, PATCH=CHANGE, DELETE=CHANGE),
    f"{_API_ADAPTER}/move/": api(f"adapters/{A}/move/", {"name": "moved"}, POST=MOVE),
    f"{_API_ADAPTER}/revisions/": api(f"adapters/{A}/revisions/", GET=SEE),
    f"{_API_ADAPTER}/revisions/<path:revision>/": api(f"adapters/{A}/revisions/COMMIT/", GET=SEE),
    f"{_API_ADAPTER}/refs/": api(f"adapters/{A}/refs/", GET=SEE),
    f"{_API_ADAPTER}/tags/<path:tag>/": api(f"adapters/{A}/tags/kept/", PUT=CHANGE, DELETE=CHANGE),
    f"{_API_ADAPTER}/lineage/": api(f"adapters/{A}/lineage/", GET=SEE),
    f"{_API_ADAPTER}/files/": api(f"adapters/{A}/files/", GET=SEE),
    f"{_API_ADAPTER}/files/<path:path>": api(f"adapters/{A}/files/adapter_config.json", GET=SEE),
    f"{_API_ADAPTER}/report/": api(f"adapters/{A}/report/", {"reason": "spam"}, POST=LIKE),
    f"{_API_ADAPTER}/archive": api(f"adapters/{A}/archive", GET=SEE),
    "api/v1/hashes/<str:sha256>/": api("hashes/" + "0" * 64 + "/", GET=PUBLIC),
    "api/v1/base-models/": api("base-models/", GET=PUBLIC, POST=ACCOUNT),
    "api/v1/base-models/<path:name>/": api("base-models/demo/tiny-t5/", GET=PUBLIC),
    r"api/v1/^base-models/(?P<name>[^/]+(?:/[^/]+)?)/files/(?P<path>.+)$": api(
        "base-models/demo/tiny-t5/files/x", GET=NOTHING
    ),
    "api/v1/tasks/": api("tasks/", GET=PUBLIC, POST=ACCOUNT),
    "api/v1/tasks/<slug:slug>/": api("tasks/labs/", {"title": "x"}, GET=SEE_TASK, PATCH=TASK, DELETE=TASK),
    "api/v1/tasks/<slug:slug>/revisions/": api("tasks/labs/revisions/", POST=TASK),
    "api/v1/tasks/<slug:slug>/report/": api("tasks/labs/report/", {"reason": "spam"}, POST=REPORT_TASK),
    "api/v1/tasks/<str:slug>/leaderboard/": api("tasks/labs/leaderboard/", GET=SEE_TASK),
    "api/v1/following/": api("following/", GET=ACCOUNT),
    "api/v1/following/<str:namespace>/": api("following/lab/", PUT=ACCOUNT, DELETE=ACCOUNT),
    "api/v1/following/<str:namespace>/<str:name>/": api(f"following/{A}/", PUT=LIKE, DELETE=LIKE),
    "api/v1/saved-searches/": api("saved-searches/", GET=ACCOUNT, POST=ACCOUNT),
    "api/v1/saved-searches/<int:id>/": api("saved-searches/0/", GET=ACCOUNT_NOTHING, DELETE=ACCOUNT_NOTHING),
    "api/v1/news-mail/": api("news-mail/", GET=ACCOUNT, PUT=ACCOUNT, DELETE=ACCOUNT),
    "api/v1/webhooks/": api("webhooks/", GET=ACCOUNT, POST=ACCOUNT),
    "api/v1/webhooks/<int:id>/": api("webhooks/0/", GET=ACCOUNT_NOTHING, DELETE=ACCOUNT_NOTHING),
    "api/v1/webhooks/<int:id>/on/": api("webhooks/0/on/", POST=ACCOUNT_NOTHING),
    "api/v1/webhooks/<int:id>/test/": api("webhooks/0/test/", POST=ACCOUNT_NOTHING),
    "api/v1/webhooks/<int:id>/deliveries/": api("webhooks/0/deliveries/", GET=ACCOUNT_NOTHING),
    "api/v1/deliveries/<int:id>/replay/": api("deliveries/0/replay/", POST=ACCOUNT_NOTHING),
    "api/v1/tokens/": api("tokens/", GET=ACCOUNT),
    "api/v1/tokens/<int:id>/": api("tokens/0/", DELETE=ACCOUNT_NOTHING),
    "api/v1/whoami/": api("whoami/", GET=ANY_TOKEN),
    "api/v1/namespaces/<str:name>/quota/": api("namespaces/lab/quota/", GET=WHOLE),
    "api/v1/organizations/": api("organizations/", {"name": "new-lab"}, GET=ACCOUNT, POST=ACCOUNT),
    "api/v1/organizations/<str:name>/": api(
        "organizations/lab/", {"full_name": "x"}, GET=MEMBER, PATCH=ADMIN, DELETE=ADMIN
    ),
    "api/v1/organizations/<str:name>/members/": api(
        "organizations/lab/members/", {"username": "eve"}, POST=ADMIN
    ),
    "api/v1/organizations/<str:name>/members/<str:username>/": api(
        "organizations/lab/members/ada/", {"role": "admin"}, PATCH=ADMIN, DELETE=ADMIN
    ),
    "api/v1/invitations/": api("invitations/", GET=ACCOUNT),
    "api/v1/invitations/<str:name>/": api("invitations/other/", POST=ACCOUNT_NOTHING, DELETE=ACCOUNT_NOTHING),
    "api/v1/compositions/": api("compositions/", GET=ACCOUNT, POST=ACCOUNT),
    f"{_API_JOB}/": api("compositions/JOB/", GET=OWN, DELETE=OWN),
    f"{_API_JOB}/texts/": api("compositions/JOB/texts/", DELETE=OWN),
    f"{_API_JOB}/cancel/": api("compositions/JOB/cancel/", POST=OWN),
    f"{_API_JOB}/stop/": api("compositions/JOB/stop/", POST=OWN),
    f"{_API_JOB}/try/": api("compositions/JOB/try/", {"input": "x"}, POST=OWN),
    f"{_API_JOB}/try/<str:tryout>/": api("compositions/JOB/try/0/", GET=ACCOUNT_NOTHING),
    f"{_API_JOB}/publish/": api("compositions/JOB/publish/", POST=OWN),
    f"{_API_JOB}/trials/": api("compositions/JOB/trials/", GET=OWN),
    f"{_API_JOB}/log/": api("compositions/JOB/log/", GET=OWN),
    f"{_API_JOB}/predictions/": api("compositions/JOB/predictions/", GET=OWN),
    f"{_API_JOB}/share/": api("compositions/JOB/share/", POST=OWN, DELETE=OWN),
    f"{_API_JOB}/recipe/": api("compositions/JOB/recipe/", GET=OWN),
    # The Hub protocol
    "api/whoami-v2": hub("/api/whoami-v2", GET=ANY_TOKEN),
    "api/agent-harnesses": hub("/api/agent-harnesses", GET=PUBLIC),
    "v1/telemetry": hub("/v1/telemetry", POST=PUBLIC),
    "api/users/<str:name>/overview": hub("/api/users/ada/overview", GET=PUBLIC),
    "api/organizations/<str:name>/overview": hub("/api/organizations/lab/overview", GET=PUBLIC),
    "api/organizations/<str:name>/members": hub("/api/organizations/lab/members", GET=PUBLIC),
    "api/users/<str:name>/likes": hub("/api/users/ada/likes", GET=PUBLIC),
    "api/settings/repositories": hub("/api/settings/repositories", GET=ANY_TOKEN),
    "api/organizations/<str:name>/settings/repositories": hub(
        "/api/organizations/lab/settings/repositories", GET=ANY_TOKEN
    ),
    "api/repos/create": hub("/api/repos/create", {"name": "lab/new"}, POST=MOVE),
    "api/repos/delete": hub("/api/repos/delete", {"name": A}, DELETE=CHANGE),
    "api/repos/move": hub("/api/repos/move", {"fromRepo": A, "toRepo": "lab/moved"}, POST=MOVE),
    "api/validate-yaml": hub("/api/validate-yaml", {"content": ""}, POST=PUBLIC),
    "api/models": hub("/api/models", GET=PUBLIC),
    f"{_HUB}/?$": hub(f"/api/models/{A}", GET=SEE),
    rf"{_HUB}/revision/(?P<revision>.+)$": hub(f"/api/models/{A}/revision/main", GET=SEE),
    rf"{_HUB}/tree/(?P<rest>.+)$": hub(f"/api/models/{A}/tree/main", GET=SEE),
    rf"{_HUB}/paths-info/(?P<revision>.+)$": hub(
        f"/api/models/{A}/paths-info/main", {"paths": ["README.md"]}, POST=SEE
    ),
    f"{_HUB}/refs$": hub(f"/api/models/{A}/refs", GET=SEE),
    rf"{_HUB}/commits/(?P<revision>.+)$": hub(f"/api/models/{A}/commits/main", GET=SEE),
    f"{_HUB}/like$": hub(f"/api/models/{A}/like", POST=LIKE, DELETE=LIKE),
    f"{_HUB}/likers$": hub(f"/api/models/{A}/likers", GET=SEE),
    f"{_HUB}/settings$": hub(f"/api/models/{A}/settings", {"private": True}, PUT=CHANGE),
    rf"{_HUB}/branch/(?P<name>.+)$": hub(f"/api/models/{A}/branch/b", POST=CHANGE),
    rf"{_HUB}/tag/(?P<name>.+)$": hub(f"/api/models/{A}/tag/main", {"tag": "v1"}, POST=CHANGE),
    rf"{_HUB}/preupload/(?P<revision>.+)$": hub(
        f"/api/models/{A}/preupload/main", {"files": []}, POST=CHANGE
    ),
    rf"{_HUB}/commit/(?P<revision>.+)$": hub(
        f"/api/models/{A}/commit/main", {"key": "header", "value": {"summary": "x"}}, POST=CHANGE
    ),
    rf"{_HUB}/xet-write-token/(?P<revision>.+)$": hub(f"/api/models/{A}/xet-write-token/main", GET=CHANGE),
    rf"{_HUB}/lfs-files/duplicate$": hub(
        f"/api/models/{A}/lfs-files/duplicate",
        {"target": {"type": "model", "name": A}, "files": []},
        POST=CHANGE,
    ),
    rf"{_HUB}/xet-read-token/(?P<revision>.+)$": hub(f"/api/models/{A}/xet-read-token/main", GET=SEE),
    rf"{_HUB}/duplicate$": hub(f"/api/models/{A}/duplicate", {"repository": "lab/copy"}, POST=MOVE),
    f"{_HUB}/auth-check$": hub(f"/api/models/{A}/auth-check", GET=SEE),
    f"{_HUB}/auth-check/write$": hub(f"/api/models/{A}/auth-check/write", GET=CHANGE),
    "api/models/<path:rest>": hub("/api/models/a/b/c", GET=NOTHING),
    r"^api/(?P<kind>datasets|spaces|kernels)/(?P<rest>.+)$": hub("/api/datasets/x", GET=NOTHING),
    r"^(?P<kind>datasets|spaces|kernels)/(?P<rest>.+/(?:resolve|raw|info/lfs)/.*)$": hub(
        "/datasets/x/resolve/main/y", GET=NOTHING
    ),
    "xet/<str:scope>/v1/xorbs/default/<str:xorb>": Route(
        "ticket", "/xet/x/v1/xorbs/default/y", {"POST": TICKET}
    ),
    "xet/read/v1/reconstructions/<str:sha256>": Route(
        "ticket", "/xet/read/v1/reconstructions/x", {"GET": TICKET}
    ),
    "xet/read/files/<str:ticket>": hub("/xet/read/files/x", GET=TICKET),
    "xet/<str:scope>/v1/shards": Route("ticket", "/xet/x/v1/shards", {"POST": TICKET}),
    "xet/<path:rest>": Route("ticket", "/xet/x", {"GET": NOTHING}),
    "api/lfs/<str:ticket>": hub("/api/lfs/x", PUT=TICKET),
    "api/lfs/<str:ticket>/parts/<int:number>": hub("/api/lfs/x/parts/1", PUT=TICKET),
    "api/lfs/<str:ticket>/complete": hub("/api/lfs/x/complete", POST=TICKET),
    r"^(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch$": hub(
        f"/{A}.git/info/lfs/objects/batch", {"operation": "upload", "objects": []}, POST=CHANGE
    ),
    # For who may write, what was never sent is a 404.
    r"^(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/verify$": hub(
        f"/{A}.git/info/lfs/objects/verify", {"oid": "0" * 64, "size": 1}, POST=CHANGE
    ),
    # Who sees it is told in words that there is no such thing.
    r"^(?P<repo>[^/]+/[^/]+)\.git/(?P<what>.+)$": hub(f"/{A}.git/info/refs", GET=SEE),
    r"^(?P<repo>[^/]+/[^/]+)/(?P<what>info/refs)$": hub(f"/{A}/info/refs", GET=SEE),
    r"^(?P<repo>[^/]+/[^/]+)/raw/(?P<rest>.+)$": hub(f"/{A}/raw/main/adapter_config.json", GET=SEE, HEAD=SEE),
    r"^(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<rest>[^/]+/.+)$": hub(
        f"/{A}/resolve/main/adapter_config.json", GET=SEE, HEAD=SEE
    ),
    r"^(?P<repo>[^/]+/[^/]+)/resolve/(?P<rest>[^/]*)/?$": hub(f"/{A}/resolve/main", GET=NOTHING),
    r"^api/(?!v1/)(?P<rest>.+)$": hub("/api/daily_papers", GET=NOTHING),
    # Leads to the page, whatever there is.
    r"^(?P<repo>[^/]+/[^/]+)/(?:commit|tree|blob)/(?P<rest>.+)$": hub(f"/{A}/tree/main", GET=PUBLIC),
}
# Everything below the administration is for staff; what is not is here.
OPEN_IN_ADMIN = {"admin/login/", "admin/logout/", "admin/jsi18n/"}
ABOUT_AN_ADAPTER = {FEED, MODERATE_IT, SEE, CHANGE, LIKE, MOVE}
ONLY_AN_ADAPTER = {"for target", "for other"}  # tokens
ABOUT_A_TASK = {TASK, SEE_TASK, REPORT_TASK, SHOW_TASK, MODERATE_TASK}
ASKS_ALSO_WHAT_IS_PUBLIC = {"guest without an account", "stranger", "token write", "token expired"}
ABOUT_NO_ROLE = {ACCOUNT, ACCOUNT_NOTHING, ANY_TOKEN, SWITCHED_OFF}
ASKS_WHAT_NEEDS_AN_ACCOUNT = {
    "guest without an account", "stranger", "token read", "token write", "token for lab", "token expired",
}  # fmt: skip
ASKS_WHAT_IS_DELETED = {"guest without an account", "admin", "staff", "token write", "token read"}
TAKES_FILES = {"/api/v1/adapters/", "/api/v1/adapters/validate/"}
HANDLER = Client().handler  # of them all: each of its own would load the middleware anew
STATES = ("public", "private", "quarantined", "deleted")
TASK_STATES = ("public", "private", "quarantined", "private, quarantined", "deleted")


def all_routes(patterns: Any = None, before: str = "") -> Iterator[str]:
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from all_routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route


def test_every_route_is_in_the_table_and_the_table_holds_no_other():
    found = {route for route in all_routes() if not route.startswith("admin/")}
    assert found - set(ROUTES) == set(), "Say in ROUTES who may do what there."
    assert set(ROUTES) - found == set(), "There is no such route any more."


# --- Visitors and what they meet -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Visitor:
    name: str
    role: str = ""  # in the organisation lab
    is_staff: bool = False
    is_signed_in: bool = True
    token: str = ""  # "", or its kind
    secret: str = ""
    session: str = ""

    @property
    def client(self) -> Client:
        """A browser of their own, as it is right after signing in."""
        client = Client(raise_request_exception=False)
        client.handler = HANDLER
        if self.session:
            client.cookies[settings.SESSION_COOKIE_NAME] = self.session
        return client

    @property
    def is_bad_token(self) -> bool:
        return self.token in {"expired", "revoked", "unknown"}

    def through(self, door: str) -> Visitor:
        """Who this visitor is behind a door: pages do not see tokens, the Hub protocol does not see cookies."""
        is_seen = {"hub": bool(self.token), "page": not self.token, "api": True, "ticket": False}[door]
        return self if is_seen else Visitor("nobody", is_signed_in=False)

    @property
    def is_limited(self) -> bool:
        return self.token in {"for target", "for other", "for lab"}

    @property
    def may_write_at_all(self) -> bool:
        return self.token != "read"

    @property
    def sees_hidden(self) -> bool:
        return bool(self.role) and self.token != "for other"

    @property
    def may_change(self) -> bool:
        return self.role in {"write", "admin"} and self.may_write_at_all and self.token != "for other"

    @property
    def may_change_namespace(self) -> bool:
        return self.may_change and self.token != "for target"


@dataclass(frozen=True)
class World:
    visitors: list[Visitor]
    adapter: Adapter
    commit: str
    job: str


def session_of(user: User) -> str:
    return client_of(user).cookies[settings.SESSION_COOKIE_NAME].value


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of refusals need no line each in the log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def world(db: None) -> World:
    """An organisation with members in every role, an adapter of it, a composition of will, and all visitors."""
    people = {name: make_user(name) for name in ("ada", "will", "rita", "eve", "guest")}
    sam = make_user("sam", is_staff=True, is_superuser=True)
    lab = make_organisation(
        "lab", members={people["ada"]: "admin", people["will"]: "write", people["rita"]: "read"}
    )
    Membership.objects.create(namespace=make_organisation("empty"), user=people["ada"], role="admin")
    Invitation.objects.create(namespace=lab, user=people["guest"], role="read")
    base_model = make_base_model()
    make_task("open", rows=2, test_rows=2, is_held_out=True)
    make_task("labs", rows=2, test_rows=2, is_held_out=True, owner=lab)
    adapter = make_adapter("target", namespace=lab, base_model=base_model)
    assert adapter.head is not None
    Ref.objects.create(adapter=adapter, kind=Ref.Kind.TAG, name="kept", revision=adapter.head)
    other = make_adapter("other", namespace=lab, base_model=base_model)
    will = people["will"]
    yesterday = timezone.now() - timedelta(days=1)
    job = Composition.objects.create(
        owner=will, title="mine", base_model=base_model, method="auto", budget=10, seed=1, examples=[],
        status="queued",
    )  # fmt: skip
    unused = make_token(will, name="expired")
    Token.objects.filter(name="expired").update(expires_at=yesterday)
    revoked = make_token(will, name="revoked")
    Token.objects.filter(name="revoked").update(revoked_at=yesterday)
    visitors = [
        Visitor("guest without an account", is_signed_in=False),
        Visitor("stranger", session=session_of(people["eve"])),
        Visitor("reader", role="read", session=session_of(people["rita"])),
        Visitor("writer", role="write", session=session_of(will)),
        Visitor("admin", role="admin", session=session_of(people["ada"])),
        Visitor("staff", is_staff=True, session=session_of(sam)),
        *(
            Visitor(f"token {kind}", role=role, token=kind, secret=secret)
            for kind, role, secret in (
                ("stranger's", "", make_token(people["eve"])),
                ("staff's", "", make_token(sam)),
                ("read", "write", make_token(will, "read")),
                ("write", "write", make_token(will)),
                ("for target", "write", make_token(will, adapter=adapter)),
                ("for other", "write", make_token(will, adapter=other)),
                ("for lab", "write", make_token(will, namespace=lab)),
                ("expired", "write", unused),
                ("revoked", "write", revoked),
                ("unknown", "write", "lr_" + "0" * 40),
            )
        ),
    ]
    return World(visitors, adapter, adapter.head.commit, job.pk)


def expected(route: Route, method: str, visitor: Visitor, state: str) -> str:
    """What the table says a visitor meets: ok, login (a page's way to say 401), 401, 403 or 404."""
    need, door = route.needs[method], route.door
    is_writing = method not in {"GET", "HEAD"}
    seen = visitor.through(door)
    refused = "login" if door == "page" else "401"
    if seen.is_bad_token:
        return "401"
    if need in {PUBLIC, TICKET}:
        return "ok" if need == PUBLIC else "403"
    if need == NOTHING:
        return "404"
    if need == FEED:
        return "ok" if state == "public" else "404"
    if need == SAYS_THAT_IT_FAILED:
        return "401"
    if need == LEADS_TO_SIGN_IN:
        return "ok"
    if need == SWITCHED_OFF:
        return "403" if seen.is_signed_in else refused
    if need in ABOUT_A_TASK:
        return _of_a_task(door, need, seen, state, is_writing)
    if need == STAFF:
        return "ok" if seen.is_staff else "login"
    if need in {MODERATE, MODERATE_IT}:
        if not (seen.is_signed_in and seen.is_staff):
            return "403" if seen.is_signed_in else "login"
        return "404" if need == MODERATE_IT and state in {"private", "deleted"} else "ok"
    if need == OWN:
        return _of_a_job(door, seen, is_writing)
    if need == WHOLE:
        if not seen.is_signed_in:
            return refused
        return "ok" if seen.role and seen.token not in ONLY_AN_ADAPTER else "403"
    if need in {MEMBER, ADMIN}:
        if not seen.is_signed_in:
            return refused
        if seen.is_limited or (door == "api" and is_writing and not seen.may_write_at_all):
            return "403"
        may = {MEMBER: bool(seen.role), ADMIN: seen.role == "admin"}
        return "ok" if may[need] else "403"
    if need in {ACCOUNT, ANY_TOKEN, ACCOUNT_NOTHING}:
        if not seen.is_signed_in:
            return refused
        if need != ANY_TOKEN and seen.is_limited:
            return "403"
        if is_writing and not seen.may_write_at_all:
            return "403"
        return "404" if need == ACCOUNT_NOTHING else "ok"
    return _of_an_adapter(route, need, seen, state)


def _of_a_job(door: str, seen: Visitor, is_writing: bool) -> str:
    """The composition is will's, whose are the writer and all tokens in that role."""
    if is_writing and not seen.is_signed_in:
        return "login" if door == "page" else "401"
    if is_writing and door == "api" and (seen.is_limited or not seen.may_write_at_all):
        return "403"
    return "ok" if seen.role == "write" and not seen.is_limited else "404"


def _of_a_task(door: str, need: str, seen: Visitor, state: str, is_writing: bool) -> str:
    """The task is of the organisation lab, made by nobody who is among the visitors."""
    is_shown = state == "public"
    if need == SHOW_TASK:
        return "ok" if is_shown else "404"
    moderates = seen.is_staff and not seen.token
    sees = is_shown or (state != "deleted" and bool(seen.role) and seen.token not in ONLY_AN_ADAPTER)
    sees_page = sees or (moderates and state == "quarantined")
    if need == SEE_TASK:
        return "ok" if sees_page else "404"
    if not seen.is_signed_in:
        return "login" if door == "page" else "401"
    if need == MODERATE_TASK:
        if not moderates:
            return "403"
        return "ok" if sees_page or "quarantined" in state else "404"
    if door == "api" and is_writing and (seen.is_limited or not seen.may_write_at_all):
        return "403"
    if not sees_page:
        return "404"
    if need == REPORT_TASK:
        return "ok"
    may = moderates or (seen.role == "admin" and "quarantined" not in state)
    return "ok" if may else "403"


def _of_an_adapter(route: Route, need: str, seen: Visitor, state: str) -> str:
    door = route.door
    sees = state != "deleted" and (
        state == "public" or seen.sees_hidden or (state == "quarantined" and seen.is_staff)
    )
    if need == SEE:
        return "ok" if sees else "404"
    asks_first = door == "api" or route.url.startswith("/api/repos/")  # for the right, then for the adapter
    if not seen.is_signed_in and (door != "hub" or sees or asks_first):
        return "login" if door == "page" else "401"
    if asks_first and not seen.may_write_at_all:
        return "403"
    if not sees:
        return "404"
    if need == LIKE:
        return "ok" if seen.may_write_at_all and not seen.is_limited else "403"
    may = seen.may_change_namespace if need == MOVE else seen.may_change
    return "ok" if may and state != "quarantined" else "403"


def outcome(answer: Any) -> str:
    if answer.status_code in {401, 403, 404}:
        return str(answer.status_code)
    if answer.status_code == 302 and re.match(r"/(accounts|admin)/login/\?next=", answer["Location"]):
        return "login"
    return "ok" if answer.status_code < 500 else f"broken: {answer.status_code}"


def ask(visitor: Visitor, route: Route, method: str, url: str) -> Any:
    """The answer; whatever it changed is undone."""
    options: dict[str, Any] = {}
    if visitor.secret:
        options["headers"] = {"Authorization": f"Bearer {visitor.secret}"}
    with transaction.atomic():
        if route.door == "page":
            answer = getattr(visitor.client, method.lower())(url, route.body or None, **options)
        else:
            body = json.dumps(route.body) if method not in {"GET", "HEAD"} else ""
            kind = "application/json"
            if url in TAKES_FILES and method == "POST":
                body, kind = "", "multipart/form-data; boundary=x"
            answer = visitor.client.generic(method, url, body, content_type=kind, **options)
        if answer.streaming:
            b"".join(answer.streaming_content)
        transaction.set_rollback(True)
    return answer


def is_worth_asking(visitor: Visitor, door: str, need: str, state: str) -> bool:
    """Not again and again what cannot differ: one visitor stands for all whom a door does not see."""
    if need == PUBLIC and visitor.name not in ASKS_ALSO_WHAT_IS_PUBLIC:
        return False
    if need in ABOUT_NO_ROLE and visitor.name not in ASKS_WHAT_NEEDS_AN_ACCOUNT:
        return False
    if door == "page" and visitor.token:
        return visitor.token == "write"
    if state == "deleted":
        return visitor.name in ASKS_WHAT_IS_DELETED
    if door == "hub" and not visitor.token and visitor.is_signed_in:
        return visitor.role == "admin"
    return state == "public" or not visitor.is_bad_token


def set_state(adapter: Adapter, state: str) -> None:
    now = timezone.now()
    Adapter.objects.filter(pk=adapter.pk).update(
        visibility="private" if state == "private" else "public",
        quarantined_at=now if state == "quarantined" else None,
        deleted_at=now if state == "deleted" else None,
    )


def set_task_state(state: str) -> None:
    """Of the organisation's task, of which nothing stays when it is deleted."""
    labs = Task.objects.filter(slug="labs")
    held_at = timezone.now() if "quarantined" in state else None
    labs.update(is_private="private" in state, quarantined_at=held_at)
    if state == "deleted":
        labs.delete()


@pytest.mark.django_db
def test_every_visitor_meets_at_every_route_what_the_table_says(world, rung):
    differences, cells = [], 0
    for state in TASK_STATES:
        set_task_state(state)
        if state in STATES:
            set_state(world.adapter, state)
        for name, route in ROUTES.items():
            url = route.url.replace("COMMIT", world.commit).replace("JOB", world.job)
            for method, need in route.needs.items():
                asked_about = ABOUT_AN_ADAPTER | ABOUT_A_TASK if state in STATES else ABOUT_A_TASK
                if state != "public" and need not in asked_about:
                    continue
                if name == "api/repos/create" and state != "public":
                    continue
                for visitor in world.visitors:
                    if not is_worth_asking(visitor, route.door, need, state):
                        continue
                    cells += 1
                    wanted = expected(route, method, visitor, state)
                    found = outcome(ask(visitor, route, method, url))
                    if "/lfs/objects/verify" in url and wanted == "ok":
                        wanted = "404"
                    if found != wanted:
                        differences.append(
                            f"{method} {url} by {visitor.name}, it is {state}: {found}, not {wanted}"
                        )
    assert cells > 1500
    assert not differences, f"{len(differences)} of {cells} cells differ:\n" + "\n".join(differences[:200])


@pytest.mark.django_db
def test_the_administration_is_for_staff_alone(world):
    differences = []
    for route in all_routes():
        if not route.startswith("admin/") or route in OPEN_IN_ADMIN:
            continue
        url = "/" + re.sub(r"<[^>]+>", "1", route)
        if "^" in url:
            url = "/admin/registry/" if "app_label" in url else "/admin/nothing"
        for visitor in world.visitors:
            found = outcome(ask(visitor, Route("page", url, {}), "GET", url))
            is_right = not found.startswith(("broken", "login")) if visitor.is_staff else found == "login"
            if not is_right:
                differences.append(f"{url} by {visitor.name}: {found}")
    assert not differences, "\n".join(differences)


# --- What is hidden is as if it were not there -----------------------------------------------------------------


def settled(body: bytes) -> bytes:
    """A page without what is new in every answer."""
    return re.sub(
        rb'(csrfmiddlewaretoken" value=|data-csrf=)"[^"]+"|request [0-9a-f]{16}|<updated>[^<]+', b"", body
    )


def seen_by(client: Any, urls: list[str]) -> dict[str, bytes]:
    """What each address shows."""
    shown = {}
    for url in urls:
        answer = client.get(url)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        shown[url] = settled(body)
    return shown


@pytest.mark.django_db
def test_nothing_public_changes_by_what_is_hidden(world, rung):
    """Lists, counts, search, facets, tasks, leaderboards, feeds and status: byte for byte as without it."""
    lab = Namespace.objects.get(name="lab")
    base_model = world.adapter.base_model
    urls = sorted(
        {
            route.url
            for route in ROUTES.values()
            if route.needs.get("GET") == PUBLIC and "JOB" not in route.url
        }
        - {"/compose"}  # its automatic choice is tested below
    )
    words = ["?q=needle", "?namespace=lab", "?base=demo/tiny-t5", "?sort=new"]
    urls += [f"/modules{query}" for query in words] + [f"/api/v1/adapters/{query}" for query in words]
    urls += ["/api/models?search=needle", "/api/models?author=lab", "/tasks?q=needle", "/tasks?kind=trained"]
    urls += [
        "/tasks/needle",
        "/tasks/needle-too",
        "/tasks/needle/leaderboard.csv",
        "/api/v1/tasks/needle/",
        "/api/v1/tasks/?q=needle",
    ]
    urls += [f"/{A}", f"/api/v1/adapters/{A}/", f"/api/models/{A}", "/lab?q=needle"]
    clients = [Client(), client_of(make_user("mallory"), raise_request_exception=False)]
    with transaction.atomic():
        before = [seen_by(client, urls) for client in clients]
        transaction.set_rollback(True)
    task = Task.objects.create(slug="needle", title="Needle", owner=lab)
    make_task("needle-too", title="Needle", rows=2, test_rows=2, is_held_out=True, owner=lab, is_private=True)
    for state in ("private", "quarantined", "deleted"):
        hidden = make_adapter(
            f"needle-{state}", namespace=lab, base_model=base_model, task=task, description="needle",
            tags=["needle"], license="needle", downloads=10**6,
        )  # fmt: skip
        set_state(hidden, state)
        Composition.objects.create(
            owner=User.objects.get(username="will"), title="needle", base_model=base_model, task=task,
            method="auto", budget=10, seed=1, examples=[{"input": "needle", "output": "needle"}],
            status="succeeded", result={}, adapter=hidden,
        )  # fmt: skip
    from django.core.cache import cache

    cache.clear()
    after = [seen_by(client, urls) for client in clients]
    changed = [url for one, two in zip(before, after, strict=True) for url in urls if one[url] != two[url]]
    assert not changed, "\n".join(changed)
    owner = seen_by(
        client_of(User.objects.get(username="ada"), raise_request_exception=False),
        ["/modules?q=needle", "/tasks/needle", "/tasks/needle-too"],
    )
    assert all(b"needle" in body.lower() for body in owner.values()), "the needle cannot be found at all"


@pytest.mark.django_db
def test_what_is_private_answers_as_what_is_not_there(world):
    set_state(world.adapter, "private")
    for door in (
        "/{}",
        "/{}/versions",
        "/api/v1/adapters/{}/",
        "/api/models/{}",
        "/{}/resolve/main/README.md",
    ):
        hidden = Client().get(door.format("lab/target"))
        absent = Client().get(door.format("lab/absent"))
        assert hidden.status_code == absent.status_code == 404
        bodies = [settled(answer.content).replace(b"target", b"absent") for answer in (hidden, absent)]
        assert bodies[0] == bodies[1], door
        names = set(hidden.headers) ^ set(absent.headers)
        assert not names, names


# --- Other sites -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_no_other_site_makes_a_browser_change_anything(world):
    """Every method that changes something, by cookie and without the form's token (F30)."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.force_login(User.objects.get(username="ada"), backend="django.contrib.auth.backends.ModelBackend")
    passed = []
    for route in ROUTES.values():
        url = route.url.replace("COMMIT", world.commit).replace("JOB", world.job)
        for method in set(route.needs) - {"GET", "HEAD"}:
            if route.needs[method] in {PUBLIC, SEE} and route.door != "page":
                continue  # a question in a body
            kind = "multipart/form-data; boundary=x" if url in TAKES_FILES else "application/json"
            answer = client.generic(method, url, json.dumps(route.body), content_type=kind)
            if answer.status_code not in {401, 403, 404}:
                passed.append(f"{method} {url}: {answer.status_code}")
    assert passed == []


@pytest.mark.django_db
def test_whatever_answers_get_answers_head(world):
    client: Any = client_of(User.objects.get(username="ada"), raise_request_exception=False)
    refusing = []
    for name, route in ROUTES.items():
        if "GET" in route.needs:
            url = route.url.replace("COMMIT", world.commit).replace("JOB", world.job)
            if client.head(url).status_code == 405:
                refusing.append(name)
    assert refusing == []


@pytest.mark.django_db
def test_looking_changes_nothing(world, rung):
    """Every GET, as somebody who may do all of it, leaves every row that is not a count as it was."""

    def rows() -> list[Any]:
        tables: list[Any] = [Adapter, Namespace, Membership, Invitation, Task, User, Composition]
        hidden = {"downloads", "last_login", "heartbeat_at"}
        return [
            [
                {key: value for key, value in row.items() if key not in hidden}
                for row in table.objects.order_by("pk").values()
            ]
            for table in tables
        ]

    client: Any = client_of(User.objects.get(username="ada"), raise_request_exception=False)
    before = rows()
    for route in ROUTES.values():
        if "GET" in route.needs:
            answer = client.get(route.url.replace("COMMIT", world.commit).replace("JOB", world.job))
            if answer.streaming:
                b"".join(answer.streaming_content)
    assert rows() == before
    assert namespace_of(User.objects.get(username="ada"))
