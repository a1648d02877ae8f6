"""The open truths: the same as a plain list of them would contain, though only the heads of queues are looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.streams.build import configured

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import Feed
from coordinator.streams.inputs.open_horizons import OpenHorizon, OpenHorizons

OTHER_FEED = Feed(source="other", kind="candle", granularity="1m")
CHANGED_AT = 40_000


def truth(subject: str, point: int, seconds: int) -> OpenHorizon:
    return OpenHorizon(point + seconds * 1000, point, subject, seconds, "hash", f"{subject}/{point}")


truths = st.builds(
    truth, st.sampled_from(["A", "B"]), st.integers(0, 9).map(lambda n: n * 10_000), st.sampled_from([10, 60])
)


def with_a_change() -> TermsInForce:
    in_force = TermsInForce()
    in_force.add(configured())
    in_force.add(configured(feed=OTHER_FEED, effective_from=CHANGED_AT))
    return in_force


@given(st.lists(truths, unique=True), st.lists(truths, unique=True), st.integers(0, 150_000), st.booleans())
def test_open_horizons_are_those_of_a_plain_list(opened, resolved, now, changes):
    in_force, waited, before = with_a_change(), OpenHorizons(), OpenHorizons()
    for horizon in opened:
        waited.add(horizon)
    at_once = before.after(opened, resolved)
    assert before == OpenHorizons()
    for horizon in resolved:
        waited.remove(horizon.input_id, horizon.horizon_seconds, horizon.resolvable_at)
    assert at_once == waited
    left = sorted(set(opened) - set(resolved))
    changed_at = CHANGED_AT if changes else -1
    assert waited.due(now, changed_at) == [
        horizon for horizon in left if horizon.resolvable_at <= now or horizon.point < changed_at
    ]
    assert waited.earliest() == min((horizon.resolvable_at for horizon in left), default=None)
    entries: dict[tuple[Feed, str], int] = {}
    for horizon in left:
        key = (in_force.at(horizon.point).feed, horizon.subject)
        entries[key] = min(horizon.point, entries.get(key, horizon.point))
    assert waited.entries(in_force) == entries
    for subject in "AB":
        for point in range(0, 100_000, 10_000):
            assert waited.waits(subject, point) == any(
                (horizon.subject, horizon.point) == (subject, point) for horizon in left
            )
