"""The board, who is ranked, and how a ranking is paid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any

from coordinator.streams.contract import (
    CrunchContract,
    Ensemble,
    MinScore,
    Payout,
    Pool,
    RankingDirection,
    TopN,
    tiers,
)
from coordinator.streams.contract.aggregation import AggregationWindow, Ewma
from coordinator.streams.contract.emission import FRAC64_ONE, tier_shares
from coordinator.streams.contract.payout import Taker
from coordinator.streams.contract.rules.text_parts import (
    Rows,
    Said,
    Section,
    Text,
    listed,
    percent,
    plural,
    said_of,
    span,
)

RANKS_SHOWN = 10
_RULES = {"mean": "the mean", "sum": "the sum", "latest": "the latest value"}


def board(contract: CrunchContract) -> Section:
    """The windows, the boards, the summary, and by which of them the live board ranks."""
    aggregation = contract.aggregation
    blocks: list[Said] = [
        Text(
            f"The live board ranks by `{aggregation.ranking_key}`. Equal numbers have the same rank, and the "
            "next rank is left out: 1, 1, 3."
        ),
        Rows(
            ("number", "computed from your scores as"),
            tuple(
                (f"`{scores_window.name}`", window(scores_window)) for scores_window in aggregation.windows
            ),
        ),
    ]
    if aggregation.boards:
        rows = tuple((f"`{leaderboard.name}`", _board(leaderboard)) for leaderboard in aggregation.boards)
        blocks.append(Rows(("board", "computed from your scores as"), rows))
    blocks += [
        Text("At the end of each snapshot period this function summarizes your scores of that period:"),
        *said_of(contract.aggregate_snapshot),
    ]
    if aggregation.metrics is not None:
        metrics = aggregation.metrics
        blocks.append(
            Text(
                (
                    f"The summary also has {listed(metrics.keys)}, computed from the fields "
                    f"`{metrics.signal_field}` and "
                    f"`{metrics.outcome_field}`"
                )
                + (f", with the weights of the ensemble `{metrics.ensemble}`" if metrics.ensemble else "")
                + f". Metrics that need pieces of the period cut it into {metrics.chunks}."
            )
        )
        for function in metrics.own.values():
            blocks += said_of(function)
    if contract.ensembles:
        blocks.append(
            Text(
                "The board also shows ensembles. An ensemble combines the answers of models, and is scored like a "
                "model. It "
                "has no rank, is never paid, and changes nobody's score."
            )
        )
        for ensemble in contract.ensembles:
            blocks += _ensemble(ensemble)
    return Section("The board", tuple(blocks))


def ranked(contract: CrunchContract) -> Section:
    """Who has a rank and who is paid at all."""
    blocks = [
        Text(
            "A model without the number that is ranked has no rank and is not paid. The same is true for a model "
            "without "
            "a score."
        )
    ]
    if contract.coverage is not None:
        trail = contract.coverage
        over = (
            f"the last {span(trail.hours * 3600)}"
            if trail.hours
            else f"the newest periods with {trail.rounds:,} rounds"
        )
        blocks.append(
            Text(
                f"You need a score in at least {percent(trail.share)} of the rounds of {over}. With fewer, the board "
                "shows your model without a rank and with that reason, and the model is not paid."
            )
        )
    blocks.append(
        Text(
            f"You need a score in at least {percent(contract.min_participation)} of all rounds of the period "
            "to be paid. Rounds that failed by the node's fault count for nobody."
            if contract.min_participation
            else "You need not take part in a minimum share of the period's rounds."
        )
    )
    return Section("When you are ranked", tuple(blocks))


def paid(contract: CrunchContract, every: str) -> Section:
    """Periods, the number that is paid by, the shares, and who pays whom. `every`: the periods in words."""
    aggregation = contract.aggregation
    key = (
        "your mean over the whole period"
        if aggregation.checkpoint_key == "period"
        else f"`{aggregation.checkpoint_key}` at the end of the period"
    )
    better = "more" if aggregation.ranking_direction is RankingDirection.DESC else "less"
    blocks: list[Said] = [
        Text(f"{every} At the end of each, models are ranked by {key}; {better} is better.")
    ]
    if contract.payout is None:
        blocks += [
            *strategy(contract.build_emission),
            Text(
                "Models of the same rank get the same share. If one billionth is left over, the model with the "
                "earlier id "
                "gets it. Shares are whole billionths that sum to exactly 1,000,000,000."
            ),
        ]
    else:
        blocks += _pools(contract.payout)
    others = [
        f"{who} gets a separate pool, at the address `{address}`."
        for who, address in (
            ("The provider who runs the models", contract.compute_provider),
            ("The provider of the data", contract.data_provider),
        )
        if address
    ]
    where = (
        f"The crunch's address on chain is `{contract.crunch_pubkey}`."
        if contract.crunch_pubkey
        else "The crunch has no address on chain yet, so every checkpoint is withheld."
    )
    blocks.append(Text(" ".join([where, *others])))
    return Section("How you are paid", tuple(blocks))


def strategy(function: Callable[..., Any]) -> list[Said]:
    """How a built-in strategy or rule divides, with its arguments; the source of one of the author."""
    if function is tiers:
        return [Text(_tiers())]
    if not isinstance(function, partial):
        return said_of(function)
    name, keywords = function.func.__name__.lstrip("_"), dict(function.keywords)
    inner = next((value for value in keywords.values() if callable(value)), None)
    plain = {word: value for word, value in keywords.items() if not callable(value) and value is not None}
    arguments = f" with {', '.join(f'{word} = {value}' for word, value in plain.items())}" if plain else ""
    blocks: list[Said] = [Text(f"Shares by `{name}`{arguments}: {_MEANING.get(name, '')}".rstrip(": ") + ".")]
    return blocks if inner is None else [*blocks, *strategy(inner)]


def _tiers() -> str:
    shares = [share / FRAC64_ONE for share in tier_shares(list(range(1, RANKS_SHOWN + 1)))]
    parts, place = [], 1
    for share, alike in groupby(shares):
        last = place + len(list(alike)) - 1
        parts.append(
            f"rank {place}: {percent(share)}"
            if last == place
            else f"rank {place} to {last}: {percent(share)} each"
        )
        place = last + 1
    return (
        f"Tiers. With {RANKS_SHOWN} models ranked: {'; '.join(parts)}. Shares that no rank gets are divided "
        "equally among all ranked models. Models of the same rank divide the shares of their places."
    )


_MEANING = {
    "proportional": (
        "in proportion to how much better than `above` your number is. A model that is not better gets "
        "nothing; if no model is better, the period is paid by tiers"
    ),
    "softmax": "in proportion to exp(beta * number), or exp(-beta * number) where less is better",
    "by_weights": "in proportion to the weights that this function returns",
    "floored": "a share below `share_min` of the pool goes to the others. The shares are computed as follows",
    "top": (
        "the first `places` divide the pool by the weights exp(alpha / place); tied models divide their places equally"
    ),
    "in_proportion": (
        "in proportion to the distance from the baseline to the power `power`, for models that are better than it"
    ),
    "by_percentile": "in proportion to (2 * (percentile - 1/2)) to the power `power`, for the better half",
    "by_softmax": "in proportion to exp(beta * number), or exp(-beta * number) where less is better",
}
"""Name of a built-in strategy or rule -> what it does. Exactly: `strategies.py` and `payout_rules.py`."""


def window(scores_window: AggregationWindow) -> str:
    """What a window's number is."""
    if scores_window.combines:
        parts = ", ".join(f"`{name}` ({weight:.15g})" for name, weight in scores_window.combines.items())
        return f"the weighted mean of {parts}; a model without one of them has no number"
    if isinstance(scores_window.rule, Ewma):
        what = f"a mean in which each new score weighs {scores_window.rule.alpha:.15g}, and the mean before it the rest"
    else:
        what = _RULES[scores_window.rule]
    of = f" of the last {plural(scores_window.last, 'score')}" if scores_window.last else ""
    within = f" within {span(scores_window.hours * 3600)}" if scores_window.hours else ""
    least = (
        f"; a model with fewer than {plural(scores_window.least, 'score')} has no number"
        if scores_window.least
        else ""
    )
    return f"{what}{of}{within}{least}"


def _ensemble(ensemble: Ensemble) -> list[Said]:
    match ensemble.filter:
        case TopN(n=n):
            who = f"the {n} with the best mean score"
        case MinScore(value=value):
            who = f"the models whose mean score is at least as good as {value:.15g}"
        case None:
            who = "all models that answered"
        case _:
            who = "the models that its filter chooses"
    weights = {
        "equal": "with equal weights",
        "inverse_variance": f"weighted by 1 / mean of `{ensemble.error_field}` squared",
    }
    how = "with its own weights" if callable(ensemble.weights) else weights[ensemble.weights]
    back = f", looking back {span(ensemble.hours * 3600)}" if ensemble.looks_back else ""
    error = f" The error of an answer is `{ensemble.error_field}`." if ensemble.error_field else ""
    functions = [part for part in (ensemble.filter, ensemble.weights, ensemble.combine) if callable(part)]
    return [
        Text(f"`{ensemble.name}`: {who}, {how}{back}.{error}"),
        *(block for part in functions for block in said_of(part)),
    ]


def _board(leaderboard: Any) -> str:
    of = [
        *([f"of {listed(leaderboard.subjects)}"] if leaderboard.subjects else []),
        *([f"with the horizon {span(leaderboard.horizon_seconds)}"] if leaderboard.horizon_seconds else []),
        *([f"in {listed(leaderboard.scope_keys)}"] if leaderboard.scope_keys else []),
    ]
    weights = ", ".join(f"`{name}` weighs {weight:.15g}" for name, weight in leaderboard.weights.items())
    whose = "the mean of the scopes' means" if leaderboard.weigh == "scopes" else "the mean of all scores"
    when = (
        "of the checkpoint period"
        if leaderboard.window == "period"
        else f"of the window `{leaderboard.window}`"
    )
    needs = (
        "you need a score in each of them"
        if leaderboard.every_scope
        else "scopes without a score of yours are left out"
    )
    return "; ".join(filter(None, [f"{whose} {' '.join(of) or 'of all scopes'}, {when}", weights, needs]))


def _pools(payout: Payout) -> list[Said]:
    whole = sum(pool.weight for pool in payout.pools)
    blocks: list[Said] = []
    for pool in payout.pools:
        blocks += [Text(_pool(pool, whole, len(payout.pools))), *strategy(pool.rule)]
        if pool.eligible is not None:
            blocks += [
                Text("A model is paid in this pool only if this function returns no reason against it:"),
                *said_of(pool.eligible),
            ]
    passed = {
        "passed_on": "If a model may not be paid, the next model gets its place.",
        "kept": "If a model may not be paid, its place stays empty, and nobody gets its share.",
    }
    conditions = [
        "In each pool only the best model of a player is paid."
        if payout.best_model_only
        else "Several models of one player can be paid.",
        f"{listed(payout.benchmarks)} are benchmarks: they are ranked and never paid."
        if payout.benchmarks
        else "",
        "Only models that are better than the best benchmark of the pool are paid."
        if payout.beat_benchmark
        else "",
        f"A player is paid in periods that end at least {span(payout.warm_up_hours * 3600)} after its first round."
        if payout.warm_up_hours
        else "",
        passed[payout.unpaid_places],
        _retained(payout),
    ]
    return [*blocks, Text(" ".join(filter(None, conditions)))]


def _pool(pool: Pool, whole: float, count: int) -> str:
    share = "the whole payout" if count == 1 else f"{percent(pool.weight / whole)} of the payout"
    key = f"`{pool.key}`" if pool.key else "the number of the checkpoint"
    above = f" Only models that are better than {pool.above:.15g} are paid." if pool.above is not None else ""
    least = (
        f" Only models with at least {plural(pool.least_count, 'score')} are paid."
        if pool.least_count
        else ""
    )
    return f"Pool `{pool.name}`, {share}, ranks by {key}.{above}{least}"


def _retained(payout: Payout) -> str:
    if isinstance(payout.retained, Taker):
        return f"On chain, `{payout.retained.model_id}` gets what these rules do not pay."
    return {
        "withhold": "If these rules do not pay everything, the checkpoint is withheld with that reason.",
        "share_out": "The paid models also get what these rules do not pay, in proportion.",
        "prizes_only": (
            "Nobody gets what these rules do not pay. Such a checkpoint is paid by prizes, not by shares on chain."
        ),
    }[payout.retained]
