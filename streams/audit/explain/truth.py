"""Steps of models' and of ensembles' predictions: the truth of the feed, and where the score is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from coordinator.streams.audit.explain.steps import Placed, Step, Value, fact, record_values, time
from coordinator.streams.audit.facts import SeenRecord
from coordinator.streams.audit.scores import truth_again
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.events import InputResolved
from coordinator.streams.log.ids import snapshot_id


def truth_of_window(
    resolved: Placed[InputResolved],
    subject: str,
    window: Mapping[str, Sequence[SeenRecord]],
    contract: CrunchContract | None,
    contract_fault: str,
) -> Step:
    """The truth of a horizon, of the feed's records in `window`, by subject."""
    data = resolved.event.data
    inputs: list[Value] = []
    left_out = 0
    for seen in window.values():
        values, more = record_values(seen)
        inputs += values
        left_out += more
    result = [fact("truth", data.truth), time("resolvable_at", data.resolvable_at)]
    if data.reason:
        result.append(fact("reason", data.reason))
    agrees, note = None, contract_fault
    if contract is not None and data.truth is not None:
        try:
            truths = {of: truth_again(contract, seen) for of, seen in window.items()}
            again = truths.get(subject, truths)
            agrees = again == data.truth
            note = "" if agrees else f"the records give {msgspec.json.encode(again).decode()[:500]}"
        except AUTHORS_ERRORS as error:
            agrees, note = False, f"cannot be computed again: {in_words(error)}"
    return Step(
        name="truth",
        rule="resolve_ground_truth of the contract, over the last record with at <= point and all with "
        "point < at <= point + horizon, as they were known then",
        sources=[resolved.source],
        inputs=inputs,
        left_out=left_out,
        result=result,
        agrees=agrees,
        note=note,
    )


def counted_in(model_id: str, start: int, end: int, resolvable_at: int) -> Step:
    """The snapshot period [start, end) in ms in which a score or charge is added up."""
    return Step(
        name="counted in",
        rule="A score and a charge are added up in the snapshot period that its horizon ends in, or in which its "
        "truth came",
        inputs=[time("resolvable_at", resolvable_at)],
        result=[fact("snapshot_id", snapshot_id(model_id, start, end)), time("period_start", start)],
    )
