"""A stage's state in its own topic: written in parts, found again, used by a new owner, checked by readers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.memory_log import MemoryLog, Owner, live, undisturbed
from tests.streams import test_crash_chain, test_crash_score
from tests.streams.build import shelf

from coordinator.streams.contract import CrunchContract
from coordinator.streams.log import envelope, recorded_state
from coordinator.streams.log.counting import Counter, TailCounter
from coordinator.streams.log.envelope import Append, Need, decode_append, encode_append
from coordinator.streams.log.recorded_state import (
    StateCheck,
    StatesRead,
    WrongStateError,
    form_of,
    is_due,
    joined,
    parts_of,
    records_of,
)
from coordinator.streams.log.stage import AnyStage
from coordinator.streams.scores.stage import ScoreStage

STAGES = test_crash_chain.STAGES


class Own(msgspec.Struct):
    number: int = 0
    by_name: dict[str, list[int]] = {}
    by_number: dict[int, str] = {}
    rows: list[dict[str, int]] = []


OWN = st.builds(
    Own,
    number=st.integers(-(2**53), 2**53),
    by_name=st.dictionaries(st.text(max_size=20), st.lists(st.integers(0, 99), max_size=9), max_size=9),
    by_number=st.dictionaries(st.integers(0, 2**40), st.text(max_size=20), max_size=9),
    rows=st.lists(st.dictionaries(st.text(max_size=9), st.integers(0, 9), max_size=3), max_size=9),
)


@given(OWN, st.integers(1, 400))
@settings(max_examples=200, deadline=None)
def test_a_state_cut_into_parts_is_joined_to_the_same_bytes(own: Own, part_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded_state, "PART_BYTES_MAX", part_bytes)
        parts = parts_of(own)
        assert joined(parts) == msgspec.json.encode(own)
        assert msgspec.json.decode(joined(parts), type=Own) == own
        entries = [*own.rows, *own.by_name.items(), *own.by_number.items()]
        alone = max([0, *(len(msgspec.json.encode(entry)) for entry in entries)])
        assert max(map(len, parts)) <= max(part_bytes, alone, 60) + 40


def state_records(after: Need, *, n: int = 3, form: str = "f") -> list[bytes]:
    parts = tuple(b'{"part":%d}' % i for i in range(n))
    return records_of(form, parts, epoch=after.epoch, after=after, upto={}, need={})


def test_a_state_is_found_after_all_its_parts_are_read_in_any_order():
    states = StatesRead("f")
    old, new = state_records(Need(10, 1, 9)), state_records(Need(20, 1, 18))
    assert [states.read(record) for record in [new[2], old[0], new[0], old[1]]] == [None] * 4
    state = states.read(new[1])
    assert state is not None
    assert state.after == Need(20, 1, 18)
    assert state.parts == (b'{"part":0}', b'{"part":1}', b'{"part":2}')
    assert states.read(old[2]) is not None
    assert states.newest == state


def test_a_state_of_another_form_is_passed_over():
    states = StatesRead("g")
    assert not states.others
    assert [states.read(record) for record in state_records(Need(10, 1, 9))] == [None] * 3
    assert (states.newest, states.others) == (None, True)


def test_recorded_states_do_not_count_as_decisions():
    plain, tail = Counter("scores", Need(0, 1, 4)), TailCounter("scores")
    decided = envelope.encode_decision([], epoch=1, seq=5, upto={}, need={})[0]
    following = envelope.encode_decision([], epoch=1, seq=6, upto={}, need={})[0]
    records = [decided, *state_records(Need(1, 1, 5)), following]
    counted = [plain.read(offset, record) for offset, record in enumerate(records)]
    assert [decision.seq for decision in counted if decision is not None] == [5, 6]
    assert plain.uncounted == 0
    counted = [tail.read(offset, record) for offset, record in enumerate(records[1:])]
    assert [decision.seq for decision in counted if decision is not None] == [6]


def test_a_state_written_by_a_replaced_owner_is_valid_all_the_same():
    def decided(epoch: int, seq: int) -> bytes:
        return envelope.encode_decision([], epoch=epoch, seq=seq, upto={}, need={})[0]

    def claim(epoch: int) -> bytes:
        return encode_append(Append(e=1, epoch=epoch, seq=0, claim="owner"))

    (late,) = state_records(Need(2, 1, 1), n=1)
    records = [
        claim(1),
        decided(1, 1),
        decided(1, 2),
        claim(2),
        decided(2, 3),
        late,
        decided(1, 3),
        decided(2, 4),
    ]
    whole = Counter("scores")
    from_first = [whole.read(offset, record) for offset, record in enumerate(records)]
    states = StatesRead("f")
    state = next(state for state in map(states.read, records) if state is not None)
    after = Counter("scores", state.after)
    from_state = [after.read(offset, records[offset]) for offset in range(state.after.offset, len(records))]
    assert [decision.seq for decision in from_first if decision is not None] == [1, 2, 3, 4]
    assert [decision.seq for decision in from_state if decision is not None] == [2, 3, 4]
    assert after.state() == whole.state()


def test_a_state_is_due_after_a_number_of_decided_bytes():
    assert not is_due(recorded_state.EVERY_BYTES_MIN - 1, 0)
    assert is_due(recorded_state.EVERY_BYTES_MIN, 0)
    assert not is_due(19 * 10**6, 10**6)
    assert is_due(20 * 10**6, 10**6)


# --- over the logs of whole markets ----------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """States are recorded every few decisions, in several parts. Markets of other tests have none."""
    monkeypatch.setattr(recorded_state, "EVERY_BYTES_MIN", 2000)
    monkeypatch.setattr(recorded_state, "EVERY_STATES", 1)
    monkeypatch.setattr(recorded_state, "PART_BYTES_MAX", 700)
    yield
    test_crash_chain.market.cache_clear()


def states_in(log: MemoryLog, topic: str) -> int:
    return sum(b'"state":' in record[:100] for record in log[topic])


def read_whole(log: MemoryLog, topic: str, new_stage: Callable[[], AnyStage] | None = None) -> int:
    """The number of recorded states, each checked against the events before it. Raises WrongStateError."""
    check = StateCheck((new_stage or STAGES[topic])())
    for offset, record in enumerate(log[topic]):
        check.read(offset, record)
    return check.checked


@pytest.mark.parametrize("topic", STAGES)
@pytest.mark.usefixtures("often")
def test_owners_that_begin_at_a_recorded_state_decide_the_same_after_any_kill(topic: str) -> None:
    sources = test_crash_chain.sources_of(topic, test_crash_chain.market(1))
    check_owners_that_are_killed(topic, STAGES[topic], sources)


@pytest.mark.usefixtures("often")
def test_the_past_that_ensembles_use_is_in_the_recorded_state() -> None:
    contract = CrunchContract(
        ensembles=test_crash_score.ENSEMBLES,
        score_type=test_crash_score.WithError,
        score_round=test_crash_score.betting,
    )
    sources = test_crash_score.mixed_market(2, test_crash_score.LOOKING_BACK)
    log = check_owners_that_are_killed("scores", lambda: ScoreStage(shelf(contract)), sources)
    states = StatesRead()
    for record in log["scores"]:
        states.read(record)
    assert states.newest is not None
    own = msgspec.json.decode(joined(states.newest.parts))
    assert own["past"]
    assert own["ensembles_carried"]


def check_owners_that_are_killed(
    topic: str, new_stage: Callable[[], AnyStage], sources: MemoryLog
) -> MemoryLog:
    expected = undisturbed(sources, new_stage)
    assert states_in(expected, topic) >= 2
    rng, log, lives, taken_up = random.Random(1), sources.copy(), 0, 0

    def run(owner: Owner) -> None:
        nonlocal taken_up
        taken_up += owner.taken_up
        owner.run_mixed(rng)

    while not live(log, new_stage, rng.randint(2, 12), run):
        lives += 1
        assert lives < 3 * len(expected[topic]) + 50, "no progress"
    live(log, new_stage, 100, run)  # the owner after all of them begins at a state too
    assert taken_up >= 1
    assert log.counted(topic) == expected.counted(topic)
    # The state that each life wrote equals that of a reading from the first record.
    assert read_whole(log, topic, new_stage) >= 2
    return log


@pytest.mark.usefixtures("often")
def test_an_altered_state_is_found_and_named():
    topic = "scores"
    log = undisturbed(test_crash_score.mixed_market(1), STAGES[topic])
    place, record = next((i, body) for i, body in enumerate(log[topic]) if b'"scored_until":' in body)
    altered = record.replace(b'"scored_until":', b'"scored_until":1')
    assert altered != record
    log[topic][place] = altered
    with pytest.raises(WrongStateError, match=r"scores offset \d+: .*scored_until"):
        read_whole(log, topic)


@pytest.mark.usefixtures("often")
def test_a_state_with_another_position_in_its_sources_is_found():
    log = undisturbed(test_crash_score.mixed_market(1), STAGES["scores"])
    for offset, record in enumerate(log["scores"]):
        append = decode_append(record)
        if append is not None and append.state is not None:
            elsewhere = msgspec.structs.replace(append, upto={"inputs": (10**6, 0)})
            log["scores"][offset] = encode_append(elsewhere)
    with pytest.raises(WrongStateError, match="says it is made of"):
        read_whole(log, "scores")


def test_a_stage_with_a_changed_fold_has_another_state_format(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = STAGES["scores"]()
    before = form_of(stage)
    monkeypatch.setattr(ScoreStage, "form", 2)
    assert form_of(stage) != before
