"""Explains gathered facts: loads the contract that they name, and runs its functions to compute each number again.

This is all of an explanation that runs the author's code. So a caller that must not wait for that code runs it in a
process of its own (`infra/explaining.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.streams.audit.explain.copies import CopyFacts, explain_copies
from coordinator.streams.audit.explain.ensemble import EnsembleFacts, explain_ensemble
from coordinator.streams.audit.explain.figure_facts import PredictionFacts, ShareFacts, SnapshotFacts
from coordinator.streams.audit.explain.place import PlaceFacts, explain_place
from coordinator.streams.audit.explain.prediction import explain_prediction
from coordinator.streams.audit.explain.rescoring import AnsweredRound
from coordinator.streams.audit.explain.share import explain_share
from coordinator.streams.audit.explain.snapshot import explain_snapshot
from coordinator.streams.audit.explain.steps import Explanation
from coordinator.streams.audit.facts import lost_in
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.large_answers import whole, whole_answer
from coordinator.streams.log.errors import BlobLostError, CoordinatorError, WorldError
from coordinator.streams.ports import BlobReader

Facts = PredictionFacts | EnsembleFacts | ShareFacts | SnapshotFacts | PlaceFacts | CopyFacts


def explain_again(facts: Facts, contracts: Contracts, blobs: BlobReader | None = None) -> Explanation:
    """The explanation, with each number computed again by the contract if it can be loaded; large answers are read from
    `blobs`. One that is lost leaves the figures as they are recorded, with the reason.
    """
    if isinstance(facts, CopyFacts) or not facts.contract_hash:
        return explain_recorded(facts)
    try:
        contract = contracts(facts.contract_hash)
    except CoordinatorError as error:
        why = f"not computed again: contract {facts.contract_hash[:12]} is not to be had here: {error}"
        return explain_recorded(msgspec.structs.replace(facts, contract_fault=why))
    try:
        if isinstance(facts, PredictionFacts):
            shown = {subject: seen[-contract.input_records :] for subject, seen in facts.shown.items()}
            facts = _whole(msgspec.structs.replace(facts, shown=shown), blobs)
        elif isinstance(facts, EnsembleFacts):
            facts = msgspec.structs.replace(facts, rounds=_whole_rounds(facts.rounds, blobs))
    except (BlobLostError, WorldError) as error:
        return explain_recorded(msgspec.structs.replace(facts, contract_fault=f"not computed again: {error}"))
    return explain_recorded(msgspec.structs.replace(facts, contract=contract))


def explain_recorded(facts: Facts) -> Explanation:
    """The explanation of the recorded figures; without a contract in the facts none of its functions runs."""
    match facts:
        case PredictionFacts():
            return explain_prediction(facts)
        case EnsembleFacts():
            return explain_ensemble(facts)
        case ShareFacts():
            return explain_share(facts)
        case SnapshotFacts():
            return explain_snapshot(facts)
        case PlaceFacts():
            return explain_place(facts)
        case CopyFacts():
            return explain_copies(facts)


def _whole(facts: PredictionFacts, blobs: BlobReader | None) -> PredictionFacts:
    """The facts with the large answers among them. Raises BlobLostError, also where the log says that one was lost."""
    for lost in lost_in(facts.scored.event.data.reasons if facts.scored is not None else ()).values():
        raise BlobLostError(lost)
    parts = [whole(part, blobs) for part in facts.parts]
    question = facts.question
    if question is not None:
        question = msgspec.structs.replace(question, rounds=_whole_rounds(question.rounds, blobs))
    answer = whole_answer(facts.answer, blobs)
    return msgspec.structs.replace(facts, read_answer=answer, parts=parts, question=question)


def _whole_rounds(rounds: Sequence[AnsweredRound], blobs: BlobReader | None) -> list[AnsweredRound]:
    """The rounds with the large answers among them. Raises BlobLostError."""
    return [
        AnsweredRound(
            the_round.opened,
            [
                msgspec.structs.replace(
                    part, event=msgspec.structs.replace(part.event, data=whole(part.event.data, blobs))
                )
                for part in the_round.answered
            ],
        )
        for the_round in rounds
    ]
