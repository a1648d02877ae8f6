"""What a checkpoint should have paid: the log run again with the feed as it is known now, or with corrected rules."""

from __future__ import annotations

import random

import msgspec
import pytest
from tests import checked
from tests.first_of import first_of
from tests.memory_log import Author
from tests.streams.build import MINUTE, T0, configured, gap_closed, gap_found, record, tick
from tests.streams.engine.test_plan import (
    NEW,
    OLD,
    PERIOD_ROUNDS,
    RECORDS,
    Moody,
    terms_of,
)

from coordinator.streams.checkpoints.prizes import shares_of
from coordinator.streams.contract import CrunchContract, ScheduledPrediction
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.engine.amended_feed import AmendedFeed, RecordUse
from coordinator.streams.engine.correct import recompute
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.engine.rerun import Changes, NewRules, RecordedCrunch, rerun
from coordinator.streams.events import (
    CheckpointOpened,
    CheckpointWithheld,
    CorrectCheckpoint,
    CorrectCheckpointData,
    FeedRecordReceived,
    InputReceived,
)
from coordinator.streams.log.errors import OperatorError

POOL = 1_000_000_000
PAID_BY = CrunchContract(crunch_pubkey="4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T")
SPIKE = 7
"""The number of a record whose close was delivered wrong."""


def spoilt(record, close="150.00"):
    return msgspec.structs.replace(record, values=record.values | {"close": close})


def played(instants, contract=PAID_BY):
    """A node's log of these instants of the feed: (at, records)."""
    models = {"one": Moody(0), "two": Moody(4), "calm": lambda data, call: {"value": 0.03}}
    engine = Engine({OLD: contract}.__getitem__, Functions(models))
    engine.configure(terms_of(contract, OLD))
    for at, records in instants:
        engine.feed(at, records)
    return engine.log


def instants(records):
    return [(record.at, [record]) for record in records]


def checkpoints(log):
    return [
        event.data.checkpoint if isinstance(event, CheckpointWithheld) else event.data
        for event in log.events("checkpoints")
        if isinstance(event, (CheckpointOpened, CheckpointWithheld))
    ]


def recomputed(log, number=0, contract=PAID_BY, key=OLD, crunch_id="engine", **options):
    parent = checkpoints(log)[number]
    return parent, recompute(
        RecordedCrunch(log, {key: contract}.__getitem__, crunch_id), parent, total_prize=POOL, **options
    )


def amounts(result):
    return {correction.model_id: correction.due for correction in result.models if correction.due}


@pytest.fixture(scope="module")
def right():
    """The log of a node whose feed was right from the beginning."""
    return played(instants(RECORDS))


@pytest.fixture(scope="module")
def wrong():
    """One close was wrong, and nobody noticed."""
    return played(instants([spoilt(record) if n == SPIKE else record for n, record in enumerate(RECORDS)]))


@pytest.fixture(scope="module")
def mended():
    """One close was wrong, and its correction came after the period had been paid for."""
    told = instants([spoilt(record) if n == SPIKE else record for n, record in enumerate(RECORDS)])
    place = 2 * PERIOD_ROUNDS
    told[place] = (told[place][0], [msgspec.structs.replace(RECORDS[SPIKE], revision=1), *told[place][1]])
    return played(told)


def paid(log):
    """The prizes of the first checkpoint of a log."""
    _, result = recomputed(log)
    return {correction.model_id: correction.paid for correction in result.models if correction.paid}


def test_a_checkpoint_that_was_right_has_no_difference(right):
    _, result = recomputed(right)
    assert (result.truths_differ, result.corrections) == (0, [])
    assert sum(correction.paid for correction in result.models) == POOL


def test_a_correction_that_came_too_late_shows_what_the_right_feed_would_have_paid(mended, right):
    _, result = recomputed(mended)
    assert result.truths_differ > 0
    assert result.corrections
    assert amounts(result) == paid(right)
    assert sum(correction.due - correction.paid for correction in result.corrections) == 0


def test_the_operators_file_leads_to_the_same_result(wrong, right):
    assert recomputed(wrong)[1].corrections == []  # the log alone does not contain the right values
    _, result = recomputed(wrong, records=[RECORDS[SPIKE]])
    assert amounts(result) == paid(right)


def test_the_effects_of_the_operators_records_are_counted(wrong):
    moved = msgspec.structs.replace(RECORDS[SPIKE], ts_event=1, at=60_001)
    for records, use in (
        ([], RecordUse()),
        ([RECORDS[SPIKE]], RecordUse(changed=1)),
        ([RECORDS[SPIKE - 1], RECORDS[SPIKE + 1]], RecordUse(same=2)),
        ([moved, RECORDS[SPIKE], RECORDS[SPIKE - 1]], RecordUse(changed=1, added=1, same=1)),
    ):
        assert AmendedFeed(wrong, records).operator_use == use
    assert recomputed(wrong, records=[RECORDS[SPIKE]])[1].operator_records == RecordUse(changed=1)


def test_a_gap_filled_late_shows_what_its_records_would_have_paid_and_asks_no_model_again(right):
    """Three minutes were missing. The rounds that were not asked then are not asked now."""
    gone = range(10, 13)
    told = [record for n, record in enumerate(RECORDS) if n not in gone]
    holed = played(instants(told))
    before = checkpoints(holed)[0]
    _, result = recomputed(holed, records=[RECORDS[n] for n in gone])
    assert result.truths_differ > 0
    asked = [
        event
        for event in holed.events("inputs")
        if isinstance(event, InputReceived) and event.data.scopes[0].resolvable_at < before.period_end
    ]
    assert len(asked) < PERIOD_ROUNDS - 1  # some were skipped
    after = played_with(holed, [RECORDS[n] for n in gone])
    assert {entry.rounds_count for entry in before.ranking} == {len(asked) - 1}  # one had no truth
    assert {entry.rounds_count for entry in after.ranking} == {len(asked)}


def played_with(log, records):
    """The first checkpoint of a log that is run again with these records."""
    again = rerun(
        RecordedCrunch(log, {OLD: PAID_BY}.__getitem__, "engine"),
        Changes(amended=AmendedFeed(log, records).amended),
    )
    return checkpoints(again.log)[0]


def test_corrected_rules_show_what_they_would_have_paid(right):
    gated = CrunchContract(min_participation=0.9, crunch_pubkey=PAID_BY.crunch_pubkey)
    _, result = recomputed(right, number=1, rules=NewRules(terms_of(gated, NEW), gated))
    assert result.truths_differ == 0
    (moody,) = [correction for correction in result.corrections if correction.model_id == "one"]
    assert (moody.paid > 0, moody.due) == (True, 0)
    assert sum(correction.due for correction in result.models) == POOL


def test_an_emission_that_needed_a_corrected_contract_is_built_by_that_contract_again(mended, right):
    parent = msgspec.structs.replace(checkpoints(mended)[0], emission_contract_hash=NEW)
    nobodys = CrunchContract()
    with pytest.raises(OperatorError, match="crunch_pubkey"):
        recomputed(mended, contract=nobodys)
    result = recompute(
        RecordedCrunch(mended, {OLD: nobodys, NEW: PAID_BY}.__getitem__, "engine"), parent, total_prize=POOL
    )
    assert amounts(result) == paid(right)


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (
            CrunchContract(
                crunch_pubkey=PAID_BY.crunch_pubkey,
                scheduled_predictions=[ScheduledPrediction(scope_key="other", interval_seconds=120)],
            ),
            "would not have been asked",
        ),
        (CrunchContract(), "crunch_pubkey"),
    ],
    ids=["schedule", "not payable"],
)
def test_rules_that_cannot_compute_a_payment_are_refused(right, new, what):
    with pytest.raises(OperatorError, match=what):
        recomputed(right, rules=NewRules(terms_of(new, NEW), new))


def test_rules_with_other_periods_are_refused(right):
    terms = msgspec.structs.replace(terms_of(PAID_BY, NEW), checkpoint_interval_ms=10 * MINUTE)
    with pytest.raises(OperatorError, match="other checkpoint periods"):
        recomputed(right, rules=NewRules(terms, PAID_BY))


def test_a_node_that_began_with_the_past_of_its_feed_paid_right(right):
    """The terms come first, with the wall clock's time, then the past in one piece, then the live feed."""
    models = {"one": Moody(0), "two": Moody(4), "calm": lambda data, call: {"value": 0.03}}
    engine = Engine({OLD: PAID_BY}.__getitem__, Functions(models))
    past, rest = RECORDS[:40], RECORDS[40:]
    engine.tell(engine.feeds.configure(terms_of(PAID_BY, OLD), past[-1].at))
    backfilled = [msgspec.structs.replace(record, backfilled=True) for record in past]
    engine.tell(engine.feeds.offer(backfilled, past[-1].at, rehearsal=True))
    for late in rest:
        engine.feed(late.at, [late])
    for number, checkpoint in enumerate(checkpoints(engine.log)):
        _, result = recomputed(engine.log, number)
        assert (result.truths_differ, result.corrections) == (0, []), checkpoint.period_start
    assert checkpoints(right)


def test_a_correction_changes_nothing_of_the_log(mended):
    before = {topic: list(records) for topic, records in mended.topics.items()}
    recomputed(mended)
    assert before == {topic: list(records) for topic, records in mended.topics.items()}


def test_a_period_that_has_not_ended_cannot_be_computed(right):
    parent = checkpoints(right)[0]
    short = MemoryLog(
        {topic: right[topic][: len(right[topic]) // 8] for topic in ("feeds", "inputs", "predictions")}
    )
    with pytest.raises(OperatorError, match="does not reach"):
        recompute(RecordedCrunch(short, {OLD: PAID_BY}.__getitem__, "engine"), parent, total_prize=POOL)


# --- the feed as it should have come ----------------------------------------------------------------


def values_in_order(log, records=()):
    amended = AmendedFeed(log, records)
    told = []
    for decision in log.decisions("feeds"):
        told += [
            (event.at, event.data.values["close"])
            for event in amended.amended(decision.events)
            if isinstance(event, FeedRecordReceived)
        ]
    return told


def test_each_record_is_used_once_at_its_own_time_with_its_final_values(mended, wrong, right):
    expected = [(record.at, record.values["close"]) for record in RECORDS]
    assert values_in_order(right) == expected
    assert values_in_order(mended) == expected
    assert values_in_order(wrong, [RECORDS[SPIKE]]) == expected
    late = instants([record for n, record in enumerate(RECORDS) if n != SPIKE])
    assert values_in_order(played(late), [RECORDS[SPIKE]]) == expected
    late[30] = (late[30][0], [late[30][1][0], msgspec.structs.replace(RECORDS[SPIKE], backfilled=True)])
    assert values_in_order(played(late)) == expected


@pytest.mark.parametrize("seed", first_of(4, range(12)))
def test_however_a_feed_was_delivered_its_final_form_is_the_right_one(seed):
    """Records may come late, wrong, corrected once or twice, or only from the operator."""
    rng = random.Random(seed)
    told: dict[int, list] = {record.at: [] for record in RECORDS}
    ats, by_operator = list(told), []
    for number, right_one in enumerate(RECORDS[:-3]):
        fate = rng.random()
        if fate < 0.7 or not number:
            told[right_one.at].append(right_one)
            continue
        later = ats[number + 1 :]
        if fate < 0.8:  # late, and perhaps wrong at first
            first, second = sorted(rng.sample(later, 2))
            wrong = rng.random() < 0.5
            told[first].append(spoilt(right_one) if wrong else right_one)
            if wrong:
                told[second].append(msgspec.structs.replace(right_one, revision=1))
        elif fate < 0.95:  # in time but wrong
            told[right_one.at].append(spoilt(right_one))
            first, second = sorted(rng.sample(later, 2))
            told[first].append(msgspec.structs.replace(spoilt(right_one, "77.00"), revision=1))
            told[second].append(msgspec.structs.replace(right_one, revision=2))
        else:
            told[right_one.at] += [spoilt(right_one)] * (rng.random() < 0.5)
            by_operator.append(right_one)
    for right_one in RECORDS[-3:]:
        told[right_one.at].append(right_one)
    log = played(sorted(told.items()))
    expected = [(record.at, record.values["close"]) for record in RECORDS]
    assert sorted(values_in_order(log, by_operator)) == expected


def test_a_completely_filled_gap_is_none_and_an_open_one_stays():
    """Trades have no cadence: only the source's own report distinguishes a gap from a quiet hour."""
    of = {"kind": "tick", "granularity": "1s"}
    log = MemoryLog()
    author = Author(log, "feeds")
    author.write(configured(), record(T0, **of, ts_event=T0), tick(T0))
    author.write(gap_found(T0, T0 + 5 * MINUTE, **of), tick(T0 + 5 * MINUTE))
    late = record(T0 + 2 * MINUTE, **of, ts_event=T0 + 2 * MINUTE, backfilled=True)
    author.write(
        late, gap_closed(T0, T0 + 5 * MINUTE, T0 + 9 * MINUTE, complete=True, **of), tick(T0 + 9 * MINUTE)
    )
    author.write(gap_found(T0 + 9 * MINUTE, T0 + 12 * MINUTE, **of), tick(T0 + 12 * MINUTE))
    amended = AmendedFeed(log)
    told = [
        [type(event).__name__ for event in amended.amended(decision.events)]
        for decision in log.decisions("feeds")
    ]
    assert told == [
        ["CrunchConfigured", "FeedRecordReceived", "ClockTicked"],
        ["FeedRecordReceived", "ClockTicked"],
        ["FeedGapClosed", "ClockTicked"],
        ["FeedGapFound", "ClockTicked"],
    ]


# --- a whole node ---------------------------------------------------------------------------------------


def corrected_log():
    """A node that paid wrongly, gets a correction, and pays the next period with the difference."""
    told = instants([spoilt(record) if n == SPIKE else record for n, record in enumerate(RECORDS)])
    place = 2 * PERIOD_ROUNDS - 9
    told[place] = (told[place][0], [msgspec.structs.replace(RECORDS[SPIKE], revision=1), *told[place][1]])
    models = {"one": Moody(0), "two": Moody(4), "calm": lambda data, call: {"value": 0.03}}
    engine = Engine({OLD: PAID_BY}.__getitem__, Functions(models))
    engine.configure(terms_of(PAID_BY, OLD))
    for number, (at, records) in enumerate(told):
        engine.feed(at, records)
        if number == place:
            parent, result = recomputed(engine.log)
            data = CorrectCheckpointData(
                checkpoint_id=parent.checkpoint_id,
                total_prize=POOL,
                models=result.corrections,
                reason="a wrong close",
                shares=shares_of(parent),
            )
            engine.command(CorrectCheckpoint(id="correct", at=at, data=data))
    return engine.log


def test_a_corrected_node_passes_the_verification_of_everything():
    """Runs `verify-e2e` on the checkpoint that carries credits, and on those before and after it."""
    log = corrected_log()
    assert [len(checkpoint.credits) for checkpoint in checkpoints(log)] == [0, 1, 0, 0]
    emission_texts = [steps_of(log, checkpoint)["emission"] for checkpoint in checkpoints(log)]
    owed = sum(checkpoints(log)[1].credits[0].prizes.values())
    assert [f"{owed:,} micro-USDC on top" in text for text in emission_texts] == [False, True, False, False]


def steps_of(log, checkpoint):
    return checked.steps_of(
        log, checked.chain_of(log, checkpoint), checkpoint, {OLD: PAID_BY}.__getitem__, "engine"
    )
