"""A log of posted questions is computed again like any other: an altered score, truth or answer is found and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.memory_log import MemoryLog
from tests.scaffold.test_altered_packs import Log, altered, better_score, fault_of
from tests.streams.engine.test_questions_played import CONTRACT, DAY, drawn, run

from coordinator.streams.events import (
    AnswersClosed,
    CheckpointWithheld,
    InputResolved,
    RoundOpened,
    RoundRescored,
    RoundScored,
    ScopeAnswered,
)
from coordinator.streams.log.envelope import decode_append, encode_decision
from coordinator.streams.log.ids import question_of


@pytest.fixture(scope="module", params=["corrected", "as they came"])
def played(request) -> Log:
    events = drawn(40, seed=7)
    if request.param == "as they came":
        events = [drawn._replace(corrected=None) for drawn in events]
    elif not any(drawn.corrected for drawn in events):
        first = next(drawn for drawn in events if not drawn.is_void)
        at = first.comes_at + 3 * 86_400_000
        events = [
            drawn._replace(corrected=(at, 1 - drawn.outcome)) if drawn is first else drawn for drawn in events
        ]
    topics = MemoryLog(run(events).log.topics)
    of = [
        event.data.checkpoint if isinstance(event, CheckpointWithheld) else event.data
        for event in topics.events("checkpoints")
        if hasattr(event.data, "checkpoint") or hasattr(event.data, "ranking")
    ]
    return Log(topics, CONTRACT, of[0])


def test_the_log_of_the_stages_passes(played):
    assert fault_of(played, played.topics) is None


def other_truth(data: Any) -> Any:
    if data.truth is None or data.revision:
        return None
    return msgspec.structs.replace(data, truth={"outcome": 1 - data.truth["outcome"]})


def other_answer(data: Any) -> Any:
    if data.unanswered or not data.outputs:
        return None
    outputs = [*data.outputs]
    outputs[0] = msgspec.Raw(b'{"value":0.123}')
    return msgspec.structs.replace(data, outputs=outputs)


ALTERED: dict[str, tuple[str, type, Callable[[Any], Any], str, str]] = {
    "a score": ("scores", RoundScored, better_score, "scores", "units.value["),
    "a corrected score": ("scores", RoundRescored, better_score, "scores", "units.value["),
    "a truth": ("inputs", InputResolved, other_truth, "feed", "truth"),
    "an answer": ("predictions", ScopeAnswered, other_answer, "scores", "inp/questions/r/q"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_alteration_is_found_and_named(played, what):
    topic, kind, change, step, says = ALTERED[what]
    has_correction = any(isinstance(event, RoundRescored) for event in played.topics.events("scores"))
    if kind is RoundRescored and not has_correction:
        return
    fault = fault_of(played, altered(played, topic, kind, change))
    assert fault is not None
    assert (fault.step, says in str(fault)) == (step, True), fault


def without_the_first_asked(event: RoundOpened) -> RoundOpened | None:
    data = msgspec.structs.replace(event.data, roster=event.data.roster[1:])
    return msgspec.structs.replace(event, data=data) if len(event.data.roster) > 1 else None


def asked_a_stranger(event: RoundOpened) -> RoundOpened:
    stranger = msgspec.structs.replace(event.data.roster[0], model_id="a-stranger")
    data = msgspec.structs.replace(event.data, roster=[stranger, *event.data.roster[1:]])
    return msgspec.structs.replace(event, data=data)


def answered_late(event: ScopeAnswered) -> ScopeAnswered | None:
    is_any_valid = len(event.data.models) > len(event.data.unanswered)
    return msgspec.structs.replace(event, at=event.at + 400 * DAY) if is_any_valid else None


def answered_less(event: ScopeAnswered) -> ScopeAnswered:
    none = {name: [] for name in ("models", "outputs", "exec_times_us", "unanswered", "deployments", "blobs")}
    return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, **none))


def closed_without_a_round(event: AnswersClosed) -> AnswersClosed | None:
    data = msgspec.structs.replace(event.data, rounds=event.data.rounds[:-1])
    return msgspec.structs.replace(event, data=data) if len(event.data.rounds) > 1 else None


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        (RoundOpened, without_the_first_asked, "was there, and was not asked"),
        (
            RoundOpened,
            asked_a_stranger,
            "model a-stranger was asked, though it was not there or had answered",
        ),
        (ScopeAnswered, answered_late, "the last was due at"),
        (ScopeAnswered, answered_less, "not one answer of each model in each scope"),
        (AnswersClosed, closed_without_a_round, "it closed with the rounds"),
    ],
)
def test_a_round_that_no_honest_node_records_is_found(played, kind, change, says):
    """Whom a question asked, and which answers count, is of the outside: no stage decides it again. What a node may
    record of it follows from `inputs` and `models` all the same.
    """
    start, end = played.checkpoint.period_start, played.checkpoint.period_end
    in_period = {
        event.data.input_id
        for event in played.topics.events("scores")
        if isinstance(event, RoundScored) and start <= event.data.resolvable_at < end
    }
    decision, place, event = next(
        (decision, place, forged)
        for decision in played.topics.decisions("predictions")
        for place, event in enumerate(decision.events)
        if isinstance(event, kind)
        and question_of(event.data.input_id) in in_period
        and (forged := change(event)) is not None
    )
    events = [*decision.events[:place], event, *decision.events[place + 1 :]]
    log = played.topics.copy()
    epoch = decode_append(log["predictions"][decision.offset]).epoch
    (log["predictions"][decision.offset],) = encode_decision(
        events, epoch=epoch, seq=decision.seq, upto=dict(decision.upto), need=dict(decision.need)
    )
    fault = fault_of(played, log)
    assert fault is not None
    assert (fault.step, says in str(fault)) == ("predictions", True), fault
