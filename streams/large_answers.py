"""Large answers: their JSON lies in a store of blobs, and the log has hash, size and media type.

Pure but for the store, which is a port: what a hash names never changes, so a decision that reads it stays a function
of the log. A blob that is missing or altered raises BlobLostError, which names it; whoever asks stops that round alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from coordinator.streams.events import (
    NO_OUTPUT,
    AnswerEntry,
    Blob,
    InputReceived,
    InputReceivedData,
    PostedQuestion,
    PostQuestions,
    QuestionAsked,
    QuestionPosted,
    QuestionPostedData,
    ScopeAnswered,
    ScopeAnsweredData,
    SubmitAnswers,
    SubmittedAnswer,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import may_hold
from coordinator.streams.log.errors import BlobLostError
from coordinator.streams.ports import BlobReader, Table

ANSWER_BYTES_MAX = 1_000_000
"""The largest size of an answer in the log itself."""
MEDIA_TYPE = "application/json"
_Answer = TypeVar("_Answer", AnswerEntry, SubmittedAnswer)
LOST = "BLOB_LOST"
"""How the reason of what a lost blob stopped begins."""


def stopped_by(error: Exception) -> str:
    """The reason of what a lost blob stops."""
    return f"{LOST}: {error}"


def blob_of(content: bytes) -> Blob:
    """What the log says of an answer's JSON."""
    return Blob(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), media_type=MEDIA_TYPE)


def set_aside(answers: Sequence[_Answer], put: Callable[[bytes], object]) -> list[_Answer]:
    """The answers, the large outputs among them `put` into the store. Raises what `put` raises."""
    return [
        _named(answer, put) if memoryview(answer.output).nbytes > ANSWER_BYTES_MAX else answer
        for answer in answers
    ]


def _named(answer: _Answer, put: Callable[[bytes], object]) -> _Answer:
    content = bytes(answer.output)
    put(content)
    return msgspec.structs.replace(answer, output=NO_OUTPUT, blob=blob_of(content))


def read_blob(blob: Blob, blobs: BlobReader | None) -> bytes:
    """The bytes of a blob. Raises BlobLostError, also where there is no store; WorldError for one out of reach."""
    if blobs is None:
        raise BlobLostError(f"blob {blob.sha256}: there is no store of blobs here")
    return blobs.read(blob)


def table_of(data: InputReceivedData, blobs: BlobReader | None) -> Table | None:
    """The table that goes with an input. Raises as `read_blob`."""
    blob = data.question.blob if data.question is not None else None
    return None if blob is None else Table(read_blob(blob, blobs))


def whole_answer(answer: _Answer, blobs: BlobReader | None) -> _Answer:
    """The answer with its output. Raises as `read_blob`."""
    if answer.blob is None:
        return answer
    return msgspec.structs.replace(answer, output=msgspec.Raw(read_blob(answer.blob, blobs)), blob=None)


def whole(data: ScopeAnsweredData, blobs: BlobReader | None) -> ScopeAnsweredData:
    """The columns with every output in its place. Raises as `read_blob`."""
    if not data.blobs:
        return data
    outputs = list(data.outputs)
    for place, blob in data.blobs:
        outputs[place] = msgspec.Raw(read_blob(blob, blobs))
    return msgspec.structs.replace(data, outputs=outputs, blobs=[])


def blobs_of(decision: Decision) -> Iterator[Blob]:
    """The blobs that a decision of any topic names. Most name none, which the bytes show without decoding."""
    if not any(may_hold(bytes(body), "media_type") for body in decision.bodies):
        return
    for event in decision.events:
        match event:
            case PostQuestions(data=data):
                yield from (asked.blob for asked in data.questions if asked.blob is not None)
            case SubmitAnswers(data=data):
                yield from (answer.blob for answer in data.answers if answer.blob is not None)
            case ScopeAnswered(data=data):
                yield from (blob for _, blob in data.blobs)
            case QuestionPosted(data=QuestionPostedData(question=PostedQuestion(blob=Blob() as blob))):
                yield blob
            case InputReceived(data=InputReceivedData(question=QuestionAsked(blob=Blob() as blob))):
                yield blob
            case _:
                pass


def read_answers(command: SubmitAnswers, blobs: BlobReader | None) -> tuple[SubmitAnswers, dict[str, str]]:
    """(the command with its large answers as JSON, question -> why its answer cannot be had). Blocking.

    Raises WorldError where the store is out of reach.
    """
    answers: list[SubmittedAnswer] = []
    lost: dict[str, str] = {}
    for answer in command.data.answers:
        try:
            answers.append(whole_answer(answer, blobs))
        except BlobLostError as error:
            lost[answer.question_id] = str(error)
            answers.append(answer)
    data = msgspec.structs.replace(command.data, answers=answers)
    return msgspec.structs.replace(command, data=data), lost
