"""A model's snapshot of one period: every score and charge in its sums, its summary, and each window at its end.

Takes the recorded snapshot, the rounds that closed in its period and the model's earlier snapshots; gives an
`Explanation`. The numbers are computed again by `summaries`, `mean_units`, and `windows_again` of the audit, so that a
step can say whether it agrees with the record. Pure.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator, Sequence

import msgspec

from coordinator.streams.audit.explain.prediction import rules_step
from coordinator.streams.audit.explain.steps import (
    LISTED_MAX,
    Explanation,
    Placed,
    Source,
    Step,
    explanation,
    fact,
    moment,
    time,
    units,
)
from coordinator.streams.audit.facts import Chain
from coordinator.streams.audit.windows import windows_again
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    EnsemblesScored,
    RoundScored,
    RoundScoredData,
    ScoreEntry,
    SnapshotTakenData,
    Terms,
    Window,
)
from coordinator.streams.log.ids import prediction_id
from coordinator.streams.scores.units import mean_units
from coordinator.streams.snapshots.summary import summaries


class SnapshotFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the log holds of one snapshot.

    `rounds` are all closed rounds that are resolvable in its period. `past` are the model's snapshots up to and
    including this one, oldest first. `rounds_fault` and `past_fault` say why some are missing; then no number is
    computed again of them.
    """

    snapshot: SnapshotTakenData
    source: Source
    rounds: Sequence[Placed[RoundScored] | Placed[EnsemblesScored]]
    past: Sequence[tuple[SnapshotTakenData, Source]]
    told: TermsInForce
    configured: Source | None = None
    contract: CrunchContract | None = None
    contract_fault: str = ""
    rounds_fault: str = ""
    past_fault: str = ""

    @property
    def terms(self) -> Terms:
        """The terms of the period."""
        return self.told.at(self.snapshot.period_start)


Counted = tuple[RoundScoredData, ScoreEntry, Source]


def explain_snapshot(facts: SnapshotFacts) -> Explanation:
    """The explanation of one model's period."""
    snapshot = facts.snapshot
    period = f"{moment(snapshot.period_start)} to {moment(snapshot.period_end)}"
    title = f"What the period {period} adds up to for model {snapshot.model_id}"
    return explanation("snapshot", snapshot.snapshot_id, title, _steps(facts))


def _steps(facts: SnapshotFacts) -> Iterator[Step]:
    counted = _counted(facts)
    yield rules_step(facts.terms.contract_hash, facts.terms, facts.configured)
    yield _counts(facts, counted)
    for name in facts.snapshot.sums:
        yield _sum(facts, name, counted)
    if facts.snapshot.summary_units or facts.snapshot.summary_error:
        yield _summary(facts, counted)
    yield from _windows(facts)


def _counted(facts: SnapshotFacts) -> list[Counted]:
    """The model's entry of each round that is added up in the period, in the order of resolvable time."""
    counted: list[Counted] = []
    for placed in facts.rounds:
        data = placed.event.data
        if facts.told.adds_up(data.contract_hash, data.resolvable_at):
            counted += [
                (data, entry, placed.source)
                for entry in data.entries()
                if entry.model_id == facts.snapshot.model_id
            ]
    return sorted(counted, key=_place)


def _place(entry: Counted) -> tuple[int, str, str]:
    return entry[0].resolvable_at, entry[0].input_id, entry[0].scope_key


def _counts(facts: SnapshotFacts, counted: Sequence[Counted]) -> Step:
    snapshot = facts.snapshot
    by_status = Count(
        entry.status if entry.status == "SCORED" else f"{entry.status}_{entry.fault}"
        for _, entry, _ in counted
    )
    pairs = {
        "scored_count": (snapshot.scored_count, by_status["SCORED"]),
        "failed_count": (snapshot.failed_count, by_status["FAILED_model"] + by_status["FAILED_node"]),
        "absent_model_count": (snapshot.absent_model_count, by_status["ABSENT_model"]),
        "absent_node_count": (snapshot.absent_node_count, by_status["ABSENT_node"]),
        "no_score_count": (snapshot.no_score_count, by_status["FAILED_nobody"]),
        "charged_count": (
            snapshot.charged_count,
            sum(entry.charge_units is not None for _, entry, _ in counted),
        ),
    }
    agrees = None if facts.rounds_fault else all(recorded == again for recorded, again in pairs.values())
    return Step(
        name="rounds",
        rule="The period has the rounds whose horizon ends in [start, end), if they are scored by its own scoring",
        sources=[facts.source],
        result=[
            time("period_start", snapshot.period_start),
            time("period_end", snapshot.period_end),
            *(fact(name, recorded) for name, (recorded, _) in pairs.items()),
            fact("filled_count", snapshot.filled_count),
        ],
        agrees=agrees,
        note=facts.rounds_fault
        or ("" if agrees else f"the rounds give { {name: again for name, (_, again) in pairs.items()} }"),
    )


def _sum(facts: SnapshotFacts, name: str, counted: Sequence[Counted]) -> Step:
    """The sum of one field: of every score, and in the value field of every charge."""
    decimals, recorded = facts.terms.score_decimals, facts.snapshot.sums[name]
    parts = []
    for data, entry, source in counted:
        charge = entry.charge_units if name == facts.terms.value_field else None
        value = entry.units.get(name, charge)
        if value is not None:
            the_id = prediction_id(data.input_id, data.scope_key, entry.model_id)
            parts.append((units(the_id, value, decimals, source), value))
    again = sum(value for _, value in parts), len(parts)
    filled = facts.snapshot.filled_count and name == facts.terms.value_field
    note = facts.rounds_fault
    if filled:
        note = f"{facts.snapshot.filled_count} rounds of before it joined are in it: not made again"
    agrees = None if note else again == (recorded.sum_units, recorded.n)
    return Step(
        name=f"sum of {name}",
        rule="Every score of the period, and in the value field every charge, added up as whole units; the mean is one "
        "division, rounded half-even",
        inputs=[value for value, _ in parts[:LISTED_MAX]],
        left_out=max(0, len(parts) - LISTED_MAX),
        result=[
            units("sum", recorded.sum_units, decimals),
            fact("n", recorded.n),
            units("mean", mean_units(recorded.sum_units, recorded.n) if recorded.n else None, decimals),
        ],
        agrees=agrees,
        note=note or ("" if agrees else f"the rounds give a sum of {again[0]} over {again[1]}"),
    )


def _summary(facts: SnapshotFacts, counted: Sequence[Counted]) -> Step:
    snapshot, contract = facts.snapshot, facts.contract
    note, agrees = facts.rounds_fault or facts.contract_fault, None
    if contract is not None and contract.aggregation.metrics is not None:
        note = "the contract's metrics compare it with the others: `coordinator verify-e2e` makes them again"
    elif contract is not None and not note:
        scores = [
            (data.resolvable_at, data.input_id, data.scope_key, entry.units)
            for data, entry, _ in counted
            if entry.status == "SCORED"
        ]
        summary = summaries(contract, {snapshot.model_id: scores}).get(snapshot.model_id)
        again = summary.units if summary else {}
        agrees = again == snapshot.summary_units
        note = "" if agrees else f"the scores give {again}"
    return Step(
        name="summary",
        rule="aggregate_snapshot of the contract over the period's scores, in the order of resolvable time, "
        "input and scope",
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


def _windows(facts: SnapshotFacts) -> Iterator[Step]:
    snapshot, terms = facts.snapshot, facts.terms
    again: dict[str, int | None] = {}
    if not facts.past_fault:
        chain = Chain()
        chain.terms = facts.told
        chain.snapshots = {earlier.snapshot_id: earlier for earlier, _ in facts.past}
        again = windows_again(snapshot, chain)
    for window in terms.windows:
        recorded = snapshot.windows_units.get(window.name)
        first = snapshot.period_end - window.hours * 3_600_000
        inside = [(earlier, source) for earlier, source in facts.past if earlier.period_start >= first]
        agrees = None if facts.past_fault else again.get(window.name) == recorded
        yield Step(
            name=f"window {window.name}",
            rule=_window_rule(window),
            inputs=[
                units(earlier.snapshot_id, total.sum_units, terms.score_decimals, source)
                for earlier, source in inside[-LISTED_MAX:]
                if (total := earlier.sums.get(terms.value_field)) is not None
            ],
            left_out=max(0, len(inside) - LISTED_MAX),
            result=[
                units(window.name, recorded, terms.score_decimals),
                fact(
                    "n",
                    sum(
                        earlier.sums[terms.value_field].n
                        for earlier, _ in inside
                        if terms.value_field in earlier.sums
                    ),
                ),
            ],
            agrees=agrees,
            note=facts.past_fault or ("" if agrees else f"the snapshots give {again.get(window.name)}"),
        )


def _window_rule(window: Window) -> str:
    if window.combines:
        return f"The weighted mean of {', '.join(window.combines)}"
    newest = f", of the newest {window.last}" if window.last else ""
    rule = {
        "mean": "The sum over the model's snapshots divided once by n, rounded half-even",
        "sum": "The sum over the model's snapshots",
        "ewma": f"Each new value moves the number by {window.alpha} of the difference",
        "latest": "The latest score or charge",
    }[window.rule]
    return f"{rule}; snapshots of the last {window.hours} h{newest}"
