"""What models were told beside the input, in one period, made again: a longer first tick, their own performance.

Reads a `Chain`; gives a line, or raises ChainBrokenError. Pure. A round names what it was made of and its digest, so
whoever holds the topics has the very bytes of each call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from coordinator.streams.audit.facts import Asked, Chain, Contracts, broken
from coordinator.streams.audit.scores import known_records, raw_inputs
from coordinator.streams.events import InputHistory, InputReceivedData, RoundOpenedData, RoundPerformance
from coordinator.streams.inputs.model_input import encode_model_input
from coordinator.streams.predictions.performance import LastPeriod


def check_told(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """Each digest of a round of the period is that of what its topics give."""
    ticks = performances = 0
    for one in {data.input_id: data for data, _, _ in rounds}.values():
        opened = chain.rosters.get(one.input_id)
        if opened is None:
            continue
        history, performance = opened.data.history, opened.data.performance
        if history is not None and history.models:
            if one.history is None or _first_tick(chain, one, one.history, contracts) != history.sha256:
                broken("predictions", f"the round of {one.input_id}: its first tick is not what feeds gives")
            ticks += 1
        if performance is not None:
            _check_performance(chain, opened.data, performance, contracts)
            performances += 1
    said = [f"{ticks} first ticks made again"] if ticks else []
    said += [f"{performances} rounds' performances told again"] if performances else []
    return "".join(f"; {one}" for one in said)


def _first_tick(chain: Chain, one: InputReceivedData, history: InputHistory, contracts: Contracts) -> str:
    """The digest of the tick that is made of the window which the input names."""
    contract, terms = contracts(one.contract_hash), chain.terms.at(one.point)
    bodies: dict[str, msgspec.Raw] = {}
    for subject, since in history.since.items():
        known = known_records(chain, subject, terms, chain.known[one.input_id])
        window = [seen for seen in known if since <= seen.at <= one.point]
        body, _ = encode_model_input(contract, raw_inputs(contract, window))
        bodies[subject] = msgspec.Raw(body)
    whole = msgspec.json.encode(bodies) if len(bodies) > 1 else bytes(*bodies.values())
    return hashlib.sha256(whole).hexdigest()


def _check_performance(
    chain: Chain, opened: RoundOpenedData, said: RoundPerformance, contracts: Contracts
) -> None:
    place = f"the round of {opened.input_id}"
    found = [one for one in chain.periods_closed if one.seq == said.snapshots_seq]
    last = found[0] if found else LastPeriod()
    if last.seq != said.snapshots_seq:
        broken("predictions", f"{place}: decision {said.snapshots_seq} of snapshots closed no period")
    if last.until > opened.clock:
        broken(
            "predictions",
            f"{place} opened at {opened.clock}, and tells of a period that ends at {last.until}",
        )
    again, _ = last.told(opened.roster, contracts)
    if again != said:
        broken("predictions", f"{place}: what models were told of themselves is not what snapshots give")
