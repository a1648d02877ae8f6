"""A node in memory that runs a challenge of posted questions: its models, and the commands of operator and participants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from tests.streams.build import DAY, HOUR

from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.payout_amounts import frac64_shares
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine.engine import Engine
from coordinator.streams.engine.models import Functions
from coordinator.streams.settings import Settings

WEEK = 7 * DAY
T0 = 2817 * WEEK
"""A boundary of weeks, counted from the epoch."""
Model = Callable[[Any, str], Any]
"""(payload, id of the question) -> answer."""


class Challenge:
    """A node in memory that asks these models and receives commands from an operator and participants."""

    def __init__(self, contract: CrunchContract, models: Mapping[str, Model], weeks: int = 1) -> None:
        def asked(model: Model) -> Any:
            return lambda data, _call: model(data, data["question_id"])

        functions = Functions({name: asked(model) for name, model in models.items()})
        self.engine = Engine(lambda _: contract, functions)
        self.settings = Settings(
            feed_source="questions",
            feed_kind="question",
            feed_granularity="1s",
            feed_subjects=("questions",),
            snapshot_interval_seconds=DAY // 1000,
            checkpoint_interval_seconds=weeks * WEEK // 1000,
            checkpoint_offset_seconds=T0 // 1000 % (weeks * WEEK // 1000),
        )
        self.engine.configure(make_terms(contract, "c" * 64, self.settings, 0))
        self.engine.feed(T0, [])
        self._commands, self._at = itertools.count(), T0

    def tick(self, until: int) -> None:
        """Advances hour by hour, up to a time (ms)."""
        while self._at + HOUR < until:
            self._at += HOUR
            self.engine.feed(self._at, [])

    def tell(self, kind: Any, at: int, data: Any) -> None:
        """Sends a command at a time (ms); the engine decides on it at once."""
        self.engine.feed(at, [])
        self.engine.command(kind(id=f"cmd/{next(self._commands)}", at=at, data=data))
        self.engine.feed(at + 1, [])

    def post(self, at: int, question_id: str, payload: Any, closes_at: int, *tags: str) -> None:
        question = ev.PostedQuestion(
            question_id=question_id,
            payload=raw({"question_id": question_id} | payload),
            opens_at=at,
            closes_at=closes_at,
            tags=list(tags),
        )
        self.tell(ev.PostQuestions, at - 1, ev.PostQuestionsData(round_id="r", questions=[question]))

    def hand_in(self, at: int, model_id: str, question_id: str, output: Any) -> None:
        answer = ev.SubmittedAnswer(question_id=question_id, scope_key="", output=raw(output))
        data = ev.SubmitAnswersData(
            round_id="r", model_id=model_id, cruncher_id=model_id, answers=[answer], sha256=f"{at:064x}"
        )
        self.tell(ev.SubmitAnswers, at, data)

    def resolve(self, at: int, **truths: Any) -> None:
        data = ev.ResolveQuestionsData(
            round_id="r", truths={name: raw(truth) for name, truth in truths.items()}
        )
        self.tell(ev.ResolveQuestions, at, data)

    def void(self, at: int, *questions: str) -> None:
        data = ev.VoidQuestionsData(round_id="r", reason="annulled", question_ids=list(questions))
        self.tell(ev.VoidQuestions, at, data)

    def scores(self, question_id: str) -> dict[str, dict[str, float]]:
        """model -> its numbers, for each model with a score."""
        (data,) = (
            event.data
            for event in self.engine.log.events("scores")
            if isinstance(event, ev.RoundScored) and event.data.input_id.endswith(f"/{question_id}")
        )
        return {
            entry.model_id: {name: units / 10**9 for name, units in entry.units.items()}
            for entry in data.entries()
            if entry.status == "SCORED"
        }

    def states(self) -> dict[str, Any]:
        states: dict[str, Any] = {}
        for event in self.engine.log.events("scores"):
            if isinstance(event, ev.StateCarried):
                states |= {model: msgspec.json.decode(state) for model, state in event.data.states.items()}
        return states

    def paid(self) -> list[ev.CheckpointData]:
        return [
            event.data if isinstance(event, ev.CheckpointOpened) else event.data.checkpoint
            for event in self.engine.log.events("checkpoints")
            if isinstance(event, (ev.CheckpointOpened, ev.CheckpointWithheld))
        ]


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def shares(data: ev.CheckpointData) -> dict[str, float]:
    amounts, _ = frac64_shares(data.payout.pools if data.payout else [])
    return {data.ranking[i].model_id: amount / 1e9 for i, amount in amounts.items()}
