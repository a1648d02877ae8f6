"""The input stage resolves inputs: the window (t, t + h], what closes it, and the watermark InputsUntil."""

from __future__ import annotations

import random

import msgspec
import pytest
from tests.first_of import first_of
from tests.given import Given, given
from tests.streams.build import MINUTE, PUBKEY, SUBJECT, T0, configured, record, scope, shelf, tick

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import Feed, FeedRecordData, InputReceived, InputResolved, InputsUntil
from coordinator.streams.inputs.stage import InputStage

# Missing records are tested in tests/streams/feeds/test_gaps.py; here all records that came are used.
ACCEPTS = CrunchContract(crunch_pubkey=PUBKEY, gap_policy="accept")


def stage(contract: CrunchContract = ACCEPTS, **changes) -> Given:
    return given(InputStage(shelf(contract))).when("feeds", configured(**changes))


def seeing(contract_records: list) -> CrunchContract:
    """A contract whose ground truth records the window it received."""

    def resolve(records):
        contract_records.append([(r.at - T0, r.values["close"]) for r in records])
        return {"entry_price": 1.0, "resolved_price": 1.0, "return": 0.0, "direction_up": False}

    return CrunchContract(resolve_ground_truth=resolve)


def test_the_window_is_the_entry_and_all_records_after_it_up_to_the_horizon():
    """Entry: the last record at or before t. Then all records with t < at <= t + h."""
    windows: list = []
    scene = stage(seeing(windows), scopes=[scope("120s", horizon_seconds=120, interval_seconds=3600)])
    for at in (-90_000, -1, 0):
        scene.when("feeds", record(T0 + at, 1000.0 + at))
    scene.when("feeds", tick(T0))
    for at in (1, 60_000, 119_999, 120_000, 120_001):
        scene.when("feeds", record(T0 + at, 1000.0 + at))
    assert windows[0] == [
        (0, 1000.0),
        (1, 1001.0),
        (60_000, 61000.0),
        (119_999, 120999.0),
        (120_000, 121000.0),
    ]
    assert all(window == windows[0] for window in windows)  # a second call of `decide` returns the same


def test_without_a_record_at_the_point_the_entry_is_the_record_before():
    windows: list = []
    scene = stage(seeing(windows), scopes=[scope("60s", interval_seconds=60)])
    scene.when("feeds", record(T0 - 30_000, 1.0), tick(T0 - 30_000))
    scene.when("feeds", record(T0 + 2_000, 2.0), tick(T0 + 2_000)).then(InputReceived, InputsUntil)
    scene.when("feeds", record(T0 + 60_000, 3.0), tick(T0 + 60_000))
    assert windows[0] == [(-30_000, 1.0), (2_000, 2.0), (60_000, 3.0)]
    assert all(window == windows[0] for window in windows)  # a second call of `decide` returns the same


def test_a_minute_horizon_on_minute_candles_compares_two_closes():
    scene = stage()
    scene.when("feeds", record(T0, 100.0), tick(T0))
    scene.when("feeds", record(T0 + MINUTE, 101.0), tick(T0 + MINUTE))
    event = scene.only(InputResolved)
    assert event.data.truth == {
        "entry_price": 100.0,
        "resolved_price": 101.0,
        "return": 0.01,
        "direction_up": True,
    }
    assert (event.at, event.data.resolvable_at, event.data.last) == (T0 + MINUTE, T0 + MINUTE, True)


@pytest.mark.parametrize(
    ("after_ms", "resolved"), [(4_999, False), (5_000, True)], ids=["within the grace", "after it"]
)
def test_the_clock_closes_a_window_only_after_the_grace(after_ms, resolved):
    scene = stage()
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", tick(T0 + MINUTE + after_ms))
    resolutions = scene.all(InputResolved)
    assert bool(resolutions) is resolved
    if resolutions:
        assert resolutions[0].data.truth is None
        assert resolutions[0].data.reason == "gap: no record at or past the window's end within the grace"
        assert resolutions[0].at == T0 + MINUTE + after_ms


def test_a_window_closed_by_the_clock_has_no_truth_even_if_it_contains_records():
    scene = stage()
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", record(T0 + 30_000), tick(T0 + 30_000))
    scene.when("feeds", tick(T0 + MINUTE + 5_000))
    assert scene.only(InputResolved).data.truth is None


def test_a_window_without_records_has_no_truth():
    scene = stage()
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", record(T0 + 61_000), tick(T0 + 61_000))
    resolved = next(event for event in scene.all(InputResolved) if event.data.input_id.endswith(str(T0)))
    assert (resolved.data.truth, resolved.data.reason) == (None, "gap: no record within the window")


def test_a_record_that_comes_within_the_grace_completes_the_window():
    scene = stage()
    scene.when("feeds", record(T0, 100.0), tick(T0))
    scene.when("feeds", tick(T0 + MINUTE + 3_000)).then(InputsUntil)
    scene.when("feeds", record(T0 + MINUTE, 102.0))
    assert scene.only(InputResolved).data.truth["return"] == 0.02
    assert scene.only(InputResolved).at == T0 + MINUTE  # the time of its record, when it became known


def test_a_correction_counts_while_the_window_is_open():
    windows: list = []
    scene = stage(seeing(windows), scopes=[scope("120s", horizon_seconds=120, interval_seconds=600)])
    scene.when("feeds", record(T0, 1.0), tick(T0))
    scene.when("feeds", record(T0 + MINUTE, 2.0), tick(T0 + MINUTE))
    scene.when("feeds", record(T0 + MINUTE, 2.5, revision=1))
    scene.when(
        "feeds", record(T0 + MINUTE, 9.9, revision=0)
    )  # an older version that comes late changes nothing
    scene.when("feeds", record(T0 + 2 * MINUTE, 3.0), tick(T0 + 2 * MINUTE))
    assert windows[0] == [(0, 1.0), (60_000, 2.5), (120_000, 3.0)]
    assert all(window == windows[0] for window in windows)  # a second call of `decide` returns the same


def test_a_correction_after_the_truth_changes_nothing():
    scene = stage()
    scene.when("feeds", record(T0, 100.0), tick(T0))
    scene.when("feeds", record(T0 + MINUTE, 101.0), tick(T0 + MINUTE))
    scene.when("feeds", record(T0 + MINUTE, 200.0, revision=1)).then()


def test_a_record_of_history_fills_a_gap_before_the_window_closes():
    windows: list = []
    scene = stage(seeing(windows), scopes=[scope("180s", horizon_seconds=180, interval_seconds=600)])
    scene.when("feeds", record(T0, 1.0), tick(T0))
    scene.when("feeds", record(T0 + 2 * MINUTE, 3.0), tick(T0 + 2 * MINUTE))
    scene.when("feeds", record(T0 + MINUTE, 2.0, backfilled=True))
    scene.when("feeds", record(T0 + 3 * MINUTE, 4.0), tick(T0 + 3 * MINUTE))
    assert windows[0] == [(0, 1.0), (60_000, 2.0), (120_000, 3.0), (180_000, 4.0)]
    assert all(window == windows[0] for window in windows)  # a second call of `decide` returns the same


def test_each_horizon_is_resolved_at_its_time_and_the_last_is_marked():
    scene = stage(
        scopes=[scope("60s", interval_seconds=600), scope("180s", horizon_seconds=180, interval_seconds=600)]
    )
    resolutions = []
    for number in range(4):
        at = T0 + number * MINUTE
        scene.when("feeds", record(at, 100.0 + number), tick(at))
        resolutions += [
            (number, event.data.horizon_seconds, event.data.last) for event in scene.all(InputResolved)
        ]
    assert resolutions == [(1, 60, False), (3, 180, True)]


def test_two_horizons_resolved_in_one_decision_mark_one_as_last():
    scene = stage(
        scopes=[scope("60s", interval_seconds=600), scope("180s", horizon_seconds=180, interval_seconds=600)]
    )
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", record(T0 + MINUTE), record(T0 + 3 * MINUTE), tick(T0 + 3 * MINUTE))
    assert [(event.data.horizon_seconds, event.data.last) for event in scene.all(InputResolved)] == [
        (60, False),
        (180, True),
    ]


def test_two_scopes_of_one_horizon_share_one_truth():
    scene = stage(scopes=[scope("a", interval_seconds=600), scope("b", interval_seconds=600)])
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", record(T0 + MINUTE), tick(T0 + MINUTE))
    assert scene.only(InputResolved).data.last


def raises(records):
    raise KeyError("close")


BROKEN_TRUTHS = {
    "raises": (raises, "resolve_ground_truth: KeyError: 'close'"),
    "none": (lambda records: None, "resolve_ground_truth gave None"),
    "not of the type": (lambda records: {"entry_price": 1.0}, "resolve_ground_truth: ValidationError"),
    "NaN": (
        lambda records: {"entry_price": 1.0, "resolved_price": float("nan"), "return": 0.0, "direction_up": False},
        "not finite: .resolved_price",
    ),
    "infinite in a further field": (
        lambda records: {
            "entry_price": 1.0, "resolved_price": 1.0, "return": 0.0, "direction_up": False, "high": float("inf"),
        },
        "not finite: .high",
    ),
    "half a letter": (
        lambda records: {
            "entry_price": 1.0, "resolved_price": 1.0, "return": 0.0, "direction_up": False, "x": "\ud800",
        },
        "resolve_ground_truth: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("function", "reason"), BROKEN_TRUTHS.values(), ids=BROKEN_TRUTHS)
def test_a_truth_that_the_contract_cannot_make_is_none_with_its_reason(function, reason):
    scene = stage(CrunchContract(resolve_ground_truth=function))
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", record(T0 + MINUTE), tick(T0 + MINUTE))
    data = scene.only(InputResolved).data
    assert data.truth is None
    assert reason in data.reason


def test_a_record_that_the_contract_cannot_read_costs_only_the_windows_that_contain_it():
    """Values are text, as the source delivered it."""
    scene = stage()
    resolutions = {}
    for minute, close in enumerate(["100.0", "101.0", "much", "102.0", "103.0", "104.0"]):
        at = T0 + minute * MINUTE
        scene.when("feeds", record(at, values={"close": close}), tick(at))
        resolutions |= {
            (event.data.resolvable_at - T0) // MINUTE: event.data for event in scene.all(InputResolved)
        }
        if minute == 2:
            assert (
                scene.only(InputsUntil).data.skipped[0].reason.startswith("raw_input_type: ValidationError")
            )
    assert resolutions[1].truth["resolved_price"] == 101.0
    assert resolutions[2].reason.startswith("resolve_ground_truth: ValidationError")


def test_a_price_of_zero_has_no_return():
    scene = stage()
    scene.when("feeds", record(T0, 0.0), tick(T0))
    scene.when("feeds", record(T0 + MINUTE, 1.0), tick(T0 + MINUTE))
    assert scene.only(InputResolved).data.reason == "resolve_ground_truth gave None"


# --- the watermark ---------------------------------------------------------------------------------------


def until(scene: Given) -> int:
    return scene.only(InputsUntil).data.until - T0


def test_the_watermark_follows_the_clock_if_nothing_is_open():
    scene = stage(scopes=[scope(interval_seconds=600)])
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", record(T0 + MINUTE), tick(T0 + MINUTE))
    assert until(scene) == MINUTE
    scene.when("feeds", tick(T0 + 90_000))
    assert until(scene) == 90_000


def test_the_watermark_waits_for_open_horizons():
    scene = stage()
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", tick(T0 + 63_000))
    assert until(scene) == MINUTE  # the truth of T0 may still come, within the grace
    scene.when("feeds", record(T0 + MINUTE))
    scene.when("feeds", tick(T0 + 64_000))
    assert until(scene) == 64_000


def test_the_watermark_waits_for_a_point_that_may_still_open():
    """Horizon 5 s, deadline 10 s: while a point may still open, the time 5 s after it is not yet complete."""
    scene = stage(scopes=[scope("5s", horizon_seconds=5)])
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", record(T0 + 5_000), tick(T0 + 5_000))
    scene.when("feeds", tick(T0 + 68_000))
    assert until(scene) == 65_000
    scene.when("feeds", tick(T0 + 70_001))
    assert until(scene) == 70_001


def test_the_watermark_waits_for_the_first_point_of_a_subject_that_has_had_no_record():
    """Its first record may come late and open a point in the past, up to the deadline."""
    scene = stage(scopes=[scope("5s", horizon_seconds=5), scope("5s", "ETHUSDT", horizon_seconds=5)])
    scene.when("feeds", record(T0), tick(T0))
    scene.when("feeds", record(T0 + 8_000), tick(T0 + 8_000))
    reached = until(scene)
    scene.when("feeds", record(T0, 7.0, "ETHUSDT"))
    event = scene.only(InputReceived)
    assert event.data.subject == "ETHUSDT"
    assert event.data.scopes[0].resolvable_at - T0 >= reached


@pytest.mark.parametrize("seed", first_of(6, range(20)))
def test_the_watermark_only_rises_and_nothing_before_it_is_resolved_or_opened_later(seed):
    """Two subjects, horizons from 5 s to 10 min, late, lost, repeated and backfilled records, with ticks between them."""
    rng = random.Random(seed)
    scopes = [
        scope("5s", horizon_seconds=5, interval_seconds=20),
        scope("60s", "ETHUSDT"),
        scope("600s", "ETHUSDT", horizon_seconds=600, interval_seconds=120),
    ]
    scene = stage(scopes=scopes, subjects=[SUBJECT, "ETHUSDT"])
    passed, now, opened, resolved = -1, T0, {}, set()
    for _ in range(250):
        now += rng.randint(0, 9_000)
        events = []
        for subject in (SUBJECT, "ETHUSDT"):
            if rng.random() < 0.6:
                at = now - rng.choice([0, 0, 0, 3_000, 9_000, 30_000])
                events.append(record(at, rng.uniform(1, 9), subject, backfilled=rng.random() < 0.1))
        if rng.random() < 0.7:
            events.append(tick(now))
        if not events:
            continue
        scene.when("feeds", *events)
        for event in scene.made:
            if isinstance(event, InputReceived):
                assert event.data.input_id not in opened
                opened[event.data.input_id] = event.data
                assert all(scope.resolvable_at >= passed for scope in event.data.scopes)
                assert event.at >= event.data.point
            elif isinstance(event, InputResolved):
                key = (event.data.input_id, event.data.horizon_seconds)
                assert key not in resolved
                resolved.add(key)
                assert event.data.resolvable_at >= passed
            elif isinstance(event, InputsUntil):
                assert event.data.until >= passed
                assert event.data.until <= max(event.data.clock, passed)
                passed = event.data.until
        for data in opened.values():
            for open_scope in data.scopes:
                if open_scope.resolvable_at < passed:
                    assert (data.input_id, open_scope.horizon_seconds) in resolved
    assert len(resolved) > 25


def test_ticks_of_another_market_kind_make_truth_from_prices():
    """Feeds of single prices have `price` in place of `close`."""
    scene = stage(feed=Feed(source="generated", kind="tick", granularity="1s"))

    def price(at: int, value: str):
        base = record(at)
        data = FeedRecordData(
            source="generated",
            subject=SUBJECT,
            kind="tick",
            granularity="1s",
            ts_event=at,
            values={"price": value},
        )
        return msgspec.structs.replace(base, data=data)

    scene.when("feeds", price(T0, "50.0"), tick(T0))
    scene.when("feeds", price(T0 + MINUTE, "49.0"), tick(T0 + MINUTE))
    assert scene.only(InputResolved).data.truth["return"] == -0.02
