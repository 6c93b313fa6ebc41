"""An OpenID Connect server as companies run them, small: its own sign-in page, codes with PKCE, signed id tokens.

It checks what it is told as strictly as the real ones do: client, secret, address to come back to, code verifier, and
that a code is used once. `people` are who may sign in there; a button on its page says no instead.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "lora-commons", "a secret of both"
_PAGE = """<!doctype html><html lang="en"><title>Example Works</title><h1>Example Works</h1>
<form method="post" action="/authorize?{query}"><label>Name <input name="sub" id="sub"></label>
<button name="answer" value="yes">Continue</button> <button name="answer" value="no">No</button></form>"""


@dataclass
class Provider:
    """What the server knows. `people` has the claims of each by their `sub`; change it as a test goes on."""

    address: str
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_broken: bool = False
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    access_tokens: dict[str, str] = field(default_factory=dict)
    key: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )

    def claims(self, sub: str) -> dict[str, Any]:
        return {"sub": sub, **self.people[sub]}

    def settings(self, name: str = "Example Works") -> dict[str, Any]:
        """SOCIALACCOUNT_PROVIDERS for a site that trusts it, as settings.py writes them."""
        app = {
            "provider_id": "oidc",
            "name": name,
            "client_id": CLIENT_ID,
            "secret": CLIENT_SECRET,
            "settings": {"server_url": self.address},
        }
        return {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}}

    def redeem(self, given: dict[str, str]) -> dict[str, Any] | None:
        """The answer of the token endpoint, or None if anything about the request is wrong."""
        asked = self.codes.pop(given.get("code", ""), None)
        if asked is None or given.get("redirect_uri") != asked["redirect_uri"]:
            return None
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return None
        if (given.get("client_id"), given.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return None
        token = secrets.token_urlsafe(16)
        self.access_tokens[token] = asked["sub"]
        now = int(time.time())
        identity = {
            **self.claims(asked["sub"]),
            "iss": self.address,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
        }
        if "nonce" in asked:
            identity["nonce"] = asked["nonce"]
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": jwt.encode(identity, self.key, algorithm="RS256", headers={"kid": "1"}),
        }


@contextmanager
def oidc_provider(port: int = 0) -> Iterator[Provider]:
    """The server, on this machine, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    provider = server.provider = Provider(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    @property
    def provider(self) -> Provider:
        return self.server.provider  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if self.provider.is_broken:
            self.answer({"error": "server_error"}, status=500)
        elif address.path == "/.well-known/openid-configuration":
            self.answer(self.configuration())
        elif address.path == "/keys":
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.provider.key.public_key()))
            self.answer({"keys": [{**public, "kid": "1", "use": "sig", "alg": "RS256"}]})
        elif address.path == "/authorize" and self.asked() is not None:
            self.answer(_PAGE.format(query=html.escape(address.query)), kind="text/html; charset=utf-8")
        elif address.path == "/userinfo":
            sub = self.provider.access_tokens.get(
                self.headers.get("Authorization", "").removeprefix("Bearer ")
            )
            self.answer(
                self.provider.claims(sub) if sub else {"error": "invalid_token"}, status=200 if sub else 401
            )
        else:
            self.answer({"error": "invalid_request"}, status=400)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        given = {name: values[0] for name, values in parse_qs(body).items()}
        if urlsplit(self.path).path == "/token":
            answer = self.provider.redeem(given)
            self.answer(answer or {"error": "invalid_grant"}, status=200 if answer else 400)
            return
        asked = self.asked()
        if asked is None or (given.get("answer") != "no" and given.get("sub") not in self.provider.people):
            self.answer({"error": "invalid_request"}, status=400)
            return
        code = secrets.token_urlsafe(16)
        said = {"error": "access_denied"} if given.get("answer") == "no" else {"code": code}
        self.provider.codes[code] = {**asked, "sub": given.get("sub", "")}
        self.send_response(302)
        self.send_header(
            "Location", f"{asked['redirect_uri']}?{urlencode({**said, 'state': asked['state']})}"
        )
        self.send_header("Content-Length", "0")
        self.end_headers()

    def asked(self) -> dict[str, str] | None:
        """What the site that sent somebody here asks for; None if it is not what we agreed upon."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        is_right = (
            query.get("client_id") == CLIENT_ID
            and query.get("response_type") == "code"
            and query.get("code_challenge_method") == "S256"
            and "openid" in query.get("scope", "").split()
            and urlsplit(query.get("redirect_uri", "")).path == "/accounts/oidc/oidc/login/callback/"
            and {"state", "code_challenge"} <= set(query)
        )
        return query if is_right else None

    def configuration(self) -> dict[str, Any]:
        ours = self.provider.address
        return {
            "issuer": ours,
            "authorization_endpoint": f"{ours}/authorize",
            "token_endpoint": f"{ours}/token",
            "userinfo_endpoint": f"{ours}/userinfo",
            "jwks_uri": f"{ours}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }

    def answer(self, content: Any, *, status: int = 200, kind: str = "application/json") -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass
