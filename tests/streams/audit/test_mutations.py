"""An honest log passes the audit. One in which anything was left out, inserted, repeated, exchanged or altered does
not.

Each mutation is made in one topic by somebody who can write it: decisions are renumbered, so that every append counts.
It is tried twice: with the later topics left as they were, and with the later stages honestly run again on it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
import pytest
from tests.checked import chain_of, fault_of, topics_of
from tests.memory_log import MemoryLog, undisturbed
from tests.streams.test_crash_chain import CONTRACTS, STAGES, market

from coordinator.streams.audit.checkpoint import check_chain
from coordinator.streams.audit.facts import TOPICS_READ, Chain, ChainBrokenError
from coordinator.streams.audit.redo import Redo
from coordinator.streams.events import (
    AnyEvent,
    CheckpointData,
    FeedRecordReceived,
    InputReceived,
    InputResolved,
    RosterEntry,
    RoundOpened,
    RoundScored,
    ScopeAnswered,
    ScoreEntry,
    answers_in_columns,
)
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.envelope import (
    Append,
    Need,
    decode_event,
    encode_append,
    encode_decision,
    encode_event,
)

Parts = list[tuple[list[AnyEvent], dict[str, Any], dict[str, Need]]]
"""A topic as (events, upto, need) per decision."""


@lru_cache
def last_checkpoint() -> CheckpointData:
    honest = Chain({"checkpoints": market(1).decisions("checkpoints")})
    return max(honest.checkpoints.values(), key=lambda checkpoint: checkpoint.period_end)


def verdict(log: MemoryLog, crunch_id: str = "btc-up", copy_of: str = "") -> ChainBrokenError | None:
    """The error found against the last checkpoint of the honest log; None if it passes."""
    wanted = last_checkpoint()
    chain = chain_of(log, wanted)
    chain.copy_of = copy_of
    checkpoint = chain.checkpoints.get(wanted.checkpoint_id)
    if checkpoint is None:
        return ChainBrokenError("checkpoint", f"the topics have no checkpoint {wanted.checkpoint_id}")
    return fault_of(log, chain, checkpoint, CONTRACTS, crunch_id)


def parts_of(log: MemoryLog, topic: str) -> Parts:
    return [
        (list(decision.events), dict(decision.upto), dict(decision.need)) for decision in log.decisions(topic)
    ]


def written(log: MemoryLog, topic: str, parts: Parts, *, redone: bool) -> MemoryLog:
    """The log with this topic. `redone`: the later topics are honestly computed again from it."""
    out = log.copy()
    out.topics[topic] = [encode_append(Append(e=1, epoch=1, seq=0, claim="forger"))]
    for number, (events, upto, need) in enumerate(parts, start=1):
        for record in encode_decision(events, epoch=1, seq=number, upto=upto, need=need):
            out.append(topic, record)
    if redone:
        for later in list(STAGES)[_place(topic) :]:
            out.topics[later] = []
            out = undisturbed(out, STAGES[later])
    return out


def _place(topic: str) -> int:
    """The stages after a topic, in order."""
    return {"feeds": 0, "models": 1, "predictions": 1}.get(
        topic, list(STAGES).index(topic) + 1 if topic in STAGES else 0
    )


def in_period(parts: Parts, topic: str, rng: random.Random, kind: str = "") -> tuple[int, int]:
    """(decision, event) at a random place in the last checkpoint's period; of `models` anywhere."""
    last = last_checkpoint()
    near = last.period_start + 120_000, last.period_end - 120_000
    if topic == "checkpoints":
        places = [
            (i, j)
            for i, (events, *_) in enumerate(parts)
            for j, event in enumerate(events)
            if last.checkpoint_id in event.id
        ]
    else:
        places = [
            (i, j)
            for i, (events, *_) in enumerate(parts)
            for j, event in enumerate(events)
            if topic == "models" or (near[0] <= time_of(event) < near[1] and worth(event))
        ]
    return rng.choice([(i, j) for i, j in places if kind in type(parts[i][0][j]).__name__])


def time_of(event: AnyEvent) -> int:
    """A snapshot belongs to its period, whenever it was taken."""
    return int(getattr(event.data, "period_start", getattr(event.data, "from_ms", event.at)))


def worth(event: AnyEvent) -> bool:
    """Whether it bears a figure or a fact. Events that only move time or gaps make nothing by themselves."""
    return type(event).__name__ not in {
        "ClockTicked",
        "FeedGapFound",
        "FeedGapClosed",
        "InputOpenedOverGap",
        "CrunchConfigured",
    }


def left_out(parts: Parts, i: int, j: int, rng: random.Random) -> None:
    del parts[i][0][j]


def decision_left_out(parts: Parts, i: int, j: int, rng: random.Random) -> None:
    del parts[i]


def doubled(parts: Parts, i: int, j: int, rng: random.Random) -> None:
    parts[i][0].insert(j, parts[i][0][j])


def slipped_in(parts: Parts, i: int, j: int, rng: random.Random) -> None:
    parts[i][0].insert(j, msgspec.structs.replace(parts[i][0][j], id=parts[i][0][j].id + "x"))


def exchanged(parts: Parts, i: int, j: int, rng: random.Random) -> None:
    """Two decisions of the period exchange their events."""
    other = i + 1 if i + 1 < len(parts) else i - 1
    parts[i][0][:], parts[other][0][:] = list(parts[other][0]), list(parts[i][0])


def altered(parts: Parts, i: int, j: int, rng: random.Random) -> None:
    """A number, truth value or text of the event is changed."""
    event = parts[i][0][j]
    plain = msgspec.json.decode(encode_event(event))
    leaves: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        pairs = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, child in pairs:
            if isinstance(child, (dict, list)):
                walk(child)
            elif key not in ("kind", "v"):
                leaves.append((value, key))

    walk(plain["data"])
    holder, key = rng.choice(leaves)
    was = holder[key]
    if isinstance(was, bool):
        holder[key] = not was
    elif isinstance(was, (int, float)):
        holder[key] = was + 2  # one unit of a score may be rounding
    elif was is None:
        holder[key] = "other" if key in ("reason", "summary_error") else None
    else:
        holder[key] = str(was)[:-1] + ("1" if not str(was).endswith("1") else "2")
    try:
        parts[i][0][j] = decode_event(msgspec.json.encode(plain))
    except msgspec.ValidationError:
        return  # a value that no reader accepts: every reader stops there


MUTATIONS = {
    mutation.__name__: mutation
    for mutation in (left_out, decision_left_out, doubled, slipped_in, exchanged, altered)
}
TOUCHED = {
    "feeds": {"feed", "input"},
    "inputs": {"feed", "input"},
    "models": {"predictions"},
    "predictions": {"predictions", "scores"},
    "scores": {"scores"},
    "snapshots": {"snapshots", "checkpoint"},  # without PeriodClosed there is none
    "checkpoints": {"checkpoint", "emission"},
}


def test_a_copy_under_another_crunch_id_passes_and_an_altered_log_does_not():
    assert verdict(market(1), "btc-up-mirror", copy_of="btc-up") is None
    error = verdict(market(1), "btc-up-mirror")
    assert error is not None
    assert error.step == "checkpoint"


def test_an_honest_log_passes_whatever_its_market():
    assert verdict(market(1)) is None


@pytest.mark.parametrize("redone", [False, True], ids=["as it was", "redone"])
@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("topic", ["inputs", "scores", "snapshots", "checkpoints"])
def test_a_decision_that_its_stage_would_not_take_is_found_at_its_place(
    topic: str, mutation: str, redone: bool
):
    for seed in range(2):
        rng = random.Random(f"{topic}{mutation}{seed}")
        parts = parts_of(market(1), topic)
        i, j = in_period(parts, topic, rng)
        MUTATIONS[mutation](parts, i, j, rng)
        if parts == parts_of(market(1), topic):
            continue  # nothing was altered: the field had no other value
        try:
            log = written(market(1), topic, parts, redone=redone)
        except KeyError:
            continue  # no stage continues from that
        error = verdict(log)
        assert error is not None, (seed, i, j)
        assert error.step in TOUCHED[topic], (seed, str(error))


def twice_says_no_more(event: AnyEvent) -> bool:
    """A model that is seen twice is one model, and a round that is answered is not answered again."""
    return type(event).__name__ in {"ModelSeen", "RoundAnswered"}


@pytest.mark.parametrize("mutation", ["left_out", "decision_left_out", "doubled", "slipped_in"])
@pytest.mark.parametrize("topic", ["feeds", "predictions", "models"])
def test_outside_events_exist_once_and_completely(topic: str, mutation: str):
    for seed in range(2):
        rng = random.Random(f"{topic}{mutation}{seed}")
        parts = parts_of(market(1), topic)
        i, j = in_period(parts, topic, rng)
        if mutation in ("doubled", "slipped_in") and twice_says_no_more(parts[i][0][j]):
            continue
        MUTATIONS[mutation](parts, i, j, rng)
        assert verdict(written(market(1), topic, parts, redone=False)) is not None, (seed, i, j)


@pytest.mark.parametrize(
    ("topic", "kind", "change"),
    [
        ("feeds", "FeedRecordReceived", lambda data: {"values": data.values | {"close": "1.00"}}),
        (
            "predictions",
            "ScopeAnswered",
            lambda data: {"outputs": [msgspec.Raw(b'{"value":0.123}'), *data.outputs[1:]]},
        ),
        ("predictions", "ScopeAnswered", lambda data: {"models": [*data.models[:-1], 99]}),
        ("predictions", "ScopeAnswered", lambda data: {"models": [index + 1 for index in data.models]}),
        (
            "predictions",
            "ScopeAnswered",
            lambda data: {
                "unanswered": [
                    msgspec.structs.replace(entry, fault="node" if entry.fault == "model" else "model")
                    for entry in data.unanswered
                ]
            },
        ),
        ("models", "ModelSeen", lambda data: {"model_id": "nobody"}),
        ("models", "ModelSeen", lambda data: {"cruncher_id": "somebody"}),
    ],
)
def test_outside_events_are_unchanged_since_they_were_used(
    topic: str, kind: str, change: Callable[[Any], Any]
):
    rng = random.Random(topic + kind)
    parts = parts_of(market(1), topic)
    i, j = in_period(parts, topic, rng, kind)
    event = parts[i][0][j]
    while isinstance(event, ScopeAnswered) and (  # an event with an answer, and one without
        not event.data.unanswered or event.data.unanswered[0].place == 0
    ):
        i, j = in_period(parts, topic, rng, kind)
        event = parts[i][0][j]
    parts[i][0][j] = msgspec.structs.replace(
        event, data=msgspec.structs.replace(event.data, **change(event.data))
    )
    error = verdict(written(market(1), topic, parts, redone=False))
    assert error is not None
    assert error.step in TOUCHED[topic]


def test_a_fault_moved_with_its_charge_is_found_by_the_second_check_too():
    parts = parts_of(market(1), "scores")
    start, end = last_checkpoint().period_start, last_checkpoint().period_end
    events, j = next(
        (events, j)
        for events, *_ in parts
        for j, event in enumerate(events)
        if isinstance(event, RoundScored) and start <= event.data.resolvable_at < end and not_scored(event)
    )
    entry = not_scored(events[j])[0]
    to = "node" if entry.fault == "model" else "model"
    i = events[j].data.models.index(entry.model_id)
    unscored = [
        msgspec.structs.replace(entry, fault=to, charge_units=None) if entry.model == i else entry
        for entry in events[j].data.unscored
    ]
    events[j] = msgspec.structs.replace(
        events[j], data=msgspec.structs.replace(events[j].data, unscored=unscored)
    )
    log = written(market(1), "scores", parts, redone=False)
    chain = Chain({topic: log.decisions(topic) for topic in TOPICS_READ})
    says = f"model {entry.model_id}: no score by the fault of {to}, but it is that of {entry.fault}"
    with pytest.raises(ChainBrokenError, match=says) as broken:
        list(check_chain(chain, last_checkpoint(), CONTRACTS))
    assert broken.value.step == "scores"


def not_scored(event: RoundScored) -> list[ScoreEntry]:
    """Models that had answered and whose answer got no score."""
    return [entry for entry in event.data.entries() if entry.status == "FAILED" and entry.reason]


def test_removed_truths_are_found_although_later_stages_were_honestly_run_again():
    parts = parts_of(market(1), "inputs")
    for events, *_ in parts:
        for j, event in enumerate(events):
            if isinstance(event, InputResolved) and (event.data.truth or {}).get("return", 0) > 0:
                data = msgspec.structs.replace(
                    event.data, truth=None, reason="gap: no record within the window"
                )
                events[j] = msgspec.structs.replace(event, data=data)
    error = verdict(written(market(1), "inputs", parts, redone=True))
    assert error is not None
    assert error.step == "feed"
    assert "truth" in str(error)


def test_removed_inputs_are_found_although_all_stages_were_honestly_run_again():
    parts = parts_of(market(1), "inputs")
    gone = {
        event.data.input_id
        for events, *_ in parts
        for event in events
        if isinstance(event, InputReceived) and event.data.point % 180_000 == 0
    }
    for events, *_ in parts:
        events[:] = [event for event in events if getattr(event.data, "input_id", None) not in gone]
    error = verdict(written(market(1), "inputs", parts, redone=True))
    assert error is not None
    assert error.step == "input"
    assert "was left out" in str(error)


def test_a_removed_record_is_found_because_no_gap_was_recorded_although_all_stages_were_run_again():
    parts = parts_of(market(1), "feeds")
    rng = random.Random(1)
    while True:
        i, j = in_period(parts, "feeds", rng)
        if isinstance(parts[i][0][j], FeedRecordReceived) and not parts[i][0][j].data.revision:
            break
    del parts[i][0][j]
    error = verdict(written(market(1), "feeds", parts, redone=True))
    assert error is not None
    assert (error.step, "no FeedGapFound" in str(error)) == ("feed", True)


@pytest.mark.parametrize("redone", [False, True], ids=["as it was", "redone"])
def test_a_model_removed_from_a_roster_with_its_answers_is_found(redone: bool):
    parts = parts_of(market(1), "predictions")
    rosters: dict[str, list[RosterEntry]] = {}
    for events, *_ in parts:
        for j, event in enumerate(events):
            if isinstance(event, RoundOpened):
                rosters[event.data.input_id] = event.data.roster
                roster = [entry for entry in event.data.roster if entry.model_id != "b"]
                events[j] = msgspec.structs.replace(
                    event, data=msgspec.structs.replace(event.data, roster=roster)
                )
            elif isinstance(event, ScopeAnswered):
                roster = rosters[event.data.input_id]
                left = [entry for entry in event.data.entries(roster) if entry.model_id != "b"]
                columns = answers_in_columns([entry for entry in roster if entry.model_id != "b"], left)
                events[j] = msgspec.structs.replace(
                    event, data=msgspec.structs.replace(event.data, **columns)
                )
    error = verdict(written(market(1), "predictions", parts, redone=redone))
    assert error is not None
    assert (error.step, "model b" in str(error)) == ("predictions", True)


@pytest.mark.parametrize("redone", [False, True], ids=["as it was", "redone"])
def test_a_roster_in_another_order_is_found_and_named(redone: bool):
    parts = parts_of(market(1), "predictions")
    rosters: dict[str, list[RosterEntry]] = {}
    for events, *_ in parts:
        for j, event in enumerate(events):
            if isinstance(event, RoundOpened):
                rosters[event.data.input_id] = event.data.roster
                turned = msgspec.structs.replace(event.data, roster=event.data.roster[::-1])
                events[j] = msgspec.structs.replace(event, data=turned)
            elif isinstance(event, ScopeAnswered):
                roster = rosters[event.data.input_id]
                columns = answers_in_columns(roster[::-1], event.data.entries(roster))
                events[j] = msgspec.structs.replace(
                    event, data=msgspec.structs.replace(event.data, **columns)
                )
    error = verdict(written(market(1), "predictions", parts, redone=redone))
    assert error is not None
    assert (error.step, "in another order" in str(error)) == ("predictions", True), str(error)


def test_an_answer_after_its_deadline_is_found_although_later_stages_were_run_again():
    parts = parts_of(market(1), "predictions")
    i, j = in_period(parts, "predictions", random.Random(1), "ScopeAnswered")
    event = parts[i][0][j]
    assert len(event.data.models) > len(event.data.unanswered)
    parts[i][0][j] = msgspec.structs.replace(event, at=event.at + 60_000)
    error = verdict(written(market(1), "predictions", parts, redone=True))
    assert error is not None
    assert (error.step, "the last was due at" in str(error)) == ("predictions", True), str(error)


def test_a_payload_with_changed_blanks_is_found_and_named():
    parts = parts_of(market(1), "inputs")
    for events, *_ in parts:
        for j, event in enumerate(events):
            if isinstance(event, InputReceived):
                payload = msgspec.Raw(bytes(event.data.payload).replace(b":", b": ", 1))
                events[j] = msgspec.structs.replace(
                    event, data=msgspec.structs.replace(event.data, payload=payload)
                )
    error = verdict(written(market(1), "inputs", parts, redone=False))
    assert error is not None
    assert (error.step, "its JSON is" in str(error)) == ("input", True), str(error)


@pytest.mark.parametrize(
    "changes", [{}, {"rehearsal": True}, {"snapshot_count": 99}, {"contract_hash": "new"}], ids=str
)
def test_a_checkpoint_that_was_built_twice_is_found(changes: dict[str, Any]):
    """The stage that decides again makes the first one; the second one is what a reader of the topic would pay."""
    parts = parts_of(market(1), "checkpoints")
    events, upto, need = parts[-1]
    again = msgspec.structs.replace(events[-1].data, **changes)
    assert again.checkpoint_id == last_checkpoint().checkpoint_id
    parts.append(([msgspec.structs.replace(events[-1], data=again)], upto, need))
    error = verdict(written(market(1), "checkpoints", parts, redone=False))
    assert error is not None
    assert (error.step, "CheckpointOpened is not legal in state PENDING" in str(error)) == (
        "checkpoint",
        True,
    )


def test_a_truth_that_is_only_equal_as_a_number_is_found():
    """`true`, 1 and 1.0 are equal here, and not to the contract's function that gets them."""
    parts = parts_of(market(1), "inputs")
    i, j = in_period(parts, "inputs", random.Random(1), "InputResolved")
    event = parts[i][0][j]
    truth = event.data.truth | {"direction_up": int(event.data.truth["direction_up"])}
    assert truth == event.data.truth
    parts[i][0][j] = msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, truth=truth))
    log = written(market(1), "inputs", parts, redone=False)
    stage = InputStage(CONTRACTS)
    with pytest.raises(ChainBrokenError, match=r"truth\.direction_up is"):
        asyncio.run(Redo(stage, topics_of(log), "input").until(None))


@pytest.mark.parametrize("topic", ["inputs", "scores", "snapshots"])
def test_a_decision_that_lies_about_what_its_state_needs_is_found(topic: str):
    """A new owner begins to read there: it would go on from another state than the one that decided."""
    parts = parts_of(market(1), topic)
    i, _ = in_period(parts, topic, random.Random(1))
    events, upto, need = parts[i]
    source, place = next(iter(need.items()))
    parts[i] = events, upto, need | {source: Need(place.offset + 1, place.epoch, place.seq)}
    error = verdict(written(market(1), topic, parts, redone=False))
    assert error is not None
    assert "says that its state needs" in str(error)


def test_a_gap_in_the_numbers_ends_the_topic_there():
    log = market(1).copy()
    log["scores"][len(log["scores"]) // 2] = b"garbage"
    error = verdict(log)
    assert error is not None
    assert error.step == "scores"
