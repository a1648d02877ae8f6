"""FEED_SOURCE, FEED_KIND, FEED_GRANULARITY or FEED_SUBJECTS changed: a cut with a name, and no minute is skipped."""

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
    one: Given, number: int, *subjects: str, source: str = "generated", price: float = 100.0
) -> list[Any]:
    """Everything that a minute's candles and the tick behind them make."""
    at = T0 + number * MINUTE
    records = [record(at, price + number, subject, source=source) for subject in subjects or (SUBJECT,)]
    return one.when("feeds", *records, tick(at + 1_000)).made


def opened(made: list[Any]) -> list[tuple[str, int]]:
    return [
        (event.data.subject, (event.data.point - T0) // MINUTE)
        for event in made
        if isinstance(event, InputReceived)
    ]


def reasons(made: list[Any]) -> list[str | None]:
    return [event.data.reason for event in made if isinstance(event, InputResolved)]


def no_skip(made: list[Any]) -> None:
    assert not [one for event in made if isinstance(event, InputsUntil) for one in event.data.skipped]


def changed(one: Given, **changes: Any) -> Given:
    return one.when("feeds", configured(effective_from=CUT, goes_on=True, **changes))


def test_the_new_feed_asks_from_the_next_point_on_and_the_windows_over_the_cut_have_no_truth():
    one = scene()
    for number in range(11):
        minute(one, number)
    changed(one, feed=OTHER)
    made = minute(one, 11, source="other", price=500.0)
    assert opened(made) == [(SUBJECT, 11)]
    assert reasons(made) == [f"the feed was changed: at {CUT} from generated candle 1m to other candle 1m"]
    no_skip(made)
    for number in range(12, 190):  # on to what used to be nothing until the next checkpoint boundary
        made = minute(one, number, source="other", price=500.0)
        assert opened(made) == [(SUBJECT, number)]
        assert reasons(made) == [None]
        no_skip(made)


def test_no_truth_and_no_input_mixes_two_feeds():
    one = scene()
    for number in range(11):
        minute(one, number)
    changed(one, feed=OTHER)
    minute(one, 11, source="other", price=500.0)
    made = minute(one, 12, source="other", price=500.0)
    (truth,) = [event.data.truth for event in made if isinstance(event, InputResolved)]
    assert (truth["entry_price"], truth["resolved_price"]) == (511.0, 512.0)
    (asked,) = [event for event in made if isinstance(event, InputReceived)]
    assert b"111.00" not in bytes(asked.data.payload)


def test_the_old_feed_that_still_comes_is_not_taken_for_the_new_one():
    one = scene()
    for number in range(11):
        minute(one, number)
    changed(one, feed=OTHER)
    assert opened(minute(one, 11)) == []


def test_a_change_taken_back_before_the_next_record_loses_only_the_windows_over_it():
    one = scene()
    for number in range(11):
        minute(one, number)
    changed(one, feed=OTHER)
    one.when("feeds", configured(effective_from=CUT + 1, goes_on=True, feed=MINUTES))
    made = minute(one, 11)
    assert opened(made) == [(SUBJECT, 11)]
    made = minute(one, 12)
    assert (opened(made), reasons(made)) == ([(SUBJECT, 12)], [None])
    no_skip(made)


def test_a_change_taken_back_before_time_moved_never_was():
    one = scene()
    for number in range(11):
        minute(one, number)
    changed(one, feed=OTHER)
    one.when("feeds", configured(effective_from=CUT, goes_on=True, feed=MINUTES))
    made = minute(one, 11)
    assert (opened(made), reasons(made)) == ([(SUBJECT, 11)], [None])


def test_a_subject_more_is_asked_at_once_and_one_that_is_taken_out_says_so():
    both = {"subjects": [SUBJECT, ETH], "scopes": [scope(subject=SUBJECT), scope(subject=ETH)]}
    one = scene()
    for number in range(11):
        minute(one, number)
    changed(one, **both)
    made = minute(one, 11, SUBJECT, ETH)
    assert opened(made) == [(SUBJECT, 11), (ETH, 11)] or opened(made) == [(ETH, 11), (SUBJECT, 11)]
    assert reasons(made) == [None]
    one.when(
        "feeds",
        configured(
            effective_from=T0 + 11 * MINUTE + 1_002, goes_on=True, subjects=[ETH], scopes=[scope(subject=ETH)]
        ),
    )
    made = minute(one, 12, ETH)
    assert opened(made) == [(ETH, 12)]
    assert sorted(reasons(made), key=str) == [
        None,
        f"the feed was changed: at {T0 + 11 * MINUTE + 1_002} {SUBJECT} was taken out",
    ]
    no_skip(made)
