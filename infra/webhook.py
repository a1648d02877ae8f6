"""Posts alerts to the operator's webhook as they begin and end.

An alert is posted once when it begins, again every six hours while it lasts, and once when it is over. Each post is
bounded in time and tries; the posts that wait are bounded in number. The URL and the secret are the operator's:
neither is written anywhere but into the request, redirects are not followed, nothing of the answer but its status is
used, and link-local addresses (where clouds keep their credentials) are refused. Each post has an `id` of its content,
so that a receiver can drop one that it has had, and its sentence as `content` for Discord and as `text` for Slack.
With WEBHOOK_SECRET it is signed as Standard Webhooks (standardwebhooks.com) says: `webhook-id`, `webhook-timestamp`,
`webhook-signature`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from ipaddress import ip_address

import httpx
import msgspec
import stamina
import standardwebhooks
import structlog

from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.log.ids import content_id
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.net.outbound import http_client, proxy_for
from coordinator.streams.setting_checks import http_host

REPEAT_MS = 6 * 3_600_000
TEXT_CHARS_MAX = 1000
CONTENT_CHARS_MAX = 1900
"""Discord takes 2,000."""
WAITING_MAX = 200
POST_SECONDS_MAX = 5.0
ATTEMPTS = 4
_encode = msgspec.json.Encoder(order="deterministic").encode
_log = structlog.get_logger()


class Alert(msgspec.Struct, frozen=True):
    """Something that is wrong now. Alerts with the same `kind` and `name` are one alert, whatever their text."""

    kind: str
    name: str
    text: str


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One post. `state` is "firing" or "resolved"; times are ms of the wall's clock."""

    id: str
    crunch_id: str
    state: str
    kind: str
    name: str
    text: str
    content: str
    since: int
    at: int


class Alerts:
    """Which alerts are on, and which notices are due. Pure: time is an argument."""

    def __init__(self, crunch_id: str) -> None:
        self._crunch_id = crunch_id
        self.since: dict[tuple[str, str], int] = {}
        self.current: dict[tuple[str, str], Alert] = {}
        self._told: dict[tuple[str, str], int] = {}

    def update(self, alerts: Iterable[Alert], now_ms: int) -> list[Notice]:
        """Take all alerts of now (not only new ones); the notices that are due, in order."""
        alert_of = {(alert.kind, alert.name): alert for alert in alerts}
        due: list[Notice] = []
        for which, alert in alert_of.items():
            self.since.setdefault(which, now_ms)
            told_ms = self._told.get(which)
            if told_ms is None or now_ms - told_ms >= REPEAT_MS:
                self._told[which] = now_ms
                due.append(self._notice("firing", alert, now_ms))
        for which in [ended for ended in self.current if ended not in alert_of]:
            due.append(self._notice("resolved", self.current[which], now_ms))
            del self.since[which], self._told[which]
        self.current = alert_of
        return due

    def _notice(self, state: str, alert: Alert, now_ms: int) -> Notice:
        since = self.since[alert.kind, alert.name]
        return Notice(
            id=content_id("alert", self._crunch_id, state, alert.kind, alert.name, str(since), str(now_ms)),
            crunch_id=self._crunch_id,
            state=state,
            kind=alert.kind,
            name=alert.name,
            text=as_reason(alert.text, TEXT_CHARS_MAX),
            content=as_reason(
                f"{self._crunch_id}: {state}: {alert.kind} {alert.name}: {alert.text}", CONTENT_CHARS_MAX
            ),
            since=since,
            at=now_ms,
        )


class Webhook:
    """Posts notices in order, one at a time. `secret` is as `check_signing_secret` takes it; empty signs nothing.

    Raises OperatorError for a URL that must not be posted to.
    """

    def __init__(
        self,
        url: str,
        secret: str = "",
        *,
        wall_ms: Callable[[], int],
        attempts: int = ATTEMPTS,
        wait_seconds: float = 1.0,
    ) -> None:
        self.host, self._port = http_host("WEBHOOK_URL", url)
        _refuse_link_local(self.host)
        self._url = url
        self._signer = standardwebhooks.Webhook(secret) if secret else None
        self._wall_ms = wall_ms
        self._attempts = attempts
        self._wait = wait_seconds
        self._waiting: asyncio.Queue[Notice] = asyncio.Queue(WAITING_MAX)
        self.sent = self.failed = self.dropped = 0
        self.error = ""
        """Why the last post failed; empty once one has arrived."""

    def tell(self, notice: Notice) -> None:
        """Queue a notice. With WAITING_MAX in the queue it is dropped; `dropped` counts it and the log says so."""
        try:
            self._waiting.put_nowait(notice)
        except asyncio.QueueFull:
            self.dropped += 1
            _log.error("webhook_dropped", kind=notice.kind, name=notice.name, waiting=WAITING_MAX)

    async def run(self) -> None:
        """Post until cancelled. A post that fails after all tries is counted and logged; the next one is tried."""
        async with http_client(self._url, timeout=POST_SECONDS_MAX) as client:
            while True:
                notice = await self._waiting.get()
                try:
                    await self._deliver(client, notice)
                    self.sent += 1
                    self.error = ""
                except (WorldError, OperatorError) as error:
                    self.failed += 1
                    self.error = f"alerts do not arrive at {self.host}: {error} ({self.failed} posts failed)"
                    _log.error("webhook_failed", host=self.host, alert=notice.id, reason=str(error))

    async def post(self, notice: Notice) -> None:
        """Post one notice now, for who ends afterwards. Raises WorldError if it did not arrive, OperatorError."""
        async with http_client(self._url, timeout=POST_SECONDS_MAX) as client:
            await self._deliver(client, notice)

    async def _deliver(self, client: httpx.AsyncClient, notice: Notice) -> None:
        body = _encode(notice)
        async for attempt in stamina.retry_context(
            on=WorldError,
            attempts=self._attempts,
            timeout=None,
            wait_initial=self._wait,
            wait_jitter=self._wait,
            wait_max=30.0,
        ):
            with attempt:
                # Signed again for each try, because a receiver refuses a time that is minutes old.
                await self._post(client, body, self._headers(notice.id, body))

    def _headers(self, notice_id: str, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "coordinator-node"}
        if self._signer is None:
            return headers
        seconds = self._wall_ms() // 1000
        signature = self._signer.sign(notice_id, datetime.fromtimestamp(seconds, UTC), body.decode())
        return headers | {
            "webhook-id": notice_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": signature,
        }

    async def _post(self, client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> None:
        try:
            async with asyncio.timeout(2 * POST_SECONDS_MAX):
                loop = asyncio.get_running_loop()
                if proxy_for(self._url) is None:  # a proxy resolves the name itself, in its own network
                    for address_info in await loop.getaddrinfo(self.host, self._port):
                        _refuse_link_local(str(address_info[4][0]))
                async with client.stream("POST", self._url, content=body, headers=headers) as answer:
                    status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, UnicodeError) as error:
            raise WorldError(type(error).__name__) from None  # its text may hold the URL
        if not httpx.codes.is_success(status):
            raise WorldError(f"HTTP {status}")


def _refuse_link_local(host: str) -> None:
    try:
        address = ip_address(host.split("%", maxsplit=1)[0])
    except ValueError:
        return
    mapped = getattr(address, "ipv4_mapped", None)
    if (mapped or address).is_link_local:
        raise OperatorError(
            "WEBHOOK_URL leads to a link-local address, where clouds serve credentials: give another address"
        )
