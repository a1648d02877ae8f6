"""A node in memory that plays an oracle's case with the product's own judging, scoring, snapshots, ranking and payout.

    node = Node(contract, subjects=["BTC"])
    node.round(records, {"60s": {"m1": {"value": 0.4}, "m2": ABSENT}})
    data = node.close()

Its input is what a case states: the answers of a round, the models without an answer, and the records that make the
truth. The stages are driven through the bytes of the log, as in their own tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from tests.given import given
from tests.oracles.reading import is_finite_number
from tests.streams.asked import all_answered, asked, closed
from tests.streams.build import HASH, MINUTE, PUBKEY, T0, received, shelf

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.ranking import rank
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract, PredictionScope, RawInput, ScheduledPrediction
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.inputs.ground_truth import truth_of_window
from coordinator.streams.log import ids
from coordinator.streams.ports import ModelReply, Outcome
from coordinator.streams.predictions.replies import judge
from coordinator.streams.predictions.stage import in_events
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage

HOUR_SECONDS, DAY_SECONDS = 3600, 86_400
CRUNCH = "oracle"
NOBODY: Mapping[str, ModelReply] = {}
NO_STAKES: Mapping[str, float] = {}


def ticks(
    prices: Sequence[Sequence[Any]], subject: str = "BTCUSDT", **values: Sequence[float]
) -> list[RawInput]:
    """Raw inputs of [time in s, price], with more values by name. A price that is not a finite number is left out."""
    return [
        RawInput(
            source="oracle",
            subject=subject,
            kind="tick",
            granularity="1s",
            ts_event=round(time * 1000),
            at=round(time * 1000),
            values=({"price": price} if is_finite_number(price) else {})
            | {name: column[i] for name, column in values.items()},
        )
        for i, (time, price) in enumerate(prices)
    ]


def asked_at_once(contract: CrunchContract, *scope_keys: str) -> CrunchContract:
    """The contract with these scopes alone, each resolved after a second, since the case itself sets all times."""
    scope = PredictionScope(horizon_seconds=1)
    scopes = [ScheduledPrediction(scope_key=scope_key, scope=scope) for scope_key in scope_keys]
    return contract.model_copy(update={"scheduled_predictions": scopes, "crunch_pubkey": PUBKEY})


def missing(failure: str, fault: str) -> ModelReply:
    """No answer: `failure` is absent or failed, `fault` says whose fault it is."""
    outcome = Outcome.DEADLINE if failure == "absent" else Outcome.MODEL_FAILED
    return ModelReply("", "", outcome, fault, detail=failure)  # type: ignore[arg-type]


def period_around(first_s: int, last_s: int, days_least: int = 1) -> dict[str, int]:
    """Hours and end (ms) of a period of whole days, counted from the epoch, that holds both times."""
    for days in itertools.count(days_least):
        seconds = days * DAY_SECONDS
        if first_s // seconds == last_s // seconds:
            return {"hours": 24 * days, "end_ms": (last_s // seconds + 1) * seconds * 1000}
    raise AssertionError


class Node:
    """One crunch from its first round to its last checkpoint; most cases have one period."""

    def __init__(
        self,
        contract: CrunchContract,
        subjects: Sequence[str] = ("BTCUSDT",),
        hours: int = 6,
        end_ms: int | None = None,
    ) -> None:
        self.contract = contract
        self._end = T0 + hours * HOUR_SECONDS * 1000 if end_ms is None else end_ms
        settings = Settings(
            feed_subjects=tuple(subjects),
            snapshot_interval_seconds=DAY_SECONDS if hours % 24 == 0 else HOUR_SECONDS,
            checkpoint_interval_seconds=hours * HOUR_SECONDS,
        )
        terms = make_terms(contract, HASH, settings, 0)
        configured = ev.CrunchConfigured(id="terms", at=0, data=terms)
        self._scores = given(ScoreStage(shelf(contract))).when("inputs", configured)
        self._snapshots = given(SnapshotStage(shelf(contract))).when("scores", configured)
        self._checkpoints = given(CheckpointStage(CRUNCH, shelf(contract))).when("snapshots", configured)
        self._rounds = 0
        self.states: dict[str, Any] = {}
        """model id -> its state after the last round."""
        self.shared: Any = None
        """The state that all models share, after the last round."""
        self.windows: dict[str, dict[str, int | None]] = {}
        """model id -> window -> units, as of the end of the last closed period."""
        self.window_counts: dict[str, dict[str, int]] = {}
        """model id -> window -> number of scores in it. Windows that are plain means are left out."""
        self.summary: dict[str, dict[str, int]] = {}
        """model id -> key of the summary -> units, for the last closed period."""

    def round(
        self,
        records: Sequence[Any],
        answers: Mapping[str, Mapping[str, Any]],
        subject: str = "BTCUSDT",
        players: Mapping[str, str] | None = None,
        at: int | None = None,
    ) -> dict[str, ev.RoundScoredData]:
        """Scope key -> the scores of the score stage. An answer is plain JSON, or `missing(..)`.

        `records` are raw inputs from entry to horizon. Rounds are a minute apart unless `at` (ms) is given.
        """
        point = T0 + self._rounds * MINUTE if at is None else at
        self._rounds += 1
        models = sorted({model for of_scope in answers.values() for model in of_scope})
        horizons = {
            schedule.scope_key: schedule.scope.horizon_seconds for schedule in self.contract.schedules()
        }
        horizons = {key: horizons[key] for key in answers}
        steps = {schedule.scope_key: schedule.scope.step_seconds for schedule in self.contract.schedules()}
        opened = self._opened(point, models, tuple(answers), subject, players or {})
        judged = {key: self._judged(opened, answers_by_model) for key, answers_by_model in answers.items()}
        answered = ev.RoundAnswered(
            id=f"{opened.data.input_id}:answered",
            at=point,
            data=ev.RoundAnsweredData(input_id=opened.data.input_id, clock=point),
        )
        self._scores.when("predictions", opened)
        self._scores.when("predictions", *in_events(opened, judged, point), answered)
        self._scores.when("inputs", received(point, subject, horizons, steps=steps))
        truth, reason = truth_of_window(self.contract, lambda: list(records))
        scored_by_scope: dict[str, ev.RoundScoredData] = {}
        for seconds in sorted(set(horizons.values())):
            last = seconds == max(horizons.values())
            self._scores.when("inputs", self._resolved(point, subject, seconds, truth, reason, last=last))
            scored_by_scope |= self._taken()
        return scored_by_scope

    def question(
        self,
        truth: Mapping[str, Any] | None,
        answers_by_model: Mapping[str, Sequence[tuple[int, Any]]],
        *,
        missed: Mapping[str, ModelReply] = NOBODY,
        scope_key: str = "question",
        payload: Any = None,
        times: tuple[int, int] | None = None,
        stakes: Mapping[str, float] = NO_STAKES,
        at: int | None = None,
    ) -> ev.RoundScoredData:
        """The scores of a posted question. A question without a truth is void.

        `answers_by_model` is model -> [(time in ms, answer as plain JSON), ..]; `missed` are the models that were asked and
        did not answer. `times` are when the question opened and closed (ms). It is resolved `at` (ms), by default a minute
        after the previous question.
        """
        self._rounds += 1
        at = T0 + self._rounds * MINUTE if at is None else at
        opens_at, closes_at = times or (at - 2, at - 1)
        name = ids.question_input_id("oracle", f"q{self._rounds}")
        asking = asked(1, opens_at, question=name, closes_at=closes_at, payload=payload)
        assert asking.data.question is not None
        about = msgspec.structs.replace(asking.data.question, opens_at=opens_at)
        scopes = [msgspec.structs.replace(asking.data.scopes[0], scope_key=scope_key)]
        data = msgspec.structs.replace(asking.data, point=at, scopes=scopes, question=about)
        self._scores.when("inputs", msgspec.structs.replace(asking, data=data))
        rounds: dict[tuple[int, int], dict[str, Any]] = {(opens_at, 0): dict(missed)}
        for model, answers in answers_by_model.items():
            for number, (when, answer) in enumerate(answers):
                rounds.setdefault((when, number), {})[model] = answer
        suffixes = ["", *(f"~s{number:012x}" for number in range(1, len(rounds)))]
        for suffix, ((when, _), answers_at_once) in zip(suffixes, sorted(rounds.items()), strict=True):
            opened = self._opened(when, sorted(answers_at_once), (scope_key,), "questions", {}, name + suffix)
            done = ev.RoundAnsweredData(input_id=name + suffix, clock=when)
            answered = ev.RoundAnswered(id=f"{name}{suffix}:answered", at=when, data=done)
            entries = {scope_key: self._judged(opened, answers_at_once)}
            self._scores.when("predictions", opened, *in_events(opened, entries, when), answered)
        self._scores.when("predictions", all_answered(*suffixes, at=closes_at, question=name))
        decimals = {model: repr(stake) for model, stake in stakes.items()}
        self._scores.when("inputs", closed(closes_at, question=name, **decimals))
        resolved = ev.InputResolvedData(
            input_id=name, horizon_seconds=0, resolvable_at=at, truth=None if truth is None else dict(truth),
            reason="void: annulled" if truth is None else None, last=True, void=truth is None,
        )  # fmt: skip
        self._scores.when("inputs", ev.InputResolved(id=f"{name}:resolved", at=at, data=resolved))
        (scored,) = self._taken().values()
        return scored

    def _taken(self) -> dict[str, ev.RoundScoredData]:
        """Scope key -> the latest scores. Notes their states, and passes them to the snapshot stage."""
        scored = self._scores.all(ev.RoundScored)
        for carried in self._scores.all(ev.StateCarried):
            self.states |= {model: msgspec.json.decode(state) for model, state in carried.data.states.items()}
            self.shared = msgspec.json.decode(carried.data.shared[0]) if carried.data.shared else self.shared
        self._snapshots.when("scores", *scored)
        return {event.data.scope_key: event.data for event in scored}

    def summed(self) -> list[ev.SnapshotTakenData]:
        """The snapshots up to the end."""
        until = ev.InputsUntilData(until=self._end, clock=self._end, rehearsal=False, skipped=[])
        self._scores.when("inputs", ev.InputsUntil(id="until", at=self._end, data=until))
        self._snapshots.when("scores", *self._scores.made)
        return [event.data for event in self._snapshots.all(ev.SnapshotTaken)]

    def close(self, end_ms: int | None = None) -> ev.CheckpointData:
        """The checkpoint, offered or withheld, of the period that ends at `end_ms` (by default the node's first). It is
        empty where nobody is ranked, because the node then makes none.
        """
        self._end = self._end if end_ms is None else end_ms
        snapshots = self.summed()
        self.windows = {snapshot.model_id: snapshot.windows_units for snapshot in snapshots}
        self.window_counts = {snapshot.model_id: snapshot.windows_counts for snapshot in snapshots}
        self.summary = {snapshot.model_id: snapshot.summary_units for snapshot in snapshots}
        self._checkpoints.when("snapshots", *self._snapshots.made)
        checkpoints = [
            event.data if isinstance(event, ev.CheckpointOpened) else event.data.checkpoint
            for event in self._checkpoints.made
            if isinstance(event, (ev.CheckpointOpened, ev.CheckpointWithheld))
        ]
        if checkpoints and checkpoints[-1].period_end == self._end:
            return checkpoints[-1]
        return ev.CheckpointData(
            checkpoint_id="",
            period_start=T0,
            period_end=self._end,
            snapshot_count=len(snapshots),
            ranking=[],
            unranked=sorted({snapshot.model_id for snapshot in snapshots}),
            emission={"cruncher_rewards": []},
            emission_sha256="",
            contract_hash=HASH,
            rehearsal=False,
        )

    def _opened(
        self,
        point: int,
        models: list[str],
        scope_keys: tuple[str, ...],
        subject: str,
        players: Mapping[str, str],
        input_id: str = "",
    ) -> ev.RoundOpened:
        input_id = input_id or ids.input_id(subject, point)
        roster = [
            ev.RosterEntry(model_id=model, deployment_id=model, cruncher_id=players.get(model, ""))
            for model in models
        ]
        data = ev.RoundOpenedData(
            input_id=input_id,
            roster=roster,
            scope_keys=list(scope_keys),
            clock=point,
            contract_hash=HASH,
            models_seq=1,
        )
        return ev.RoundOpened(id=f"{input_id}:opened", at=point, data=data)

    def _judged(self, opened: ev.RoundOpened, answers_by_model: Mapping[str, Any]) -> list[ev.AnswerEntry]:
        replies = {
            model: msgspec.structs.replace(answer, model_id=model)
            if isinstance(answer, ModelReply)
            else ModelReply(model, model, Outcome.OK, output=answer)
            for model, answer in answers_by_model.items()
        }
        return judge(opened, replies, self.contract.output_type, self.contract.output_max_bytes)

    def _resolved(
        self,
        point: int,
        subject: str,
        seconds: int,
        truth: dict[str, Any] | None,
        reason: str | None,
        *,
        last: bool,
    ) -> ev.InputResolved:
        input_id = ids.input_id(subject, point)
        data = ev.InputResolvedData(
            input_id=input_id,
            horizon_seconds=seconds,
            resolvable_at=point + seconds * 1000,
            truth=truth,
            reason=reason,
            last=last,
        )
        return ev.InputResolved(id=f"{input_id}:resolved:{seconds}s", at=data.resolvable_at, data=data)


def ranked_by(
    keys: Mapping[str, int | None],
    direction: str,
    players: Mapping[str, str],
    numbers: Mapping[str, Mapping[str, int | None]],
) -> list[ev.RankedEntry]:
    """The ranking of a period by these keys (units); `numbers` are the other numbers that its pools may rank by."""
    ranked, _ = rank(keys.items(), direction)
    return [
        ev.RankedEntry(
            model_id=model,
            rank=place,
            key_units=key,
            prediction_count=1_000_000,
            snapshot_count=1,
            result_summary_units={
                name: units_by_model[model]
                for name, units_by_model in numbers.items()
                if units_by_model.get(model) is not None
            },
            cruncher_id=players.get(model, ""),
        )
        for place, model, key in ranked
    ]


__all__ = [
    "CRUNCH",
    "MINUTE",
    "PUBKEY",
    "T0",
    "Node",
    "asked_at_once",
    "missing",
    "period_around",
    "ranked_by",
]
