"""Gathers the recorded events of a posted question and of all its rounds, for `streams/audit/explain`.

Reads the rows of `rounds` and `predictions`; `question_facts` sorts the decisions that they name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordinator.projections.explaining.carried_state import carried_facts
from coordinator.projections.explaining.log_reading import (
    EVERYTHING,
    WINDOW_RECORDS_MAX,
    ReadAppends,
    of_input,
    of_scope,
    only_of,
    read_placed,
    records_between,
)
from coordinator.projections.folding.as_of import PastStore, Readable
from coordinator.projections.folding.projection import key
from coordinator.projections.views.prediction_places import told_at
from coordinator.projections.views.question_answers import askings_of
from coordinator.projections.views.rounds import Rounds
from coordinator.streams.audit.explain.question import QuestionFacts
from coordinator.streams.audit.explain.rescoring import AnsweredRound
from coordinator.streams.audit.explain.steps import Placed, of_kind
from coordinator.streams.audit.facts import SeenRecord
from coordinator.streams.contract.terms import in_force
from coordinator.streams.events import (
    AnswersClosed,
    Event,
    InputClosed,
    InputReceived,
    InputResolved,
    QuestionPosted,
    QuestionResolved,
    QuestionVoided,
    RoundOpened,
    RoundRescored,
    RoundScored,
    ScopeAnswered,
    StakesPosted,
)
from coordinator.streams.log import ids

ROUNDS_MAX = 1_000
"""A question of more rounds is not computed again, since the request would take seconds."""


def places_of(read: Readable, input_id: str, scope_key: str, *, hidden: bool) -> dict[str, list[int]]:
    """Topic -> the offsets of the records about a question: about all of its rounds or, while answers are hidden,
    only about the one with this id.
    """
    predictions, first = read.predictions, ids.question_of(input_id)
    told = told_at(predictions, first, scope_key)
    told["predictions"] = []
    rounds = [input_id] if hidden else askings_of(predictions, first)[:ROUNDS_MAX]
    for round_id in rounds:
        of_round = told_at(predictions, round_id, scope_key)
        told["inputs"] += of_round["inputs"]
        told["predictions"] += of_round["predictions"]
    if not hidden:
        # The rows that say who may still answer go with AnswersClosed.
        told["predictions"] += predictions.store.written_at(b"Q" + key(first))
    told["feeds"] = read.rounds.posted_at(*_place(first))
    return {topic: sorted(set(offsets)) for topic, offsets in told.items()}


def _place(first: str) -> tuple[str, str]:
    round_id, question_id = first.removeprefix(ids.QUESTION_PREFIX).split("/")
    return round_id, question_id


def question_facts(
    read: Readable,
    appends: ReadAppends,
    placed: Sequence[Placed[Event]],
    input_id: str,
    scope_key: str,
    model_id: str,
    *,
    hidden: bool,
) -> QuestionFacts:
    """The facts of a question, from the events that were read; while answers are hidden, only what was posted. Raises
    WorldError, LogError.
    """
    first = ids.question_of(input_id)
    place = _place(first)
    received = only_of(of_kind(placed, InputReceived), first)
    posted = [
        item
        for item in of_kind(placed, QuestionPosted)
        if (item.event.data.round_id, item.event.data.question.question_id) == place
    ]
    told = in_force(read.predictions.terms.in_order)
    facts = QuestionFacts(first=received, posted=posted, told=told)
    if hidden:
        return facts
    answered = of_kind(placed, ScopeAnswered)
    rounds = [
        AnsweredRound(opened, of_scope(answered, opened.event.data.input_id, scope_key))
        for opened in of_kind(placed, RoundOpened)
        if ids.question_of(opened.event.data.input_id) == first
    ]
    outcomes: list[Placed[QuestionResolved] | Placed[QuestionVoided]] = [
        *of_kind(placed, QuestionResolved),
        *of_kind(placed, QuestionVoided),
    ]
    scored: list[Placed[RoundScored] | Placed[RoundRescored]] = [
        *of_scope(of_kind(placed, RoundScored), first, scope_key),
        *of_scope(of_kind(placed, RoundRescored), first, scope_key),
    ]
    resolved = of_input(of_kind(placed, InputResolved), first)
    closed = next(iter(of_input(of_kind(placed, InputClosed), first)), None)
    return QuestionFacts(
        first=received,
        posted=posted,
        told=told,
        rounds=rounds,
        closed=closed,
        answers_closed=next(iter(of_input(of_kind(placed, AnswersClosed), first)), None),
        outcomes=sorted(
            (item for item in outcomes if (item.event.data.round_id, item.event.data.question_id) == place),
            key=_offset,
        ),
        resolved=resolved,
        scored=scored,
        window=_window(read, received, resolved),
        stakes=_stakes(read, appends, closed) if closed is not None else None,
        carried=carried_facts(read, appends, placed, scored, model_id),
    )


def _stakes(read: Readable, appends: ReadAppends, closed: Placed[InputClosed]) -> Placed[StakesPosted] | None:
    """The table of stakes that was posted last before a question closed."""
    feeds_read = closed.upto.get("feeds", (EVERYTHING, 0))[0]
    offset = PastStore(read.rounds.store, Rounds, {"feeds": feeds_read + 1}).written_last_at(b"K")
    if offset is None:
        return None
    return next(iter(of_kind(read_placed(appends, {"feeds": [offset]}), StakesPosted)), None)


def _offset(placed: Placed[Any]) -> int:
    return placed.offset


def _window(
    read: Readable, received: Placed[InputReceived], resolved: Sequence[Placed[InputResolved]]
) -> list[SeenRecord]:
    """The records of the feed that the truth is made of, where the feed resolves the question."""
    asked = received.event.data.question
    if asked is None or not asked.resolves_by or asked.resolves_at is None or not resolved:
        return []
    since = max(asked.opens_at, received.event.data.point)
    terms = in_force(read.predictions.terms.in_order).at(since)
    feeds_read = resolved[0].upto.get("feeds", (EVERYTHING, 0))[0]
    return records_between(
        read, terms, asked.resolves_by, since, asked.resolves_at, feeds_read, WINDOW_RECORDS_MAX
    )
