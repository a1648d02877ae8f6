"""A small builder of topics: counted appends (epoch 1, after a claim) from lists of events, without a broker.

    log = LogBuilder()
    log.terms()
    log.model("m1")
    log.round(0, {"m1": 0.5})             # opened, answered, resolved and scored
    log.round(60_000, {"m1": "ABSENT"})
    log.records["scores"]                 # [bytes, ...], offset = index

Times are ms. Scores are units of 10**-9. Every method returns what it made, so that a test can refer to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import ReadModels, open_projections
from coordinator.streams import events as ev
from coordinator.streams.contract.emission import emission_sha256
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import Append, Position, encode_append, encode_decision, encode_event
from coordinator.streams.topology import BY_TOPIC, TOPICS

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
START_MS = 1_678_406_400_000  # 2023-03-10T00:00Z
UNIT = 10**9
PUBKEY = "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T"
TX_HASH = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"
CONTRACT_HASH = "c" * 64


def make_terms(**changes: Any) -> ev.Terms:
    """Terms of the default contract for one subject, with changes."""
    fields: dict[str, Any] = {
        "contract_hash": CONTRACT_HASH,
        "crunch_pubkey": PUBKEY,
        "feed": ev.Feed(source="generated", kind="candle", granularity="1m"),
        "subjects": ["BTCUSDT"],
        "scopes": [
            ev.Scope(
                scope_key="60s", subject="BTCUSDT", horizon_seconds=60, step_seconds=15, interval_seconds=60
            )
        ],
        "windows": [
            ev.Window(name="score_recent", hours=24),
            ev.Window(name="score_steady", hours=72),
            ev.Window(name="score_anchor", hours=168),
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
        "snapshot_interval_ms": HOUR_MS,
        "checkpoint_interval_ms": 6 * HOUR_MS,
        "checkpoint_offset_ms": 0,
        "effective_from": START_MS,
    }
    return ev.Terms(**(fields | changes))


_CANDLES = {"source": "generated", "subject": "BTCUSDT", "kind": "candle", "granularity": "1m"}


class LogBuilder:
    """Topics as lists of records. `records[topic][offset]` is the record that a broker would hold there."""

    def __init__(self, crunch_id: str = "btc-up") -> None:
        self.crunch_id = crunch_id
        self.records: dict[str, list[bytes | None]] = {topic: [] for topic in TOPICS}
        self._seqs: dict[str, int] = {}
        self._terms: list[ev.Terms] = []

    def append(self, topic: str, *events: ev.Event, upto: Mapping[str, Position] | None = None) -> None:
        """Appends one counted decision, after a claim if it is the topic's first; or plain events."""
        records = self.records[topic]
        if not BY_TOPIC[topic].enveloped:
            records.extend(encode_event(event) for event in events)
            return
        if topic not in self._seqs:
            records.append(encode_append(Append(e=1, epoch=1, seq=0, claim="tests")))
        seq = self._seqs[topic] = self._seqs.get(topic, 0) + 1
        records.extend(encode_decision(events, epoch=1, seq=seq, upto=dict(upto or {}), need={}))

    def garbage(self, topic: str, record: bytes | None = b"no append at all") -> None:
        """Appends a record that does not count."""
        self.records[topic].append(record)

    def terms(self, told_at: int | None = None, **changes: Any) -> ev.Terms:
        """CrunchConfigured in every topic that passes it on, announced at its beginning or earlier, at `told_at`."""
        terms = make_terms(**changes)
        self._terms.append(terms)
        at = terms.effective_from if told_at is None else told_at
        event = ev.CrunchConfigured(id=f"terms/{terms.contract_hash}", at=at, data=terms)
        for topic in ("feeds", "inputs", "scores", "snapshots", "checkpoints"):
            self.append(topic, event)
        return terms

    def contract_at(self, at: int) -> str:
        """The hash of the contract in force at a time (ms)."""
        held = [term.contract_hash for term in self._terms if term.effective_from <= at]
        return held[-1] if held else CONTRACT_HASH

    def model(self, model_id: str, at: int = START_MS, **fields: str) -> ev.ModelSeenData:
        """A model is seen. Names that are not given derive from its id."""
        data = ev.ModelSeenData(
            **{
                "model_id": model_id,
                "model_name": f"name of {model_id}",
                "deployment_id": f"{model_id}-d1",
                "cruncher_id": f"c-{model_id}",
                "cruncher_name": f"cruncher of {model_id}",
                **fields,
            }
        )
        self.append("models", ev.ModelSeen(id=f"seen/{model_id}/{data.deployment_id}", at=at, data=data))
        return data

    def model_left(self, model_id: str, at: int = START_MS, deployment_id: str | None = None) -> None:
        """A model stops for good."""
        data = ev.ModelLeftData(
            model_id=model_id, deployment_id=deployment_id or f"{model_id}-d1", reason="stopped"
        )
        self.append("models", ev.ModelLeft(id=f"left/{model_id}", at=at, data=data))

    def record(
        self, ts_event: int, price: str = "100.0", subject: str = "BTCUSDT", revision: int = 0
    ) -> None:
        """A minute candle that opens at `ts_event`."""
        data = ev.FeedRecordData(
            source="generated", subject=subject, kind="candle", granularity="1m", ts_event=ts_event,
            values={"close": price}, revision=revision,
        )  # fmt: skip
        the_id = ids.feed_record_id("generated", subject, "candle", "1m", ts_event, revision)
        self.append("feeds", ev.FeedRecordReceived(id=the_id, at=ts_event + MINUTE_MS, data=data))

    def tick(self, at: int) -> None:
        """The feed's clock moves."""
        self.append(
            "feeds", ev.ClockTicked(id=ids.tick_id(at), at=at, data=ev.ClockTickedData(rehearsal=True))
        )

    def hole(self, from_ms: int, until_ms: int, reason: str = "late") -> None:
        """A gap is found in the generated candles, after its end."""
        data = ev.FeedGapData(**_CANDLES, from_ms=from_ms, until_ms=until_ms, reason=reason)
        self.append("feeds", ev.FeedGapFound(id=f"gap/{from_ms}/{until_ms}", at=until_ms, data=data))

    def hole_closed(
        self, from_ms: int, until_ms: int, *, complete: bool, at: int, reason: str = "asked"
    ) -> None:
        """The gaps between these times are filled, or missing for good."""
        data = ev.FeedGapClosedData(
            **_CANDLES, from_ms=from_ms, until_ms=until_ms, complete=complete, reason=reason
        )
        self.append("feeds", ev.FeedGapClosed(id=f"closed/{from_ms}/{until_ms}", at=at, data=data))

    def feed_state(self, state: str, at: int, reason: str = "") -> None:
        """The source of the generated candles changes its state."""
        data = ev.FeedStateChangedData(source="generated", state=state, reason=reason)
        self.append("feeds", ev.FeedStateChanged(id=f"state/{state}/{at}", at=at, data=data))

    def round(
        self,
        offset_ms: int,
        answers: Mapping[str, float | str],
        *,
        subject: str = "BTCUSDT",
        scope_key: str = "60s",
        horizon_seconds: int = 60,
        charges: Mapping[str, int] | None = None,
        scored: bool = True,
        extra: Mapping[str, int] | None = None,
    ) -> str:
        """A whole round at START_MS + offset_ms. Returns the id of its input.

        An answer is the score (then the prediction is PENDING, and SCORED unless `scored` is False), or "ABSENT",
        "FAILED", "UNSCORABLE" (answered, but scoring failed), or "WAITING" (answered, no score yet). `extra` are
        further score fields in units.
        """
        point = START_MS + offset_ms
        input_id = ids.input_id(subject, point)
        resolvable_at = point + horizon_seconds * 1000
        self.append(
            "inputs",
            ev.InputReceived(
                id=input_id, at=point,
                data=ev.InputReceivedData(
                    input_id=input_id, subject=subject, point=point, deadline_at=point + 10_000,
                    scopes=[ev.InputScope(
                        scope_key=scope_key, horizon_seconds=horizon_seconds, step_seconds=15,
                        resolvable_at=resolvable_at,
                    )],
                    contract_hash=self.contract_at(point), rehearsal=True, payload=msgspec.Raw(b'{"candles":[]}'),
                ),
            ),
        )  # fmt: skip
        self.append("predictions", self._opened(input_id, point, list(answers), [scope_key]))
        self.append("predictions", *self._answers(input_id, scope_key, point + 1, answers))
        if scored:
            self.append(
                "inputs",
                ev.InputResolved(
                    id=f"{input_id}/{horizon_seconds}", at=resolvable_at,
                    data=ev.InputResolvedData(
                        input_id=input_id, horizon_seconds=horizon_seconds, resolvable_at=resolvable_at,
                        truth={"return": 0.01}, reason=None, last=True,
                    ),
                ),
            )  # fmt: skip
            self.append(
                "scores",
                *self._scores(
                    input_id, subject, scope_key, point, horizon_seconds, answers, charges or {}, extra or {}
                ),
            )
        return input_id

    def _opened(
        self, input_id: str, at: int, model_ids: Sequence[str], scope_keys: list[str]
    ) -> ev.RoundOpened:
        roster = [ev.RosterEntry(model_id=model_id, deployment_id=f"{model_id}-d1") for model_id in model_ids]
        data = ev.RoundOpenedData(
            input_id=input_id,
            roster=roster,
            scope_keys=scope_keys,
            clock=at,
            contract_hash=self.contract_at(at),
            models_seq=1,
        )
        return ev.RoundOpened(id=f"{input_id}/opened", at=at, data=data)

    def _answers(
        self, input_id: str, scope_key: str, at: int, answers: Mapping[str, float | str]
    ) -> list[ev.Event]:
        roster = self._opened(input_id, at, list(answers), [scope_key]).data.roster
        entries = []
        for model_id, answer in answers.items():
            who = model_id, f"{model_id}-d1"
            if answer == "ABSENT":
                entries.append(ev.AnswerEntry(*who, "ABSENT", reason="past the deadline", fault="model"))
            elif answer == "FAILED":
                entries.append(ev.AnswerEntry(*who, "FAILED", reason="not finite", fault="model"))
            else:
                value = answer if isinstance(answer, float) else 0.5
                output = msgspec.Raw(msgspec.json.encode({"value": value}))
                entries.append(ev.AnswerEntry(*who, "PENDING", output, 1200))
        data = ev.ScopeAnsweredData(
            input_id=input_id, scope_key=scope_key, **ev.answers_in_columns(roster, entries)
        )
        return [
            ev.ScopeAnswered(id=f"{input_id}/{scope_key}/answers", at=at, data=data),
            ev.RoundAnswered(
                id=f"{input_id}/answered", at=at, data=ev.RoundAnsweredData(input_id=input_id, clock=at)
            ),
        ]

    def _scores(
        self,
        input_id: str,
        subject: str,
        scope_key: str,
        point: int,
        horizon_seconds: int,
        answers: Mapping[str, float | str],
        charges: Mapping[str, int],
        extra: Mapping[str, int],
    ) -> list[ev.Event]:
        resolvable_at = point + horizon_seconds * 1000
        entries = []
        for model_id, answer in answers.items():
            units: dict[str, int] = {}
            status: Any = answer if answer in ("ABSENT", "FAILED") else "SCORED"
            reason = ""
            if isinstance(answer, float):
                units = {"value": round(answer * UNIT), **extra}
            elif answer == "UNSCORABLE":
                status, reason = "FAILED", "the scoring function raised"
            fault: Any = None if status == "SCORED" else "model"
            if answer == "WAITING":
                status, fault, reason = "FAILED", "nobody", "has not traded yet"
            entries.append(ev.ScoreEntry(model_id, status, fault, charges.get(model_id), "", units, reason))
        data = ev.RoundScoredData(
            input_id=input_id, scope_key=scope_key, subject=subject, point=point, resolvable_at=resolvable_at,
            horizon_seconds=horizon_seconds, rehearsal=True, contract_hash=self.contract_at(point),
            **ev.in_columns(entries),
        )  # fmt: skip
        return [ev.RoundScored(id=f"{input_id}/{scope_key}/scored", at=resolvable_at, data=data)]

    def state(
        self,
        offset_ms: int,
        states: Mapping[str, Any],
        shared: Any = msgspec.UNSET,
        *,
        subject: str = "BTCUSDT",
        scope_key: str = "60s",
        holder: str | None = None,
    ) -> None:
        """The carried state after the 60 s round at START_MS + offset_ms."""
        input_id = ids.input_id(subject, START_MS + offset_ms)
        data = ev.StateCarriedData(
            input_id=input_id, scope_key=scope_key, subject=subject,
            holder=f"{subject}/{scope_key}" if holder is None else holder,
            states={name: msgspec.Raw(msgspec.json.encode(state)) for name, state in states.items()},
            shared=[] if shared is msgspec.UNSET else [msgspec.Raw(msgspec.json.encode(shared))],
        )  # fmt: skip
        at = START_MS + offset_ms + MINUTE_MS
        self.append("scores", ev.StateCarried(id=f"{input_id}/{scope_key}/state/{holder}", at=at, data=data))

    def ensembles(
        self,
        offset_ms: int,
        scores: Mapping[str, float | str],
        weights: Mapping[str, int],
        *,
        output: Any = None,
        states: Mapping[str, Any] | None = None,
    ) -> None:
        """Results of ensembles in the 60 s round at START_MS + offset_ms: a score or a reason, by name."""
        point, subject, scope_key = START_MS + offset_ms, "BTCUSDT", "60s"
        input_id = ids.input_id(subject, point)
        entries = [
            ev.ScoreEntry(ids.ensemble_id(name), "FAILED", "node", reason=score_or_reason)
            if isinstance(score_or_reason, str)
            else ev.ScoreEntry(
                ids.ensemble_id(name), "SCORED", units={"value": round(score_or_reason * UNIT)}
            )
            for name, score_or_reason in scores.items()
        ]
        data = ev.EnsemblesScoredData(
            input_id=input_id, scope_key=scope_key, subject=subject, point=point,
            resolvable_at=point + MINUTE_MS, horizon_seconds=60, rehearsal=True,
            contract_hash=self.contract_at(point), **ev.in_columns(entries),
            answered=sorted(weights),
            weights=[
                [] if isinstance(score_or_reason, str) else [weights[model_id] or None for model_id in sorted(weights)]
                for score_or_reason in scores.values()
            ],
            outputs=[
                ev.NO_OUTPUT if isinstance(score_or_reason, str) else msgspec.Raw(msgspec.json.encode(output or {"value": 0.25}))
                for score_or_reason in scores.values()
            ],
            states={
                ids.ensemble_id(name): msgspec.Raw(msgspec.json.encode(state)) for name, state in (states or {}).items()
            },
            holder=f"{subject}/{scope_key}",
        )  # fmt: skip
        at = point + MINUTE_MS
        self.append("scores", ev.EnsemblesScored(id=f"{input_id}/{scope_key}:ensembles", at=at, data=data))

    def inputs_until(self, offset_ms: int) -> None:
        """The inputs' watermark: windows end here."""
        until = START_MS + offset_ms
        data = ev.InputsUntilData(until=until, clock=until, rehearsal=True, skipped=[])
        self.append("inputs", ev.InputsUntil(id=f"inputs/{until}", at=until, data=data))

    def scored_until(self, offset_ms: int) -> None:
        """The scores' watermark, a period boundary."""
        until = START_MS + offset_ms
        data = ev.ScoredUntilData(until=until, rehearsal=True)
        self.append("scores", ev.ScoredUntil(id=f"scores/{until}", at=until, data=data))

    def snapshot(
        self,
        model_id: str,
        period_start: int,
        period_end: int,
        mean: float = 0.5,
        *,
        windows: Mapping[str, int] | None = None,
        counts: Mapping[str, int] | None = None,
        **changes: Any,
    ) -> ev.SnapshotTakenData:
        """One model's period; `changes` are fields of its event."""
        units = round(mean * UNIT)
        data = ev.SnapshotTakenData(
            snapshot_id=ids.snapshot_id(model_id, period_start, period_end), model_id=model_id,
            period_start=period_start, period_end=period_end, sums={"value": ev.FieldSum(2 * units, 2)},
            summary_units={"value": units},
            windows_units=dict(windows or {"score_recent": units, "score_steady": units, "score_anchor": None}),
            windows_counts=dict(counts or {}),
            scored_count=2, failed_count=1, absent_model_count=1, absent_node_count=0, charged_count=0,
            rehearsal=True, contract_hash=self.contract_at(period_start),
        )  # fmt: skip
        data = msgspec.structs.replace(data, **changes)
        closed = ev.PeriodClosedData(
            from_ms=period_start, until_ms=period_end, snapshot_count=1, rehearsal=True
        )
        self.append(
            "snapshots",
            ev.SnapshotTaken(id=data.snapshot_id, at=period_end, data=data),
            ev.PeriodClosed(id=f"period/{model_id}/{period_end}", at=period_end, data=closed),
        )
        return data

    def checkpoint_data(
        self,
        offset_ms: int,
        shares: Mapping[str, int],
        keys: Mapping[str, int] | None = None,
        payout: ev.PayoutData | None = None,
    ) -> ev.CheckpointData:
        """A checkpoint of six hours from START_MS + offset_ms; `shares` in frac64, in order of rank."""
        start = START_MS + offset_ms
        end = start + 6 * HOUR_MS
        emission = {
            "crunch": PUBKEY,
            "cruncher_rewards": [
                {"cruncher_index": i, "reward_pct": share} for i, share in enumerate(shares.values()) if share
            ],
            "compute_provider_rewards": [],
            "data_provider_rewards": [],
        }
        ranking = [
            ev.RankedEntry(
                model_id=model_id, rank=i, key_units=(keys or {}).get(model_id, 0), prediction_count=360,
                snapshot_count=6, result_summary_units={"value": (keys or {}).get(model_id, UNIT // 2)},
            )
            for i, model_id in enumerate(shares, start=1)
        ]  # fmt: skip
        return ev.CheckpointData(
            checkpoint_id=ids.checkpoint_id(self.crunch_id, start, end), period_start=start, period_end=end,
            snapshot_count=6 * len(shares), ranking=ranking, unranked=[], emission=emission,
            emission_sha256=emission_sha256(emission), contract_hash=CONTRACT_HASH, rehearsal=True,
            payout=payout,
        )  # fmt: skip

    def checkpoint(
        self,
        offset_ms: int,
        shares: Mapping[str, int],
        *,
        withheld: str = "",
        payout: ev.PayoutData | None = None,
    ) -> str:
        """A checkpoint is offered, or withheld with a reason. Returns its id."""
        data = self.checkpoint_data(offset_ms, shares, payout=payout)
        event: ev.Event
        if withheld:
            event = ev.CheckpointWithheld(
                id=f"{data.checkpoint_id}/withheld", at=data.period_end,
                data=ev.CheckpointWithheldData(reason=withheld, checkpoint=data),
            )  # fmt: skip
        else:
            event = ev.CheckpointOpened(id=f"{data.checkpoint_id}/opened", at=data.period_end, data=data)
        self.append("checkpoints", event, upto={"snapshots": (len(self.records["snapshots"]), 0)})
        return data.checkpoint_id

    def letter(self, name: str = "feed/1", at: int = START_MS) -> None:
        """A dead letter."""
        data = ev.DeadLetteredData(
            origin="binance", position=name, reason="not JSON", sha256="0" * 64, head="garbage"
        )
        self.append("dead-letters", ev.DeadLettered(id=f"dead/{name}", at=at, data=data))


def folded(log: LogBuilder, path: Path, names: Sequence[str] | None = None) -> ReadModels:
    """Folds the whole log into stores under `path`, topic after topic. The caller closes them."""
    read = ReadModels(
        **{
            projection.name: projection
            for projection in open_projections(path, "cluster", log.crunch_id, names)
        }
    )
    fold_into(Folder(read.all()), log)
    return read


def of_events(state_hashes: Mapping[str, str]) -> dict[str, str]:
    """All contents but those of `evidence`: its rows contain offsets, which claims and births shift.
    `tests/streams/evidence` checks that its tree is still the same.
    """
    return {name: state_hash for name, state_hash in state_hashes.items() if name != "evidence"}


def not_folded(folder: Folder, log: LogBuilder) -> list[str]:
    """The topic of each record that is not folded yet, a topic as often as it has such records."""
    return [
        topic for topic, reader in folder.readers.items() for _ in log.records[topic][reader.next_offset :]
    ]


def fold_into(
    folder: Folder, log: LogBuilder, order: Sequence[str] | None = None, commit_every: int = 7
) -> None:
    """Feeds the records that the folder has not read yet. `order` has one topic per record, so any interleaving can be
    tried.
    """
    places = {topic: reader.next_offset for topic, reader in folder.readers.items()}
    if order is None:
        order = not_folded(folder, log)
    for i, topic in enumerate(order, start=1):
        folder.fold(topic, places[topic], log.records[topic][places[topic]])
        places[topic] += 1
        if i % commit_every == 0:
            folder.commit()
    folder.commit()


def busy_log() -> LogBuilder:
    """A log with every kind of event: five models, rounds over nine hours with every outcome, snapshots, checkpoints,
    dead letters.
    """
    log = LogBuilder()
    log.terms()
    for i in range(1, 6):
        log.model(f"m{i}", wallet_pubkey=PUBKEY if i < 3 else "")
    for minute in range(0, 540, 30):
        answers: dict[str, float | str] = {
            "m1": 0.5,
            "m2": -0.25 + minute / 1000,
            "m3": "ABSENT",
            "m4": "FAILED",
        }
        log.round(minute * MINUTE_MS, answers, charges={"m3": -UNIT}, extra={"brier": minute})
        log.state(minute * MINUTE_MS, {"m1": {"position": minute}}, minute)
        log.record(START_MS + minute * MINUTE_MS, price=str(100 + minute))
        log.tick(START_MS + (minute + 1) * MINUTE_MS)
    log.round(541 * MINUTE_MS, {"m1": "UNSCORABLE", "m2": 0.5})
    log.round(542 * MINUTE_MS, {"m1": 0.1, "m2": 0.2}, scored=False)
    log.inputs_until(9 * HOUR_MS + 5 * MINUTE_MS)
    log.scored_until(6 * HOUR_MS)
    log.scored_until(9 * HOUR_MS)
    for model_id in ("m1", "m2"):
        for hour in range(2):
            log.snapshot(
                model_id, START_MS + hour * HOUR_MS, START_MS + (hour + 1) * HOUR_MS, mean=0.25 * (hour + 1)
            )
    log.checkpoint(0, {"m1": 625_000_000, "m2": 375_000_000})
    log.checkpoint(6 * HOUR_MS, {"m2": 1_000_000_000}, withheld="scores do not add up")
    log.letter("feed/1")
    log.letter("feed/2")
    log.letter("feed/1")  # delivered twice
    log.garbage("scores")
    log.model_left("m5")
    return log
