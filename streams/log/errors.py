"""Errors, sorted by whose fault they are; the kind decides what happens next.

- `OperatorError`: a setting, a path, a contract is wrong. The message says what to change; the process exits 2.
- `WorldError`: a broker, a source, a model host does not answer. Retried, then said.
- `LogError`: a topic of ours holds what this version must not skip. The reader stops and names the record.
- Anything else is our own bug and is left to crash the process.

A participant's fault is never an exception here: it becomes an event with a reason.
"""

from __future__ import annotations


class CoordinatorError(Exception):
    """Root of the errors that this project raises on purpose."""


class OperatorError(CoordinatorError):
    """The operator can mend this; `str()` is one line that names the thing and the change."""


class ContractError(OperatorError):
    """A contract is wrong; the message names the field."""


class WorldError(CoordinatorError):
    """Something outside did not answer within its bounds."""


class OutcomeUnknownError(WorldError):
    """It was handed over and not confirmed: it may have happened, or may yet happen. Never say that it did not."""


class RefusedError(WorldError):
    """The other side says no, and will for a while: `again_seconds` is when to ask again at the earliest."""

    def __init__(self, message: str, again_seconds: float) -> None:
        super().__init__(message)
        self.again_seconds = again_seconds


class NoHistoryError(WorldError):
    """The source has no history of this: asking again is of no use."""


class LogError(CoordinatorError):
    """A record in one of our own topics that this version may not skip."""


class UnknownEventError(LogError):
    """A known envelope with an unknown kind or a newer version: upgrade this reader."""


class WrongLogError(LogError, OperatorError):
    """The topics are not this crunch's, or not whole: nothing is read or written until the operator has mended it."""


class TruncatedTopicError(WrongLogError):
    """A topic ends before the position that the state depends on: it was cut or made anew."""


class CorruptTopicError(LogError):
    """A record of a topic of ours cannot be read from Kafka any more: the disk has altered it. `topic` is its full
    name.
    """

    def __init__(self, topic: str, offset: int, why: str) -> None:
        super().__init__(
            f"topic {topic} cannot be read at offset {offset} ({why}): the broker's disk has altered it. Stop the node "
            "and put a backup into new topics (coordinator topics restore)"
        )
        self.topic, self.offset = topic, offset


class IllegalTransitionError(CoordinatorError):
    """A move that the lifecycle's table does not have; names the event and the state, changes nothing."""
