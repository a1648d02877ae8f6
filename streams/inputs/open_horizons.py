"""The truths that are waited for, by subject and horizon, in order of their points.

A value: plain lists in dicts. Points of a horizon are opened in order, so its oldest stands first in its list and is
resolved first; whoever asks looks at the heads of the lists, however many truths are open.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import takewhile

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import Feed, InputReceivedData


class OpenHorizon(msgspec.Struct, frozen=True, order=True):
    """A truth that is waited for; ordered by when it is due."""

    resolvable_at: int
    point: int
    subject: str
    horizon_seconds: int
    contract_hash: str
    input_id: str


def horizons(data: InputReceivedData) -> list[OpenHorizon]:
    """The truths that an input waits for: one for each of its horizons, however many scopes share it."""
    return [
        OpenHorizon(
            data.point + seconds * 1000, data.point, data.subject, seconds, data.contract_hash, data.input_id
        )
        for seconds in sorted({scope.horizon_seconds for scope in data.scopes})
    ]


class OpenHorizons(msgspec.Struct):
    """All of them. A subject has at most one input at a point."""

    by_subject: dict[str, dict[int, list[OpenHorizon]]] = {}
    """subject -> horizon in s -> its truths in order of their points."""

    def add(self, one: OpenHorizon) -> None:
        """Wait for it."""
        insort(self.by_subject.setdefault(one.subject, {}).setdefault(one.horizon_seconds, []), one)

    def remove(self, input_id: str, horizon_seconds: int, resolvable_at: int) -> None:
        """It is resolved; what is not waited for changes nothing."""
        for subject, of_subject in self.by_subject.items():
            waiting = of_subject.get(horizon_seconds, [])
            at = _index(waiting, resolvable_at - horizon_seconds * 1000)
            if at is None or waiting[at].input_id != input_id:
                continue
            del waiting[at]
            if not waiting:
                del of_subject[horizon_seconds]
            if not of_subject:
                del self.by_subject[subject]
            return

    def after(self, added: Iterable[OpenHorizon], resolved: Iterable[OpenHorizon]) -> OpenHorizons:
        """What is open then; this stays as it is. What is not touched is shared."""
        added, resolved = list(added), list(resolved)
        then = OpenHorizons(dict(self.by_subject))
        for subject in {one.subject for one in (*added, *resolved)} & self.by_subject.keys():
            then.by_subject[subject] = {
                seconds: list(waiting) for seconds, waiting in self.by_subject[subject].items()
            }
        for one in added:
            then.add(one)
        for one in resolved:
            then.remove(one.input_id, one.horizon_seconds, one.resolvable_at)
        return then

    def _lists(self) -> Iterator[list[OpenHorizon]]:
        for of_subject in self.by_subject.values():
            yield from of_subject.values()

    def due(self, now: int, changed_at: int) -> list[OpenHorizon]:
        """In order: what may be resolved up to `now` (ms), and what was opened before `changed_at`."""
        return sorted(
            one
            for waiting in self._lists()
            for one in takewhile(lambda one: one.resolvable_at <= now or one.point < changed_at, waiting)
        )

    def waits(self, subject: str, point: int) -> bool:
        """Does any horizon of the input of a subject at a point wait?"""
        lists = self.by_subject.get(subject, {}).values()
        return any(_index(waiting, point) is not None for waiting in lists)

    def earliest(self) -> int | None:
        """When the first is due, in ms; None where none is open."""
        return min((waiting[0].resolvable_at for waiting in self._lists()), default=None)

    def entries(self, terms: TermsInForce) -> dict[tuple[Feed, str], int]:
        """Feed and subject -> the oldest point, in ms, that a truth is waited for."""
        found: dict[tuple[Feed, str], int] = {}
        for number, (start, until, held) in enumerate(terms.spans()):
            for waiting in self._lists():
                first = bisect_left(waiting, start, key=_point) if number else 0
                if first < len(waiting) and waiting[first].point < until:
                    point = waiting[first].point
                    for subject in held.members(waiting[first].subject):
                        key = (held.feed, subject)
                        found[key] = min(point, found.get(key, point))
        return found


def _point(one: OpenHorizon) -> int:
    return one.point


def _index(waiting: list[OpenHorizon], point: int) -> int | None:
    at = bisect_left(waiting, point, key=_point)
    return at if at < len(waiting) and waiting[at].point == point else None
