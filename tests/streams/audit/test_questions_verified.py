"""A log of posted questions is computed again like any other: an altered score, truth or answer is found and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.memory_log import MemoryLog
from tests.scaffold.test_altered_packs import Log, altered, better_score, fault_of
from tests.streams.engine.test_questions_played import CONTRACT, drawn, run

from coordinator.streams.events import (
    CheckpointWithheld,
    InputResolved,
    RoundRescored,
    RoundScored,
    ScopeAnswered,
)


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
