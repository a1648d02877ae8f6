"""A change of FEED_SOURCE, FEED_KIND, FEED_GRANULARITY or FEED_SUBJECTS is a recorded cut, and no minute is skipped."""

from __future__ import annotations

from typing import Any

from tests.given import Given, given
from tests.streams.build import MINUTE, SUBJECT, T0, configured, record, scope, shelf, tick

from coordinator.streams.events import Feed, InputReceived, InputResolved, InputsUntil
from coordinator.streams.inputs.stage import InputStage

OTHER = Feed(source="other", kind="candle", granularity="1m")
MINUTES = Feed(source="generated", kind="candle", granularity="1m")
ETH = "ETHUSDT"
CUT = T0 + 10 * MINUTE + 1_001


def scene(**changes: Any) -> Given:
    return given(InputStage(shelf())).when("feeds", configured(**changes))


def minute(
    scene: Given, number: int, *subjects: str, source: str = "generated", price: float = 100.0
) -> list[Any]:
    """All events from a minute's candles and the tick after them."""
    at = T0 + number * MINUTE
    records = [record(at, price + number, subject, source=source) for subject in subjects or (SUBJECT,)]
    return scene.when("feeds", *records, tick(at + 1_000)).made


def opened(events: list[Any]) -> list[tuple[str, int]]:
    return [
        (event.data.subject, (event.data.point - T0) // MINUTE)
        for event in events
        if isinstance(event, InputReceived)
    ]


def reasons(events: list[Any]) -> list[str | None]:
    return [event.data.reason for event in events if isinstance(event, InputResolved)]


def no_skip(events: list[Any]) -> None:
    assert not [skip for event in events if isinstance(event, InputsUntil) for skip in event.data.skipped]


def changed(scene: Given, **changes: Any) -> Given:
    return scene.when("feeds", configured(effective_from=CUT, goes_on=True, **changes))


def test_the_new_feed_asks_from_the_next_point_on_and_windows_over_the_cut_have_no_truth():
    inputs = scene()
    for number in range(11):
        minute(inputs, number)
    changed(inputs, feed=OTHER)
    events = minute(inputs, 11, source="other", price=500.0)
    assert opened(events) == [(SUBJECT, 11)]
    assert reasons(events) == [f"the feed was changed: at {CUT} from generated candle 1m to other candle 1m"]
    no_skip(events)
    for number in range(12, 190):  # up to the checkpoint boundary, before which nothing used to open
        events = minute(inputs, number, source="other", price=500.0)
        assert opened(events) == [(SUBJECT, number)]
        assert reasons(events) == [None]
        no_skip(events)


def test_no_truth_and_no_input_mixes_two_feeds():
    inputs = scene()
    for number in range(11):
        minute(inputs, number)
    changed(inputs, feed=OTHER)
    minute(inputs, 11, source="other", price=500.0)
    events = minute(inputs, 12, source="other", price=500.0)
    (truth,) = [event.data.truth for event in events if isinstance(event, InputResolved)]
    assert (truth["entry_price"], truth["resolved_price"]) == (511.0, 512.0)
    (asked,) = [event for event in events if isinstance(event, InputReceived)]
    assert b"111.00" not in bytes(asked.data.payload)


def test_late_records_of_the_old_feed_are_not_used_for_the_new_one():
    inputs = scene()
    for number in range(11):
        minute(inputs, number)
    changed(inputs, feed=OTHER)
    assert opened(minute(inputs, 11)) == []


def test_a_change_undone_before_the_next_record_loses_only_the_windows_over_it():
    inputs = scene()
    for number in range(11):
        minute(inputs, number)
    changed(inputs, feed=OTHER)
    inputs.when("feeds", configured(effective_from=CUT + 1, goes_on=True, feed=MINUTES))
    events = minute(inputs, 11)
    assert opened(events) == [(SUBJECT, 11)]
    events = minute(inputs, 12)
    assert (opened(events), reasons(events)) == ([(SUBJECT, 12)], [None])
    no_skip(events)


def test_a_change_undone_before_time_moved_has_no_effect():
    inputs = scene()
    for number in range(11):
        minute(inputs, number)
    changed(inputs, feed=OTHER)
    inputs.when("feeds", configured(effective_from=CUT, goes_on=True, feed=MINUTES))
    events = minute(inputs, 11)
    assert (opened(events), reasons(events)) == ([(SUBJECT, 11)], [None])


def test_an_added_subject_is_asked_at_once_and_a_removed_one_is_named():
    both = {"subjects": [SUBJECT, ETH], "scopes": [scope(subject=SUBJECT), scope(subject=ETH)]}
    inputs = scene()
    for number in range(11):
        minute(inputs, number)
    changed(inputs, **both)
    events = minute(inputs, 11, SUBJECT, ETH)
    assert opened(events) == [(SUBJECT, 11), (ETH, 11)] or opened(events) == [(ETH, 11), (SUBJECT, 11)]
    assert reasons(events) == [None]
    inputs.when(
        "feeds",
        configured(
            effective_from=T0 + 11 * MINUTE + 1_002, goes_on=True, subjects=[ETH], scopes=[scope(subject=ETH)]
        ),
    )
    events = minute(inputs, 12, ETH)
    assert opened(events) == [(ETH, 12)]
    assert sorted(reasons(events), key=str) == [
        None,
        f"the feed was changed: at {T0 + 11 * MINUTE + 1_002} {SUBJECT} was taken out",
    ]
    no_skip(events)
