"""Read models as of the past: views of the live stores at a cut of the log, used by the same projections.

Reads the versions of rows (`versions.py`). Folds only the decisions that a cut cannot express, the latecomers of a
moment. A view writes nothing, and stays the same while the live stores change: rows before a cut never change.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol, TypeVar

import msgspec

from coordinator.projections.folding.past_held import past_cut
from coordinator.projections.folding.projection import Projection
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.changes import MODULUS, row_hash
from coordinator.projections.storage.past_cut import Horizon
from coordinator.projections.storage.store import Meta, Store
from coordinator.projections.storage.versions import (
    ROW,
    cut_at,
    find_before,
    late_at,
    latecomers,
    mark_before,
    stored_at,
    value_at,
    version_of,
)
from coordinator.projections.views.checkpoints import Checkpoints
from coordinator.projections.views.feeds import Feeds
from coordinator.projections.views.leaderboard import Leaderboard
from coordinator.projections.views.models import Models
from coordinator.projections.views.predictions import Predictions
from coordinator.projections.views.rounds import Rounds
from coordinator.projections.views.snapshots import Snapshots
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import CoordinatorError

LATECOMERS_MAX = 500
_Any = TypeVar("_Any", bound=Projection)


class TooManyLatecomersError(CoordinatorError):
    """This moment has too many latecomers to answer at a bounded cost."""


class NotInThePastError(CoordinatorError):
    """The position is not folded yet, or names a decision as a latecomer that is not one."""


class Cut(msgspec.Struct, frozen=True):
    """A cut of one topic: the decisions before `offset`, and those that end at the offsets `late` after it."""

    offset: int
    late: tuple[int, ...] = ()


Cuts = Mapping[str, Cut]
"""topic -> its cut"""


class Readable(Protocol):
    """The read models that questions are answered from: the live ones, or a view of their past."""

    @property
    def leaderboard(self) -> Leaderboard: ...
    @property
    def models(self) -> Models: ...
    @property
    def predictions(self) -> Predictions: ...
    @property
    def feeds(self) -> Feeds: ...
    @property
    def snapshots(self) -> Snapshots: ...
    @property
    def checkpoints(self) -> Checkpoints: ...
    @property
    def rounds(self) -> Rounds: ...


class PastStore(Store):
    """A store as the decisions before a cut left it. Rows that are committed to it stay in memory, over those below."""

    def __init__(
        self,
        store: Store,
        kind: type[Projection],
        cuts: Mapping[str, int],
        late: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._late = late or {}
        self.path = store.path
        self.database = store.database
        self.horizon = store.horizon
        self._owner = kind.owner
        self._cuts = dict(cuts)
        self._rows: dict[bytes, bytes | None] = {}
        marks = [mark_before(self.database, topic, cut) for topic, cut in cuts.items()]
        self._hash = sum(mark.state_hash for mark in marks if mark is not None) % MODULUS
        self._meta = Meta(
            identity=store.identity,
            positions={topic: Need(cut) for topic, cut in cuts.items()},
            state_hash=self.state_hash,
        )

    def get(self, key: bytes) -> bytes | None:
        if key in self._rows:
            return self._rows[key]
        return find_before(self.database, key, self._cuts[self._owner(key)])

    def written_at(self, key: bytes) -> list[int]:
        topic = self._owner(key)
        late = self._late.get(topic, ())
        written = super().written_at(key)
        return [offset for offset in written if offset < self._cuts[topic] or offset in late]

    def written_last_at(self, key: bytes) -> int | None:
        if key in self._rows:  # a latecomer may have written it
            return max(self.written_at(key), default=None)
        stored = stored_at(self.database, key, self.database.get(ROW + key), self._cuts[self._owner(key)])
        return None if stored is None else version_of(stored)

    def scan(
        self, prefix: bytes, *, start: bytes | None = None, backwards: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        versions = self._scan_versions(prefix, start=start, backwards=backwards)
        if not self._rows:
            return versions
        on_top = [
            (key, row)
            for key, row in self._rows.items()
            if key.startswith(prefix)
            and row is not None
            and (start is None or (key <= start if backwards else key >= start))
        ]
        on_top.sort(reverse=backwards)
        below = ((key, row) for key, row in versions if key not in self._rows)
        return heapq.merge(below, on_top, key=itemgetter(0), reverse=backwards)

    def _scan_versions(
        self, prefix: bytes, *, start: bytes | None, backwards: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        for key, stored in self.stored(prefix, start=start, backwards=backwards):
            row = value_at(self.database, key, stored, self._cuts[self._owner(key)])
            if row is not None:
                yield key, row

    def commit(self, batch: Batch, positions: Mapping[str, Need], notes: Mapping[str, Any]) -> None:
        """Keep the batch's rows in memory and update the hash; nothing is written."""
        del positions, notes  # a view keeps those of the live store
        total = self._hash
        for step in batch.steps():
            for key, value in step.rows.items():
                before = self.get(key)
                total += (0 if value is None else row_hash(key, value)) - (
                    0 if before is None else row_hash(key, before)
                )
                self._rows[key] = value
        self._hash = total % MODULUS
        batch.clear()

    def close(self) -> None:
        """Do nothing: the live store belongs to its projection."""


class PastReadModels:
    """The read models at a cut, each made at its first use. Keep the object no longer than one answer takes."""

    def __init__(self, live: Readable, cuts: Cuts) -> None:
        self._live = live
        self.cuts = cuts
        self._projections: dict[str, Projection] = {}

    def _get(self, kind: type[_Any]) -> _Any:
        projection: _Any | None = self._projections.get(kind.name)  # type: ignore[assignment]
        if projection is None:
            store = getattr(self._live, kind.name).store
            missing = [topic for topic in kind.topics if topic not in self.cuts]
            if missing:
                raise NotInThePastError(
                    f"this question also reads {', '.join(missing)}: give their positions too"
                )
            offsets = {topic: self.cuts[topic].offset for topic in kind.topics}
            past = PastStore(store, kind, offsets, {topic: self.cuts[topic].late for topic in kind.topics})
            projection = kind(past)
            self._projections[kind.name] = projection
            late = [
                decision
                for topic in kind.topics
                for decision in _late_decisions(store, topic, self.cuts[topic].late)
            ]
            if late:
                batch = Batch(past)
                for decision in late:
                    projection.apply(decision, batch)
                    projection.flush(batch)
                    batch.end_of(decision)
                past.commit(batch, {}, {})
                projection.version += 1
        return projection

    @property
    def leaderboard(self) -> Leaderboard:
        """As it was."""
        return self._get(Leaderboard)

    @property
    def models(self) -> Models:
        """As they were."""
        return self._get(Models)

    @property
    def predictions(self) -> Predictions:
        """As they were."""
        return self._get(Predictions)

    @property
    def feeds(self) -> Feeds:
        """As they were."""
        return self._get(Feeds)

    @property
    def snapshots(self) -> Snapshots:
        """As they were."""
        return self._get(Snapshots)

    @property
    def checkpoints(self) -> Checkpoints:
        """As they were."""
        return self._get(Checkpoints)

    @property
    def rounds(self) -> Rounds:
        """As they were."""
        return self._get(Rounds)

    def used(self) -> list[Projection]:
        """The projections that were used, by name."""
        return [self._projections[name] for name in sorted(self._projections)]

    def cuts_read(self) -> dict[str, Cut]:
        """The cuts of the topics that the used projections fold."""
        return {
            topic: self.cuts[topic]
            for projection in self._projections.values()
            for topic in projection.topics
        }

    def all(self) -> list[Projection]:
        """Every projection whose past is stored."""
        return [
            self.leaderboard,
            self.models,
            self.predictions,
            self.feeds,
            self.snapshots,
            self.checkpoints,
            self.rounds,
        ]


KEEPERS: dict[str, str] = {
    "feeds": "feeds",
    "inputs": "leaderboard",
    "models": "models",
    "predictions": "predictions",
    "scores": "leaderboard",
    "snapshots": "snapshots",
    "checkpoints": "checkpoints",
}
"""Topic -> the projection whose marks are used to cut it."""


def cuts_of(projections: Sequence[Projection]) -> dict[str, Cut]:
    """Topic -> a cut at the offset before which all these projections have folded it."""
    cut_of_topic: dict[str, Cut] = {}
    for projection in projections:
        for topic in projection.topics:
            offset = projection.store.positions.get(topic, Need()).offset
            if topic in cut_of_topic:
                offset = min(offset, cut_of_topic[topic].offset)
            cut_of_topic[topic] = Cut(offset)
    return cut_of_topic


def folded_until(live: Readable) -> dict[str, int]:
    """Topic -> the offset before which every read model has folded it.

    Call it in the event loop: then no commit is under way, and all stores are at the same events.
    """
    projections = [
        live.leaderboard,
        live.models,
        live.predictions,
        live.feeds,
        live.snapshots,
        live.checkpoints,
        live.rounds,
    ]
    return {topic: cut.offset for topic, cut in cuts_of(projections).items()}


def cuts_at(live: Readable, until_ms: int, ends: Mapping[str, int]) -> dict[str, Cut]:
    """The cuts with all decisions before `ends` whose events all have `at` <= `until_ms`.

    Raises TooManyLatecomersError, PastCutError.
    """
    check_held(live, until_ms, {})
    cut_of_topic: dict[str, Cut] = {}
    for topic, keeper in KEEPERS.items():
        database = getattr(live, keeper).store.database
        late = latecomers(database, topic, until_ms, ends[topic], LATECOMERS_MAX)
        if len(late) > LATECOMERS_MAX:
            raise TooManyLatecomersError(
                f"more than {LATECOMERS_MAX} decisions of {topic} were known at this moment, but come after decisions "
                "that were not"
            )
        cut_of_topic[topic] = Cut(
            cut_at(database, topic, until_ms, ends[topic]), tuple(decision.offset for decision in late)
        )
    return cut_of_topic


def horizon_of(live: Readable) -> Horizon | None:
    """From where on every read model holds the past; None if all hold the whole past."""
    horizons = [
        getattr(live, keeper).store.horizon for keeper in (*dict.fromkeys(KEEPERS.values()), "rounds")
    ]
    cut = [horizon for horizon in horizons if horizon is not None]
    if not cut:
        return None
    cuts: dict[str, int] = {}
    for horizon in cut:
        for topic, offset in horizon.cuts.items():
            cuts[topic] = max(offset, cuts.get(topic, 0))
    return Horizon(max(horizon.from_ms for horizon in cut), cuts)


def check_held(live: Readable, at_ms: int | None, cuts: Cuts) -> None:
    """Raises PastCutError if a moment (ms), or a cut of a topic, is before the horizon.

    Call it before a past state is read, and again afterwards: the horizon may move meanwhile, but first the stores say
    so, and only then are versions deleted.
    """
    horizon = horizon_of(live)
    if horizon is None:
        return
    if at_ms is not None and at_ms < horizon.from_ms:
        what = "this moment is before it"
    else:
        early = [topic for topic, cut in cuts.items() if cut.offset < horizon.cuts.get(topic, 0)]
        if not early:
            return
        what = f"{early[0]}:{cuts[early[0]].offset} is before it"
    raise past_cut(horizon.from_ms, what)


def check_cuts(live: Readable, cuts: Cuts, ends: Mapping[str, int]) -> None:
    """Raises NotInThePastError if a cut is not folded yet, or a named latecomer is not one; PastCutError."""
    check_held(live, None, cuts)
    for topic, cut in cuts.items():
        if max((cut.offset, *(offset + 1 for offset in cut.late))) > ends[topic]:
            raise NotInThePastError(f"{topic} is folded up to {ends[topic]}, not to {cut.offset}")
        _late_decisions(getattr(live, KEEPERS[topic]).store, topic, cut.late)


def _late_decisions(store: Store, topic: str, offsets: Sequence[int]) -> list[Decision]:
    late = []
    for offset in offsets:
        decision = late_at(store.database, topic, offset)
        if decision is None:
            raise NotInThePastError(f"{topic} has no latecomer at {offset}")
        late.append(decision)
    return late
