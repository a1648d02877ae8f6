"""Posted questions in the input stage: asked, asked again, closed, resolved, corrected, void; and bounded."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given as given_random
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel
from tests.given import Given, given
from tests.memory_log import Author, MemoryLog, killed_everywhere, undisturbed
from tests.streams.build import HASH, HOUR, MINUTE, SUBJECT, T0, configured, record, scope, shelf, tick
from tests.streams.questions import ASKED, FEED, Node, close, post, question, raw, resolve, void
from tests.streams.questions import stakes as stakes_post

from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract, Questions, QuestionScope
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.topology import BY_TOPIC

DAY = 24 * HOUR
CLOSES = T0 + 10 * MINUTE
Q1 = "inp/questions/r1/q1"


class Outcome(BaseModel):
    outcome: float


CONTRACT = CrunchContract(questions=Questions(), ground_truth_type=Outcome)


def stage(contract: CrunchContract = CONTRACT, **others: CrunchContract) -> InputStage:
    return InputStage(shelf(contract, **others))


def posted(question_id: str = "q1", *, at: int = T0, revision: int = 0, **changes: Any) -> ev.QuestionPosted:
    data = ev.QuestionPostedData(round_id="r1", question=question(question_id, **changes), revision=revision)
    return ev.QuestionPosted(id=f"question/r1/{question_id}/r{revision}", at=at, data=data)


def closed(question_id: str = "q1", *, at: int) -> ev.QuestionClosed:
    data = ev.QuestionClosedData(round_id="r1", question_id=question_id)
    return ev.QuestionClosed(id=f"question/r1/{question_id}:closed", at=at, data=data)


def resolved(truth: Any, question_id: str = "q1", *, at: int, revision: int = 0) -> ev.QuestionResolved:
    data = ev.QuestionResolvedData(
        round_id="r1", question_id=question_id, truth=raw(truth), revision=revision
    )
    return ev.QuestionResolved(id=f"question/r1/{question_id}:resolved/r{revision}", at=at, data=data)


def voided(question_id: str = "q1", *, at: int, revision: int = 0) -> ev.QuestionVoided:
    data = ev.QuestionVoidedData(round_id="r1", question_id=question_id, reason="annulled", revision=revision)
    return ev.QuestionVoided(id=f"question/r1/{question_id}:voided", at=at, data=data)


def stakes(at: int, **table: str) -> ev.StakesPosted:
    return ev.StakesPosted(id=f"stakes/{at}", at=at, data=ev.StakesPostedData(stakes=table))


def terms(asked: ev.QuestionTerms | None = ASKED, **changes: Any) -> ev.CrunchConfigured:
    return configured(
        **({"feed": FEED, "subjects": ["questions"], "scopes": [], "questions": asked} | changes)
    )


def node(asked: ev.QuestionTerms | None = ASKED, **changes: Any) -> Given:
    """A node with questions alone, at T0."""
    return given(stage()).when("feeds", terms(asked, **changes), tick(T0))


def until(scene: Given) -> int:
    return scene.only(ev.InputsUntil).data.until


def test_a_question_is_asked_when_it_opens():
    scene = node().when("feeds", posted(opens_at=T0 + MINUTE)).then(posted(opens_at=T0 + MINUTE))
    scene.when("feeds", tick(T0 + MINUTE - 1)).then(ev.InputsUntil)
    scene.when("feeds", tick(T0 + MINUTE + 500)).then(ev.InputReceived, ev.InputsUntil)
    event = scene.only(ev.InputReceived)
    assert (event.id, event.at) == (f"{Q1}:received", T0 + MINUTE + 500)
    assert event.data == ev.InputReceivedData(
        input_id=Q1,
        subject="questions",
        point=T0 + MINUTE + 500,
        deadline_at=T0 + MINUTE + 10_500,
        scopes=[ev.InputScope(scope_key="question", horizon_seconds=0, step_seconds=0, resolvable_at=CLOSES)],
        contract_hash=HASH,
        rehearsal=False,
        payload=event.data.payload,
        question=ev.QuestionAsked(
            input_id=Q1,
            round_id="r1",
            question_id="q1",
            asking=1,
            whom="all",
            opens_at=T0 + MINUTE,
            closes_at=CLOSES,
        ),
    )
    assert msgspec.json.decode(event.data.payload) == {
        "title": "Will it rain?",
        "question_id": "q1",
        "round_id": "r1",
        "tags": [],
        "opens_at": T0 + MINUTE,
        "closes_at": CLOSES,
    }
    scene.when("feeds", tick(T0 + 9 * MINUTE)).then(ev.InputsUntil)


def test_a_question_that_is_open_when_posted_is_asked_at_once():
    scene = node().when("feeds", posted(at=T0 + 5)).then(ev.InputReceived)
    assert scene.only(ev.InputReceived).at == T0 + 5


@pytest.mark.parametrize("payload", [[1, 2], "text", 1.5, None, True])
def test_a_payload_that_is_no_object_is_put_into_one(payload):
    shown = node().when("feeds", posted(payload=payload)).only(ev.InputReceived).data.payload
    assert msgspec.json.decode(shown)["payload"] == payload
    assert msgspec.json.decode(shown)["question_id"] == "q1"


def test_fields_that_a_payload_sets_itself_stay():
    shown = node().when("feeds", posted(payload={"tags": "own", "x": 1})).only(ev.InputReceived).data.payload
    assert msgspec.json.decode(shown)["tags"] == "own"


def test_the_deadline_of_an_answer_is_not_after_the_close():
    scene = node().when("feeds", posted(closes_at=T0 + 3_000))
    assert scene.only(ev.InputReceived).data.deadline_at == T0 + 3_000


def test_the_scope_is_the_first_that_matches_its_tags():
    scopes = (
        QuestionScope(scope_key="w", tags=("Weather",)),
        QuestionScope(scope_key="s", tags=("Sport", "Weather")),
        QuestionScope(scope_key="rest"),
    )
    scene = node(Questions(scopes=scopes).terms())
    for tags, key in ((["Sport"], "s"), (["Sport", "Weather"], "w"), ([], "rest")):
        event = scene.when("feeds", posted(f"q-{key}", tags=tags)).only(ev.InputReceived)
        assert [scope_terms.scope_key for scope_terms in event.data.scopes] == [key]


def test_it_closes_by_the_clock_with_the_stakes_of_that_time():
    scene = node().when("feeds", stakes(T0, a="1"), posted())
    scene.when("feeds", stakes(T0 + 1, a="2")).then(stakes(T0 + 1, a="2"))
    scene.when("feeds", tick(CLOSES - 1)).then(ev.InputsUntil)
    scene.when("feeds", tick(CLOSES)).then(ev.InputClosed, ev.InputsUntil)
    event = scene.only(ev.InputClosed)
    assert (event.id, event.at) == (f"{Q1}:closed", CLOSES)
    assert event.data == ev.InputClosedData(input_id=Q1, askings=1, stakes={"a": "2"})
    scene.when("feeds", stakes(CLOSES + 1, a="3"), tick(CLOSES + 2)).then(ev.StakesPosted, ev.InputsUntil)


def test_a_post_closes_it_early_and_once():
    scene = node().when("feeds", posted()).when("feeds", closed(at=T0 + MINUTE)).then(ev.InputClosed)
    assert scene.only(ev.InputClosed).at == T0 + MINUTE
    scene.when("feeds", closed(at=T0 + MINUTE)).then()
    scene.when("feeds", tick(CLOSES)).then(ev.InputsUntil)


def test_a_truth_resolves_it_when_it_comes_however_late():
    scene = node().when("feeds", posted()).when("feeds", tick(CLOSES))
    late = T0 + 90 * DAY
    scene.when("feeds", tick(late))
    assert until(scene) == late, "an open question holds no watermark"
    scene.when("feeds", resolved({"outcome": 1}, at=late)).then(ev.InputResolved)
    event = scene.only(ev.InputResolved)
    assert (event.id, event.at) == (f"{Q1}:resolved/r0", late)
    assert event.data == ev.InputResolvedData(
        input_id=Q1,
        horizon_seconds=0,
        resolvable_at=late,
        truth={"outcome": 1.0},
        reason=None,
        last=True,
    )


def test_a_truth_before_the_close_also_closes_it():
    scene = node().when("feeds", posted())
    scene.when("feeds", resolved({"outcome": 1}, at=T0 + 1)).then(ev.InputClosed, ev.InputResolved)


def test_a_truth_is_corrected_with_a_revision():
    scene = node().when("feeds", posted()).when("feeds", resolved({"outcome": 1}, at=CLOSES))
    scene.when("feeds", resolved({"outcome": 0}, at=CLOSES + 1, revision=1)).then(ev.InputResolved)
    event = scene.only(ev.InputResolved)
    assert (event.id, event.data.revision) == (f"{Q1}:resolved/r1", 1)
    assert event.data.truth == {"outcome": 0.0}


BAD_TRUTHS = [1, "x", [], {}, {"outcome": "x"}, {"outcome": None}]


@pytest.mark.parametrize("truth", BAD_TRUTHS)
def test_a_truth_that_the_contract_cannot_use_is_refused_and_the_question_waits(truth):
    scene = node().when("feeds", posted()).when("feeds", tick(CLOSES))
    scene.when("feeds", resolved(truth, at=CLOSES)).then(ev.TruthRefused)
    assert scene.only(ev.TruthRefused).data.reason.startswith("ground_truth_type: ")
    scene.when("feeds", resolved({"outcome": 1}, at=CLOSES + 1, revision=1)).then(ev.InputResolved)
    assert scene.only(ev.InputResolved).data.revision == 0, "it is the first that counts"


def test_a_truth_has_named_fields():
    contract = CrunchContract(questions=Questions(), ground_truth_type=RootModel[float])
    scene = given(stage(contract)).when("feeds", terms(), posted(), tick(T0))
    scene.when("feeds", resolved(1.5, at=T0 + 1)).then(ev.TruthRefused)
    assert "an object with named fields" in scene.only(ev.TruthRefused).data.reason


@pytest.mark.parametrize(
    ("before", "kinds", "revision"),
    [
        ([], [ev.InputClosed, ev.InputResolved], 0),
        ([closed(at=T0 + 1)], [ev.InputResolved], 0),
        ([resolved({"outcome": 1}, at=T0 + 1)], [ev.InputResolved], 1),
    ],
)
def test_a_void_question_has_no_truth(before, kinds, revision):
    scene = node().when("feeds", posted(), *before)
    scene.when("feeds", voided(at=T0 + 2, revision=revision)).then(*kinds)
    data = scene.only(ev.InputResolved).data
    assert (data.truth, data.void, data.reason, data.revision) == (None, True, "void: annulled", revision)
    scene.when("feeds", resolved({"outcome": 1}, at=T0 + 3, revision=revision)).then(ev.TruthRefused)
    scene.when("feeds", voided(at=T0 + 4)).then()


def test_a_question_voided_before_it_opens_is_never_asked():
    scene = node().when("feeds", posted(opens_at=T0 + MINUTE))
    scene.when("feeds", voided(at=T0 + 1)).then(voided(at=T0 + 1))
    scene.when("feeds", tick(CLOSES)).then(ev.InputsUntil)
    assert scene.stage.state.own.questions.known == {}


def test_a_question_whose_time_passed_while_the_node_was_off_is_void():
    scene = node().when("feeds", posted(opens_at=T0 + MINUTE))
    scene.when("feeds", tick(CLOSES + DAY))
    scene.then(ev.InputReceived, ev.InputClosed, ev.InputResolved, ev.InputsUntil)
    assert "did not run while it was open" in scene.only(ev.InputResolved).data.reason
    scene.when("feeds", resolved({"outcome": 1}, at=CLOSES + DAY)).then(ev.TruthRefused)


# --- asked again ----------------------------------------------------------------------------------------


def askings(scene: Given, ticks: range) -> list[tuple[int, str, str]]:
    """(s since T0, models asked, suffix) of each asking."""
    asked = []
    for at in ticks:
        scene.when("feeds", tick(at))
        for event in scene.all(ev.InputReceived):
            assert event.data.question.input_id == Q1
            assert event.id == f"{event.data.input_id}:received"
            asked.append(
                ((event.at - T0) // 1000, event.data.question.whom, event.data.input_id.removeprefix(Q1))
            )
    return asked


def test_all_models_are_asked_again_as_often_as_the_contract_says():
    scene = node(Questions(ask_missing_seconds=0, ask_again_seconds=180).terms()).when("feeds", posted())
    assert askings(scene, range(T0 + MINUTE, CLOSES + 1, MINUTE)) == [
        (180, "all", "~2"),
        (360, "all", "~3"),
        (540, "all", "~4"),
    ]
    assert scene.only(ev.InputClosed).data.askings == 4


def test_models_without_an_answer_are_asked_again_after_a_time_that_doubles_up_to_a_day():
    scene = node(Questions(ask_missing_seconds=60).terms()).when("feeds", posted(closes_at=T0 + 8 * DAY))
    asked = askings(scene, range(T0 + MINUTE, T0 + 5 * DAY, MINUTE))
    times = [0, *(seconds for seconds, _, _ in asked)]
    waits = [after - before for before, after in pairwise(times)]
    assert waits == [60 * 2**k for k in range(11)] + [86_400] * 3
    assert {whom for _, whom, _ in asked} == {"missing"}
    assert [suffix for _, _, suffix in asked] == [f"~{number}" for number in range(2, len(asked) + 2)]


def test_asking_all_models_restarts_the_waiting_times():
    scene = node(Questions(ask_missing_seconds=60, ask_again_seconds=240).terms()).when("feeds", posted())
    assert [
        (seconds, whom) for seconds, whom, _ in askings(scene, range(T0 + MINUTE, CLOSES + 1, MINUTE))
    ] == [
        (60, "missing"),
        (180, "missing"),
        (240, "all"),
        (300, "missing"),
        (420, "missing"),
        (480, "all"),
        (540, "missing"),
    ]


def test_after_an_outage_it_is_asked_once():
    scene = node(Questions(ask_missing_seconds=60).terms()).when("feeds", posted(closes_at=T0 + DAY))
    scene.when("feeds", tick(T0 + 5 * HOUR)).then(ev.InputReceived, ev.InputsUntil)


def test_a_changed_question_is_asked_again_if_the_contract_says_so():
    scene = node().when("feeds", posted())
    changed = posted(payload={"title": "Will it snow?"}, revision=1, closes_at=CLOSES + HOUR, at=T0 + 1)
    event = scene.when("feeds", changed).only(ev.InputReceived)
    assert event.data.input_id == f"{Q1}~2"
    assert (event.data.question.revision, event.data.question.closes_at) == (1, CLOSES + HOUR)
    assert msgspec.json.decode(event.data.payload)["title"] == "Will it snow?"
    scene.when("feeds", tick(CLOSES)).then(ev.InputsUntil)
    scene.when("feeds", tick(CLOSES + HOUR)).then(ev.InputClosed, ev.InputsUntil)


def test_a_changed_question_is_stored_if_it_is_not_asked_again():
    scene = node(Questions(ask_missing_seconds=60, ask_again_on_change=False).terms()).when("feeds", posted())
    changed = posted(payload={"title": "Will it snow?"}, revision=1, closes_at=CLOSES + HOUR, at=T0 + 1)
    scene.when("feeds", changed).then(changed)
    event = scene.when("feeds", tick(T0 + MINUTE)).only(ev.InputReceived)
    assert msgspec.json.decode(event.data.payload)["closes_at"] == CLOSES + HOUR
    assert msgspec.json.decode(event.data.payload)["title"] == "Will it snow?"


# --- resolved by the feed -------------------------------------------------------------------------------


def market(contract: CrunchContract | None = None) -> Given:
    """A node with a market and questions, and its candles up to T0."""
    scene = given(stage(contract or CrunchContract(questions=Questions())))
    scene.when("feeds", configured(questions=ASKED, scopes=[]), tick(T0 - MINUTE))
    return scene.when("feeds", record(T0, 100.0), tick(T0))


BY_FEED = {"resolves_by": SUBJECT, "resolves_at": T0 + 20 * MINUTE}


def test_the_feed_resolves_a_question_from_its_opening_to_its_time():
    scene = market().when("feeds", posted(**BY_FEED))
    for minute in range(1, 21):
        at = T0 + minute * MINUTE
        scene.when("feeds", record(at, 100.0 + minute), tick(at))
        if minute < 20:
            assert scene.all(ev.InputResolved) == []
    data = scene.only(ev.InputResolved).data
    assert (data.input_id, data.horizon_seconds, data.last) == (Q1, 0, True)
    assert (data.truth["entry_price"], data.truth["resolved_price"]) == (100.0, 120.0)
    assert data.resolvable_at == T0 + 20 * MINUTE
    scene.when("feeds", resolved({"outcome": 1} | data.truth, at=T0 + 21 * MINUTE))
    assert scene.only(ev.InputResolved).data.revision == 1, "a posted truth corrects the feed's"


def test_a_posted_truth_resolves_it_before_the_feed_does():
    contract = CrunchContract(questions=Questions(), ground_truth_type=Outcome)
    scene = market(contract).when("feeds", posted(**BY_FEED))
    scene.when("feeds", resolved({"outcome": 1}, at=T0 + 1)).then(ev.InputClosed, ev.InputResolved)
    for minute in range(1, 25):
        scene.when("feeds", record(T0 + minute * MINUTE), tick(T0 + minute * MINUTE)).then(ev.InputsUntil)


def test_a_question_waits_for_a_feed_with_a_gap_and_then_has_no_truth():
    contract = CrunchContract(questions=Questions(), gap_wait_seconds=600)
    scene = market(contract).when("feeds", posted(**BY_FEED))
    for minute in [*range(1, 5), *range(6, 21)]:
        at = T0 + minute * MINUTE
        scene.when("feeds", record(at, 100.0), tick(at))
    assert scene.all(ev.InputResolved) == []
    scene.when("feeds", tick(T0 + 29 * MINUTE))
    assert scene.all(ev.InputResolved) == []
    assert until(scene) == T0 + 29 * MINUTE, "it holds no watermark"
    scene.when("feeds", tick(T0 + 30 * MINUTE))
    data = scene.only(ev.InputResolved).data
    assert data.truth is None
    assert data.reason.startswith("gap: 1 of 20 records are missing")
    assert data.resolvable_at >= T0 + 29 * MINUTE, "it counts in a period that is not over"


def test_a_changed_feed_gives_no_truth():
    scene = market().when("feeds", posted(**BY_FEED))
    scene.when(
        "feeds",
        configured(
            questions=ASKED,
            scopes=[],
            effective_from=T0 + MINUTE,
            goes_on=True,
            feed=ev.Feed(source="other", kind="candle", granularity="1m"),
        ),
        tick(T0 + 30 * MINUTE),
    )
    assert "the feed was changed" in scene.only(ev.InputResolved).data.reason


def test_the_records_of_a_question_are_kept_only_while_it_needs_them():
    scene = market().when("feeds", posted(**BY_FEED))
    state = scene.stage.state
    for minute in range(1, 600):
        at = T0 + minute * MINUTE
        scene.when("feeds", record(at, 100.0), tick(at))
        assert state.market.count() <= 122 + 20
    assert state.own.questions.by_feed == {}


# --- what the state holds -------------------------------------------------------------------------------


def test_a_settled_question_is_dropped_with_its_period_and_its_payload_when_it_closes():
    scene = node().when("feeds", posted(payload="x" * 10_000), posted("q2"))
    own = scene.stage.state.own
    scene.when("feeds", tick(CLOSES))
    assert len(msgspec.json.encode(own.questions)) < 3_000
    scene.when("feeds", resolved({"outcome": 1}, at=CLOSES))
    period_end = own.terms.checkpoint_period(CLOSES)[1]
    scene.when("feeds", tick(period_end - 1))
    assert len(own.questions.known) == 2
    scene.when("feeds", tick(period_end))
    assert set(own.questions.known) == {"inp/questions/r1/q2"}
    late = resolved({"outcome": 0}, at=period_end + 1, revision=1)
    assert scene.when("feeds", late).only(ev.InputResolved).data.revision == 2
    scene.when("feeds", voided(at=period_end + 2, revision=2))
    assert scene.only(ev.InputResolved).data.void
    assert set(own.questions.known) == {"inp/questions/r1/q2"}


def test_new_terms_without_questions_leave_posted_questions_unchanged():
    scene = node().when("feeds", posted(opens_at=T0 + MINUTE))
    scene.when("feeds", terms(None, effective_from=T0 + 1, contract_hash="other"), tick(T0 + MINUTE))
    assert scene.only(ev.InputReceived).data.contract_hash == HASH
    scene.when("feeds", resolved({"outcome": 1}, at=T0 + 2 * MINUTE)).then(ev.InputClosed, ev.InputResolved)


def test_the_topology_allows_the_stages_events_in_inputs():
    event_names = [
        kind.__name__ for kind in (ev.QuestionPosted, ev.QuestionVoided, ev.StakesPosted, ev.InputClosed)
    ]
    assert {*event_names, "TruthRefused"} <= set(BY_TOPIC["inputs"].events)


# --- killed and restarted, whatever is posted ---------------------------------------------------------------


def random_post(rng: random.Random, now: int) -> Any:
    """A post of any kind about one of six questions; the feed stage refuses some."""
    name = rng.choice("abcdef")
    match rng.randrange(7):
        case 0 | 1 | 2 | 3:
            opens_at = now + rng.randrange(-HOUR, HOUR)
            closes_at = max(opens_at, now) + rng.randrange(1, 4 * HOUR)
            by_feed = {"resolves_by": SUBJECT, "resolves_at": closes_at + rng.randrange(HOUR)}
            times = {"opens_at": opens_at, "closes_at": closes_at, **(by_feed if rng.random() < 0.4 else {})}
            return post(question(name, payload=rng.randrange(3), **times), at=now)
        case 4:
            truth = {"entry_price": 1, "resolved_price": 2, "return": rng.random()}
            return resolve({name: truth | {"direction_up": rng.choice([True, "x"])}}, at=now)
        case 5:
            return void(name, at=now) if rng.random() < 0.5 else close(name, at=now)
        case _:
            return stakes_post(now, a=str(rng.random()))


def random_questions(seed: int, instants: int = 35) -> MemoryLog:
    """Candles with posts of all kinds among them. Some questions are resolved by the feed."""
    rng = random.Random(seed)
    log = MemoryLog()
    author = Author(log, "feeds")
    asked = Questions(
        ask_missing_seconds=rng.choice([0, 60, 600]),
        ask_again_seconds=rng.choice([0, 900]),
        ask_again_on_change=rng.random() < 0.5,
    ).terms()
    feeds = Node(questions=asked, scopes=[scope()] if rng.random() < 0.5 else [])
    author.write(*feeds.log[0])
    at = T0
    for _ in range(instants):
        at += rng.choice([MINUTE, MINUTE, MINUTE, 7 * MINUTE, 3 * HOUR])
        events: list[Any] = [] if rng.random() < 0.2 else [record(at // MINUTE * MINUTE, 100 + rng.random())]
        for _ in range(rng.randrange(4)):
            events += feeds.tell(random_post(rng, at + rng.choice([0, 5])))[0]
        if rng.random() < 0.8:
            events += feeds.offer(tick=at + rng.randrange(3_000))
        if events:
            author.write(*events)
    author.write(*feeds.offer(tick=at + 12 * HOUR))
    author.write(*feeds.offer(tick=at + 9 * DAY))
    return log


def new_stage() -> InputStage:
    return InputStage(shelf(CrunchContract(questions=Questions(), gap_wait_seconds=1200)))


QUESTION_SCENES: dict[str, Callable[[], MemoryLog]] = {
    f"questions, seed {seed}": lambda seed=seed: random_questions(seed) for seed in range(5)
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if number > 1 else [])
        for number, name in enumerate(QUESTION_SCENES)
    ],
)
def test_killed_after_every_send_the_log_is_that_of_an_undisturbed_run(name):
    sources = QUESTION_SCENES[name]()
    expected = undisturbed(sources, new_stage)
    event_names = {type(event).__name__ for event in expected.events("inputs")}
    assert event_names >= {"InputReceived", "InputClosed", "InputResolved", "QuestionPosted", "InputsUntil"}
    for what, log in killed_everywhere(sources, new_stage, (("feeds",),)):
        assert log.counted("inputs") == expected.counted("inputs"), what


@given_random(st.integers(0, 10**9))
@hypothesis_settings(max_examples=15, deadline=None)
def test_whatever_is_posted_each_question_goes_one_way(seed):
    log = undisturbed(random_questions(seed, 25), new_stage)
    stages: dict[str, list[str]] = {}
    ids_seen: set[str] = set()
    clock = until_ms = -1
    for event in log.events("inputs"):
        assert event.id not in ids_seen
        ids_seen.add(event.id)
        match event:
            case ev.InputReceived(data=data) if data.question is not None:
                stages.setdefault(data.question.input_id, []).append("asked")
                number = stages[data.question.input_id].count("asked")
                assert data.question.asking == number
                assert data.deadline_at <= data.question.closes_at
            case ev.InputClosed(data=data):
                assert data.askings == stages[data.input_id].count("asked")
                stages[data.input_id].append("closed")
            case ev.InputResolved(data=data) if data.input_id.startswith("inp/questions/"):
                assert data.resolvable_at >= until_ms, "it counts in a period that is not over"
                stages.setdefault(data.input_id, []).append("void" if data.void else "resolved")
            case ev.InputsUntil(data=data):
                clock, until_ms = data.clock, data.until
    assert clock > T0
    for input_id, way in stages.items():
        if "asked" not in way:
            continue  # a truth of a question that nobody knows is recorded, and scores nobody
        assert way[0] == "asked", (input_id, way)
        assert way.count("closed") <= 1
        after = way[way.index("closed") :] if "closed" in way else []
        assert "asked" not in after, (input_id, way)
        assert not {"resolved", "void"} & set(way[: len(way) - len(after)]), (input_id, way)
        assert way.count("void") <= 2  # by the node, and by a post in a later period
