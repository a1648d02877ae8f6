"""Finds the models that need the longer first tick, because they may lack earlier ticks of a subject.

A model follows a subject while it answers. It needs a first tick of that subject when it joined, was restarted as
another deployment, or did not answer the last round; and again until it has answered. This is a value, folded from the
stage's own events. It is empty if the contract has no longer first tick.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.streams.events import RosterEntry, RoundOpened, ScopeAnsweredData


class FirstTicks(msgspec.Struct):
    """Which models follow which subjects."""

    following: dict[str, dict[str, str]] = {}
    """subject -> model_id -> the deployment that answered the subject's last round."""

    def lacking(self, subject: str, roster: Sequence[RosterEntry]) -> list[int]:
        """The indices in the roster of the models that need the first tick, ascending."""
        following = self.following.get(subject, {})
        return [
            index
            for index, entry in enumerate(roster)
            if following.get(entry.model_id) != entry.deployment_id
        ]

    def opened(self, opened: RoundOpened) -> None:
        """Fold RoundOpened: forget the models that are no longer on the roster."""
        history = opened.data.history
        if history is not None:
            asked = {entry.model_id for entry in opened.data.roster}
            following = self.following.get(history.subject, {})
            self.following[history.subject] = {
                model_id: deployment_id for model_id, deployment_id in following.items() if model_id in asked
            }

    def answered(self, opened: RoundOpened, data: ScopeAnsweredData) -> None:
        """Fold ScopeAnswered: a model that gave a valid answer to any scope had its tick, and follows the subject.

        If the answer came from another deployment than the one that was asked, that one had only the tick of this
        round: it follows the subject only if that was a first tick.
        """
        history = opened.data.history
        if history is None or history.reason:
            return
        following, had_first_tick = self.following.setdefault(history.subject, {}), set(history.models)
        is_first = data.scope_key == opened.data.scope_keys[0]
        for index, entry in zip(data.models, data.entries(opened.data.roster), strict=True):
            asked = opened.data.roster[index]
            is_same = entry.deployment_id == asked.deployment_id
            if entry.status == "PENDING" and (index in had_first_tick or is_same):
                following[entry.model_id] = entry.deployment_id
            # Another deployment without a first tick does not follow. Nor does a model without an answer to the first
            # scope, until its answer to another scope says so.
            elif entry.status == "PENDING" or is_first:
                following.pop(entry.model_id, None)
