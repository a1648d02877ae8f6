"""The checks of `coordinator contract check` beyond a dry run: can this contract be played?

Reads a contract and the settings of the node. Returns findings, each ok, a fault or unknown. Pure: the market is
invented. A contract that runs may still be no challenge: its score does not depend on the answer, its horizon ends
before the next record, or no feed delivers its subject. Without these checks an operator would notice it only after
days, from a board that makes no sense.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any

import msgspec

from coordinator.streams.addresses import SAMPLE_PUBKEY
from coordinator.streams.checkpoints.period_ranking import PERIOD_KEY
from coordinator.streams.contract import AbsenceConstant, CrunchContract, NoScore, RankingDirection
from coordinator.streams.contract.blame import AUTHORS_ERRORS, described
from coordinator.streams.contract.checking.check import Rehearsal, ranking_names
from coordinator.streams.contract.checking.posted_truths import posted_truths
from coordinator.streams.contract.checking.sample_rounds import (
    as_scored,
    is_posted,
    sample_round,
    scoring_field,
    values_of,
)
from coordinator.streams.contract.checking.samples import sample_window, truth_of
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.contract.trial_answers import answers_to_try, huge_answers, shown
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import ContractError, CoordinatorError
from coordinator.streams.log.finite import numbers_of, plain
from coordinator.streams.scores.units import NotRecordableError, to_units
from coordinator.streams.settings import Settings

MARKETS = {
    "a small rise": (20000.25, 20007.25, 20014.25, 20021.25, 20028.25),
    "a large rise": (20000.25, 20500.25, 21000.25, 22000.25, 24000.25),
    "a small fall": (20000.25, 19993.25, 19986.25, 19979.25, 19972.25),
    "a large fall": (20000.25, 19500.25, 19000.25, 18000.25, 16000.25),
    "a flat market": (20000.25,) * 5,
    "a rise that is lost again": (20000.25, 20800.25, 21000.25, 20300.25, 19999.25),
}
CALLED_WITH: dict[str, tuple[str, ...]] = {
    "build_input": ("feed_records",),
    "resolve_ground_truth": ("feed_records",),
    "score_prediction": ("prediction", "ground_truth"),
    "score_round": ("answers", "ground_truth", "context"),
    "aggregate_snapshot": ("score_results",),
    "build_emission": ("ranked_entries", "crunch_pubkey", "compute_provider", "data_provider"),
}


class State(StrEnum):
    """The result of a check. UNKNOWN: the check could not be made, and the finding says why."""

    OK = "ok"
    FAULT = "fault"
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True):
    """One check: its name, its result, and what was seen or what to change."""

    check: str
    state: State
    says: str


def examine(contract: CrunchContract, settings: Settings) -> list[Finding]:
    """Every finding about `contract` with these settings. An error that a contract's function raises is a finding."""
    rehearsal = Rehearsal(contract, settings.feed_kind)
    findings: list[Finding] = []
    steps = rehearsal.steps()
    for field, step in steps.items():
        findings.append(_looked_at(field, lambda field=field, step=step: _call(contract, field, step)))  # type: ignore[misc]
        if findings[-1].state is not State.OK:
            break
    reached = [finding.check for finding in findings if finding.state is State.OK]
    if scoring_field(contract) in reached:
        findings += _scoring(contract, settings.feed_kind)
    findings += [
        Finding(field, State.UNKNOWN, "not reached, since an earlier one has a fault")
        for field in steps
        if field not in {finding.check for finding in findings}
    ]
    findings.append(_judged("ranking", lambda: _ranking(contract, rehearsal)))
    findings.append(_looked_at("schedule", lambda: _schedule(contract, settings)))
    findings.append(_looked_at("subjects", lambda: _subjects(contract, settings)))
    findings.append(_looked_at("deadline", lambda: _deadline(contract)))
    findings.append(_looked_at("chain", lambda: _chain(contract)))
    return findings


def _looked_at(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, State.OK, look())
    except CoordinatorError as error:
        text = str(error).removeprefix("contract field ").removeprefix(f"{check}: ")
        return Finding(check, State.FAULT, text)


def _call(contract: CrunchContract, field: str, step: Callable[[], str]) -> str:
    if field not in CALLED_WITH:
        return step()
    function = getattr(contract, field)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ContractError(f"{field}: must be a plain function, not `async def` and without `yield`")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return step()  # a builtin without a signature: the call itself shows whether it fits
    try:
        signature.bind(*CALLED_WITH[field])
    except TypeError as error:
        wanted = ", ".join(CALLED_WITH[field])
        raise ContractError(f"{field}: is called with ({wanted}), but takes {signature}: {error}") from error
    return step()


# --- the score -----------------------------------------------------------------------------------------------


def _scoring(contract: CrunchContract, kind: str) -> Iterator[Finding]:
    try:
        truths = (
            posted_truths(contract)
            if is_posted(contract)
            else {
                name: truth
                for name, prices in MARKETS.items()
                if (truth := truth_of(contract, sample_window(contract, kind, prices))) is not None
            }
        )
    except ContractError as error:
        yield Finding("score varies", State.FAULT, str(error).removeprefix("contract field "))
        return
    answers = answers_to_try(contract.output_type)
    varies = _judged("score varies", lambda: _varies(contract, answers, truths))
    yield varies
    if varies.state is State.FAULT:
        yield Finding("score and size", State.UNKNOWN, "not reached, since an earlier one has a fault")
    else:
        yield _judged("score and size", lambda: _size(contract, truths))
    if contract.score_round is not None:
        yield _judged("score and place", lambda: _place(contract, answers, truths))


def _judged(check: str, look: Callable[[], tuple[State, str]]) -> Finding:
    try:
        state, says = look()
    except ContractError as error:
        return Finding(check, State.FAULT, str(error))
    return Finding(check, state, says)


def _varies(contract: CrunchContract, answers: Sequence[Any], truths: dict[str, Any]) -> tuple[State, str]:
    """A fault if the score does not depend on the answer, or does not depend on the outcome."""
    if len(answers) < 2 or len(truths) < 2:  # noqa: PLR2004 - one of a kind cannot vary
        return State.UNKNOWN, (
            f"not looked at: {len(answers)} different answers and {len(truths)} different ground truths could be made "
            f"for {contract.output_type.__name__} and {contract.ground_truth_type.__name__}"
        )
    if len({repr(truth) for truth in truths.values()}) == 1:
        return State.FAULT, "resolve_ground_truth gives the same for a rise, a fall and a flat market"
    field = scoring_field(contract)
    table = {name: _scores(contract, answers, truth, name) for name, truth in truths.items()}
    different = {score for row in table.values() for score in row}
    pairs = len(answers) * len(truths)
    by_outcome = len(different) > 1 and any(
        len(set(column)) > 1 for column in zip(*table.values(), strict=True)
    )
    if not by_outcome and contract.score_round is not None:
        states_left = [sample_round(contract, answers, truth).states for truth in truths.values()]
        if len({tuple(bytes(state) for state in states.values()) for states in states_left}) > 1:
            return State.UNKNOWN, (
                "not seen in one round: its scores are the same whatever happens, but the state that it leaves "
                "differs, and later rounds score by that"
            )
    if len(different) == 1:
        return State.FAULT, (
            f"{field} gives {different.pop():g} for each of {pairs} different pairs of answer and outcome: "
            "a stub?"
        )
    if all(len(set(row)) == 1 for row in table.values()):
        return (
            State.FAULT,
            f"{field} does not look at the answer: every answer to an outcome scores the same",
        )
    if all(len(set(column)) == 1 for column in zip(*table.values(), strict=True)):
        return (
            State.FAULT,
            f"{field} does not look at the outcome: an answer scores the same whatever happens",
        )
    return State.OK, (
        f"{len(different)} different scores for {pairs} pairs of answer and outcome, from {min(different):g} to "
        f"{max(different):g}"
    )


def _size(contract: CrunchContract, truths: dict[str, Any]) -> tuple[State, str]:
    """A fault if the score grows with the size of the answer without limit, or cannot be recorded."""
    ladder = huge_answers(contract.output_type)
    if not ladder:
        return State.OK, "the output type allows no number without bounds"
    sign = -1 if contract.aggregation.ranking_direction is RankingDirection.ASC else 1
    for name, truth in truths.items():
        for rungs in ladder:
            could = "could win by size or escape: "
            scores = [sign * score for score in _scores(contract, rungs, truth, name, could)]
            if all(small < large for small, large in pairwise(scores)):
                return State.FAULT, (
                    f"{scoring_field(contract)} rewards size: after {name} {shown(rungs[-1])} scores "
                    f"{sign * scores[-1]:g} and {shown(rungs[0])} {sign * scores[0]:g}; clip the answer"
                )
    return State.OK, "a huge answer scores no better for its size, and can be recorded"


def _place(contract: CrunchContract, answers: Sequence[Any], truths: dict[str, Any]) -> tuple[State, str]:
    """A fault if the scores of the same answers depend on their order: on the model's id or its place."""
    for name, truth in truths.items():
        forwards = _scores(contract, answers, truth, name)
        backwards = _scores(contract, answers[::-1], truth, name)[::-1]
        for answer, score, other in zip(answers, forwards, backwards, strict=True):
            if not math.isclose(score, other, rel_tol=1e-6, abs_tol=1e-6):
                return State.FAULT, (
                    f"score_round goes by a model's id or its place: after {name} {shown(answer)} scores {score:g}, "
                    f"and {other:g} when the models exchange their answers; break ties by what was answered"
                )
    return State.OK, "models that exchange their answers exchange their scores"


def _scores(
    contract: CrunchContract, answers: Sequence[Any], truth: Any, market: str, hint: str = ""
) -> list[float]:
    """The score of each answer; all are in one round if the contract scores rounds. Raises ContractError."""
    if contract.score_round is not None:
        return values_of(contract, answers, truth, f"after {market}: {hint}")
    return [_score(contract, answer, truth, market, hint) for answer in answers]


def _score(contract: CrunchContract, answer: Any, truth: Any, market: str, hint: str = "") -> float:
    """A score as it would be recorded; 0 for a `NoScore`.

    Raises ContractError that names the answer without a score.
    """
    about = f"score_prediction, for {shown(answer)} after {market}: {hint}"
    try:
        scored = contract.score_prediction(as_scored(contract, answer), truth)
        if isinstance(scored, NoScore):
            return 0.0
        result = contract.score_type.model_validate(plain(scored))
        value = float(numbers_of(result.__dict__)[contract.aggregation.value_field])
        to_units(value, contract.score_decimals)
    except NotRecordableError as error:
        raise ContractError(f"{about}{error}; clip the score, or lower score_decimals") from error
    except AUTHORS_ERRORS as error:
        raise ContractError(f"{about}{described(error)}") from error
    return value


# --- the schedule and the ranking -----------------------------------------------------------------------------


def _ranking(contract: CrunchContract, rehearsal: Rehearsal) -> tuple[State, str]:
    aggregation = contract.aggregation
    for field, (key, possible) in ranking_names(contract, rehearsal.summary_keys or ()).items():
        if key in possible:
            continue
        if rehearsal.summary_keys is None:
            return State.UNKNOWN, f"aggregate_snapshot did not tell whether there is {key!r}"
        if field == "ranking_key" and key in (PERIOD_KEY, *(board.name for board in aggregation.boards)):
            raise ContractError(
                f"aggregation.ranking_key {key!r} covers the checkpoint period, for which the live board has no "
                f"number; choose from {possible}"
            )
        raise ContractError(f"aggregation.{field} {key!r} is in no snapshot; choose from {possible}")
    absence = contract.absence_policy
    if (
        (absence == "zero" or (isinstance(absence, AbsenceConstant) and absence.value <= 0))
        and aggregation.ranking_direction is RankingDirection.ASC
        and aggregation.checkpoint_key not in (rehearsal.summary_keys or ())
    ):
        raise ContractError(
            f"absence_policy {absence!r}: less is better here, so a missing answer would get the best score; "
            "use 'worst_percentile', or 'ignore' with min_participation"
        )
    return State.OK, (
        f"the board by {aggregation.ranking_key}, the payment by {aggregation.checkpoint_key}, "
        f"{'more' if aggregation.ranking_direction is RankingDirection.DESC else 'less'} is better"
    )


def _schedule(contract: CrunchContract, settings: Settings) -> str:
    schedules = contract.schedules()
    if not schedules and contract.questions is not None:
        scopes = ", ".join(scope.scope_key for scope in contract.questions.scopes)
        return f"posted questions, in the scopes {scopes}"
    if not schedules:
        raise ContractError("scheduled_predictions: none is active, so the node would never ask anything")
    step_seconds = granularity_ms(settings.feed_granularity) / 1000
    for schedule in schedules:
        about = f"scheduled_predictions: scope {schedule.scope_key!r} has "
        record = f"a {settings.feed_granularity} {settings.feed_kind} ({step_seconds:g} s)"
        if schedule.scope.horizon_seconds < step_seconds:
            raise ContractError(
                f"{about}horizon_seconds {schedule.scope.horizon_seconds}, shorter than {record}: no record would end "
                "it, so there would be no ground truth"
            )
        if schedule.interval_seconds < step_seconds:
            raise ContractError(
                f"{about}interval_seconds {schedule.interval_seconds}, shorter than {record}: most of its points would "
                "be skipped, since no record opens them"
            )
    asked = ", ".join(
        f"{schedule.scope_key} every {schedule.interval_seconds} s ({schedule.scope.horizon_seconds} s ahead)"
        for schedule in schedules
    )
    return f"{asked}; the feed is {settings.feed_granularity}"


def _subjects(contract: CrunchContract, settings: Settings) -> str:
    """The checks that the node makes at its start: each scope has a feed, each window is a sum of snapshot periods."""
    terms = make_terms(contract, "", settings, 0)
    if not terms.scopes:
        return "asked about posted questions"
    wanted = sorted({scope.subject for scope in terms.scopes})
    asked = {subject for scope in terms.scopes for subject in scope.members}
    silent = [subject for subject in settings.feed_subjects if subject not in asked]
    return f"asked about {', '.join(wanted)}" + (f"; not about {', '.join(silent)}" if silent else "")


def _deadline(contract: CrunchContract) -> str:
    shortest = min((schedule.scope.horizon_seconds for schedule in contract.schedules()), default=0)
    if shortest and contract.deadline_seconds >= shortest:
        raise ContractError(
            f"deadline_seconds {contract.deadline_seconds:g} is not shorter than the horizon of {shortest} s: a "
            "model could answer when the outcome is already known"
        )
    if not shortest:
        return (
            f"an answer is waited for {contract.deadline_seconds:g} s, and not past the close of its question"
        )
    return f"{contract.deadline_seconds:g} s of the shortest horizon, {shortest} s, can be waited for"


def _chain(contract: CrunchContract) -> str:
    if contract.crunch_pubkey is None:
        return "crunch_pubkey is not set: every checkpoint will be withheld"
    if contract.crunch_pubkey == SAMPLE_PUBKEY:
        return "crunch_pubkey is the placeholder that belongs to nobody: replace it before anything is paid"
    return f"crunch_pubkey {contract.crunch_pubkey}"
