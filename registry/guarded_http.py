"""HTTP to other servers on behalf of strangers, which must not reach into our own network.

Only the addresses that the people who run this site have listed are connected to as they are. Wherever these send us
on, it must be https, and the address that is connected to must be a public one: the name is resolved here, the address
checked, and the connection made to that very address, so that a name that changes its mind gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2

from registry.patience import Backend, Clock, Patience
from web.errors import DomainError

MAX_REDIRECTS = 5
TIMEOUT = httpx2.Timeout(30, connect=10)  # of each read; of all of them together:
PATIENCE = Patience()
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Ways to write an IPv4 address as an IPv6 one: they lead to wherever the network makes them lead.
_TRANSLATED = [
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
]


class NotPublic(DomainError):
    """A redirect to where nobody outside is led."""

    code = "not_public"

    def __init__(self, host: str) -> None:
        super().__init__(f"The other server sends us on to {host[:100]!r}, where we do not go.")


def origin_of(url: httpx2.URL | str) -> tuple[str, str, int]:
    """(scheme, host, port) of an address; of one that cannot be read, such as `https://[::1`, the origin of nothing."""
    try:
        parts = urlsplit(str(url))
        port = parts.port
    except ValueError:
        return "", "", 0
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), port or {"https": 443, "http": 80}.get(scheme, 0)


def is_inward(host: str) -> bool:
    """Whether a host, as it is written, is this machine or one of a private network. A name is looked up to know more."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public(host)
    except ValueError:  # a name
        return False


def public_address(host: str, port: int) -> str:
    """The address behind a name. Raises NotPublic unless every address that it has is a public one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotPublic(host) from error
    addresses = [str(row[4][0]).partition("%")[0] for row in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise NotPublic(host)
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.is_site_local or any(ip in network for network in _TRANSLATED):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class GuardedTransport(httpx2.BaseTransport):
    """Connects to `trusted` origins as they are, to all others only by https and only at a public address.

    One request at a time, and none takes longer than `patience` lets it: then it is an httpx2.TimeoutException.
    """

    def __init__(
        self,
        trusted: Collection[tuple[str, str, int]],
        *,
        proxy: str = "",
        patience: Patience | None = None,
    ) -> None:
        self.trusted = frozenset(trusted)
        self.has_proxy = bool(proxy)
        self.inner = httpx2.HTTPTransport(retries=1, proxy=proxy or None)
        self.clock = Clock(patience or PATIENCE)
        # httpcore takes another backend in its constructor, which httpx has no argument for.
        self.inner._pool._network_backend = Backend(self.clock)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        origin = origin_of(request.url)
        if origin not in self.trusted:
            scheme, host, port = origin
            if scheme != "https" or port != 443 or request.url.userinfo:
                raise NotPublic(host)
            if not self.has_proxy:  # else it is the proxy that finds the address, and that may refuse it
                request.extensions = {**request.extensions, "sni_hostname": host}
                request.url = request.url.copy_with(host=public_address(host, port))
        self.clock.start()
        answer = self.inner.handle_request(request)
        self.clock.head_is_here()
        return answer

    def close(self) -> None:
        self.inner.close()


class GuardedClient:
    """GET from one trusted server, following its redirects; `headers` go to that server and to nobody else."""

    def __init__(
        self, endpoint: str, headers: dict[str, str], *, proxy: str = "", patience: Patience | None = None
    ) -> None:
        self.home = origin_of(endpoint)
        self.headers = headers
        transport = GuardedTransport([self.home], proxy=proxy, patience=patience)
        self.client = httpx2.Client(
            transport=transport, timeout=TIMEOUT, follow_redirects=False, trust_env=False
        )

    @contextmanager
    def get(
        self, url: str, params: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """The answer at the end of all redirects, its body not read yet. Raises NotPublic, httpx2.HTTPError."""
        address = httpx2.URL(url, params=params) if params else httpx2.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            own = self.headers if origin_of(address) == self.home else {}
            self.client.cookies.clear()
            with self.client.stream("GET", address, headers={**own, **(headers or {})}) as response:
                location = response.headers.get("location", "")
                if response.status_code not in _REDIRECTS or not location:
                    yield response
                    return
                address = address.join(location)
        raise httpx2.TooManyRedirects("too many redirects")

    def close(self) -> None:
        self.client.close()
