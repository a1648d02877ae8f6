"""Alerts are sent once, again after hours, and when they end. Posts are bounded, retried, signed, and contain no
secret.
"""

from __future__ import annotations

import asyncio
import json

import pytest
import standardwebhooks
import structlog
from tests.chain.rpc_server import rpc_server
from tests.waiting import limit

from coordinator.infra.webhook import WAITING_MAX, Alert, Alerts, Webhook
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import OperatorError

HOUR = 3_600_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # that of the specification's example
BROKEN = Alert("invariant", "rewards", "they do not sum")


def told(notices):
    return [(notice.state, notice.name) for notice in notices]


def test_an_alert_is_sent_when_it_begins_again_after_six_hours_and_when_it_ends():
    alerts = Alerts("btc-up")
    assert told(alerts.update([BROKEN], 0)) == [("firing", "rewards")]
    assert told(alerts.update([Alert("invariant", "rewards", "another text")], HOUR)) == []
    assert told(alerts.update([BROKEN, Alert("lag", "report", "behind")], 6 * HOUR)) == [
        ("firing", "rewards"),
        ("firing", "report"),
    ]
    over = alerts.update([], 7 * HOUR)
    assert told(over) == [("resolved", "rewards"), ("resolved", "report")]
    assert over[0].since == 0
    assert told(alerts.update([], 8 * HOUR)) == []
    assert told(alerts.update([BROKEN], 9 * HOUR)) == [("firing", "rewards")]


def ok(_call):
    return b""


async def deliver(
    server, *notices, secret="", attempts=4, wall_ms=wall_ms, until=lambda hook: hook.sent + hook.failed
):
    hook = Webhook(server.url, secret, wall_ms=wall_ms, attempts=attempts, wait_seconds=0.01)
    running = asyncio.create_task(hook.run())
    for notice in notices:
        hook.tell(notice)
    async with limit():
        while until(hook) < len(notices):
            await asyncio.sleep(0.01)
    running.cancel()
    return hook


async def test_a_notice_arrives_as_json_and_is_signed():
    (notice,) = Alerts("btc-up").update([BROKEN], 5)
    async with rpc_server(ok) as server:
        hook = await deliver(server, notice, secret=SECRET)
    assert hook.sent == 1
    body = server.calls[0]
    assert {key: body[key] for key in ("state", "kind", "name", "text", "crunch_id", "since")} == {
        "state": "firing", "kind": "invariant", "name": "rewards", "text": "they do not sum",
        "crunch_id": "btc-up", "since": 5,
    }  # fmt: skip
    receiver = standardwebhooks.Webhook(SECRET)
    assert receiver.verify(server.bodies[0], dict(server.headers[0]))["id"] == notice.id
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        receiver.verify(server.bodies[0].replace(b"rewards", b"nothing"), dict(server.headers[0]))


async def test_each_try_is_signed_at_its_own_time_under_one_id():
    (notice,) = Alerts("btc-up").update([BROKEN], 5)
    times = iter([1_000_000, 1_030_999])
    async with rpc_server(lambda _: (500, b""), ok) as server:
        await deliver(server, notice, secret=SECRET, wall_ms=lambda: next(times))
    assert [headers["webhook-timestamp"] for headers in server.headers] == ["1000", "1030"]
    assert {headers["webhook-id"] for headers in server.headers} == {notice.id}
    assert len({headers["webhook-signature"] for headers in server.headers}) == 2


async def test_without_a_secret_nothing_is_signed():
    (notice,) = Alerts("btc-up").update([BROKEN], 5)
    async with rpc_server(ok) as server:
        await deliver(server, notice)
    assert not any(name.startswith("webhook-") for name in server.headers[0])


async def test_a_failed_post_is_retried_then_counted_and_the_next_one_is_still_sent():
    first, second = Alerts("btc-up").update([BROKEN, Alert("lag", "report", "behind")], 0)
    with structlog.testing.capture_logs() as logs:
        async with rpc_server(
            lambda _: (500, b""), lambda _: None, lambda _: (302, b""), lambda _: (500, b""), ok
        ) as server:
            hook = await deliver(server, first, second)
    assert (hook.sent, hook.failed) == (1, 1)
    assert [call["name"] for call in server.calls] == ["rewards"] * 4 + ["report"]
    assert set(server.paths) == {"/secret-key"}  # the redirect was not followed
    assert "secret-key" not in json.dumps(logs)
    assert any(line["event"] == "webhook_failed" for line in logs)


def test_excess_waiting_alerts_are_dropped_and_reported():
    hook = Webhook("http://127.0.0.1:1/x", wall_ms=wall_ms)
    (notice,) = Alerts("btc-up").update([BROKEN], 0)
    for _ in range(WAITING_MAX + 3):
        hook.tell(notice)
    assert hook.dropped == 3


@pytest.mark.parametrize(
    "url",
    ["", "ftp://a/b", "file:///etc/passwd", "hooks.example", "http://169.254.169.254/latest", "http://[fe80::1]/",
     "http://[::ffff:169.254.169.254]/"],
)  # fmt: skip
def test_a_forbidden_url_is_refused(url):
    with pytest.raises(OperatorError, match="WEBHOOK_URL"):
        Webhook(url, wall_ms=wall_ms)


async def test_a_name_that_resolves_to_a_link_local_address_is_not_posted_to(monkeypatch):
    async with rpc_server(ok) as server:
        hook = Webhook(server.url.replace("127.0.0.1", "localhost"), wall_ms=wall_ms, attempts=1)
        loop = asyncio.get_running_loop()

        async def resolves(_host, _port):
            return [(2, 1, 6, "", ("169.254.169.254", 80))]

        monkeypatch.setattr(loop, "getaddrinfo", resolves)
        (notice,) = Alerts("btc-up").update([BROKEN], 0)
        hook.tell(notice)
        running = asyncio.create_task(hook.run())
        async with limit():
            while not hook.failed:
                await asyncio.sleep(0.01)
        running.cancel()
        assert server.calls == []


async def test_discord_reads_content_and_slack_text_and_a_failed_delivery_is_reported():
    """Discord answers 400 to a post without `content`: alerts were lost without a report."""
    (notice,) = Alerts("btc-up").update([BROKEN], 5)

    def discord(call):
        return b"" if call.get("content") else (400, b'{"message": "Cannot send an empty message"}')

    async with rpc_server(discord) as server:
        hook = await deliver(server, notice)
    assert (hook.sent, hook.error) == (1, "")
    body = server.calls[0]
    assert body["content"] == "btc-up: firing: invariant rewards: they do not sum"
    assert body["text"] == "they do not sum"


async def test_a_failed_delivery_is_shown_until_a_post_arrives():
    first, second = Alerts("btc-up").update([BROKEN, Alert("lag", "report", "behind")], 0)
    async with rpc_server(lambda _: (400, b"")) as server:
        hook = await deliver(server, first, attempts=1)
    assert hook.error == "alerts do not arrive at 127.0.0.1: HTTP 400 (1 posts failed)"
    assert "secret-key" not in hook.error
    async with rpc_server(ok) as server:
        hook = await deliver(server, second)
    assert hook.error == ""
