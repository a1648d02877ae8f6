"""From the client library's answers to our outcomes.

Reads a `ModelPredictResult`, emits a `ModelReply`. The library knows three statuses and calls every
gRPC error TIMEOUT; what happened stands in the first word of `detail`, so that decides.
"""

from __future__ import annotations

from typing import Any

from coordinator.streams.ports import ModelReply, Outcome

BY_PREFIX = {
    "DEADLINE_EXCEEDED": Outcome.DEADLINE,
    "UNAVAILABLE": Outcome.CRASHED,
    "CANCELLED": Outcome.CRASHED,
    "INTERNAL": Outcome.CRASHED,
    "PREEMPTIVE_SKIP": Outcome.SKIPPED,
    "RESOURCE_EXHAUSTED": Outcome.BUSY,
    "UNKNOWN": Outcome.MODEL_FAILED,
    "UNIMPLEMENTED": Outcome.MODEL_FAILED,
}
JSON_TYPES = (dict, list, str, int, float, type(None))
DETAIL_CHARS_MAX = 500
NO_SETUP = "it restarted without being set up"


def outcome_of(status: str, detail: str) -> Outcome:
    """The outcome for a status (SUCCESS, FAILED, TIMEOUT) and the library's detail."""
    if status == "SUCCESS":
        return Outcome.OK
    if detail.startswith("RESOURCE_EXHAUSTED") and "larger than max" in detail:
        return Outcome.TOO_BIG
    prefix = detail.partition(":")[0].strip()
    return BY_PREFIX.get(prefix, Outcome.MODEL_FAILED if status == "FAILED" else Outcome.CRASHED)


def reply_from_result(model_id: str, deployment_id: str, result: Any) -> ModelReply:
    """A reply. An output that is no JSON value (a table) is BAD_OUTPUT; NaN is left to the stage."""
    detail = str(result.detail or "")[:DETAIL_CHARS_MAX]
    outcome, output = outcome_of(result.status.value, detail), result.result
    if outcome is Outcome.MODEL_FAILED and "setup first" in detail.lower():
        outcome, detail = Outcome.CRASHED, NO_SETUP
    if outcome is Outcome.OK and not isinstance(output, JSON_TYPES):
        outcome, output, detail = Outcome.BAD_OUTPUT, None, f"a {type(output).__name__} is not JSON"
    return ModelReply(
        *(model_id, deployment_id, outcome),
        output=output if outcome is Outcome.OK else None,
        detail=detail,
        exec_time_us=int(result.exec_time_us),
    )


def lost_its_setup(reply: ModelReply) -> bool:
    """Whether the process behind this reply was restarted unannounced and must be set up again."""
    return reply.outcome is Outcome.CRASHED and reply.detail == NO_SETUP
