"""All connections out of the node: which proxy is used for an address, and which certificates are trusted.

Reads the usual variables: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, WS_PROXY, WSS_PROXY and NO_PROXY, in upper or lower case
(lower case wins), SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE. Makes HTTP clients and connected
sockets. A value that cannot be used raises OperatorError with the variable's name; no message holds a proxy's password.

This is one module because the libraries differ: httpx fails if NO_PROXY holds a network, websockets knows no proxy, and
gRPC sends 127.0.0.1 through one. Whatever the variables say, this machine itself is never reached through a proxy.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, MutableMapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import httpx
from python_socks import ProxyError as RefusedByProxyError
from python_socks.async_.asyncio import Proxy
from websockets.asyncio.client import ClientConnection, connect

from coordinator.streams.log.errors import OperatorError

PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
SECURE = {"https": "https", "wss": "https", "http": "http", "ws": "http"}
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
LOOPBACK = "localhost,127.0.0.1,127.0.0.0/8,::1"
CERTIFICATE_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class ProxyError(OSError):
    """The proxy gave no connection. It is the world's fault, and is retried like a refused connection."""


def proxy_for(url: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The proxy for `url`, or None. Raises OperatorError for a proxy that cannot be used."""
    environ = os.environ if environ is None else environ
    parts = urlsplit(url)
    if is_loopback(parts.hostname or "") or _is_excepted(parts.hostname or "", _port(url), environ):
        return None
    for name in (f"{parts.scheme}_proxy", f"{SECURE.get(parts.scheme, 'http')}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := environ.get(variable, "").strip():
                return _checked(variable, value)
    return None


def check_ways_out(environ: Mapping[str, str]) -> None:
    """Check every proxy and every file of certificates that the environment names.

    Raises OperatorError naming the variable of one that cannot be used.
    """
    for name in ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := environ.get(variable, "").strip():
                _checked(variable, value)
    certificates(environ)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    host = host.strip("[]").lower().rstrip(".")
    if host in LOOPBACK_NAMES or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback or (mapped or address).is_unspecified)


def _checked(variable: str, value: str) -> str:
    text = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(text)
        fine = parts.scheme in PROXY_SCHEMES and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine:
        raise OperatorError(
            f"{variable} cannot be used as a proxy: give {', '.join(PROXY_SCHEMES)}://HOST:PORT, "
            "or unset it (NO_PROXY lists hosts that need no proxy)"
        )
    return text


def _is_excepted(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names the host: a name, a suffix, an address, a network, each perhaps with a port, or `*`."""
    text = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return any(
        _names(entry, host.strip("[]").lower().rstrip("."), port) for entry in text.replace(",", " ").split()
    )


def _names(entry: str, host: str, port: int) -> bool:
    entry = entry.lower().rpartition("://")[2]
    if entry == "*":
        return True
    if network := _network(entry):
        try:
            return ip_address(host) in network
        except ValueError:
            return False
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal():
        if int(number) != port:
            return False
        entry = name
        if network := _network(entry):
            return _names(str(network), host, port)
    suffix = entry.strip("[]").removeprefix("*").lstrip(".").rstrip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    if "]:" in entry:
        return None  # a port follows: without brackets it would be taken for a part of the address
    try:
        return ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or PORTS.get(parts.scheme, 0)


def certificates(environ: Mapping[str, str] | None = None) -> ssl.SSLContext:
    """The TLS context that checks servers' certificates. Raises OperatorError naming a variable with a wrong file."""
    environ = os.environ if environ is None else environ
    file = next((name for name in CERTIFICATE_FILES if environ.get(name)), None)
    folder = environ.get("SSL_CERT_DIR") or None
    if folder is not None and not Path(folder).is_dir():
        raise OperatorError(
            f"SSL_CERT_DIR={folder} is not a folder: give a folder of certificates, or unset the variable"
        )
    cafile = environ[file] if file else (None if folder else certifi.where())
    if cafile and Path(cafile).is_dir() and folder is None:  # REQUESTS_CA_BUNDLE may be a folder
        cafile, folder = None, cafile
    try:
        return ssl.create_default_context(cafile=cafile, capath=folder)
    except OSError as error:
        raise OperatorError(
            f"{file or 'SSL_CERT_DIR'}={cafile or folder} cannot be used as certificates "
            f"({error.strerror or error}): name a file in PEM, or unset it"
        ) from error


def http_client(base_url: str, **options: Any) -> httpx.AsyncClient:
    """A client for the host of `base_url` only: it follows no redirects. Close it. `options` are httpx's.

    Raises OperatorError for a proxy or certificates that cannot be used.
    """
    secure = urlsplit(base_url).scheme == "https"
    return httpx.AsyncClient(
        base_url=base_url,
        trust_env=False,
        proxy=proxy_for(base_url),
        # Plain HTTP asks for no certificate: one that trusts nobody saves the 30 ms in which httpx would load its own.
        verify=certificates() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        follow_redirects=False,
        **options,
    )


async def open_socket(url: str, open_seconds_max: float, **options: Any) -> ClientConnection:
    """A websocket to `url`, through a proxy if there is one. `options` are those of `websockets.connect`.

    Raises OSError and the errors of websockets for faults of the world, OperatorError for a proxy or certificates that
    cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme == "wss":
        options["ssl"] = certificates()
    if proxy := proxy_for(url):
        options["sock"] = await _through(proxy, parts.hostname or "", _port(url), open_seconds_max)
    return await connect(url, open_timeout=open_seconds_max, **options)


async def _through(proxy: str, host: str, port: int, seconds_max: float) -> socket.socket:
    parts = urlsplit(proxy)
    if parts.scheme == "https":
        raise OperatorError(
            "a websocket cannot go through a proxy that uses TLS: "
            f"set WSS_PROXY to http://{parts.hostname}:PORT, or list {host} in NO_PROXY"
        )
    default = PORTS.get(parts.scheme, 1080)
    scheme = parts.scheme.removesuffix("h")  # the name is resolved by the proxy in any case
    login = f"{parts.username or ''}:{parts.password or ''}@" if parts.username else ""
    named = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    way = Proxy.from_url(f"{scheme}://{login}{named}:{parts.port or default}", rdns=True)
    where = f"the proxy {parts.hostname}:{parts.port or default}"
    try:
        return await way.connect(dest_host=host, dest_port=port, timeout=seconds_max)
    except RefusedByProxyError as error:
        raise ProxyError(f"{where} does not lead to {host}:{port}: {error}") from error
    except TimeoutError as error:
        raise ProxyError(f"{where} did not answer within {seconds_max:g} s") from error
    except OSError as error:
        raise ProxyError(f"{where} cannot be reached: {error}") from error


def keep_this_machine_from_proxies(environ: MutableMapping[str, str] | None = None) -> None:
    """Make gRPC, which reads the environment itself, reach this machine without a proxy.

    Call it before the first channel is made. The exceptions of NO_PROXY stay in force.
    """
    environ = os.environ if environ is None else environ
    exceptions = environ.get("no_grpc_proxy") or environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    # gRPC compares the ends of names, and does not know the asterisk.
    entries = [entry.removeprefix("*") for entry in exceptions.replace(",", " ").split()]
    if "" in entries:  # there was a `*`: no proxy at all
        environ["grpc_proxy"] = ""
    entries += [entry for entry in LOOPBACK.split(",") if entry not in entries]
    environ["no_grpc_proxy"] = ",".join(filter(None, entries))
