"""Short ways to write events in tests. Times are ms; a minute grid from T0 on; scores in units of 10**-9."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.emission import emission_sha256
from coordinator.streams.events import (
    AnswerEntry,
    CheckpointData,
    ClockTicked,
    ClockTickedData,
    CrunchConfigured,
    Feed,
    FeedGapClosed,
    FeedGapClosedData,
    FeedGapData,
    FeedGapFound,
    FeedRecordData,
    FeedRecordReceived,
    FieldSum,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputResolvedData,
    InputScope,
    InputsUntil,
    InputsUntilData,
    ModelSeen,
    ModelSeenData,
    PeriodClosed,
    PeriodClosedData,
    RankedEntry,
    RosterEntry,
    RoundAnswered,
    RoundAnsweredData,
    RoundOpened,
    RoundOpenedData,
    RoundScored,
    RoundScoredData,
    Scope,
    ScoredUntil,
    ScoredUntilData,
    ScoreEntry,
    SnapshotTaken,
    SnapshotTakenData,
    Terms,
    Window,
    in_columns,
)
from coordinator.streams.log import ids
from coordinator.streams.predictions.stage import in_events

MINUTE = 60_000
HOUR = 3_600_000
DAY = 24 * HOUR
T0 = 1_678_406_400_000  # 2023-03-10T00:00Z, a multiple of every interval used here
UNIT = 10**9
HASH = "c" * 64
PUBKEY = "So11111111111111111111111111111111111111112"
TX_A = "1" * 64  # 64 zero bytes
TX_B = "1" * 63 + "2"
SUBJECT = "BTCUSDT"
DEFAULT = CrunchContract(crunch_pubkey=PUBKEY)


def shelf(contract: CrunchContract = DEFAULT, **others: CrunchContract) -> Callable[[str], CrunchContract]:
    """A store of contracts: `contract` under HASH, others under their names."""
    contracts = {HASH: contract, **others}
    return lambda wanted: contracts[wanted]


def scope(scope_key: str = "60s", subject: str = SUBJECT, **changes: Any) -> Scope:
    """A scope of 60 s, asked each minute."""
    fields = {"horizon_seconds": 60, "step_seconds": 15, "interval_seconds": 60} | changes
    return Scope(scope_key=scope_key, subject=subject, **fields)


def terms(**changes: Any) -> Terms:
    """Terms of the default contract."""
    fields: dict[str, Any] = {
        "contract_hash": HASH,
        "crunch_pubkey": PUBKEY,
        "feed": Feed(source="generated", kind="candle", granularity="1m"),
        "subjects": [SUBJECT],
        "scopes": [scope()],
        "windows": [
            Window(name="score_recent", hours=24),
            Window(name="score_steady", hours=72),
            Window(name="score_anchor", hours=168),
        ],
        "ranking_key": "score_recent",
        "checkpoint_key": "period",
        "ranking_direction": "desc",
        "value_field": "value",
        "score_decimals": 9,
        "scoring_hash": "",
        "deadline_ms": 10_000,
        "grace_ms": 5_000,
        "output_max_bytes": 65_536,
        "absence_policy": "ignore",
        "min_participation": 0.0,
        "newcomer_excuse_max": 0.5,
        "snapshot_interval_ms": HOUR,
        "checkpoint_interval_ms": 6 * HOUR,
        "checkpoint_offset_ms": 0,
        "effective_from": 0,
    }
    return Terms(**(fields | changes))


def configured(**changes: Any) -> CrunchConfigured:
    """Terms as an event."""
    data = terms(**changes)
    content = msgspec.json.Encoder(order="deterministic").encode(data).decode()
    return CrunchConfigured(id=ids.content_id("terms", content), at=0, data=data)


def record(at: int, price: float = 100.0, subject: str = SUBJECT, **changes: Any) -> FeedRecordReceived:
    """A minute candle that became known at `at` (its close)."""
    text = f"{price:.2f}"
    fields: dict[str, Any] = {
        "source": "generated",
        "subject": subject,
        "kind": "candle",
        "granularity": "1m",
        "ts_event": at - MINUTE,
        "values": {"open": text, "high": text, "low": text, "close": text, "volume": "1.0"},
    }
    data = FeedRecordData(**(fields | changes))
    the_id = ids.feed_record_id(
        data.source, subject, data.kind, data.granularity, data.ts_event, data.revision
    )
    return FeedRecordReceived(id=the_id, at=at, data=data)


def gap_found(from_ms: int, until_ms: int, subject: str = SUBJECT, **changes: Any) -> FeedGapFound:
    """Minute candles with from_ms < at <= until_ms are missing."""
    of = {"source": "generated", "subject": subject, "kind": "candle", "granularity": "1m"} | changes
    data = FeedGapData(**of, from_ms=from_ms, until_ms=until_ms, reason="no record came in time")
    return FeedGapFound(id=f"gap/{subject}/{from_ms}/{until_ms}", at=until_ms, data=data)


def gap_closed(
    from_ms: int, until_ms: int, at: int, subject: str = SUBJECT, *, complete: bool = False, **changes: Any
) -> FeedGapClosed:
    """Nothing more will come with from_ms < at <= until_ms."""
    of = {"source": "generated", "subject": subject, "kind": "candle", "granularity": "1m"} | changes
    data = FeedGapClosedData(
        **of, from_ms=from_ms, until_ms=until_ms, complete=complete, reason="history has no such record"
    )
    return FeedGapClosed(id=f"gap-closed/{subject}/{from_ms}/{until_ms}", at=at, data=data)


def tick(at: int, *, rehearsal: bool = False) -> ClockTicked:
    """The clock is at `at`."""
    return ClockTicked(id=ids.tick_id(at), at=at, data=ClockTickedData(rehearsal=rehearsal))


def received(
    point: int,
    subject: str = SUBJECT,
    scopes: Mapping[str, int] | None = None,
    *,
    rehearsal: bool = False,
    contract_hash: str = HASH,
    steps: Mapping[str, int] | None = None,
) -> InputReceived:
    """An input with scopes {scope_key: horizon_seconds}; steps are 15 s unless `steps` says otherwise."""
    asked = [
        InputScope(
            scope_key=key,
            horizon_seconds=seconds,
            step_seconds=(steps or {}).get(key, 15),
            resolvable_at=point + seconds * 1000,
        )
        for key, seconds in (scopes or {"60s": 60}).items()
    ]
    the_id = ids.input_id(subject, point)
    data = InputReceivedData(
        input_id=the_id,
        subject=subject,
        point=point,
        deadline_at=point + 10_000,
        scopes=asked,
        contract_hash=contract_hash,
        rehearsal=rehearsal,
        payload=msgspec.Raw(b"{}"),
    )
    return InputReceived(id=f"{the_id}:received", at=point, data=data)


def truth(change: float = 0.01) -> dict[str, Any]:
    """The default ground truth of a return."""
    return {
        "entry_price": 100.0,
        "resolved_price": 100.0 * (1 + change),
        "return": change,
        "direction_up": change > 0,
    }


def resolved(
    point: int,
    subject: str = SUBJECT,
    horizon_seconds: int = 60,
    *,
    change: float | None = 0.01,
    last: bool = True,
) -> InputResolved:
    """The truth of one horizon. `change` None: there is no truth."""
    the_id = ids.input_id(subject, point)
    data = InputResolvedData(
        input_id=the_id,
        horizon_seconds=horizon_seconds,
        resolvable_at=point + horizon_seconds * 1000,
        truth=None if change is None else truth(change),
        reason="gap: no record within the window" if change is None else None,
        last=last,
    )
    return InputResolved(
        id=f"{the_id}:resolved:{horizon_seconds}s", at=point + horizon_seconds * 1000, data=data
    )


def inputs_until(until: int, *, rehearsal: bool = False) -> InputsUntil:
    """The watermark of the inputs."""
    data = InputsUntilData(until=until, clock=until, rehearsal=rehearsal, skipped=[])
    return InputsUntil(id=f"inputs-until/{until}", at=until, data=data)


def seen(model_id: str) -> ModelSeen:
    """A model runs under the deployment that `opened` names."""
    data = ModelSeenData(
        model_id=model_id,
        model_name=model_id,
        deployment_id=f"{model_id}-d",
        cruncher_id="",
        cruncher_name="",
    )
    return ModelSeen(id=f"seen/{model_id}", at=T0, data=data)


def opened(
    point: int, models: list[str], subject: str = SUBJECT, scope_keys: tuple[str, ...] = ("60s",)
) -> RoundOpened:
    """A round was opened."""
    the_id = ids.input_id(subject, point)
    data = RoundOpenedData(
        input_id=the_id,
        roster=[RosterEntry(model_id=model_id, deployment_id=f"{model_id}-d") for model_id in models],
        scope_keys=list(scope_keys),
        clock=point,
        contract_hash=HASH,
        models_seq=1,
    )
    return RoundOpened(id=f"{the_id}:opened", at=point, data=data)


Answer = float | str | dict[str, Any] | list[Any]
"""A value, an output, or ABSENT, ABSENT(node), FAILED."""


def answer_entries(answers_by_model: Mapping[str, Answer]) -> list[AnswerEntry]:
    """Each model's answer, in order."""
    out: list[AnswerEntry] = []
    for model_id, answer in answers_by_model.items():
        if isinstance(answer, str):
            fault: Any = "node" if answer.endswith("(node)") else "model"
            status: Any = "FAILED" if answer.startswith("FAILED") else "ABSENT"
            out.append(AnswerEntry(model_id, f"{model_id}-d", status, reason=answer, fault=fault))
        else:
            output = answer if isinstance(answer, (dict, list)) else {"value": answer}
            raw = msgspec.Raw(msgspec.json.encode(output))
            out.append(AnswerEntry(model_id, f"{model_id}-d", "PENDING", raw, 5))
    return out


def answers(
    point: int,
    answers_by_model: Mapping[str, Answer],
    subject: str = SUBJECT,
    scope_keys: tuple[str, ...] = ("60s",),
) -> list[Any]:
    """The decision that answers a round which was opened with these models."""
    input_id = ids.input_id(subject, point)
    asked = opened(point, list(answers_by_model), subject, scope_keys)
    entries = answer_entries(answers_by_model)
    out: list[Any] = list(in_events(asked, dict.fromkeys(scope_keys, entries), point))
    done = RoundAnsweredData(input_id=input_id, clock=point)
    return [*out, RoundAnswered(id=f"{input_id}:answered", at=point, data=done)]


def round_scores(
    point: int,
    values: Mapping[str, int | str | Mapping[str, int]],
    *,
    subject: str = SUBJECT,
    scope_key: str = "60s",
    resolvable_at: int | None = None,
    rehearsal: bool = False,
    charges: Mapping[str, int] | None = None,
    crunchers: Mapping[str, str] | None = None,
    contract_hash: str = HASH,
) -> list[Any]:
    """The scores of one round: per model the value's units, those of several fields, or a status (ABSENT, ABSENT(node),
    FAILED ..).
    """
    whose = crunchers or {}
    input_id = ids.input_id(subject, point)
    at = point + MINUTE if resolvable_at is None else resolvable_at
    entries: list[ScoreEntry] = []
    for model_id, value in values.items():
        cruncher_id = whose.get(model_id, "")
        if isinstance(value, str):
            status: Any = value.removesuffix("(node)")
            fault: Any = "node" if value.endswith("(node)") else "model"
            entries.append(ScoreEntry(model_id, status, fault, (charges or {}).get(model_id), cruncher_id))
        else:
            units = {"value": value} if isinstance(value, int) else dict(value)
            entries.append(ScoreEntry(model_id, "SCORED", cruncher_id=cruncher_id, units=units))
    data = RoundScoredData(
        input_id=input_id,
        scope_key=scope_key,
        subject=subject,
        point=point,
        resolvable_at=at,
        horizon_seconds=60,
        rehearsal=rehearsal,
        contract_hash=contract_hash,
        **in_columns(entries),
    )
    return [RoundScored(id=f"{input_id}/{scope_key}:scored", at=at, data=data)]


def scored_until(until: int, *, rehearsal: bool = False) -> ScoredUntil:
    """Everything before `until` is scored."""
    return ScoredUntil(
        id=f"scored-until/{until}", at=until, data=ScoredUntilData(until=until, rehearsal=rehearsal)
    )


def snapshot(model_id: str, start: int, mean: int, n: int = 60, **changes: Any) -> SnapshotTaken:
    """One model's hour: `n` scores with a mean of `mean` units."""
    end = changes.pop("end", start + HOUR)
    fields: dict[str, Any] = {
        "snapshot_id": ids.snapshot_id(model_id, start, end),
        "model_id": model_id,
        "period_start": start,
        "period_end": end,
        "sums": {"value": FieldSum(mean * n, n)} if n else {},
        "summary_units": {"value": mean} if n else {},
        "windows_units": {"score_recent": mean, "score_steady": mean, "score_anchor": mean},
        "scored_count": n,
        "failed_count": 0,
        "absent_model_count": 0,
        "absent_node_count": 0,
        "charged_count": 0,
        "rehearsal": False,
        "contract_hash": HASH,
    }
    counts = fields | changes
    failed_model = counts["failed_count"] - counts.get("failed_node_count", 0)
    counts.setdefault("rounds_count", counts["scored_count"] + failed_model + counts["absent_model_count"])
    data = SnapshotTakenData(**counts)
    return SnapshotTaken(id=f"{data.snapshot_id}:taken", at=end, data=data)


def period_closed(start: int, until: int, count: int = 0) -> PeriodClosed:
    """Periods are closed."""
    data = PeriodClosedData(from_ms=start, until_ms=until, snapshot_count=count, rehearsal=False)
    return PeriodClosed(id=f"period-closed/{start}-{until}", at=until, data=data)


def checkpoint_data(crunch_id: str = "btc-up", start: int = T0, **changes: Any) -> CheckpointData:
    """A checkpoint of six hours with one model."""
    emission = {
        "crunch": PUBKEY,
        "cruncher_rewards": [{"cruncher_index": 0, "reward_pct": 1_000_000_000}],
        "compute_provider_rewards": [],
        "data_provider_rewards": [],
    }
    fields: dict[str, Any] = {
        "checkpoint_id": ids.checkpoint_id(crunch_id, start, start + 6 * HOUR),
        "period_start": start,
        "period_end": start + 6 * HOUR,
        "snapshot_count": 6,
        "ranking": [
            RankedEntry(
                model_id="m1",
                rank=1,
                key_units=UNIT,
                prediction_count=60,
                snapshot_count=6,
                result_summary_units={"value": UNIT},
            )
        ],
        "unranked": [],
        "emission": emission,
        "emission_sha256": emission_sha256(emission),
        "contract_hash": HASH,
        "rehearsal": False,
    }
    return CheckpointData(**(fields | changes))
