"""Calls to addresses that somebody else has chosen: which may be called, checked when they are named (for a clear
answer) and at connect time (for safety).

A name can change what it means between the two (DNS rebinding), so the socket is opened to the very address that was
checked. Source of the idea: OWASP, Server Side Request Forgery Prevention.
"""

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]
MAX_URL = 2000
# Public by their number, or so Python's tables say: Azure's WireServer, which each machine has to itself; addresses of
# protocols, of which Oracle's cloud took one for its metadata; anycast relays of 6to4; documentation.
_NOT_PUBLIC = [ipaddress.ip_network(net) for net in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20")]
# Of its own: a name server that is silent for one host must not use up the few threads that all others share.
_LOOK_UPS = ThreadPoolExecutor(64, thread_name_prefix="look-up")


class AddressRefused(ValueError):
    """The address is malformed or may not be called; the text says why."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host.

    Raises:
        OSError: it has none.
    """

    def look_up() -> list[str]:
        return list(dict.fromkeys(str(i[4][0]) for i in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))

    try:
        return await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
    except UnicodeError as error:
        raise OSError(f"{host!r} is not a host name") from error


def is_public(address: Address) -> bool:
    """Whether anybody on the Internet could reach it; an IPv4 address inside an IPv6 one counts as itself."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (
        any(address in network for network in _NOT_PUBLIC)
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    )


def _unmapped(address: Address) -> Address:
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return inner or address


class Guard:
    """Denies every address that is not public, but for those the operator allowed (hosts, addresses, CIDRs) in the
    `setting` of that name."""

    def __init__(
        self, allow: Iterable[str] = (), *, setting: str = "HALLMARK_WEBHOOK_ALLOW", resolver: Resolver = resolve
    ) -> None:
        self._setting = setting
        self._hosts: set[str] = set()
        self._networks: list[Any] = []
        self._resolver = resolver
        for entry in allow:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self._hosts.add(entry.lower().rstrip("."))

    def trusted(self, host: str, address: str) -> bool:
        """Whether the operator allowed it."""
        ip = _unmapped(ipaddress.ip_address(address.partition("%")[0]))
        return host.lower().rstrip(".") in self._hosts or any(ip in network for network in self._networks)

    async def addresses(self, host: str, port: int, *, secure: bool) -> list[str]:
        """The addresses of `host` that may be called. Without TLS only those the operator allowed may.

        Raises:
            AddressRefused: it has addresses, and all are denied.
            OSError: it has none.
        """
        found = await self._resolver(host, port)
        allowed = [
            a
            for a in found
            if self.trusted(host, a) or (secure and is_public(ipaddress.ip_address(a.partition("%")[0])))
        ]
        if not allowed:
            why = "are not public" if secure else "need https"
            raise AddressRefused(f"the addresses of {host!r} {why}; the operator can allow them in {self._setting}")
        return allowed

    async def check_url(self, url: str) -> None:
        """Raises AddressRefused for a URL that deliveries would not be sent to. A name that does not resolve passes:
        it may come later."""
        if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
            raise AddressRefused(f"the address must be a URL of printable ASCII, at most {MAX_URL} characters")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            httpx2.URL(url)
        except (ValueError, httpx2.InvalidURL) as error:
            raise AddressRefused(f"the address is not a URL: {error}") from error
        if parts.scheme not in ("https", "http") or not host:
            raise AddressRefused("the address must be a URL like https://host/path")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise AddressRefused("the address must hold no user, password or fragment")
        secure = parts.scheme == "https"
        try:
            await self.addresses(host, port or (443 if secure else 80), secure=secure)
        except OSError as error:
            if not secure and host.lower() not in self._hosts:
                raise AddressRefused(f"http needs an allowed host, and {host!r} does not resolve; use https") from error


@dataclass
class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens sockets only to addresses the guard allows, and to the very address it looked at."""

    guard: Guard
    secure: bool

    def __post_init__(self) -> None:
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await self.guard.addresses(host, port, secure=self.secure)
        except (AddressRefused, OSError) as error:
            raise httpcore2.ConnectError(str(error)) from error
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


@functools.cache
def tls() -> ssl.SSLContext:
    """The TLS of every client of the process: reading the trusted authorities takes 20 ms, each time."""
    return httpx2.create_ssl_context()


class _GuardedTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, guard: Guard, *, secure: bool) -> None:
        super().__init__(verify=tls(), trust_env=False)
        # httpx2 has no option for the network backend; the pool it made has opened nothing yet.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls(),
            max_connections=100,
            max_keepalive_connections=100,
            keepalive_expiry=5.0,
            network_backend=_GuardedBackend(guard, secure),
        )


def guarded_client(guard: Guard, timeout: float) -> httpx2.AsyncClient:
    """A client that follows no redirect, uses no proxy of the environment, and calls only what the guard allows."""
    return httpx2.AsyncClient(
        transport=_GuardedTransport(guard, secure=True),
        mounts={"http://": _GuardedTransport(guard, secure=False)},
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        headers={"user-agent": "Hallmark"},
    )
