"""An applied contract on a real Kafka: decided by the feed worker, listed, and found in the log by a host without it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import pytest
from tests import forked
from tests.infra.test_kept_contracts import HELPERS, RULES, scored
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.infra.contracts.archive import ArchiveFolder
from coordinator.infra.contracts.from_log import read_applied
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.kafka.topics import create_topics
from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.infra.log.followed_topic import FollowedTopic
from coordinator.streams import events as ev
from coordinator.streams.settings import Settings, environment

pytestmark = pytest.mark.broker


def write(folder, rules=RULES, weights="0.5"):
    (folder / "its_rules.py").write_text(rules)
    (folder / "helpers_of_it.py").write_text(HELPERS)
    (folder / "weights.txt").write_text(weights)


@pytest.fixture
async def settings(kafka_bootstrap, crunch_id, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "data").mkdir()
    write(tmp_path)
    await create_topics(kafka_bootstrap, crunch_id)
    return Settings(
        contract="its_rules:CONTRACT", data_dir=tmp_path / "data", kafka_bootstrap=kafka_bootstrap,
        crunch_id=crunch_id, feed_source="generated", checkpoint_interval_seconds=21600,
    )  # fmt: skip


async def test_a_host_without_source_and_archive_finds_the_contract_in_the_log(settings, tmp_path):
    command = NodeContracts(settings).apply_proposed(1, None)
    applied = command.data.contract_hash
    port = KafkaCommandPort(settings.kafka_bootstrap, settings.crunch_id)
    await port.start()
    await port.send(command)
    await port.stop()
    for name in ("its_rules.py", "helpers_of_it.py", "weights.txt"):
        (tmp_path / name).unlink()
    other = settings.changed(data_dir=tmp_path / "other host")
    other.data_dir.mkdir()
    assert scored(NodeContracts(other).shelf(applied)) == 0.5
    assert list(ArchiveFolder(other.data_dir).hashes()) == [applied]


async def test_a_source_has_no_effect_until_it_is_applied_and_is_in_force_from_the_next_period_on(
    settings, tmp_path
):
    env = {**os.environ, **environment(settings)}

    async def coordinator(*words):
        done = await asyncio.to_thread(
            forked.run,
            ["contract", *words, "--json"],
            env=env,
            cwd=tmp_path,
        )
        return done.returncode, json.loads(done.stdout or "null"), done.stderr

    with (tmp_path / "feed.log").open("wb") as log:
        feed = forked.start(["worker", "feed"], env=env, cwd=tmp_path, out=log)
    try:
        async with limit():
            while (listed := (await coordinator("list"))[1]) is None or not listed["contracts"]:
                await asyncio.sleep(0.5)
        (first,) = listed["contracts"]
        assert listed["on_disk"] == "the text on disk is the contract applied last"

        write(tmp_path, rules=f"# a remark\n{RULES}")
        assert (await coordinator("apply", "--yes"))[1] == {"applied": False, "contract": first["hash"]}

        write(tmp_path, weights="0.25")
        code, result, _ = await coordinator("diff")
        assert (code, result["old"]) == (1, first["hash"])
        assert "is another contract" in (await coordinator("list"))[1]["on_disk"]

        code, result, wrong = await coordinator("apply", "--yes")
        assert (code, result["applied"]) == (0, True), wrong
        assert result["effective_from"] % 21_600_000 == 0
        assert result["differences"]
        _, listed, _ = await coordinator("list")
        assert [contract["hash"] for contract in listed["contracts"]] == [first["hash"], result["contract"]]

        write(
            tmp_path,
            rules=RULES.replace("score_prediction=score,", "score_prediction=score, score_decimals=6,"),
        )
        code, _, wrong = await coordinator("apply", "--yes")
        assert (code, "score_decimals is 6" in wrong) == (2, True), wrong
        _, listed, _ = await coordinator("list")
        last = listed["contracts"][-1]
        assert (last["state"], "score_decimals is 6" in last["refused"]) == ("refused", True)
        assert "the node refused" in listed["on_disk"]
        assert (await coordinator("diff"))[1]["old"] == result["contract"]

        write(tmp_path, rules="def (")
        code, _, wrong = await coordinator("apply", "--yes")
        assert code == 2
        assert "its_rules.py" in wrong
    finally:
        feed.kill()
        feed.wait(LIMIT_SECONDS)


async def test_a_restart_under_another_a_broken_or_a_missing_source_changes_nothing(settings, tmp_path):
    """The log has the applied contract, and time goes on, whatever happens to the source."""
    env = {**os.environ, **environment(settings)}
    out = tmp_path / "feed.log"

    async def told():
        """(the contracts in the log, the number of ticks)"""
        hashes, ticks = set(), 0
        async with FollowedTopic(settings.kafka_bootstrap, settings.crunch_id, "feeds") as feeds:
            async for decision in feeds.decisions():
                for event in decision.events:
                    hashes |= {event.data.contract_hash} if isinstance(event, ev.CrunchConfigured) else set()
                    ticks += isinstance(event, ev.ClockTicked)
        return hashes, ticks

    async def runs(change, says):
        """Starts the feed worker, changes the source, checks that the worker continues, then ends it."""
        begin = len(out.read_bytes()) if out.exists() else 0
        _, before = await told()
        with out.open("ab") as log:
            feed = forked.start(["worker", "feed"], env=env, cwd=tmp_path, out=log)
        try:
            async with limit():
                while (await told())[1] <= before:
                    assert feed.poll() is None, out.read_text()
                    await asyncio.sleep(0.2)
                change()
                _, ticks = await told()
                while (await told())[1] < ticks + 2:  # the first may have been on its way
                    assert feed.poll() is None, out.read_text()
                    await asyncio.sleep(0.2)
        finally:
            feed.send_signal(signal.SIGTERM)
            await asyncio.to_thread(feed.wait, LIMIT_SECONDS)
        assert says in out.read_bytes()[begin:].decode()

    await runs(lambda: write(tmp_path, weights="0.25"), "contract_applied")
    first, _ = await told()
    assert len(first) == 1
    await runs(lambda: write(tmp_path, rules="def ("), "the text on disk is another")
    await runs((tmp_path / "its_rules.py").unlink, "the text on disk is broken")
    await runs(lambda: None, "the text on disk is broken")
    assert (await told())[0] == first
    assert [
        command.data.contract_hash
        for _, command in await read_applied(settings.kafka_bootstrap, settings.crunch_id)
    ] == [*first]


async def test_other_settings_at_a_restart_change_nothing_until_they_are_applied(settings, tmp_path):
    """The intervals and the feed are part of the rules: stored, reported, and applied on request, like the source."""
    env = {**os.environ, **environment(settings)}
    others = {
        "CHECKPOINT_INTERVAL_SECONDS": "43200", "SNAPSHOT_INTERVAL_SECONDS": "1800", "FEED_SUBJECTS": "BTCUSDT,ETHUSDT",
    }  # fmt: skip
    out = tmp_path / "feed.log"

    async def told():
        """(the terms, the subjects of the records, the number of ticks)"""
        terms, subjects, ticks = [], [], 0
        async with FollowedTopic(settings.kafka_bootstrap, settings.crunch_id, "feeds") as feeds:
            async for decision in feeds.decisions():
                for event in decision.events:
                    match event:
                        case ev.CrunchConfigured(data=data):
                            terms.append(data)
                        case ev.FeedRecordReceived(data=data):
                            subjects.append(data.subject)
                        case ev.ClockTicked():
                            ticks += 1
        return terms, subjects, ticks

    async def until(true):
        async with limit():
            while not true(now := await told()):
                assert feed.poll() is None, out.read_text()
                await asyncio.sleep(0.2)
        return now

    def started(environ):
        with out.open("ab") as log:
            return forked.start(["worker", "feed"], env=environ, cwd=tmp_path, out=log)

    async def apply(environ, *words):
        done = await asyncio.to_thread(
            forked.run, ["contract", "apply", "--yes", "--json", *words], env=environ, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    feed = started(env)
    try:
        first, _, _ = await until(lambda now: now[2] >= 1)
        feed.terminate()
        await asyncio.to_thread(feed.wait, LIMIT_SECONDS)

        _, _, before = await told()
        feed = started(env | others)
        terms, subjects, _ = await until(lambda now: now[2] > before)
        assert (terms, set(subjects)) == (first, {"BTCUSDT"})
        remark = next(
            line for line in out.read_text().splitlines() if "those of this start are others" in line
        )
        for change in (
            "CHECKPOINT_INTERVAL_SECONDS 21600 -> 43200",
            "FEED_SUBJECTS BTCUSDT -> BTCUSDT,ETHUSDT",
        ):
            assert change in remark

        # Whoever applies without naming a setting applies none: a default is nobody's word.
        unset = {name: text for name, text in env.items() if name not in others and name != "FEED_SOURCE"}
        assert (await apply(unset))["applied"] is False

        result = await apply(env | others)
        assert result["applied"] is True
        assert "SNAPSHOT_INTERVAL_SECONDS 3600 -> 1800" in result["differences"]
        terms, subjects, _ = await until(lambda now: "ETHUSDT" in now[1])
        asked, planned = terms[len(first) :]
        assert (asked.goes_on, asked.subjects, asked.checkpoint_interval_ms) == (
            True,
            ["BTCUSDT", "ETHUSDT"],
            21_600_000,
        )
        assert (planned.snapshot_interval_ms, planned.checkpoint_interval_ms) == (1_800_000, 43_200_000)
        assert planned.effective_from % 21_600_000 == 0
        assert result["effective_from"] == planned.effective_from

        feed.terminate()
        await asyncio.to_thread(feed.wait, LIMIT_SECONDS)
        _, _, before = await told()
        feed = started(env)  # the settings of before: they switch nothing back
        again, _, _ = await until(lambda now: now[2] > before)
        assert again == terms
    finally:
        feed.kill()
        feed.wait(LIMIT_SECONDS)
