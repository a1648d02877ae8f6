"""The predict worker and questions with a table: which models get it, what a lost table stops, and how many are sent at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from pydantic import RootModel
from tests.predict_scene import Scene
from tests.shelf import Shelf
from tests.streams.asked import Q, asked, asks
from tests.streams.build import T0

from coordinator.streams import events as ev
from coordinator.streams import large_answers
from coordinator.streams.agents.predict import asking
from coordinator.streams.log.errors import OperatorError


def good(method: str, _arguments: Any) -> Any:
    return None if method == "tick" else {"value": 0.5}


def with_blob(question: str, sha256: str) -> ev.InputReceived:
    input_received = asked(question=Q.replace("q1", question))
    assert input_received.data.question is not None
    blob = ev.Blob(sha256=sha256, bytes=5, media_type="x/y")
    named = msgspec.structs.replace(input_received.data.question, blob=blob)
    return msgspec.structs.replace(
        input_received, data=msgspec.structs.replace(input_received.data, question=named)
    )


@pytest.fixture
async def play() -> AsyncIterator[Scene]:
    scene = Scene(asks())
    scene.tick(T0)
    yield scene
    if scene.tenure is not None:
        await scene.tenure.close()


def answered(play: Scene) -> set[str]:
    return {
        entry.model_id for decision in play.answers() for _, entry in decision if entry.status == "PENDING"
    }


@pytest.mark.parametrize("shelf", [Shelf(there=b"table"), None])
async def test_a_lost_table_stops_its_round_alone_by_the_nodes_fault(play, shelf):
    play.gateway.join("a", good)
    play.gateway.join("b", good)
    play.blobs = shelf
    await play.start()
    play.asked(with_blob("q1", "gone"), with_blob("q2", "there"), asked(question=Q.replace("q1", "q3")))
    await play.deliver()
    missed = {(model, fault) for model, fault, reason in play.missed() if "blob gone" in reason}
    assert missed == {("a", "node"), ("b", "node")}
    ticks = [call.arguments[1:] for call in play.gateway.calls if call.method == "tick"]
    tables = [arguments[0].parquet for arguments in ticks if arguments]
    assert tables == ([b"table"] * 2 if shelf else [])
    assert len(ticks) - len(tables) == 2, "the question without a table"
    assert len(play.missed()) == (2 if shelf else 4)


async def test_few_tables_are_sent_at_once_and_a_model_that_hangs_occupies_no_place(play, monkeypatch):
    monkeypatch.setattr(asking, "TABLES_AT_ONCE", 2)
    monkeypatch.setattr(asking, "TABLE_SECONDS", 1.0)
    gate, under_way, most = asyncio.Event(), 0, 0

    async def quick(method: str) -> Any:
        nonlocal under_way, most
        if method == "tick":
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return None
        return {"value": 0.5}

    async def stuck(method: str) -> Any:
        if method == "tick":
            await gate.wait()
        return None if method == "tick" else {"value": 0.5}

    hanging, others = {"a0", "a1"}, {f"m{number}" for number in range(8)}
    for name in sorted(hanging):
        play.gateway.join(name, lambda method, _: stuck(method))
    for name in sorted(others):
        play.gateway.join(name, lambda method, _: quick(method))
    play.blobs = Shelf(there=b"table")
    await play.start()
    play.asked(with_blob("q1", "there"))
    delivered = asyncio.create_task(play.deliver())
    await play.until(lambda: answered(play) == others)
    assert most == 2
    assert not delivered.done()
    gate.set()
    await delivered
    assert answered(play) == others | hanging


async def test_a_table_that_could_not_be_sent_in_time_is_the_nodes_fault(play, monkeypatch):
    monkeypatch.setattr(asking, "TABLES_AT_ONCE", 1)
    gate = asyncio.Event()

    async def stuck(method: str) -> Any:
        if method == "tick":
            await gate.wait()
        return None if method == "tick" else {"value": 0.5}

    play.gateway.join("a", lambda method, _: stuck(method))
    play.gateway.join("b", good)
    play.blobs = Shelf(there=b"table")
    await play.start()
    late_round = with_blob("q1", "there")
    play.asked(
        msgspec.structs.replace(
            late_round, data=msgspec.structs.replace(late_round.data, deadline_at=T0 + 1_000)
        )
    )
    await play.deliver()
    faults = {model: (fault, reason) for model, fault, reason in play.missed()}
    assert faults["b"][0] == "node"
    assert asking.NOT_SENT in faults["b"][1]


# --- large answers ---------------------------------------------------------------------------------------


class Full(Shelf):
    """A store that is full."""

    def put(self, content: bytes) -> str:
        raise OperatorError("the disk is full")


LARGE = [0.5] * 100


class Rows(RootModel[list[float]]):
    """An answer that can be large."""


@pytest.mark.parametrize("full", [False, True])
async def test_a_large_answer_is_stored_beside_the_log_and_a_failure_to_do_so_costs_nobody_its_round(
    monkeypatch, full
):
    monkeypatch.setattr(large_answers, "ANSWER_BYTES_MAX", 300)
    play = Scene(asks(output_type=Rows))
    play.tick(T0)
    play.gateway.join("a", lambda method, _: None if method == "tick" else LARGE)
    play.gateway.join("b", lambda method, _: None if method == "tick" else LARGE[:5])
    play.blobs = shelf = Full() if full else Shelf()
    await play.start()
    play.asked(asked())
    await play.deliver()
    await play.tenure.close()
    entries = {entry.model_id: entry for decision in play.answers() for _, entry in decision}
    large, small = entries["a"], entries["b"]
    assert {entry.status for entry in entries.values()} == {"PENDING"}
    assert (small.blob, msgspec.json.decode(small.output)) == (None, LARGE[:5])
    held = large.output if full else shelf.kept[large.blob.sha256]
    assert msgspec.json.decode(held) == LARGE
    assert (large.blob is None) is full


@pytest.mark.parametrize("lost", [False, True])
async def test_a_large_answer_that_was_handed_in_is_judged_and_a_lost_one_is_refused_by_name(
    monkeypatch, lost
):
    monkeypatch.setattr(large_answers, "ANSWER_BYTES_MAX", 300)
    play, letters = Scene(asks(output_type=Rows)), []
    play.tick(T0)
    play.blobs = shelf = Shelf()

    async def letter(_topic: str, _offset: int, _body: bytes, reason: str) -> None:
        letters.append(reason)

    play.on_garbage = letter
    await play.start()
    play.asked(asked())
    await play.deliver()
    content = msgspec.json.encode(LARGE)
    blob = large_answers.blob_of(content)
    if not lost:
        shelf.put(content)
    answer = ev.SubmittedAnswer(question_id="q1", scope_key="", output=ev.NO_OUTPUT, blob=blob)
    data = ev.SubmitAnswersData(
        round_id="r1", model_id="x", cruncher_id="c1", answers=[answer], sha256="a" * 64
    )
    play.command(ev.SubmitAnswers(id="cmd/1", at=T0, data=data))
    await play.until(lambda: bool(letters) if lost else "x" in answered(play))
    await play.tenure.close()
    recorded = [entry for decision in play.answers() for _, entry in decision if entry.model_id == "x"]
    assert letters == ([f"q1: blob {blob.sha256} is missing"] if lost else [])
    assert [entry.blob for entry in recorded] == ([] if lost else [blob])
