"""The read model of posted questions: the state of each, from events written by hand."""

from __future__ import annotations

import random

import pytest
from tests.logs import HOUR_MS, START_MS, LogBuilder, fold_into, folded
from tests.posted import Posted, add_questions

from coordinator.projections.folding.as_of import PastReadModels, cuts_at, folded_until
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import open_projections
from coordinator.projections.views.question_answers import answers_of, askings_of, number_in
from coordinator.projections.views.round_rows import PAYLOAD_BYTES_KEPT

COUNTS = {"upcoming": 1, "open": 0, "closed": 1, "resolved": 1, "void": 2}


@pytest.fixture
def log():
    log = LogBuilder()
    log.terms()
    for name in ("m1", "m2", "m3"):
        log.model(name)
    return log


@pytest.fixture
def fold(tmp_path):
    opened = []

    def do(log):
        opened.append(folded(log, tmp_path / str(len(opened))))
        return opened[-1]

    yield do
    for read in opened:
        read.close()


def test_a_round_counts_its_questions_by_state(log, fold):
    add_questions(log)
    rounds = fold(log).rounds
    first, second = rounds.round("week-1"), rounds.round("week-2")
    assert first.counts == COUNTS
    assert (first.state, first.questions) == ("closed", 5)
    assert (first.opens_at, first.closes_at) == (START_MS, START_MS + 30 * HOUR_MS)
    assert (second.state, second.counts["open"]) == ("open", 1)
    assert [round_.round_id for round_ in rounds.rounds()] == ["week-2", "week-1"]
    assert [round_.round_id for round_ in rounds.rounds("open")] == ["week-2"]
    assert rounds.round("week-3") is None
    assert rounds.totals() == {"total": 4, "resolved": 1, "pending": 3}


def test_a_question_has_what_was_posted_and_its_outcome(log, fold):
    add_questions(log)
    rounds = fold(log).rounds
    states = {question.question_id: question.state for question in rounds.questions("week-1")}
    assert states == {
        "due": "resolved",
        "late": "closed",
        "later": "upcoming",
        "never-asked": "void",
        "taken-back": "void",
    }
    due, late = rounds.question("week-1", "due"), rounds.question("week-1", "late")
    assert (due.asked.truth, due.asked.askings, due.asked.resolved_at) == (
        '{"outcome":1}',
        1,
        START_MS + 3 * HOUR_MS,
    )
    assert (late.asked.refused, late.posted.truth) == ("outcome: Field required", '{"outcom":1}')
    assert rounds.question("week-1", "never-asked").void_reason == "it was annulled"
    assert rounds.question("week-2", "open").asked.askings == 2
    assert rounds.stakes() == (START_MS + 5 * HOUR_MS, {"m1": "12.5"})


def test_an_accepted_truth_ends_the_refusal_and_a_correction_counts_once(log, fold):
    posted = Posted(log)
    posted.post("r", "q")
    posted.ask("r", "q", {"m1": 0.5})
    posted.refuse_truth("r", "q", HOUR_MS, {}, "outcome: Field required")
    posted.resolve("r", "q", 2 * HOUR_MS, {"outcome": 0})
    posted.resolve("r", "q", 3 * HOUR_MS, {"outcome": 1}, revision=1)
    rounds = fold(log).rounds
    row = rounds.question("r", "q")
    assert (row.asked.refused, row.asked.truth, row.asked.revision) == (None, '{"outcome":1}', 1)
    assert row.asked.resolved_at == row.asked.closed_at == START_MS + 2 * HOUR_MS
    assert rounds.round("r").counts["resolved"] == 1
    assert rounds.totals() == {"total": 1, "resolved": 1, "pending": 0}


def test_a_resolved_question_that_is_voided_is_no_longer_resolved(log, fold):
    posted = Posted(log)
    posted.post("r", "q")
    posted.ask("r", "q")
    posted.resolve("r", "q", 2 * HOUR_MS, {"outcome": 0})
    posted.void("r", "q", 3 * HOUR_MS, "twice")
    rounds = fold(log).rounds
    assert rounds.round("r").counts == {"upcoming": 0, "open": 0, "closed": 0, "resolved": 0, "void": 1}
    assert rounds.totals() == {"total": 0, "resolved": 0, "pending": 0}


def test_a_revision_replaces_the_payload_and_is_no_second_question(log, fold):
    posted = Posted(log)
    posted.post("r", "q", payload={"a": 1})
    posted.post("r", "q", at=1, closes=5 * HOUR_MS, payload={"a": 2}, revision=1)
    rounds = fold(log).rounds
    row = rounds.question("r", "q")
    assert (row.posted.payload, row.posted.revision, row.posted.posted_at) == ('{"a":2}', 1, START_MS)
    assert (rounds.round("r").questions, rounds.round("r").closes_at) == (1, START_MS + 5 * HOUR_MS)
    assert [question.question_id for question in rounds.newest()] == ["q"]


def test_a_large_payload_stays_in_the_log(log, fold):
    posted = Posted(log)
    posted.post("r", "q", payload="x" * PAYLOAD_BYTES_KEPT)
    row = fold(log).rounds.question("r", "q").posted
    assert (row.payload, row.payload_bytes) == ("null", PAYLOAD_BYTES_KEPT + 2)


def test_a_truth_of_an_unknown_question_is_noted_as_illegal_and_changes_nothing(log, fold):
    Posted(log).truth("r", "q", 0, {"outcome": 1})
    rounds = fold(log).rounds
    assert [refusal["kind"] for refusal in rounds.refused()] == ["QuestionResolved"]
    assert list(rounds.newest()) == []


def test_every_interleaving_gives_the_same_rows(log, tmp_path):
    add_questions(log)
    hashes = set()
    for seed in range(6):
        (rounds,) = open_projections(tmp_path / str(seed), "cluster", log.crunch_id, ["rounds"])
        order = [topic for topic in ("feeds", "inputs") for _ in log.records[topic]]
        random.Random(seed).shuffle(order)
        fold_into(Folder([rounds]), log, order, commit_every=seed + 1)
        hashes.add(rounds.store.state_hash)
        assert rounds.round("week-1").counts == COUNTS
        rounds.store.close()
    assert len(hashes) == 1


def test_the_past_is_shown_as_it_was(log, fold):
    add_questions(log)
    live = fold(log)
    past = PastReadModels(live, cuts_at(live, START_MS + HOUR_MS, folded_until(live)))
    assert past.rounds.question("week-1", "due").state == "closed"
    assert past.rounds.round("week-2").counts["upcoming"] == 1
    assert past.rounds.stakes() is None


def test_each_model_has_one_row_with_its_latest_valid_answer(log, fold):
    add_questions(log).close("week-2", "open", 40 * HOUR_MS)
    log.inputs_until(41 * HOUR_MS)
    read = fold(log)
    row = read.rounds.question("week-2", "open")
    assert askings_of(read.predictions, row.asked.input_id) == [
        "inp/questions/week-2/open",
        "inp/questions/week-2/open~2",
    ]
    answers = {
        answer.model_id: (answer.status, answer.output) for answer in answers_of(read.predictions, row)
    }
    assert answers == {"m1": ("PENDING", {"value": 0.15}), "m2": ("PENDING", {"value": 0.2})}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5),
        (True, 1.0),
        ({"value": 0.25}, 0.25),
        ({"x": 2, "name": "n"}, 2.0),
        ({"x": 1, "y": 2}, None),
        ({"outcome": False, "x": 3}, 0.0),
        (float("nan"), None),
        ("0.5", None),
        (None, None),
    ],
)
def test_the_number_in_a_text_is_recognised(value, number):
    assert number_in(value) == number
