"""Scores rounds of sample answers by a contract's `score_round`, and combines them by its ensembles, as the node does.

The checks of a contract use it. Nothing is recorded. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract, QuestionScope, RankingDirection, RoundContext
from coordinator.streams.contract.questions import QUESTIONS
from coordinator.streams.contract.rounds import Question
from coordinator.streams.contract.trial_answers import read_back, recorded, shown
from coordinator.streams.durations import MINUTE_MS
from coordinator.streams.events import NO_OUTPUT, Fault
from coordinator.streams.log.errors import ContractError
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.ensembles import Combined, EnsembleScorer
from coordinator.streams.scores.past_scores import PastSums
from coordinator.streams.scores.round_columns import AskedModels, RoundOutcome
from coordinator.streams.scores.round_scorer import RoundScorer
from coordinator.streams.scores.scorer import NOBODY
from coordinator.streams.scores.units import to_float

_AWAY: tuple[str, Fault] = ("ABSENT", "model")


def scoring_field(contract: CrunchContract) -> str:
    """The field that scores: `score_round` if it is set, else `score_prediction`."""
    return "score_prediction" if contract.score_round is None else "score_round"


def sample_round(
    contract: CrunchContract,
    answers: Sequence[BaseModel],
    truth: Any,
    before: Carried | None = None,
    number: int = 0,
) -> RoundOutcome:
    """The outcome of round `number` with these answers, each of another model and player. One more model is absent.

    Raises ContractError with the reason if the function fails the whole round.
    """
    if is_posted(contract):
        return _scored(
            contract,
            _question_context(contract, before or Carried(), number, len(answers)),
            answers,
            truth,
            before,
        )
    schedules = contract.schedules()
    scope_key = schedules[0].scope_key if schedules else "sample"
    scope = schedules[0].scope if schedules else contract.scope
    point = number * schedules[0].interval_seconds * 1000 if schedules else number * MINUTE_MS
    carried = before or Carried()
    context = RoundContext(
        scope_key=scope_key,
        subject="SAMPLE",
        horizon_seconds=scope.horizon_seconds,
        step_seconds=scope.step_seconds,
        point=point,
        resolvable_at=point + scope.horizon_seconds * 1000,
        params=contract.params_of(scope_key),
        **carried.given(),
    )
    return _scored(contract, context, answers, truth, before)


def _scored(
    contract: CrunchContract,
    context: RoundContext,
    answers: Sequence[BaseModel],
    truth: Any,
    before: Carried | None,
) -> RoundOutcome:
    n, asked = len(answers), _asked(contract, answers)
    scorer = RoundScorer(contract, histories=of_histories(contract), blames=False)
    outcome = scorer.score(asked, truth, context, before or Carried())
    reasons = {reason for _, fault, reason in outcome.unscored.values() if reason and fault != NOBODY}
    if n and len(outcome.unscored) == n + 1 and len(reasons) == 1:
        raise ContractError(f"contract field score_round: {reasons.pop().removeprefix('score_round: ')}")
    return outcome


def is_posted(contract: CrunchContract) -> bool:
    """Whether it asks posted questions alone, so that its truths are posted, too."""
    return contract.questions is not None and not contract.schedules()


def of_histories(contract: CrunchContract) -> bool:
    """Whether it scores all answers of a model with their times."""
    return is_posted(contract) and contract.questions is not None and contract.questions.counts == "history"


def as_scored(contract: CrunchContract, answer: BaseModel) -> Any:
    """An answer as the scoring gets it: read back, or as a history of one answer."""
    again = read_back(answer)
    return _history(answer) if of_histories(contract) else again


def _history(answer: BaseModel) -> dict[str, Any]:
    return {"answers": [{"at": 0, "output": recorded(answer)}], "opens_at": 0, "closes_at": MINUTE_MS}


def _question_context(contract: CrunchContract, carried: Carried, number: int, models: int) -> RoundContext:
    """The context of round `number`, in which each of this many models has a stake of 1."""
    opens_at = number * MINUTE_MS
    scope = contract.questions.scopes[0] if contract.questions else QuestionScope()
    return RoundContext(
        scope_key=scope.scope_key,
        subject=QUESTIONS,
        horizon_seconds=0,
        step_seconds=0,
        point=opens_at,
        resolvable_at=opens_at + MINUTE_MS,
        params=scope.params,
        question=Question(
            round_id="sample",
            question_id=f"sample-{number}",
            tags=list(scope.tags),
            opens_at=opens_at,
            closes_at=opens_at + MINUTE_MS,
            recorded=msgspec.Raw(b"{}"),
        ),
        stakes={f"model-{i:03d}": 1.0 for i in range(models)},
        **carried.given(),
    )


def _asked(contract: CrunchContract, answers: Sequence[BaseModel]) -> AskedModels:
    """A round with these answers, and one more model that is absent."""
    n, histories = len(answers), of_histories(contract)
    for answer in answers:
        read_back(answer)
    return AskedModels(
        models=[f"model-{i:03d}" for i in range(n + 1)],
        crunchers=[f"player-{i:03d}" for i in range(n + 1)],
        outputs=[
            *(
                msgspec.Raw(msgspec.json.encode(_history(answer) if histories else recorded(answer)))
                for answer in answers
            ),
            NO_OUTPUT,
        ],
        missed={n: _AWAY},
    )


def sample_ensembles(contract: CrunchContract, answers: Sequence[BaseModel]) -> dict[str, Combined]:
    """Ensemble name -> its combination of these answers. Each model has one past score; the first has the best."""
    asked, unit = _asked(contract, answers), 10**contract.score_decimals
    sign = -1 if contract.aggregation.ranking_direction == RankingDirection.ASC else 1
    scores = {model_id: [-sign * i * unit // 100, 1] for i, model_id in enumerate(asked.models)}
    squares = {model_id: [((i + 1) * unit // 100) ** 2, 1] for i, model_id in enumerate(asked.models)}
    past = {
        ensemble.name: PastSums(scores, {ensemble.error_field: squares}) for ensemble in contract.ensembles
    }
    return EnsembleScorer(contract).combined(asked, past)


def after(before: Carried, outcome: RoundOutcome) -> Carried:
    """The state at the start of the round after `outcome`."""
    carried = Carried(dict(before.states), before.shared)
    carried.take(outcome.states, outcome.shared)
    return carried


def values_of(contract: CrunchContract, answers: Sequence[BaseModel], truth: Any, about: str) -> list[float]:
    """The value of each answer in one round: its score, or its charge if the function failed it; 0 if it has no score
    by nobody's fault.

    Raises ContractError that names the answer without a value; `about` is the market, for that text.
    """
    outcome = sample_round(contract, answers, truth)
    if all(fault == NOBODY for place, (_, fault, _) in outcome.unscored.items() if place < len(answers)) and (
        len(outcome.unscored) > len(answers)
    ):
        # A model may get its first score only when an earlier round has left a state.
        outcome = sample_round(contract, answers, truth, after(Carried(), outcome), number=1)
    for place, (_, fault, reason) in sorted(outcome.unscored.items()):
        if place < len(answers) and place not in outcome.charges and fault != NOBODY:
            raise ContractError(f"score_round, for {shown(answers[place])} {about}{reason}")
    column = outcome.units.get(contract.aggregation.value_field) or [None] * len(answers)
    values = [outcome.charges.get(place, column[place]) for place in range(len(answers))]
    return [to_float(units or 0, contract.score_decimals) for units in values]
