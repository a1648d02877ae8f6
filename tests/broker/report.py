"""The report worker as a process of its own, which a test may kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time

import httpx
from tests import forked
from tests.loopback import NO_CERTIFICATES
from tests.waiting import LIMIT_SECONDS

from coordinator.streams.settings import Settings, environment


class Report:
    """The worker as a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = f"http://127.0.0.1:{settings.api_port}"
        self.log = settings.data_dir / "report.log"
        self.process: forked.ForkedProcess | None = None

    def start(self):
        with self.log.open("ab") as out:
            self.process = forked.start(
                ["worker", "report"], env={**os.environ, **environment(self.settings)}, out=out
            )

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(LIMIT_SECONDS)

    def get(self, path):
        return httpx.get(self.url + path, timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES)

    def wait_caught_up(self, events):
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            try:
                health = self.get("/healthz").json()
                if health["status"] in ("ok", "degraded") and not any(health["lag"].values()):
                    positions = sum(health["positions"].values())
                    if positions >= events:
                        return health
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    async def wait_ill(self):
        """The answer of /healthz after folding has ended for good."""
        return await self._wait_for("/healthz", lambda body: body.get("status") == "error" and body)

    async def wait_alert(self, kind, name):
        """Waits until this alert is on."""

        def find(body):
            alerts = body["alerts"]
            return next((alert for alert in alerts if (alert["kind"], alert["name"]) == (kind, name)), None)

        return await self._wait_for("/reports/invariants", find)

    async def _wait_for(self, path, find):
        deadline = time.monotonic() + LIMIT_SECONDS
        body = None
        async with httpx.AsyncClient(
            base_url=self.url, timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES
        ) as client:
            while time.monotonic() < deadline:
                assert self.process.poll() is None, self.log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(path)
                    body = answer.json()
                    if (answer.is_success or path == "/healthz") and (hit := find(body)):
                        return hit
                await asyncio.sleep(0.05)
        raise AssertionError(f"{path} says {body}\n{self.log.read_text()}")


async def kill_while_folding(report: Report, draw: random.Random) -> None:
    """Sends SIGKILL at a random instant at which it folds: its positions have just moved."""
    wanted, deadline, before = draw.randint(1, 60), time.monotonic() + LIMIT_SECONDS, -1
    async with httpx.AsyncClient(
        base_url=report.url, timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES
    ) as client:
        while True:
            assert time.monotonic() < deadline, report.log.read_text()[-2000:]
            await asyncio.sleep(0.02)
            try:
                positions = sum((await client.get("/healthz")).json()["positions"].values())
            except httpx.TransportError:
                assert report.process.poll() is None, report.log.read_text()[-2000:]
                continue
            if 0 <= before < positions and positions >= wanted:
                assert report.end(signal.SIGKILL) == -signal.SIGKILL
                return
            before = positions
