"""A bundle checked in the browser: the page has the results of `judge_bundle`, for unaltered bundles and for altered
ones.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import random
import threading
from pathlib import Path

import pytest
from tests.infra.evidence.aged import aged_log
from tests.infra.evidence.bundles import bundle_of
from tests.infra.evidence.questioned import questioned_log
from tests.infra.evidence.rotated import NEW, OLD, rotated_log, with_keys
from tests.infra.evidence.test_hostile_bundles import first_half, written
from tests.infra.evidence.test_mutated_bundles import MUTATIONS, honest  # noqa: F401 - a fixture
from tests.infra.evidence.test_rotated_bundles import members_of

import coordinator.api
from coordinator.streams.evidence.notes import Note, signed_note

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
def rotated(tmp_path_factory):
    """A bundle of a tree that contains the rotation of the key."""
    folder = tmp_path_factory.mktemp("rotated")
    with_keys(folder, NEW)
    return members_of(bundle_of(folder, rotated_log(), 1))


@pytest.fixture(scope="module")
def aged(tmp_path_factory):
    """A bundle of an old node, without the whole log."""
    members = members_of(bundle_of(tmp_path_factory.mktemp("aged"), aged_log()))
    assert b'"cut":{' in members["manifest.json"]
    return members


@pytest.fixture(scope="module")
def questioned(tmp_path_factory):
    """A bundle with questions that were asked again and answered by hand."""
    return members_of(bundle_of(tmp_path_factory.mktemp("questioned"), questioned_log(), 0))


@pytest.fixture(scope="module")
def page(honest, rotated, aged, questioned, browser):  # noqa: F811 - made before the browser, whose loop runs in this thread
    """A page of one origin with the page's files and nothing else."""
    handler = functools.partial(QuietFiles, directory=str(STATIC))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"http://127.0.0.1:{server.server_port}/icon.svg")
    yield tab
    context.close()
    server.shutdown()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def judged(page, path: Path) -> list[list]:
    return page.evaluate(JUDGE, base64.b64encode(path.read_bytes()).decode())


def test_an_unaltered_bundle_passes_and_the_scores_are_left_to_the_command(page, honest, tmp_path):  # noqa: F811
    members, _ = honest
    lines = judged(page, written(tmp_path / "b", members))
    assert [step for step, good, _ in lines if good] == [
        "bundle", "note", "tree", "log", "completeness", "emission",
    ]  # fmt: skip
    assert [(step, good) for step, good, _ in lines][-1] == ("scores", None)


def test_large_answers_are_members_whose_names_are_their_hashes(page, honest, tmp_path):  # noqa: F811
    members, _ = honest
    content = b"a large answer"
    name = f"blob/{hashlib.sha256(content).hexdigest()}"
    lines = judged(page, written(tmp_path / "b", members | {name: content}))
    assert [step for step, good, _ in lines if good is False] == []
    step, good, words = judged(page, written(tmp_path / "c", members | {name: b"another answer"}))[-1]
    assert (step, good) == ("answers", False)
    assert name in words


def test_a_bundle_that_begins_later_and_one_of_questions_pass_and_their_earlier_parts_cannot_be_altered(
    page, aged, questioned, tmp_path
):
    assert all(good is not False for _, good, _ in judged(page, written(tmp_path / "b", questioned)))
    lines = judged(page, written(tmp_path / "b", aged))
    assert [step for step, good, _ in lines if good is False] == []
    assert "beginning" in [step for step, _, _ in lines]
    rng = random.Random(4)
    missed = []
    for number, mutation in enumerate(MUTATIONS):
        altered, _ = mutation(aged, rng)
        if all(good is not False for _, good, _ in judged(page, written(tmp_path / "b", altered))):
            missed.append(f"{number} {mutation.__name__}")
    for topic in ("scores", "checkpoints"):
        content = bytearray(aged[f"log/{topic}"])
        content[content.index(b'"at":1') + 6] ^= 1  # in the first append, which is from before the cut
        altered = aged | {f"log/{topic}": bytes(content)}
        if judged(page, written(tmp_path / "b", altered))[-1][:2] != ["log", False]:
            missed.append(topic)
    assert missed == []


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


def test_after_a_rotation_the_new_key_is_accepted_and_the_old_one_is_not(page, rotated, tmp_path):
    members = rotated
    assert all(good is not False for _, good, _ in judged(page, written(tmp_path / "b", members)))
    stolen = signed_note(Note.parse(members["note"]).checkpoint, OLD)
    manifest = members["manifest.json"].replace(
        f'"key":"{NEW.verifier}'.encode(), f'"key":"{OLD.verifier}'.encode()
    )
    altered = written(tmp_path / "c", members | {"note": stolen, "manifest.json": manifest})
    step, good, words = judged(page, altered)[-1]
    assert (step, good, "was rotated to another" in words) == ("note", False, True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no ZIP"),
        (b"PK\x05\x06" + bytes(18), "manifest.json is missing"),
        (b"x" * 5000, "no ZIP"),
    ],
)
def test_an_invalid_bundle_is_reported(page, tmp_path, content: bytes, why: str):
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
