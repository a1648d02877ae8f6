"""Posted questions become facts: each once, as a whole, and only if it is possible."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.given import decision, encoded
from tests.streams.build import HOUR, MINUTE, SUBJECT, T0, configured
from tests.streams.questions import ASKED, Node, as_post, close, post, question, raw, resolve, stakes, void

from coordinator.streams import events as ev
from coordinator.streams.contract import Questions, QuestionScope
from coordinator.streams.feeds import post_checks, posted_questions
from coordinator.streams.feeds.order import with_turns
from coordinator.streams.feeds.posts import read_post
from coordinator.streams.feeds.stage import COMMAND_AHEAD_MS_MAX, FeedStage
from coordinator.streams.ports import FeedRecord
from coordinator.streams.topology import BY_TOPIC

DAY = 24 * HOUR


@pytest.fixture
def node() -> Node:
    node = Node()
    node.tick(T0)
    return node


def test_a_question_is_posted_closed_resolved_corrected_and_voided(node):
    assert node.made(post(question("q1"), question("q2"))) == [
        ev.QuestionPosted(
            id=f"question/r1/{name}/r0",
            at=T0,
            data=ev.QuestionPostedData(round_id="r1", question=question(name)),
        )
        for name in ("q1", "q2")
    ]
    assert node.made(close("q1", at=T0 + MINUTE))[0].data == ev.QuestionClosedData(
        round_id="r1", question_id="q1"
    )
    (resolved,) = node.made(resolve({"q1": {"outcome": 1}}, at=T0 + MINUTE))
    assert (resolved.id, resolved.data.revision) == ("question/r1/q1:resolved/r0", 0)
    (corrected,) = node.made(resolve({"q1": {"outcome": 0}}, at=T0 + MINUTE))
    assert (corrected.id, corrected.data.revision) == ("question/r1/q1:resolved/r1", 1)
    voided = node.made(void(at=T0 + MINUTE))
    assert [(event.data.question_id, event.data.revision) for event in voided] == [("q1", 2), ("q2", 0)]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_repeated_post_counts_once(node, restarts):
    for command in (
        post(question()),
        close("q1", at=T0 + 1),
        resolve({"q1": {"a": 1, "b": 2.5}}, at=T0 + 2),
        void("q1", at=T0 + 3),
        stakes(at=T0 + 4, a="1"),
    ):
        assert node.made(command)
        if restarts:
            node.restart()
        assert node.made(command) == []
    node = Node()
    node.made(post(question(payload=msgspec.Raw(b'{"a":1, "b":[1.5 ]}'))))
    assert node.made(post(question(payload=msgspec.Raw(b'{"b":[1.5],"a":1}')))) == []


def test_a_truth_that_is_repeated_on_purpose_is_another_revision(node):
    node.made(post(question()))
    node.made(resolve({"q1": {"outcome": 1}}, at=T0 + 1))
    assert node.made(resolve({"q1": {"outcome": 1}}, at=T0 + 2)) == []
    (again,) = node.made(resolve({"q1": {"outcome": 1}}, at=T0 + 3, again=True))
    assert (type(again), again.data.revision) == (ev.QuestionResolved, 1)
    assert bytes(again.data.truth) == b'{"outcome":1}'
    assert node.made(resolve({"q1": {"outcome": 1}}, at=T0 + 4)) == []


def test_changed_content_of_an_open_question_is_a_revision(node):
    node.made(post(question()))
    (again,) = node.made(post(question(payload={"title": "Will it snow?"})))
    assert (again.id, again.data.revision) == ("question/r1/q1/r1", 1)
    (back,) = node.made(post(question()))
    assert back.data.revision == 2
    (longer,) = node.made(post(question(closes_at=T0 + 20 * MINUTE), at=T0 + 5 * MINUTE))
    assert longer.data.revision == 3
    node.tick(T0 + 15 * MINUTE)
    assert node.made(close("q1", at=T0 + 15 * MINUTE))


def test_stakes_are_posted_when_they_change(node):
    assert [node.made(stakes(a=text))[0].id.split("/")[1] for text in ("1", "2", "1")] == ["1", "2", "3"]
    assert "a" in node.refusals(stakes(a="-1"))
    for text in ("x", "NaN", "inf", "1" * 50, ""):
        assert "no decimal" in node.refusals(stakes(b=text))


def test_the_time_of_a_post_is_bounded_by_the_clock(node):
    node.tick(T0 + MINUTE)
    (early,) = node.made(post(question("early"), at=T0))
    assert early.at == T0 + MINUTE
    (late,) = node.made(post(question("late"), at=T0 + HOUR))
    assert late.at == T0 + MINUTE + COMMAND_AHEAD_MS_MAX


def test_a_post_waits_for_the_first_terms():
    stage = FeedStage()
    stage.absorb(decision("commands", 0, [post(question())]))
    assert (stage.due(), stage.next_draft(), stage.refused()) == (None, None, [])
    stage.remember(decision("feeds", 0, [configured(questions=ASKED)]))
    assert stage.due() == 0
    assert [type(event).__name__ for event in stage.next_draft().events] == ["QuestionPosted"]


LATER = T0 + HOUR
BLOB = ev.Blob(sha256="ab" * 32, bytes=1, media_type="application/octet-stream")
BAD_POSTS: dict[str, tuple[ev.PostedQuestion, str]] = {
    "closes before it opens": (question(closes_at=T0 - 1), "is not after opens_at"),
    "closes when it opens": (question(closes_at=T0), "is not after opens_at"),
    "closed already": (question(opens_at=T0 - HOUR, closes_at=T0 - MINUTE), "is over"),
    "a slash": (question("a/b"), "question_id 'a/b'"),
    "a tilde": (question("a~2"), "question_id"),
    "no name": (question(""), "question_id"),
    "a long name": (question("q" * 101), "question_id"),
    "a line end": (question("q1\n"), "question_id"),
    "a large payload": (question(payload=raw("x" * 262_143)), "put the table into a blob"),
    "seconds": (question(opens_at=T0 // 1000, closes_at=T0 // 1000 + 60), "times are ms"),
    "microseconds": (question(closes_at=T0 * 1000), "times are ms"),
    "far away": (question(resolves_at=T0 + 20 * 365 * DAY), "within 10 years"),
    "another feed": (question(resolves_by="DOGE", resolves_at=LATER), "is no subject of the feed"),
    "no time of resolution": (question(resolves_by=SUBJECT), "says not when"),
    "resolved before the close": (
        question(resolves_by=SUBJECT, resolves_at=T0 + MINUTE),
        "is before closes_at",
    ),
    "resolved after a year of minutes": (
        question(resolves_by=SUBJECT, resolves_at=T0 + 365 * DAY),
        "post its truth",
    ),
    "no sha256": (question(blob=msgspec.structs.replace(BLOB, sha256="xyz")), "is no sha256"),
    "a negative size": (question(blob=msgspec.structs.replace(BLOB, bytes=-1)), "below 0"),
    "a large blob": (question(blob=msgspec.structs.replace(BLOB, bytes=60_000_001)), "at most"),
    "a wide blob": (
        question(blob=msgspec.structs.replace(BLOB, columns=[("a", "int64")] * 10_001)),
        "10001 columns",
    ),
    "many tags": (question(tags=["t"] * 101), "tags"),
    "an empty tag": (question(tags=[""]), "tags"),
}


@pytest.mark.parametrize("name", BAD_POSTS)
def test_an_impossible_question_is_refused_with_its_whole_post(node, name):
    bad, words = BAD_POSTS[name]
    assert words in node.refusals(post(question("good"), bad))
    assert node.stage.own.posted.questions == {}
    node.made(post(question("good")))


def test_a_round_with_an_invalid_name_or_size_is_refused(node):
    for name in ("a/b", "", "../x", "q" * 101, "-r"):
        for command in (post(question()), close("q1"), resolve({"q1": 1}), void("q1")):
            data = msgspec.structs.replace(command.data, round_id=name)
            assert "round_id" in node.refusals(msgspec.structs.replace(command, data=data))
    assert "0 questions" in node.refusals(post())
    assert "0 truths" in node.refusals(resolve({}))
    many = [question(f"q{number}") for number in range(post_checks.QUESTIONS_MAX + 1)]
    assert "10001 questions" in node.refusals(post(*many))
    assert "10001 truths" in node.refusals(resolve({asked.question_id: 1 for asked in many}))
    assert "10001 questions" in node.refusals(close(*(asked.question_id for asked in many)))
    assert node.stage.own.posted.questions == {}


def test_the_same_question_twice_in_a_post_with_different_content_is_refused(node):
    assert "twice" in node.refusals(post(question(), question(payload={"title": "?"})))
    assert len(node.made(post(question(), question()))) == 1


def test_tags_that_match_no_scope_are_refused():
    scopes = (QuestionScope(scope_key="w", tags=("Weather",)), QuestionScope(scope_key="s", tags=("Sport",)))
    node = Node(questions=Questions(scopes=scopes).terms())
    assert "Sport" in node.refusals(post(question(tags=["Politics"])))
    assert node.made(post(question(tags=["Politics", "Weather"])))


def test_no_question_can_be_posted_if_the_contract_has_none():
    node = Node(questions=None)
    assert "CrunchContract(questions=Questions())" in node.refusals(post(question()))


def test_an_impossible_truth_is_refused(node):
    node.made(post(question(), question("later", opens_at=LATER, closes_at=LATER + 1)))
    assert "no such question" in node.refusals(resolve({"other": 1}))
    assert "no such question" in node.refusals(resolve({"q1": 1}, round_id="other"))
    assert "no such question" in node.refusals(resolve({"q1": 1, "other": 1}))
    assert "before that is none" in node.refusals(resolve({"later": 1}))
    assert "null is no truth" in node.refusals(resolve({"q1": None}))
    assert "a truth of" in node.refusals(resolve({"q1": "x" * post_checks.TRUTH_BYTES_MAX}))
    node.made(void("q1"))
    assert "it is void" in node.refusals(resolve({"q1": 1}))
    assert "it is void" in node.refusals(post(question(payload={"title": "?"})))


def test_a_question_that_cannot_be_closed_or_voided_is_refused(node):
    node.made(post(question(), question("later", opens_at=LATER, closes_at=LATER + 1)))
    assert "is voided" in node.refusals(close())
    assert "is voided" in node.refusals(close("later"))
    for command in (close("other"), void("other")):
        assert "no such question" in node.refusals(command)
    for command in (close(round_id="other"), void(round_id="other")):
        assert "no question of such a round" in node.refusals(command)
    assert "without a reason" in node.refusals(void("q1", reason=" "))
    assert len(node.made(void("later"))) == 1


def test_an_open_question_keeps_its_scope_and_a_closed_one_all_its_content(node):
    node.made(post(question(), question("later", opens_at=LATER, closes_at=LATER + MINUTE)))
    assert "cannot change" in node.refusals(post(question(tags=["x"])))
    assert node.made(post(question("later", tags=["x"], opens_at=LATER + 1, closes_at=LATER + MINUTE)))
    node.made(close("q1", at=T0 + 1))
    assert "it takes no more answers" in node.refusals(post(question(payload=1), at=T0 + 2))
    node.made(resolve({"q1": 1}, at=T0 + 2))
    assert "it is resolved" in node.refusals(post(question(payload=1), at=T0 + 2))


def test_many_refusals_are_counted(node):
    refused = node.tell(resolve({f"q{number}": 1 for number in range(500)}))[1]
    assert len(refused) == 101
    assert refused[-1] == ("post", "400 more of its items are refused")


def test_waiting_posts_are_bounded(node, monkeypatch):
    monkeypatch.setattr("coordinator.streams.feeds.posts.WAITING_MAX", 3)
    monkeypatch.setattr("coordinator.streams.feeds.posts.WAITING_BYTES_MAX", 1_000)
    node.made(post(question("a"), question("b")))
    assert "more than 3 questions" in node.refusals(post(question("c"), question("d")))
    assert "put tables into blobs" in node.refusals(post(question("c", payload="x" * 1_000)))
    assert node.made(post(question("c")))


def test_a_settled_question_is_dropped_with_its_period_and_can_be_corrected_until_then(node, monkeypatch):
    monkeypatch.setattr(posted_questions, "PAST_KEPT", 8)
    node.made(post(question("a"), question("b"), question("open")))
    node.made(resolve({"a": 1}))
    node.made(void("b"))
    own = node.stage.own
    period_end = own.terms.checkpoint_period(T0)[1]
    node.tick(period_end - 1)
    assert set(own.posted.questions) == {"r1/a", "r1/b", "r1/open"}
    node.tick(period_end)
    assert set(own.posted.questions) == {"r1/open"}
    assert set(own.posted.past) == {"r1/a", "r1/b"}
    assert node.made(resolve({"a": 1})) == []
    (corrected,) = node.made(resolve({"a": 2}))
    assert corrected.data.revision == 1
    assert node.made(resolve({"a": 2})) == []
    assert "it is void" in node.refusals(resolve({"b": 1}))
    fresh = question("a", opens_at=period_end, closes_at=period_end + HOUR)
    assert "earlier checkpoint period" in node.refusals(post(fresh))
    assert node.made(void("a"))[0].data.revision == 2
    for number in range(20):
        late = question(f"n{number}", opens_at=period_end, closes_at=period_end + HOUR)
        node.made(post(late))
        node.made(void(late.question_id))
    node.tick(period_end + 40 * DAY)
    assert len(own.posted.past) <= 9
    assert set(own.posted.questions) == {"r1/open"}


# --- a source of questions ------------------------------------------------------------------------------


def test_a_sources_post_makes_the_same_facts_once(node):
    by_command = Node()
    by_command.tick(T0)
    commands = [post(question()), resolve({"q1": 1}, at=T0 + 1), void("q1", at=T0 + 2), stakes(a="1")]
    for number, command in enumerate(commands):
        facts = node.offer((T0 + number, as_post(command)))
        assert [type(fact).__name__ for fact in facts[1:]] == ["PostReceived"]
        (wanted,) = by_command.made(msgspec.structs.replace(command, at=T0 + number))
        assert encoded_event(facts[0]) == encoded_event(wanted)
        node.restart()
        assert node.offer((T0 + number, as_post(command))) == [], "delivered again"


def encoded_event(event: ev.AnyEvent) -> bytes:
    return msgspec.json.encode(event)


def test_simultaneous_posts_are_decided_one_after_another(node):
    commands = [
        post(question()),
        post(question(payload={"title": "?"})),
        resolve({"q1": 1}),
        resolve({"q1": 2}),
    ]
    facts = node.offer(*((T0, as_post(command)) for command in commands), tick=T0 + 1)
    assert [type(fact).__name__ for fact in facts] == [
        *["QuestionPosted", "PostReceived"] * 2,
        *["QuestionResolved", "PostReceived"] * 2,
        "ClockTicked",
    ]
    again = node.offer(*((T0, as_post(command)) for command in commands), tick=T0 + 2)
    assert [type(fact).__name__ for fact in again] == ["ClockTicked"], "an older revision is no new one"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no post"),
        ("{", "no post"),
        ("[1]", "no post"),
        ('{"do": "delete"}', "no post"),
        ('{"do": "post", "round_id": "r1"}', "questions"),
        ('{"do": "post", "round_id": "r1", "questions": [{"question_id": "q1"}]}', "questions[0]"),
        ('{"do": "resolve", "round_id": "r1", "truths": {"q1": 1}}', "no such question"),
        ("[" * 100_000, "no post"),
        ('{"do": "void", "round_id": "r1", "reason": "\ud800"}', "no post"),
    ],
)
def test_an_impossible_post_of_a_source_is_recorded_with_its_reason(node, text, words):
    (received,) = node.offer((T0, text))
    ((_, reason),) = received.data.refused
    assert words in reason
    assert node.offer((T0, text)) == []


def test_a_post_is_bounded():
    with pytest.raises(ValueError, match="are allowed"):
        read_post(" " * 8_000_001)


def test_the_remembered_posts_are_bounded(node, monkeypatch):
    monkeypatch.setattr(posted_questions, "POSTS_KEPT", 8)
    for number in range(30):
        node.offer((T0 + number, {"do": "stakes", "stakes": {"a": str(number)}}))
    assert len(node.stage.own.posted.posts) <= 9


def test_records_of_other_kinds_are_unaffected(node):
    ticks = FeedRecord("questions", "x", "tick", "1s", T0, T0, {"price": "1"})
    draft = node.stage.offer([ticks], None, rehearsal=False)
    assert [type(event).__name__ for event in draft.events] == ["FeedRecordReceived"]


def test_the_topology_allows_the_stages_events_in_feeds(node):
    node.offer((T0, as_post(post(question()))), tick=T0 + 1)
    assert set(node.kinds()) <= set(BY_TOPIC["feeds"].events)


# --- whatever is posted, however it is restarted -------------------------------------------------------------

NAMES = ("a", "b", "c")


def random_post(rng: random.Random, now: int) -> Any:
    name = rng.choice(NAMES)
    match rng.randrange(6):
        case 0 | 1:
            opens_at = now + rng.randrange(-HOUR, 3 * HOUR)
            return post(
                question(
                    name,
                    opens_at=opens_at,
                    closes_at=opens_at + rng.randrange(-MINUTE, 5 * HOUR),
                    payload=rng.randrange(3),
                    tags=rng.choice([[], ["x"]]),
                ),
                question("a", opens_at=now, closes_at=now + DAY),
                at=now,
            )
        case 2:
            return close(*rng.choice([(), (name,)]), at=now)
        case 3:
            return resolve({name: rng.randrange(3)}, at=now)
        case 4:
            return void(*rng.choice([(), (name,)]), at=now)
        case _:
            return stakes(a=str(rng.randrange(2)), at=now)


def played(seed: int, *, restarts: bool) -> Node:
    rng, dice = random.Random(seed), random.Random(seed + 1)
    node, now = Node(), T0
    for _ in range(40):
        now += rng.choice([0, 1, MINUTE, HOUR, 3 * DAY])
        match rng.randrange(4):
            case 0:
                node.tick(now)
            case 1:
                node.offer(*((now, as_post(random_post(rng, now))) for _ in range(rng.randrange(1, 4))))
            case _:
                node.tell(random_post(rng, now + rng.randrange(-DAY, DAY)))
        if restarts and dice.random() < 0.3:
            before = msgspec.json.encode(node.stage.state)
            node.restart()
            assert msgspec.json.encode(node.stage.state) == before
    return node


@given(st.integers(0, 10**9))
def test_the_log_is_the_same_after_any_restarts(seed):
    undisturbed, restarted = played(seed, restarts=False), played(seed, restarts=True)
    assert [list(map(encoded_event, events)) for events in undisturbed.log] == [
        list(map(encoded_event, events)) for events in restarted.log
    ]
    ids_seen = [event.id for events in undisturbed.log for event in events]
    assert len(set(ids_seen)) == len(ids_seen), "an id is given once"


def test_deciding_a_post_changes_nothing(node):
    node.made(post(question()))
    node.stage.absorb(decision("commands", 1, [resolve({"q1": 1})]))
    before = msgspec.json.encode(node.stage.state)
    first, second = node.stage.next_draft(), node.stage.next_draft()
    assert encoded(first) == encoded(second)
    assert msgspec.json.encode(node.stage.state) == before


def test_a_replay_stops_at_the_opening_and_closing_of_questions(node):
    node.made(post(question("a", opens_at=LATER, closes_at=LATER + HOUR), question("b")))
    groups = with_turns([(T0 + 5, []), (T0 + DAY, [])], node.stage.turn_before)
    seen = []
    for at, _ in groups:
        seen.append(at)
        node.tick(at)
    assert seen == [T0 + 5, T0 + 10 * MINUTE, LATER, LATER + HOUR, T0 + DAY]


@pytest.mark.parametrize("payload", [b'{"a":1e999}', b'{"a":[1,-1e400]}'])
def test_a_number_that_no_reader_can_store_is_refused_and_the_stage_goes_on(payload):
    node = Node()
    node.tick(T0)
    assert "its payload cannot be read" in node.refusals(post(question(payload=msgspec.Raw(payload))))
    assert node.made(post(question())) != []


@pytest.mark.parametrize("stake", ["1e400", "1e31", "NaN", "-0.1", "1" * 41])
def test_a_stake_that_is_not_a_finite_number_is_refused(stake):
    node = Node()
    node.tick(T0)
    assert "is no decimal from 0 to 1e30" in node.refusals(stakes(m1=stake))
