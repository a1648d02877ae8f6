"""A log with boards and a payout by rules: an honest one passes, an altered one is found, and no crash changes it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.memory_log import MemoryLog, Owner, live, undisturbed
from tests.streams import test_crash_chain as chain_of_stages
from tests.streams.build import PUBKEY, shelf

from coordinator.streams.audit.checkpoint import STEPS, check_chain
from coordinator.streams.audit.facts import TOPICS_READ, Chain, ChainBrokenError
from coordinator.streams.contract import Aggregation, Board, CrunchContract, Payout, Pool, top
from coordinator.streams.contract.boards import board_terms
from coordinator.streams.events import CheckpointData

BOARDS = [
    Board(name="short", horizon_seconds=60, weights={"ETHUSDT": 0.5}),
    Board(name="recent", window="score_recent", every_scope=False, weigh="scores"),
]
PAYOUT = Payout(
    pools=[
        Pool(name="short", key="short", rule=top(2)),
        Pool(name="recent", key="recent", rule=top(4), weight=0.5),
    ],
    benchmarks=["b"],
    retained="prizes_only",
)
RULES = {"crunch_pubkey": PUBKEY, "aggregation": Aggregation(boards=BOARDS), "payout": PAYOUT}


@pytest.fixture(scope="module")
def rules() -> Iterator[None]:
    """The market of the crash tests, with boards and a payout."""
    with pytest.MonkeyPatch.context() as patch:
        windows = [window.name for window in chain_of_stages.TERMS["windows"]]
        boards = board_terms(BOARDS, chain_of_stages.SCOPES, windows)
        patch.setattr(chain_of_stages, "TERMS", chain_of_stages.TERMS | {"boards": boards})
        contracts = shelf(
            CrunchContract(**RULES, gap_wait_seconds=600),
            new=CrunchContract(**RULES, grace_seconds=0, gap_policy="accept"),
        )
        patch.setattr(chain_of_stages, "CONTRACTS", contracts)
        yield


@pytest.fixture(scope="module")
def log(rules) -> MemoryLog:
    return chain_of_stages.market.__wrapped__(1)


def checkpoints_in(log: MemoryLog) -> tuple[Chain, list[CheckpointData]]:
    chain = Chain({topic: log.decisions(topic) for topic in TOPICS_READ})
    return chain, list(chain.checkpoints.values())


def check(log: MemoryLog) -> None:
    chain, checkpoints = checkpoints_in(log)
    for checkpoint in checkpoints:
        steps = [step for step, _ in check_chain(chain, checkpoint, chain_of_stages.CONTRACTS)]
        assert tuple(steps) == STEPS


def test_an_honest_log_passes_and_has_boards_and_pools(log):
    check(log)
    _, checkpoints = checkpoints_in(log)
    assert len(checkpoints) == 3
    assert all(
        len(checkpoint.payout.pools) == 2 and checkpoint.payout.retained_frac64 for checkpoint in checkpoints
    )
    assert all(checkpoint.ranking[0].counts["short"] for checkpoint in checkpoints)


ALTERED = {
    # topic, the altered number, the step that finds it
    "a scope's sum": ("snapshots", rb'"scopes":\{"BTCUSDT/60s":\[-?', "snapshots"),
    "a board over a window": ("snapshots", rb'"boards_units":\{"recent":-?', "snapshots"),
    "a board's count": ("checkpoints", rb'"counts":\{"short":', "checkpoint"),
    "a board's number": ("checkpoints", rb'"recent":-?', "checkpoint"),
    "whose a model is": ("checkpoints", rb'"first_point":', "checkpoint"),
    "a paid part": ("checkpoints", rb'"paid":\[\[\d+,\d+,', "emission"),
    "a retained part": ("checkpoints", rb'"retained_parts":', "emission"),
    "a pool's weight": ("checkpoints", rb'"weight":', "emission"),
    "what is retained on chain": ("checkpoints", rb'"retained_frac64":', "emission"),
    "a share": ("checkpoints", rb'"reward_pct":', "emission"),
}


@pytest.mark.parametrize(("topic", "number", "step"), ALTERED.values(), ids=ALTERED)
def test_an_altered_number_is_found_at_its_step(log, topic, number, step):
    forged = log.copy()
    records = forged[topic]
    i = max(i for i, record in enumerate(records) if re.search(number + rb"\d", record))
    at = re.search(number + rb"\d", records[i]).end() - 1
    digit = b"%d" % (int(records[i][at : at + 1]) % 9 + 1)
    records[i] = records[i][:at] + digit + records[i][at + 1 :]
    with pytest.raises(ChainBrokenError) as broken:
        check(forged)
    assert broken.value.step == step


@pytest.mark.parametrize("topic", ["snapshots", "checkpoints"])
def test_a_stage_makes_the_same_after_any_kill(log, topic):
    sources, new_stage = chain_of_stages.sources_of(topic, log), chain_of_stages.STAGES[topic]
    expected = undisturbed(sources, new_stage)
    for place in range(1, len(expected[topic]) + 1):
        again = sources.copy()
        live(again, new_stage, place, Owner.run)
        assert live(again, new_stage, None, Owner.run)
        assert again.counted(topic) == expected.counted(topic), f"killed after send {place}"
