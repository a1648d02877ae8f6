"""Our own count of a model's bad rounds, and when to report it to the orchestrator.

Reads the answers of a round; emits `Strike`s. The client library counts as well, but a good tick sets its count
back, so a model that fails in every predict is never reported by it. Here only a good prediction sets it back.
The count lives as long as the worker: a restart gives a failing model some rounds more, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from coordinator.streams.events import AnswerEntry

MULTIPLE_FAILED, MULTIPLE_TIMEOUT = "MULTIPLE_FAILED", "MULTIPLE_TIMEOUT"  # the protocol's codes


class Strike(msgspec.Struct, frozen=True):
    """A model to report: the protocol's code, and the words for its owner."""

    model_id: str
    code: str
    reason: str


class Strikes:
    """Bad rounds in a row, by model."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}

    def note(self, answers: Mapping[str, Sequence[AnswerEntry]], strikes_max: int) -> list[Strike]:
        """Count the answers of one round (all scopes of a model together); who has `strikes_max` bad rounds in a
        row is due. 0: nobody ever is. A round missed by the node's fault counts for nothing.
        """
        good: set[str] = set()
        bad: dict[str, AnswerEntry] = {}
        for answer in chain.from_iterable(answers.values()):
            if answer.status == "PENDING":
                good.add(answer.model_id)
            elif answer.fault == "model":
                bad[answer.model_id] = answer
        for model_id in good:
            self._in_a_row.pop(model_id, None)
        due: list[Strike] = []
        for model_id in sorted(bad.keys() - good):
            count = self._in_a_row[model_id] = self._in_a_row.get(model_id, 0) + 1
            if 0 < strikes_max <= count:
                last = bad[model_id]
                code = MULTIPLE_TIMEOUT if last.status == "ABSENT" else MULTIPLE_FAILED
                reason = f"{count} rounds in a row without a valid prediction; the last: {last.reason}"
                due.append(Strike(model_id, code, reason))
        return due

    def reported(self, model_id: str) -> None:
        """The orchestrator knows; counting starts anew."""
        self._in_a_row.pop(model_id, None)
