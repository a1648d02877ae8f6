"""What a plan keeps of the inputs that a log asked."""

from __future__ import annotations

import tracemalloc

from tests.streams.engine.test_plan import ROUNDS, played

from coordinator.streams.engine.asked_inputs import AskedInputs
from coordinator.streams.events import InputReceived

BYTES_MAX = 1_000


def test_a_plan_keeps_only_as_much_of_an_input_as_identifies_it():
    """A plan of few models covers many inputs, each with more than a hundred records."""
    log = played()
    inputs = [event for event in log.events("inputs") if isinstance(event, InputReceived)]
    assert sum(len(event.data.payload) for event in inputs) > 4 * BYTES_MAX * len(inputs)
    del inputs
    log.shared("inputs").clear()
    tracemalloc.start()
    asked = AskedInputs(log, 0, 1 << 60)
    log.shared("inputs").clear()
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(asked) >= ROUNDS - 10
    assert held_bytes < BYTES_MAX * len(asked)
