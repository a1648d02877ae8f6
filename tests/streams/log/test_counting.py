"""The counting rule: which appends every reader sees, whatever was written by whom, and wherever it begins to read."""

from __future__ import annotations

import pytest
from hypothesis import given as property_of
from hypothesis import settings
from hypothesis import strategies as st
from tests.streams.build import tick

from coordinator.streams.log.counting import Counter, TailCounter
from coordinator.streams.log.envelope import Append, Need, decode_append, encode_append, encode_decision


def claim(epoch: int) -> bytes:
    return encode_append(Append(e=1, epoch=epoch, seq=0, claim=f"owner-{epoch}"))


def part(epoch: int, seq: int, k: int = 1, n: int = 1, mark: int = 0) -> bytes:
    """Part k of n. `mark` distinguishes two writers of the same number."""
    append = decode_append(
        encode_decision([tick(1000 * seq + 10 * k + mark)], epoch=epoch, seq=seq, upto={}, need={})[0]
    )
    return encode_append(Append(e=1, epoch=epoch, seq=seq, part=(k, n), events=append.events))


def read_all(log: list[bytes], start: Need | None = None, counter: Counter | None = None):
    counter = counter or Counter("feeds", start)
    begin = counter.next_offset
    return [
        decision for i, record in enumerate(log[begin:], start=begin) if (decision := counter.read(i, record))
    ]


def seen(decisions):
    """What a reader sees of a decision: number, position, events."""
    return [
        (decision.seq, decision.first_offset, decision.offset, [event.id for event in decision.events])
        for decision in decisions
    ]


CASES = {
    "one owner": ([claim(1), part(1, 1), part(1, 2)], [(1, 1), (2, 2)]),
    "nothing counts before a claim": ([part(1, 1), claim(1), part(1, 1)], [(1, 2)]),
    "a zombie's append behind a new claim": (
        [claim(1), part(1, 1), claim(2), part(1, 2), part(2, 2)],
        [(1, 1), (2, 4)],
    ),
    "a repeated send": ([claim(1), part(1, 1), part(1, 1), part(1, 2), part(1, 1)], [(1, 1), (2, 3)]),
    "a hole after a failed send": ([claim(1), part(1, 1), part(1, 3), part(1, 4)], [(1, 1)]),
    "the hole is filled by the next owner": (
        [claim(1), part(1, 1), part(1, 3), claim(2), part(2, 2), part(2, 3)],
        [(1, 1), (2, 4), (3, 5)],
    ),
    "two claims for one epoch: the first counts": (
        [claim(1), claim(1), part(1, 1)],
        [(1, 2)],  # the writers cannot be told apart; it is the second one's duty not to write
    ),
    "a claim that skips an epoch": ([claim(1), claim(3), part(3, 1), part(1, 1)], [(1, 3)]),
    "an old claim": ([claim(1), claim(2), claim(1), part(1, 1), part(2, 1)], [(1, 4)]),
    "an append of a coming epoch": ([claim(1), part(2, 1), claim(2), part(2, 1)], [(1, 3)]),
    "a decision in parts counts with its last": (
        [claim(1), part(1, 1, 1, 3), part(1, 1, 2, 3), part(1, 1, 3, 3), part(1, 2)],
        [(1, 3), (2, 4)],
    ),
    "parts that a claim interrupts are dropped": (
        [claim(1), part(1, 1, 1, 2), claim(2), part(1, 1, 2, 2), part(2, 1, 1, 2), part(2, 1, 2, 2)],
        [(1, 5)],
    ),
    "a second part of the dead owner does not complete the new owner's": (
        [claim(1), part(1, 1, 1, 2), claim(2), part(2, 1, 1, 2), part(1, 1, 2, 2), part(2, 1, 2, 2)],
        [(1, 5)],
    ),
    "a part of the new owner does not complete what the claim dropped": (
        [claim(1), part(1, 1, 1, 2), claim(2), part(2, 1, 2, 2)],
        [],
    ),
    "a part sent twice": (
        [claim(1), part(1, 1, 1, 2), part(1, 1, 1, 2), part(1, 1, 2, 2), part(1, 1, 2, 2), part(1, 2)],
        [(1, 3), (2, 5)],
    ),
    "a part left out": ([claim(1), part(1, 1, 1, 3), part(1, 1, 3, 3)], []),
    "parts of two cuts do not mix": (
        [claim(1), part(1, 1, 1, 2), part(1, 1, 2, 3), part(1, 1, 2, 2)],
        [(1, 3)],
    ),
    "a part 2 with nothing before it": ([claim(1), part(1, 1, 2, 2), part(1, 1)], [(1, 2)]),
    "the next decision while one is incomplete": ([claim(1), part(1, 1, 1, 2), part(1, 2)], []),
    "garbage inside a decision": ([claim(1), part(1, 1, 1, 2), b"garbage", part(1, 1, 2, 2)], [(1, 3)]),
    "a claim that does not count drops nothing": (
        [claim(1), part(1, 1, 1, 2), claim(5), part(1, 1, 2, 2)],
        [(1, 3)],
    ),
}


@pytest.mark.parametrize(("log", "expected"), CASES.values(), ids=CASES)
def test_only_appends_of_the_current_epoch_in_sequence_count(log, expected):
    decisions = read_all(log)
    assert [(decision.seq, decision.offset) for decision in decisions] == expected


@pytest.mark.parametrize(("log", "expected"), CASES.values(), ids=CASES)
def test_every_record_is_counted_a_claim_or_uncounted(log, expected):
    counter = Counter("feeds")
    decisions = read_all(log, counter=counter)
    parts = sum(len(decision.bodies) for decision in decisions)
    dropped = len(log) - parts - counter.claims - counter.uncounted
    assert (
        0 <= dropped <= 2
    )  # parts that were read and then dropped by a claim, or whose rest is still to come


def test_a_decision_has_the_offset_of_its_first_part_and_of_the_record_before():
    log = [claim(1), part(1, 1), part(1, 2, 1, 2), b"garbage", part(1, 2, 2, 2)]
    second = read_all(log)[1]
    assert (second.first_offset, second.offset) == (2, 4)
    assert second.before == Need(2, 1, 1)
    assert second.after() == Need(5, 1, 2)
    assert [event.at for event in second.events] == [2010, 2020]


def test_a_reader_in_the_middle_of_a_decision_resumes_before_its_first_part():
    log = [claim(1), part(1, 1), part(1, 2, 1, 2), part(1, 2, 2, 2)]
    counter = Counter("feeds")
    read_all(log[:3], counter=counter)
    assert counter.state() == Need(2, 1, 1)
    assert seen(read_all(log, counter.state())) == seen(read_all(log))[1:]


def test_a_kind_that_is_written_with_an_escape_is_not_passed_over():
    """JSON may write any letter as an escape, and the decoder reads it: whoever looks at the bytes must see it too."""
    plain = part(1, 1)
    assert b'"ClockTicked"' in plain
    written, escaped = (
        read_all([claim(1), record])[0]
        for record in (plain, plain.replace(b'"ClockTicked"', b'"Clock\\u0054icked"'))
    )
    assert escaped.events == written.events
    assert escaped.may_hold("ClockTicked")
    assert not written.may_hold("RoundScored")


# --- from the middle --------------------------------------------------------------------------------------

FROM_THE_MIDDLE = {
    # name: (the topic, the offset to begin at, (seq, offset) of the appends that count)
    "one owner": ([claim(1), part(1, 1), part(1, 2), part(1, 3)], 2, [(2, 2), (3, 3)]),
    "in the middle of a decision": (
        [claim(1), part(1, 1, 1, 2), part(1, 1, 2, 2), part(1, 2)],
        2,
        [(2, 3)],
    ),
    "a late word behind the claim": ([claim(1), claim(2), part(1, 1), part(2, 1)], 1, [(1, 3)]),
    "a late word before the first of the current owner": (
        [claim(1), part(1, 1), claim(2), part(1, 2), part(2, 2), part(1, 3), part(2, 3)],
        3,
        [(2, 3), (2, 4), (3, 6)],
    ),
    "repeated sends": (
        [claim(1), part(1, 1), part(1, 2), part(1, 1), part(1, 2), part(1, 3)],
        1,
        [(1, 1), (2, 2), (3, 5)],
    ),
    "a hole": ([claim(1), part(1, 1), part(1, 3), claim(2), part(2, 2)], 1, [(1, 1), (2, 4)]),
    "only what a failed send left behind, and the next owner": (
        [claim(1), part(1, 1), part(1, 3), claim(2), part(2, 2)],
        2,
        [(3, 2), (2, 4)],
    ),
    "garbage": ([claim(1), part(1, 1), b"garbage", part(1, 2)], 1, [(1, 1), (2, 3)]),
    "two claims for one epoch": ([claim(1), claim(2), claim(2), part(2, 1)], 1, [(1, 3)]),
}


@pytest.mark.parametrize(("log", "start", "expected"), FROM_THE_MIDDLE.values(), ids=FROM_THE_MIDDLE)
def test_from_the_middle_appends_count_after_the_current_epoch_was_seen(log, start, expected):
    tail = TailCounter("feeds")
    told = [decision for at in range(start, len(log)) if (decision := tail.read(at, log[at]))]
    assert [(decision.seq, decision.offset) for decision in told] == expected


# --- any interleaving ------------------------------------------------------------------------------------


@st.composite
def logs(draw):
    """Two or three owners claim epochs (sometimes the same), send decisions of 1 to 3 parts, and lose and repeat sends."""
    queues = []
    for owner in range(draw(st.integers(2, 3))):
        sends: list[bytes] = []
        for _ in range(draw(st.integers(1, 3))):
            epoch, seq = draw(st.integers(1, 4)), draw(st.integers(1, 3))
            sends.append(claim(epoch))
            for number in range(seq, seq + draw(st.integers(0, 4))):
                n = draw(st.sampled_from([1, 1, 2, 3]))
                sends += [part(epoch, number, k, n, owner) for k in range(1, n + 1)]
        fate = draw(
            st.lists(st.sampled_from([0, 1, 1, 1, 1, 1, 2]), min_size=len(sends), max_size=len(sends))
        )
        queues.append([send for send, copies in zip(sends, fate, strict=True) for _ in range(copies)])
    log: list[bytes] = []
    while any(queues):
        queue = queues[draw(st.integers(0, len(queues) - 1))] or next(queue for queue in queues if queue)
        log.append(queue.pop(0))
        if draw(st.integers(0, 15)) == 0:
            log.append(b"garbage")
    return log


@settings(max_examples=150, deadline=None)
@property_of(logs())
def test_every_reader_sees_the_same_decisions_wherever_it_begins_and_stops(log):
    whole = read_all(log)
    view = seen(whole)
    assert [decision.seq for decision in whole] == list(range(1, len(whole) + 1))
    for end in range(len(log) + 1):
        prefix = Counter("feeds")
        before = seen(read_all(log[:end], counter=prefix))
        assert before == [line for line in view if line[2] < end]
        # A reader that stops here and resumes from its state sees the rest and no more.
        assert before + seen(read_all(log, prefix.state())) == view
    for i, decision in enumerate(whole):
        assert seen(read_all(log, decision.before)) == view[i:]
        assert seen(read_all(log, decision.after())) == view[i + 1 :]


@settings(max_examples=100, deadline=None)
@property_of(logs(), st.data())
def test_sending_again_adds_nothing(log, data):
    """A record of a counted decision is sent once more at a later place. No reader sees other content."""
    whole = read_all(log)
    if not whole:
        return
    decision = data.draw(st.sampled_from(whole))
    sent = [
        o
        for o in range(decision.first_offset, decision.offset + 1)
        if decode_append(log[o]) and is_part_of(log[o], decision)
    ]
    source = data.draw(st.sampled_from(sent))
    again = log[:]
    again.insert(data.draw(st.integers(source + 1, len(log))), log[source])
    assert [(view[0], view[3]) for view in seen(read_all(again))] == [
        (view[0], view[3]) for view in seen(whole)
    ]


def is_part_of(record, decision):
    append = decode_append(record)
    return append.seq == decision.seq and any(bytes(append.events) == bytes(body) for body in decision.bodies)
