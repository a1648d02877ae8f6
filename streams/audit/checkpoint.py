"""Follows one checkpoint back to the feed it was made from: computes everything again, and names the first difference.

Reads the topics; yields what was checked, step by step, or raises ChainBrokenError with the step, the place and both
values. Pure. Each step is checked twice:

- The stage decides again what it recorded (`redo.py`). This finds everything that was altered, left out or inserted:
  grid, inputs, truths and missing truths, scores, charges, snapshots, ranking.
- Other code, without the state of a stage, computes truths from records, scores from answers, sums from scores and
  shares from the ranking (`scores.py`, `snapshots.py`, `sums.py`). So a fault of a stage does not confirm itself.

Whoever holds the topics can thus check what is paid. It does not find a fact from outside that was forged before it was
recorded (a feed record, a model's answer, the presence of a model), if every topic was then made from it honestly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from functools import partial
from typing import Any

from coordinator.streams.audit.ensembles import check_ensembles
from coordinator.streams.audit.facts import Chain, ChainBrokenError, broken
from coordinator.streams.audit.feed import check_records, check_stakes
from coordinator.streams.audit.redo import Redo, Scope, Topics
from coordinator.streams.audit.rosters import check_rosters
from coordinator.streams.audit.scores import check_feed, check_inputs, check_predictions, check_scores
from coordinator.streams.audit.sent_to_models import check_told
from coordinator.streams.audit.snapshots import check_snapshots
from coordinator.streams.audit.sums import check_checkpoint, check_emission
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import CheckpointData, CheckpointOpened
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log import ids
from coordinator.streams.log.stage import AnyStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage


async def check_log(
    topics: Topics, chain: Chain, checkpoint: CheckpointData, contracts: Contracts, crunch_id: str
) -> AsyncIterator[tuple[str, str]]:
    """(step, what was checked) for each step from the feed to the emission.

    Raises ChainBrokenError; OperatorError for a contract that is not available.
    """
    redone = _stages_again(topics, chain, contracts)
    async for result in _check(redone, topics, chain, checkpoint, contracts, crunch_id):
        yield result


async def check_whole_log(
    topics: Topics, chain: Chain, checkpoint: CheckpointData, contracts: Contracts, crunch_id: str
) -> AsyncIterator[tuple[str, str]]:
    """As `check_log`, after a step `past`: every other checkpoint of the log by the same steps, oldest first.

    `chain` is of the whole log, and the stages begin with its first decision, so nothing is taken on trust. One that
    was withheld and not offered since pays nothing: of its emission only the stage's decision is computed again.
    """
    redone = _stages_again(topics, chain, contracts, from_first=True)
    posted, corrected_later = chain.posted, chain.corrected_later
    offered = {event.data.checkpoint_id for event in chain.corrections if isinstance(event, CheckpointOpened)}
    others = [other for other in chain.checkpoints.values() if other is not checkpoint]
    for judged in (*others, checkpoint):
        chain.posted = [key for key in posted if _is_in(judged, chain.closed[key].resolvable_at)]
        chain.corrected_later = [data for data in corrected_later if _is_in(judged, data.resolvable_at)]
        if judged is checkpoint:
            count = f"{len(others)} other checkpoints" if others else "the log has no other checkpoint"
            first = (
                f", from {others[0].checkpoint_id} on, each from the feed to the emission" if others else ""
            )
            yield PAST, count + first + chain.roundings.since(0)
        steps = _check(redone, topics, chain, judged, contracts, crunch_id)
        try:
            async for step, result in steps:
                if judged is checkpoint:
                    yield step, result
                elif step == "checkpoint" and judged.checkpoint_id not in offered:
                    break
        except ChainBrokenError as error:
            if judged is not checkpoint:
                broken(error.step, f"of checkpoint {judged.checkpoint_id}: {error.reason}")
            raise


def _is_in(checkpoint: CheckpointData, at: int) -> bool:
    return checkpoint.period_start <= at < checkpoint.period_end


def _stages_again(
    topics: Topics, chain: Chain, contracts: Contracts, *, from_first: bool = False
) -> dict[str, Redo]:
    """Step -> the stage that makes its topic again, for one checkpoint or for one after the other."""
    stages: dict[str, AnyStage] = {
        "input": InputStage(contracts),
        "scores": ScoreStage(contracts, blobs=chain.blobs),
        "snapshots": SnapshotStage(contracts),
    }
    return {
        step: Redo(stage, topics, step, chain.roundings, chain.blobs.seen, from_first=from_first)
        for step, stage in stages.items()
    }


async def _check(
    redone: Mapping[str, Redo],
    topics: Topics,
    chain: Chain,
    checkpoint: CheckpointData,
    contracts: Contracts,
    crunch_id: str,
) -> AsyncIterator[tuple[str, str]]:
    stage = CheckpointStage(_opened_by(crunch_id, chain.copy_of, checkpoint), contracts)
    # Its own for each checkpoint: a copied log holds those of another crunch id too.
    redone = {
        **redone,
        "checkpoint": Redo(stage, topics, "checkpoint", chain.roundings, chain.blobs.seen),
    }
    scopes = scopes_of(checkpoint, {input_id for input_id, _ in chain.posted})
    for terms in chain.terms.events:
        contracts(terms.data.contract_hash)  # raises here: a missing contract is not a fault of the log
    steps = check_chain(chain, checkpoint, contracts)
    for step in STEPS:
        rounded_count = len(chain.roundings.places)
        try:
            decided = ""
            if step in redone:
                count = await redone[step].until(scopes[redone[step].stage.topic])
                decided = f"; {count} decisions computed again and equal"
            name, checked = next(steps)
        except ChainBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 - a log that was tampered with may make any fold raise: that is a finding
            broken(step, f"what is recorded cannot be computed again: {type(error).__name__}: {error}")
        yield name, checked + decided + chain.roundings.since(rounded_count)


def scopes_of(checkpoint: CheckpointData, posted: Collection[str]) -> dict[str, Scope]:
    """Topic -> which of its decisions belong to the period of a checkpoint.

    `posted`: the posted questions that were scored in it, which may be asked long before.
    """
    start, end = checkpoint.period_start, checkpoint.period_end
    builds = partial(_builds, checkpoint.checkpoint_id)
    return {
        "inputs": Scope(
            ("InputReceived", "InputResolved", "InputsUntil"),
            lambda event: (
                _reaches(event, start)
                or _asked_of(event) in posted
                or any(scope.resolvable_at >= start for scope in getattr(event.data, "scopes", ()))
            ),
            lambda event: getattr(event.data, "until", -1) >= end,
        ),
        "scores": Scope(
            ("RoundScored", "RoundRescored", "ScoredUntil"),
            lambda event: _reaches(event, start),
            lambda event: getattr(event.data, "until", -1) >= end,
        ),
        "snapshots": Scope(
            ("SnapshotTaken", "PeriodClosed"),
            lambda event: getattr(event.data, "period_end", -1) > start,
            lambda event: getattr(event.data, "until_ms", -1) >= end,
        ),
        "checkpoints": Scope(("CheckpointOpened", "CheckpointWithheld"), builds, builds),
    }


STEPS = ("feed", "input", "predictions", "scores", "snapshots", "checkpoint", "emission")
PAST = "past"


def check_chain(chain: Chain, checkpoint: CheckpointData, contracts: Contracts) -> Iterator[tuple[str, str]]:
    """The second check of each step, without the state of any stage. Raises ChainBrokenError."""
    rounds = chain.rounds(checkpoint.period_start, checkpoint.period_end)
    if not rounds and not chain.posted:
        broken("input", f"no input is resolvable in the period of {checkpoint.checkpoint_id}")
    records = check_records(chain, rounds)
    yield "feed", f"{records}; {check_feed(chain, rounds, contracts)}{check_stakes(chain)}"
    yield "input", check_inputs(chain, rounds, contracts)
    for input_id in dict.fromkeys(
        [*(data.input_id for data, *_ in rounds), *(name for name, _ in chain.posted)]
    ):
        if fault := chain.recorded_rounds.faults.get(input_id):
            broken("predictions", fault)
    asked = f"{check_rosters(chain, rounds)}; {check_predictions(chain, rounds)}"
    yield "predictions", asked + check_told(chain, rounds, contracts)
    scores = check_scores(chain, rounds, contracts) + check_ensembles(chain, rounds, contracts)
    # The stage scored the questions again, from all of their rounds; their sums are checked here as all others.
    yield "scores", scores + (f", {len(chain.posted)} scored questions" if chain.posted else "")
    yield "snapshots", check_snapshots(chain, rounds, checkpoint, contracts)
    yield "checkpoint", check_checkpoint(chain, checkpoint)
    yield "emission", check_emission(chain, checkpoint, contracts)


def _opened_by(crunch_id: str, copy_of: str, checkpoint: CheckpointData) -> str:
    """The crunch id of a checkpoint.

    A copy under another crunch id also holds the checkpoints of the original crunch.
    """
    of_original = ids.checkpoint_id(copy_of, checkpoint.period_start, checkpoint.period_end)
    return copy_of if copy_of and checkpoint.checkpoint_id == of_original else crunch_id


def _asked_of(event: Any) -> str:
    """The posted question that an input asks, by its id; "" if it asks none."""
    question = getattr(event.data, "question", None)
    return "" if question is None else str(question.input_id)


def _reaches(event: Any, start: int) -> bool:
    """Whether a truth or a score is of `start` (ms) or later, or the topic is complete for longer than until then."""
    return getattr(event.data, "resolvable_at", -1) >= start or getattr(event.data, "until", -1) > start


def _builds(checkpoint_id: str, event: Any) -> bool:
    data = getattr(event.data, "checkpoint", event.data)
    return bool(data.checkpoint_id == checkpoint_id)
