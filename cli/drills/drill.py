"""What a drill is, and its outcome: plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from coordinator.cli.drills.scratch import ScratchNode

ALERT_SECONDS_MAX = 60.0
"""An alert has to be on so long after the fault, in event time. The scratch node is live: that is the wall's time."""

Step = Callable[[ScratchNode], None]


def nothing(_node: ScratchNode) -> None:
    """Nothing has to be done."""


def possible() -> str:
    """Any machine can make the fault."""
    return ""


class Drill(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. Each text is a sentence for an operator."""

    name: str
    breaks: str
    """What is done to the node."""
    alert: str = ""
    """The alert that has to come: the name of its runbook page. Empty: none may come, and `holds` says what happens."""
    holds: str = ""
    """What the node does by itself, where no alert comes."""
    also: tuple[str, ...] = ()
    """Further alerts that this fault rightly raises."""
    says: str = ""
    """What the text of the alert has to hold, where the alert alone does not name the cause."""
    inject: Step
    """Breaks it. Raises DrillFailed if the node takes the fault otherwise than `holds` says."""
    end: Step = nothing
    """Does what the runbook's page says."""
    ends_by: str
    """What that was."""
    settings: Mapping[str, str] = {}
    """Settings of the scratch node, over those of every drill."""
    prepare: Step | None = None
    """What has to be there before the node starts."""
    before: Step = nothing
    """What a careful operator has done while all was well: a backup."""
    quiet_seconds: float = 20.0
    """For how long no alert may come, where none is expected."""
    cannot: Callable[[], str] = possible
    """Why this machine cannot make the fault; empty where it can. Then nothing is started, and the outcome says so."""
    quick: bool = False
    """Runs in `make test` too."""

    @property
    def expected(self) -> tuple[str, ...]:
        """Every alert that has to come."""
        return (*([self.alert] if self.alert else []), *self.also)


class DrillFailedError(Exception):
    """The node did otherwise than the drill says."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a drill. Times are seconds."""

    name: str
    breaks: str
    expected: tuple[str, ...]
    raised: tuple[str, ...]
    alert_after_seconds: float | None
    ended_after_seconds: float | None
    ends_by: str
    holds: str
    acknowledged_records: int
    lost: tuple[str, ...]
    faults: tuple[str, ...]
    """Why it did not go as it must; empty if it did."""
    not_run: str = ""
    """Why this machine cannot make the fault: nothing was tried, so nothing is shown."""

    @property
    def ok(self) -> bool:
        """Whether all went as it must. A drill that was not run is not ok."""
        return not self.faults and not self.not_run
