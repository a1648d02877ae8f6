"""A record with a wrong checksum stops every reader, which names the topic and the offset, whichever way it reads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException

from coordinator.infra.log import copy as log_copy
from coordinator.projections.folding import replay
from coordinator.streams.log.errors import CorruptTopicError

SCORES = TopicPartition("btc-up.scores", 0)
DAMAGED_AT = 2


class DamagedTopic:
    """Like aiokafka: it returns nothing of a batch with a damaged record, but single records up to it."""

    def __init__(self) -> None:
        self.at = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, _partitions) -> None: ...

    def seek(self, _partition, offset) -> None:
        self.at = offset

    def assignment(self) -> set[TopicPartition]:
        return {SCORES}

    def pause(self, *_partitions) -> None: ...

    async def position(self, _partition) -> int:
        return self.at

    async def getmany(self, *, timeout_ms, max_records=None):
        if max_records != 1 or self.at == DAMAGED_AT:
            raise CorruptRecordException(f"Invalid CRC - {SCORES}")
        self.at += 1
        return {SCORES: [SimpleNamespace(offset=self.at - 1, value=b"")]}


async def test_a_backup_names_it():
    with pytest.raises(CorruptTopicError, match=f"{SCORES.topic} cannot be read at offset {DAMAGED_AT} "):
        [record async for record in log_copy._records(DamagedTopic(), SCORES.topic, 5)]


async def test_a_replay_names_it(monkeypatch):
    async def assigned(*_):
        return {SCORES: "scores"}, {"scores": 5}

    monkeypatch.setattr(replay, "make_reader", lambda _bootstrap: DamagedTopic())
    monkeypatch.setattr(replay, "assign_from", assigned)
    folder = SimpleNamespace(positions=lambda: {"scores": 0})
    with pytest.raises(CorruptTopicError, match=f"{SCORES.topic} cannot be read at offset {DAMAGED_AT} "):
        await replay._fold_all(folder, "", "btc-up", None, {}, lambda *_: None)  # type: ignore[arg-type]
