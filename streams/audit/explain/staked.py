"""A model's stake in a posted question, and what it won or burned: the stake times the clipped score. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from coordinator.streams.audit.explain.steps import Placed, Step, fact
from coordinator.streams.contract.stake_payout import StakePayout
from coordinator.streams.events import InputClosed, StakesPosted


def stake_step(
    closed: Placed[InputClosed] | None, posted: Placed[StakesPosted] | None, model_id: str
) -> Step | None:
    """The model's stake when the question closed, of the table that was posted last; None without any table."""
    if closed is None or not (closed.event.data.stakes or posted is not None):
        return None
    taken = closed.event.data.stakes
    table: Mapping[str, str] = posted.event.data.stakes if posted is not None else {}
    return Step(
        name="stake",
        rule="The model's stake in the table that the operator posted last before the question closed; score_round "
        "gets the table as `stakes`",
        sources=[*([posted.source] if posted is not None else []), closed.source],
        result=[
            fact("stake", taken.get(model_id, "none")),
            fact("models_with_a_stake", len(taken)),
            fact("sum_of_stakes", f"{sum(map(Decimal, taken.values())):f}"),
        ],
        agrees=taken == table,
        note="" if taken == table else f"the table that was posted last has {table.get(model_id, 'none')}",
    )


def payout_steps(payouts: Sequence[StakePayout], model_id: str, *, agrees: bool | None) -> Iterator[Step]:
    """What the model's stake won or burned, as `stake_payout` computed it when the round was computed again.

    `agrees`: whether that round has the recorded scores and states, which the payout is a part of.
    """
    # Ensembles are scored beside the models by the same function, which then computes the same again.
    for paid in dict.fromkeys(payout for payout in payouts if payout.model_id == model_id):
        yield Step(
            name="stake payout",
            rule="factor * score, not below -clip and not above clip, times the stake at risk; below 0 it burns",
            inputs=[
                fact("stake_at_risk", paid.stake),
                fact("score", paid.score),
                fact("factor", paid.factor),
                fact("clip", paid.clip),
            ],
            result=[
                fact("product", paid.product),
                fact("clipped", paid.clipped),
                fact("payout", paid.payout),
            ],
            agrees=agrees,
        )
