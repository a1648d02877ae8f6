"""The truths that are still open, by subject and horizon, in order of their points.

A value: lists in dicts. The points of a horizon open in order, so the first of its list is resolved first. A question
about all open truths therefore looks only at the heads of the lists.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import Feed, InputReceivedData


class OpenHorizon(msgspec.Struct, frozen=True, order=True):
    """One open truth. The order of its fields makes the one that is due first the smallest."""

    resolvable_at: int
    point: int
    subject: str
    horizon_seconds: int
    contract_hash: str
    input_id: str


def horizons(data: InputReceivedData) -> list[OpenHorizon]:
    """The truths that an input waits for: one for each horizon; several scopes may share it."""
    return [
        OpenHorizon(
            data.point + seconds * 1000, data.point, data.subject, seconds, data.contract_hash, data.input_id
        )
        for seconds in sorted({scope.horizon_seconds for scope in data.scopes})
    ]


class OpenHorizons(msgspec.Struct):
    """All open truths. A subject has at most one input at a point."""

    by_subject: dict[str, dict[int, list[OpenHorizon]]] = {}
    """subject -> horizon in seconds -> its open truths in order of their points."""

    def add(self, horizon: OpenHorizon) -> None:
        """Add one."""
        of_subject = self.by_subject.setdefault(horizon.subject, {})
        insort(of_subject.setdefault(horizon.horizon_seconds, []), horizon)

    def remove(self, input_id: str, horizon_seconds: int, resolvable_at: int) -> None:
        """Remove one that is resolved; nothing happens if it is not open."""
        for subject, of_subject in self.by_subject.items():
            waiting = of_subject.get(horizon_seconds, [])
            index = _index(waiting, resolvable_at - horizon_seconds * 1000)
            if index is None or waiting[index].input_id != input_id:
                continue
            del waiting[index]
            if not waiting:
                del of_subject[horizon_seconds]
            if not of_subject:
                del self.by_subject[subject]
            return

    def after(self, added: Iterable[OpenHorizon], resolved: Iterable[OpenHorizon]) -> OpenHorizons:
        """The open truths after these are added and resolved. This one does not change; untouched lists are shared."""
        added, resolved = list(added), list(resolved)
        then = OpenHorizons(dict(self.by_subject))
        for horizon in (*added, *resolved):
            of_subject = self.by_subject.get(horizon.subject)
            if of_subject is not None and then.by_subject[horizon.subject] is of_subject:
                then.by_subject[horizon.subject] = {
                    seconds: list(waiting) for seconds, waiting in of_subject.items()
                }
        for horizon in added:
            then.add(horizon)
        for horizon in resolved:
            then.remove(horizon.input_id, horizon.horizon_seconds, horizon.resolvable_at)
        return then

    def _lists(self) -> list[list[OpenHorizon]]:
        return [waiting for of_subject in self.by_subject.values() for waiting in of_subject.values()]

    def due(self, now: int, changed_at: int) -> list[OpenHorizon]:
        """In order: those that are due up to `now`, and those whose point is before `changed_at`, both in ms.

        `changed_at` is when the terms changed last: a change of the feed ends the windows of older points.
        """
        due: list[OpenHorizon] = []
        for waiting in self._lists():
            for horizon in waiting:
                if horizon.resolvable_at > now and horizon.point >= changed_at:
                    break
                due.append(horizon)
        due.sort()
        return due

    def waits(self, subject: str, point: int) -> bool:
        """Whether any horizon of a subject's input at this point is open."""
        lists = self.by_subject.get(subject, {}).values()
        return any(_index(waiting, point) is not None for waiting in lists)

    def earliest(self) -> int | None:
        """When the first is due, in ms; None if none is open."""
        return min([waiting[0].resolvable_at for waiting in self._lists()], default=None)

    def entries(self, terms: TermsInForce) -> dict[tuple[Feed, str], int]:
        """(feed, subject) -> the oldest point, in ms, of an open truth."""
        oldest: dict[tuple[Feed, str], int] = {}
        lists = self._lists()
        for number, (start, until, terms_then) in enumerate(terms.spans()):
            for waiting in lists:
                # The first terms also hold for what came before them.
                index = bisect_left(waiting, start, key=_point) if number else 0
                if index < len(waiting) and waiting[index].point < until:
                    point = waiting[index].point
                    for subject in terms_then.members(waiting[index].subject):
                        key = (terms_then.feed, subject)
                        oldest[key] = min(point, oldest.get(key, point))
        return oldest


def _point(horizon: OpenHorizon) -> int:
    return horizon.point


def _index(waiting: list[OpenHorizon], point: int) -> int | None:
    index = bisect_left(waiting, point, key=_point)
    return index if index < len(waiting) and waiting[index].point == point else None
