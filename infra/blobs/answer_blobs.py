"""Puts large answers into the store of blobs, where the store takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import structlog

from coordinator.streams.events import AnswerEntry, SubmittedAnswer
from coordinator.streams.large_answers import set_aside
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.ports import Blobs

log = structlog.get_logger()
_Answer = TypeVar("_Answer", AnswerEntry, SubmittedAnswer)


def beside_the_log(answers: Sequence[_Answer], blobs: Blobs | None) -> list[_Answer]:
    """The answers, the large ones among them by their names. Blocking.

    If the store refuses them, nobody may lose an answer: the log then holds them, as it holds small ones.
    """
    if blobs is None:
        return list(answers)
    try:
        return set_aside(answers, blobs.put)
    except (OperatorError, WorldError) as error:
        log.error("blob_not_kept", reason=str(error))  # noqa: TRY400 - for the operator
        return list(answers)
