"""Whether the machine's clock may be believed: what sources confirm, beside the seconds that the machine counts itself.

Pure: the wall clock, the seconds since the boot and all that was said are arguments. A source confirms a time by a
record of it or by its own clock (`SourceHealth.time_ms`, `FeedSource.time_ms`); so does an NTP server that
the operator named.
A source that keeps to our clock (`keeps_to_the_clock`) confirms nothing: then only a jump against the count since the
boot tells that the clock is wrong.

Time stands while nobody confirms it. In an outage of all sources it goes on for the bound and no further: no hole is
said, no point skipped and no period closed until one of them is back; then all of that is made up at once.

A record's own times are judged too (`time_fault`), before anything is made of them: one record from the year 9999 would
carry every later one with it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

UNKNOWN = -1
RECORD_AHEAD_MS_MAX = 86_400_000
"""How far a record may be ahead of now: a machine whose time zone was set wrong is behind by hours."""
AGE_SHARE_MAX = 8
"""No record is older than now / 8, which is 1977: before it lie today's times in seconds (1970)."""
_UNITS = (("seconds", 1_000, 1), ("microseconds", 1, 1_000), ("nanoseconds", 1, 1_000_000))
"""(unit, by what to multiply, by what to divide) to have milliseconds."""
CLOCK = "clock"
"""The name under which the state of this machine's clock stands beside those of the sources."""


class ClockState(StrEnum):
    """How the machine's clock stands. BEHIND is said only: a tick that comes late runs ahead of nobody."""

    RIGHT = "right"
    AHEAD = "ahead"
    BEHIND = "behind"
    UNCONFIRMED = "unconfirmed"


def time_fault(ts_event: int, at: int, now_ms: int, ahead_ms_max: int = RECORD_AHEAD_MS_MAX) -> str | None:
    """Why these cannot be a record's times in ms, or None. Names the unit that they seem to be in.

    `now_ms` is the newest time that is known: the clock's, or a later one that a source confirmed.
    """
    for name, time_ms in (("ts_event", ts_event), ("at", at)):
        if type(time_ms) is not int:
            return f"{name} {time_ms!r:.40} is no whole number of milliseconds"
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
    """Would it be a time of the years around now, in this unit?"""
    times, by = to_ms
    return now_ms // 2 < time * times // by < 2 * now_ms


class Verdict(msgspec.Struct, frozen=True):
    """May ticks be written by this reading of the clock, and what is to be said of it."""

    believed: bool
    now_ms: int
    """What may be taken for now: the reading, or where it is not believed the newest time that was confirmed."""
    state: ClockState
    reason: str = ""


class Witness:
    """Follows one clock. `ahead_ms_max` bounds how far it may run ahead of what was confirmed."""

    def __init__(self, ahead_ms_max: int, *, independent: bool, silence_ms: int = 0) -> None:
        """`independent`: the source's records do not come from this clock.

        `silence_ms`: how long a source that says no time of its own may be silent between two records.
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
        """The newest time that was confirmed, -1 before the first."""
        return max(self._newest, self._said[0] if self._said else UNKNOWN)

    def record(self, at_ms: int, uptime_ms: int | None = None) -> None:
        """A record of this time is there, or a tick of it: it is at least so late."""
        if self._independent and at_ms > self._newest:
            self._newest = at_ms
            self._confirmed_at = uptime_ms if uptime_ms is not None else self._confirmed_at

    def said(self, time_ms: int, uptime_ms: int) -> None:
        """A source's own clock, or an NTP server, said the time; the latest word counts."""
        if self._said is None or time_ms != self._said[0]:
            self._said = (time_ms, uptime_ms)
            self._confirmed_at = uptime_ms
            self._independent = True

    def capped(self, wall_ms: int, uptime_ms: int) -> int:
        """The reading, but never ahead of the first one and the seconds counted since by more than the bound."""
        if self._offset is None:
            self._offset = wall_ms - uptime_ms
        return min(wall_ms, uptime_ms + self._offset + self._ahead_ms_max)

    def look(self, wall_ms: int, uptime_ms: int) -> Verdict:
        """Judge one reading of the clock. Asked about once a second."""
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
            ahead_ms = wall_ms - confirmed - silent_ms  # what time and a late record's delay do not explain
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
