"""A log of models that come and go, under a contract with coverage and a substitute for a newcomer's past. It is the
same after a kill at any send. The audit computes it again, and names any alteration in each of its checks.
"""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.logs import fold_into
from tests.memory_log import Author, MemoryLog, Owner, live, undisturbed
from tests.streams import test_crash_chain as crash_chain
from tests.streams.audit.test_whole_rounds import both_looks, last_checkpoint, rewritten
from tests.streams.build import MINUTE, PUBKEY, T0, answers, opened, seen, shelf

from coordinator.projections.folding.as_of import PastReadModels, cuts_at, folded_until
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import ReadModels, open_projections
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import Board, CrunchContract
from coordinator.streams.contract.boards import board_terms
from coordinator.streams.contract.coverage import why_uncovered
from coordinator.streams.events import (
    Answered,
    CoverageTerms,
    InputReceived,
    JoinedAt,
    ModelLeft,
    ModelLeftData,
    PeriodClosed,
    SnapshotTaken,
    Window,
)
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.topology import TOPICS

RULES = {
    "worst, hours": {"newcomer_past": "worst", "coverage": CoverageTerms(0.7, 1, 0)},
    "median, rounds": {
        "newcomer_past": "median",
        "coverage": CoverageTerms(0.7, 0, 60),
        "ranking_direction": "asc",
    },
}
SPECIAL = [
    Window(name="last", hours=24, last=9, least=3),
    Window(name="ewma", hours=24, rule="ewma", alpha=0.1),
    Window(name="both", hours=0, combines={"last": 1.0, "long": 2.0}),
]
HERE = {"a": (0, 999), "b": (0, 999), "c": (0, 55), "d": (33, 999), "e": (71, 999)}
"""Model -> minutes from T0 between which it is asked."""
CONTRACTS = shelf(
    CrunchContract(crunch_pubkey=PUBKEY, gap_wait_seconds=600),
    new=CrunchContract(crunch_pubkey=PUBKEY, grace_seconds=0, gap_policy="accept"),
)


def predictions(log: MemoryLog) -> None:
    rng = random.Random(4)
    models, author = Author(log, "models"), Author(log, "predictions")
    on, number = [], 0
    for event in log.events("inputs"):
        if not isinstance(event, InputReceived):
            continue
        data = event.data
        minute = (data.point - T0) // MINUTE
        now = [name for name, (first, last) in HERE.items() if first <= minute <= last]
        if now != on:
            left = [
                ModelLeft(
                    id=f"left/{name}",
                    at=data.point,
                    data=ModelLeftData(model_id=name, deployment_id=f"{name}-d", reason="stopped"),
                )
                for name in on
                if name not in now
            ]
            models.write(*(seen(name) for name in now if name not in on), *left)
            on, number = now, number + 1
        keys = tuple(scope.scope_key for scope in data.scopes)
        answers_by_model: dict[str, Any] = {
            name: rng.choice([round(rng.uniform(-1, 1), 3)] * 5 + ["ABSENT", "ABSENT(node)"]) for name in now
        }
        asked = opened(data.point, now, data.subject, keys)
        by = msgspec.structs.replace(asked.data, contract_hash=data.contract_hash, models_seq=number)
        author.write(msgspec.structs.replace(asked, data=by))
        author.write(*answers(data.point, answers_by_model, data.subject, keys))


@pytest.fixture(scope="module", params=RULES)
def log(request) -> MemoryLog:
    return played(RULES[request.param])


def played(rules: dict[str, Any]) -> MemoryLog:
    windows = crash_chain.TERMS["windows"] + SPECIAL
    board = Board(name="minutes", scope_keys=["60s"], window="score_recent", every_scope=False)
    whole = Board(name="whole", every_scope=False)
    boards = board_terms([board, whole], crash_chain.SCOPES, ["score_recent"])
    with pytest.MonkeyPatch.context() as patch:
        terms = crash_chain.TERMS | rules | {"windows": windows, "boards": boards}
        patch.setattr(crash_chain, "TERMS", terms)
        log = undisturbed(crash_chain.feeds(1, 100), partial(InputStage, CONTRACTS))
    predictions(log)
    for stage in (ScoreStage, SnapshotStage, partial(CheckpointStage, "btc-up")):
        log = undisturbed(log, partial(stage, CONTRACTS))
    return log


def taken(log: MemoryLog) -> list[Any]:
    return [event.data for event in log.events("snapshots") if isinstance(event, SnapshotTaken)]


def test_the_log_has_newcomers_and_unranked_models_and_passes_the_audit(log):
    joined = {data.model_id: data.joined for data in taken(log)}
    assert joined["d"].point >= T0 + 33 * MINUTE > joined["a"].point
    assert {data.model_id for data in taken(log) if data.filled_count} >= {"d", "e"}
    reasons = [
        event.data.unranked_reasons for event in log.events("checkpoints") if hasattr(event.data, "ranking")
    ]
    assert any("coverage asks for 0.7" in reason for of in reasons for reason in of.values())
    assert both_looks(log, last_checkpoint(log), CONTRACTS) == [None, None]


def test_the_board_agrees_with_the_snapshots_now_and_in_the_past(log, tmp_path):
    records = {topic: log[topic] for topic in TOPICS}
    projections = open_projections(tmp_path, "cluster", "btc-up")
    fold_into(Folder(projections), SimpleNamespace(records=records))
    live_models = ReadModels(**{projection.name: projection for projection in projections})
    by_end: dict[int, list[Any]] = {}
    for data in taken(log):
        by_end.setdefault(data.period_end, []).append(data)
    ranks_seen, reasons_seen = 0, 0
    for end, snapshots in sorted(by_end.items()):
        # Some minutes into the next period. The scores that came in it by then do not change the board yet.
        closed = max(
            event.at for event in log.events("snapshots") if getattr(event.data, "period_end", 0) == end
        )
        past = PastReadModels(live_models, cuts_at(live_models, closed, folded_until(live_models)))
        board = past.leaderboard.board()
        assert board is not None
        rows = {row.model.model_id: row for row in board.rows}
        terms = past.leaderboard.terms_now
        for data in snapshots:
            row = rows[data.model_id]
            assert row.windows_units == data.windows_units | {"minutes": data.boards_units["minutes"]}
            why = why_uncovered(terms.coverage, data.coverage)
            assert (row.rank is not None) == (row.unranked_reason == "")
            if row.model.status == "RUNNING":
                assert row.unranked_reason.startswith(why)
                assert (row.rank is None) == bool(why or data.windows_units["score_recent"] is None)
            ranks_seen, reasons_seen = ranks_seen + (row.rank is not None), reasons_seen + bool(why)
    assert (ranks_seen > 10, reasons_seen > 3) == (True, True), (ranks_seen, reasons_seen)
    live_models.close()


@pytest.mark.parametrize("topic", ["snapshots", "checkpoints"])
def test_the_log_is_the_same_after_a_kill_at_any_send(log, topic):
    new_stage = {
        "snapshots": partial(SnapshotStage, CONTRACTS),
        "checkpoints": partial(CheckpointStage, "btc-up", CONTRACTS),
    }[topic]
    sources = log.copy(*new_stage().sources)
    sends = len(log[topic])
    for place in sorted(random.Random(1).sample(range(1, sends), min(sends - 1, 10))):
        again = sources.copy()
        live(again, new_stage, place, Owner.run)
        assert live(again, new_stage, None, Owner.run)
        assert again.counted(topic) == log.counted(topic), f"killed after send {place}"


def joined_later(data: Any) -> Any:
    joined = data.joined
    if not data.filled_count:
        return None
    return msgspec.structs.replace(data, joined=JoinedAt(joined.point + MINUTE, joined.period_start))


def more_filled(data: Any) -> Any:
    return msgspec.structs.replace(data, filled_count=data.filled_count + 1) if data.filled_count else None


def more_covered(data: Any) -> Any:
    scored, asked = data.coverage.scored, data.coverage.asked
    return msgspec.structs.replace(data, coverage=Answered(scored + 1, asked)) if scored < asked else None


def more_excused(data: Any) -> Any:
    return msgspec.structs.replace(data, excused_count=data.excused_count + 1)


def richer_past(data: Any) -> Any:
    past = data.newcomer_past
    if past is None or not past.total.n:
        return None
    total = msgspec.structs.replace(past.total, sum_units=past.total.sum_units + 1)
    return msgspec.structs.replace(data, newcomer_past=msgspec.structs.replace(past, total=total))


ALTERED = {
    "joined": (SnapshotTaken, joined_later),
    "filled_count": (SnapshotTaken, more_filled),
    "coverage": (SnapshotTaken, more_covered),
    "excused_count": (SnapshotTaken, more_excused),
    "newcomers are given": (PeriodClosed, richer_past),
}


@pytest.mark.parametrize("what", ALTERED)
def test_each_check_of_the_audit_names_an_alteration(log, what):
    kind, change = ALTERED[what]
    checkpoint = last_checkpoint(log)

    def inside(data: Any) -> Any:
        start = data.period_start if kind is SnapshotTaken else data.from_ms
        return change(data) if start >= checkpoint.period_start else None

    until = checkpoint.period_end + 1
    forged = rewritten(log, kind, inside, checkpoint.period_start - 600_000, until, topic="snapshots")
    alone, both = both_looks(forged, checkpoint, CONTRACTS)
    assert alone is not None
    assert (alone.step, what in str(alone)) == ("snapshots", True), alone
    assert both is not None
    assert both.step == "snapshots"
