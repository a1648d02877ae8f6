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
from coordinator.streams.contract import CrunchContract, NoScore
from coordinator.streams.contract.checking.posted_truths import posted_truths
from coordinator.streams.contract.checking.sample_rounds import (
    after,
    as_scored,
    is_posted,
    sample_ensembles,
    sample_round,
    scoring_field,
)
from coordinator.streams.contract.checking.samples import (
    SAMPLE_PRICES,
    check_finite,
    run_step,
    sample_entries,
    sample_records,
    sample_window,
    truth_of,
)
from coordinator.streams.contract.emission import FRAC64_ONE, emission_faults
from coordinator.streams.contract.trial_answers import answers_to_try, usual_answer
from coordinator.streams.log.errors import ContractError
from coordinator.streams.log.finite import numbers_of, plain
from coordinator.streams.scores.carried import Carried
from coordinator.streams.scores.ensemble_rules import NO_MEMBER
from coordinator.streams.scores.ensembles import Combined
from coordinator.streams.scores.round_columns import RoundOutcome
from coordinator.streams.scores.scorer import NOBODY
from coordinator.streams.scores.units import to_float, to_units
from coordinator.streams.snapshots.summary import summaries

ROUND_ANSWERS = 12
"""The greatest number of models that answer in a sample round."""


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
        asked = {"build_input": self._input, "resolve_ground_truth": self._truth}
        if is_posted(self.contract):
            asked = {"ground_truth_type": self._posted_truth}
        return {
            **asked,
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
        built = run_step("build_input", lambda: contract.build_input(records))
        checked = run_step("input_type", lambda: contract.input_type.model_validate(plain(built)))
        fields = checked.model_dump(by_alias=True)
        check_finite("build_input", fields)  # before encoding: in JSON a NaN would be null
        body = run_step(
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

    def _posted_truth(self) -> str:
        self.truth, *_ = posted_truths(self.contract).values()
        return f"a truth is posted: {', '.join(self.truth.model_dump(by_alias=True)) or 'nothing'}"

    def _score(self) -> str:
        contract = self.contract
        usual = usual_answer(contract.output_type)
        usual_output = run_step("output_type", lambda: contract.output_type.model_validate(usual))
        scored: Any = NoScore("not tried")
        for answer in [
            usual_output,
            *answers_to_try(contract.output_type),
        ]:  # more than one: the first may have no score by nobody's fault
            output = run_step("output_type", partial(as_scored, contract, answer))
            scored = run_step("score_prediction", partial(contract.score_prediction, output, self.truth))
            if not isinstance(scored, NoScore):
                break
        result = run_step("score_type", lambda: contract.score_type.model_validate(plain(scored)))
        self.numbers = numbers_of(result.__dict__)
        value_field = contract.aggregation.value_field
        if value_field not in self.numbers:
            has = sorted(self.numbers)
            message = (
                f"contract field aggregation.value_field: score_type has no number {value_field!r}, has {has}"
            )
            raise ContractError(message)
        run_step(
            "score_prediction",
            lambda: {name: to_units(value, contract.score_decimals) for name, value in self.numbers.items()},
        )
        # Only numbers are recorded, so `aggregate_snapshot` gets a score that has nothing else.
        self._scored = run_step("score_type", lambda: contract.score_type.model_validate(self.numbers))
        return f"gives {', '.join(sorted(self.numbers))}"

    def _round(self) -> str:
        """Score two rounds of different answers and an absent model, the second with the state that the first left."""
        contract = self.contract
        answers = answers_to_try(contract.output_type)[:ROUND_ANSWERS] or [
            run_step(
                "output_type", lambda: contract.output_type.model_validate(usual_answer(contract.output_type))
            )
        ]
        first = sample_round(contract, answers, self.truth)
        second = sample_round(contract, answers, self.truth, after(Carried(), first), number=1)
        self.numbers = self._numbers_in(first) or self._numbers_in(second)
        unscored = ""
        faults = {
            fault
            for outcome in (first, second)
            for status, fault, _ in outcome.unscored.values()
            if status != "ABSENT"
        }
        if not self.numbers and faults == {NOBODY}:
            # Scores may need more rounds than are tried here, such as a mean over the last 200: their fields are known.
            unscored = "; nobody has a score yet in the two rounds that were tried"
            self.numbers = numbers_of(usual_answer(contract.score_type))
        self._scored = run_step("score_type", lambda: contract.score_type.model_validate(self.numbers))
        carries = len(first.states | second.states)
        state = f", and carries a state for {carries} of them" if carries else ""
        return (
            f"gives {', '.join(sorted(self.numbers))} for {len(answers)} models in a round{state}{unscored}"
        )

    def _numbers_in(self, outcome: RoundOutcome) -> dict[str, Any]:
        """The numbers of the first model that has a score; empty where nobody has."""
        values = outcome.units.get(self.contract.aggregation.value_field, [])
        place = next((place for place, units in enumerate(values) if units is not None), None)
        if place is None:
            return {}
        decimals = self.contract.score_decimals
        of_place = {name: column[place] for name, column in outcome.units.items()}
        return {name: to_float(units, decimals) for name, units in of_place.items() if units is not None}

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
            combined_by_name = run_step("ensembles", partial(sample_ensembles, contract, some))
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
        summary = run_step(
            "aggregate_snapshot", lambda: contract.aggregate_snapshot([self._scored, self._scored])
        )
        if not isinstance(summary, dict):
            message = f"contract field aggregate_snapshot: gave a {type(summary).__name__}, not a dict"
            raise ContractError(message)
        numbers = numbers_of(summary)
        run_step(
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


def _check_emission(contract: CrunchContract) -> int:
    """Build an emission of the sample entries and check it. Returns how much of 1,000,000,000 is retained."""
    entries = sample_entries(contract)
    pubkey = contract.crunch_pubkey or SAMPLE_PUBKEY
    field = "build_emission" if contract.payout is None else "payout"
    emission, payout = run_step(field, lambda: emission_for(contract, entries, pubkey))
    left = payout.retained_frac64 if payout and payout.retained_is in ("withheld", "left") else 0
    faults = emission_faults(emission, len(entries), FRAC64_ONE - left)
    if faults:
        message = f"contract field {field}: {'; '.join(faults)}"
        raise ContractError(message)
    return left
