"""Ids made from content: a decision that is made twice has the same ids.

They hold no positions and no epochs, so a mirrored log has the same ids.
"""

from __future__ import annotations

import hashlib
import re

QUESTION_PREFIX = "inp/questions/"
QUESTION_SLASHES = 3
"""The slashes in the id of a question; an input of the market's grid has two and those of its subject."""
ENSEMBLE_PREFIX = "__ensemble_"
"""Ids of what a node made of several models: on no chain, and never paid."""


def feed_record_id(
    source: str, subject: str, kind: str, granularity: str, ts_event: int, revision: int
) -> str:
    """One id per record and revision, whether the record came from the stream or from history."""
    return f"feed/{source}/{subject}/{kind}/{granularity}/{ts_event}/r{revision}"


def tick_id(at: int) -> str:
    """One id per time of a tick, in ms."""
    return f"tick/{at}"


def input_id(subject: str, point: int) -> str:
    """One id per subject and grid point."""
    return f"inp/{subject}/{point}"


def question_input_id(round_id: str, question_id: str) -> str:
    """One id per posted question: that of the input with which it is asked first, and which represents it."""
    return f"{QUESTION_PREFIX}{round_id}/{question_id}"


def asking_input_id(question_input: str, asking: int) -> str:
    """The id of the input with which a question is asked for the n-th time, from 1 on."""
    return question_input if asking == 1 else f"{question_input}~{asking}"


def submission_input_id(question_input: str, command_id: str, model_id: str, sha256: str) -> str:
    """The id of the round of answers that were handed in. The same answers may be handed in again after others, or by
    another model, so the id is also made of the command and the model.
    """
    content = f"{command_id}\n{model_id}\n{sha256}"
    return f"{question_input}~s{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def is_question(input_id: str) -> bool:
    """Whether it is the input or the round of a posted question."""
    return input_id.startswith(QUESTION_PREFIX) and input_id.count("/") == QUESTION_SLASHES


def question_of(input_id: str) -> str:
    """The input that represents the question of this input or round; any other input represents itself."""
    if not input_id.startswith(QUESTION_PREFIX):
        return input_id
    return input_id.partition("~")[0] if is_question(input_id) else input_id


def input_of_question(of_prediction: str) -> str:
    """The round of a posted question that a prediction's id names; "" if it is no answer to a question."""
    if not of_prediction.startswith(QUESTION_PREFIX):
        return ""
    return "/".join(of_prediction.split("/")[: QUESTION_SLASHES + 1])


def asking_suffix(input_id: str) -> str:
    """What follows `question_of` in the id of an asking: "" for the first, `~2`, `~sab12..`."""
    return input_id[len(question_of(input_id)) :]


def prediction_id(input_id: str, scope_key: str, model_id: str) -> str:
    """One id per input, scope and model."""
    return f"{input_id}/{scope_key}/{model_id}"


def snapshot_id(model_id: str, period_start: int, period_end: int) -> str:
    """One id per model and period."""
    return f"snap/{model_id}/{period_start}-{period_end}"


def checkpoint_id(crunch_id: str, period_start: int, period_end: int) -> str:
    """`ckp_` and 24 hex digits of the sha256 of crunch and period: there can be only one checkpoint per period."""
    text = f"{crunch_id}\n{period_start}\n{period_end}"
    return "ckp_" + hashlib.sha256(text.encode()).hexdigest()[:24]


def content_id(prefix: str, *content: str) -> str:
    """`prefix/` and 24 hex digits of the sha256 of the content."""
    return f"{prefix}/" + hashlib.sha256("\n".join(content).encode()).hexdigest()[:24]


def is_content_id(prefix: str, text: str) -> bool:
    """Does `text` look like a `content_id` of this prefix?"""
    return re.fullmatch(rf"{prefix}/[0-9a-f]{{24}}", text) is not None


def ensemble_id(name: str) -> str:
    """The model id of a declared ensemble."""
    return f"{ENSEMBLE_PREFIX}{name}__"


def is_ensemble(model_id: str) -> bool:
    """Is it the id of an ensemble, and of no participant?"""
    return model_id.startswith(ENSEMBLE_PREFIX)


def ensemble_name(model_id: str) -> str:
    """The name of the ensemble that has this id."""
    return model_id.removeprefix(ENSEMBLE_PREFIX).removesuffix("__")
