"""What a data directory remembers of its crunch's log: `topics.json` with cluster, birth, and each topic's id and end.

The process that watches the log writes the file; several processes may share a directory. The file holds no fact that
the log does not hold. It only reveals what a log cannot show by itself: that all topics are gone, or that a topic lost
its last records.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from coordinator.infra.processes.data_dir import exclusive
from coordinator.infra.whole_file import write_whole
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.integrity import LogFound, LogMemory, TopicSeen

FILE = "topics.json"


class LogMemoryFile:
    """`<data_dir>/topics.json`; a directory that does not exist remembers nothing."""

    def __init__(self, data_dir: Path, crunch_id: str) -> None:
        self.path = data_dir / FILE
        self._crunch_id = crunch_id
        self._written: LogMemory | None = None

    def read(self) -> LogMemory | None:
        """The memory; None if there is none yet. Raises OperatorError for an unreadable file or another crunch's."""
        try:
            memory = msgspec.json.decode(self.path.read_bytes(), type=LogMemory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise OperatorError(
                f"{self.path} cannot be read ({error}); remove it if you are sure that the topics are whole"
            ) from error
        if memory.crunch_id != self._crunch_id:
            raise OperatorError(
                f"{self.path} belongs to crunch {memory.crunch_id}, not to {self._crunch_id}; set CRUNCH_ID, or choose "
                "another directory with --data-dir"
            )
        return msgspec.structs.replace(memory, where=str(self.path))

    def write(self, log_found: LogFound, birth_id: str, *, anew: bool = False) -> None:
        """Remember the log's state. A remembered end never decreases, unless `anew` (after a restore)."""
        if not os.access(self.path.parent, os.W_OK | os.X_OK):
            return
        with exclusive(self.path.with_suffix(".lock")):
            before = None if anew else self.read()
            ends = (
                {topic: topic_found.end for topic, topic_found in before.topics.items()}
                if before is not None
                else {}
            )
            topics = {
                topic: TopicSeen(topic_found.topic_id, max(topic_found.end, ends.get(topic, 0)))
                for topic, topic_found in log_found.topics.items()
            }
            now = LogMemory(self._crunch_id, log_found.cluster_id, birth_id, topics)
            if now == self._written:
                return
            write_whole(self.path, msgspec.json.encode(now))
            self._written = now
