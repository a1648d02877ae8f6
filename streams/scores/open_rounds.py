"""Open inputs and rounds as the score stage keeps them. Answers stay JSON bytes until they are scored.

Pure. Reads decisions of `predictions`. A node that waits a day for its truths holds thousands of rounds of a hundred
answers each; as objects these would take ten times the memory of their JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from coordinator.streams.events import (
    NO_OUTPUT,
    AnswerEntry,
    Event,
    InputReceivedData,
    InputScope,
    QuestionAsked,
    RosterEntry,
    ScopeAnswered,
    ScopeAnsweredData,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import VERSIONS, Need, decode_events, encode_event


class OpenInput(msgspec.Struct, frozen=True):
    """An input whose round may be read again. `before`: the position in `inputs` before its InputReceived."""

    input_id: str
    subject: str
    point: int
    scopes: list[InputScope]
    contract_hash: str
    rehearsal: bool
    before: Need
    question: QuestionAsked | None = None
    """Where it asks a posted question."""
    payload: msgspec.Raw = NO_OUTPUT
    """What that question shows, as JSON; `null` for an input of the market."""


def open_input(data: InputReceivedData, before: Need) -> OpenInput:
    """The input as the state keeps it; the payload only of a question, and without the record that it came in."""
    payload = NO_OUTPUT if data.question is None else msgspec.Raw(bytes(data.payload))
    return OpenInput(
        data.input_id,
        data.subject,
        data.point,
        data.scopes,
        data.contract_hash,
        data.rehearsal,
        before,
        data.question,
        payload,
    )


class OpenRound(msgspec.Struct):
    """A round whose last horizon is not scored yet. `before`: the position in `predictions` before its RoundOpened."""

    before: Need
    roster: list[RosterEntry]
    answers: dict[str, list[msgspec.Raw]] = {}
    """scope_key -> its ScopeAnswered events, as JSON."""
    answered: bool = False

    def entries(self, parts: Iterable[ScopeAnsweredData]) -> Iterator[tuple[AnswerEntry, str]]:
        """(answer, its cruncher) of each model in these answers, in their order."""
        for data in parts:
            for index, entry in zip(data.models, data.entries(self.roster), strict=True):
                yield entry, self.roster[index].cruncher_id

    def answers_of(self, scope_key: str) -> Iterator[ScopeAnsweredData]:
        """The answers of a scope in columns, decoded, in the order of recording; large ones by their names."""
        for raw in self.answers.get(scope_key, ()):
            for event in decode_events(b"[%b]" % bytes(raw)):
                if isinstance(event, ScopeAnswered):
                    yield event.data


class Answers(msgspec.Struct, frozen=True):
    """A ScopeAnswered that is not decoded."""

    input_id: str
    scope_key: str
    raw: msgspec.Raw


class _HeadData(msgspec.Struct):
    input_id: str = ""
    scope_key: str = ""


class _Head(msgspec.Struct):
    """The fields of an event that say which round and scope it belongs to."""

    kind: str
    v: int
    data: _HeadData


_heads = msgspec.json.Decoder(list[_Head])
_raws = msgspec.json.Decoder(list[msgspec.Raw])


def answers_undecoded(decision: Decision) -> list[object]:
    """The events of a decision of `predictions`, with `Answers` in place of each ScopeAnswered.

    Raises UnknownEventError as `decision.events` does.
    """
    if decision.is_decoded:
        return undecoded(decision.events)
    events: list[object] = []
    for body in decision.bodies:
        try:
            heads = _heads.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return undecoded(decision.events)  # raises UnknownEventError, which names the place
        if any(head.v != VERSIONS.get(head.kind) for head in heads):
            return undecoded(decision.events)  # raises for a newer version, upcasts an older one
        for head, raw in zip(heads, _raws.decode(body), strict=True):
            if head.kind == "ScopeAnswered":
                events.append(Answers(head.data.input_id, head.data.scope_key, raw))
            else:
                events += decode_events(b"[%b]" % bytes(raw))
    return events


def undecoded(events: Sequence[Event]) -> list[object]:
    """The events, with `Answers` in place of each ScopeAnswered."""
    return [
        Answers(event.data.input_id, event.data.scope_key, msgspec.Raw(encode_event(event)))
        if isinstance(event, ScopeAnswered)
        else event
        for event in events
    ]
