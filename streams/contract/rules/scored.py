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
        "It costs nothing: a round without an answer is not in your mean. It counts as missed where a "
        "share of the rounds is asked for."
    ),
    "zero": "It counts as a score of 0.",
    "worst": "It counts as the worst score of the round.",
    "worst_percentile": "It counts as the 10th percentile of the round's scores, from the worse end.",
    "scored": "It counts as the number that the scoring gives to who did not answer, whoever's fault it was.",
}


def scored(contract: CrunchContract) -> Section:
    """The truth, the scoring, its numbers, and whose fault it is when there is no score."""
    better = "More" if contract.aggregation.ranking_direction is RankingDirection.DESC else "Less"
    blocks: list[Said] = [
        Text(_truth(contract)),
        Text("The truth is made by this:"),
        *said_of(contract.resolve_ground_truth),
        Text(_truth_type(contract)),
    ]
    if contract.score_round is None:
        blocks += [Text("Each answer is scored alone, by this:"), *said_of(contract.score_prediction)]
    else:
        shared = "one subject and scope" if contract.state_scope == "scope" else "all subjects and scopes"
        blocks += [
            Text(
                "All answers of a round and scope are scored together, so your score may depend on the others' "
                "answers. It is done by this:"
            ),
            *said_of(contract.score_round),
            Text(
                f"What the scoring remembers of a model from round to round is recorded, belongs to {shared}, "
                "and has at most "
                f"{contract.state_max_bytes:,} bytes as JSON."
            ),
        ]
    blocks += [
        Text(f"A score is of the type `{contract.score_type.__name__}`. Its numbers:"),
        *fields_table(contract.score_type, numbers_only=True),
        Text(
            f"Each number is rounded once to {contract.score_decimals} decimals when it is recorded; sums of "
            "them are exact. "
            f"{better} is better. What is ranked is made of the field `{contract.aggregation.value_field}`."
        ),
        Text(
            "If the scoring fails on your answer and scores another one by the same truth, that is your "
            "model's fault: the answer has "
            "failed. If it scores none, it is the author's fault, and costs nobody."
        ),
    ]
    return Section("How you are scored", tuple(blocks))


def absent(contract: CrunchContract) -> Section:
    """What a missing answer counts as."""
    return Section(
        "If you do not answer",
        (
            Text(_absence(contract.absence_policy)),
            Text(
                "It is charged only where it was your model's own fault: it crashed, hung, was too slow, was "
                "stopped, or answered "
                "what is no answer. What the node was late for or could not ask costs no model anything."
            ),
        ),
    )


def newcomers(contract: CrunchContract) -> Section:
    """The rounds before a model joined."""
    past = {
        "nothing": (
            "Your mean is that of your own scores: the rounds before you joined are in no window and in "
            "no period of yours."
        ),
        "worst": (
            "Each round before you joined counts as the worst score of that round, in the windows and in "
            "the period."
        ),
        "median": (
            "Each round before you joined counts as the median score of that round, in the windows and "
            "in the period."
        ),
    }
    excuse = (
        "Of a player's first models, rounds do not count as missed that were asked both before the player "
        "joined and before the "
        f"period began; at most {percent(contract.newcomer_excuse_max)} of the period's rounds. A further "
        "model of a known player is "
        "excused from none."
        if contract.newcomer_excuse_max
        else "No round of the period is excused because you joined late."
    )
    return Section("If you are new", (Text(past[contract.newcomer_past]), Text(excuse)))


def _truth(contract: CrunchContract) -> str:
    waits = (
        (
            f"If records are missing in between, the node waits for them up to {span(contract.gap_wait_seconds)}; "
            "then nobody is scored."
        )
        if contract.gap_policy == "wait"
        else "If records are missing in between, the truth is made of those that are there."
    )
    return (
        "What happened is computed from the records from the point of the round to its horizon, the same for "
        "every model. The node "
        f"waits {span(contract.grace_seconds)} for the record that closes the horizon. {waits} Without a truth "
        "nobody is scored, and it "
        "costs nobody."
    )


def _truth_type(contract: CrunchContract) -> str:
    return f"The truth is of the type `{contract.ground_truth_type.__name__}`."


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
