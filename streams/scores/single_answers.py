"""Scores the answers of one scope one by one, by the contract's `score_prediction`: entries, faults, charges. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.events import AnswerEntry, InputResolved, ScoreEntry, Terms
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.scores.charges import charge_of
from coordinator.streams.scores.open_rounds import OpenInput
from coordinator.streams.scores.scorer import MODEL, NODE, Scorer

_decode = msgspec.json.Decoder().decode


def truth_of(resolved: InputResolved, the_input: OpenInput, contract: CrunchContract) -> tuple[Any, str]:
    """(the typed truth, ""), or (None, why there is none). Raises ValidationError for a truth of another type."""
    if resolved.data.truth is None:
        return None, f"no ground truth: {resolved.data.reason}"
    return typed_truth(contract, the_input.scopes[0].scope_key, resolved.data.truth), ""


def score_one(
    answer: AnswerEntry, truth: Any, no_truth_reason: str, scorer: Scorer, cruncher_id: str = ""
) -> ScoreEntry:
    """Score one prediction alone. If it fails, `blamed` decides by the other predictions whose fault that is."""
    if answer.status != "PENDING":
        return ScoreEntry(answer.model_id, answer.status, answer.fault, cruncher_id=cruncher_id)
    units, reason, fault = (
        ({}, no_truth_reason, NODE) if truth is None else scorer.score(_decode(answer.output), truth)
    )
    if reason:
        return ScoreEntry(answer.model_id, "FAILED", fault, cruncher_id=cruncher_id, reason=as_reason(reason))
    return ScoreEntry(answer.model_id, "SCORED", cruncher_id=cruncher_id, units=units)


def blamed(entries: list[ScoreEntry], can_score: Callable[[], bool]) -> list[ScoreEntry]:
    """The entries of one scope, with the fault of each answer that could not be scored.

    If the contract's function scores another answer by the same truth, it failed because of this answer, and its model
    is at fault: an absurd answer must not be a way out of a round. If it scores no answer, its author is at fault.
    """
    if not any(entry.reason and entry.fault == NODE for entry in entries):
        return entries
    scored = any(entry.status == "SCORED" for entry in entries)
    if not (scored or can_score()):
        return entries
    return [
        msgspec.structs.replace(entry, fault=MODEL) if entry.reason and entry.fault == NODE else entry
        for entry in entries
    ]


def charged(entries: Sequence[ScoreEntry], values: Sequence[int], terms: Terms) -> list[ScoreEntry]:
    """The entries with the charge of the contract's policy, for those with `fault = model`."""
    charge = charge_of(values, terms)
    if charge is None:
        return list(entries)
    return [
        msgspec.structs.replace(entry, charge_units=charge) if entry.fault == "model" else entry
        for entry in entries
    ]
