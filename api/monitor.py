"""The node watches itself: every few seconds its invariants and its surroundings, and what follows from them.

A broken invariant withholds the next checkpoint by a command on the log, so that a replay decides the same. One
command per invariant and checkpoint: while it stays broken, the one after is withheld too. What a person should
know (broken invariants, a stalled feed, lag, checkpoints unpaid or withheld, what the chain watch is concerned about)
is an alert: on `/reports/invariants`, in `/metrics`, and at the webhook where one is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec
import structlog

from coordinator.api.commands import CommandPort
from coordinator.api.disk_watch import DiskWatch
from coordinator.api.late_truths import late_truths
from coordinator.api.price_jumps import PriceJumps
from coordinator.api.progress import Progress, letter_flood, silent_subjects, wrong_clock
from coordinator.api.replay_check import ReplayCheck
from coordinator.api.shadow_loop import ShadowLoop
from coordinator.api.side_tasks import SideTask
from coordinator.api.watches import Watches, make_watches
from coordinator.infra.kafka.groups import WORKER_OF, nobody
from coordinator.infra.log.scrub import LogScrub
from coordinator.infra.webhook import Alert, Alerts
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.checkpoints import UNSETTLED, CheckpointRow
from coordinator.projections.views.checks import Finding
from coordinator.streams.clock import steady_ms, wall_ms
from coordinator.streams.events import WithholdCheckpoint, WithholdCheckpointData
from coordinator.streams.feeds.clock_witness import CLOCK, ClockState
from coordinator.streams.log.errors import WorldError
from coordinator.streams.log.ids import content_id
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.topology import WORKERS

HOLE_MS_MAX = 30_000
"""An owner whose send failed leaves a gap in the numbers until it has claimed again."""

LAG_MS_MAX = 30_000
CHECKPOINTS_LOOKED_AT = 200
LETTERS_LOOKED_AT = 100
LETTERS_MS = 900_000
"""A stage that stands still writes its letter every ten minutes."""
REASON_CHARS_MAX = 400
_log = structlog.get_logger()


class CheckpointStanding(msgspec.Struct, frozen=True):
    """What an alert needs of a checkpoint."""

    checkpoint_id: str
    status: str
    created_at: int
    rehearsal: bool
    reason: str


class Monitor:
    """`findings` and `alerts` are those of the last look. Tests call `look` themselves instead of `run`.

    `steady_ms` measures how long something lasts, and never jumps; `now_ms`, the default, may.
    """

    def __init__(
        self,
        projector: Projector,
        port: CommandPort,
        now_ms: Callable[[], int],
        watches: Watches | None = None,
        *,
        replay_check: ReplayCheck | None = None,
        steady_ms: Callable[[], int] | None = None,
    ) -> None:
        watches = watches or Watches()
        self._projector = projector
        self._settings = projector.settings
        self._port = port
        self._now_ms = now_ms
        self._steady_ms = steady_ms or now_ms
        self._steady = 0
        self.chain = watches.chain
        self.webhook = watches.webhook
        self.payees = watches.payees
        self.scrub = watches.scrub
        self.evidence = watches.evidence
        self.shadow = watches.shadow or ShadowLoop(projector.settings.data_dir, now_ms)
        self.disk = DiskWatch(projector.settings.data_dir, self._steady_ms)
        self.replay_check = replay_check or ReplayCheck(projector.settings, folded=projector.has_folded)
        self.alerts = Alerts(projector.settings.crunch_id)
        self.findings: list[Finding] = []
        self.looked_at: int | None = None
        self._holes: dict[str, int] = {}
        self._clock: tuple[int, int] = (-1, 0)
        self._lagging_since: int | None = None
        self._standing: tuple[int, list[CheckpointStanding]] = (-1, [])
        self._withheld: set[tuple[str, int]] = set()
        self._progress = Progress()
        self._price_jumps = PriceJumps(int(self._settings.price_jump_told_seconds * 1000))
        self._ask_members = watches.members
        self._members: dict[str, int] = {}
        self._members_error = ""
        self._broker_away = False
        self._send_error = ""
        self.side_tasks: list[SideTask] = []
        """What is supervised beside the projector: an error of one is an alert."""

    async def run(self) -> None:
        """Look every MONITOR_SECONDS until cancelled; the replay check, the chain watch and the webhook run beside it.

        Each is supervised on its own: when one fails, that is an alert, and the others continue.
        """
        own = [
            SideTask("monitor", self._look_on),
            SideTask("replay check", self.replay_check.run),
            SideTask("shadow", self.shadow.run),
            SideTask("disk", self.disk.run),
        ]
        beside = (
            *(("chain watch", self.chain), ("webhook", self.webhook), ("payees", self.payees)),
            *(("scrub", self.scrub), ("evidence", self.evidence)),
        )
        own += [SideTask(name, watch.run) for name, watch in beside if watch is not None]
        self.side_tasks += own
        try:
            async with asyncio.TaskGroup() as group:
                for task in own:
                    group.create_task(task.supervise())
        finally:
            if self.chain is not None:
                await self.chain.chain.close()

    async def _look_on(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as error:
                self._tell(
                    [*self.alerts.current.values(), Alert("task", "monitor", type(error).__name__)],
                    self._now_ms(),
                )
                raise
            await asyncio.sleep(self._settings.monitor_seconds)

    async def look(self) -> None:
        """One look and what follows from it."""
        now = self._now_ms()
        self.findings = self._find()
        self.looked_at = now
        await self._withhold(now)
        await self._look_at_members()
        self._tell(self._alerts(now), now)

    def _tell(self, alerts: Iterable[Alert], now: int) -> None:
        for notice in self.alerts.update(alerts, now):
            _log.warning("alert", state=notice.state, kind=notice.kind, name=notice.name, text=notice.text)
            if (
                self.webhook is not None and notice.kind != "webhook"
            ):  # a webhook that fails cannot deliver the alert about itself
                self.webhook.tell(notice)

    def peek(self) -> None:
        """Compute the findings once and withhold nothing: for answers before the first look."""
        self.findings = self._find()

    # --- invariants ------------------------------------------------------------------------------------

    def _find(self) -> list[Finding]:
        self._steady = self._steady_ms()
        read = self._projector.read
        findings = [*read.checks.findings(), self._moves(), self._numbers(), self.replay_check.finding()]
        return findings if self.scrub is None else [*findings, self._whole(self.scrub)]

    def _whole(self, scrub: LogScrub) -> Finding:
        return Finding(
            name="log",
            about="Every record in the topics is read back as it was written",
            ok=not scrub.damage,
            detail="; ".join(scrub.damage.values())
            or (f"read {scrub.passes} times" if scrub.passes else "not read to its end yet"),
            counts={"passes": scrub.passes, "damaged": len(scrub.damage)},
            checked=scrub.passes > 0 or bool(scrub.damage),
        )

    def _moves(self) -> Finding:
        illegal = {
            projection.name: count
            for projection in self._projector.read.all()
            if (count := sum(projection.counted(topic, "illegal") for topic in projection.topics))
        }
        return Finding(
            name="lifecycles",
            about="Every change of status is one of the lifecycle's table",
            ok=not illegal,
            detail=", ".join(f"{count} illegal in {name}" for name, count in illegal.items())
            or "no illegal change",
            counts={"illegal": sum(illegal.values())},
        )

    def _numbers(self) -> Finding:
        holes = self._projector.holes()
        self._holes = {topic: self._holes.get(topic, self._steady) for topic in holes}
        lasting = [
            holes[topic] for topic, since in self._holes.items() if self._steady - since >= HOLE_MS_MAX
        ]
        return Finding(
            name="numbers",
            about="No decision's number is missing in any stream",
            ok=not lasting,
            detail="; ".join(lasting) or "no number is missing",
            counts={"holes": len(holes)},
        )

    async def _withhold(self, now: int) -> None:
        built = self._projector.read.checks.checkpoints_built
        self._send_error = ""
        for finding in self.findings:
            if finding.ok or not finding.withholds or (finding.name, built) in self._withheld:
                continue
            reason = as_reason(
                f"the invariant {finding.name!r} is broken: {finding.detail}", REASON_CHARS_MAX
            )
            command = WithholdCheckpoint(
                id=content_id("monitor", finding.name, str(built)),
                at=now,
                data=WithholdCheckpointData(reason=reason),
            )
            try:
                offset = await self._port.send(command)
            except WorldError as error:  # tried again at the next look
                self._send_error = f"the next checkpoint could not be withheld: {error}"
                _log.error("withhold_not_sent", invariant=finding.name, reason=str(error))
                return
            _log.error("checkpoint_withheld", invariant=finding.name, reason=reason, offset=offset)
            self._withheld = {mark for mark in self._withheld if mark[1] == built} | {(finding.name, built)}

    async def _look_at_members(self) -> None:
        if self._ask_members is None:
            return
        try:
            self._members, self._members_error = await self._ask_members(), ""
        except WorldError as error:
            self._members_error = str(error)

    # --- alerts ----------------------------------------------------------------------------------------

    def _alerts(self, now: int) -> Iterator[Alert]:
        for finding in self.findings:
            if not finding.ok:
                yield Alert("invariant", finding.name, f"{finding.about}: {finding.detail}")
        if self.payees is not None and self.payees.error:
            yield Alert("command", "payees", f"the wallets could not be bound: {self.payees.error}")
        if self._send_error:
            yield Alert("command", "withhold", self._send_error)
        yield from self._log_alerts(now)
        for projection in self._projector.read.all():
            if aside := projection.store.set_aside:
                yield Alert("store", projection.name, f"{aside}. Check the disk, then delete that folder")
        yield from self.disk.alerts()
        for name, text in self.scrub.blob_faults().items() if self.scrub is not None else ():
            yield Alert("blob", name, text)
        self._broker_away = self._progress.broker_is_away(self._members_error, self._steady)
        yield from self._standing_alerts()
        yield from self._feed_alerts(now)
        yield from self._lag_alerts()
        yield from self._checkpoint_alerts(now)
        yield from late_truths(self._projector.read, self._settings.crunch_id)
        if self.chain is not None:
            for concern in self.chain.concerns:
                yield Alert("chain", f"{concern.name} {concern.checkpoint_id}", concern.text)
            if self.chain.error:
                yield Alert("chain", "unreachable", self.chain.error)
        if self.webhook is not None and self.webhook.error:
            yield Alert("webhook", "delivery", self.webhook.error)
        for name, text in self.shadow.concerns.items():
            yield Alert("shadow", name, text)
        for task in self.side_tasks:
            if task.error:
                yield Alert(
                    "task", task.name, f"{task.name} failed {task.failures} times, last with {task.error}"
                )

    def _standing_alerts(self) -> Iterator[Alert]:
        """Stages, workers, models and subjects; not while the broker is away, since then all of them stand."""
        projector, read = self._projector, self._projector.read
        yield from self._progress.kafka(self._members_error, self._steady)
        if self._broker_away:
            return
        if not self._members_error:
            yield from self._progress.workers(self._members, self._steady)
        if projector.caught_up():
            answered, *missed_by_status = (
                read.predictions.counted("predictions", status) for status in ("recorded", "absent", "failed")
            )
            missing = {WORKER_OF[stage] for stage in nobody(self._members)}
            yield from self._progress.stages(projector.watch, self._steady, missing)
            yield from self._progress.checkpoint(read, self._steady)
            yield from self._progress.models(answered, sum(missed_by_status), self._steady)
        stall_ms = int(self._settings.feed_stall_alert_seconds * 1000)
        yield from silent_subjects(read.feeds.all(), self._settings.feed_subjects, read.feeds.clock, stall_ms)

    def _log_alerts(self, now: int) -> Iterator[Alert]:
        """What is wrong with the log itself, and what came from outside that nobody could take."""
        if self._projector.error is not None:
            yield Alert("log", "report", f"the read models stand still: {self._projector.error}")
        for topic, offset in self._projector.garbage().items():
            what = f"{topic} offset {offset} is no append of any version: somebody else wrote there, or "
            yield Alert(
                "log", f"garbage {topic}", what + "the broker's disk has altered it; all pass over it"
            )
        faults = [
            letter
            for letter in self._projector.read.dead_letters.newest(LETTERS_LOOKED_AT)
            if now - letter[1] < LETTERS_MS
        ]
        yield from letter_flood([(at, letter.reason) for _, at, letter in faults], now)
        newest: dict[str, Alert] = {}
        for _, _, letter in faults:
            if letter.origin == "log" and letter.position in WORKERS:
                name, text = letter.position, f"the {letter.position} worker stands still: {letter.reason}"
            elif letter.origin == "commands":
                name, text = "commands", f"a command was not taken: offset {letter.position}: {letter.reason}"
            else:
                continue
            newest.setdefault(name, Alert("log", name, text))
        yield from newest.values()

    def _feed_alerts(self, now: int) -> Iterator[Alert]:
        feeds = self._projector.read.feeds
        clock_is_ahead = (CLOCK, ClockState.AHEAD) in {
            (state.source, state.state) for state in feeds.states()
        }
        if feeds.clock != self._clock[0] or self._broker_away or clock_is_ahead:
            self._clock = (feeds.clock, self._steady)
        stood_ms = self._steady - self._clock[1]
        states = [state for state in feeds.states() if state.source != CLOCK]
        ahead_ms_max = int(self._settings.clock_ahead_seconds_max * 1000)
        yield from wrong_clock(feeds.states(), feeds.clock, now, ahead_ms_max)
        patience_ms = int(self._settings.feed_stall_alert_seconds * 1000)
        yield from self._progress.sources(states, patience_ms, self._steady)
        yield from self._price_jumps.alerts(feeds, self._settings.price_jump_alert_factor, now)
        if states and all(state.state == "ended" for state in states):
            return
        if stood_ms >= self._settings.feed_stall_alert_seconds * 1000 and feeds.clock > 0:
            why = "; ".join(
                f"{state.source} is {state.state}: {state.reason}"
                for state in states
                if state.state != "connected"
            )
            yield Alert(
                "feed", "stalled", f"the clock stands for {stood_ms // 1000} s{'; ' if why else ''}{why}"
            )

    def _lag_alerts(self) -> Iterator[Alert]:
        waiting = sum(self._projector.lag().values())
        if waiting < self._settings.lag_alert_records:
            self._lagging_since = None
            return
        if self._lagging_since is None:
            self._lagging_since = self._steady
        if self._steady - self._lagging_since >= LAG_MS_MAX:
            yield Alert("lag", "report", f"{waiting} records wait to be folded")

    def _checkpoint_alerts(self, now: int) -> Iterator[Alert]:
        checkpoints = self._projector.read.checkpoints
        if checkpoints.version != self._standing[0]:  # a row holds its whole ranking: read only what changed
            rows = islice(checkpoints.newest(), CHECKPOINTS_LOOKED_AT)
            self._standing = (
                checkpoints.version,
                [_standing(row) for row in rows if row.status in UNSETTLED],
            )
        for standing in self._standing[1]:
            age_ms = now - standing.created_at
            if standing.status == "WITHHELD":
                yield Alert(
                    "checkpoint",
                    f"withheld {standing.checkpoint_id}",
                    f"{standing.checkpoint_id} is withheld: {standing.reason}",
                )
            elif not standing.rehearsal and age_ms >= self._settings.unpaid_alert_seconds * 1000:
                yield Alert(
                    "checkpoint",
                    f"unpaid {standing.checkpoint_id}",
                    f"{standing.checkpoint_id} is {standing.status} for {age_ms // 3_600_000} hours",
                )


def _standing(row: CheckpointRow) -> CheckpointStanding:
    return CheckpointStanding(
        row.checkpoint.checkpoint_id, row.status, row.created_at, row.checkpoint.rehearsal, row.reason
    )


def make_monitor(projector: Projector, port: CommandPort) -> Monitor:
    """The monitor that the settings ask for. Raises OperatorError for a chain or a webhook that cannot be."""
    return Monitor(projector, port, wall_ms, make_watches(projector, port), steady_ms=steady_ms)
