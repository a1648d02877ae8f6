"""The terms in force: which rules hold at which time, and how they divide time into periods.

Pure. Every topic has the terms as CrunchConfigured, in order, so each stage knows them from its own events. Later
terms hold from their `effective_from` on. That is the end of a checkpoint period of the terms before, or any time if
they change only what is asked (`goes_on`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import msgspec

from coordinator.streams.contract import (
    AbsenceConstant,
    AbsencePercentile,
    AggregationWindow,
    CrunchContract,
    Ewma,
)
from coordinator.streams.contract.boards import board_terms
from coordinator.streams.contract.comparable_terms import (
    adds_up,
    comparable_since,
    holds_past,
    kept_since,
    sums_since,
)
from coordinator.streams.contract.ensembles import Ensemble
from coordinator.streams.contract.periods import calendar_fault, calendar_period
from coordinator.streams.contract.questions import QUESTIONS
from coordinator.streams.durations import FAR_MS, HOUR_MS
from coordinator.streams.events import (
    CrunchConfigured,
    EnsembleTerms,
    Feed,
    Scope,
    Terms,
    Window,
)
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

MS = 1000
UNITS_MAX = 2**53
HOURS_A_YEAR = 8760


def make_terms(
    contract: CrunchContract,
    contract_hash: str,
    settings: Settings,
    effective_from: int,
    *,
    scoring_hash: str = "",
) -> Terms:
    """The terms that follow from a contract and the node's settings.

    Raises OperatorError if the subject of a schedule is not one of FEED_SUBJECTS, or a span of time is not a multiple
    of the snapshot interval.
    """
    scopes: list[Scope] = []
    for schedule in contract.schedules():
        name, together = schedule.scope.name, schedule.scope.together
        for subject in together or ([name] if name else []):
            if subject not in settings.feed_subjects:
                message = (
                    f"scheduled_predictions: scope {schedule.scope_key!r} has the subject {subject!r}, "
                    f"which is none of FEED_SUBJECTS {list(settings.feed_subjects)}"
                )
                raise OperatorError(message)
        if together and name in settings.feed_subjects:
            message = f"scheduled_predictions: {name!r} means {list(together)} together, and is in FEED_SUBJECTS too"
            raise OperatorError(message)
        scopes.extend(
            Scope(
                scope_key=schedule.scope_key,
                subject=subject,
                horizon_seconds=schedule.scope.horizon_seconds,
                step_seconds=schedule.scope.step_seconds,
                interval_seconds=schedule.interval_seconds,
                order=schedule.order,
                together=list(together),
            )
            for subject in ([name] if name else settings.feed_subjects)
        )
    aggregation = contract.aggregation
    for window in aggregation.windows:
        if (window.hours or 0) * 3600 % settings.snapshot_interval_seconds:
            message = (
                f"aggregation.windows: {window.name!r} of {window.hours} h is no multiple of "
                f"SNAPSHOT_INTERVAL_SECONDS ({settings.snapshot_interval_seconds}); a window is a sum of snapshots"
            )
            raise OperatorError(message)
    if contract.coverage and (contract.coverage.hours or 0) * 3600 % settings.snapshot_interval_seconds:
        message = (
            f"coverage: {contract.coverage.hours} h is no multiple of SNAPSHOT_INTERVAL_SECONDS "
            f"({settings.snapshot_interval_seconds}); a span is a sum of snapshots"
        )
        raise OperatorError(message)
    for ensemble in contract.ensembles:
        if ensemble.looks_back and ensemble.hours * 3600 % settings.snapshot_interval_seconds:
            message = (
                f"ensembles: {ensemble.name!r} looks back {ensemble.hours} h, which is no multiple of "
                f"SNAPSHOT_INTERVAL_SECONDS ({settings.snapshot_interval_seconds})"
            )
            raise OperatorError(message)
    calendar = contract.calendar.terms() if contract.calendar else None
    interval_ms = settings.snapshot_interval_seconds * MS
    if calendar and (fault := calendar_fault(calendar, interval_ms)):
        message = f"calendar: {fault} (SNAPSHOT_INTERVAL_SECONDS, {settings.snapshot_interval_seconds})"
        raise OperatorError(message)
    return Terms(
        contract_hash=contract_hash,
        crunch_pubkey=contract.crunch_pubkey,
        feed=Feed(
            source=settings.feed_source, kind=settings.feed_kind, granularity=settings.feed_granularity
        ),
        subjects=list(settings.feed_subjects),
        scopes=scopes,
        windows=[_window(window) for window in aggregation.windows],
        ranking_key=aggregation.ranking_key,
        checkpoint_key=aggregation.checkpoint_key,
        ranking_direction=aggregation.ranking_direction.value,
        value_field=aggregation.value_field,
        score_decimals=contract.score_decimals,
        scoring_hash=scoring_hash,
        deadline_ms=round(contract.deadline_seconds * MS),
        grace_ms=round(contract.grace_seconds * MS),
        output_max_bytes=contract.output_max_bytes,
        **_absence(contract),
        min_participation=contract.min_participation,
        newcomer_excuse_max=contract.newcomer_excuse_max,
        newcomer_past=contract.newcomer_past,
        coverage=contract.coverage.terms() if contract.coverage else None,
        snapshot_interval_ms=settings.snapshot_interval_seconds * MS,
        checkpoint_interval_ms=settings.checkpoint_interval_seconds * MS,
        checkpoint_offset_ms=settings.checkpoint_offset_seconds * MS,
        effective_from=effective_from,
        answers_hidden_until=contract.answers_hidden_until,
        boards=board_terms(
            aggregation.boards,
            [*scopes, *_question_scopes(contract)],
            [window.name for window in aggregation.windows],
        ),
        ensembles=[_ensemble(contract, ensemble) for ensemble in contract.ensembles],
        calendar=calendar,
        questions=contract.questions.terms() if contract.questions else None,
        input_records_max=max(contract.input_records, contract.input_records_first),
    )


def _question_scopes(contract: CrunchContract) -> list[Scope]:
    """The scopes of posted questions as boards see them; they are on no grid, and so in no `Terms.scopes`."""
    return [
        Scope(
            scope_key=scope.scope_key,
            subject=QUESTIONS,
            horizon_seconds=0,
            step_seconds=0,
            interval_seconds=1,
        )
        for scope in (contract.questions.scopes if contract.questions else ())
    ]


def _ensemble(contract: CrunchContract, ensemble: Ensemble) -> EnsembleTerms:
    metrics = contract.aggregation.metrics
    return EnsembleTerms(
        name=ensemble.name,
        hours=ensemble.hours if ensemble.looks_back else 0,
        error_field=ensemble.error_field,
        weighs_metrics=metrics is not None and metrics.ensemble == ensemble.name,
    )


def _window(window: AggregationWindow) -> Window:
    ewma = window.rule if isinstance(window.rule, Ewma) else None
    return Window(
        name=window.name,
        hours=0 if window.combines else window.hours or HOURS_A_YEAR,
        last=window.last or 0,
        least=window.least,
        rule="ewma" if isinstance(window.rule, Ewma) else window.rule,
        alpha=ewma.alpha if ewma else 0.0,
        combines=window.combines,
    )


def _absence(contract: CrunchContract) -> dict[str, Any]:
    """The fields of Terms for the charge of a missing answer. Raises OperatorError if it is too large for the log."""
    match contract.absence_policy:
        case AbsenceConstant(value=value):
            units = round(Fraction(repr(value)) * 10**contract.score_decimals)
            if abs(units) > UNITS_MAX:
                raise OperatorError(f"absence_policy: {value:g} is beyond 2**53 units; lower score_decimals")
            return {"absence_policy": "constant", "absence_units": units}
        case AbsencePercentile(percent=percent):
            return {"absence_policy": "percentile", "absence_percent": percent}
        case policy:
            return {"absence_policy": policy}


def in_force(told: Sequence[Terms]) -> TermsInForce:
    """The terms in force, if these were configured one after another."""
    terms_in_force = TermsInForce()
    for number, terms in enumerate(told):
        terms_in_force.add(CrunchConfigured(id=str(number), at=0, data=terms))
    return terms_in_force


def same_terms(terms: Terms, other: Terms) -> bool:
    """Whether both are equal, apart from the time from which they hold."""
    return terms == msgspec.structs.replace(other, effective_from=terms.effective_from, goes_on=terms.goes_on)


def asking_as(held: Terms, wanted: Terms) -> Terms:
    """The terms `held`, with the feed and the subjects of `wanted`.

    These may change within a checkpoint period, because the scores still mean the same. A scope that was asked for
    every subject is asked for every subject of `wanted`.
    """
    scopes = wanted.scopes
    if wanted.contract_hash != held.contract_hash:
        subjects_of: dict[str, list[str]] = {}
        for scope in held.scopes:
            if not scope.together:
                subjects_of.setdefault(scope.scope_key, []).append(scope.subject)
        scope_of = {scope.scope_key: scope for scope in reversed(held.scopes)}
        scopes = [
            scope for scope in held.scopes if scope.together and set(scope.together) <= set(wanted.subjects)
        ]
        scopes += [
            msgspec.structs.replace(scope_of[key], subject=subject)
            for key, subjects in subjects_of.items()
            for subject in wanted.subjects
            if set(subjects) == set(held.subjects) or subject in subjects
        ]
    return msgspec.structs.replace(
        held, feed=wanted.feed, subjects=wanted.subjects, scopes=scopes, goes_on=True
    )


def _named(feed: Feed) -> str:
    return f"{feed.source} {feed.kind} {feed.granularity}"


def _of_grid(time_ms: int, interval_ms: int, offset_ms: int) -> tuple[int, int]:
    floor = (time_ms - offset_ms) // interval_ms * interval_ms + offset_ms
    return floor, floor + interval_ms


def _checkpoint_period(terms: Terms, time_ms: int) -> tuple[int, int]:
    if terms.calendar is not None:
        return calendar_period(terms.calendar, time_ms)
    return _of_grid(time_ms, terms.checkpoint_interval_ms, terms.checkpoint_offset_ms)


class TermsInForce(msgspec.Struct):
    """All terms so far, by `effective_from`. A value."""

    events: list[CrunchConfigured] = []

    def add(self, event: CrunchConfigured) -> None:
        """Add terms. The same event again changes nothing."""
        if all(earlier.id != event.id for earlier in self.events):
            self.events.append(event)
            self.events.sort(key=lambda configured: configured.data.effective_from)

    def __bool__(self) -> bool:
        return bool(self.events)

    def at(self, time_ms: int) -> Terms:
        """The terms that hold at a time. The first ones also hold before their own time. Raises IndexError without
        terms.
        """
        held = self.events[0].data
        for event in self.events[1:]:
            if event.data.effective_from > time_ms:
                break
            held = event.data
        return held

    def spans(self) -> list[tuple[int, int, Terms]]:
        """(from, until, terms) of each, in order and in ms. The last `until` is far in the future."""
        if len(self.events) == 1:  # the usual case, in the hot path of every stage
            terms = self.events[0].data
            return [(terms.effective_from, FAR_MS, terms)]
        starts = [event.data.effective_from for event in self.events]
        return [
            (start, until, event.data)
            for event, start, until in zip(self.events, starts, [*starts[1:], FAR_MS], strict=False)
        ]

    def kept_since(self, time_ms: int, hours_of: Callable[[Terms], int]) -> int:
        """The function `kept_since`, for these terms."""
        if len(self.events) == 1:  # the usual case
            return 0
        return kept_since([event.data for event in self.events], time_ms, hours_of)

    def sums_since(self, time_ms: int) -> int:
        """The function `sums_since`, for these terms."""
        return sums_since([event.data for event in self.events], time_ms)

    def holds_past(self, time_ms: int) -> bool:
        """The function `holds_past`, for these terms."""
        return holds_past([event.data for event in self.events], time_ms)

    def reach(self, end: int, hours_of: Callable[[Terms], int]) -> int:
        """The start (ms) of the oldest values that are kept at the end of a period (ms)."""
        return max(end - hours_of(self.at(end - 1)) * HOUR_MS, self.kept_since(end - 1, hours_of))

    def comparable_since(self, time_ms: int) -> int:
        """The function `comparable_since`, for these terms."""
        return comparable_since([event.data for event in self.events], time_ms)

    def adds_up(self, contract_hash: str, time_ms: int) -> bool:
        """Whether scores by this contract mean the same as scores at a time; True for a contract that no terms name."""
        held = self.at(time_ms)
        return contract_hash == held.contract_hash or adds_up(
            [event.data for event in self.events], contract_hash, held
        )

    def _stretches(self) -> list[tuple[int, int, Terms]]:
        """The spans, where terms with `goes_on` only make the span before them longer."""
        if len(self.events) == 1:
            return self.spans()
        stretches: list[tuple[int, int, Terms]] = []
        for start, until, terms in self.spans():
            if stretches and terms.goes_on:
                stretches[-1] = (stretches[-1][0], until, stretches[-1][2])
            else:
                stretches.append((start, until, terms))
        return stretches

    def feed_change(self, point: int, subject: str, now: int) -> str | None:
        """Why a subject of the terms at `point` has no records of its feed any more at `now`; None if it has."""
        feed = self.at(point).feed
        for start, until, terms in self.spans():
            if not point < start <= now or until <= start:
                continue
            if terms.feed != feed:
                return f"at {start} from {_named(feed)} to {_named(terms.feed)}"
            for member in self.at(point).members(subject):
                if member not in terms.subjects:
                    return f"at {start} {member} was taken out"
        return None

    def _cut(self, time_ms: int, period_of: Callable[[Terms, int], tuple[int, int]]) -> tuple[int, int]:
        """The period that holds a time, by `period_of` its terms, without what is before or after these terms."""
        for start, until, terms in self._stretches():
            if time_ms < until:
                floor, end = period_of(terms, time_ms)
                return max(floor, start), min(end, until)
        message = "no terms in force"
        raise LookupError(message)

    def snapshot_period(self, time_ms: int) -> tuple[int, int]:
        """The snapshot period [start, end) of a time: multiples of the interval since the epoch, cut where terms
        change.
        """
        return self._cut(time_ms, lambda terms, time: _of_grid(time, terms.snapshot_interval_ms, 0))

    def checkpoint_period(self, time_ms: int) -> tuple[int, int]:
        """The checkpoint period [start, end) of a time."""
        return self._cut(time_ms, _checkpoint_period)

    def boundary_after(self, clock_ms: int) -> int:
        """From when (ms) rules hold that are configured when the log's clock is there: from the end of the checkpoint
        period of the next instant, in place of other rules that are planned to begin then. Raises LookupError without
        terms.
        """
        return self.checkpoint_period(clock_ms + 1)[1]

    def ends_checkpoint_period(self, from_ms: int, until_ms: int) -> bool:
        """Whether a checkpoint period ends in (from_ms, until_ms]. False without terms."""
        return bool(self.events) and self.checkpoint_period(from_ms)[1] <= until_ms
