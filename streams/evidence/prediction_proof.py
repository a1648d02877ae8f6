"""The proof of one prediction: its answer, its truth and its score, each by the append that records it.

Pure. Reads a text of several proofs (`proof.py`), one below another; returns what they say about the prediction.
Nothing else in the text is used: every value comes from an append that is in the signed tree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec

from coordinator.streams.events import InputResolved, RoundOpened, RoundScored, ScopeAnswered
from coordinator.streams.evidence.notes import NoteError, VerifierKey
from coordinator.streams.evidence.proof import HEADER, PROOF_BYTES_MAX, Proof
from coordinator.streams.log.envelope import decode_append, decode_events
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.ids import prediction_id

PROOFS_MAX = 64


class Proved(msgspec.Struct, frozen=True, kw_only=True):
    """What the tree has of one prediction. Times are in ms. `units`: field -> units, by the contract's decimals."""

    prediction_id: str
    model_id: str
    asked_at: int
    answered_at: int
    answer: str
    """JSON; `null` if there is none, and then `reason` says why."""
    reason: str
    truth: str
    scored_at: int
    status: str
    units: dict[str, int]
    leaves: int
    """The size of the signed tree."""


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
    notes = [proof.check(keys) for proof in proofs]
    if len({note.text for note in notes}) != 1:
        raise NoteError("the proofs are about different trees")
    events = list(_events(proofs))
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
    for scored in of("scores", RoundScored):
        data = scored.data
        asked = opened.get(data.input_id)
        truths = [
            event
            for event in of("inputs", InputResolved)
            if event.data.input_id == data.input_id and event.data.resolvable_at == data.resolvable_at
        ]
        for answered in of("predictions", ScopeAnswered) if asked and truths else ():
            if (answered.data.input_id, answered.data.scope_key) != (data.input_id, data.scope_key):
                continue
            entries = {entry.model_id: entry for entry in data.entries()}
            for answer in answered.data.entries(asked.data.roster):  # type: ignore[union-attr]
                score = entries.get(answer.model_id)
                if score is not None:
                    yield Proved(
                        prediction_id=prediction_id(data.input_id, data.scope_key, answer.model_id),
                        model_id=answer.model_id,
                        asked_at=asked.at,  # type: ignore[union-attr]
                        answered_at=answered.at,
                        answer=bytes(answer.output).decode(),
                        reason=answer.reason or score.reason,
                        truth=msgspec.json.encode(truths[0].data.truth).decode(),
                        scored_at=scored.at,
                        status=score.status,
                        units=score.units,
                        leaves=leaves,
                    )
