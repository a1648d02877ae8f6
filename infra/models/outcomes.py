"""Turns results of gRPC calls into our outcomes, each with whose fault it is.

Reads a `CallResponse` or a gRPC status code, emits a `ModelReply`. The model's process sends both, so
neither may blame the node: faults of the node are found by the gateway and the stage themselves.
"""

from __future__ import annotations

from typing import Any

from coordinator.infra.models.host import variants
from coordinator.streams.ports import ModelReply, Outcome
from coordinator.streams.predictions.sendable import VariantError

BY_CODE = {
    "DEADLINE_EXCEEDED": Outcome.DEADLINE,
    "RESOURCE_EXHAUSTED": Outcome.BUSY,
    "UNKNOWN": Outcome.MODEL_FAILED,
    "UNIMPLEMENTED": Outcome.MODEL_FAILED,
    "INVALID_ARGUMENT": Outcome.MODEL_FAILED,
}
"""gRPC's status codes; every other one says that the process or its connection broke down."""
DETAIL_CHARS_MAX = 500
NOT_SET_UP, BAD_IMPLEMENTATION = "FAILED_PRECONDITION", "BAD_IMPLEMENTATION"  # the protocol's codes
_OVERFLOW = "larger than max"


def reply_from_error(model_id: str, deployment_id: str, code: str, detail: str) -> ModelReply:
    """A reply for a call that ended with a gRPC status.

    gRPC has one code for a busy server and for a message above the channel's limit; only its text tells them apart.
    Both are the model's.
    """
    outcome = BY_CODE.get(code, Outcome.CRASHED)
    if outcome is Outcome.BUSY and _OVERFLOW in detail:
        outcome = Outcome.TOO_BIG
    return ModelReply(model_id, deployment_id, outcome, "model", detail=_cut(f"{code}: {detail}"))


def reply_from_response(
    model_id: str, deployment_id: str, response: Any, output_max_bytes: int, exec_time_us: int
) -> ModelReply:
    """A reply for a call that the model's process answered. NaN is left to the stage.

    The answer is decoded within the bound of `output_max_bytes`, and not at all where that is 0.
    """
    code = response.status.code
    if code != "SUCCESS":
        outcome = Outcome.CRASHED if code == NOT_SET_UP else Outcome.MODEL_FAILED
        detail = _cut(": ".join(filter(None, ("" if code == outcome else code, response.status.message))))
        return ModelReply(model_id, deployment_id, outcome, "model", detail=detail, exec_time_us=exec_time_us)
    if not output_max_bytes:
        return ModelReply(model_id, deployment_id, Outcome.OK, exec_time_us=exec_time_us)
    try:
        output = variants.decode_answer(response.methodResponse, output_max_bytes)
    except VariantError as error:
        too_big = isinstance(error, variants.AnswerTooBigError)
        outcome = Outcome.TOO_BIG if too_big else Outcome.BAD_OUTPUT
        return ModelReply(
            model_id, deployment_id, outcome, "model", detail=_cut(str(error)), exec_time_us=exec_time_us
        )
    return ModelReply(model_id, deployment_id, Outcome.OK, output=output, exec_time_us=exec_time_us)


def _cut(text: str) -> str:
    return text[:DETAIL_CHARS_MAX]
