"""A model's snapshot of one period: every score and charge in its sums, its summary, windows, boards and coverage.

Takes the recorded snapshot, the rounds that count in its period, the model's earlier snapshots, and the closed periods
that it rests on; gives an `Explanation`. The numbers are computed again by the audit (`SnapshotsAgain`,
`windows_again`, `boards_again`, `covered_again`) and by `mean_units`, so that a step can say whether it agrees with the
record. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from coordinator.streams.audit.explain.figure_facts import SnapshotFacts
from coordinator.streams.audit.explain.steps import (
    LISTED_MAX,
    Explanation,
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
from coordinator.streams.audit.explain.windows import board_steps, coverage_step, window_steps
from coordinator.streams.audit.facts import scored_at_first
from coordinator.streams.audit.restated_periods import restated_agrees
from coordinator.streams.audit.snapshots import counted_rounds
from coordinator.streams.events import (
    FieldSum,
    RoundRescored,
    RoundRescoredData,
    ScoreEntry,
)
from coordinator.streams.log.ids import prediction_id
from coordinator.streams.scores.units import mean_units
from coordinator.streams.snapshots.summary import NO_SCORES

COUNTS = (
    "scored_count",
    "failed_count",
    "failed_node_count",
    "absent_model_count",
    "absent_node_count",
    "no_score_count",
    "charged_count",
    "filled_count",
    "rounds_count",
    "excused_count",
)


class Counted(NamedTuple):
    """The model's entry in a round that counts. `sign` is -1 for a score that a corrected truth took out again."""

    place: tuple[int, str, str]
    entry: ScoreEntry
    source: Source
    sign: int


def explain_snapshot(facts: SnapshotFacts) -> Explanation:
    """The explanation of one model's period."""
    snapshot = facts.snapshot
    period = f"{moment(snapshot.period_start)} to {moment(snapshot.period_end)}"
    title = f"What the period {period} adds up to for model {snapshot.model_id}"
    return explanation("snapshot", snapshot.snapshot_id, title, _steps(facts))


def _steps(facts: SnapshotFacts) -> Iterator[Step]:
    snapshot, terms = facts.snapshot, facts.terms
    counted = _counted(facts)
    yield rules_step(terms.contract_hash, terms, facts.configured)
    yield _counts(facts)
    if snapshot.joined is not None:
        yield _joined(facts)
    fields = snapshot.sums if facts.rounds_fault else {**snapshot.sums, **facts.numbers["sums"][1]}
    for name in fields:
        yield _sum(facts, name, counted)
    if snapshot.corrected:
        yield _corrected(facts)
    if snapshot.restated:
        yield _restated(facts)
    if snapshot.scopes:
        yield _scopes(facts)
    if snapshot.summary_units or snapshot.summary_error:
        yield _summary(facts)
    yield from window_steps(facts)
    yield from board_steps(facts)
    if snapshot.coverage is not None:
        yield coverage_step(facts)


def _counted(facts: SnapshotFacts) -> list[Counted]:
    """The model's entry of each round that is added up in the period, in the order of resolvable time."""
    source_of: dict[tuple[str, str, int], Source] = {}
    for placed in facts.rounds:
        data = placed.event.data
        source_of[data.input_id, data.scope_key, data.resolvable_at] = placed.source
        if isinstance(
            placed.event, RoundRescored
        ):  # corrected within the period: it stands in the first one's place
            first = scored_at_first(placed.event.data)
            source_of[first.input_id, first.scope_key, first.resolvable_at] = placed.source
    chain = facts.chain
    counted = [
        Counted(
            (data.resolvable_at, data.input_id, data.scope_key),
            entry,
            source_of[data.input_id, data.scope_key, data.resolvable_at],
            sign,
        )
        for data, sign in counted_rounds(chain, [*chain.closed.values(), *chain.ensembles.values()])
        if facts.snapshot.period_start <= data.resolvable_at < facts.snapshot.period_end
        and (entry := data.entry_of(facts.snapshot.model_id)) is not None
    ]
    return sorted(counted, key=_order)


def _order(counted: Counted) -> tuple[Any, ...]:
    return (*counted.place, counted.sign)


def _verdict(facts: SnapshotFacts, *names: str) -> tuple[bool | None, str]:
    """(whether these numbers of the snapshot are those that the rounds give, the note of the step)."""
    if facts.rounds_fault:
        return None, facts.rounds_fault
    others = {name: again for name in names if (pair := facts.numbers[name])[0] != (again := pair[1])}
    return not others, f"the rounds give {others}" if others else ""


def _counts(facts: SnapshotFacts) -> Step:
    snapshot = facts.snapshot
    agrees, note = _verdict(facts, *COUNTS, "series")
    return Step(
        name="rounds",
        rule="The period has the rounds whose horizon ends in [start, end), or whose truth came then, if they are "
        "scored by its own scoring; `rounds_count` are those that any model could answer, less the `excused_count` "
        "that this one missed by no fault of its own",
        sources=[facts.source],
        result=[
            time("period_start", snapshot.period_start),
            time("period_end", snapshot.period_end),
            *(fact(name, getattr(snapshot, name)) for name in COUNTS),
        ],
        agrees=agrees,
        note=note,
    )


def _joined(facts: SnapshotFacts) -> Step:
    """When it joined, and which values of before it has for that."""
    snapshot, joined = facts.snapshot, facts.snapshot.joined
    assert joined is not None  # noqa: S101 - the caller has looked
    here = joined.period_start == snapshot.period_start
    agrees, note = _verdict(facts, "joined") if here else (None, "")
    return Step(
        name="joined",
        rule=f"A model that comes later has the {facts.terms.newcomer_past} of each round that was asked before its "
        "first one, as `newcomer_past` of the contract says: of this period in the sums below, of earlier ones in the "
        "windows",
        result=[
            time("first_point", joined.point),
            time("period_start", joined.period_start),
            fact("filled_count", snapshot.filled_count),
        ]
        if joined.period_start
        else [fact("joined", "before newcomers were given a past")],
        agrees=agrees,
        note=note,
    )


def _sum(facts: SnapshotFacts, name: str, counted: Sequence[Counted]) -> Step:
    """The sum of one field: of every score, and in the value field of every charge and of every round before it
    joined.
    """
    decimals, recorded = facts.terms.score_decimals, facts.snapshot.sums.get(name, FieldSum(0, 0))
    parts: list[Value] = []
    for place, entry, source, sign in counted:
        charge = entry.charge_units if name == facts.terms.value_field else None
        value = entry.units.get(name, charge)
        if value is not None:
            the_id = prediction_id(place[1], place[2], entry.model_id)
            parts.append(
                units(the_id if sign > 0 else f"taken out: {the_id}", sign * value, decimals, source)
            )
    if name == facts.terms.value_field and not facts.rounds_fault:
        sources = _sources(facts)
        parts += [
            units(
                f"before it joined: {filled.place[1]}/{filled.place[2]}",
                filled.units,
                decimals,
                sources.get(filled.place),
            )
            for filled in facts.again.newcomers.before(facts.snapshot)
        ]
    agrees, note = None, facts.rounds_fault
    if not note:
        again = facts.numbers["sums"][1].get(name, [0, 0])
        agrees = again == [recorded.sum_units, recorded.n]
        note = "" if agrees else f"the rounds give a sum of {again[0]} over {again[1]}"
    return Step(
        name=f"sum of {name}",
        rule="Every score of the period, and in the value field every charge, added up as whole units; the mean is one "
        "division, rounded half-even",
        inputs=parts[:LISTED_MAX],
        left_out=max(0, len(parts) - LISTED_MAX),
        result=[
            units("sum", recorded.sum_units, decimals),
            fact("n", recorded.n),
            units("mean", mean_units(recorded.sum_units, recorded.n) if recorded.n else None, decimals),
        ],
        agrees=agrees,
        note=note,
    )


def _sources(facts: SnapshotFacts) -> dict[tuple[int, str, str], Source]:
    """(resolvable_at of the first truth in ms, input_id, scope_key) -> the newest event of the round, whoever was
    asked.
    """
    return {
        (
            data.first_resolvable_at if isinstance(data, RoundRescoredData) else data.resolvable_at,
            data.input_id,
            data.scope_key,
        ): placed.source
        for placed in facts.rounds
        for data in (placed.event.data,)
    }


def _corrected(facts: SnapshotFacts) -> Step:
    agrees, note = _verdict(facts, "corrected")
    return Step(
        name="corrected truths",
        rule="A truth that was corrected in a later period changes the sums of that one by the difference; windows of "
        "sums and boards have it in the period of the first truth",
        result=[
            units(
                f"in the period from {moment(change.period_start)}",
                change.sum_units,
                facts.terms.score_decimals,
            )
            for change in facts.snapshot.corrected
        ],
        agrees=agrees,
        note=note,
    )


def _restated(facts: SnapshotFacts) -> Step:
    snapshot, contract, decimals = facts.snapshot, facts.contract, facts.terms.score_decimals
    note, agrees = facts.rounds_fault or facts.contract_fault, None
    if contract is not None and not note:
        computed = facts.again.restated(lambda _: contract).of(snapshot)
        agrees = restated_agrees(snapshot, computed, facts.chain)
        note = "" if agrees else f"the scores give {computed}"
    return Step(
        name="earlier periods",
        rule="Where a truth is corrected before its checkpoint period is over, the values in order and the summary of "
        "the period of its first truth are computed again; windows of the last n, EWMAs and the checkpoint's summary "
        "have the new ones",
        result=[
            value
            for earlier in snapshot.restated
            for period in (moment(earlier.period_start),)
            for value in (
                fact(f"scores of {period}", f"{earlier.scored_count}, before {earlier.scored_before}"),
                *(
                    units(f"{name} of {period}", number, decimals)
                    for name, number in earlier.summary_units.items()
                ),
                *(
                    units(f"{name} of {period} before", number, decimals)
                    for name, number in earlier.summary_before.items()
                ),
            )
        ],
        agrees=agrees,
        note=note,
    )


def _scopes(facts: SnapshotFacts) -> Step:
    agrees, note = _verdict(facts, "scopes")
    return Step(
        name="sums by scope",
        rule="The same scores and charges of the value field, added up for each subject and scope: boards are made of "
        "these",
        result=[
            value
            for scope, total in facts.snapshot.scopes.items()
            for value in (
                units(scope, total.sum_units, facts.terms.score_decimals),
                fact(f"n of {scope}", total.n),
            )
        ],
        agrees=agrees,
        note=note,
    )


def _summary(facts: SnapshotFacts) -> Step:
    snapshot, contract = facts.snapshot, facts.contract
    note, agrees = facts.rounds_fault or facts.contract_fault, None
    metrics = contract.aggregation.metrics if contract is not None else None
    if contract is not None and not note:
        again = facts.again.summaries(lambda _: contract, snapshot.model_id)[snapshot.period_start]
        computed = again.get(snapshot.model_id, NO_SCORES)
        agrees = (computed.units, bool(computed.error)) == (
            snapshot.summary_units,
            bool(snapshot.summary_error),
        )
        note = "" if agrees else f"the scores give {computed.units} {computed.error}".strip()
    own_names = list(metrics.names) + list(metrics.own) if metrics is not None else []
    return Step(
        name="summary",
        rule="aggregate_snapshot of the contract over the period's scores, in the order of resolvable time, "
        "input and scope"
        + (
            f"; and its metrics ({', '.join(own_names)}), over the scores of all models in the same order"
            if own_names
            else ""
        ),
        inputs=_metric_inputs(facts) if own_names and not facts.rounds_fault else [],
        result=[
            *(
                units(name, number, facts.terms.score_decimals)
                for name, number in snapshot.summary_units.items()
            ),
            *([fact("error", snapshot.summary_error)] if snapshot.summary_error else []),
        ],
        agrees=agrees,
        note=note,
    )


def _metric_inputs(facts: SnapshotFacts) -> list[Value]:
    """What a metric is computed from: the signal and the outcome of each round in which the model was scored."""
    assert facts.contract is not None  # noqa: S101 - the caller has looked
    metrics = facts.contract.aggregation.metrics
    assert metrics is not None  # noqa: S101
    decimals = facts.terms.score_decimals
    return [
        units(
            f"{name} of {counted.place[1]}/{counted.place[2]}",
            counted.entry.units[name],
            decimals,
            counted.source,
        )
        for counted in _counted(facts)[-LISTED_MAX // 2 :]
        for name in (metrics.signal_field, metrics.outcome_field)
        if name in counted.entry.units
    ]
