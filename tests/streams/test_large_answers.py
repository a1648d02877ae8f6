"""Answers above 1 MB: they are recorded beside the log, read when they are scored, and a lost one stops its round."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies
import msgspec
import pytest
from pydantic import RootModel
from tests.given import Given, given
from tests.shelf import Shelf
from tests.streams.asked import (
    CLOSES,
    SCOPE,
    Outcome,
    Q,
    all_answered,
    asked,
    asks,
    came,
    closed,
    round_opened,
)
from tests.streams.build import DAY, T0, configured, shelf

from coordinator.streams import events as ev
from coordinator.streams import large_answers
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.rounds import RoundScores
from coordinator.streams.large_answers import set_aside, whole
from coordinator.streams.predictions.columns import in_events
from coordinator.streams.scores.stage import ScoreStage

LATER = CLOSES + 3 * DAY


class Rows(RootModel[list[float]]):
    """An answer of many numbers."""


def mean_of(answers: Any, truth: Outcome, _context: Any) -> RoundScores:
    """The mean of each answer, over the largest of the round: so that each score depends on all answers."""
    means = [None if rows is None else sum(rows.root) / len(rows.root) for rows in answers.outputs]
    largest = max(mean for mean in means if mean is not None)
    return RoundScores([None if mean is None else mean / largest * truth.outcome for mean in means])


def alone(prediction: Rows, truth: Outcome) -> dict[str, float]:
    return {"value": sum(prediction.root) / len(prediction.root) * truth.outcome}


def contract(whole_round: bool = True, counts: str = "last") -> CrunchContract:
    scoring: dict[str, Any] = {"score_round": mean_of} if whole_round else {"score_prediction": alone}
    return asks(counts, output_type=Rows, **scoring)


def pending(model_id: str, value: float) -> ev.AnswerEntry:
    return ev.AnswerEntry(model_id, f"{model_id}-d", "PENDING", msgspec.Raw(msgspec.json.encode([value] * 4)))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowers the bound of an answer in the log to 20 bytes: `[8.25,8.25,8.25,8.25]` is above it, `[2.0,..]` is not."""
    monkeypatch.setattr(large_answers, "ANSWER_BYTES_MAX", 20)


def answered(
    suffix: str, entries: list[ev.AnswerEntry], at: int = T0, question: str = Q
) -> list[ev.AnyEvent]:
    opened = round_opened(suffix, [entry.model_id for entry in entries], at, question=question)
    done = ev.RoundAnswered(
        id=f"{question}{suffix}:answered",
        at=at,
        data=ev.RoundAnsweredData(input_id=question + suffix, clock=at),
    )
    return [opened, *in_events(opened, {SCOPE: entries}, at), done]


def scene(blobs: Shelf | None, whole_round: bool = True, counts: str = "last") -> Given:
    challenge = contract(whole_round, counts)
    assert challenge.questions is not None
    terms = {"questions": challenge.questions.terms(), "checkpoint_interval_ms": 7 * DAY}
    stage = ScoreStage(shelf(challenge), blobs=blobs)
    return given(stage).when("inputs", configured(**terms)).then(ev.CrunchConfigured)


def scores(play: Given) -> dict[str, ev.ScoreEntry]:
    return {entry.model_id: entry for entry in play.only(ev.RoundScored).data.entries()}


LARGE, SMALL = 8.25, 2.0


def asked_once(
    blobs: Shelf, play: Given, question: str = Q, values: tuple[float, float] = (LARGE, SMALL)
) -> Given:
    entries = set_aside([pending("a", values[0]), pending("b", values[1])], blobs.put)
    play.when("inputs", asked(question=question))
    play.when("predictions", *answered("", entries, question=question), all_answered(question=question))
    return play.when("inputs", closed(question=question), came(1.0, LATER, question=question))


def test_a_large_answer_is_recorded_beside_the_log_and_a_small_one_in_it():
    blobs = Shelf()
    large, small = set_aside([pending("a", LARGE), pending("b", SMALL)], blobs.put)
    assert (large.output, small.blob) == (ev.NO_OUTPUT, None)
    assert large.blob is not None
    assert (large.blob.bytes, large.blob.media_type) == (21, "application/json")
    assert blobs.kept == {large.blob.sha256: b"[8.25,8.25,8.25,8.25]"}
    (event,) = [event for event in answered("", [large, small]) if isinstance(event, ev.ScopeAnswered)]
    assert event.data.blobs == [(0, large.blob)]
    assert [bytes(output) for output in whole(event.data, blobs).outputs] == [
        b"[8.25,8.25,8.25,8.25]",
        b"[2.0,2.0,2.0,2.0]",
    ]


@pytest.mark.parametrize("whole_round", [True, False])
def test_a_large_answer_is_scored_like_an_answer_in_the_log(whole_round):
    blobs = Shelf()
    beside = asked_once(blobs, scene(blobs, whole_round))
    inside = scene(None, whole_round).when("inputs", asked())
    inside.when("predictions", *answered("", [pending("a", LARGE), pending("b", SMALL)]), all_answered())
    inside.when("inputs", closed(), came(1.0, LATER))
    assert scores(beside) == scores(inside)
    assert {entry.status for entry in scores(beside).values()} == {"SCORED"}


@pytest.mark.parametrize("whole_round", [True, False])
@pytest.mark.parametrize("why", ["missing", "altered"])
def test_a_lost_answer_stops_its_round_alone_by_the_nodes_fault_and_is_named(whole_round, why):
    blobs = Shelf()
    play = scene(blobs, whole_round)
    other = Q.replace("q1", "q2")
    entries = set_aside([pending("a", LARGE), pending("b", SMALL)], blobs.put)
    named = entries[0].blob
    assert named is not None
    blobs.lose(named.sha256, why)
    play.when("inputs", asked()).when("predictions", *answered("", entries), all_answered())
    play.when("inputs", closed(), came(1.0, LATER)).then(ev.RoundScored)
    assert {(e.status, e.fault, e.reason) for e in scores(play).values()} == {
        ("FAILED", "node", f"BLOB_LOST: blob {named.sha256} is {why}")
    }
    asked_once(blobs, play, other, (9.25, SMALL)).then(ev.RoundScored)
    assert {entry.status for entry in scores(play).values()} == {"SCORED"}


@pytest.mark.parametrize("counts", ["mean", "history"])
def test_answers_that_are_averaged_are_read_and_a_lost_one_stops_the_round(counts):
    """The same if the lost one is not the last, because the mean of the others would be another number."""
    for lose in (False, True):
        blobs = Shelf()
        play = scene(blobs, whole_round=counts == "mean", counts=counts)
        first, second = set_aside([pending("a", LARGE), pending("a", 4.25)], blobs.put)
        assert first.blob is not None
        if lose:
            blobs.lose(first.blob.sha256, "missing")
        play.when("inputs", asked(), asked(2, T0 + 60_000))
        play.when("predictions", *answered("", [first]), *answered("~2", [second], T0 + 60_000))
        play.when("predictions", all_answered("", "~2"))
        play.when("inputs", closed(askings=2), came(1.0, LATER)).then(ev.RoundScored)
        (entry,) = scores(play).values()
        lost = f"BLOB_LOST: blob {first.blob.sha256} is missing"
        assert (entry.reason == lost) is lose


@pytest.mark.parametrize("truth", [2.0, 1.0], ids=["corrected", "the same again"])
def test_another_revision_of_the_truth_scores_a_stopped_round_after_the_blob_is_back(truth):
    blobs = Shelf()
    play = scene(blobs)
    entries = set_aside([pending("a", LARGE), pending("b", SMALL)], blobs.put)
    stored = dict(blobs.kept)
    blobs.kept.clear()
    play.when("inputs", asked()).when("predictions", *answered("", entries), all_answered())
    play.when("inputs", closed(), came(1.0, LATER)).then(ev.RoundScored)
    blobs.kept.update(stored)
    play.when("inputs", came(truth, LATER + 1, revision=1)).then(ev.RoundRescored)
    assert {entry.status for entry in play.only(ev.RoundRescored).data.entries()} == {"SCORED"}


class Table(RootModel[dict[str, float | None]]):
    """A value for each row; a row may be null, or missing."""


def ranked_rows(answers: Any, truth: Outcome, _context: Any) -> RoundScores:
    """The share of pairs of rows in the right order; a tie is half a pair, a null or missing row has the mean."""
    scores: list[float | None] = []
    for table in answers.outputs:
        if table is None:
            scores.append(None)
            continue
        values = [value for value in table.root.values() if value is not None]
        if not values:
            scores.append(None)
            continue
        mean = sum(values) / len(values)
        rows = [mean if (value := table.root.get(f"r{i}")) is None else value for i in range(4)]
        pairs = [(a < b) + (a == b) / 2 for i, a in enumerate(rows) for b in rows[i + 1 :]]
        scores.append(sum(pairs) / len(pairs) * truth.outcome)
    return RoundScores(scores)


ROW = hypothesis.strategies.one_of(
    hypothesis.strategies.none(), hypothesis.strategies.sampled_from([0.0, 0.5, 0.25, 1.0, 0.123456789])
)
TABLES = hypothesis.strategies.dictionaries(
    hypothesis.strategies.sampled_from(["r0", "r1", "r2", "r3", "r9"]), ROW, max_size=5
)


@hypothesis.settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(tables=hypothesis.strategies.lists(TABLES, min_size=1, max_size=4))
def test_null_missing_and_tied_rows_score_the_same_beside_the_log_and_in_it(tables):
    """The size alone decides which of the answers are beside the log."""
    challenge = asks("last", output_type=Table, score_round=ranked_rows)
    assert challenge.questions is not None
    terms = {"questions": challenge.questions.terms(), "checkpoint_interval_ms": 7 * DAY}
    entries = [
        ev.AnswerEntry(f"m{i}", f"d{i}", "PENDING", msgspec.Raw(msgspec.json.encode(table)))
        for i, table in enumerate(tables)
    ]
    blobs = Shelf()
    of: list[dict[str, ev.ScoreEntry]] = []
    for answers, store in ((set_aside(entries, blobs.put), blobs), (entries, None)):
        play = given(ScoreStage(shelf(challenge), blobs=store)).when("inputs", configured(**terms))
        play.then(ev.CrunchConfigured).when("inputs", asked())
        play.when("predictions", *answered("", answers), all_answered()).when("inputs", closed())
        of.append(scores(play.when("inputs", came(1.0, LATER))))
    assert of[0] == of[1]
    assert len(of[0]) == len(tables)


def test_columns_that_name_an_unknown_blob_are_refused():
    blob = large_answers.blob_of(b"[]")
    columns: dict[str, Any] = {
        "models": [0],
        "outputs": [ev.NO_OUTPUT],
        "exec_times_us": [0],
        "reasons": ["x"],
    }
    for changes in (
        {"unanswered": [], "blobs": [(1, blob)]},
        {"unanswered": [], "blobs": [(0, blob), (0, blob)]},
        {"unanswered": [ev.Unanswered(0, "ABSENT", "node", 0)], "blobs": [(0, blob)]},
    ):
        with pytest.raises(ValueError, match="blobs"):
            ev.ScopeAnsweredData(input_id="i", scope_key="s", **columns, **changes)
