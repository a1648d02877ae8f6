"""A round of predictions: from the roster asked to one answer per roster entry and scope, in columns by scope.

Reads `inputs` (what to ask), `models` (whom), `feeds` (how late it is); emits `predictions`. The models
and the clock are the outside: they are asked once and recorded, never asked again. This module is the
pure half (who is on the roster, what an answer is worth); the calls are in `agents/predict/worker.py`.

RoundOpened is durable before the first call. Then come one or more decisions with the answers of the models
that are done, all scopes of a model together: a slow model does not keep the others' answers out of the
log. The last decision holds what is left and RoundAnswered; each before it ends with RoundAnsweredInPart. Rounds of
several subjects are open at a time.
What a dead owner left unanswered is answered ABSENT(node) by the next one: nobody knows what those models
said, and they do not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, ValidationError

from coordinator.streams.contract.trial_answers import recorded
from coordinator.streams.events import (
    NO_OUTPUT,
    AnswerEntry,
    AnyEvent,
    Fault,
    InputReceivedData,
    RosterEntry,
    RoundAnswered,
    RoundAnsweredData,
    RoundAnsweredInPart,
    RoundAnsweredInPartData,
    RoundOpened,
    RoundOpenedData,
    ScopeAnswered,
    ScopeAnsweredData,
    answers_in_columns,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import PART_BYTES_MAX, Need, Position
from coordinator.streams.log.finite import is_number, not_finite
from coordinator.streams.log.old_stage import OldStage
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.log.stage import Draft
from coordinator.streams.ports import ModelReply, Outcome

BUDGET_SHARE = 0.8
"""The part of what is left until the deadline that calls may use: the rest is for recording in time."""

ANSWERED_KEPT = 20_000
"""So many answered rounds are remembered by id: more than can be answered while one is open."""

NODE_RESTARTED = "the node restarted during the round"
NODE_LATE = "the node was late: the deadline had passed"
FELL_BEHIND = "the node fell behind: a newer input had come"

ABSENT_OUTCOMES = frozenset({Outcome.DEADLINE, Outcome.BUSY, Outcome.CRASHED, Outcome.ABSENT})
"""An answer that did not come; all other outcomes but OK are bad answers (FAILED)."""

_encoder = msgspec.json.Encoder()

WORKER_DIED = "BAD_OUTPUT: the worker died while it judged the answer"

EVENT_BYTES = PART_BYTES_MAX // 2
"""Of outputs and reasons in one event: what else it holds is far less, and a record holds four parts."""

ENTRY_BYTES = 64
"""Of an entry beside its output and its reason, at most."""

Answers = Mapping[str, Sequence[AnswerEntry]]
"""scope_key -> what models said."""

Holding = Callable[[str], AbstractContextManager[None]]


def holding_nothing(_model_id: str) -> AbstractContextManager[None]:
    """For whoever judges without leaving a trace."""
    return nullcontext()


class OpenRound:
    """A round that is not answered yet; `answered_ids` are the models whose events are recorded."""

    __slots__ = ("answered_ids", "opened")

    def __init__(self, opened: RoundOpened) -> None:
        self.opened = opened
        self.answered_ids: set[str] = set()


class PredictionStage(OldStage):
    """inputs -> predictions: what has been decided. `agents/predict/worker.py` asks and hands the drafts in.

    Rounds are opened in the order of their inputs and go on side by side, so a later one may be answered first.
    `upto` stands before the oldest one that is open; what is answered behind it is remembered by its input's id.
    """

    topic: ClassVar[str] = "predictions"
    drivers: ClassVar[tuple[str, ...]] = ("inputs",)
    memory: ClassVar[tuple[str, ...]] = ("RoundOpened", "RoundAnsweredInPart", "RoundAnswered")

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[str, OpenRound] = {}
        """input_id -> its round, in the order of opening."""
        self._answered: dict[str, None] = {}
        self._arrived: dict[str, tuple[Position, Need]] = {}
        """input_id -> where it stands, in the order of `inputs`: those that `upto` does not reach yet."""

    def absorb(self, decision: Decision) -> None:
        """Inputs are asked by the shell, in order; nothing is folded here."""

    def evolve(self, event: AnyEvent) -> None:
        """Own events: which rounds are open."""
        match event:
            case RoundOpened():
                self.open[event.data.input_id] = OpenRound(event)
            case RoundAnsweredInPart(data=data):
                known = self.open[data.input_id]
                known.answered_ids |= {known.opened.data.roster[index].model_id for index in data.models}
            case RoundAnswered(data=data):
                del self.open[data.input_id]
                self._answered[data.input_id] = None
                while len(self._answered) > ANSWERED_KEPT:
                    del self._answered[next(iter(self._answered))]
                while self._arrived and next(iter(self._arrived)) in self._answered:
                    del self._arrived[next(iter(self._arrived))]
            case _:
                pass

    def decide(self, *_unused: object) -> Draft | None:
        """Nothing is decided without asking."""
        return None

    def arrived(self, input_id: str, position: Position, need: Need) -> bool:
        """An input came; is it to be asked or its round to be closed? False for one that is answered."""
        if input_id not in self._answered:
            self._arrived[input_id] = (position, need)
            return True
        if self._arrived:
            self._arrived[input_id] = (position, need)
        return False

    @property
    def is_full(self) -> bool:
        """Are so many rounds answered behind the oldest open one that no more may be opened?"""
        return len(self._arrived) >= ANSWERED_KEPT // 2

    def opened(
        self, the_input: InputReceivedData, roster: list[RosterEntry], clock: int, models_seq: int
    ) -> Draft:
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
                models_seq=models_seq,
            ),
        )
        return Draft([event], {}, {})

    def answered_in_part(
        self, input_id: str, answers: Answers, model_ids: Collection[str], clock: int
    ) -> Draft:
        """The draft that records these models of an open round; it decides nothing of `inputs` yet."""
        known = self.open.get(input_id)
        if known is None or not model_ids or known.answered_ids & set(model_ids):
            message = f"no part of an open round: {sorted(model_ids)}"
            raise RuntimeError(message)
        roster = known.opened.data.roster
        models = [index for index, entry in enumerate(roster) if entry.model_id in model_ids]
        part = RoundAnsweredInPart(
            id=f"{input_id}:part/{models[0]}",
            at=clock,
            data=RoundAnsweredInPartData(input_id=input_id, models=models, clock=clock),
        )
        return Draft([*in_events(known.opened, answers, clock), part], {}, {})

    def answered(self, input_id: str, answers: Answers, clock: int) -> Draft:
        """The draft that answers an open round. It decides the inputs up to the oldest one that is open still."""
        known = self.open.get(input_id)
        if known is None:
            message = f"no round of {input_id} is open"
            raise RuntimeError(message)
        done = RoundAnswered(
            id=f"{input_id}:answered", at=clock, data=RoundAnsweredData(input_id=input_id, clock=clock)
        )
        upto: dict[str, Position] = {}
        needed: dict[str, Need] = {}
        for each, (position, need) in self._arrived.items():
            if each != input_id and each not in self._answered:
                break
            upto, needed = {"inputs": position}, {"inputs": need}
        return Draft([*in_events(known.opened, answers, clock), done], upto, needed)


def in_events(opened: RoundOpened, answers: Answers, at: int) -> Iterator[AnyEvent]:
    """The answers as events: one a scope, or several where outputs and reasons together would fill a record."""
    roster = opened.data.roster
    by_roster = _by_roster(roster)
    for scope_key in opened.data.scope_keys:
        entries = answers.get(scope_key, ())
        for group in _in_size(sorted(entries, key=by_roster)):
            columns = answers_in_columns(roster, group)
            yield ScopeAnswered(
                id=f"{opened.data.input_id}/{scope_key}:answers/{columns['models'][0]}",
                at=at,
                data=ScopeAnsweredData(input_id=opened.data.input_id, scope_key=scope_key, **columns),
            )


def _by_roster(roster: Sequence[RosterEntry]) -> Callable[[AnswerEntry], int]:
    index_of = {entry.model_id: index for index, entry in enumerate(roster)}
    return lambda entry: index_of[entry.model_id]


def _in_size(entries: Iterable[AnswerEntry]) -> Iterator[list[AnswerEntry]]:
    """The entries in groups of at most EVENT_BYTES of outputs and reasons, or of one. By content alone."""
    group: list[AnswerEntry] = []
    size = 0
    for entry in entries:
        own = ENTRY_BYTES + memoryview(entry.output).nbytes + len(entry.reason)
        if group and size + own > EVENT_BYTES:
            yield group
            group, size = [], 0
        group.append(entry)
        size += own
    if group:
        yield group


def all_missed(
    opened: RoundOpened, reason: str, fault: Fault, but: Collection[str] = (), died_of: Collection[str] = ()
) -> Answers:
    """ABSENT for every roster entry and scope of a round, but for the models that have their answers already.

    `died_of` names those whose answer the process died of while it judged them: FAILED, by their own fault.
    """
    entries = [
        _missed(entry, "FAILED", WORKER_DIED, "model")
        if entry.model_id in died_of
        else _missed(entry, "ABSENT", reason, fault)
        for entry in opened.data.roster
        if entry.model_id not in but
    ]
    return dict.fromkeys(opened.data.scope_keys, entries)


def judge(
    opened: RoundOpened,
    replies: Mapping[str, ModelReply],
    output_type: type[BaseModel],
    output_max_bytes: int,
    but: Collection[str] = (),
    holding: Holding = holding_nothing,
) -> list[AnswerEntry]:
    """One entry per roster entry: PENDING for a valid answer, else ABSENT or FAILED with reason and fault.

    `but` names the models left out: those recorded before, or asked still. `holding` is told whose answer is judged:
    the author's type runs code on it, and may take the process with it.
    """
    entries: list[AnswerEntry] = []
    for asked in opened.data.roster:
        if asked.model_id in but:
            continue
        with holding(asked.model_id):
            reply = replies.get(asked.model_id)
            entries.append(_judge_one(asked, reply, output_type, output_max_bytes))
    return entries


def _judge_one(
    asked: RosterEntry, reply: ModelReply | None, output_type: type[BaseModel], output_max_bytes: int
) -> AnswerEntry:
    if reply is None:
        reply = ModelReply(asked.model_id, asked.deployment_id, Outcome.ABSENT, "node", detail="no reply")
    reason, fault = f"{reply.outcome}: {reply.detail}", reply.fault
    if fault is None:
        output, reason = check_output(reply.output, output_type, output_max_bytes)
        if output is not None:
            return AnswerEntry(
                asked.model_id,
                reply.deployment_id or asked.deployment_id,
                "PENDING",
                msgspec.Raw(_encoder.encode(output)),
                reply.exec_time_us,
            )
        fault = "model"
    status: Literal["ABSENT", "FAILED"] = "ABSENT" if reply.outcome in ABSENT_OUTCOMES else "FAILED"
    return _missed(asked, status, reason, fault, reply.exec_time_us)


def check_output(
    output: Any,
    output_type: type[BaseModel],
    output_max_bytes: int,
) -> tuple[dict[str, Any] | None, str]:
    """(the output as plain JSON, "") or (None, what is wrong). Finite, of the contract's type, not too big.

    A dict must share at least one key with the type: defaults alone are no answer. Numbers are read as pydantic reads
    them: `true` is 1.0 and "1_000" is 1000.0, unless the type says StrictFloat. The type's own validators are an
    author's code: whatever they raise for an answer refuses that answer.
    """
    if is_number(output) and "value" in output_type.model_fields:
        output = {"value": output}
    if not isinstance(output, dict):
        return None, f"BAD_OUTPUT: a {type(output).__name__}, not an object"
    names = {one for name, field in output_type.model_fields.items() for one in (name, field.alias)}
    if not names & output.keys():
        return None, f"BAD_OUTPUT: none of the fields {sorted(output_type.model_fields)}"
    try:
        if bad := not_finite(output):
            return None, f"BAD_OUTPUT: {bad} is not finite"
        plain = recorded(output_type.model_validate(output))
        if bad := not_finite(plain):
            return None, f"BAD_OUTPUT: {bad} is not finite"
        size = len(_encoder.encode(plain))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return None, f"BAD_OUTPUT: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - half a letter, endless nesting, a validator that raises
        return None, f"BAD_OUTPUT: {output_type.__name__} cannot take it: {type(error).__name__}: {error}"
    if size > output_max_bytes:
        return None, f"BAD_OUTPUT: {size} bytes, more than output_max_bytes ({output_max_bytes})"
    return plain, ""


def _missed(
    asked: RosterEntry, status: Literal["ABSENT", "FAILED"], reason: str, fault: Fault, exec_time_us: int = 0
) -> AnswerEntry:
    return AnswerEntry(
        asked.model_id, asked.deployment_id, status, NO_OUTPUT, exec_time_us, as_reason(reason), fault
    )
