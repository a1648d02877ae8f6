"""What stands still: stages, subjects, models. One judgement for the alerts, /healthz, the page and `doctor`.

Pure: positions of the log and the broker's word come in, alerts go out. A problem is reported only once it has lasted
for some time, because a worker that restarts is away for some seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from coordinator.api.times import zulu
from coordinator.infra.kafka.groups import WORKER_OF, nobody
from coordinator.infra.log.positions import PipelineWatch
from coordinator.infra.log.progress import LogProgress
from coordinator.infra.webhook import Alert
from coordinator.projections.views.all_views import ReadModels
from coordinator.projections.views.feeds import FeedRow, StateRow
from coordinator.projections.views.snapshots import Snapshots
from coordinator.projections.views.spread_rounds import is_rehearsing
from coordinator.streams.contract.terms import in_force
from coordinator.streams.feeds.clock_witness import CLOCK, ClockState
from coordinator.streams.feeds.listening import DEGRADED
from coordinator.streams.feeds.posts import KIND as QUESTION
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

LASTING_MS = 45_000
AWAY_MS = 30_000
"""How long a broker, a worker or every model is away before there is an alert: each comes back within seconds if it is
only started again."""
BROKER_AWAY_MS = 5_000
SILENT_GRANULES = 5
FLOOD_LETTERS, FLOOD_MS = 100, 60_000
"""One wrong line an hour is no flood."""
OVERDUE_MS = 300_000
LACKING_STATES, AWAY_STATES = (DEGRADED, "refused"), ("reconnecting", "connecting")
WORKER_OF_TOPIC = {"inputs": "feed", "predictions": "predict", "scores": "score", "snapshots": "score"} | {
    "checkpoints": "checkpoint"
}


class Standstill:
    """Since when each thing stands still. `now` is the wall's clock in ms."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, object]] = {}

    def lasting_ms(self, now: int, standing: Mapping[str, object]) -> dict[str, int]:
        """For each thing that stands, how long it has stood at the same mark (any value that changes as it moves)."""
        marks: dict[str, tuple[int, object]] = {}
        for name, mark in standing.items():
            since, before = self._since.get(name, (now, mark))
            marks[name] = (since if before == mark else now, mark)
        self._since = marks
        return {name: now - since for name, (since, _) in marks.items()}


class Progress:
    """One for each monitor."""

    def __init__(self) -> None:
        self._stages, self._workers = Standstill(), Standstill()
        self._away, self._periods, self._kafka = Standstill(), Standstill(), Standstill()
        self._unanswered = Standstill()
        self._answers = (-1, 0)

    def stages(
        self, watch: PipelineWatch, now: int, workers_missing: Collection[str] = ()
    ) -> Iterator[Alert]:
        """Stages that have something to decide, and have decided nothing for longer than is natural; not those of a
        worker that is missing, which has an alert of its own.
        """
        waits = {
            stage: text
            for stage, text in watch.waiting_stages().items()
            if WORKER_OF_TOPIC[stage] not in workers_missing
        }
        marks = {stage: watch.mark_of(stage) for stage in waits}
        for stage, stood_ms in self._stages.lasting_ms(now, marks).items():
            if stood_ms >= LASTING_MS + watch.deadline_ms:
                yield _idle_stage(stage, waits[stage], stood_ms)

    def workers(self, members: Mapping[str, int], now: int) -> Iterator[Alert]:
        """Stages for which no process runs."""
        missing = nobody(dict(members))
        for stage, away_ms in self._workers.lasting_ms(now, dict.fromkeys(missing, 0)).items():
            if away_ms >= AWAY_MS:
                yield Alert("worker", WORKER_OF[stage], missing[stage])

    def broker_is_away(self, error: str, now: int) -> bool:
        """Whether the broker has been silent long enough to be the reason why others stand still. Then nothing else is
        watched: it would be reported beside its cause, and again at the moment when the broker is back.
        """
        away = self._kafka.lasting_ms(now, {"kafka": 0} if error else {})
        if all(silent_ms < BROKER_AWAY_MS for silent_ms in away.values()):
            return False
        for standing in (self._stages, self._workers, self._away, self._periods, self._unanswered):
            standing.lasting_ms(now, {})
        return True

    def kafka(self, error: str, now: int) -> Iterator[Alert]:
        """A broker that does not say who works; one that has just started does not know it yet. Empty: it said it."""
        for silent_ms in self._kafka.lasting_ms(now, {"kafka": 0} if error else {}).values():
            if silent_ms >= AWAY_MS:
                yield Alert("kafka", "silent", error)

    def sources(self, states: Iterable[StateRow], patience_ms: int, now: int) -> Iterator[Alert]:
        """Sources that lack something or are refused, and those that have long been away."""
        source_states = list(states)
        marks = {source.source: source.since_ms for source in source_states if source.state in AWAY_STATES}
        away = self._away.lasting_ms(now, marks)
        for source in source_states:
            if source.state in LACKING_STATES or away.get(source.source, -1) >= patience_ms:
                yield Alert(
                    "feed", f"source {source.source}", f"{source.source} is {source.state}: {source.reason}"
                )

    def models(self, answered: int, missed: int, now: int) -> Iterator[Alert]:
        """Rounds that no model answers. `answered` and `missed` count answers, and those that did not come."""
        if answered != self._answers[0]:
            self._answers = (answered, missed)
        standing = {"models": answered} if missed > self._answers[1] else {}
        for silent_ms in self._unanswered.lasting_ms(now, standing).values():
            if silent_ms >= AWAY_MS:
                yield Alert(
                    "models",
                    "silent",
                    f"no model has answered any round for {silent_ms // 1000} s: is the orchestrator gone?",
                )

    def checkpoint(self, read: ReadModels, now: int) -> Iterator[Alert]:
        """The oldest period that should have a checkpoint, or a decision that nobody is paid, and has neither."""
        late = overdue(
            read.snapshots, read.checkpoints.snapshots_decided, read.feeds.first_tick, read.feeds.clock
        )
        # A replay's clock runs ahead of what is computed: there only what does not move is late.
        moved = (
            (read.snapshots.closed_until, read.checkpoints.version) if is_rehearsing(read.predictions) else 0
        )
        standing = {} if late is None else {str(late.end): moved}
        for stood_ms in self._periods.lasting_ms(now, standing).values():
            if late is not None and stood_ms >= LASTING_MS:
                yield Alert("checkpoint", "overdue", late.text)


class Overdue(msgspec.Struct, frozen=True):
    """A period that ended at `end` (ms), and is neither paid, withheld nor said to pay nobody."""

    end: int
    text: str


def overdue(snapshots: Snapshots, decided_offset: int, first_tick: int, clock: int) -> Overdue | None:
    """The oldest such period whose end lies behind the event clock by more than is natural. `decided_offset`: up to
    where the checkpoint stage has decided `snapshots`.
    """
    terms = in_force(snapshots.terms.in_order)
    boundary_offset, boundary_end = snapshots.boundary
    if not terms or not clock:
        return None
    if boundary_offset > decided_offset:
        end, why = boundary_end, "look at the log of the checkpoint worker"
    else:
        closed = snapshots.closed_until or first_tick
        _, end = terms.checkpoint_period(closed)
        why = f"its scores are whole up to {zulu(closed)} alone: look at the stages before it"
    terms_then = terms.at(end - 1)
    if clock - end < terms_then.grace_ms + terms_then.deadline_ms + OVERDUE_MS:
        return None
    late = f"{(clock - end) // 60_000} min after its end"
    return Overdue(end, f"no checkpoint, and no reason why, for the period up to {zulu(end)} {late}: {why}")


def silent_subjects(
    rows: Iterable[FeedRow], subjects: Iterable[str], clock: int, silent_ms: int
) -> Iterator[Alert]:
    """Subjects that are silent while others send records, or all subjects if none sends any: the clock continues for
    a while without records. Questions are left out, because they come only when they are posted.
    """
    last: dict[str, int] = {}
    patience: dict[str, int] = {}
    for row in rows:
        if row.kind == QUESTION:
            continue
        try:
            length = granularity_ms(row.granularity)
        except OperatorError:
            continue  # of another node's settings: not ours to judge
        last[row.subject] = max(last.get(row.subject, 0), row.watermark)
        patience[row.subject] = max(silent_ms, SILENT_GRANULES * length)
    silences = {subject: clock - at for subject, at in last.items()}
    if silences and all(silence >= patience[subject] for subject, silence in silences.items()):
        yield Alert("feed", "silent", f"nothing comes of any subject for {min(silences.values()) // 1000} s")
        return
    for subject in subjects:
        behind_ms = clock - last.get(subject, 0)
        others = [clock - at for other, at in last.items() if other != subject]
        if others and min(others) < behind_ms and behind_ms >= patience.get(subject, silent_ms):
            since = f"for {behind_ms // 1000} s" if subject in last else "at all"
            yield Alert(
                "feed", f"silent {subject}", f"nothing comes of {subject} {since}, while others go on"
            )


def stands_still(progress: LogProgress, settings: Settings, now: int) -> Iterator[Alert]:
    """What the ends of the topics say of stages and feed, as a monitor that has watched them would say it."""
    patience_ms = LASTING_MS + progress.deadline_ms
    for waiting in progress.waiting():
        idle_ms = now - max(waiting.since, waiting.decided or 0)
        if idle_ms >= patience_ms:
            yield _idle_stage(waiting.stage, waiting.text, idle_ms)
    feed = progress.feed
    states = {state for source, state in feed.states.items() if source != CLOCK}
    if feed.ticked is None or states == {"ended"}:
        return
    stall_ms = int(settings.feed_stall_alert_seconds * 1000)
    if now - feed.ticked >= stall_ms:
        yield Alert("feed", "stalled", f"the clock stands for {(now - feed.ticked) // 1000} s")
    # The latest record of a subject without one near the end of the topic may have come just before that end.
    rows = [
        FeedRow(
            source="",
            subject=subject,
            kind="",
            granularity=settings.feed_granularity,
            watermark=feed.heard.get(subject, feed.since),
        )
        for subject in settings.feed_subjects
    ]
    yield from silent_subjects(rows, settings.feed_subjects, feed.clock, stall_ms)


def letter_flood(letters: Sequence[tuple[int, str]], now: int) -> Iterator[Alert]:
    """Many records that were set aside within a minute: (time in ms, reason), newest first."""
    if len(letters) >= FLOOD_LETTERS and now - letters[FLOOD_LETTERS - 1][0] < FLOOD_MS:
        count, seconds, reason = FLOOD_LETTERS, FLOOD_MS // 1000, letters[0][1]
        yield Alert(
            "log",
            "flood",
            f"{count} records and more within {seconds} s could not be read and were set aside: look at "
            f"`coordinator dead-letters list`, and repair what the source sends. The last one: {reason}",
        )


def wrong_clock(states: Iterable[StateRow], event_clock: int, now: int, ahead_ms_max: int) -> Iterator[Alert]:
    """What the feed worker reports about its machine's clock, and how this machine's clock compares with the log's
    time.
    """
    for state in states:
        if state.source == CLOCK and state.state != ClockState.RIGHT:
            yield Alert(
                "clock", state.state, f"{state.reason}; the feed's time waits, or is late because of it"
            )
    if event_clock - now > ahead_ms_max:
        behind_seconds = (event_clock - now) // 1000
        yield Alert(
            "clock", "report", f"the report worker's clock is {behind_seconds} s behind the log's time"
        )


def _idle_stage(stage: str, waits: str, stood_ms: int) -> Alert:
    worker = WORKER_OF_TOPIC[stage]
    return Alert(
        "stage",
        stage,
        f"the {worker} worker decides nothing for {stood_ms // 1000} s: {waits}; look at its log",
    )
