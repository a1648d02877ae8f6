"""A round of predictions: from the roster asked to one event per roster entry and scope.

Reads `inputs` (what to ask), `models` (whom), `feeds` (how late it is); emits `predictions`. The models
and the clock are the outside: they are asked once and recorded, never asked again. This module is the
pure half (who is on the roster, what an answer is worth); the calls are in `agents/predict.py`.

RoundOpened is durable before the first call. Then come one or more decisions with the events of the models
that are done, all scopes of a model together: a slow model does not keep the others' answers out of the
log. The last decision holds what is left and RoundAnswered; each before it ends with RoundAnsweredInPart.
What a dead owner left unanswered is answered ABSENT(node) by the next one: nobody knows what those models
said, and they do not pay for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import msgspec
from pydantic import BaseModel, ValidationError

from coordinator.streams import ids
from coordinator.streams.counting import Decision
from coordinator.streams.envelope import Need, Position
from coordinator.streams.events import (
    AnyEvent,
    Fault,
    InputReceivedData,
    PredictionAbsent,
    PredictionFailed,
    PredictionMissedData,
    PredictionRecorded,
    PredictionRecordedData,
    RosterEntry,
    RoundAnswered,
    RoundAnsweredData,
    RoundAnsweredInPart,
    RoundAnsweredInPartData,
    RoundOpened,
    RoundOpenedData,
)
from coordinator.streams.finite import not_finite
from coordinator.streams.ports import ModelReply, Outcome
from coordinator.streams.reasons import as_reason
from coordinator.streams.stage import Draft, Stage

BUDGET_SHARE = 0.8
"""The part of what is left until the deadline that calls may use: the rest is for recording in time."""

NODE_RESTARTED = "the node restarted during the round"
NODE_LATE = "the node was late: the deadline had passed"
FELL_BEHIND = "the node fell behind: a newer input had come"

_ABSENT: dict[Outcome, Fault] = {
    Outcome.DEADLINE: "model",
    Outcome.BUSY: "model",
    Outcome.CRASHED: "model",
    Outcome.SKIPPED: "model",
    Outcome.ABSENT: "node",
}
"""An answer that did not come, and whose fault it is; all other outcomes are bad answers (FAILED, model)."""

OWN_FAULT = ("recovering", "reported", "lost after")
"""How the detail of an absence begins that is the model's own fault: it crashed, failed too often, or hung."""

_encoder = msgspec.json.Encoder()


class PredictStage(Stage):
    """inputs -> predictions: what has been decided. `agents/predict.py` asks and hands the drafts in.

    `absorb` only learns which inputs wait; `decide` closes the round that a dead owner left open.
    """

    topic: ClassVar[str] = "predictions"
    drivers: ClassVar[tuple[str, ...]] = ("inputs",)
    memory: ClassVar[tuple[str, ...]] = ("RoundOpened", "RoundAnsweredInPart", "RoundAnswered")

    def __init__(self) -> None:
        super().__init__()
        self.open: RoundOpened | None = None
        self.answered_ids: set[str] = set()
        """The models of the open round whose events are recorded."""

    def absorb(self, decision: Decision) -> None:
        """Inputs are asked by the shell, in order; nothing is folded here."""

    def evolve(self, event: AnyEvent) -> None:
        """Own events: which round is open."""
        match event:
            case RoundOpened():
                self.open = event
                self.answered_ids = set()
            case RoundAnsweredInPart(data=data):
                self.answered_ids |= set(data.model_ids)
            case RoundAnswered():
                self.open = None
            case _:
                pass

    def decide(self) -> Draft | None:
        """Nothing is decided without asking."""
        return None

    def opened(self, the_input: InputReceivedData, roster: list[RosterEntry], clock: int) -> Draft:
        """The draft that opens a round; it decides nothing of `inputs` yet."""
        event = RoundOpened(
            id=f"{the_input.input_id}:opened",
            at=clock,
            data=RoundOpenedData(
                input_id=the_input.input_id,
                roster=roster,
                scope_keys=[scope.scope_key for scope in the_input.scopes],
                clock=clock,
                contract_hash=the_input.contract_hash,
            ),
        )
        return Draft([event], {}, {})

    def answered_in_part(self, events: Iterable[AnyEvent], model_ids: Collection[str], clock: int) -> Draft:
        """The draft that records these models of the open round; it decides nothing of `inputs` yet."""
        if self.open is None or not model_ids or self.answered_ids & set(model_ids):
            message = f"no part of an open round: {sorted(model_ids)}"
            raise RuntimeError(message)
        the_id = self.open.data.input_id
        part = RoundAnsweredInPart(
            id=f"{the_id}:part/{min(model_ids)}",
            at=clock,
            data=RoundAnsweredInPartData(input_id=the_id, model_ids=sorted(model_ids), clock=clock),
        )
        return Draft([*events, part], {}, {})

    def answered(self, events: Iterable[AnyEvent], clock: int, position: Position, need: Need) -> Draft:
        """The draft that answers the open round and so decides its input."""
        if self.open is None:
            message = "no round is open"
            raise RuntimeError(message)
        the_id = self.open.data.input_id
        done = RoundAnswered(
            id=f"{the_id}:answered", at=clock, data=RoundAnsweredData(input_id=the_id, clock=clock)
        )
        return Draft([*events, done], {"inputs": position}, {"inputs": need})


def all_missed(
    opened: RoundOpened, reason: str, fault: Fault, at: int, but: Collection[str] = ()
) -> list[PredictionAbsent]:
    """ABSENT for every roster entry and scope of a round, but for the models that have their events already."""
    return [
        PredictionAbsent(
            id=_id(opened, scope_key, entry, "absent"),
            at=at,
            data=_missed(opened, scope_key, entry, reason, fault),
        )
        for scope_key in opened.data.scope_keys
        for entry in opened.data.roster
        if entry.model_id not in but
    ]


def judge(
    opened: RoundOpened,
    scope_key: str,
    replies: Mapping[str, ModelReply],
    output_type: type[BaseModel],
    output_max_bytes: int,
    at: int,
    but: Collection[str] = (),
) -> list[AnyEvent]:
    """One event per roster entry: PENDING for a valid answer, else ABSENT or FAILED with reason and fault.

    `but` names the models left out: those recorded before, or asked still.
    """
    return [
        _judge_one(opened, scope_key, entry, replies.get(entry.model_id), output_type, output_max_bytes, at)
        for entry in opened.data.roster
        if entry.model_id not in but
    ]


def _judge_one(
    opened: RoundOpened,
    scope_key: str,
    entry: RosterEntry,
    reply: ModelReply | None,
    output_type: type[BaseModel],
    output_max_bytes: int,
    at: int,
) -> AnyEvent:
    if reply is None:
        reply = ModelReply(entry.model_id, entry.deployment_id, Outcome.ABSENT, detail="no reply")
    if reply.outcome in _ABSENT:
        fault: Fault = "model" if reply.detail.startswith(OWN_FAULT) else _ABSENT[reply.outcome]
        reason = f"{reply.outcome}: {reply.detail}"
        return PredictionAbsent(
            id=_id(opened, scope_key, entry, "absent"),
            at=at,
            data=_missed(opened, scope_key, entry, reason, fault, reply.exec_time_us),
        )
    if reply.outcome is Outcome.OK:
        output, fault_found = check_output(reply.output, output_type, output_max_bytes)
        if output is not None:
            return PredictionRecorded(
                id=_id(opened, scope_key, entry, "pending"),
                at=at,
                data=PredictionRecordedData(
                    input_id=opened.data.input_id,
                    scope_key=scope_key,
                    model_id=entry.model_id,
                    deployment_id=reply.deployment_id or entry.deployment_id,
                    output=output,
                    exec_time_us=reply.exec_time_us,
                ),
            )
        reason = fault_found
    else:
        reason = f"{reply.outcome}: {reply.detail}"
    return PredictionFailed(
        id=_id(opened, scope_key, entry, "failed"),
        at=at,
        data=_missed(opened, scope_key, entry, reason, "model", reply.exec_time_us),
    )


def check_output(
    output: Any,
    output_type: type[BaseModel],
    output_max_bytes: int,
) -> tuple[dict[str, Any] | None, str]:
    """(the output as plain JSON, "") or (None, what is wrong). Finite, of the contract's type, not too big.

    A dict must share at least one key with the type: defaults alone are no answer.
    """
    if (
        isinstance(output, (int, float))
        and not isinstance(output, bool)
        and "value" in output_type.model_fields
    ):
        output = {"value": output}
    if not isinstance(output, dict):
        return None, f"BAD_OUTPUT: a {type(output).__name__}, not an object"
    if not output_type.model_fields.keys() & output.keys():
        return None, f"BAD_OUTPUT: none of the fields {sorted(output_type.model_fields)}"
    if bad := not_finite(output):
        return None, f"BAD_OUTPUT: {bad} is not finite"
    try:
        plain = output_type.model_validate(output).model_dump(mode="json")
        size = len(_encoder.encode(plain))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return None, f"BAD_OUTPUT: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, TypeError, RecursionError) as error:  # half a letter, nested without end
        return None, f"BAD_OUTPUT: cannot be written as JSON: {type(error).__name__}"
    if bad := not_finite(plain):
        return None, f"BAD_OUTPUT: {bad} is not finite"
    if size > output_max_bytes:
        return None, f"BAD_OUTPUT: {size} bytes, more than output_max_bytes ({output_max_bytes})"
    return plain, ""


def _id(opened: RoundOpened, scope_key: str, entry: RosterEntry, what: str) -> str:
    return f"{ids.prediction_id(opened.data.input_id, scope_key, entry.model_id)}:{what}"


def _missed(
    opened: RoundOpened, scope_key: str, entry: RosterEntry, reason: str, fault: Fault, exec_time_us: int = 0
) -> PredictionMissedData:
    return PredictionMissedData(
        input_id=opened.data.input_id,
        scope_key=scope_key,
        model_id=entry.model_id,
        deployment_id=entry.deployment_id,
        reason=as_reason(reason),
        fault=fault,
        exec_time_us=exec_time_us,
    )
