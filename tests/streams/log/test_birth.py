"""Birth records, and whether a log is ours and complete: what each reader passes over, and what is refused with which
message.
"""

from __future__ import annotations

import msgspec
import pytest
from tests.streams.build import tick

from coordinator.projections.folding.decisions import TopicReader
from coordinator.streams.log.birth import Birth, birth_records, read_birth
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import Append, Need, encode_append, encode_decision
from coordinator.streams.log.errors import WrongLogError
from coordinator.streams.log.integrity import (
    LogFound,
    LogMemory,
    TopicFound,
    TopicSeen,
    check_log,
    unfinished_birth,
)
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.topology import TOPICS

BIRTHS = birth_records("btc-up", Birth("b1", 1))
OTHERS = birth_records("btc-up", Birth("b2", 1))
CLAIM = encode_append(Append(e=1, epoch=1, seq=0, claim="one"))


def decided(seq: int) -> bytes:
    return encode_decision([tick(seq)], epoch=1, seq=seq, upto={}, need={})[0]


# --- readers -------------------------------------------------------------------------------------------


def test_every_reader_passes_over_a_birth_record_and_does_not_count_it():
    counter = Counter("feeds")
    log = [BIRTHS["feeds"], CLAIM, decided(1)]
    assert [counted.seq for at, record in enumerate(log) if (counted := counter.read(at, record))] == [1]
    assert counter.uncounted == 0
    for topic in TOPICS:
        reader = TopicReader(topic, Need())
        assert reader.read(0, BIRTHS[topic]) is None
        assert (reader.next_offset, reader.uncounted) == (1, 0)
    plain = PlainCounter("commands")
    assert plain.read(0, BIRTHS["commands"]) is None
    assert (plain.garbage, plain.next_offset) == ("", 1)


def test_a_birth_record_in_the_middle_of_a_topic_is_not_accepted():
    counter = Counter("feeds")
    counter.read(0, BIRTHS["feeds"])
    counter.read(1, BIRTHS["feeds"])
    assert counter.uncounted == 1


@pytest.mark.parametrize("record", [None, b"", b"garbage", CLAIM, decided(1), b'{"kind":"TopicBorn"}'])
def test_other_records_are_no_birth_records(record):
    assert read_birth(record) is None


# --- is it ours, is it whole ---------------------------------------------------------------------------


def log_found(cluster_id: str = "K", **changes: TopicFound | None) -> LogFound:
    """Nine topics with ten records each, apart from the changes; None removes a topic."""
    whole = {topic: TopicFound(f"id-{topic}", 0, 10, BIRTHS[topic]) for topic in TOPICS}
    for name, topic_found in changes.items():
        topic = name.replace("_", "-")
        if topic_found is None:
            del whole[topic]
        else:
            whole[topic] = topic_found
    return LogFound(cluster_id, whole)


def memory(ends: int = 10, **changes: str) -> LogMemory:
    fields = {
        "crunch_id": "btc-up",
        "cluster_id": "K",
        "birth_id": "b1",
        "where": "node/topics.json",
    } | changes
    return LogMemory(**fields, topics={topic: TopicSeen(f"id-{topic}", ends) for topic in TOPICS})


def altered(topic: str, **changes) -> LogFound:
    whole = log_found()
    topic_found = msgspec.structs.replace(whole.topics[topic], **changes)
    return LogFound("K", {**whole.topics, topic: topic_found})


def test_a_complete_log_is_ours_remembered_or_not():
    assert check_log("btc-up", log_found(), None, "k:1") == "b1"
    assert check_log("btc-up", log_found(), memory(), "k:1") == "b1"
    assert check_log("btc-up", log_found(), memory(ends=3), "k:1") == "b1"


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("memory_of_log", [None, memory()])
def test_a_lost_or_recreated_topic_is_refused_by_name_with_instructions(topic, memory_of_log):
    lost = {
        "does not exist": LogFound(
            "K", {name: at for name, at in log_found().topics.items() if name != topic}
        ),
        "is empty": altered(topic, end=0, first=None),
        "has no birth record": altered(topic, first=b"garbage"),
        "its past was deleted": altered(topic, begin=4, first=None),
        "the id in its birth record is b2, and not b1": altered(topic, first=OTHERS[topic]),
    }
    for complaint, log in lost.items():
        with pytest.raises(WrongLogError, match=rf"topic btc-up\.{topic} ") as error:
            check_log("btc-up", log, memory_of_log, "k:1")
        assert complaint in str(error.value)
        assert "topics restore" in str(error.value)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_that_is_shorter_or_another_than_remembered_is_refused(topic):
    for complaint, log in {
        "holds 9 records, but it had 10": altered(topic, end=9),
        "is another one than before": altered(topic, topic_id="id-new", end=1000),
    }.items():
        with pytest.raises(WrongLogError, match=rf"topic btc-up\.{topic} {complaint}.*node/topics\.json"):
            check_log("btc-up", log, memory(), "k:1")


def test_without_a_memory_a_shorter_topic_is_recognised_by_the_decisions_that_read_it():
    with pytest.raises(
        WrongLogError, match=r"btc-up\.inputs holds 10 records, but btc-up\.scores .* from 11"
    ):
        check_log("btc-up", altered("scores", says={"inputs": 11, "predictions": 10}), None, "k:1")


def test_another_cluster_another_birth_and_another_crunchs_topics_are_refused():
    with pytest.raises(WrongLogError, match="k:1 is cluster X, but crunch btc-up belongs to cluster K"):
        check_log("btc-up", log_found("X"), memory(), "k:1")
    with pytest.raises(WrongLogError, match="belongs to another crunch"):
        check_log("btc-up", log_found(), memory(birth_id="b9"), "k:1")
    strangers = birth_records("eth-up", Birth("b1", 1))
    with pytest.raises(WrongLogError, match="is the topic feeds of crunch eth-up"):
        check_log("btc-up", altered("feeds", first=strangers["feeds"]), None, "k:1")
    with pytest.raises(WrongLogError, match="topics create"):
        check_log("btc-up", LogFound("K", {}), None, "k:1")


def test_an_interrupted_creation_is_completed_and_nothing_else_is():
    assert unfinished_birth(LogFound("K", {})) == ""
    empty = TopicFound("id", 0, 0)
    assert unfinished_birth(LogFound("K", dict.fromkeys(TOPICS, empty))) == ""
    half = {"feeds": TopicFound("id", 0, 1, BIRTHS["feeds"]), "inputs": empty}
    assert unfinished_birth(LogFound("K", half)) == "b1"
    assert (
        unfinished_birth(LogFound("K", half | {"scores": TopicFound("id", 0, 2, BIRTHS["scores"])})) is None
    )
    assert (
        unfinished_birth(LogFound("K", half | {"scores": TopicFound("id", 0, 1, OTHERS["scores"])})) is None
    )
    assert unfinished_birth(LogFound("K", half | {"scores": TopicFound("id", 0, 1, b"garbage")})) is None
