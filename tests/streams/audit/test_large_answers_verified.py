"""A log whose answers are in blobs is computed again like any other. A blob that is lost, now or at scoring, is
named.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from tests.checked import chain_of, fault_of
from tests.explained import MemoryAppends, fold
from tests.shelf import Shelf
from tests.streams.audit.test_mutations import parts_of, written

from coordinator.projections.explaining.explainer import Explainer
from coordinator.streams import large_answers
from coordinator.streams.audit.explain.recomputing import explain_again
from coordinator.streams.audit.facts import AuditBlobs, Chain, ChainBrokenError
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine import Functions, MemoryLog, RecordedAnswers, candles, play
from coordinator.streams.engine.engine import CRUNCH_ID
from coordinator.streams.engine.rerun import RecordedCrunch, TakenOver, rerun
from coordinator.streams.events import (
    AnyEvent,
    RosterEntry,
    RoundOpened,
    RoundScored,
    ScopeAnswered,
    answers_in_columns,
)
from coordinator.streams.log.ids import prediction_id

CONTRACT = CrunchContract()
MODELS = {"up": lambda _data, _call: {"value": 0.5}, "down": lambda _data, _call: {"value": -0.25}}


def aside(events: Sequence[AnyEvent], rosters: dict[str, list[RosterEntry]], shelf: Shelf) -> list[AnyEvent]:
    """The events of a decision of `predictions`, with the answers of "up" in blobs, a separate one for each round."""
    events_aside: list[AnyEvent] = []
    for event in events:
        if isinstance(event, RoundOpened):
            rosters[event.data.input_id] = event.data.roster
        elif isinstance(event, ScopeAnswered):
            data, roster = event.data, rosters[event.data.input_id]
            entries = [
                entry
                if entry.model_id != "up"
                else msgspec.structs.replace(
                    entry, output=msgspec.Raw(b'{"value":0.5%s}' % (b" " * (4 + len(rosters))))
                )
                for entry in data.entries(roster)
            ]
            columns = answers_in_columns(roster, large_answers.set_aside(entries, shelf.put))
            event = msgspec.structs.replace(event, data=msgspec.structs.replace(data, **columns))  # noqa: PLW2901
        events_aside.append(event)
    return events_aside


class Scene:
    """A log with large answers, and the store that was used for it."""

    def __init__(self) -> None:
        prices = [100 + (minute * 7 % 13) / 10 for minute in range(100)]
        whole = play(
            CONTRACT,
            candles(prices),
            MODELS,
            snapshot_interval_seconds=600,
            checkpoint_interval_seconds=1800,
        )
        self.shelf, rosters = Shelf(), dict[str, list[RosterEntry]]()
        topics = MemoryLog(whole.engine.log.topics)
        parts = [
            (aside(events, rosters, self.shelf), *rest) for events, *rest in parts_of(topics, "predictions")
        ]
        self.log = written(topics, "predictions", parts, redone=False)
        self.log["predictions"].insert(
            0, topics["predictions"][0]
        )  # its birth record: every offset stays as it was

    def lost_at_scoring(self) -> tuple[str, MemoryLog]:
        """(name of a blob in the last checkpoint's period, the log of a node that had lost it at scoring)."""
        rounds = self.log.events("scores")
        chain = Chain({"checkpoints": self.log.decisions("checkpoints")})
        last = max(chain.checkpoints.values(), key=lambda checkpoint: checkpoint.period_end)
        scored = [
            event.data
            for event in rounds
            if isinstance(event, RoundScored) and event.data.resolvable_at < last.period_end
        ]
        answered = {
            event.data.input_id: event.data
            for event in self.log.events("predictions")
            if isinstance(event, ScopeAnswered)
        }
        ((_, blob),) = answered[scored[-1].input_id].blobs
        with_a_hole = Shelf(**{name: held for name, held in self.shelf.kept.items() if name != blob.sha256})
        self.log.blobs = with_a_hole
        answers = RecordedAnswers(self.log.walk("predictions"))
        answers.notices = Functions(MODELS).notices  # type: ignore[method-assign] - a rerun has no topic of models
        engine = rerun(
            RecordedCrunch(self.log, lambda _: CONTRACT, CRUNCH_ID), taken_over=TakenOver(answers=answers)
        )
        return blob.sha256, MemoryLog(engine.log.topics)


@pytest.fixture(scope="module")
def scene() -> Scene:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_answers, "ANSWER_BYTES_MAX", 15)  # blanks make those of "up" longer
        return Scene()


def verified(log: MemoryLog, shelf: Shelf | None) -> ChainBrokenError | None:
    """The first error that the check of the last checkpoint finds, or None."""
    chain = Chain({"checkpoints": log.decisions("checkpoints")})
    checkpoint = max(chain.checkpoints.values(), key=lambda checkpoint_: checkpoint_.period_end)
    chain = chain_of(log, checkpoint)
    chain.blobs = AuditBlobs(shelf)
    return fault_of(log, chain, checkpoint, lambda _: CONTRACT, CRUNCH_ID)


def test_a_log_with_large_answers_passes(scene):
    assert len(scene.shelf.kept) > 50
    assert verified(scene.log, scene.shelf) is None


@pytest.mark.parametrize("why", ["missing", "altered"])
def test_an_answer_that_is_lost_now_is_named(scene, why):
    name, _ = scene.lost_at_scoring()
    shelf = Shelf(**scene.shelf.kept)
    shelf.lose(name, why)
    fault = verified(scene.log, shelf)
    assert fault is not None
    assert (fault.step, f"blob {name} is {why}" in fault.reason) == ("scores", True), fault


def test_a_round_stopped_by_a_lost_answer_passes_and_cost_only_the_node(scene):
    name, log = scene.lost_at_scoring()
    stopped = [
        event.data for event in log.events("scores") if isinstance(event, RoundScored) and event.data.reasons
    ]
    ((entry, other),) = [data.entries() for data in stopped]
    assert {(row.status, row.fault, row.charge_units) for row in (entry, other)} == {("FAILED", "node", None)}
    assert entry.reason == f"BLOB_LOST: blob {name} is missing"
    assert verified(log, scene.shelf) is None, "also when the blob is back"


def test_a_round_falsely_recorded_as_stopped_by_a_blob_is_found(scene):
    name, log = scene.lost_at_scoring()
    forged = "ab" * 32
    for topic in ("scores",):
        log.topics[topic] = [record.replace(name.encode(), forged.encode()) for record in log.topics[topic]]
    fault = verified(log, scene.shelf)
    assert fault is not None
    assert fault.step == "scores"


def test_a_score_of_a_large_answer_is_explained_and_a_lost_answer_is_reported(scene, tmp_path):
    data = next(event.data for event in scene.log.events("scores") if isinstance(event, RoundScored))
    read, appends = fold(scene.log, tmp_path), MemoryAppends(scene.log)
    the_id = prediction_id(data.input_id, data.scope_key, "up")
    for shelf, agrees in ((scene.shelf, True), (Shelf(), None)):
        explainer = Explainer(
            appends, lambda facts, shelf=shelf: explain_again(facts, lambda _: CONTRACT, shelf)
        )
        steps = {step.name: step for step in explainer.prediction(read, the_id).steps}
        assert steps["score"].agrees is agrees
        shown = next(value.shown for value in steps["answer"].result if value.name == "output")
        assert shown.startswith("blob ")
    assert "not computed again: blob" in steps["score"].note
    (row,) = read.predictions.round(data.input_id, data.scope_key, {"up"})
    assert (row.output, row.output_bytes is not None) == (None, True)
    read.close()
