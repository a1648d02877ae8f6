"""The commands that a post becomes. Ids are made of content and time; time comes in when they are sent.

A post is one command: a stage takes it whole or not at all. One that is too large raises FileRefusedError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from coordinator.infra.rounds.files import FileRefusedError
from coordinator.infra.rounds.posts_in_file import COMMAND_BYTES_MAX
from coordinator.streams.events import (
    CloseQuestions,
    CloseQuestionsData,
    Event,
    PostedQuestion,
    PostQuestions,
    PostQuestionsData,
    PostStakes,
    ResolveQuestions,
    ResolveQuestionsData,
    StakesPostedData,
    SubmitAnswers,
    SubmitAnswersData,
    SubmittedAnswer,
    VoidQuestions,
    VoidQuestionsData,
)
from coordinator.streams.log.ids import content_id

CommandsOf = Callable[[int], list[Event]]
"""Time in ms -> the commands."""


def posting(round_id: str, questions: Sequence[PostedQuestion]) -> CommandsOf:
    """Ask these questions."""
    data = PostQuestionsData(round_id=round_id, questions=list(questions))
    return lambda at: [PostQuestions(id=_id(data, at), at=at, data=data)]


def closing(round_id: str, question_ids: list[str]) -> CommandsOf:
    """The command that closes these questions to answers; no command if no question is named."""
    data = CloseQuestionsData(round_id=round_id, question_ids=question_ids)
    return lambda at: [CloseQuestions(id=_id(data, at), at=at, data=data)] if question_ids else []


def voiding(round_id: str, reason: str, question_ids: list[str]) -> CommandsOf:
    """The command that voids these questions; no command if no question is named."""
    data = VoidQuestionsData(round_id=round_id, reason=reason, question_ids=question_ids)
    return lambda at: [VoidQuestions(id=_id(data, at), at=at, data=data)] if question_ids else []


def resolving(round_id: str, truths: Mapping[str, msgspec.Raw], *, again: bool = False) -> CommandsOf:
    """Record the truths of questions. `again`: also a truth that is recorded already, so that it is scored again."""
    data = ResolveQuestionsData(round_id=round_id, truths=dict(truths), again=again)
    return lambda at: [ResolveQuestions(id=_id(data, at), at=at, data=data)]


def staking(stakes: Mapping[str, str]) -> CommandsOf:
    """Go by this table."""
    data = StakesPostedData(stakes=dict(stakes))
    return lambda at: [PostStakes(id=_id(data, at), at=at, data=data)]


def submitting(
    round_id: str, model_id: str, cruncher_id: str, answers: Sequence[SubmittedAnswer], sha256: str
) -> Callable[[int], list[SubmitAnswers]]:
    """Record a participant's answers."""
    data = SubmitAnswersData(
        round_id=round_id, model_id=model_id, cruncher_id=cruncher_id, answers=list(answers), sha256=sha256
    )
    return lambda at: [SubmitAnswers(id=_id(data, at), at=at, data=data)]


def _id(data: msgspec.Struct, at: int) -> str:
    content = msgspec.json.encode(data)
    if len(content) > COMMAND_BYTES_MAX:
        raise FileRefusedError(
            f"{len(content):,} bytes in one post; the limit is {COMMAND_BYTES_MAX:,}: post it in parts"
        )
    return content_id("cmd", type(data).__name__, hashlib.sha256(content).hexdigest(), str(at))
