"""Connections out of the node: every variable that users set for proxies and certificates works, or is refused by its
name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import serve

from coordinator.streams.log.errors import OperatorError
from coordinator.streams.net import outbound
from coordinator.streams.net.outbound import (
    ProxyError,
    certificates,
    http_client,
    is_loopback,
    keep_this_machine_from_proxies,
    open_socket,
    proxy_for,
)

PROXY = {"http_proxy": "http://proxy.corp:3128", "https_proxy": "http://user:s3cret@secure.corp:3129"}
FOREIGN = "https://api.exchange.com/v3"


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, FOREIGN, None),
        (PROXY, FOREIGN, PROXY["https_proxy"]),
        (PROXY, "http://api.exchange.com", PROXY["http_proxy"]),
        (PROXY, "wss://stream.exchange.com:9443/x", PROXY["https_proxy"]),
        (PROXY, "ws://models:9091/x", PROXY["http_proxy"]),
        ({"HTTPS_PROXY": "proxy.corp:3128"}, FOREIGN, "http://proxy.corp:3128"),
        ({"ALL_PROXY": "socks5://proxy.corp:1080"}, FOREIGN, "socks5://proxy.corp:1080"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, FOREIGN, "http://b:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://a:1"}, FOREIGN, "http://a:1"),
        ({"WSS_PROXY": "http://a:1", **PROXY}, "wss://stream.exchange.com", "http://a:1"),
        ({"HTTP_PROXY": "http://a:1"}, FOREIGN, None),
        *[(PROXY | {"NO_PROXY": "x"}, f"{scheme}://{host}/", None)
          for scheme in ("http", "https", "ws", "wss")
          for host in ("localhost", "localhost:8000", "127.0.0.1:9", "127.9.9.9", "[::1]:8000", "0.0.0.0", "a.localhost", "[::ffff:127.0.0.1]")],
    ],
)  # fmt: skip
def test_a_proxy_is_used_for_others_and_never_for_this_machine(environ, url, proxy):
    assert proxy_for(url, environ) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "excepted"),
    [
        ("*", FOREIGN, True),
        ("exchange.com", FOREIGN, True),
        (".exchange.com", FOREIGN, True),
        ("*.exchange.com", FOREIGN, True),
        ("change.com", FOREIGN, False),
        ("API.EXCHANGE.COM", FOREIGN, True),
        ("api.exchange.com:443", FOREIGN, True),
        ("api.exchange.com:8443", FOREIGN, False),
        ("localhost, 127.0.0.0/8 , ::1/128,fd00::/8", FOREIGN, False),
        ("10.0.0.0/8", "http://10.1.2.3:80", True),
        ("10.0.0.0/8", "http://11.1.2.3:80", False),
        ("10.1.2.3", "http://10.1.2.3", True),
        ("fd00::/8", "http://[fd00::5]:8080", True),
        ("[fd00::5]", "http://[fd00::5]:8080", True),
        ("[fd00::5]:8080", "http://[fd00::5]:8080", True),
        ("[fd00::5]:81", "http://[fd00::5]:8080", False),
        ("a.b api.exchange.com c.d", FOREIGN, True),
        ("http://api.exchange.com", FOREIGN, True),
        (",,", FOREIGN, False),
        (".", FOREIGN, False),
    ],
)
def test_no_proxy_exempts_names_suffixes_addresses_networks_and_ports(no_proxy, url, excepted):
    for name in ("no_proxy", "NO_PROXY"):
        assert (proxy_for(url, PROXY | {name: no_proxy}) is None) is excepted


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "value",
    ["http://[::1", "ftp://proxy:1", "http://proxy:99999", "http://", "http://proxy:x", "socks4://p:1"],
)
def test_an_invalid_proxy_is_refused_by_its_variable(variable, value):
    with pytest.raises(OperatorError, match=f"{variable} cannot be used as a proxy"):
        proxy_for(FOREIGN, {variable: value})


def test_a_refused_proxy_does_not_show_its_password():
    with pytest.raises(OperatorError) as refused:
        proxy_for(FOREIGN, {"https_proxy": "http://user:s3cret@proxy:99999"})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"]
)
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_invalid_certificates_are_refused_by_their_variable(
    tmp_path: Path, variable: str, content: str | None
):
    if content is not None:
        (tmp_path / "certificates.pem").write_text(content)
    with pytest.raises(OperatorError, match=variable):
        certificates({variable: str(tmp_path / "certificates.pem")})


async def test_a_client_can_be_created_with_any_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.0/8,::1/128,fd00::/8")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    for url in ("http://127.0.0.1:9", FOREIGN, "http://api.exchange.com"):
        async with http_client(url, timeout=1):
            pass


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,127.0.0.0/8,::1"),
        ({"NO_PROXY": "a.b, c.d"}, "a.b,c.d,localhost,127.0.0.1,127.0.0.0/8,::1"),
        ({"NO_PROXY": "x", "no_grpc_proxy": "y,localhost"}, "y,localhost,127.0.0.1,127.0.0.0/8,::1"),
        ({"no_proxy": "*.a.b"}, ".a.b,localhost,127.0.0.1,127.0.0.0/8,::1"),
        ({"no_proxy": "*"}, "localhost,127.0.0.1,127.0.0.0/8,::1"),
    ],
)
def test_grpc_is_told_that_this_machine_needs_no_proxy(before, after):
    environ = dict(before)
    keep_this_machine_from_proxies(environ)
    assert environ["no_grpc_proxy"] == after
    keep_this_machine_from_proxies(environ)
    assert environ["no_grpc_proxy"] == after
    assert environ.get("grpc_proxy") == ("" if before == {"no_proxy": "*"} else None)


@asynccontextmanager
async def a_proxy(refusal: bytes = b"") -> AsyncIterator[tuple[int, list[str]]]:
    """A real CONNECT proxy on this machine that resolves every name to it: (its port, the requests it got)."""
    asked: list[str] = []
    open_: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head)
        if refusal:
            writer.write(refusal)
            writer.close()
            return
        port = int(head.split()[1].rpartition(":")[2])
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for pair in ((reader, to_writer), (to_reader, writer)):
            task = asyncio.ensure_future(pump(*pair))
            open_.add(task)
            task.add_done_callback(open_.discard)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        for task in list(open_):
            task.cancel()


async def test_a_websocket_goes_through_the_proxy_with_its_login(monkeypatch: pytest.MonkeyPatch):
    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    monkeypatch.setattr(outbound, "is_loopback", lambda _host: False)
    async with a_proxy() as (port, asked), serve(echo, "127.0.0.1", 0) as server:
        monkeypatch.setenv("ws_proxy", f"http://user:pa%3Ass@127.0.0.1:{port}")
        target = server.sockets[0].getsockname()[1]
        async with await open_socket(f"ws://stream.exchange.test:{target}/x", 5.0) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
    assert asked[0].startswith(f"CONNECT stream.exchange.test:{target} HTTP/1.1")
    assert "dXNlcjpwYTpzcw==" in asked[0]  # user:pa:ss


@pytest.mark.parametrize(
    "refusal",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"nonsense\r\n\r\n"],
)
async def test_a_proxy_that_refuses_is_an_outside_failure_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, refusal: bytes
):
    async with a_proxy(refusal) as (port, _asked):
        monkeypatch.setenv("wss_proxy", f"http://user:s3cret@127.0.0.1:{port}")
        with pytest.raises(
            ProxyError, match=f"the proxy 127.0.0.1:{port} does not lead to stream.exchange.test:443"
        ) as refused:
            await open_socket("wss://stream.exchange.test/x", 5.0)
    assert "s3cret" not in str(refused.value)


async def test_a_missing_proxy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"the proxy 127\.0\.0\.1:9"):
        await open_socket("wss://stream.exchange.test/x", 5.0)


async def test_a_websocket_through_a_proxy_that_speaks_tls_is_refused_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("https_proxy", "https://proxy.corp:3128")
    with pytest.raises(OperatorError, match="WSS_PROXY"):
        await open_socket("wss://stream.exchange.test/x", 5.0)


def test_this_machine_has_many_names():
    assert all(map(is_loopback, ("localhost", "LOCALHOST.", "127.0.0.1", "::1", "[::1]", "::1%lo")))
    assert not any(map(is_loopback, ("", "localhost.example.com", "128.0.0.1", "example.com", "10.0.0.1")))
