"""Terms: the rules under which everything else was decided."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import msgspec

from coordinator.streams.events.base import Data, Event


class Feed(Data, frozen=True, dict=True, gc=True):
    """The one feed whose records make inputs and truths; the subjects are named separately."""

    source: str
    kind: str
    granularity: str

    @cached_property
    def key(self) -> str:
        """The feed as text, for keys of JSON."""
        return f"{self.source}\x1f{self.kind}\x1f{self.granularity}"


class Scope(Data, frozen=True):
    """What one prediction is about. `interval_seconds` is the grid on which it is asked."""

    scope_key: str
    subject: str
    horizon_seconds: int
    step_seconds: int
    interval_seconds: int
    order: int = 0
    together: list[str] = []
    """The feed's subjects that are asked together as `subject`; empty for one by itself."""

    @property
    def members(self) -> list[str]:
        """The feed's subjects that it is about."""
        return self.together or [self.subject]


class Window(Data, frozen=True):
    """A named trailing window of the leaderboard."""

    name: str
    hours: int
    last: int = 0
    """The window covers only this many of the latest scores and charges within `hours`; 0: all of them."""
    least: int = 0
    """With fewer scores and charges the window has no number."""
    rule: Literal["mean", "sum", "ewma", "latest"] = "mean"
    alpha: float = 0.0
    """How much a new value weighs in the rule `ewma`."""
    combines: dict[str, float] = {}
    """Name of another window -> weight: the weighted mean of their numbers."""

    @property
    def plain(self) -> bool:
        """The mean of all values within its hours."""
        return self.of_sums and self.rule == "mean" and not self.least

    @property
    def of_sums(self) -> bool:
        """Whether it follows from sums of periods. Otherwise it needs values in their order, or other windows."""
        return not self.last and self.rule in ("mean", "sum") and not self.combines

    @property
    def values_max(self) -> int:
        """How many of the newest values it looks at one by one; 0 if it looks at none."""
        return (self.last or max(self.least, 1)) if self.last or self.rule == "latest" else 0

    @property
    def in_order(self) -> bool:
        """Does it need values in their order?"""
        return bool(self.last) or self.rule in ("ewma", "latest")


AbsencePolicy = Literal["ignore", "zero", "constant", "worst", "worst_percentile", "percentile", "scored"]
"""The charge for a missing answer; `scores/charges.py` has the rules."""


class BoardPart(msgspec.Struct, frozen=True, array_like=True):
    """[subject, scope_key, weight as a whole number in text]: it may have more digits than a number in JSON."""

    subject: str
    scope_key: str
    weight: str


class BoardTerms(Data, frozen=True):
    """A board of some scopes. `window` is empty for the checkpoint period."""

    name: str
    window: str
    parts: list[BoardPart]
    every_scope: bool
    of_scores: bool = False
    """A weight is of each score, not of a scope's mean."""


class EnsembleTerms(Data, frozen=True):
    """The properties of an ensemble that decide what the score stage remembers for it."""

    name: str
    hours: int
    """How far back (h) it knows the models' scores; 0: it does not look back."""
    error_field: str = ""
    """The score field whose squares it uses too."""
    weighs_metrics: bool = False
    """Are its weights those of the metrics that compare a model with an ensemble?"""


class CalendarTerms(Data, frozen=True):
    """When checkpoint periods begin, by the clock of a zone. Times are ms."""

    zone: str
    weekday: int | None
    """0 is Monday; null: each day is a period."""
    minute: int
    """The minute of the day, by the zone's clock."""
    unpaid_until: int
    """Periods that begin before this are not paid."""
    ends_at: int
    """The last period ends here."""


class CoverageTerms(Data, frozen=True):
    """The least share of a trailing span's rounds in which a ranked model is scored; `hours` or `rounds` is 0."""

    share: float
    hours: int
    rounds: int


class QuestionScope(Data, frozen=True):
    """The scope of posted questions that have one of its tags. Without tags it fits every question that fits no earlier
    scope.
    """

    scope_key: str
    tags: list[str]


class QuestionTerms(Data, frozen=True):
    """How posted questions are asked, and which answers count."""

    scopes: list[QuestionScope]
    counts: Literal["last", "mean", "history"]
    ask_again_ms: int
    """How often all are asked again; 0: never."""
    ask_again_on_change: bool
    ask_missing_ms: int
    """How long after an asking those without an answer are asked again, for the first time; 0: never."""


class Terms(Data, frozen=True, dict=True, gc=True):
    """The declarative half of a contract plus the node's intervals, as one fact."""

    contract_hash: str
    crunch_pubkey: str | None
    feed: Feed
    subjects: list[str]
    scopes: list[Scope]
    windows: list[Window]
    ranking_key: str
    checkpoint_key: str
    ranking_direction: Literal["asc", "desc"]
    value_field: str
    score_decimals: int
    scoring_hash: str
    """The hash of the meaning of a score: the code that makes it, its type and its `value_field`. Sums never mix two of
    these."""
    deadline_ms: int
    grace_ms: int
    output_max_bytes: int
    absence_policy: AbsencePolicy
    min_participation: float
    newcomer_excuse_max: float
    snapshot_interval_ms: int
    checkpoint_interval_ms: int
    checkpoint_offset_ms: int
    """Checkpoint periods begin at multiples of the interval since 1970-01-01, a Thursday, 00:00 UTC, plus this."""
    effective_from: int
    answers_hidden_until: Literal["resolvable", "recorded"] = "resolvable"
    absence_units: int = 0
    """What the policy `constant` charges."""
    absence_percent: float = 10.0
    """Which percentile of the round's scores the policy `percentile` charges, counted from the worse end."""
    boards: list[BoardTerms] = []
    ensembles: list[EnsembleTerms] = []
    calendar: CalendarTerms | None = None
    """If the contract has one, checkpoint periods follow it, and the interval and its offset have no effect."""
    coverage: CoverageTerms | None = None
    newcomer_past: Literal["nothing", "worst", "median"] = "nothing"
    """The value of a model for each round from before it joined."""
    input_records_max: int = 120
    """The maximum number of records of a subject in an input, including a model's first one."""
    questions: QuestionTerms | None = None
    """If the contract takes posted questions: how."""
    goes_on: bool = False
    """They change only what is asked (feed, subjects, scopes), and apply at once: no running period ends where they
    begin.
    """

    def members(self, subject: str) -> list[str]:
        """The feed's subjects that an input of this subject is about."""
        return self._members_of.get(subject) or [subject]

    @cached_property
    def _members_of(self) -> dict[str, list[str]]:
        """Subject -> what its first scope is about."""
        return {scope.subject: scope.members for scope in reversed(self.scopes)}

    @property
    def live_keys(self) -> list[str]:
        """The numbers that change between two snapshots and by which a live board can rank: windows, and boards over a
        window. Any other `ranking_key` is a key of the snapshot summary.
        """
        return [
            *(window.name for window in self.windows),
            *(board.name for board in self.boards if board.window),
        ]

    @property
    def summed_windows(self) -> list[Window]:
        """The windows that follow from sums of periods."""
        return [window for window in self.windows if window.of_sums]

    @property
    def hours_max(self) -> int:
        """How far back (h) sums of periods are used; 0 if no window uses sums."""
        return max((window.hours for window in self.windows if window.of_sums), default=0)

    @property
    def hours_in_order(self) -> int:
        """How far back (h) ordered values are used; 0 if no window needs them."""
        return max((window.hours for window in self.windows if window.in_order), default=0)


class CrunchConfigured(Event, frozen=True):
    """New terms apply from `effective_from`. They are copied unchanged into every later topic."""

    data: Terms
