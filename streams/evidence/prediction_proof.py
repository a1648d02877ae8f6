"""The proof of one prediction: its answer, its truth and its score, each by the append that records it.

Pure. Reads a text of several proofs (`proof.py`), one below another; returns what they say about the prediction.
Nothing else in the text is used: every value comes from an append that is in the signed tree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from coordinator.streams.events import (
    AnswerEntry,
    InputResolved,
    RoundOpened,
    RoundRescored,
    RoundScored,
    RoundScoredData,
    ScopeAnswered,
    ScoreEntry,
)
from coordinator.streams.evidence.proof import HEADER, PROOF_BYTES_MAX, Proof
from coordinator.streams.log.envelope import decode_append, decode_events
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.ids import input_of_question, prediction_id, question_of
from coordinator.streams.signing.note_keys import NoteError, VerifierKey
from coordinator.streams.signing.rotation import in_force, successors_of

PROOFS_MAX = 64


class Proved(msgspec.Struct, frozen=True, kw_only=True):
    """What the tree has of one prediction. Times are in ms. `units`: field -> units, by the contract's decimals."""

    prediction_id: str
    model_id: str
    asked_at: int
    answered_at: int
    answer: str
    """JSON; `null` if there is no output, and then `reason` says why."""
    reason: str
    """Why there is no answer or no score, or which other answer of the model counts."""
    truth: str
    scored_at: int
    status: str
    """Also REPLACED or MERGED, for an answer to a posted question that another one took the place of, or joined."""
    units: dict[str, int]
    leaves: int
    """The size of the signed tree."""
    revision: int = 0
    """The revision of a posted question's truth: a corrected truth comes after the one it corrects."""


def is_about(of_prediction: str, input_id: str) -> bool:
    """Whether what is recorded of an input or a round tells of a prediction. Truth and scores of a posted question are
    recorded of the input that stands for it, its answers of the round that they were given in.
    """
    asked = input_of_question(of_prediction)
    return input_id in (asked, question_of(asked)) if asked else of_prediction.startswith(f"{input_id}/")


def joined(proofs: Iterable[Proof]) -> bytes:
    """The proofs as one text."""
    return b"".join(proof.text() for proof in proofs)


def split(content: bytes) -> list[Proof]:
    """The proofs of a text. Raises NoteError."""
    if len(content) > PROOF_BYTES_MAX:
        raise NoteError(f"a proof of {len(content)} bytes, more than {PROOF_BYTES_MAX}")
    start = f"{HEADER}\n".encode()
    before, *parts = content.split(start)
    if before or not parts or len(parts) > PROOFS_MAX:
        raise NoteError(f"not a proof: it does not begin with {HEADER}, or has more than {PROOFS_MAX} parts")
    return [Proof.parse(start + part) for part in parts]


def proved(content: bytes, keys: Collection[VerifierKey], wanted: str = "") -> list[Proved]:
    """The predictions that a text of proofs proves completely; only that with the id `wanted`, if it is not "".

    Raises NoteError if a proof is wrong, the notes are of different trees, or something of the prediction is missing.
    """
    proofs = split(content)
    events = list(_events(proofs))
    # A rotation is signed by the key that it replaces, so it is believed before its own proof is checked.
    successors = successors_of(event for _, event in events)
    due = {VerifierKey.parse(in_force(str(key), successors)) for key in keys}
    notes = [proof.check(due) for proof in proofs]
    if len({note.text for note in notes}) != 1:
        raise NoteError("the proofs are about different trees")
    predictions = [
        prediction
        for prediction in _predictions(events, notes[0].checkpoint.size)
        if wanted in ("", prediction.prediction_id)
    ]
    if not predictions:
        raise NoteError(
            f"the appends do not tell the whole of {wanted or 'any prediction'}: something is missing"
        )
    return predictions


def _events(proofs: Iterable[Proof]) -> Iterator[tuple[str, Any]]:
    for proof in proofs:
        try:
            append = decode_append(proof.record)
            events = decode_events(append.events) if append is not None else []
        except LogError as error:
            raise NoteError(f"the append of {proof.topic} at offset {proof.offset}: {error}") from error
        yield from ((proof.topic, event) for event in events)


def _predictions(events: list[tuple[str, Any]], leaves: int) -> Iterator[Proved]:
    def of(topic: str, kind: type) -> list[Any]:
        return [event for place, event in events if place == topic and isinstance(event, kind)]

    opened = {event.data.input_id: event for event in of("predictions", RoundOpened)}
    for scored in (*of("scores", RoundScored), *of("scores", RoundRescored)):
        data = scored.data
        # An answer to a posted question is in the round that counted; every other answer is in the round of its input.
        rounds = dict(zip(data.models, data.rounds or [""] * len(data.models), strict=True))
        truths = [
            event
            for event in of("inputs", InputResolved)
            if event.data.input_id == data.input_id and event.data.resolvable_at == data.resolvable_at
        ]
        for answered in of("predictions", ScopeAnswered) if truths else ():
            asked = opened.get(answered.data.input_id)
            of_round = (question_of(answered.data.input_id), answered.data.scope_key)
            if asked is None or of_round != (data.input_id, data.scope_key):
                continue
            suffix = answered.data.input_id.removeprefix(data.input_id)
            entries = {entry.model_id: entry for entry in data.entries()}
            for answer in answered.data.entries(asked.data.roster):
                score = entries.get(answer.model_id)
                if score is not None:
                    ending = _ending(data, answer, score, suffix, rounds[answer.model_id])
                    yield Proved(
                        prediction_id=prediction_id(answered.data.input_id, data.scope_key, answer.model_id),
                        model_id=answer.model_id,
                        asked_at=asked.at,
                        answered_at=answered.at,
                        answer=answer.text,
                        reason=ending.reason,
                        truth=msgspec.json.encode(truths[0].data.truth).decode(),
                        scored_at=scored.at,
                        status=ending.status,
                        units=ending.units,
                        leaves=leaves,
                        revision=truths[0].data.revision,
                    )


class _Ending(NamedTuple):
    status: str
    reason: str
    units: dict[str, int]


def _ending(
    data: RoundScoredData, answer: AnswerEntry, score: ScoreEntry, suffix: str, counted: str
) -> _Ending:
    """How an answer ends. `suffix`: the round of the answer; `counted`: the round of the model's answer that counts."""
    if suffix == counted:
        return _Ending(score.status, answer.reason or score.reason or "", score.units)
    place = data.models.index(answer.model_id)
    reason = answer.reason or f"the answer in {data.input_id}{counted} counts"
    if place in data.merged.get(suffix, ()):
        return _Ending("MERGED", reason, score.units)
    return _Ending("REPLACED" if place in data.replaced.get(suffix, ()) else answer.status, reason, {})
