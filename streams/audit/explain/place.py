"""A model's place on a live board, or its windows in one scope: each number at the end of what is scored, and the rank.

Takes what the board shows, the model's closed periods, and the rounds that were scored since; gives an `Explanation`.
A board may be ranked by another window, board or key than the contract's (`by`).
Numbers that follow from sums are computed again from these, value by value (`summed_again`, `board_again`). The others
are those of the last closed period, whose snapshot explains them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from coordinator.streams.audit.explain.steps import (
    LISTED_MAX,
    Explanation,
    Placed,
    Source,
    Step,
    Value,
    explanation,
    fact,
    moment,
    rules_step,
    time,
    units,
)
from coordinator.streams.audit.explain.windows import window_rule
from coordinator.streams.audit.facts import Chain
from coordinator.streams.audit.snapshots import SnapshotsAgain
from coordinator.streams.audit.windows import (
    OldPeriod,
    board_again,
    combined_again,
    periods_of,
    summed_again,
)
from coordinator.streams.checkpoints.ranking import rank
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import (
    EnsemblesScored,
    FieldSum,
    RoundRescored,
    RoundScored,
    ScopeSum,
    SnapshotTakenData,
    Terms,
    Window,
)


class Shown(msgspec.Struct, frozen=True):
    """A row of the board: the units of the key that ranks, and the rank; None for none."""

    model_id: str
    key_units: int | None
    rank: int | None


class PlaceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the read models and the log hold of one row of the board.

    `rows` are all rows of the board, in its order, and `windows_units` is what it shows of this model. `past` are the
    model's snapshots that the windows reach, oldest first; `rounds` were scored since `closed_until` (ms).
    """

    model_id: str
    until: int
    """Where the windows end (ms)."""
    moved_by: Source | None
    """The event that moved them there."""
    by: str = ""
    """What ranks the board, if that was asked for."""
    scope: str = ""
    """SUBJECT/SCOPE_KEY of windows in one scope. They have no rank: `rows` is empty, and `rounds` are of this scope."""
    ranking_key: str = ""
    ranked_as_of: int | None = None
    """If a key of the summary ranks: the end (ms) of the period whose summaries these are."""
    windows_units: Mapping[str, int | None]
    unranked_reason: str = ""
    rows: Sequence[Shown] = ()
    past: Sequence[tuple[SnapshotTakenData, Source]]
    rounds: Sequence[Placed[RoundScored] | Placed[RoundRescored] | Placed[EnsemblesScored]]
    rounds_fault: str = ""
    rounds_from: int = 0
    """Windows that begin before it (ms) rest on more rounds than were read."""
    closed_until: int
    told: TermsInForce
    configured: Source | None = None
    contract_hash: str = ""
    """None of the contract's functions runs: the board is arithmetic alone."""
    contract_fault: str = ""

    @property
    def terms(self) -> Terms:
        """The terms at the end of the board."""
        return self.told.at(self.until - 1)


def explain_place(facts: PlaceFacts) -> Explanation:
    """The explanation of a model's row of the board."""
    up_to = f"with what is scored up to {moment(facts.until)}"
    if facts.scope:
        title = f"The windows of model {facts.model_id} in {facts.scope}, {up_to}"
        return explanation("scope", f"board/{facts.model_id}?scope={facts.scope}", title, _scope_steps(facts))
    by, query = (f" by {facts.by}", f"?by={facts.by}") if facts.by else ("", "")
    title = f"Where model {facts.model_id} stands on the board{by}, {up_to}"
    return explanation("place", f"board/{facts.model_id}{query}", title, _steps(facts))


def _steps(facts: PlaceFacts) -> Iterator[Step]:
    terms = facts.terms
    yield from _begun(facts)
    periods = _periods(facts)
    again: dict[str, int | None] = {}
    for window in terms.windows:
        yield _window(facts, window, periods, again)
    end = facts.until // terms.snapshot_interval_ms * terms.snapshot_interval_ms
    for board in terms.boards:
        if board.window:
            hours = next(window.hours for window in terms.windows if window.name == board.window)
            computed = board_again(board, terms, periods, end)
            rule = f"The weighted mean of the means of its scopes over the window {board.window}"
            yield _number(facts, f"board {board.name}", board.name, rule, hours, computed)
    if facts.ranked_as_of is not None:
        yield _summary(facts)
    yield _rank(facts)


def _begun(facts: PlaceFacts) -> Iterator[Step]:
    yield rules_step(facts.terms.contract_hash, facts.terms, facts.configured)
    yield Step(
        name="until",
        rule="Windows end where everything asked is resolved; each begins its hours before the snapshot interval that "
        "this is in",
        sources=[facts.moved_by] if facts.moved_by else [],
        result=[time("until", facts.until), time("closed_until", facts.closed_until)],
    )


def _scope_steps(facts: PlaceFacts) -> Iterator[Step]:
    """The windows that follow from sums: no other has a number by scope."""
    yield from _begun(facts)
    periods = [_in_scope(period, facts.scope) for period in _periods(facts)]
    width = facts.terms.snapshot_interval_ms
    for summed in facts.terms.summed_windows:
        window = msgspec.structs.replace(summed, least=0)  # it counts the values of all scopes together
        first = facts.until // width * width - window.hours * HOUR_MS
        inside = [period for period in periods if period.period_start >= first]
        computed = summed_again(window, inside)
        yield _number(
            facts, f"window {window.name}", window.name, window_rule(window), window.hours, computed, window
        )


def _in_scope(period: OldPeriod, scope: str) -> OldPeriod:
    """A closed period with the sums of one scope. One that is summed up of the scope's rounds has no others."""
    if not period.scopes:
        return period
    total = period.scopes.get(scope, ScopeSum(0, 0, 0))
    return period._replace(total=FieldSum(total.sum_units, total.n), scored_count=total.scored)


def _periods(facts: PlaceFacts) -> list[OldPeriod]:
    """The model's closed periods, and what is scored in those that are still open."""
    chain = Chain()
    chain.terms = facts.told
    chain.snapshots = {earlier.snapshot_id: earlier for earlier, _ in facts.past}
    for placed in facts.rounds:
        chain.take_in_scores(placed.event)
    periods = periods_of(facts.past[-1][0], chain) if facts.past else []
    again = SnapshotsAgain(chain, list(chain.closed), [], only=facts.model_id)
    for (start, _), sums in again.sums_of.items():
        terms = facts.told.at(start)
        total = sums.sums.get(terms.value_field, [0, 0])
        periods.append(
            OldPeriod(
                *facts.told.snapshot_period(start),
                FieldSum(*total),
                sums.counts["scored"],
                {scope: ScopeSum(*of_scope) for scope, of_scope in sums.scopes.items()},
                (),
            )
        )
    since = facts.told.sums_since(facts.until - 1)
    return [period for period in periods if since <= period.period_start < facts.until]


def _window(
    facts: PlaceFacts, window: Window, periods: Sequence[OldPeriod], again: dict[str, int | None]
) -> Step:
    width = facts.terms.snapshot_interval_ms
    first = facts.until // width * width - window.hours * HOUR_MS
    if window.combines:
        again[window.name] = combined_again(window, again)
    elif window.of_sums:
        again[window.name] = summed_again(
            window, [period for period in periods if period.period_start >= first]
        )
    else:
        again[window.name] = _of_snapshot(facts, window.name)
    computed = again[window.name]
    if facts.told.holds_past(facts.until - 1):
        computed = _of_snapshot(facts, window.name)
    return _number(
        facts, f"window {window.name}", window.name, window_rule(window), window.hours, computed, window
    )


def _of_snapshot(facts: PlaceFacts, name: str) -> int | None:
    """A number as of the last closed period; None for a model without a snapshot of it."""
    if not facts.past or facts.past[-1][0].period_end < facts.closed_until:
        return None
    last = facts.past[-1][0]
    return (last.windows_units | last.boards_units).get(name)


def _number(
    facts: PlaceFacts,
    name: str,
    key: str,
    rule: str,
    hours: int,
    computed: int | None,
    window: Window | None = None,
) -> Step:
    decimals, width = facts.terms.score_decimals, facts.terms.snapshot_interval_ms
    n: int | None = None
    first = max(facts.until // width * width - hours * HOUR_MS, facts.told.sums_since(facts.until - 1))
    ended = facts.told.holds_past(facts.until - 1) or not (
        window is None or window.of_sums or window.combines
    )
    if ended:
        computed = _of_snapshot(facts, key)
        inputs = [
            units(data.snapshot_id, (data.windows_units | data.boards_units).get(key), decimals, source)
            for data, source in facts.past[-1:]
        ]
        rule = "As of the last closed period: it does not follow from sums. Its snapshot has the arithmetic"
    elif window is not None and window.combines:
        inputs = [units(part, facts.windows_units.get(part), decimals) for part in window.combines]
    else:
        inputs, n = _inputs(facts, first)
    recorded = facts.windows_units.get(key)
    fault = facts.rounds_fault
    if first < facts.rounds_from:
        fault = "not computed again: it rests on too many rounds"
    agrees = None if fault else computed == recorded
    return Step(
        name=name,
        rule=rule,
        inputs=inputs[-LISTED_MAX:],
        left_out=max(0, len(inputs) - LISTED_MAX),
        result=[units(key, recorded, decimals), *([] if n is None else [fact("n", n)])],
        agrees=agrees,
        note=fault or ("" if agrees else f"periods and rounds give {computed}"),
    )


def _inputs(facts: PlaceFacts, first: int) -> tuple[list[Value], int]:
    """(the sum of each closed period that begins at `first` (ms) or later, and each score and charge since; how many
    values they have).
    """
    decimals = facts.terms.score_decimals
    inputs: list[Value] = []
    n = 0
    for snapshot, source in facts.past:
        total = (
            snapshot.scopes.get(facts.scope)
            if facts.scope
            else snapshot.sums.get(facts.told.at(snapshot.period_start).value_field)
        )
        if snapshot.period_start >= first and total is not None:
            n += total.n
            inputs.append(units(snapshot.snapshot_id, total.sum_units, decimals, source))
    for placed in facts.rounds:
        data = placed.event.data
        entry = data.entry_of(facts.model_id)
        if (
            entry is None
            or data.resolvable_at < first
            or not facts.told.adds_up(data.contract_hash, data.resolvable_at)
        ):
            continue
        value = entry.units.get(facts.terms.value_field, entry.charge_units)
        if value is not None:
            n += 1
            inputs.append(
                units(f"{data.input_id}/{data.scope_key}/{facts.model_id}", value, decimals, placed.source)
            )
    return inputs, n


def _summary(facts: PlaceFacts) -> Step:
    """The key of the snapshot summary that ranks, as of the last closed period."""
    key, decimals = facts.ranking_key, facts.terms.score_decimals
    assert facts.ranked_as_of is not None  # noqa: S101 - the caller has looked
    of_period = [(data, source) for data, source in facts.past if data.period_end == facts.ranked_as_of]
    computed = next((data.summary_units.get(key) for data, _ in of_period), None)
    recorded = facts.windows_units.get(key)
    return Step(
        name=f"summary {key}",
        rule="As of the last closed period: it is a number of its snapshot, which has the arithmetic",
        inputs=[
            units(data.snapshot_id, data.summary_units.get(key), decimals, source)
            for data, source in of_period
        ],
        result=[units(key, recorded, decimals), time("ranked_as_of", facts.ranked_as_of)],
        agrees=computed == recorded,
        note="" if computed == recorded else f"the snapshot has {computed}",
    )


def _rank(facts: PlaceFacts) -> Step:
    recorded = next(row for row in facts.rows if row.model_id == facts.model_id)
    result = [fact("rank", recorded.rank)]
    agrees, note = None, ""
    decimals = facts.terms.score_decimals
    if recorded.rank is None:
        result.append(fact("reason", facts.unranked_reason))
    else:
        ranked, _ = rank(
            ((row.model_id, row.key_units) for row in facts.rows if row.rank is not None),
            facts.terms.ranking_direction,
        )
        place = next(place for place, model_id, _ in ranked if model_id == facts.model_id)
        agrees, note = place == recorded.rank, "" if place == recorded.rank else f"the keys give {place}"
    # An ensemble takes no place, and neither does a model without a rank: only the row itself is shown without one.
    placed = [row for row in facts.rows if row.rank is not None or row is recorded]
    at = placed.index(recorded)
    start = max(0, min(at - LISTED_MAX // 2, len(placed) - LISTED_MAX))
    listed = placed[start : start + LISTED_MAX]
    better = "more" if facts.terms.ranking_direction == "desc" else "less"
    return Step(
        name="rank",
        rule=f"By {facts.ranking_key}, {better} is better, of the models that run; equal numbers share a rank "
        "(1, 1, 3)",
        inputs=[units(row.model_id, row.key_units, decimals) for row in listed],
        left_out=len(placed) - len(listed),
        result=result,
        agrees=agrees,
        note=note,
    )
