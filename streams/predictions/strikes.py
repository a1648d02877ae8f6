"""Counts the bad rounds of each model in a row, and says when to report it to the orchestrator.

Takes the answers of a round, returns `Strike`s. The client library counts, too, but a good tick resets its count, so it
never reports a model that fails in every prediction. Here only a good prediction resets it. The count lives as long as
the worker: a restart gives a failing model some more rounds, and has no other effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from coordinator.streams.events import AnswerEntry
from coordinator.streams.log.reasons import without_quotes

MULTIPLE_FAILED, MULTIPLE_TIMEOUT = "MULTIPLE_FAILED", "MULTIPLE_TIMEOUT"  # the protocol's codes


class Strike(msgspec.Struct, frozen=True):
    """A model to report: the protocol's code, and the reason as text for its owner."""

    model_id: str
    code: str
    reason: str


class Strikes:
    """Bad rounds in a row, by model."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}

    def note(
        self, answers: Mapping[str, Sequence[AnswerEntry]], strikes_max: int, *, may_quote: bool = True
    ) -> list[Strike]:
        """Count the answers of one round, all scopes of a model together. Returns the models to report.

        These have `strikes_max` or more bad rounds in a row; 0 reports none. A round that was missed by the node's
        fault is not counted. The text of a report, which everybody reads, quotes a model only if it `may_quote`: what
        a model says of an open question may tell its answer.
        """
        good: set[str] = set()
        bad: dict[str, AnswerEntry] = {}
        for of_scope in answers.values():
            for answer in of_scope:
                if answer.status == "PENDING":
                    good.add(answer.model_id)
                elif answer.fault == "model":
                    bad[answer.model_id] = answer
        for model_id in good if self._in_a_row else ():
            self._in_a_row.pop(model_id, None)
        due: list[Strike] = []
        for model_id in sorted(bad.keys() - good) if bad else ():
            count = self._in_a_row[model_id] = self._in_a_row.get(model_id, 0) + 1
            if 0 < strikes_max <= count:
                last = bad[model_id]
                code = MULTIPLE_TIMEOUT if last.status == "ABSENT" else MULTIPLE_FAILED
                says = (
                    without_quotes(last.reason) if last.status == "FAILED" and not may_quote else last.reason
                )
                reason = f"{count} rounds in a row without a valid prediction; the last: {says}"
                due.append(Strike(model_id, code, reason))
        return due

    def reported(self, model_id: str) -> None:
        """The orchestrator accepted the report: counting restarts."""
        self._in_a_row.pop(model_id, None)
