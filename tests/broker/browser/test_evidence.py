"""A bundle judged in the browser: it says what `judge_bundle` says, of untouched bundles and of altered ones."""

from __future__ import annotations

import base64
import functools
import http.server
import random
import threading
from pathlib import Path

import pytest
from tests.infra.evidence.test_hostile_bundles import first_half, written
from tests.infra.evidence.test_mutated_bundles import MUTATIONS, honest  # noqa: F401 - a fixture

import coordinator.api

STATIC = Path(next(iter(coordinator.api.__path__))) / "static"
JUDGE = """async (content) => {
  const { judge } = await import("/verify.js");
  const lines = [];
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  await judge(new File([bytes], "checkpoint.bundle"), (...line) => lines.push(line));
  return lines;
}"""
COUNT = 3 * len(MUTATIONS)


@pytest.fixture(scope="module")
def page(honest, browser):  # noqa: F811 - made before the browser, whose loop runs in this thread
    """A page of one origin with the page's files and nothing else."""
    handler = functools.partial(QuietFiles, directory=str(STATIC))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context()
    one = context.new_page()
    one.goto(f"http://127.0.0.1:{server.server_port}/icon.svg")
    yield one
    context.close()
    server.shutdown()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def judged(page, path: Path) -> list[list]:
    return page.evaluate(JUDGE, base64.b64encode(path.read_bytes()).decode())


def test_an_untouched_bundle_holds_and_the_scores_are_left_to_the_command(page, honest, tmp_path):  # noqa: F811
    members, _ = honest
    lines = judged(page, written(tmp_path / "b", members))
    assert [step for step, good, _ in lines if good] == [
        "bundle", "note", "tree", "log", "completeness", "emission",
    ]  # fmt: skip
    assert [(step, good) for step, good, _ in lines][-1] == ("scores", None)


def test_every_alteration_that_the_command_finds_without_the_contract_is_found_here(page, honest, tmp_path):  # noqa: F811
    members, key = honest
    rng = random.Random(3)
    missed = []
    for number in range(COUNT):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        altered, _ = mutation(members, rng)
        path = written(tmp_path / "b", altered)
        assert first_half(path, key.verifier)
        if all(good is not False for _, good, _ in judged(page, path)):
            missed.append(f"{number} {mutation.__name__}")
    assert missed == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no ZIP"),
        (b"PK\x05\x06" + bytes(18), "manifest.json is missing"),
        (b"x" * 5000, "no ZIP"),
    ],
)
def test_what_is_no_bundle_is_said(page, tmp_path, content: bytes, why: str):
    path = tmp_path / "b"
    path.write_bytes(content)
    ((step, good, words),) = judged(page, path)
    assert (step, good) == ("bundle", False)
    assert why in words


def test_a_bomb_and_a_strange_name_are_refused(page, honest, tmp_path):  # noqa: F811
    members, _ = honest
    for altered, why in (
        (members | {"log/feeds": bytes(10_000_000)}, "bomb"),
        (members | {"../x": b"1"}, "no bundle has"),
    ):
        ((_, good, words),) = judged(page, written(tmp_path / "b", altered))
        assert good is False
        assert why in words
