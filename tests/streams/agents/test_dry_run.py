"""The dry run: the real stages over the log as it is, and what they would pay if the period ended now."""

from __future__ import annotations

import pytest
from tests import memory_io
from tests.memory_log import Author, MemoryLog, undisturbed
from tests.streams.build import HOUR, MINUTE, PUBKEY, T0, configured, round_scores, scored_until, shelf

from coordinator.streams import events as ev
from coordinator.streams.agents.dry_run import dry_run
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import FRAC64_ONE, CrunchContract
from coordinator.streams.log.errors import WorldError
from coordinator.streams.snapshots.stage import SnapshotStage

CONTRACTS = shelf(CrunchContract(crunch_pubkey=PUBKEY))


def node(hours: float, *commands: ev.Event, keyless: bool = False) -> memory_io.MemoryLog:
    """A node's topics after this many hours, scored every ten minutes. Its stages are at the last boundaries."""
    sources = MemoryLog()
    scores = Author(sources, "scores")
    scores.write(configured())
    boundary = 0
    for n in range(1, int(hours * 6)):
        at = T0 + n * 10 * MINUTE
        scores.write(*round_scores(at - MINUTE, {"a": 100 - n, "b": n, "c": "ABSENT"}, resolvable_at=at))
        if n // 6 > boundary:
            boundary = n // 6
            scores.write(scored_until(T0 + boundary * HOUR))
    for command in commands:
        Author(sources, "commands").write(command)
    sources["commands"]
    contracts = shelf(CrunchContract()) if keyless else CONTRACTS
    log = undisturbed(sources, lambda: SnapshotStage(contracts))
    log = undisturbed(log, lambda: CheckpointStage("btc-up", contracts))
    io = memory_io.MemoryLog()
    io.records.update(log.topics)
    return io


def lengths(io: memory_io.MemoryLog) -> dict[str, int]:
    return {topic: len(records) for topic, records in io.records.items()}


async def test_it_pays_for_everything_scored_so_far_and_writes_nothing():
    io = node(2.5)
    before = lengths(io)
    outcome = await dry_run(io, "btc-up", CONTRACTS)
    assert lengths(io) == before
    assert io.sends == {}
    data = outcome.checkpoint
    assert data is not None
    assert (data.period_start, data.period_end, outcome.until) == (T0, outcome.until, T0 + 140 * MINUTE + 1)
    assert outcome.reason == ""
    # means of 92.5 and 7.5, half-even
    assert [(row.model_id, row.key_units, row.prediction_count) for row in data.ranking] == [
        ("a", 92, 14),
        ("b", 8, 14),
    ]
    assert sum(reward["reward_pct"] for reward in data.emission["cruncher_rewards"]) == FRAC64_ONE
    assert data.unranked_reasons == {"c": "never scored in the period"}


@pytest.mark.parametrize("hours", [0.5, 1.0, 1.2, 5.9])
async def test_it_is_the_checkpoint_of_a_period_that_ends_there(hours):
    """Compared with the stages themselves under terms that ended the period there from the start."""
    io = node(hours)
    outcome = await dry_run(io, "btc-up", CONTRACTS)
    sources = MemoryLog({"scores": io.records["scores"]})
    whole = MemoryLog()
    author = Author(whole, "scores")
    author.write(configured(), configured(effective_from=outcome.until))
    for event in sources.events("scores"):
        if isinstance(event, ev.RoundScored):
            author.write(
                *[
                    event_
                    for event_ in sources.events("scores")
                    if getattr(event_.data, "input_id", "") == event.data.input_id
                ]
            )
    author.write(scored_until(outcome.until))
    whole["commands"]
    log = undisturbed(
        undisturbed(whole, lambda: SnapshotStage(CONTRACTS)), lambda: CheckpointStage("btc-up", CONTRACTS)
    )
    (opened,) = [event for event in log.events("checkpoints") if isinstance(event, ev.CheckpointOpened)]
    assert outcome.checkpoint is not None
    for name in ("checkpoint_id", "ranking", "emission", "emission_sha256", "period_end", "snapshot_count"):
        assert getattr(outcome.checkpoint, name) == getattr(opened.data, name), name


async def test_a_checkpoint_that_exists_is_not_paid_again():
    outcome = await dry_run(node(8.5), "btc-up", CONTRACTS)
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.period_start == T0 + 6 * HOUR
    assert [row.prediction_count for row in outcome.checkpoint.ranking] == [15, 15]


async def test_it_gives_the_reason_for_which_it_would_be_withheld():
    hold = ev.WithholdCheckpoint(id="w", at=T0, data=ev.WithholdCheckpointData(reason="look first"))
    outcome = await dry_run(node(2.5, hold), "btc-up", CONTRACTS)
    assert outcome.reason == "withheld by command: look first"
    outcome = await dry_run(node(2.5, keyless=True), "btc-up", shelf(CrunchContract()))
    assert "crunch_pubkey" in outcome.reason
    assert outcome.checkpoint is not None


async def test_right_after_a_boundary_nobody_is_ranked_yet():
    sources = MemoryLog()
    scores = Author(sources, "scores")
    scores.write(configured())
    scores.write(*round_scores(T0, {"a": 1}))
    scores.write(scored_until(T0 + 6 * HOUR))
    sources["commands"]
    io = memory_io.MemoryLog()
    io.records.update(sources.topics)
    outcome = await dry_run(
        io, "btc-up", CONTRACTS
    )  # the stages have not yet decided even the previous period
    assert (outcome.checkpoint, outcome.until) == (None, T0 + 6 * HOUR + 1)


async def test_before_any_score_it_reports_that_there_is_none():
    sources = MemoryLog()
    Author(sources, "scores").write(configured())
    io = memory_io.MemoryLog()
    io.records.update(sources.topics)
    with pytest.raises(WorldError, match="nothing has been scored yet"):
        await dry_run(io, "btc-up", CONTRACTS)
