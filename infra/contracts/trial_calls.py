"""Calls of every function of a contract on sample data. `trial.py` runs them in two processes and compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from coordinator.streams.addresses import SAMPLE_PUBKEY
from coordinator.streams.checkpoints.offering import emission_for
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.checking.findings import MARKETS
from coordinator.streams.contract.checking.posted_truths import posted_truths
from coordinator.streams.contract.checking.sample_rounds import (
    after,
    as_scored,
    is_posted,
    sample_ensembles,
    sample_round,
)
from coordinator.streams.contract.checking.samples import sample_entries, sample_window, truth_of
from coordinator.streams.contract.trial_answers import answers_to_try, more_answers, shown
from coordinator.streams.log.finite import numbers_of, plain
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.units import NotRecordableError, to_units


def calls_of(contract: CrunchContract, kind: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """(name, call) of each function. Each call makes its data again, because a function may change its arguments."""
    answers = [*answers_to_try(contract.output_type), *more_answers(contract.output_type)]
    truths: dict[str, Callable[[], Any]] = {}
    """What resolved, in words -> a function that makes the truth."""
    if is_posted(contract):
        truths = {name: partial(_posted, contract, name) for name in posted_truths(contract)}
    else:
        for market, prices in MARKETS.items():
            records = partial(sample_window, contract, kind, prices)
            yield f"build_input, for {market}", partial(_input, contract, records)
            yield f"resolve_ground_truth, for {market}", partial(_truth, contract, records)
            truths[market] = partial(_resolved, contract, records)
    for about, truth in truths.items():
        if contract.score_round is not None:
            yield (
                f"score_round, for {len(answers)} models after {about}",
                partial(_round, contract, answers, truth),
            )
            continue
        for answer in answers:
            name = f"score_prediction, for {shown(answer)} after {about}"
            yield name, partial(_score, contract, answer, truth)
    if contract.ensembles:
        yield f"ensembles, for {len(answers)} answers", partial(_ensembles, contract, answers)
    yield "aggregate_snapshot, for two scores", lambda: _summary(contract)
    paying = "build_emission" if contract.payout is None else "payout"
    yield f"{paying}, for 12 models", lambda: _emission(contract)


def _input(contract: CrunchContract, records: Callable[[], list[Any]]) -> str:
    return _json(contract.input_type.model_validate(plain(contract.build_input(records()))))


def _truth(contract: CrunchContract, records: Callable[[], list[Any]]) -> str:
    return _json(truth_of(contract, records()))


def _resolved(contract: CrunchContract, records: Callable[[], list[Any]]) -> Any:
    return truth_of(contract, records())


def _posted(contract: CrunchContract, name: str) -> Any:
    return posted_truths(contract)[name]


def _score(contract: CrunchContract, answer: Any, make_truth: Callable[[], Any]) -> str:
    truth = make_truth()
    if truth is None:
        return "no truth"
    score = contract.score_type.model_validate(
        plain(contract.score_prediction(as_scored(contract, answer), truth))
    )
    return _units(contract, score.__dict__)


def _round(contract: CrunchContract, answers: list[Any], make_truth: Callable[[], Any]) -> str:
    """What would be recorded of two rounds, the second with the state that the first left."""
    truth = make_truth()
    if truth is None:
        return "no truth"
    first = sample_round(contract, answers, truth)
    second = sample_round(contract, answers, truth, after(Carried(), first), number=1)
    rounds = [
        [scored.units, list(scored.unscored.values()), scored.charges, scored.states, scored.shared]
        for scored in (first, second)
    ]
    return msgspec.json.encode(rounds).decode()


def _ensembles(contract: CrunchContract, answers: list[Any]) -> str:
    return msgspec.json.encode(sample_ensembles(contract, answers)).decode()


def _units(contract: CrunchContract, fields: dict[str, Any]) -> str:
    """The numbers as they would be recorded: a difference that is rounded away does not count."""
    units: dict[str, Any] = {}
    for name, value in numbers_of(fields).items():
        try:
            units[name] = to_units(value, contract.score_decimals) / 10**contract.score_decimals
        except NotRecordableError as error:
            units[name] = str(error)
    return msgspec.json.encode(units).decode()


def _summary(contract: CrunchContract) -> str:
    fields = contract.score_type.model_fields.items()
    names = [field.alias or name for name, field in fields if field.is_required()]
    names.append(contract.aggregation.value_field)
    scores = [
        contract.score_type.model_validate(dict.fromkeys(names, value)) for value in (0.25, -0.5, 0.125)
    ]
    return _units(contract, dict(contract.aggregate_snapshot(scores)))


def _emission(contract: CrunchContract) -> str:
    pubkey = contract.crunch_pubkey or SAMPLE_PUBKEY
    return msgspec.json.encode(emission_for(contract, sample_entries(contract), pubkey)).decode()


def _json(model: Any) -> str:
    if isinstance(model, dict):
        return " ".join(f"{name} {_json(value)}" for name, value in model.items())
    return (
        "none"
        if model is None
        else msgspec.json.encode(model.model_dump(mode="json", by_alias=True)).decode()
    )
