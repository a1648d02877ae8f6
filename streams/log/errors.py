"""Errors by whose fault they are; the class decides what happens next.

- `OperatorError`: a setting, a path or a contract is wrong. The message says what to change; the process exits with 2.
- `WorldError`: a broker, a source or a model host does not answer. The operation is retried; if that fails, reported.
- `LogError`: a topic of the crunch holds a record that this version must not skip. The reader stops and names the
  record.
- `NodeRefusedError`: the node refused what a command asked for. The process exits with 1.
- Any other exception is a bug, and crashes the process.

A participant's fault is never an exception: it becomes an event with a reason.
"""

from __future__ import annotations

import msgspec

UNREADABLE_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes from outside that are no JSON of the type; the last for JSON that nests too deep."""


def text_of(error: BaseException) -> str:
    """The message of an error, or the name of its class if the message is empty: a timeout has no text."""
    return str(error) or type(error).__name__


class CoordinatorError(Exception):
    """The base class of all errors that this project raises on purpose."""


class OperatorError(CoordinatorError):
    """The operator can correct this; `str()` is one line that says what is wrong and what to change."""


class ContractError(OperatorError):
    """A contract is wrong; the message names the field."""


class BlobLostError(OperatorError):
    """The bytes that the log names are missing or altered; the message names the blob, and no path."""


class WorldError(CoordinatorError):
    """Something outside the node did not answer in time."""


class OutcomeUnknownError(WorldError):
    """A request was sent and not confirmed: it may have had its effect, or may still. Never say that it failed."""


class NodeRefusedError(CoordinatorError):
    """The node refused what a command asked for, and did nothing; the message has its reason. Exit code 1."""


class RefusedError(WorldError):
    """The other side refuses, and will for some time: ask again after `again_seconds` at the earliest."""

    def __init__(self, message: str, again_seconds: float) -> None:
        super().__init__(message)
        self.again_seconds = again_seconds


class NoHistoryError(WorldError):
    """The source has no history of this; asking again is useless."""


class LogError(CoordinatorError):
    """A topic of the crunch holds a record that this version must not skip."""


class UnknownEventError(LogError):
    """An envelope of the crunch holds an event of an unknown kind or a newer version: upgrade this reader."""


class WrongLogError(LogError, OperatorError):
    """The topics are not this crunch's, or are incomplete: nothing is read or written until they are restored."""


class TruncatedTopicError(WrongLogError):
    """A topic does not hold the position that the state depends on: it was cut or created again."""


class CorruptTopicError(LogError):
    """A record of the crunch can no longer be read from Kafka: the disk has altered it. `topic` is the topic's full
    name.
    """

    def __init__(self, topic: str, offset: int, reason: str) -> None:
        super().__init__(
            f"topic {topic} cannot be read at offset {offset} ({reason}): the broker's disk has altered it. Stop the "
            "node and put a backup into new topics (coordinator topics restore)"
        )
        self.topic, self.offset = topic, offset


class IllegalTransitionError(CoordinatorError):
    """A lifecycle does not allow this event in this state; the message names both, and nothing has changed."""
