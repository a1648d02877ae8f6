"""Posted questions as events written by hand on a `LogBuilder`, in place of the stages' own.

    posted = Posted(log)
    posted.post("week-1", "q1", closes=HOUR_MS)
    posted.ask("week-1", "q1", {"m1": 0.7})       # the input, and its round with these answers
    posted.close("week-1", "q1", HOUR_MS)
    posted.resolve("week-1", "q1", 2 * HOUR_MS, {"outcome": 1}, {"m1": 0.09})

Times are ms after START_MS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from tests.logs import HOUR_MS, START_MS, UNIT, LogBuilder

from coordinator.streams import events as ev


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


class Posted:
    """Appends to a log's `feeds`, `inputs`, `predictions` and `scores`."""

    def __init__(self, log: LogBuilder) -> None:
        self.log = log
        self._questions: dict[tuple[str, str], ev.PostedQuestion] = {}
        self._askings: dict[str, int] = {}

    def post(
        self,
        round_id: str,
        question_id: str,
        *,
        at: int = 0,
        opens: int = 0,
        closes: int = HOUR_MS,
        payload: Any = None,
        tags: tuple[str, ...] = (),
        revision: int = 0,
        commands: int | None = None,
    ) -> None:
        question = ev.PostedQuestion(
            question_id=question_id,
            payload=raw({"title": f"What of {question_id}?"} if payload is None else payload),
            opens_at=START_MS + opens,
            closes_at=START_MS + closes,
            tags=list(tags),
            resolves_at=START_MS + closes + HOUR_MS,
        )
        self._questions[round_id, question_id] = question
        self.log.append(
            "feeds",
            ev.QuestionPosted(
                id=f"question/{round_id}/{question_id}/r{revision}",
                at=START_MS + at,
                data=ev.QuestionPostedData(round_id=round_id, question=question, revision=revision),
            ),
            upto=None if commands is None else {"commands": (commands, 0)},
        )

    def ask(
        self,
        round_id: str,
        question_id: str,
        answers: Mapping[str, float | str] | None = None,
        at: int | None = None,
    ) -> str:
        """Asks the models again. Returns the input's id. An answer is a number, `ABSENT` or `FAILED`."""
        question = self._questions[round_id, question_id]
        first = f"inp/questions/{round_id}/{question_id}"
        asking = self._askings[first] = self._askings.get(first, 0) + 1
        input_id = first if asking == 1 else f"{first}~{asking}"
        when = question.opens_at if at is None else START_MS + at
        scope = ev.InputScope(
            scope_key="question", horizon_seconds=0, step_seconds=0, resolvable_at=question.closes_at
        )
        asked = ev.QuestionAsked(
            input_id=first,
            round_id=round_id,
            question_id=question_id,
            asking=asking,
            whom="all",
            opens_at=question.opens_at,
            closes_at=question.closes_at,
            tags=question.tags,
        )
        self.log.append(
            "inputs",
            ev.InputReceived(
                id=f"{input_id}:received",
                at=when,
                data=ev.InputReceivedData(
                    input_id=input_id,
                    subject="questions",
                    point=when,
                    deadline_at=when + 10_000,
                    scopes=[scope],
                    contract_hash=self.log.contract_at(when),
                    rehearsal=True,
                    payload=question.payload,
                    question=asked,
                ),
            ),
        )
        if answers is not None:
            self.log.append("predictions", self.log._opened(input_id, when, list(answers), ["question"]))
            self.log.append("predictions", *self._answered(input_id, when + 1, answers))
        return input_id

    def _answered(self, input_id: str, at: int, answers: Mapping[str, float | str]) -> list[ev.Event]:
        roster = self.log._opened(input_id, at, list(answers), ["question"]).data.roster
        entries = [
            ev.AnswerEntry(model_id, f"{model_id}-d1", "PENDING", raw({"value": answer}), 1200)
            if isinstance(answer, float)
            else ev.AnswerEntry(model_id, f"{model_id}-d1", answer, reason="past the deadline", fault="model")
            for model_id, answer in answers.items()
        ]
        return [
            ev.ScopeAnswered(
                id=f"{input_id}/question:answers",
                at=at,
                data=ev.ScopeAnsweredData(
                    input_id=input_id, scope_key="question", **ev.answers_in_columns(roster, entries)
                ),
            ),
            ev.RoundAnswered(
                id=f"{input_id}:answered", at=at, data=ev.RoundAnsweredData(input_id=input_id, clock=at)
            ),
        ]

    def close(self, round_id: str, question_id: str, at: int, *, watermark: bool = True) -> None:
        input_id = f"inp/questions/{round_id}/{question_id}"
        self.log.append(
            "inputs",
            ev.InputClosed(
                id=f"{input_id}:closed",
                at=START_MS + at,
                data=ev.InputClosedData(input_id=input_id, askings=self._askings.get(input_id, 0)),
            ),
        )
        if watermark:
            self.log.inputs_until(at + 1)

    def truth(self, round_id: str, question_id: str, at: int, truth: Any, revision: int = 0) -> None:
        """The events of a truth in `feeds`."""
        data = ev.QuestionResolvedData(
            round_id=round_id, question_id=question_id, truth=raw(truth), revision=revision
        )
        self.log.append(
            "feeds",
            ev.QuestionResolved(
                id=f"question/{round_id}/{question_id}:resolved/r{revision}", at=START_MS + at, data=data
            ),
        )

    def resolve(
        self,
        round_id: str,
        question_id: str,
        at: int,
        truth: Any,
        scores: Mapping[str, float] | None = None,
        revision: int = 0,
    ) -> None:
        self.truth(round_id, question_id, at, truth, revision)
        input_id = f"inp/questions/{round_id}/{question_id}"
        self.log.append(
            "inputs",
            ev.InputResolved(
                id=f"{input_id}:resolved/r{revision}",
                at=START_MS + at,
                data=ev.InputResolvedData(
                    input_id=input_id,
                    horizon_seconds=0,
                    resolvable_at=START_MS + at,
                    truth=truth,
                    reason=None,
                    last=True,
                    revision=revision,
                ),
            ),
        )
        if scores is not None:
            entries = [
                ev.ScoreEntry(model_id, "SCORED", units={"value": round(score * UNIT)})
                for model_id, score in scores.items()
            ]
            data = ev.RoundScoredData(
                input_id=input_id,
                scope_key="question",
                subject="questions",
                point=START_MS,
                resolvable_at=START_MS + at,
                horizon_seconds=0,
                rehearsal=True,
                contract_hash=self.log.contract_at(START_MS),
                **ev.in_columns(entries),
            )
            self.log.append(
                "scores", ev.RoundScored(id=f"{input_id}/question:scored", at=START_MS + at, data=data)
            )

    def refuse_truth(self, round_id: str, question_id: str, at: int, truth: Any, reason: str) -> None:
        self.truth(round_id, question_id, at, truth)
        input_id = f"inp/questions/{round_id}/{question_id}"
        self.log.append(
            "inputs",
            ev.TruthRefused(
                id=f"{input_id}:refused/r0",
                at=START_MS + at,
                data=ev.TruthRefusedData(input_id=input_id, revision=0, reason=reason),
            ),
        )

    def void(self, round_id: str, question_id: str, at: int, reason: str, *, asked: bool = True) -> None:
        self.log.append(
            "feeds",
            ev.QuestionVoided(
                id=f"question/{round_id}/{question_id}:voided",
                at=START_MS + at,
                data=ev.QuestionVoidedData(round_id=round_id, question_id=question_id, reason=reason),
            ),
        )
        if asked:
            input_id = f"inp/questions/{round_id}/{question_id}"
            self.log.append(
                "inputs",
                ev.InputResolved(
                    id=f"{input_id}:void",
                    at=START_MS + at,
                    data=ev.InputResolvedData(
                        input_id=input_id,
                        horizon_seconds=0,
                        resolvable_at=START_MS + at,
                        truth=None,
                        reason=f"void: {reason}",
                        last=True,
                        void=True,
                    ),
                ),
            )

    def stakes(self, at: int, table: dict[str, str]) -> None:
        self.log.append(
            "feeds",
            ev.StakesPosted(id=f"stakes/{at}", at=START_MS + at, data=ev.StakesPostedData(stakes=table)),
        )


def add_questions(log: LogBuilder, *, answered: bool = True) -> Posted:
    """A round with a question in every state, and an open round; with or without rounds of predictions."""
    posted = Posted(log)

    def answers_by_model(**answers: float | str) -> dict[str, float | str] | None:
        return answers if answered else None

    posted.post(
        "week-1", "due", closes=HOUR_MS, payload={"title": "Due?", "yes_price": 0.4, "source": "desk"}
    )
    posted.post("week-1", "late", closes=HOUR_MS)
    posted.post("week-1", "later", at=1, opens=20 * HOUR_MS, closes=30 * HOUR_MS)
    posted.post("week-1", "taken-back", closes=HOUR_MS, payload=[[1.5, 2.5]])
    posted.post("week-1", "never-asked", opens=20 * HOUR_MS, closes=30 * HOUR_MS)
    for question_id in ("due", "late", "taken-back"):
        posted.ask("week-1", question_id, answers_by_model(m1=0.75, m2=0.25, m3="ABSENT"))
    posted.post("week-2", "open", at=HOUR_MS, opens=2 * HOUR_MS, closes=40 * HOUR_MS, tags=("Weather",))
    for question_id in ("due", "late"):
        posted.close("week-1", question_id, HOUR_MS)
    posted.resolve(
        "week-1", "due", 3 * HOUR_MS, {"outcome": 1}, {"m1": 0.0625, "m2": 0.5625} if answered else None
    )
    posted.refuse_truth("week-1", "late", 3 * HOUR_MS, {"outcom": 1}, "outcome: Field required")
    posted.void("week-1", "taken-back", 3 * HOUR_MS, "it was annulled")
    posted.void("week-1", "never-asked", 3 * HOUR_MS, "it was annulled", asked=False)
    posted.ask("week-2", "open", answers_by_model(m1=0.1, m2=0.2))
    posted.ask("week-2", "open", answers_by_model(m1=0.15, m2="FAILED"), at=4 * HOUR_MS)
    posted.stakes(5 * HOUR_MS, {"m1": "12.5"})
    return posted
