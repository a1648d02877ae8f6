"""Runs a backtest: the node's own stages play a market of the past, and each model runs in a process of its own.

    result = run_backtest(Plan(entries, shelf, settings, base_classname), instants, work_dir)

All rules are those of a node: the grid, which records were known at which time, truths and gaps, absence, windows,
ranking, payout. Deadlines are measured and reported, but have no effect unless `deadlines` is set. There is no broker.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from coordinator.infra.models.host.model_folder import ModelEntry
from coordinator.streams.backtest.model_processes import ProcessLimits, ProcessModels
from coordinator.streams.backtest.outcome_sums import ModelSums, OutcomeSums
from coordinator.streams.backtest.recorded_market import JoinedModels, RecordedLog
from coordinator.streams.checkpoints.ranking import rank_snapshots
from coordinator.streams.contract import FRAC64_ONE, CrunchContract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Ending, Engine, Output, Recorded
from coordinator.streams.engine.engine import Tap
from coordinator.streams.events import Terms
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.stage import Draft
from coordinator.streams.ports import FeedRecord
from coordinator.streams.predictions.stage import BUDGET_SHARE
from coordinator.streams.settings import Settings

Instant = tuple[int, Sequence[FeedRecord]]
"""(at in ms, the records that became known then)"""
OnProgress = Callable[[int, int], None]
"""(rounds asked, time in ms)"""
PROGRESS_EVERY = 200
COLLECTED_EVERY = 25_000
"""How many more objects there must be before Python looks for cycles among them."""
TOLD = ("inputs", "predictions", "scores", "snapshots", "checkpoints")


class Plan(msgspec.Struct, frozen=True):
    """The models of a backtest, its rules, and how the models are asked."""

    entries: Sequence[ModelEntry]
    contract: CrunchContract
    contract_hash: str
    settings: Settings
    base_classname: str
    deadlines: bool = False
    log: RecordedLog | None = None
    """A log as the market: its models are ranked, too. `contract` is the log's, and the terms come with its feed."""


class ModelResult(msgspec.Struct, frozen=True):
    """The result of one model. Units are 10**-score_decimals, times are in microseconds."""

    model_id: str
    model_name: str
    """As its folder's owner calls it; its id if that is not known."""
    rank: int | None
    """Its rank by the contract's ranking key, at the end."""
    rank_units: int | None
    mean_units: float | None
    share: int
    """Its share in frac64, summed over all checkpoints and the running period."""
    of: ModelSums
    p50_us: int
    p95_us: int
    max_us: int
    late_count: int
    """How many rounds took longer than the node would have waited."""

    @property
    def label(self) -> str:
        """How a reader finds it: its name, with the id where that is another."""
        named_by_folder = self.model_name == self.model_id.replace(
            "_", "-"
        )  # as a folder without an entry is
        return self.model_id if named_by_folder else f"{self.model_name} ({self.model_id})"


class Result(msgspec.Struct, frozen=True):
    """The result of a backtest. `models` are in the order of the board, those without a number last."""

    models: list[ModelResult]
    rounds: int
    first_point: int
    last_point: int
    checkpoints: int
    ending: Ending | None
    ranking_key: str
    score_decimals: int
    direction: str

    @property
    def until(self) -> int:
        """The end of the played market, in ms."""
        return self.ending.until if self.ending else self.last_point

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the board's columns, without the times of the models."""
        return ("rank", "model", self.ranking_key, "mean", "scored", "failed", "absent", "share")

    def cells(self, line: ModelResult) -> tuple[str, ...]:
        """A model's row of the board as text, one cell for each of `columns`.

        The share is the mean over all checkpoints that pay anybody, including the running one.
        """
        unit = 10**self.score_decimals
        paid = self.checkpoints + bool(self.ending and self.ending.checkpoint)
        return (
            "" if line.rank is None else str(line.rank),
            line.label,
            "" if line.rank_units is None else f"{line.rank_units / unit:.6f}",
            "" if line.mean_units is None else f"{line.mean_units / unit:.6f}",
            f"{line.of.scored:,}",
            f"{line.of.failed:,}",
            f"{line.of.absent:,}",
            f"{line.share / FRAC64_ONE / max(1, paid):.2%}",
        )


def run_backtest(
    plan: Plan,
    instants: Iterable[Instant | Draft],
    work_dir: Path,
    on_progress: OnProgress = lambda _rounds, _at: None,
    on_decision: Callable[[Decision], None] = lambda _decision: None,
) -> Result:
    """Run a backtest. `on_decision` is called with every counted decision of TOLD, topic by topic for each instant.

    `instants` are in order of time. Raises OperatorError if a model cannot be constructed, if the terms are not
    possible, or if there is no instant; and what `instants` raises.
    """
    blobs = None if plan.log is None else plan.log.blobs
    models = ProcessModels(
        plan.entries, plan.base_classname, work_dir, limits=ProcessLimits(plan.deadlines), blobs=blobs
    )
    terms = (
        make_terms(plan.contract, plan.contract_hash, plan.settings, 0)
        if plan.log is None
        else plan.log.terms
    )
    gathered = OutcomeSums(terms.value_field)
    engine = Engine(
        (lambda _: plan.contract) if plan.log is None else plan.log.contracts,
        models if plan.log is None else JoinedModels(plan.log.answers, models),
        crunch_id=plan.settings.crunch_id if plan.log is None else plan.log.crunch_id,
        output=Output(
            {topic: _both(gathered.taps.get(topic), on_decision) for topic in TOLD}, keeps_log=False
        ),
        recorded=Recorded(blobs=blobs),
    )
    try:
        models.start()
        if plan.log is None:
            engine.configure(terms)
        with _seldom_collected():
            for number, instant in enumerate(instants):
                if isinstance(instant, Draft):
                    engine.tell(instant)
                else:
                    engine.feed(*instant)
                if number % PROGRESS_EVERY == 0:
                    on_progress(gathered.rounds, engine.feeds.own.clock)
            engine.settle()
    finally:
        models.close()
    if engine.feeds.own.clock < 0:
        raise OperatorError(
            f"there is no record of {', '.join(plan.settings.feed_subjects)} in the market, or in the "
            "given time: nothing was played"
        )
    on_progress(gathered.rounds, engine.feeds.own.clock)
    ending = engine.end_now() if any(model.hours for model in gathered.models.values()) else None
    return _result(plan, terms, models, gathered, ending)


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Look for cycles of garbage seldom, and not among what was there before: 4.5 % of a run's time went into it.

    A round leaves no cycles, so the memory of a run is as flat as before.
    """
    thresholds, is_frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    if not is_frozen:
        gc.freeze()
    gc.set_threshold(COLLECTED_EVERY, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not is_frozen:
            gc.unfreeze()


def _both(first: Tap | None, second: Tap) -> Tap:
    if first is None:
        return second

    def tap(decision: Decision) -> None:
        first(decision)
        second(decision)

    return tap


def _result(
    plan: Plan, terms: Terms, models: ProcessModels, gathered: OutcomeSums, ending: Ending | None
) -> Result:
    aggregation = plan.contract.aggregation
    key, direction = aggregation.ranking_key, aggregation.ranking_direction.value
    ranked, _ = rank_snapshots(ending.snapshots if ending else (), terms)
    model_names = {entry.model_id: entry.model_name for entry in plan.entries}
    names = {entry.model_id for entry in plan.entries} | gathered.models.keys()
    unranked = sorted(names.difference(model_id for _, model_id, _ in ranked))
    shares = _shares(gathered, ending)
    budget_us = round(BUDGET_SHARE * plan.contract.deadline_seconds * 1e6)
    lines = []
    for place, name, units in [*ranked, *((None, name, None) for name in unranked)]:
        sums, times = gathered.models[name], sorted(models.times.get(name, ()))
        total, n = sums.total
        lines.append(
            ModelResult(
                name,
                model_names.get(name) or name,
                place,
                units,
                total / n if n else None,
                shares.get(name, 0),
                sums,
                p50_us=_percentile(times, 50),
                p95_us=_percentile(times, 95),
                max_us=_percentile(times, 100),
                late_count=sum(time_us > budget_us for time_us in times),
            )
        )
    return Result(
        lines,
        gathered.rounds,
        gathered.first_point,
        gathered.last_point,
        len(gathered.checkpoints),
        ending,
        key,
        plan.contract.score_decimals,
        direction,
    )


def _percentile(times: Sequence[int], percent: int) -> int:
    return times[min(len(times) * percent // 100, len(times) - 1)] if times else 0


def _shares(gathered: OutcomeSums, ending: Ending | None) -> dict[str, int]:
    """Model -> its frac64, summed over all checkpoints and the running period."""
    running = [ending.checkpoint] if ending and ending.checkpoint else []
    shares: dict[str, int] = {}
    for data in [*gathered.checkpoints, *running]:
        for reward in data.emission["cruncher_rewards"]:
            model_id = data.ranking[reward["cruncher_index"]].model_id
            shares[model_id] = shares.get(model_id, 0) + reward["reward_pct"]
    return shares
