"""A payment is traced back to the feed: an honest log passes, and one altered number is found and its step named."""

from __future__ import annotations

import re

import pytest
from tests.memory_log import MemoryLog
from tests.streams.test_crash_chain import CONTRACTS, market

from coordinator.streams.audit.checkpoint import check_chain
from coordinator.streams.audit.facts import Chain, ChainBrokenError

TOPICS = ("feeds", "inputs", "models", "predictions", "scores", "snapshots", "checkpoints")
STEPS = ["feed", "input", "predictions", "scores", "snapshots", "checkpoint", "emission"]


def chain_of(log: MemoryLog) -> Chain:
    return Chain({topic: log.decisions(topic) for topic in TOPICS})


def walked(chain: Chain) -> list[str]:
    """The steps of the last checkpoint that passed."""
    last = max(chain.checkpoints.values(), key=lambda checkpoint: checkpoint.period_end)
    return [step for step, _ in check_chain(chain, last, CONTRACTS)]


@pytest.mark.parametrize("seed", [1, 2, 3, 7])
def test_every_checkpoint_of_an_honest_log_passes(seed):
    """Outages, late and corrected candles, or a change of contract must not be reported as tampering."""
    chain = chain_of(market(seed))
    assert chain.checkpoints
    for checkpoint in chain.checkpoints.values():
        assert [step for step, _ in check_chain(chain, checkpoint, CONTRACTS)] == STEPS


def digits_changed(topic: str, kind: str, after: bytes) -> Chain:
    """A copy in which the first digit after `after` is one higher."""
    log = market(1).copy()
    records = log[topic]
    honest = chain_of(market(1))
    end = max(checkpoint.period_end for checkpoint in honest.checkpoints.values())
    closed = [i for i, record in enumerate(records) if f'"{kind}"'.encode() in record and after in record]
    for i in reversed(closed):
        record = records[i]
        at = record.index(after, record.index(f'"{kind}"'.encode())) + len(after)
        while not record[at : at + 1].isdigit():
            at += 1
        digit = str((int(record[at : at + 1]) % 9) + 1).encode()
        records[i] = record[:at] + digit + record[at + 1 :]
        chain = chain_of(log.copy())  # a log that was read is cached
        last = max(chain.checkpoints.values(), key=lambda checkpoint: checkpoint.period_end)
        try:
            list(check_chain(chain, last, CONTRACTS))
        except ChainBrokenError:
            assert last.period_end == end
            return chain
        records[i] = record
    raise AssertionError("no alteration of this kind is noticed")


@pytest.mark.parametrize(
    ("topic", "kind", "after", "step"),
    [
        ("feeds", "FeedRecordReceived", b'"close":"', "feed"),
        ("inputs", "InputResolved", b'"resolved_price":', "feed"),
        ("scores", "RoundScored", b'"value":', "scores"),
        ("snapshots", "SnapshotTaken", b'"sums":{"value":[', "snapshots"),
        ("snapshots", "SnapshotTaken", b'"scored_count":', "snapshots"),
        ("snapshots", "SnapshotTaken", b'"score_recent":', "snapshots"),
        ("snapshots", "SnapshotTaken", b'"rounds_count":', "snapshots"),
        ("checkpoints", "CheckpointOpened", b'"key_units":', "checkpoint"),
        ("checkpoints", "CheckpointOpened", b'"reward_pct":', "emission"),
        ("checkpoints", "CheckpointOpened", b'"emission_sha256":"', "emission"),
    ],
)
def test_one_altered_number_is_found_at_its_step(topic, kind, after, step):
    with pytest.raises(ChainBrokenError) as broken:
        walked(digits_changed(topic, kind, after))
    assert broken.value.step == step
    # Readers see the figures, not Python's text of an object.
    assert not re.search(r"\w\(\w+=|\bNone\b|\{'", broken.value.reason), broken.value.reason


def test_shares_that_were_moved_with_the_same_sum_are_noticed():
    log = market(1).copy()  # nobody has read it yet: a log that was read is cached
    chain = chain_of(market(1))
    last = max(chain.checkpoints.values(), key=lambda checkpoint: checkpoint.period_end)
    shares = sorted({reward["reward_pct"] for reward in last.emission["cruncher_rewards"]})
    a, b = (f'"reward_pct":{share}'.encode() for share in (shares[-1], shares[0]))
    assert a != b
    i = max(i for i, record in enumerate(log["checkpoints"]) if a in record)
    log["checkpoints"][i] = log["checkpoints"][i].replace(a, b"@", 1).replace(b, a, 1).replace(b"@", b, 1)
    with pytest.raises(ChainBrokenError, match=r"emission: .*the ranking gives"):
        walked(chain_of(log))


def test_a_score_that_was_left_out_is_missed():
    chain = chain_of(market(1))
    last = max(chain.checkpoints.values(), key=lambda checkpoint: checkpoint.period_end)
    in_period = {
        (round_.input_id, scope) for round_, scope, _ in chain.rounds(last.period_start, last.period_end)
    }
    key = next(key for key in chain.scored if key[:2] in in_period)
    del chain.scored[key]
    with pytest.raises(ChainBrokenError, match=rf"scores: input {key[0]}.*model {key[2]}"):
        walked(chain)


def test_the_chain_of_one_period_has_what_its_check_needs_and_no_other_round():
    log = market(1)
    whole = chain_of(log)
    for checkpoint in whole.checkpoints.values():
        period = (checkpoint.period_start, checkpoint.period_end)
        chain = Chain({topic: log.decisions(topic) for topic in TOPICS}, period)
        assert [step for step, _ in check_chain(chain, checkpoint, CONTRACTS)] == STEPS
        assert list(check_chain(chain, checkpoint, CONTRACTS)) == list(
            check_chain(whole, checkpoint, CONTRACTS)
        )
        assert 0 < len(chain.inputs) < len(whole.inputs)
        assert 0 < len(chain.scored) < len(whole.scored)
