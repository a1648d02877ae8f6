"""Judges the replies of models: one entry for each model of the roster and each scope.

Pure. Takes replies and the contract's output type, returns AnswerEntry: PENDING for a valid answer, else ABSENT or
FAILED, with the reason and whose fault it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal, get_args

import msgspec
from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core.core_schema import ErrorType

from coordinator.streams.contract.blame import text_of
from coordinator.streams.contract.trial_answers import recorded
from coordinator.streams.contract.types import validator
from coordinator.streams.events import NO_OUTPUT, AnswerEntry, Fault, RosterEntry, RoundOpened
from coordinator.streams.log.finite import is_number, not_finite
from coordinator.streams.log.reasons import QUOTED, as_reason
from coordinator.streams.ports import ModelReply, Outcome

ABSENT_OUTCOMES = frozenset({Outcome.DEADLINE, Outcome.BUSY, Outcome.CRASHED, Outcome.ABSENT})
"""No answer came. All other outcomes except OK are bad answers (FAILED)."""

WORKER_DIED = "BAD_OUTPUT: the worker died while it judged the answer"

OWN_CHECK = "the contract's own check refuses it"
UNREADABLE = "it cannot be read"
_QUOTES_NOTHING = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}
"""pydantic's own errors: their texts say what is expected, not what came, unless they have one of `_QUOTING`."""
_QUOTING = frozenset({"error", "tag"})

Answers = Mapping[str, Sequence[AnswerEntry]]
"""scope_key -> the entries of its models."""

Holding = Callable[[str], AbstractContextManager[None]]
"""model_id -> a context in which its answer is judged: if the process dies in it, the next process knows of whom."""

_NOTHING_HELD = nullcontext()
_encoder = msgspec.json.Encoder()


def holding_nothing(_model_id: str) -> AbstractContextManager[None]:
    """A `Holding` that leaves no trace, for a process that no answer can kill for others."""
    return _NOTHING_HELD


def all_missed(
    opened: RoundOpened, reason: str, fault: Fault, but: Collection[str] = (), died_of: Collection[str] = ()
) -> Answers:
    """ABSENT for every model and scope of a round, except the models in `but`, whose answers are recorded.

    `died_of`: the models whose answer killed the process that judged it. They are FAILED, by their own fault.
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
    """Judge the replies to one scope, in the order of the roster.

    `but`: the models to leave out, because they are recorded or still asked. `holding` surrounds each judgement,
    because the author's type runs code on the answer and may kill the process.
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
    fault = reply.fault
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
    elif reply.outcome is Outcome.BAD_OUTPUT:
        reason = f"{reply.outcome}: {UNREADABLE}{QUOTED}{reply.detail}"
    else:
        reason = f"{reply.outcome}: {reply.detail}"
    status: Literal["ABSENT", "FAILED"] = "ABSENT" if reply.outcome in ABSENT_OUTCOMES else "FAILED"
    return _missed(asked, status, reason, fault, reply.exec_time_us)


def check_output(
    output: Any,
    output_type: type[BaseModel],
    output_max_bytes: int,
    *,
    may_quote: bool = True,
) -> tuple[Any, str]:
    """(the output as plain JSON, "") or (None, what is wrong with it).

    The messages of the type's own validators may quote the answer. They are in the reason only if it `may_quote`:
    behind QUOTED. A valid output is finite, of the contract's type and not too big. An object must have at least one
    key of the type: defaults alone are no answer. A RootModel accepts any JSON that it describes, also lists. Null is
    never an answer. Numbers are read as pydantic reads them: `true` is 1.0 and "1_000" is 1000.0, unless the type says
    StrictFloat. The type's validators are the author's code: if they raise, the answer is refused.
    """
    if issubclass(output_type, RootModel):
        if output is None:
            return None, "BAD_OUTPUT: null is no answer"
    else:
        if is_number(output) and "value" in output_type.model_fields:
            output = {"value": output}
        if not isinstance(output, dict):
            return None, f"BAD_OUTPUT: a {type(output).__name__}, not an object"
        if _names_of(output_type).isdisjoint(output):
            return None, f"BAD_OUTPUT: none of the fields {sorted(output_type.model_fields)}"
    try:
        if bad := not_finite(output):
            return None, f"BAD_OUTPUT: {bad} is not finite"
        plain = recorded(validator(output_type)(output))
        if plain is None:
            return None, "BAD_OUTPUT: null is no answer"
        if bad := not_finite(plain):
            return None, f"BAD_OUTPUT: {bad} is not finite"
        size = len(_encoder.encode(plain))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, says = "".join(f"{part}." for part in first["loc"]), first["msg"]
        if first["type"] not in _QUOTES_NOTHING or not _QUOTING.isdisjoint(first.get("ctx", ())):
            says = f"{OWN_CHECK}{QUOTED}{says}" if may_quote else OWN_CHECK
        return None, f"BAD_OUTPUT: {place[:-1]}{': ' if place else ''}{says}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a lone surrogate, endless nesting, a validator that raises
        says = f"{QUOTED}{text_of(error)}" if may_quote else ""
        return None, f"BAD_OUTPUT: {output_type.__name__} cannot take it: {type(error).__name__}{says}"
    if size > output_max_bytes:
        return None, f"BAD_OUTPUT: {size} bytes, more than output_max_bytes ({output_max_bytes})"
    return plain, ""


@cache
def _names_of(output_type: type[BaseModel]) -> frozenset[str | None]:
    """The keys by which the type reads its fields."""
    return frozenset(key for name, field in output_type.model_fields.items() for key in (name, field.alias))


def _missed(
    asked: RosterEntry, status: Literal["ABSENT", "FAILED"], reason: str, fault: Fault, exec_time_us: int = 0
) -> AnswerEntry:
    return AnswerEntry(
        asked.model_id, asked.deployment_id, status, NO_OUTPUT, exec_time_us, as_reason(reason), fault
    )
