"""Which addresses may be called: by literal, by name, at creation and when the socket opens."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from kit.outbound import AddressRefused, Guard, guarded_client, is_public

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.192",  # metadata of Oracle's cloud
    "::ffff:192.0.0.192",
    "192.88.99.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "168.63.129.16",  # each machine on Azure has it to itself
    "::ffff:168.63.129.16",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "3fff::1",
]
PUBLIC = ["93.184.216.34", "8.8.8.8", "172.32.0.1", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def knows(**names: list[str]) -> Guard:
    async def resolver(host: str, port: int) -> list[str]:
        return names[host]

    return Guard(resolver=resolver)


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_means_a_private_address_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not public"):
        await knows(evil=[address]).addresses("evil", 443, secure=True)


async def test_of_several_addresses_only_the_public_ones_are_called() -> None:
    guard = knows(mixed=["10.0.0.1", "8.8.8.8", "::1"])
    assert await guard.addresses("mixed", 443, secure=True) == ["8.8.8.8"]


async def test_link_local_addresses_with_a_zone_are_refused() -> None:
    with pytest.raises(AddressRefused):
        await knows(local=["fe80::1%eth0"]).addresses("local", 443, secure=True)


@pytest.mark.parametrize(
    ("allow", "host", "address", "trusted"),
    [
        ((), "h", "10.0.0.1", False),
        (("10.0.0.0/8",), "h", "10.9.8.7", True),
        (("10.0.0.0/8",), "h", "::ffff:10.9.8.7", True),
        (("10.0.0.0/8",), "h", "11.0.0.1", False),
        (("127.0.0.1",), "h", "127.0.0.1", True),
        (("Hooks.Internal",), "hooks.internal.", "10.0.0.1", True),
        (("hooks.internal",), "evil.hooks.internal", "10.0.0.1", False),
        (("fd00::/8",), "h", "fd00::1", True),
    ],
)
def test_the_operator_can_allow_hosts_and_networks(
    allow: tuple[str, ...], host: str, address: str, trusted: bool
) -> None:
    assert Guard(allow).trusted(host, address) is trusted


@pytest.mark.parametrize("url", ["http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://[::ffff:7f00:1]/"])
async def test_other_spellings_of_loopback_are_refused(url: str) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(AddressRefused):
            await Guard().check_url(url.replace("http", scheme, 1))


async def test_a_name_that_does_not_resolve_yet_passes_for_https_only() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    guard = Guard(("late.internal",), resolver=nothing)
    await guard.check_url("https://late.example/")
    await guard.check_url("http://late.internal/")
    with pytest.raises(AddressRefused, match="use https"):
        await guard.check_url("http://late.example/")


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on loopback that answers 200, and what it heard."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(4096))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


async def test_the_guard_stands_at_the_socket_whatever_creation_saw() -> None:
    """DNS rebinding: the name was public when it was checked and means loopback when it is called."""
    meanings = iter([["93.184.216.34"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(meanings)

    guard = Guard(resolver=rebinding)
    async with listening() as (port, heard), guarded_client(guard, 2) as client:
        await guard.check_url(f"https://rebind.example:{port}/")
        with pytest.raises(httpx2.ConnectError, match="not public"):
            await client.post(f"https://rebind.example:{port}/")
        assert heard == []


async def test_without_tls_only_allowed_addresses_are_called() -> None:
    async def public(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    async with guarded_client(Guard(resolver=public), 2) as client:
        with pytest.raises(httpx2.ConnectError, match="need https"):
            await client.post("http://plain.example/")


async def test_the_socket_goes_to_the_address_that_was_checked() -> None:
    """The name resolves to nothing outside the guard, so a second look-up would fail."""
    calls: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        calls.append(host)
        return ["127.0.0.1"]

    async with listening() as (port, heard), guarded_client(Guard(("127.0.0.0/8",), resolver=resolver), 2) as client:
        response = await client.post(f"http://pinned.invalid:{port}/x")
    assert response.status_code == 200
    assert b"host: pinned.invalid" in heard[0].lower()
    assert calls == ["pinned.invalid"]


async def test_tls_still_checks_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | bytes | None] = []
    original = ssl.SSLContext.wrap_bio

    def spy(self: ssl.SSLContext, *args: object, **options: object) -> ssl.SSLObject:
        asked.append(options.get("server_hostname"))  # type: ignore[arg-type]
        return original(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", spy)

    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with listening() as (port, _), guarded_client(Guard(("127.0.0.0/8",), resolver=resolver), 2) as client:
        with pytest.raises(httpx2.HTTPError):
            await client.post(f"https://pinned.invalid:{port}/")
    assert asked == [b"pinned.invalid"]


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve the name itself, behind the guard."""
    async with listening() as (port, heard):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with guarded_client(knows(evil=["10.0.0.1"]), 2) as client:
            with pytest.raises(httpx2.ConnectError):
                await client.post("http://evil/")
        assert heard == []
