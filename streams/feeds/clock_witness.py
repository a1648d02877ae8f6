"""Judges whether the machine's clock is right, from what sources confirm and from the seconds since boot.

Pure: the wall clock, the time since boot and what sources said are arguments. A source confirms a time by a record of
that time, or by its own clock (`SourceHealth.time_ms`, `FeedSource.time_ms`). An NTP server that the operator names
confirms the time, too. A source whose records are timed by our own clock (`keeps_to_the_clock`) confirms nothing: then
only a jump relative to the time since boot shows that the clock is wrong.

While nobody confirms the time, it stops. In an outage of all sources it advances by the bound and no further: no gap is
recorded, no grid point skipped and no period closed until a source is back; then all of this is caught up at once.

A record's own times are judged (`time_fault`) before anything is made of them: a record from the year 9999 would push
the time of everything after it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

UNKNOWN = -1
RECORD_AHEAD_MS_MAX = 86_400_000
"""How far a record may be ahead of now. It is a day, because a machine with a wrong time zone is behind by hours."""
AGE_SHARE_MAX = 8
"""No record is older than now / 8, which is in 1977: today's time in seconds, taken for ms, would be in 1970."""
_UNITS = (("seconds", 1_000, 1), ("microseconds", 1, 1_000), ("nanoseconds", 1, 1_000_000))
"""(unit, factor, divisor): a time in the unit, times factor, by divisor, is in milliseconds."""
CLOCK = "clock"
"""The name of this machine's clock among the states of the sources."""


class ClockState(StrEnum):
    """The state of the machine's clock. BEHIND is only reported: a late tick does no harm."""

    RIGHT = "right"
    AHEAD = "ahead"
    BEHIND = "behind"
    UNCONFIRMED = "unconfirmed"


def time_fault(ts_event: int, at: int, now_ms: int, ahead_ms_max: int = RECORD_AHEAD_MS_MAX) -> str | None:
    """Why these cannot be a record's times in ms, or None. Names the unit that they seem to have.

    `now_ms` is the newest known time: the clock's, or a later time that a source confirmed.
    """
    for name, time_ms in (("ts_event", ts_event), ("at", at)):
        if type(time_ms) is not int:
            return f"{name} {time_ms!r:.40} is not a whole number of milliseconds"
        if time_ms < 0:
            return f"{name} {time_ms} is before 1970"
        ahead_ms = time_ms - now_ms
        if ahead_ms > ahead_ms_max or time_ms < now_ms // AGE_SHARE_MAX:
            unit = next((unit for unit, *to_ms in _UNITS if _is_near(time_ms, to_ms, now_ms)), None)
            if unit is not None:
                return f"{name} {time_ms} is in {unit} by its size: times are in milliseconds"
        if ahead_ms > ahead_ms_max:
            return f"{name} {time_ms} is {ahead_ms // 1000} s in the future"
        if time_ms < now_ms // AGE_SHARE_MAX:
            return f"{name} {time_ms} is older than any record: is it in milliseconds since 1970?"
    if ts_event > at:
        return f"ts_event {ts_event} is after at {at}, the time when it became known"
    return None


def _is_near(time: int, to_ms: list[int], now_ms: int) -> bool:
    """Whether the time, converted to ms with (factor, divisor), lies between now / 2 and twice now."""
    factor, divisor = to_ms
    return now_ms // 2 < time * factor // divisor < 2 * now_ms


class Verdict(msgspec.Struct, frozen=True):
    """Whether ticks may be written by this reading of the clock, and the clock's state to report."""

    believed: bool
    now_ms: int
    """The time to use as now: the reading, or the newest confirmed time if the reading is not believed."""
    state: ClockState
    reason: str = ""


class Witness:
    """Follows one clock. `ahead_ms_max` bounds how far the clock may be ahead of what was confirmed."""

    def __init__(self, ahead_ms_max: int, *, independent: bool, silence_ms: int = 0) -> None:
        """`independent`: the source's records are not timed by this clock.

        `silence_ms`: how long a source without a clock of its own may be silent between two records.
        """
        self._ahead_ms_max = ahead_ms_max
        self._independent = independent
        self._silence_ms = silence_ms
        self._said: tuple[int, int] | None = None
        self._newest = UNKNOWN
        self._offset: int | None = None
        self._confirmed_at: int | None = None

    @property
    def confirmed_ms(self) -> int:
        """The newest confirmed time; -1 before the first."""
        return max(self._newest, self._said[0] if self._said else UNKNOWN)

    def record(self, at_ms: int, uptime_ms: int | None = None) -> None:
        """Take a record or a tick of this time: it confirms that it is at least so late."""
        if self._independent and at_ms > self._newest:
            self._newest = at_ms
            self._confirmed_at = uptime_ms if uptime_ms is not None else self._confirmed_at

    def said(self, time_ms: int, uptime_ms: int) -> None:
        """Take the time of a source's own clock or an NTP server. The latest one counts."""
        if self._said is None or time_ms != self._said[0]:
            self._said = (time_ms, uptime_ms)
            self._confirmed_at = uptime_ms
            self._independent = True

    def capped(self, wall_ms: int, uptime_ms: int) -> int:
        """The reading, limited to the first reading plus the uptime since then plus `ahead_ms_max`."""
        if self._offset is None:
            self._offset = wall_ms - uptime_ms
        return min(wall_ms, uptime_ms + self._offset + self._ahead_ms_max)

    def look(self, wall_ms: int, uptime_ms: int) -> Verdict:
        """Judge one reading of the clock. Called about once a second."""
        if self._offset is None:
            self._offset = wall_ms - uptime_ms
        if self._confirmed_at is None:
            self._confirmed_at = uptime_ms
        jumped_ms = wall_ms - uptime_ms - self._offset
        verdict = self._by_sources(wall_ms, uptime_ms, jumped_ms) if self._independent else None
        if verdict is None:
            verdict = self._by_count(wall_ms, jumped_ms)
        if verdict.state is ClockState.RIGHT:
            self._offset = wall_ms - uptime_ms
        return verdict

    def _by_sources(self, wall_ms: int, uptime_ms: int, jumped_ms: int) -> Verdict:
        bound_ms = self._ahead_ms_max if self._said else max(self._ahead_ms_max, 2 * self._silence_ms)
        confirmed = self.confirmed_ms
        silent_ms = uptime_ms - (self._confirmed_at or 0)
        if confirmed == UNKNOWN or wall_ms > confirmed + bound_ms:
            ahead_ms = (
                wall_ms - confirmed - silent_ms
            )  # what the time since the last confirmation does not explain
            if confirmed != UNKNOWN and max(jumped_ms, ahead_ms) > bound_ms:
                ahead = f"{(wall_ms - confirmed) / 1000:.0f} s ahead of what the sources confirm"
                return Verdict(False, confirmed, ClockState.AHEAD, f"this machine's clock is {ahead}")
            quiet = confirmed != UNKNOWN or silent_ms > bound_ms
            state = ClockState.UNCONFIRMED if quiet else ClockState.RIGHT
            reason = f"no source has confirmed the time for {bound_ms / 1000:.0f} s" if quiet else ""
            return Verdict(False, max(confirmed, 0), state, reason)
        if self._said is not None:
            time_ms, since_ms = self._said
            behind_ms = time_ms + (uptime_ms - since_ms) - wall_ms
        else:
            behind_ms = self._newest - wall_ms
        if behind_ms > self._ahead_ms_max:
            reason = f"this machine's clock is {behind_ms / 1000:.0f} s behind what the sources say"
            return Verdict(True, wall_ms, ClockState.BEHIND, reason)
        return Verdict(True, wall_ms, ClockState.RIGHT)

    def _by_count(self, wall_ms: int, jumped_ms: int) -> Verdict:
        if abs(jumped_ms) <= self._ahead_ms_max:
            return Verdict(True, wall_ms, ClockState.RIGHT)
        ahead = jumped_ms > 0
        reason = (
            f"this machine's clock jumped by {jumped_ms / 1000:+.0f} s, and the source has no clock of its own to "
            f"compare it with: if it is right now, start the feed worker again or set NTP_SERVER"
        )
        state = ClockState.AHEAD if ahead else ClockState.BEHIND
        return Verdict(False, wall_ms - jumped_ms, state, reason)
