"""A page in real headless Chromium, against a report worker in a process of its own, on a real Kafka.

Chromium is the system's (Debian: `apt-get install chromium`; COORDINATOR_CHROMIUM names another), driven by playwright.
axe-core comes from npm, one exact version, into a cache of the user and never into the checkout. Where either cannot be
had the tests say why and skip; with COORDINATOR_BROWSER_TESTS=required, as in CI, that is a failure.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.broker.browser.scene import rich_log

from coordinator.infra.broker import free_ports
from coordinator.infra.kafka import make_producer
from coordinator.infra.topics import create_topics
from coordinator.streams.settings import Settings, environment
from coordinator.streams.topology import topic_name

AXE = "axe-core@4.14.1"
START_SECONDS_MAX = 60


def missing(why: str) -> None:
    """Skip, saying why; or fail where the tests are required."""
    if os.environ.get("COORDINATOR_BROWSER_TESTS") == "required":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium a file: while playwright runs, no other event loop can run in this thread."""
    path = os.environ.get("COORDINATOR_CHROMIUM") or shutil.which("chromium")
    if path is None:
        missing("there is no chromium: apt-get install chromium, or name one by COORDINATOR_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def axe_source() -> str:
    """The text of axe.min.js."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coordinator-tests"
    file = folder / f"{AXE.replace('@', '-')}.min.js"
    if not file.exists():
        npm = shutil.which("npm")
        if npm is None:
            missing("there is no npm to fetch axe-core with")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip
        if done.returncode != 0:
            missing(f"npm could not fetch {AXE}: {done.stderr[-300:]}")
        with tarfile.open(folder / done.stdout.strip().splitlines()[-1]) as archive:
            part = file.with_suffix(".part")
            part.write_bytes(archive.extractfile("package/axe.min.js").read())
            part.rename(file)
    print(f"{AXE}: sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}")
    return file.read_text()


def apart(coroutine):
    """Run it in a thread of its own: this one's loop may be playwright's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class Node:
    """The report worker, and the topics that it reads. `say` appends what the log has got since."""

    def __init__(self, bootstrap: str, name: str, folder: Path, log) -> None:
        self.log = log
        self.settings = Settings(
            crunch_id=name, kafka_bootstrap=bootstrap, data_dir=folder, api_port=free_ports(1)[0]
        )
        self.url = f"http://127.0.0.1:{self.settings.api_port}"
        self._sent: dict[str, int] = {}
        self._out = folder / "report.log"
        apart(create_topics(bootstrap, name))

    def start(self) -> None:
        with self._out.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-Im", "coordinator.cli.main", "worker", "report"],
                env={**os.environ, **environment(self.settings)}, stdout=out, stderr=out, cwd=self.settings.data_dir,
            )  # fmt: skip

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(15)

    def say(self) -> None:
        """Send the new records, and wait until the worker has folded them."""
        apart(self._send())
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self._out.read_text()
            try:
                places = httpx.get(f"{self.url}/healthz", timeout=5).json()["positions"]
            except httpx.TransportError:
                places = {}
            if places and all(places[topic] >= sent for topic, sent in self._sent.items() if topic in places):
                return
            time.sleep(0.05)
        raise AssertionError(self._out.read_text())

    async def _send(self) -> None:
        producer = make_producer(self.settings.kafka_bootstrap)
        await producer.start()
        try:
            last = None
            for topic, records in self.log.records.items():
                for record in records[self._sent.get(topic, 0) :]:
                    last = await producer.send(topic_name(self.settings.crunch_id, topic), record)
                self._sent[topic] = len(records)
            await producer.flush()
            if last is not None:
                await last
        finally:
            await producer.stop()


def started(bootstrap, name, folder, log):
    node = Node(bootstrap, name, folder, log)
    node.start()
    try:
        node.say()
    except BaseException:
        node.stop()
        raise
    return node


@pytest.fixture(scope="module")
def node(kafka_bootstrap, tmp_path_factory):
    """Forty models, thirty hours."""
    one = started(kafka_bootstrap, "page", tmp_path_factory.mktemp("page"), rich_log())
    yield one
    one.stop()


@pytest.fixture(scope="module")
def crowd(kafka_bootstrap, tmp_path_factory):
    """A thousand models."""
    log = rich_log(models=1_000, hours=8, rounds_an_hour=2)
    one = started(kafka_bootstrap, "crowd", tmp_path_factory.mktemp("crowd"), log)
    yield one
    one.stop()


class Watched:
    """A page and all it said and asked for. What went wrong fails the test that looks away."""

    def __init__(self, page, url) -> None:
        self.page, self.url = page, url
        self.asked: list[str] = []
        self.wrong: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda said: said.type in ("error", "warning") and self.wrong.append(said.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def go(self, where: str = "#/") -> None:
        self.page.goto(f"{self.url}/{where}")

    def names(self) -> list[str]:
        """The models in sight, from the top."""
        return self.page.locator(".rows .model a").all_inner_texts()


@pytest.fixture
def open_page(browser):
    """`open_page(node, width=..., scheme=...)` gives a Watched page; at the end none may have complained."""
    contexts, pages = [], []

    def make(node, *, width=1280, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(10_000)
        contexts.append(context)
        pages.append(Watched(context.new_page(), node.url))
        return pages[-1]

    yield make
    for context in contexts:
        context.close()
    assert [one.wrong for one in pages] == [[] for _ in pages]
