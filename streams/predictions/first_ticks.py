"""Which models need the longer first tick of a contract that has one: those that may lack what came before.

A model follows a subject while it answers: it joined, was restarted as another deployment or left a round unanswered,
and the next tick of that subject is a first one, until it has answered. A value, folded from own events alone, and
empty where the contract gives every tick the same number of records.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.streams.events import RosterEntry, RoundOpened, ScopeAnsweredData


class FirstTicks(msgspec.Struct):
    """Who follows which subject."""

    following: dict[str, dict[str, str]] = {}
    """subject -> model_id -> the deployment that answered the subject's last round."""

    def lacking(self, subject: str, roster: Sequence[RosterEntry]) -> list[int]:
        """The indices of those on the roster that need the first tick, ascending."""
        following = self.following.get(subject, {})
        return [i for i, one in enumerate(roster) if following.get(one.model_id) != one.deployment_id]

    def opened(self, opened: RoundOpened) -> None:
        """Who is on no roster any more follows nothing."""
        history = opened.data.history
        if history is not None:
            asked = {entry.model_id for entry in opened.data.roster}
            following = self.following.get(history.subject, {})
            self.following[history.subject] = {key: one for key, one in following.items() if key in asked}

    def answered(self, opened: RoundOpened, data: ScopeAnsweredData) -> None:
        """Who gave a valid answer to any scope has its tick; an answer of a deployment that came between asking and
        answering says nothing about that.
        """
        history = opened.data.history
        if history is None or history.reason:
            return
        following, given = self.following.setdefault(history.subject, {}), set(history.models)
        is_first = data.scope_key == opened.data.scope_keys[0]
        for index, entry in zip(data.models, data.entries(opened.data.roster), strict=True):
            asked = opened.data.roster[index]
            if entry.status == "PENDING" and (index in given or entry.deployment_id == asked.deployment_id):
                following[entry.model_id] = entry.deployment_id
            elif entry.status == "PENDING" or is_first:
                following.pop(entry.model_id, None)
