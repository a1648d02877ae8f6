"""Runs one drill: a node that is well, the fault, the alert, what was lost, the runbook, and the end of the alert."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coordinator.cli.drills.drill import ALERT_SECONDS_MAX, Drill, DrillFailedError, Outcome
from coordinator.cli.drills.scratch import START_SECONDS_MAX, ScratchNode
from coordinator.infra.processes.ending import END_SECONDS_MAX
from coordinator.streams.log.errors import CoordinatorError

DOWN_SECONDS = 10.0
"""Prometheus would see `up == 0` at its next scrape."""
LASTING_SECONDS = 3.0
"""For how long the alert is looked at once it is on: another one that comes with it is seen too."""
END_SECONDS_WAITED_MAX = 120.0
POLL_SECONDS = 0.5
FOLDER = "coordinator-drill-"
Say = Callable[[str], None]


class Watch:
    """Looks at /healthz until `stop`: which alerts were on, and when each was first seen."""

    def __init__(self, node: ScratchNode) -> None:
        self.first_seen: dict[str, float] = {}
        self.texts: dict[str, str] = {}
        self.now: set[str] = set()
        self._node = node
        self._silent_since: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self.now = self._look(time.monotonic())
            for alert in self.now:
                self.first_seen.setdefault(alert, time.monotonic())

    def _look(self, now: float) -> set[str]:
        alerts = self._node.alerts()
        if alerts is not None:
            self._silent_since = None
            self.texts |= {alert["kind"]: alert["text"] for alert in alerts}
            return {alert["kind"] for alert in alerts}
        if not self._node.is_expected_up:
            self._silent_since = None
            return set()
        if self._silent_since is None:
            self._silent_since = now
        return {"down"} if now - self._silent_since >= DOWN_SECONDS else set()


def run_drill(drill: Drill, say: Say, under_way: list[ScratchNode]) -> Outcome:
    """Run the drill in a temporary folder. The outcome lists whatever did not go as it must. While the drill runs,
    its node is in `under_way`.
    """
    if reason := drill.cannot():
        return _not_run(drill, reason)
    with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as folder:
        node = ScratchNode(Path(folder), drill.settings)
        under_way.append(node)
        try:
            return _Run(drill, node, say).run()
        finally:
            node.throw_away()
            under_way.remove(node)


def throw_away(under_way: list[ScratchNode]) -> None:
    """End the drills under way: their nodes, brokers, markets and folders."""
    for node in list(under_way):
        node.throw_away()
        shutil.rmtree(node.folder, ignore_errors=True)


class _Run:
    def __init__(self, drill: Drill, node: ScratchNode, say: Say) -> None:
        self.drill, self.node, self.say = drill, node, say
        self.faults: list[str] = []
        self.lost: list[str] = []
        self.expected = set(drill.expected)
        self.alert_after: float | None = None
        self.ended_after: float | None = None
        self.records = 0

    def run(self) -> Outcome:
        node = self.node
        self.say("starting a scratch node")
        try:
            if self.drill.prepare is not None:
                self.drill.prepare(node)
            node.start()
            node.until(
                lambda: node.alerts() == [] and node.keeps_up(),
                "no alert is on and it keeps up (is the machine busy with other things?)",
                START_SECONDS_MAX,
            )
            self.drill.before(node)
        except (CoordinatorError, DrillFailedError) as error:
            return self._outcome(None, fault=f"the scratch node did not start: {error}")
        before = node.digests()
        self.records = sum(end for end, _ in before.values())
        watch = Watch(node)
        try:
            self._broken_and_mended(watch)
            self._compare(before)
        except (CoordinatorError, DrillFailedError, OSError, subprocess.SubprocessError) as error:
            self.faults.append(str(error) or type(error).__name__)
        finally:
            watch.stop()
        return self._outcome(watch)

    def _broken_and_mended(self, watch: Watch) -> None:
        self.say(f"breaking: {self.drill.breaks}")
        began = time.monotonic()
        self.drill.inject(self.node)
        self._wait_for_alert(watch, began)
        self.say(f"the runbook: {self.drill.ends_by}")
        before = self.node.scored()
        began = time.monotonic()
        self.drill.end(self.node)
        self.node.until(
            lambda: self.node.alerts() == [] and not watch.now and self.node.scored() > before,
            "every alert has ended and the node scores again",
            END_SECONDS_WAITED_MAX,
        )
        self.ended_after = time.monotonic() - began

    def _wait_for_alert(self, watch: Watch, began: float) -> None:
        if not self.expected:
            time.sleep(self.drill.quiet_seconds)
            return
        while not self.expected <= watch.first_seen.keys():
            if time.monotonic() - began > ALERT_SECONDS_MAX + END_SECONDS_MAX:
                self.faults.append(
                    f"no alert {', '.join(sorted(self.expected - watch.first_seen.keys()))} came"
                )
                return
            time.sleep(POLL_SECONDS)
        self.alert_after = max(watch.first_seen[alert] for alert in self.expected) - began
        for alert in sorted(self.expected):
            self.say(
                f"alert {alert} after {watch.first_seen[alert] - began:.0f} s: {watch.texts.get(alert, '')}"
            )
        if self.alert_after > ALERT_SECONDS_MAX:
            self.faults.append(
                f"the alert came after {self.alert_after:.0f} s, not within {ALERT_SECONDS_MAX:.0f} s"
            )
        time.sleep(LASTING_SECONDS)
        if (text := watch.texts.get(self.drill.alert, "")) and self.drill.says not in text:
            self.faults.append(f"the alert does not say {self.drill.says!r}: {text}")

    def _compare(self, before: dict[str, tuple[int, str]]) -> None:
        after = self.node.digests({topic: end for topic, (end, _) in before.items()})
        self.lost = [topic for topic, digest in before.items() if after.get(topic) != digest]
        if self.lost:
            self.faults.append(f"acknowledged records of {', '.join(self.lost)} are lost or changed")
        invariants = self.node.ask("/reports/invariants")
        if invariants is None or not invariants["ok"]:
            self.faults.append("an invariant of the log is broken afterwards")

    def _outcome(self, watch: Watch | None, fault: str = "") -> Outcome:
        raised = {} if watch is None else watch.first_seen
        for alert in sorted(raised.keys() - self.expected):
            text = watch.texts.get(alert, "") if watch is not None else ""
            self.faults.append(f"alert {alert} came too: {text}" if text else f"alert {alert} came too")
        drill = self.drill
        return Outcome(
            name=drill.name,
            breaks=drill.breaks,
            expected=drill.expected,
            raised=tuple(sorted(raised, key=lambda alert: raised[alert])),
            alert_after_seconds=_rounded(self.alert_after),
            ended_after_seconds=_rounded(self.ended_after),
            ends_by=drill.ends_by,
            holds=drill.holds,
            acknowledged_records=self.records,
            lost=tuple(self.lost),
            faults=tuple([fault] if fault else self.faults),
        )


def _not_run(drill: Drill, reason: str) -> Outcome:
    return Outcome(
        name=drill.name,
        breaks=drill.breaks,
        expected=drill.expected,
        raised=(),
        alert_after_seconds=None,
        ended_after_seconds=None,
        ends_by=drill.ends_by,
        holds=drill.holds,
        acknowledged_records=0,
        lost=(),
        faults=(),
        not_run=reason,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
