"""Computes again what the models of one period were sent besides the input: the longer first tick, their performance.

Reads a `Chain`; returns text, or raises ChainBrokenError. Pure. A round records from which records these were made, and
their digest. So whoever holds the topics can compute the exact bytes of each call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from coordinator.streams.audit.facts import Asked, Chain, broken
from coordinator.streams.audit.records import FeedRecords
from coordinator.streams.audit.scores import raw_inputs
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import InputHistory, InputReceivedData, RoundOpenedData, RoundPerformance
from coordinator.streams.inputs.model_input import encode_model_input
from coordinator.streams.predictions.performance import LastPeriod


def check_told(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """Compare the digests of each round with those of what the topics give. Returns the end of a line of text."""
    ticks_count = performances_count = 0
    records = FeedRecords(chain)
    for input_data in {data.input_id: data for data, _, _ in rounds}.values():
        opened = chain.rosters.get(input_data.input_id)
        if opened is None:
            continue
        history, performance = opened.data.history, opened.data.performance
        if history is not None and history.models:
            span = input_data.history
            if (
                span is None
                or _first_tick_sha256(chain, records, input_data, span, contracts) != history.sha256
            ):
                broken(
                    "predictions",
                    f"the round of {input_data.input_id}: its first tick is not what feeds gives",
                )
            ticks_count += 1
        if performance is not None:
            _check_performance(chain, opened.data, performance, contracts)
            performances_count += 1
    texts = [f"{ticks_count} first ticks computed again"] if ticks_count else []
    texts += [f"{performances_count} rounds' performances told again"] if performances_count else []
    return "".join(f"; {text}" for text in texts)


def _first_tick_sha256(
    chain: Chain,
    records: FeedRecords,
    input_data: InputReceivedData,
    history: InputHistory,
    contracts: Contracts,
) -> str:
    """The digest of the first tick, made from the window that the input names."""
    contract, terms = contracts(input_data.contract_hash), chain.terms.at(input_data.point)
    bodies: dict[str, msgspec.Raw] = {}
    for subject, since in history.since.items():
        # Only what the feed had when the input was decided: a later correction was not in the tick.
        known_then = records.of(subject, terms).at_offset(chain.known[input_data.input_id])
        window = [record for record in known_then if since <= record.at <= input_data.point]
        body, _ = encode_model_input(contract, raw_inputs(contract, window))
        bodies[subject] = msgspec.Raw(body)
    whole = msgspec.json.encode(bodies) if len(bodies) > 1 else bytes(*bodies.values())
    return hashlib.sha256(whole).hexdigest()


def _check_performance(
    chain: Chain, opened: RoundOpenedData, recorded: RoundPerformance, contracts: Contracts
) -> None:
    place = f"the round of {opened.input_id}"
    last = next(
        (period for period in chain.periods_closed if period.seq == recorded.snapshots_seq), LastPeriod()
    )
    if last.seq != recorded.snapshots_seq:
        broken("predictions", f"{place}: decision {recorded.snapshots_seq} of snapshots closed no period")
    if last.until > opened.clock:
        broken(
            "predictions",
            f"{place} opened at {opened.clock}, and tells of a period that ends at {last.until}",
        )
    performance, _ = last.told(opened.roster, contracts)
    if performance != recorded:
        broken("predictions", f"{place}: what models were told of themselves is not what snapshots give")
