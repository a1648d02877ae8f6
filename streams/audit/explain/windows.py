"""The steps of a snapshot that look back on earlier periods: its windows, its boards over a window, its coverage.

Takes the gathered facts; gives steps of an `Explanation`. The numbers are computed again by `windows_again`,
`boards_again` and `covered_again` of the audit. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.streams.audit.differences import difference
from coordinator.streams.audit.explain.figure_facts import SnapshotFacts
from coordinator.streams.audit.explain.steps import LISTED_MAX, Step, Value, fact, moment, units
from coordinator.streams.audit.snapshots import boards_again
from coordinator.streams.audit.windows import covered_again, joined_at, sums_kept_since, windows_again
from coordinator.streams.contract.coverage import why_uncovered
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import Window


def window_steps(facts: SnapshotFacts) -> Iterator[Step]:
    """A step for each window at the end of the period."""
    snapshot, terms = facts.snapshot, facts.terms
    again = {} if facts.past_fault else windows_again(snapshot, facts.chain)
    decimals = terms.score_decimals
    for window in terms.windows:
        recorded = snapshot.windows_units.get(window.name)
        first = snapshot.period_end - window.hours * HOUR_MS
        result = [units(window.name, recorded, decimals)]
        if window.combines:
            inputs = [units(name, snapshot.windows_units.get(name), decimals) for name in window.combines]
        else:
            if window.of_sums:
                first = max(first, sums_kept_since(snapshot.period_start, facts.chain))
            inputs, n = _inside(facts, first)
            result.append(fact("n", min(n, window.last) if window.last else n))
        agrees = None if facts.past_fault else again.get(window.name) == recorded
        yield Step(
            name=f"window {window.name}",
            rule=window_rule(window),
            inputs=inputs[-LISTED_MAX:],
            left_out=max(0, len(inputs) - LISTED_MAX),
            result=result,
            agrees=agrees,
            note=facts.past_fault or ("" if agrees else _given(again.get(window.name), decimals)),
        )


def _given(number: int | None, decimals: int) -> str:
    return f"the snapshots give {units('', number, decimals).shown}"


def _inside(facts: SnapshotFacts, first: int) -> tuple[list[Value], int]:
    """(the sum of each period that begins at `first` (ms) or later, how many values they have): the model's own, and
    those that it was given for the time before it joined.
    """
    snapshot, decimals = facts.snapshot, facts.terms.score_decimals
    joined = joined_at([*(earlier for earlier, _ in facts.past), snapshot])
    first = max(first, facts.told.comparable_since(snapshot.period_start))
    inputs: list[Value] = []
    n = 0
    for closing, source in facts.closings:
        if first <= closing.from_ms < joined and closing.newcomer_past is not None:
            total = closing.newcomer_past.total
            n += total.n
            inputs.append(
                units(f"before it joined: {moment(closing.from_ms)}", total.sum_units, decimals, source)
            )
    for earlier, source in facts.past:
        value_field = facts.told.at(earlier.period_start).value_field
        if earlier.period_start >= first and value_field in earlier.sums:
            own = earlier.sums[value_field]
            n += own.n
            inputs.append(units(earlier.snapshot_id, own.sum_units, decimals, source))
    return inputs, n


def window_rule(window: Window) -> str:
    """How a window's number follows from the values in it, in words."""
    if window.combines:
        weights = ", ".join(f"{weight:g} * {name}" for name, weight in window.combines.items())
        return f"The weighted mean of {weights}"
    newest = f", of the newest {window.last}" if window.last else ""
    rule = {
        "mean": "The sum over the model's snapshots divided once by n, rounded half-even",
        "sum": "The sum over the model's snapshots",
        "ewma": f"Each new value moves the number by {window.alpha} of the difference",
        "latest": "The latest score or charge",
    }[window.rule]
    least = f", or with fewer than {window.least} values," if window.least else ""
    return f"{rule}; snapshots of the last {window.hours} h{newest}; without any score{least} it is no number"


def board_steps(facts: SnapshotFacts) -> Iterator[Step]:
    """The boards over a window. One over the whole checkpoint period has its number in the share."""
    snapshot, terms = facts.snapshot, facts.terms
    again = {} if facts.past_fault else boards_again(snapshot, facts.chain)
    hours = {window.name: window.hours for window in terms.windows}
    for board in terms.boards:
        if not board.window:
            continue
        recorded = snapshot.boards_units.get(board.name)
        first = snapshot.period_end - hours[board.window] * HOUR_MS
        inputs, _ = _inside(facts, max(first, sums_kept_since(snapshot.period_start, facts.chain)))
        agrees = None if facts.past_fault else again.get(board.name) == recorded
        parts = ", ".join(
            f"{part.weight} * {part.subject}/{part.scope_key}" for part in board.parts[:LISTED_MAX]
        )
        yield Step(
            name=f"board {board.name}",
            rule=f"The weighted mean of the means of its scopes over the window {board.window}, rounded once: {parts}"
            + ("; a scope weighs by its scores, too" if board.of_scores else ""),
            inputs=inputs[-LISTED_MAX:],
            left_out=max(0, len(inputs) - LISTED_MAX),
            result=[units(board.name, recorded, terms.score_decimals)],
            agrees=agrees,
            note=facts.past_fault or ("" if agrees else _given(again.get(board.name), terms.score_decimals)),
        )


def coverage_step(facts: SnapshotFacts) -> Step:
    """The share of rounds that the model was scored in. The snapshot has a coverage."""
    snapshot, terms = facts.snapshot, facts.terms
    recorded, coverage = snapshot.coverage, terms.coverage
    assert recorded is not None and coverage is not None  # noqa: S101, PT018 - only terms with one record it
    again = None if facts.past_fault else covered_again(snapshot, facts.chain)
    span = f"the last {coverage.hours} h" if coverage.hours else f"the newest {coverage.rounds} rounds"
    agrees = None if facts.past_fault else again == recorded
    return Step(
        name="coverage",
        rule=f"How many rounds of {span} the model was scored in, of those that it did not miss innocently; "
        f"below {coverage.share} it has no rank",
        result=[
            fact("scored", recorded.scored),
            fact("asked", recorded.asked),
            fact("no_rank", why_uncovered(coverage, recorded)),
        ],
        agrees=agrees,
        note=facts.past_fault or ("" if agrees else difference(recorded, again, "the snapshots give")),
    )
