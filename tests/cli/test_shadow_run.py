"""The shadow's process over a log in memory: what it writes and when, and how it ends. On a broker: tests/broker."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import asynccontextmanager
from types import SimpleNamespace

import msgspec
import pytest
from tests.shadowed import order_of
from tests.streams.engine.test_plan import CONTRACT, NEW, OLD, drawn, played, terms_of
from tests.streams.engine.test_shadow import follow, rules_of, shadow_of
from tests.waiting import limit

from coordinator.cli import shadow_run
from coordinator.cli.shadow_run import ShadowProcess
from coordinator.infra.shadow_files import ShadowFiles
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.settings import Settings

RULES = drawn(3)


@pytest.fixture(scope="module")
def log():
    return played()


@pytest.fixture
def node(tmp_path, log, monkeypatch):
    """`.files`, `.process()`, and `.kafka` errors to raise, oldest first; the topics are the log's."""
    faults = []

    @asynccontextmanager
    async def followed(_bootstrap, _crunch_id, topic, start):
        left = log.decisions(topic, start)

        async def decisions(on_progress, enough):
            if faults:
                raise faults.pop(0)
            while left:
                on_progress(0, log.end(topic))
                yield left.pop(0)
                if enough():
                    return

        yield SimpleNamespace(decisions=decisions)

    class Own:
        identity = "birth/topics"

        def __init__(self, *_):
            pass

        async def check(self):
            pass

    files = ShadowFiles(tmp_path)
    files.put_order(order_of(rules=rules_of(RULES)))
    files.contracts.put(NEW, b"archive")
    settings = Settings(crunch_id="engine", data_dir=tmp_path)
    monkeypatch.setattr(shadow_run, "FollowedTopic", followed)
    monkeypatch.setattr(shadow_run, "OwnLog", Own)
    monkeypatch.setattr(shadow_run, "node_settings", lambda *_: (settings, None))
    monkeypatch.setattr(
        shadow_run, "NodeContracts", lambda _: SimpleNamespace(shelf={OLD: CONTRACT}.__getitem__)
    )
    monkeypatch.setattr(shadow_run, "unpack", lambda *_: RULES)
    monkeypatch.setattr(shadow_run, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(shadow_run, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    return SimpleNamespace(
        files=files, faults=faults, process=lambda: ShadowProcess(files, None, None, asyncio.Event())
    )


async def run_until(node, true):
    task = asyncio.ensure_future(node.process().run())
    async with limit():
        while not true() and not task.done():
            await asyncio.sleep(0.01)
    if not task.done():
        node.files.put_order(msgspec.structs.replace(node.files.order(), stopped=True))
    await task


def caught_up(node, log):
    clock = max(event.at for event in log.events("feeds"))
    return lambda: (status := node.files.status()) is not None and status.clock >= clock


async def test_it_decides_all_keeps_its_state_and_ends_when_the_order_says_so(node, log):
    await run_until(node, caught_up(node, log))
    whole = follow(shadow_of(RULES), log, random.Random(0))
    result, status = node.files.result(), node.files.status()
    assert (result.new, result.live) == (whole.new, whole.live)
    assert (status.ended, status.error, status.feeds_read) == (True, "", log.end("feeds"))
    again = shadow_of(RULES, node.files.kept("birth/topics"))
    assert (again.new, again.clock) == (whole.new, whole.clock)


async def test_a_result_without_anything_new_is_not_written_again(node, log, monkeypatch):
    written, statuses = [], []
    put_result, put_status = node.files.put_result, node.files.put_status
    monkeypatch.setattr(
        node.files, "put_result", lambda result: (written.append(result.clock), put_result(result))
    )
    monkeypatch.setattr(
        node.files, "put_status", lambda status: (statuses.append(status.clock), put_status(status))
    )
    await run_until(node, lambda: caught_up(node, log)() and statuses.count(statuses[-1]) > 10)
    assert len(written) == len(set(written)) < len(statuses) - 9


async def test_kafka_that_does_not_answer_is_waited_for_and_nothing_is_lost(node, log, monkeypatch):
    waits = []
    put_status = node.files.put_status
    monkeypatch.setattr(
        node.files, "put_status", lambda status: (waits.append(status.waiting), put_status(status))
    )
    node.faults += [WorldError("Kafka does not answer"), WorldError("Kafka does not answer")]
    await run_until(node, caught_up(node, log))
    assert waits.count("Kafka does not answer") == 2
    assert node.files.result().new == follow(shadow_of(RULES), log, random.Random(0)).new


@pytest.mark.parametrize("fault", [ZeroDivisionError("in the contract"), OperatorError("they ask otherwise")])
async def test_whatever_else_it_meets_ends_it_and_is_told_in_its_status(node, log, fault):
    node.faults.append(fault)
    with pytest.raises(type(fault)):
        await run_until(node, caught_up(node, log))
    assert str(fault) in node.files.status().error


async def test_an_order_of_other_rules_ends_it(node, log):
    task = asyncio.ensure_future(node.process().run())
    async with limit():
        while not caught_up(node, log)():
            await asyncio.sleep(0.01)
        other = msgspec.structs.replace(rules_of(RULES), terms=terms_of(CONTRACT, NEW))
        node.files.put_order(order_of(rules=other))
        await task
    assert node.files.status().ended
