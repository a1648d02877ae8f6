"""Access control of the API: who may call what, how often and with how large a body; and the headers of every answer.

An ASGI layer around the whole application, so that no route can forget it. A path that neither reads nor is known to
settle needs the highest scope. Reads are open unless API_READS=keys. Writes need a key, except that with
API_SETTLE_WITHOUT_KEY a caller from API_TRUSTED_NETWORKS may settle without one: the web app sends no key, ever. Such a
keyless write from a browser's page is refused: any page on the operator's screen could send it.

The caller is the peer of the connection. X-Forwarded-For is believed from API_TRUSTED_PROXIES alone. A call that
another proxy passed on is never trusted, since anybody behind that proxy may have made it. The Host must be an
address, a name without a dot, localhost, or one of API_ALLOWED_HOSTS: a page whose own name points at this machine (DNS
rebinding) could else read and settle from the operator's browser.

Every refused call is counted by its reason (`coordinator_api_refused_total`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import structlog
from fastapi.responses import Response
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Asgi

from coordinator.api.callers import address_group, within
from coordinator.api.keys import KeyRing, Scope, read_key_ring
from coordinator.api.problems import problem, unexpected
from coordinator.streams.setting_checks import Network, is_own_host, networks_of
from coordinator.streams.settings import Settings

BODY_BYTES_MAX = 64 * 1024
POSTED_BYTES_MAX = 64 * 1024 * 1024
"""The largest body of a post to rounds (tables of features and answers), which needs a key of scope admin or submit."""
SETTLING = re.compile(r"/reports/checkpoints/[^/]+/(confirm|status)")
POSTING = re.compile(r"/rounds(/[^/]+/(answers|resolve))?|/stakes")
SUBMITTING = re.compile(r"/rounds/[^/]+/answers")
KEY_ENTRY = "coordinator.key"
"""The name in a request's scope under which the entry of its key is."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
ALWAYS_OPEN = frozenset({"/healthz", "/readyz"})
"""Containers ask these: they say no more than whether the node moves."""
PASSED_ON = ("x-forwarded-for", "x-real-ip", "x-forwarded-host", "forwarded", "via")
WITHOUT_KEY = (
    "API_SETTLE_WITHOUT_KEY lets API_TRUSTED_NETWORKS settle without one; a call passed on by a proxy never"
)
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

Refused = Callable[[str], None]
_log = structlog.get_logger()


class Rules:
    """The operator's rules: keys, whether reads need one, which networks are trusted, and how often others may ask."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        reads_need_key: bool = False,
        trusted: Sequence[Network] = (),
        settle_without_key: bool = False,
        proxies: Sequence[Network] = (),
        hosts: Sequence[str] = (),
        requests_per_second: int = 0,
    ) -> None:
        self.keys = keys
        self.reads_need_key = reads_need_key
        self.trusted = tuple(trusted)
        self.settle_without_key = settle_without_key
        self.proxies = tuple(proxies)
        self.hosts = frozenset(host.lower().removesuffix(".") for host in hosts)
        self.requests_per_second = requests_per_second

    def caller(self, peer: str, headers: Headers) -> tuple[str, bool]:
        """The address that calls, and whether it is trusted. `peer` holds the connection."""
        passed_on = any(name in headers for name in PASSED_ON)
        if not within(peer, self.proxies):
            return peer, not passed_on and within(peer, self.trusted)
        # From the right: the caller of the proxy can write anything further left.
        hops = [part.strip() for text in headers.getlist("x-forwarded-for") for part in text.split(",")]
        for hop in reversed(hops):
            if not within(hop, self.proxies):
                return hop, within(hop, self.trusted)
        return peer, not passed_on and within(peer, self.trusted)

    def knows_host(self, host: str) -> bool:
        """Whether a request may name this Host."""
        return is_own_host(host, self.hosts)


def read_rules(settings: Settings) -> Rules:
    """The rules of these settings. Raises OperatorError for keys or networks that cannot be read."""
    return Rules(
        read_key_ring(settings.api_keys, settings.api_keys_file),
        reads_need_key=settings.api_reads == "keys",
        trusted=networks_of("API_TRUSTED_NETWORKS", settings.api_trusted_networks),
        settle_without_key=settings.api_settle_without_key,
        proxies=networks_of("API_TRUSTED_PROXIES", settings.api_trusted_proxies),
        hosts=[part.strip() for part in settings.api_allowed_hosts.split(",") if part.strip()],
        requests_per_second=settings.api_requests_per_second,
    )


def scope_needed(method: str, path: str) -> Scope:
    """The scope that a call needs when nobody is trusted and reads are closed. An unknown path needs the highest."""
    if path in ALWAYS_OPEN:
        return Scope.NONE  # whatever the method: one that the route does not have is 405
    if method in READING:
        return Scope.READ
    if SETTLING.fullmatch(path):
        return Scope.SETTLE
    return Scope.SUBMIT if SUBMITTING.fullmatch(path) else Scope.ADMIN


def bytes_max(path: str) -> int:
    """How many bytes a body may have that is sent there."""
    return POSTED_BYTES_MAX if POSTING.fullmatch(path) else BODY_BYTES_MAX


def key_of(headers: Headers) -> str | None:
    """The key of a request: `X-API-Key`, else `Authorization: Bearer`. Never of its query, which ends in logs."""
    if (key := headers.get("x-api-key")) is not None:
        return key.strip()
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


class Access:
    """The layer. `refused` gets the reason of every refused call."""

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
        headers = Headers(scope=scope)
        host, trusted = self._rules.caller((scope.get("client") or ("", 0))[0], headers)
        scope["client"] = (host, 0)  # in place: the layer around this one reads the route out of it
        turned_away = (
            self._of_another_host(scope["path"], headers)
            or self._too_often(host, trusted=trusted)
            or self._unknown(scope, headers, trusted=trusted)
            or self._too_long(headers, scope["path"])
        )
        if turned_away is None and scope["method"] not in READING:
            body = await _whole_body(receive, bytes_max(scope["path"]))
            if body is None:
                turned_away = self._body_refused(scope["path"])
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

    def _of_another_host(self, path: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if path in ALWAYS_OPEN or self._rules.knows_host(host):
            return None
        detail = f"this node does not answer to the host {host[:100]!r}; its operator can name it in API_ALLOWED_HOSTS"
        return self._refuse("host", 421, detail)

    def _too_often(self, host: str, *, trusted: bool) -> Response | None:
        if self._rate is None or trusted or self._limiter.hit(self._rate, address_group(host)):
            return None
        return self._refuse(
            "rate",
            429,
            f"more than {self._rules.requests_per_second} requests in a second; wait one",
            {"Retry-After": "1"},
        )

    def _unknown(self, scope: Asgi, headers: Headers, *, trusted: bool) -> Response | None:
        needed = scope_needed(scope["method"], scope["path"])
        key = key_of(headers)
        if key is not None:
            entry = self._rules.keys.entry_of(key)
            if entry is None:
                return self._refuse("key", 401, "this key is not known", {"WWW-Authenticate": "Bearer"})
            if entry.scope.includes(needed):
                scope[KEY_ENTRY] = entry
                return None
            return self._refuse("scope", 403, f"this needs a key with scope {needed.name.lower()}")
        if needed is Scope.NONE or (needed is Scope.READ and (trusted or not self._rules.reads_need_key)):
            return None
        if needed is Scope.SETTLE and trusted and self._rules.settle_without_key:
            if "origin" not in headers:
                return None
            return self._refuse("origin", 403, "a page in a browser may not write without a key")
        return self._refuse(
            "key",
            401,
            f"this needs a key with scope {needed.name.lower()}: X-API-Key, or Authorization: Bearer"
            + (f" ({WITHOUT_KEY})" if needed is Scope.SETTLE else ""),
            {"WWW-Authenticate": "Bearer"},
        )

    def _too_long(self, headers: Headers, path: str) -> Response | None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > bytes_max(path):  # noqa: PLR2004
            return self._body_refused(path)
        return None

    def _body_refused(self, path: str) -> Response:
        return self._refuse("body", 413, f"a body may have {bytes_max(path)} bytes")

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
            headers_sent = list(message.get("headers", ()))
            names = {name.lower() for name, _ in headers_sent}
            message = {
                **message,
                "headers": headers_sent + [header for header in HEADERS.items() if header[0] not in names],
            }
        await self._send(message)


async def _whole_body(receive: Receive, most: int) -> bytes | None:
    """The body, None when it is longer than the bound. Its sender may not say how long it is (chunks)."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    was_given = False

    async def receiving() -> Message:
        nonlocal was_given
        if was_given:
            return await receive()
        was_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
