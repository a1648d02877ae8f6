"""Rebuilds projections from offset 0, and verifies the node's stores against such a rebuild.

A replay folds the log into a fresh directory with the same folds that run live. To verify a store, it is opened beside
its writer; its positions are read, its hash is computed again from its rows, the log is replayed up to exactly these
positions, and three hashes are compared: the stored, the recomputed and the replayed one. One altered byte makes them
differ.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from coordinator.infra.kafka.clients import fetched, make_reader, stop_reader
from coordinator.infra.log.archive_file import Judge, files_in
from coordinator.infra.log.copy_file import Copied
from coordinator.infra.log.own_log import log_identity
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.projector import assign_from
from coordinator.projections.storage.database import StoreDamagedError
from coordinator.projections.storage.store import Store
from coordinator.projections.views.all_views import PROJECTIONS, check_names, identity_of, open_projections
from coordinator.streams.audit.recorded_states import state_checks
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import CorruptTopicError, OperatorError, WorldError
from coordinator.streams.log.recorded_state import StateCheck, WrongStateError

OnProgress = Callable[[int, int], None]
"""(records read, records in all)"""
POLL_MS = 500
RECORDS_PER_POLL = 2000
COMMIT_EVENTS = 20_000
STALL_SECONDS_MAX = 30.0


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay folded. `events_per_second` includes the time for reading."""

    events: int
    records: int
    seconds: float
    events_per_second: float
    duplicates_ignored: int
    state_hash: dict[str, str]
    states_checked: int = 0
    """How many recorded states of stages agree with the events before them; counted only when verifying."""
    first_at_ms: int | None = None
    last_at_ms: int | None = None
    """The times of the log's first and last event; noted only where a time is given until which it is replayed."""


class Times:
    """The first and the last time (ms) of the events that pass; None before the first."""

    first: int | None = None
    last: int | None = None

    def take(self, decision: Decision) -> None:
        """See a decision. The first rules hold from 0 on, which is not a time of the log."""
        for event in decision.events:
            if event.at > 0:
                self.first = event.at if self.first is None else min(self.first, event.at)
                self.last = event.at if self.last is None else max(self.last, event.at)


class _Rebuild:
    """Projections that are folded into fresh stores."""

    def __init__(
        self,
        folder_path: Path,
        identity: tuple[str, str],
        names: Sequence[str],
        until_ms: int | None,
        limits: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """`identity`: the id of the cluster, and the crunch."""
        self._projections = open_projections(folder_path, *identity, names)
        self.folder = Folder(self._projections, until_ms=until_ms, limits=limits)
        self._times = Times()
        if until_ms is not None:  # then there is a time to compare with
            self.folder.on_decision = self._times.take
        self._started = time.perf_counter()

    def result(self, records: int, states_checked: int = 0) -> ReplayResult:
        """What was folded until now."""
        seconds, folder = time.perf_counter() - self._started, self.folder
        return ReplayResult(
            events=folder.events,
            records=records,
            seconds=seconds,
            events_per_second=folder.events / seconds if seconds > 0 else 0.0,
            duplicates_ignored=folder.uncounted,
            state_hash={projection.name: projection.store.state_hash for projection in self._projections},
            states_checked=states_checked,
            first_at_ms=self._times.first,
            last_at_ms=self._times.last,
        )

    def close(self) -> None:
        for projection in self._projections:
            projection.store.close()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One projection's hashes: `kept` in the store, `recomputed` from its rows, `replayed` from the log."""

    projection: str
    equal: bool
    kept: str | None
    recomputed: str | None
    replayed: str | None
    reason: str


class VerifyResult(msgspec.Struct, frozen=True, kw_only=True):
    """`equal` if every projection is. `log_fault` says where the log is damaged; then nothing was compared."""

    equal: bool
    verdicts: list[Verdict] = []
    replay: ReplayResult | None = None
    log_fault: str = ""


async def replay(
    bootstrap: str,
    crunch_id: str,
    names: Iterable[str] | None = None,
    until_ms: int | None = None,
    on_progress: OnProgress | None = None,
    target_dir: Path | None = None,
    *,
    limits: Mapping[str, Mapping[str, int]] | None = None,
) -> ReplayResult:
    """Rebuild projections (`names`, by default all) from offset 0 in `target_dir` (by default a temporary one).

    `until_ms`: only decisions whose events all have `at` <= it. `limits`: projection -> topic -> offset to stop before;
    with limits the stages' recorded states are checked too. Raises OperatorError for an unknown name, WorldError if the
    broker does not answer, LogError naming a record that cannot be read, WrongStateError for a wrong state.
    """
    names_wanted = check_names(names)
    identity = await log_identity(bootstrap, crunch_id), crunch_id
    checks = {} if limits is None else state_checks(crunch_id)
    report = on_progress or (lambda _done, _all: None)
    with (
        tempfile.TemporaryDirectory(prefix="coordinator-replay-") as temporary,
        closing(_Rebuild(target_dir or Path(temporary), identity, names_wanted, until_ms, limits)) as rebuild,
    ):
        records = await _fold_all(rebuild.folder, bootstrap, crunch_id, limits, checks, report)
        return rebuild.result(records, sum(check.checked for check in checks.values()))


def replay_archive(
    folder_path: Path, names: Iterable[str] | None, until_ms: int | None, on_progress: OnProgress
) -> ReplayResult:
    """As `replay`, out of the files of an archive, without a broker: up to the end of its last period.

    Raises OperatorError, LogError naming the file that is missing, cut or altered.
    """
    names_wanted, files = check_names(names), files_in(folder_path)
    if not files:
        raise OperatorError(f"{folder_path} holds no archive: create one with `coordinator log archive`")
    judge, records = Judge(), 0
    with (
        tempfile.TemporaryDirectory(prefix="coordinator-replay-") as temporary,
        closing(_Rebuild(Path(temporary), ("archive", "archive"), names_wanted, until_ms)) as rebuild,
    ):
        folder = rebuild.folder
        for number, path in enumerate(files, start=1):
            for entry in judge.read(path):
                if isinstance(entry, Copied) and entry.topic in folder.readers:
                    folder.fold(entry.topic, entry.offset, entry.value)
                    records += 1
                    if records % RECORDS_PER_POLL == 0:
                        folder.commit()
            folder.commit()
            on_progress(number, len(files))
        return rebuild.result(records)


async def _fold_all(
    folder: Folder,
    bootstrap: str,
    crunch_id: str,
    limits: Mapping[str, Mapping[str, int]] | None,
    checks: Mapping[str, StateCheck],
    on_progress: OnProgress,
) -> int:
    consumer = make_reader(bootstrap)
    await consumer.start()
    try:
        starts = folder.positions()
        partitions, ends = await assign_from(consumer, crunch_id, starts)
        if limits is not None:
            ends = {
                topic: min(end, max(limit.get(topic, 0) for limit in limits.values()))
                for topic, end in ends.items()
            }
        total = sum(max(0, ends[topic] - start) for topic, start in starts.items())
        open_topics = {topic for topic, start in starts.items() if ends[topic] > start}
        records = events = 0
        last = time.monotonic()
        while open_topics:
            batches = await fetched(consumer, POLL_MS, RECORDS_PER_POLL)
            for partition, fetched_records in batches.items():
                topic = partitions[partition]
                for record in fetched_records:
                    if record.offset < ends[topic]:
                        events += folder.fold(topic, record.offset, record.value)
                        if topic in checks:
                            checks[topic].read(record.offset, record.value)
                        records += 1
                        if events >= COMMIT_EVENTS:
                            folder.commit()
                            events = 0
            for partition, topic in partitions.items():
                if topic in open_topics and await consumer.position(partition) >= ends[topic]:
                    open_topics.discard(topic)
                    consumer.pause(partition)
            on_progress(records, total)
            now = time.monotonic()
            if batches:
                last = now
            elif now - last > STALL_SECONDS_MAX:
                raise WorldError(
                    f"topics {sorted(open_topics)} delivered no record for {STALL_SECONDS_MAX:g} s"
                )
        folder.commit()
        return records
    finally:
        await stop_reader(consumer)


class _Store(msgspec.Struct, frozen=True):
    """A store's hash, the hash that its rows give, and topic -> next offset."""

    kept: str
    recomputed: str
    positions: dict[str, int]


async def verify(
    bootstrap: str,
    crunch_id: str,
    data_dir: Path,
    names: Iterable[str] | None = None,
    on_progress: OnProgress | None = None,
) -> VerifyResult:
    """Compare the stores under `<data_dir>/projections` with the log, also while the report worker runs.

    Raises as `replay` does. A store that cannot be read is not equal, and its verdict gives the reason. If the disk has
    altered a record of the log, or a stage's recorded state disagrees with the events before it, the result is not
    equal, and `log_fault` gives the reason.
    """
    try:
        verdicts, result = await _compare(bootstrap, crunch_id, data_dir, check_names(names), on_progress)
    except (CorruptTopicError, WrongStateError) as error:
        return VerifyResult(equal=False, log_fault=str(error))
    return VerifyResult(equal=all(verdict.equal for verdict in verdicts), verdicts=verdicts, replay=result)


async def _compare(
    bootstrap: str, crunch_id: str, data_dir: Path, names: Sequence[str], on_progress: OnProgress | None
) -> tuple[list[Verdict], ReplayResult]:
    cluster_id = await log_identity(bootstrap, crunch_id)
    stores: dict[str, _Store] = {}
    damage: dict[str, str] = {}
    for name in names:
        try:
            stores[name] = _look(data_dir / "projections" / name, name, cluster_id, crunch_id)
        except StoreDamagedError as error:
            damage[name] = str(error)
    limits = {name: stores[name].positions if name in stores else {} for name in names}
    result = await replay(bootstrap, crunch_id, names, None, on_progress, None, limits=limits)
    verdicts = [
        _judge(name, stores.get(name), result.state_hash[name], damage.get(name, "")) for name in names
    ]
    return verdicts, result


def _look(path: Path, name: str, cluster_id: str, crunch_id: str) -> _Store:
    store = Store.open_secondary(path)
    try:
        identity = identity_of(name, cluster_id, crunch_id)
        if store.identity != identity:
            raise StoreDamagedError(f"{path} belongs to {store.identity}, not to {identity}")
        positions = {
            topic: store.positions[topic].offset
            for topic in PROJECTIONS[name].topics
            if topic in store.positions
        }
        return _Store(store.state_hash, store.recompute_hash(), positions)
    finally:
        store.close()


def _judge(name: str, store: _Store | None, replayed: str, reason: str) -> Verdict:
    if store is None:
        return Verdict(projection=name, equal=False, kept=None, recomputed=None, replayed=None, reason=reason)
    if store.recomputed != store.kept:
        reason = "the rows do not give the hash kept with them: a row was altered"
    elif store.kept != replayed:
        reason = "the log gives other rows"
    return Verdict(
        projection=name,
        equal=not reason,
        kept=store.kept,
        recomputed=store.recomputed,
        replayed=replayed,
        reason=reason,
    )
