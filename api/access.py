"""The door of the API: who may call what, how often and with how much; and the headers that every answer carries.

An ASGI layer around the whole application, so that no route can forget it: a path that is not known to settle and is
not a reading one needs the highest scope. Reads are open unless API_READS=keys. Writes need a key, except that a
caller from API_TRUSTED_NETWORKS may settle without one: the web app sends no key, ever. Such a keyless write from a
browser's page is refused: any page on the operator's screen could send it.

Every refused call is counted by its reason (`coordinator_api_refused_total`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import structlog
from fastapi.responses import Response
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Asgi

from coordinator.api.keys import KeyRing, Scope, read_key_ring
from coordinator.api.problems import problem, unexpected
from coordinator.streams.errors import OperatorError
from coordinator.streams.settings import Settings

BODY_BYTES_MAX = 64 * 1024
TOO_LONG = f"a body may have {BODY_BYTES_MAX} bytes"
SETTLING = re.compile(r"/reports/checkpoints/[^/]+/(confirm|status)")
READING = frozenset({"GET", "HEAD", "OPTIONS"})
ALWAYS_OPEN = frozenset({"/healthz", "/readyz"})
"""Containers ask these: they say no more than whether the node moves."""
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"object-src 'none'",
    b"cache-control": b"no-store",
}
"""A route's own value wins. `no-store`: what is true now is stale in a second, and a key may have opened it."""

Network = IPv4Network | IPv6Network
Refused = Callable[[str], None]
_log = structlog.get_logger()


class Rules:
    """What the operator said: keys, whether reads need one, who is trusted, and how often others may ask."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        reads_need_key: bool = False,
        trusted: Sequence[Network] = (),
        requests_per_second: int = 0,
    ) -> None:
        self.keys = keys
        self.reads_need_key = reads_need_key
        self.trusted = tuple(trusted)
        self.requests_per_second = requests_per_second

    def trusts(self, host: str) -> bool:
        """Is this address in a trusted network? What is no address (a socket file, a test) is not."""
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.trusted)


def read_rules(settings: Settings) -> Rules:
    """The rules of these settings. Raises OperatorError for keys or networks that cannot be read."""
    return Rules(
        read_key_ring(settings.api_keys, settings.api_keys_file),
        reads_need_key=settings.api_reads == "keys",
        trusted=parse_networks(settings.api_trusted_networks),
        requests_per_second=settings.api_requests_per_second,
    )


def parse_networks(text: str) -> list[Network]:
    """Networks of a comma list, e.g. `127.0.0.0/8,::1`. Raises OperatorError naming the part that is none."""
    found = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        try:
            found.append(ip_network(part))
        except ValueError as error:
            raise OperatorError(f"API_TRUSTED_NETWORKS: {error}; write e.g. 127.0.0.0/8,::1") from error
    return found


def scope_needed(method: str, path: str) -> Scope:
    """What a call needs when nobody is trusted and reads are closed. What is not known needs the most."""
    if method in READING:
        return Scope.NONE if path in ALWAYS_OPEN else Scope.READ
    if SETTLING.fullmatch(path):
        return Scope.SETTLE
    return Scope.ADMIN


def key_of(headers: Headers) -> str | None:
    """The key of a request: `X-API-Key`, else `Authorization: Bearer`. Never of its query, which ends in logs."""
    if (key := headers.get("x-api-key")) is not None:
        return key.strip()
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


class Access:
    """The layer. `refused` is told the reason of every call that is turned away."""

    def __init__(self, app: ASGIApp, rules: Rules, refused: Refused) -> None:
        self._app, self._rules, self._refused = app, rules, refused
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerSecond(rules.requests_per_second) if rules.requests_per_second else None

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        """Answer, or let in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        host = (scope.get("client") or ("", 0))[0]
        headers = Headers(scope=scope)
        trusted = self._rules.trusts(host)
        turned_away = (
            self._too_often(host, trusted=trusted)
            or self._unknown(scope["method"], scope["path"], headers, trusted=trusted)
            or self._too_long(headers)
        )
        if turned_away is None and scope["method"] not in READING:
            body = await _whole_body(receive)
            if body is None:
                turned_away = self._refuse("body", 413, TOO_LONG)
            else:
                receive = _replayed(body, receive)
        if turned_away is not None:
            await turned_away(scope, receive, answer)
            return
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            _log.debug("client_left", path=scope["path"])
        except Exception as error:
            if answer.began:
                raise  # the connection is cut: half an answer must not look whole
            await unexpected(scope["path"], error)(scope, receive, answer)

    def _too_often(self, host: str, *, trusted: bool) -> Response | None:
        if self._rate is None or trusted or self._limiter.hit(self._rate, _group(host)):
            return None
        return self._refuse(
            "rate",
            429,
            f"more than {self._rules.requests_per_second} requests in a second; wait one",
            {"Retry-After": "1"},
        )

    def _unknown(self, method: str, path: str, headers: Headers, *, trusted: bool) -> Response | None:
        needed = scope_needed(method, path)
        key = key_of(headers)
        if key is not None:
            has = self._rules.keys.scope_of(key)
            if has is Scope.NONE:
                return self._refuse("key", 401, "this key is not known", {"WWW-Authenticate": "Bearer"})
            if has >= needed:
                return None
            return self._refuse("scope", 403, f"this needs a key with scope {needed.name.lower()}")
        if needed is Scope.NONE or (needed is Scope.READ and (trusted or not self._rules.reads_need_key)):
            return None
        if needed is Scope.SETTLE and trusted:
            if "origin" not in headers:
                return None
            return self._refuse("origin", 403, "a page in a browser may not write without a key")
        return self._refuse(
            "key",
            401,
            f"this needs a key with scope {needed.name.lower()}: X-API-Key, or Authorization: Bearer",
            {"WWW-Authenticate": "Bearer"},
        )

    def _too_long(self, headers: Headers) -> Response | None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > BODY_BYTES_MAX:  # noqa: PLR2004
            return self._refuse("body", 413, TOO_LONG)
        return None

    def _refuse(
        self, reason: str, status: int, detail: str, headers: dict[str, str] | None = None
    ) -> Response:
        self._refused(reason)
        return problem(status, detail, headers)


class _Answer:
    """`send` with the headers that every answer carries."""

    def __init__(self, send: Send) -> None:
        self._send, self.began = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message = {**message, "headers": given + [one for one in HEADERS.items() if one[0] not in names]}
        await self._send(message)


async def _whole_body(receive: Receive) -> bytes | None:
    """The body, None when it is longer than the bound. Its sender may not say how long it is (chunks)."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def _group(host: str) -> str:
    """Whose requests are counted together: an address, of IPv6 the 64 bits that one customer has."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return host
