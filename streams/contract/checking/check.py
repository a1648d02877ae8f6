"""Runs every function of a contract once on sample data, before the node starts.

Reads a contract and the kind of the feed's records. Raises ContractError that names the field at fault. The samples are
records of that kind, in an invented market. No I/O: `infra/contracts/loading.py` loads the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec

from coordinator.streams.addresses import SAMPLE_PUBKEY
from coordinator.streams.checkpoints.offering import emission_for
from coordinator.streams.checkpoints.period_ranking import PERIOD_KEY
from coordinator.streams.contract import CrunchContract, NoScore, RankingDirection
from coordinator.streams.contract.blame import AUTHORS_ERRORS, described
from coordinator.streams.contract.checking.sample_rounds import (
    after,
    sample_ensembles,
    sample_round,
    scoring_field,
)
from coordinator.streams.contract.emission import FRAC64_ONE, emission_faults
from coordinator.streams.contract.trial_answers import answers_to_try, read_back, usual_answer
from coordinator.streams.log.errors import ContractError
from coordinator.streams.log.finite import not_finite, numbers_of, plain
from coordinator.streams.scores.ensemble_rules import NO_MEMBER
from coordinator.streams.scores.ensembles import Combined
from coordinator.streams.scores.round_scorer import Carried
from coordinator.streams.scores.units import to_float, to_units
from coordinator.streams.snapshots.summary import summaries

SAMPLE_PRICES = (20000.25, 20007.25, 20014.25, 20021.25, 20028.25)
ROUND_ANSWERS = 12
"""The greatest number of models that answer in a sample round."""
_MINUTE_MS = 60_000
_WINDOW_MINUTES_MAX = 1440


class Rehearsal:
    """Runs a contract's functions on sample data in order. Each step uses the results of the steps before it.

    A step raises ContractError with the field, and with the operator's line if the error came from there.
    """

    def __init__(self, contract: CrunchContract, kind: str = "candle") -> None:
        self.contract = contract
        self.kind = kind
        self.records: list[Any] = []
        self.truth: Any = None
        self.numbers: dict[str, Any] = {}
        self.summary_keys: list[str] | None = None
        self._scored: Any = None

    def steps(self) -> dict[str, Callable[[], str]]:
        """Field -> the step that tries it, in order. A step returns a few words about its result."""
        ensembles = {"ensembles": self._ensembles} if self.contract.ensembles else {}
        return {
            "build_input": self._input,
            "resolve_ground_truth": self._truth,
            scoring_field(self.contract): self._score if self.contract.score_round is None else self._round,
            **ensembles,
            "aggregate_snapshot": self._summary,
            "build_emission" if self.contract.payout is None else "payout": self._emission,
        }

    def _input(self) -> str:
        contract = self.contract
        self.records = sample_window(contract, self.kind)
        names, _ = self._built(self.records)
        summary = f"gives {', '.join(names) or 'nothing'}"
        if not contract.input_records_first:
            return summary
        prices = [SAMPLE_PRICES[i % len(SAMPLE_PRICES)] for i in range(contract.input_records_first)]
        _, size = self._built(sample_records(contract, self.kind, prices))
        return f"{summary}; a first tick of {contract.input_records_first:,} records has {size:,} bytes"

    def _built(self, records: list[Any]) -> tuple[list[str], int]:
        """(field names, size in bytes of JSON) of the input that is built from these records."""
        contract = self.contract
        built = _step("build_input", lambda: contract.build_input(records))
        checked = _step("input_type", lambda: contract.input_type.model_validate(plain(built)))
        fields = checked.model_dump(by_alias=True)
        _finite("build_input", fields)  # before encoding: in JSON a NaN would be null
        body = _step(
            "input_type", lambda: msgspec.json.encode(checked.model_dump(mode="json", by_alias=True))
        )
        return list(fields), len(body)

    def _truth(self) -> str:
        self.truth = truth_of(self.contract, self.records)
        if self.truth is None:
            message = "contract field resolve_ground_truth: gave None on a complete sample window"
            raise ContractError(message)
        several = isinstance(self.truth, dict)
        of_one = next(iter(self.truth.values())) if several else self.truth
        summary = f"gives {', '.join(of_one.model_dump(by_alias=True)) or 'nothing'}"
        return f"{summary}, of each of {', '.join(self.truth)}" if several else summary

    def _score(self) -> str:
        contract = self.contract
        usual = usual_answer(contract.output_type)
        usual_output = _step("output_type", lambda: contract.output_type.model_validate(usual))
        scored: Any = NoScore("not tried")
        for answer in [
            usual_output,
            *answers_to_try(contract.output_type),
        ]:  # more than one: the first may have no score by nobody's fault
            output = _step("output_type", partial(read_back, answer))
            scored = _step("score_prediction", partial(contract.score_prediction, output, self.truth))
            if not isinstance(scored, NoScore):
                break
        result = _step("score_type", lambda: contract.score_type.model_validate(plain(scored)))
        self.numbers = numbers_of(result.__dict__)
        value_field = contract.aggregation.value_field
        if value_field not in self.numbers:
            has = sorted(self.numbers)
            message = (
                f"contract field aggregation.value_field: score_type has no number {value_field!r}, has {has}"
            )
            raise ContractError(message)
        _step(
            "score_prediction",
            lambda: {name: to_units(value, contract.score_decimals) for name, value in self.numbers.items()},
        )
        # Only numbers are recorded, so `aggregate_snapshot` gets a score that has nothing else.
        self._scored = _step("score_type", lambda: contract.score_type.model_validate(self.numbers))
        return f"gives {', '.join(sorted(self.numbers))}"

    def _round(self) -> str:
        """Score two rounds of different answers and an absent model, the second with the state that the first left."""
        contract = self.contract
        answers = answers_to_try(contract.output_type)[:ROUND_ANSWERS] or [
            _step(
                "output_type", lambda: contract.output_type.model_validate(usual_answer(contract.output_type))
            )
        ]
        first = sample_round(contract, answers, self.truth)
        second = sample_round(contract, answers, self.truth, after(Carried(), first), number=1)
        for place, units in enumerate(first.units.get(contract.aggregation.value_field, [])):
            if units is not None:
                columns = {name: column[place] for name, column in first.units.items()}
                self.numbers = {
                    name: to_float(value_units, contract.score_decimals)
                    for name, value_units in columns.items()
                    if value_units is not None
                }
                break
        self._scored = _step("score_type", lambda: contract.score_type.model_validate(self.numbers))
        carries = len(first.states | second.states)
        state = f", and carries a state for {carries} of them" if carries else ""
        return f"gives {', '.join(sorted(self.numbers))} for {len(answers)} models in a round{state}"

    def _ensembles(self) -> str:
        """Combine sample answers that differ in every field.

        An ensemble without functions of the author is also tried on each pair of neighbouring answers.
        """
        contract = self.contract
        own = {
            ensemble.name
            for ensemble in contract.ensembles
            if any(map(callable, (ensemble.weights, ensemble.filter, ensemble.combine)))
        }
        for ensemble in contract.ensembles:
            if ensemble.error_field and ensemble.error_field not in self.numbers:
                message = (
                    f"contract field ensembles: {ensemble.name!r} has the error_field {ensemble.error_field!r}, which "
                    f"is none of score_type's numbers {sorted(self.numbers)}"
                )
                raise ContractError(message)
        answers = answers_to_try(contract.output_type)[:ROUND_ANSWERS]
        if not answers:
            return "not tried: give the output_type examples"
        combined_by_name: dict[str, Combined] = {}
        for some in (*map(list, pairwise(answers)), answers):
            combined_by_name = _step("ensembles", partial(sample_ensembles, contract, some))
            for name, combined in combined_by_name.items():
                alone = f"ensemble {name}: "
                if name in own and some is not answers:
                    continue
                if combined.reason and not combined.reason.startswith(f"{alone}{NO_MEMBER}"):
                    message = f"contract field ensembles: {name!r}: {combined.reason.removeprefix(alone)}"
                    raise ContractError(message)
        members = (
            f"{name} of {sum(1 for units in combined.weights if units)}"
            for name, combined in combined_by_name.items()
        )
        return f"{', '.join(members)} of {len(answers)} answers"

    def _summary(self) -> str:
        contract = self.contract
        summary = _step(
            "aggregate_snapshot", lambda: contract.aggregate_snapshot([self._scored, self._scored])
        )
        if not isinstance(summary, dict):
            message = f"contract field aggregate_snapshot: gave a {type(summary).__name__}, not a dict"
            raise ContractError(message)
        numbers = numbers_of(summary)
        _step(
            "aggregate_snapshot",
            lambda: [to_units(value, contract.score_decimals) for value in numbers.values()],
        )
        self.summary_keys = [*numbers, *self._metrics(numbers)]
        named = {PERIOD_KEY, *windows_and_boards(contract)}
        if double := sorted(named & {*self.numbers, *self.summary_keys}):
            message = (
                f"contract field aggregation: a name means two things: {double} name a window, a board or the period, "
                "and a score field or a summary key too"
            )
            raise ContractError(message)
        for field, (key, possible) in ranking_names(contract, self.summary_keys).items():
            if key not in possible:
                message = f"contract field aggregation.{field}: {key!r} is none of {possible}"
                raise ContractError(message)
        return f"gives {', '.join(self.summary_keys) or 'no number'}"

    def _metrics(self, summary: Mapping[str, Any]) -> list[str]:
        """The summary keys of the contract's metrics. Each metric is tried on two rounds of one model."""
        metrics = self.contract.aggregation.metrics
        if metrics is None:
            return []
        for field in (metrics.signal_field, metrics.outcome_field):
            if field not in self.numbers:
                has = ", ".join(sorted(self.numbers)) or "none"
                message = f"contract field aggregation.metrics: score_type has no number {field!r}, has {has}"
                raise ContractError(message)
        twice = sorted(summary.keys() & set(metrics.keys))
        if twice:
            message = f"contract field aggregation.metrics: aggregate_snapshot gives {twice} too"
            raise ContractError(message)
        units = {name: to_units(value, self.contract.score_decimals) for name, value in self.numbers.items()}
        rounds = [(at, f"in-{at}", "scope", units) for at in range(2)]
        error = summaries(self.contract, {"sample": rounds})["sample"].error
        if error:
            message = f"contract field aggregation.metrics: {error}"
            raise ContractError(message)
        return metrics.keys

    def _emission(self) -> str:
        contract = self.contract
        keys = sorted({*self.numbers, *windows_and_boards(contract), *(self.summary_keys or [])})
        for pool in contract.payout.pools if contract.payout else []:
            if pool.key and self.numbers and pool.key not in keys:
                message = f"contract field payout: pool {pool.name!r} ranks by {pool.key!r}, which is none of {keys}"
                raise ContractError(message)
        left = _check_emission(contract)
        retained = f", and {left:,} is retained" if left else ""
        return f"12 ranked models share exactly {FRAC64_ONE - left:,}{retained}"


def windows_and_boards(contract: CrunchContract) -> list[str]:
    """The names of the windows and the boards."""
    aggregation = contract.aggregation
    return [*(window.name for window in aggregation.windows), *(board.name for board in aggregation.boards)]


def ranking_names(contract: CrunchContract, summary_keys: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Field of the aggregation with a ranking key -> (the key, all possible keys).

    The live board has no checkpoint period, so it cannot rank by `period` or by a board over it.
    """
    aggregation = contract.aggregation
    named = windows_and_boards(contract)
    of_the_period = {board.name for board in aggregation.boards if board.window == PERIOD_KEY}
    live = [name for name in named if name not in of_the_period]
    return {
        "ranking_key": (aggregation.ranking_key, [*live, *summary_keys]),
        "checkpoint_key": (aggregation.checkpoint_key, [PERIOD_KEY, *named, *summary_keys]),
    }


def check_contract(contract: CrunchContract, *, kind: str = "candle") -> None:
    """Run every function of `contract` once. Raises ContractError that names the field and what is wrong."""
    for step in Rehearsal(contract, kind).steps().values():
        step()


def truth_of(contract: CrunchContract, records: Sequence[Any]) -> Any:
    """The ground truth of a window, typed as in the stages; None if there is none. Raises ContractError.

    If the first schedule asks several subjects together, the truth is by subject. Every second subject has the records
    in reverse order, so that the subjects differ.
    """
    schedules = contract.schedules()
    together = schedules[0].scope.together if schedules else ()
    if not together:
        return _truth_of(contract, records)
    truths = {
        subject: _truth_of(contract, _turned(records) if i % 2 else records)
        for i, subject in enumerate(together)
    }
    return None if None in truths.values() else truths


def _turned(records: Sequence[Any]) -> list[Any]:
    return [
        record.model_copy(update={"values": mirrored.values})
        for record, mirrored in zip(records, reversed(records), strict=True)
    ]


def _truth_of(contract: CrunchContract, records: Sequence[Any]) -> Any:
    truth = _step("resolve_ground_truth", lambda: contract.resolve_ground_truth(list(records)))
    if truth is None:
        return None
    typed = _step("ground_truth_type", lambda: contract.ground_truth_type.model_validate(plain(truth)))
    _finite("resolve_ground_truth", typed.model_dump(by_alias=True))
    recorded = typed.model_dump(mode="json", by_alias=True)
    return _step("ground_truth_type", lambda: contract.ground_truth_type.model_validate(recorded))


def sample_records(contract: CrunchContract, kind: str, prices: Sequence[float] = SAMPLE_PRICES) -> list[Any]:
    """Raw inputs of an invented market, a minute apart, with these prices. Raises ContractError."""
    return [
        _step("raw_input_type", partial(contract.raw_input_type.model_validate, _sample(kind, i, price)))
        for i, price in enumerate(prices)
    ]


def sample_window(contract: CrunchContract, kind: str, prices: Sequence[float] = SAMPLE_PRICES) -> list[Any]:
    """`sample_records` over the horizon of the first schedule, at most a day. Raises ContractError.

    For a longer horizon than `prices` has minutes, the prices are interpolated.
    """
    schedules = contract.schedules()
    seconds = (schedules[0].scope if schedules else contract.scope).horizon_seconds
    minutes, last = min(seconds // 60, _WINDOW_MINUTES_MAX), len(prices) - 1
    if minutes <= last:
        return sample_records(contract, kind, prices)
    course = [divmod(i * last, minutes) for i in range(minutes)]
    between = [prices[at] + (prices[at + 1] - prices[at]) * part / minutes for at, part in course]
    return sample_records(contract, kind, [*between, prices[last]])


def sample_entries(contract: CrunchContract) -> list[dict[str, Any]]:
    """Twelve ranked models, best first, as `build_emission` and the rules of `payout` get them."""
    pools = contract.payout.pools if contract.payout else []
    names = [contract.aggregation.value_field, *(pool.key for pool in pools if pool.key)]
    counts = {"prediction_count": 10_000, "failed_count": 0, "absent_count": 0, "rounds_count": 10_000}
    asc = contract.aggregation.ranking_direction == RankingDirection.ASC
    entries: list[dict[str, Any]] = []
    for i in range(12):
        key = (i + 1.0) if asc else 1.0 / (i + 1)
        keys = dict.fromkeys(names, key)
        who = {"model_id": f"model-{i}", "player": f"player-{i}", "rank": i + 1, "key": key}
        entries.append(keys | who | {"keys": keys, "counts": {}, "hours_here": 10_000.0} | counts)
    return entries


def _check_emission(contract: CrunchContract) -> int:
    """Build an emission of the sample entries and check it. Returns how much of 1,000,000,000 is retained."""
    entries = sample_entries(contract)
    pubkey = contract.crunch_pubkey or SAMPLE_PUBKEY
    field = "build_emission" if contract.payout is None else "payout"
    emission, payout = _step(field, lambda: emission_for(contract, entries, pubkey))
    left = payout.retained_frac64 if payout and payout.retained_is in ("withheld", "left") else 0
    faults = emission_faults(emission, len(entries), FRAC64_ONE - left)
    if faults:
        message = f"contract field {field}: {'; '.join(faults)}"
        raise ContractError(message)
    return left


def _step(field: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except AUTHORS_ERRORS as error:
        message = f"contract field {field}: {described(error)}"
        raise ContractError(message) from error


def _finite(field: str, value: Any) -> None:
    if bad := not_finite(value):
        message = f"contract field {field}: {bad} is not finite"
        raise ContractError(message)


def _sample(kind: str, i: int, price: float) -> dict[str, Any]:
    text = f"{price:.2f}"
    values = (
        {"open": "20000.00", "high": "40000.00", "low": "10000.00", "close": text, "volume": "1.5"}
        if kind == "candle"
        else {"price": text}
    )
    return {
        "source": "sample",
        "subject": "SAMPLE",
        "kind": kind,
        "granularity": "1m",
        "ts_event": i * _MINUTE_MS,
        "at": (i + 1) * _MINUTE_MS,
        "values": values,
    }
