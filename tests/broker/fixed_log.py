"""A log that never changes: feeds, inputs, predictions and commands, and what the stages must make of them.

Made by the pure stages alone, without a broker: the inputs of a generated market, scripted answers of seven models
(one fails, one is absent, one cannot be scored, one talks nonsense, one comes late), a gap in the feed, a change of
owner with a zombie's late append, and garbage. `expected` is the undisturbed run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from tests.broker.crash_contract import CONTRACT, UNSCORABLE

from coordinator.infra.contracts.loading import ContractShelf
from coordinator.streams import events as ev
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log import ids
from coordinator.streams.log.birth import Birth, birth_records
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import Append, encode_append, encode_decision, encode_event
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage
from coordinator.streams.ports import ModelReply, Outcome, Subscription
from coordinator.streams.predictions.replies import judge
from coordinator.streams.predictions.stage import Answered, PredictionStage, RoundAsked
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage
from coordinator.streams.sources.generated import generated_candles

MINUTE_MS = 60_000
START_MS = 1_678_406_400_000  # 2023-03-10T00:00Z
ROUNDS = 600
ROUNDS_A_CHUNK = 30
SNAPSHOT_SECONDS = 600
CHECKPOINT_SECONDS = 1800
GAP_MINUTES = range(101, 105)
OWNER_CHANGES_AT = 250
MODELS = ("m-absent", "m-bad", "m-fails", "m-good", "m-late", "m-node", "m-unscorable")
WITHHELD_AT = START_MS + 3 * CHECKPOINT_SECONDS * 1000 + 1
TX_HASH = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"


class TopicLog:
    """One topic as a list of records, written by one owner after the other."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.records: list[bytes] = [birth_records("any", Birth("b" * 32, START_MS))[topic]]
        self.epoch = 0
        self.seq = 0
        self.claim()

    def claim(self) -> None:
        self.epoch += 1
        self.records.append(encode_append(Append(e=1, epoch=self.epoch, seq=0, claim=f"owner-{self.epoch}")))

    def append(self, draft: Draft, upto: Mapping[str, tuple[int, int]], need: Mapping) -> None:
        self.seq += 1
        self.records += encode_decision(
            list(draft.events), epoch=self.epoch, seq=self.seq, upto=dict(upto), need=dict(need)
        )

    def zombie(self) -> None:
        """The next number under the epoch before this one."""
        self.records += encode_decision([], epoch=self.epoch - 1, seq=self.seq + 1, upto={}, need={})


@dataclass
class FixedLog:
    """`records[topic]`, cut in chunks of ROUNDS_A_CHUNK rounds; `expected[topic]`: the events of each decision."""

    records: dict[str, list[bytes]]
    cuts: list[dict[str, int]]
    expected: dict[str, list[list[bytes]]] = field(default_factory=dict)
    undisturbed: dict[str, list[bytes]] = field(default_factory=dict)
    """The records of every topic that a read model folds, as the undisturbed run left them."""

    def begins(self, number: int) -> dict[str, int]:
        """Topic -> the offset of a chunk's first record."""
        return self.cuts[number - 1] if number else dict.fromkeys(self.cuts[0], 1)  # a topic has its birth

    def chunk(self, number: int) -> dict[str, list[bytes]]:
        before = self.begins(number)
        return {topic: self.records[topic][before[topic] : end] for topic, end in self.cuts[number].items()}


@cache
def fixed_shelf() -> ContractShelf:
    shelf = ContractShelf()
    shelf.put(CONTRACT)
    return shelf


def settings(crunch_id: str) -> Settings:
    return Settings(
        crunch_id=crunch_id,
        feed_source="generated",
        snapshot_interval_seconds=SNAPSHOT_SECONDS,
        checkpoint_interval_seconds=CHECKPOINT_SECONDS,
        settle_rehearsals=True,
        contract="crash_contract:CONTRACT",
    )


def terms() -> ev.Terms:
    return make_terms(CONTRACT, fixed_shelf().current_hash, settings("any"), 0)


def pour(stage: Stage, own: TopicLog, sources: Mapping[str, Sequence[bytes]]) -> None:
    """Drives a stage over whole sources, one record of each in turn, and writes its decisions."""
    counters = {topic: counter_for(topic) for topic in stage.sources}
    for offset in range(max(len(records) for records in sources.values())):
        for topic, counter in counters.items():
            if offset < len(sources[topic]):
                decision = counter.read(offset, sources[topic][offset])
                if decision is not None:
                    stage.absorb(decision)
                    while (draft := stage.step()) is not None:
                        own.append(draft, stage.upto, stage.need)


def scripted(model_id: str, input_id: str, scope_key: str) -> ModelReply:
    """A model's answer: the same for the same question."""
    draw = hashlib.sha256(f"{model_id}|{input_id}|{scope_key}".encode()).digest()
    value = (draw[0] - 128) / 128
    deployment = f"{model_id}-d1"
    match model_id:
        case "m-absent" if draw[1] < 64:
            return ModelReply(model_id, deployment, Outcome.DEADLINE, "model", detail="too slow")
        case "m-node" if draw[1] < 32:
            return ModelReply(model_id, deployment, Outcome.ABSENT, "node", detail="not connected")
        case "m-fails" if draw[1] < 128:
            return ModelReply(model_id, deployment, Outcome.MODEL_FAILED, "model", detail="it raised")
        case "m-bad" if draw[1] < 200:
            return ModelReply(model_id, deployment, Outcome.OK, output={"value": "up"})
        case "m-unscorable" if draw[1] < 16:
            value = UNSCORABLE
    return ModelReply(model_id, deployment, Outcome.OK, output={"value": value}, exec_time_us=100)


def make_feeds(rounds: int) -> TopicLog:
    feeds, stage = TopicLog("feeds"), FeedStage()

    def put(draft: Draft | None) -> None:
        assert draft is not None
        stage.remember(draft)
        feeds.append(draft, {}, {})

    put(stage.configure(terms(), START_MS))
    candles = Subscription("generated", "BTCUSDT", "candle", "1m")
    for number, record in enumerate(
        generated_candles(candles, START_MS + MINUTE_MS, START_MS + (rounds + 6) * MINUTE_MS, seed=7)
    ):
        put(stage.replayed(record.at, [candles], [] if number in GAP_MINUTES else [record]))
    return feeds


def make_predictions(inputs: TopicLog) -> tuple[TopicLog, list[dict[str, int]]]:
    """The rounds, and after each ROUNDS_A_CHUNK of them the ends of inputs and predictions."""
    predictions, stage, counter = TopicLog("predictions"), PredictionStage(), Counter("inputs")
    cuts: list[dict[str, int]] = []
    rounds = 0
    for offset, record in enumerate(inputs.records):
        decision = counter.read(offset, record)
        for index, event in enumerate(decision.events if decision is not None else []):
            if not isinstance(event, ev.InputReceived):
                continue
            rounds += 1
            if rounds == OWNER_CHANGES_AT:
                predictions.claim()
                predictions.zombie()
                predictions.records.append(b"\xff garbage")
            models = [model_id for model_id in MODELS if model_id != "m-late" or rounds > ROUNDS // 3]
            roster = [
                ev.RosterEntry(model_id=model_id, deployment_id=f"{model_id}-d1") for model_id in models
            ]
            clock = event.data.point
            draft = stage.hear(RoundAsked(event.data, roster, clock, 1))
            stage.remember(draft)
            predictions.append(draft, stage.upto, stage.need)
            stage.fold(stage.state, PlacedEvent("inputs", event, (offset, index), decision.before))
            answers = {
                scope.scope_key: judge(
                    stage.state.open_rounds[event.data.input_id].opened,
                    {
                        model_id: scripted(model_id, event.data.input_id, scope.scope_key)
                        for model_id in models
                    },
                    CONTRACT.output_type,
                    CONTRACT.output_max_bytes,
                )
                for scope in event.data.scopes
            }
            done = stage.hear(Answered(event.data.input_id, answers, clock))
            stage.remember(done)
            predictions.append(done, stage.upto, stage.need)
            if rounds % ROUNDS_A_CHUNK == 0:
                cuts.append({"inputs": offset + 1, "predictions": len(predictions.records)})
    cuts[-1] = {"inputs": len(inputs.records), "predictions": len(predictions.records)}
    return predictions, cuts


def make_commands(crunch_id: str) -> dict[str, list[bytes]]:
    """Three waves: before everything, after the first checkpoint, after the last one."""
    period = CHECKPOINT_SECONDS * 1000
    first, second, held = (
        ids.checkpoint_id(crunch_id, start, start + period)
        for start in (START_MS, START_MS + period, START_MS + 3 * period)
    )
    at = START_MS

    def confirm(name: str, checkpoint: str, tx_hash: str = TX_HASH) -> ev.ConfirmCheckpoint:
        return ev.ConfirmCheckpoint(
            id=name, at=at, data=ev.ConfirmCheckpointData(checkpoint_id=checkpoint, tx_hash=tx_hash)
        )

    def advance(name: str, checkpoint: str, status: str, tx_hash: str = TX_HASH) -> ev.AdvanceCheckpoint:
        return ev.AdvanceCheckpoint(
            id=name,
            at=at,
            data=ev.AdvanceCheckpointData(checkpoint_id=checkpoint, status=status, tx_hash=tx_hash),
        )

    waves: dict[str, list[ev.AnyEvent]] = {
        "before": [
            ev.WithholdCheckpoint(
                id="w1", at=at, data=ev.WithholdCheckpointData(reason="a doubt", period_at=WITHHELD_AT)
            ),
            confirm("c0", "ckp_unknown"),
        ],
        "first": [
            confirm("c1", first),
            confirm("c2", first),
            advance("a1", first, "CLAIMABLE"),
            advance("a2", first, "PAID"),
            advance("a3", first, "PAID"),
        ],
        "last": [
            advance("a4", second, "PAID"),
            confirm("c3", second),
            ev.ReleaseCheckpoint(id="r1", at=at, data=ev.ReleaseCheckpointData(checkpoint_id=held)),
            ev.ReleaseCheckpoint(id="r2", at=at, data=ev.ReleaseCheckpointData(checkpoint_id=held)),
        ],
    }
    return {wave: [encode_event(event) for event in events] for wave, events in waves.items()}


def decided(records: Sequence[bytes], topic: str) -> list[list[bytes]]:
    """The events of every counted decision that has any, as bytes."""
    counter = Counter(topic)
    decisions = [counter.read(offset, record) for offset, record in enumerate(records)]
    return [
        [encode_event(event) for event in decision.events]
        for decision in decisions
        if decision is not None and decision.events
    ]


@cache
def fixed_log(crunch_id: str, rounds: int = ROUNDS) -> FixedLog:
    """The log of a crunch and its undisturbed run. Only checkpoint ids depend on the crunch."""
    shelf = fixed_shelf()
    feeds, inputs = make_feeds(rounds), TopicLog("inputs")
    pour(InputStage(shelf), inputs, {"feeds": feeds.records})
    predictions, cuts = make_predictions(inputs)
    scores, snapshots, checkpoints = TopicLog("scores"), TopicLog("snapshots"), TopicLog("checkpoints")
    sources = {"inputs": inputs.records, "predictions": predictions.records}
    pour(ScoreStage(shelf), scores, sources)
    pour(SnapshotStage(shelf), snapshots, {"scores": scores.records})
    waves = make_commands(crunch_id)
    stage = CheckpointStage(crunch_id, shelf, settle_rehearsals=True)
    # The withholding is known before the first snapshot, the other commands come when all is built.
    commands = TopicLog("commands")
    commands.records[1:] = waves["before"] + [b"garbage"] * len(snapshots.records)
    commands.records += waves["first"] + waves["last"]
    pour(stage, checkpoints, {"snapshots": snapshots.records, "commands": commands.records})
    return FixedLog(
        records={"feeds": feeds.records, **sources, "commands": commands.records},
        cuts=cuts,
        expected={
            written.topic: decided(written.records, written.topic)
            for written in (scores, snapshots, checkpoints)
        },
        undisturbed={
            written.topic: written.records
            for written in (feeds, inputs, predictions, scores, snapshots, checkpoints)
        },
    )
