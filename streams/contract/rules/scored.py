"""How an answer is scored, what absence costs, and what a newcomer has."""

from __future__ import annotations

from typing import Literal

from coordinator.streams.contract import CrunchContract, RankingDirection
from coordinator.streams.contract.absence import AbsenceConstant, AbsencePercentile
from coordinator.streams.contract.rules.text_parts import (
    Said,
    Section,
    Text,
    fields_table,
    percent,
    said_of,
    span,
)

_ABSENCE = {
    "ignore": (
        "It costs nothing: a round without an answer is not in your mean. If the rules require a share of the rounds, "
        "it counts as missed."
    ),
    "zero": "It counts as a score of 0.",
    "worst": "It counts as the worst score of the round.",
    "worst_percentile": "It counts as the 10th percentile of the round's scores, from the worse end.",
    "scored": "It counts as the number that the scoring function returns for a model without an answer.",
}
_OWN_FAULT = (
    "This is charged only if it was your model's own fault: it crashed, hung, was too slow, was stopped, or "
    "returned an "
    "invalid answer. If the node was late, or could not ask, this costs your model nothing."
)
_ANY_FAULT = "This number counts for any missing answer, even if the node was at fault."


def scored(contract: CrunchContract) -> Section:
    """The truth, the scoring, its numbers, and whose fault it is when there is no score."""
    better = "More" if contract.aggregation.ranking_direction is RankingDirection.DESC else "Less"
    blocks = _truth_blocks(contract)
    if contract.score_round is None:
        blocks += [
            Text("Each answer is scored alone, by this function:"),
            *said_of(contract.score_prediction),
        ]
    else:
        shared = "one subject and scope" if contract.state_scope == "scope" else "all subjects and scopes"
        blocks += [
            Text(
                "All answers of a round and scope are scored together, so your score may depend on the answers of "
                "others. "
                "They are scored by this function:"
            ),
            *said_of(contract.score_round),
            Text(
                "The scoring may remember a state of each model from round to round. The state is recorded, belongs to "
                f"{shared}, and has at most {contract.state_max_bytes:,} bytes as JSON."
            ),
        ]
    blocks += [
        Text(f"A score has the type `{contract.score_type.__name__}`. Its numbers:"),
        *fields_table(contract.score_type, numbers_only=True),
        Text(
            f"Each number is rounded once to {contract.score_decimals} decimals when it is recorded; sums of "
            f"them are exact. {better} is better. Models are ranked by numbers that are computed from the field "
            f"`{contract.aggregation.value_field}`."
        ),
        Text(
            "If the scoring fails on your answer, but scores another answer with the same truth, your model is at "
            "fault, "
            "and the answer has failed. If it scores no answer, the author of the contract is at fault, and it costs "
            "nobody anything."
        ),
    ]
    return Section("How you are scored", tuple(blocks))


def absent(contract: CrunchContract) -> Section:
    """What a missing answer counts as."""
    return Section(
        "If you do not answer",
        (
            Text(_absence(contract.absence_policy)),
            Text(_ANY_FAULT if contract.absence_policy == "scored" else _OWN_FAULT),
        ),
    )


def newcomers(contract: CrunchContract) -> Section:
    """The rounds before a model joined."""
    past = {
        "nothing": (
            "Your mean covers only your own scores. The rounds before you joined are not in your windows and not in "
            "your period."
        ),
        "worst": (
            "Each round before you joined counts as the worst score of that round, in your windows and in "
            "your period."
        ),
        "median": (
            "Each round before you joined counts as the median score of that round, in your windows and "
            "in your period."
        ),
    }
    excuse = (
        "For the first models of a new player, a round does not count as missed if it was asked both before the player "
        f"joined and before the period began. This excuses at most {percent(contract.newcomer_excuse_max)} of the "
        "period's rounds. A further model of a known player is not excused."
        if contract.newcomer_excuse_max
        else "Rounds before you joined count as missed."
    )
    return Section("If you are new", (Text(past[contract.newcomer_past]), Text(excuse)))


def _truth_blocks(contract: CrunchContract) -> list[Said]:
    """Where the truth comes from: the feed's records, the operator, or either of them."""
    blocks: list[Said] = []
    if contract.schedules():
        blocks += [
            Text(_truth(contract)),
            Text("The truth is computed by this function:"),
            *said_of(contract.resolve_ground_truth),
        ]
    if contract.questions is not None:
        blocks.append(
            Text(
                "The operator posts the truth of a question, or says in the question that it is computed from the "
                "feed. If a truth is corrected, the question is scored again. A void question counts for nobody."
            )
        )
    return [*blocks, Text(_truth_type(contract))]


def _truth(contract: CrunchContract) -> str:
    waits = (
        (
            f"If records are missing in between, the node waits for them for up to {span(contract.gap_wait_seconds)}. "
            "After that nobody is scored."
        )
        if contract.gap_policy == "wait"
        else "If records are missing in between, the truth is computed from the others."
    )
    return (
        "The truth is computed from the records between the time of the round and its horizon. It is the same for "
        "every "
        f"model. The node waits {span(contract.grace_seconds)} for the record at the horizon. {waits} Without a truth "
        "nobody is scored, and it costs nobody anything."
    )


def _truth_type(contract: CrunchContract) -> str:
    return f"The truth has the type `{contract.ground_truth_type.__name__}`."


def _absence(
    policy: Literal["ignore", "zero", "worst", "worst_percentile", "scored"]
    | AbsenceConstant
    | AbsencePercentile,
) -> str:
    match policy:
        case AbsenceConstant(value=value):
            return f"It counts as a score of {value:.15g}."
        case AbsencePercentile(percent=share):
            return f"It counts as the {share:.15g}th percentile of the round's scores, from the worse end."
        case _:
            return _ABSENCE[policy]
