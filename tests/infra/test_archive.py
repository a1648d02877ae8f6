"""An archive of closed periods: written in steps, proven by the node's note, read again. Every alteration is named."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from functools import lru_cache

import msgspec
import pytest
from tests.memory_log import Author, MemoryLog, undisturbed
from tests.shelf import Shelf
from tests.streams.checkpoints.test_checkpoint_commands import advance, confirm
from tests.streams.test_crash_chain import checkpoint_stage, market

from coordinator.infra.evidence.signing_keys import signing_keys
from coordinator.infra.log import archiving
from coordinator.infra.log.archive_file import Judge, PeriodHead, encode, file_name, files_in
from coordinator.infra.log.archive_restoring import write_restored
from coordinator.infra.log.copy_file import LENGTH, Copied, Tail, read_topics
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.replay import replay_archive
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams import events as ev
from coordinator.streams.log.errors import LogError, OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.topology import TOPICS

FAR_MS = 1 << 50


def silent(_done, _total):
    pass


@lru_cache
def paid_log() -> MemoryLog:
    """A log with three checkpoints, of which the first two are paid."""
    log = market(1).copy()
    commands = Author(log, "commands")
    opened = [event.data for event in log.events("checkpoints") if isinstance(event, ev.CheckpointOpened)]
    for number, data in enumerate(opened[:2]):
        tx = str(number + 2) * 88
        commands.write(confirm(tx, checkpoint_id=data.checkpoint_id))
        for status in ("CLAIMABLE", "PAID"):
            command = advance(status, data.checkpoint_id, tx)
            commands.write(msgspec.structs.replace(command, id=f"{status}-{number}"))
    decided = undisturbed(log.copy("snapshots", "commands"), checkpoint_stage)
    log.topics["checkpoints"] = decided["checkpoints"]
    paid = [
        event.data.checkpoint_id
        for event in log.events("checkpoints")
        if isinstance(event, ev.CheckpointPaid)
    ]
    assert paid == [data.checkpoint_id for data in opened[:2]]
    for topic in TOPICS:
        if not log.end(topic):
            log.append(topic, b"{}")
    return log


class Records:
    """A `RecordSource` of a log in memory."""

    birth_id = "birth"

    def __init__(self, log):
        self.log = log

    async def ends(self):
        return {topic: self.log.end(topic) for topic in TOPICS}

    async def records(self, topic, start, end):
        for offset in range(start, end):
            yield Copied(topic, offset, 1000 + offset, self.log.record(topic, offset))


def settings_in(folder):
    (folder / "node").mkdir(exist_ok=True)
    return Settings(crunch_id="btc-up", data_dir=folder / "node")


def archive(folder, until=FAR_MS, log=None):
    to = folder / "archive"
    to.mkdir(exist_ok=True)
    source = Records(log or paid_log())
    done = asyncio.run(archiving.write_archive(settings_in(folder), source, to, until, Shelf(), silent))
    return to, done


def read(folder):
    judge, records = Judge(), {topic: [] for topic in TOPICS}
    for path in files_in(folder):
        for entry in judge.read(path):
            records[entry.topic].append(entry.value)
    return judge, records


def test_the_paid_periods_are_archived_byte_for_byte_and_prove_themselves(tmp_path):
    log = paid_log()
    to, done = archive(tmp_path)
    opened = [event.data for event in log.events("checkpoints") if isinstance(event, ev.CheckpointOpened)]
    assert (done.files, done.written, done.open_checkpoint) == (2, 2, opened[2].checkpoint_id)
    judge, records = read(to)
    assert judge.head.checkpoint_ids == [opened[1].checkpoint_id]
    for topic in TOPICS:
        assert records[topic] == log[topic][: judge.head.ends[topic]]
    assert sum(map(len, records.values())) == done.records > 400
    assert len(records["scores"]) < log.end("scores")


def test_every_source_of_a_decision_in_it_is_in_it_too(tmp_path):
    to, _ = archive(tmp_path)
    _, records = read(to)
    inside = MemoryLog(records)
    for topic in ("inputs", "scores", "snapshots", "checkpoints", "predictions"):
        for decision in inside.decisions(topic):
            for driver, (offset, _) in decision.upto.items():
                assert offset < len(records[driver]), (topic, decision.offset, driver)


def test_it_continues_where_it_stopped_and_makes_the_same_bytes(tmp_path, monkeypatch):
    whole, _ = archive(tmp_path)
    expected = {path.name: path.read_bytes() for path in files_in(whole)}
    (tmp_path / "again" / "node").mkdir(parents=True)
    key = tmp_path / "again" / "node" / "evidence"
    key.mkdir()
    (key / "key").write_bytes((tmp_path / "node" / "evidence" / "key").read_bytes())
    (key / "key").chmod(0o600)
    first_id = paid_log_ids()[0]
    to, done = archive(tmp_path / "again", until=first_id)
    assert (done.files, done.written, done.open_checkpoint) == (1, 1, "")

    class KilledError(Exception):
        """The process ends here."""

    def replace(self, _path):
        raise KilledError

    with monkeypatch.context() as killed:
        killed.setattr(type(to), "replace", replace)
        with pytest.raises(KilledError):
            archive(tmp_path / "again")
    assert [path.name for path in files_in(to)] == [file_name(1)]
    _, done = archive(tmp_path / "again")
    assert (done.files, done.written) == (2, 1)
    assert {path.name: path.read_bytes() for path in files_in(to)} == expected
    _, done = archive(tmp_path / "again")
    assert (done.files, done.written, done.records) == (2, 0, 0)


def paid_log_ids():
    return [
        event.data.checkpoint_id
        for event in paid_log().events("checkpoints")
        if isinstance(event, ev.CheckpointOpened)
    ]


def test_the_read_models_built_from_it_equal_those_from_the_topics(tmp_path):
    log = paid_log()
    to, _ = archive(tmp_path)
    judge, _ = read(to)
    for until in (None, list(log.events("feeds"))[200].at):
        models = open_read_models(tmp_path / f"of-topics-{until}", "cluster", "btc-up")
        folder = Folder(models.all(), until_ms=until)
        for topic in folder.readers:
            for offset in range(judge.head.ends[topic]):
                folder.fold(topic, offset, log.record(topic, offset))
        folder.commit()
        replayed = replay_archive(to, None, until, silent)
        assert replayed.state_hash == {
            projection.name: projection.store.state_hash for projection in models.all()
        }
        models.close()


def test_it_is_restored_like_a_backup(tmp_path):
    to, _ = archive(tmp_path)
    _, records = read(to)
    tail = write_restored(to, tmp_path / "earlier.backup", silent)
    assert tail.records == sum(map(len, records.values()))
    again = read_topics(tmp_path / "earlier.backup", TOPICS)
    assert {topic: again[topic] for topic in TOPICS} == records


def altered(path, change):
    """Writes a file again with changed entries, and with a tail that fits them."""
    entries, rest = [], gzip.decompress(path.read_bytes())
    while rest:
        (length,) = LENGTH.unpack(rest[: LENGTH.size])
        entries.append(rest[LENGTH.size : LENGTH.size + length])
        rest = rest[LENGTH.size + length :]
    decoded = [msgspec.msgpack.decode(piece, type=PeriodHead | Copied | Tail) for piece in entries]
    head, *records, _ = change(decoded)
    digest = hashlib.sha256(encode(head))
    for record in records:
        digest.update(encode(record))
    fitting = [head, *records, Tail(len(records), digest.hexdigest(), 0)]
    path.write_bytes(
        gzip.compress(b"".join(LENGTH.pack(len(encode(piece))) + encode(piece) for piece in fitting))
    )


def one_score(entries):
    place = next(
        i for i, piece in enumerate(entries) if isinstance(piece, Copied) and b'"RoundScored"' in piece.value
    )
    value = entries[place].value.replace(b'"units":{"value":[', b'"units":{"value":[1', 1)
    assert value != entries[place].value
    entries[place] = msgspec.structs.replace(entries[place], value=value)
    return entries


def without_a_record(entries):
    place = next(
        i
        for i, piece in enumerate(entries)
        if isinstance(piece, Copied) and piece.topic == "scores" and piece.offset == 5
    )
    del entries[place]
    return entries


def of_another_birth(entries):
    entries[0] = msgspec.structs.replace(entries[0], birth_id="another")
    return entries


def a_kind_altered(path):
    """In what is compressed, and the stream's own sum does not fit."""
    content = gzip.decompress(path.read_bytes())
    assert b'"InputReceived"' in content
    packed = gzip.compress(content.replace(b'"InputReceived"', b'"InputReceivee"', 1))
    path.write_bytes(flipped(packed, len(packed) - 8))


HARMS = {
    "a byte flipped that leaves another kind of event": (
        1,
        a_kind_altered,
        "000001.period was cut or damaged",
    ),
    "a byte flipped": (1, lambda path: path.write_bytes(flipped(path.read_bytes())), "000001.period"),
    "a bit flipped in what is compressed": (
        1,
        lambda path: path.write_bytes(flipped(path.read_bytes(), 40)),
        "000001.period was cut or damaged",
    ),
    "cut": (2, lambda path: path.write_bytes(path.read_bytes()[:-40]), "000002.period was cut or damaged"),
    "missing": (1, lambda path: path.unlink(), "000001.period is missing"),
    "empty": (2, lambda path: path.write_bytes(b""), "000002.period is not a file of an archive"),
    "a score altered, with a sum that fits": (
        1,
        lambda path: altered(path, one_score),
        "node has not signed",
    ),
    "a record left out, with a sum that fits": (
        1,
        lambda path: altered(path, without_a_record),
        "lacks the record scores:5",
    ),
    "of another log": (
        2,
        lambda path: altered(path, of_another_birth),
        "does not continue where the file before it ended",
    ),
}


def flipped(content, place=None):
    place = len(content) // 2 if place is None else place
    return content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, harm):
    number, do, says = HARMS[harm]
    to, _ = archive(tmp_path)
    do(to / file_name(number))
    for use in (
        lambda: write_restored(to, tmp_path / "earlier.backup", silent),
        lambda: replay_archive(to, ["snapshots"], None, silent),
        lambda: archive(tmp_path),
    ):
        with pytest.raises(LogError, match="run `coordinator log archive` again") as error:
            use()
        assert says in str(error.value)
    assert not list(tmp_path.glob("*.backup*"))


def test_a_note_of_another_key_proves_nothing(tmp_path):
    to, _ = archive(tmp_path)
    (tmp_path / "other").mkdir()
    other = str(signing_keys(settings_in(tmp_path / "other")).first.verifier)

    def keyed(entries):
        entries[0] = msgspec.structs.replace(entries[0], key=other)
        return entries

    altered(to / file_name(1), keyed)
    with pytest.raises(LogError, match="node has not signed"):
        read(to)


def test_an_impossible_archive_is_refused(tmp_path):
    with pytest.raises(OperatorError, match="no checkpoint ckp_none"):
        archive(tmp_path, until="ckp_none")
    with pytest.raises(OperatorError, match="holds no archive"):
        replay_archive(tmp_path / "archive", None, None, silent)
    with pytest.raises(OperatorError, match="there is no folder"):
        write_restored(tmp_path / "nowhere", tmp_path / "x", silent)
    to, _ = archive(tmp_path)
    source = Records(paid_log())
    source.birth_id = "another"
    with pytest.raises(OperatorError, match="archive of another log"):
        asyncio.run(archiving.write_archive(settings_in(tmp_path), source, to, FAR_MS, Shelf(), silent))


def test_an_archive_of_a_time_before_the_first_payment_says_when_that_is(tmp_path):
    _, done = archive(tmp_path, until=1)
    assert done.files == 0
    assert done.first_end_ms is not None
    assert done.first_end_ms > 1
