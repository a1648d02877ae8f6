"""Posting rounds and handing in answers over the API: as a whole or not at all, decided, and visible when the answer
comes.
"""

from __future__ import annotations

import hashlib

import httpx
import msgspec
import pytest
from tests.api.conftest import parts_over
from tests.logs import HOUR_MS, START_MS, LogBuilder
from tests.posted import Posted, add_questions

from coordinator.api import round_answers
from coordinator.api.access import Rules
from coordinator.api.app import BesideReadModels, create_app
from coordinator.api.commands import Sender
from coordinator.api.keys import KeyRing, Scope, make_entry, parse_entries
from coordinator.infra.rounds.checking import checked_here
from coordinator.streams import events as ev
from coordinator.streams import large_answers
from coordinator.streams.agents.owning.dead_letters import dead_letter
from coordinator.streams.contract import CrunchContract
from coordinator.streams.log import ids
from coordinator.streams.log.errors import OutcomeUnknownError, WorldError

NOW = START_MS + 5 * HOUR_MS
LATER = START_MS + 50 * HOUR_MS
ADMIN, ADMIN_LINE = make_entry("ops", Scope.ADMIN, "s" * 43)
ADA, ADA_LINE = make_entry("ada", Scope.SUBMIT, "t" * 43, "m9", "c9")


class Stage:
    """The decisions of the feed and the predict worker on a command. `refuses`: item -> reason. `mute`: none yet."""

    def __init__(self, projector, log):
        self.projector, self.log, self.sent = projector, log, []
        self.refuses, self.mute, self.fails, self.now = {}, False, None, NOW

    async def send(self, command):
        if self.fails is not None:
            raise self.fails
        self.sent.append(command)
        if not self.mute:
            self._decide(command, len(self.sent) - 1)
            for topic in ("feeds", "inputs", "predictions", "dead-letters"):
                start = self.projector.folder.readers[topic].next_offset
                await self.projector.take(topic, list(enumerate(self.log.records[topic][start:], start)))
        return len(self.sent) - 1

    def _decide(self, command, offset):
        data, at = command.data, command.at
        facts = []
        for item, fact in self._facts(command, at):
            if item in self.refuses:
                place, body = f"{offset} {item}", command.id  # as the feed worker writes it
                if isinstance(data, ev.SubmitAnswersData):
                    place, body = str(offset), f"{command.id} {item}"  # as the predict worker writes it
                letter = dead_letter("commands", place, self.refuses[item], body.encode(), at)
                self.log.append("dead-letters", letter)
            else:
                facts.append(fact)
        if len(facts) < len(list(self._facts(command, at))):
            return  # as a whole, or not at all
        if facts and isinstance(data, ev.SubmitAnswersData):
            for input_id in facts:
                self.log.append("predictions", self.log._opened(input_id, at, [data.model_id], ["question"]))
        elif facts:
            self.log.append("feeds", *facts, upto={"commands": (offset, 0)})

    def _facts(self, command, at):
        match data := command.data:
            case ev.PostQuestionsData():
                for fact in data.questions:
                    posted = ev.QuestionPostedData(round_id=data.round_id, question=fact)
                    yield (
                        fact.question_id,
                        ev.QuestionPosted(id=f"q/{fact.question_id}/{at}", at=at, data=posted),
                    )
            case ev.ResolveQuestionsData():
                for name, truth in data.truths.items():
                    before = [
                        command.data for command in self.sent if isinstance(command, ev.ResolveQuestions)
                    ]
                    revision = sum(name in data.truths for data in before) - 1
                    decided = ev.QuestionResolvedData(
                        round_id=data.round_id, question_id=name, truth=truth, revision=revision
                    )
                    yield name, ev.QuestionResolved(id=f"q/{name}:resolved", at=at, data=decided)
            case ev.CloseQuestionsData():
                for name in data.question_ids:
                    decided = ev.QuestionClosedData(round_id=data.round_id, question_id=name)
                    yield name, ev.QuestionClosed(id=f"q/{name}:closed", at=at, data=decided)
            case ev.VoidQuestionsData():
                for name in data.question_ids:
                    decided = ev.QuestionVoidedData(
                        round_id=data.round_id, question_id=name, reason=data.reason
                    )
                    yield name, ev.QuestionVoided(id=f"q/{name}:voided", at=at, data=decided)
            case ev.StakesPostedData():
                yield "stakes", ev.StakesPosted(id=f"stakes/{at}", at=at, data=data)
            case ev.SubmitAnswersData():
                for fact in data.answers:
                    asked = ids.question_input_id(data.round_id, fact.question_id)
                    yield (
                        fact.question_id,
                        ids.submission_input_id(asked, command.id, data.model_id, data.sha256),
                    )


@pytest.fixture
def log():
    log = LogBuilder()
    log.terms()
    for name in ("m1", "m2", "m3"):
        log.model(name)
    add_questions(log)
    Posted(log).post("week-3", "closed-soon", closes=60 * HOUR_MS)
    return log


@pytest.fixture
async def node(tmp_path, log):
    with parts_over(tmp_path, log) as parts:
        stage = Stage(parts.projector, log)
        sender = Sender(parts.projector, stage, wait_seconds=0.2, now_ms=lambda: stage.now)
        rules = Rules(KeyRing(parse_entries(f"{ADMIN_LINE}\n{ADA_LINE}", "tests")))
        app = create_app(
            parts.settings,
            sender,
            rules=rules,
            beside=BesideReadModels(
                check=lambda hand_in: checked_here(hand_in, lambda _hash: CrunchContract(crunch_pubkey=None))
            ),
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:

            async def call(path, body=None, code=200, key=ADMIN, **params):
                content = body if isinstance(body, bytes) else msgspec.json.encode(body)
                answer = await client.post(path, content=content, params=params, headers={"X-API-Key": key})
                assert answer.status_code == code, answer.text
                return answer.json()

            yield call, stage, client


def questions(*names, **changes):
    return {
        "questions": [
            {"question_id": name, "payload": {"x": 1}, "closes_at": LATER} | changes for name in names
        ]
    }


async def test_a_round_is_posted_and_visible_when_the_answer_comes(node):
    call, stage, client = node
    body = await call("/rounds", questions("a", "b"), round_id="week-9")
    assert (body["round_id"], body["accepted"], body["undecided"]) == ("week-9", 2, 0)
    shown = (await client.get("/reports/rounds/week-9")).json()
    assert (shown["questions"], shown["upcoming"]) == (2, 2)
    first = (await client.get("/reports/rounds/week-9/questions/a")).json()["opens_at"]
    stage.now = NOW + 60_000  # the same post again, a minute later
    assert (await call("/rounds", questions("a", "b"), round_id="week-9"))["accepted"] == 2
    assert [command.data.questions[0].opens_at for command in stage.sent] == [NOW, NOW]
    assert (await client.get("/reports/rounds/week-9/questions/a")).json()["opens_at"] == first


async def test_a_table_is_posted_together_with_other_fields(node):
    call, stage, _ = node
    await call("/rounds", b"id,f\na,0.5\n", round_id="week-9", question_id="live", closes=str(LATER))
    (question,) = stage.sent[0].data.questions
    assert (question.question_id, question.opens_at, question.closes_at) == ("live", NOW, LATER)
    assert bytes(question.payload) == b'{"columns":{"id":["a"],"f":[0.5]}}'


LARGE = b"id,f\n" + b"".join(b"row-%d,0.5\n" % row for row in range(30_000))


async def test_a_large_table_is_stored_beside_the_log_and_named_in_the_post(node):
    call, stage, client = node
    await call("/rounds", LARGE, round_id="week-9", closes=str(LATER))
    (question,) = stage.sent[0].data.questions
    blob = question.blob
    content = (stage.projector.settings.data_dir / "blobs" / blob.sha256).read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content), blob.rows) == (blob.sha256, blob.bytes, 30_000)
    shown = (await client.get("/reports/rounds/week-9/questions/table")).json()
    assert (shown["blob_sha256"], shown["blob_rows"]) == (blob.sha256, 30_000)


async def test_a_table_that_cannot_be_stored_is_not_posted(node):
    call, stage, _ = node
    data_dir = stage.projector.settings.data_dir
    (data_dir / "blobs").write_text("no folder")
    refused = await call("/rounds", LARGE, 503, round_id="week-9", closes=str(LATER))
    assert "cannot store the table" in str(refused)
    assert str(data_dir) not in str(refused)
    assert stage.sent == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"questions": [{"question_id": "a"', "cut short"),
        (questions("a", "a/b"), "question 2: question_id is 'a/b'"),
        (questions("a", closes_at=NOW - 1, opens_at=NOW - 2), "which is in the past"),
        (questions("a", "a"), "occurs twice"),
        (b"", "is empty"),
    ],
)
async def test_a_body_with_a_fault_is_refused_and_nothing_is_sent(node, body, reason):
    call, stage, _ = node
    assert reason in (await call("/rounds", body, 422, round_id="week-9"))["detail"]
    assert stage.sent == []


async def test_refusals_of_the_stage_are_returned_by_item(node):
    call, stage, client = node
    stage.refuses = {"b": "no scope fits its tags"}
    body = await call("/rounds", questions("a", "b"), 409, round_id="week-9")
    assert body["refused"] == [{"item": "b", "reason": "no scope fits its tags"}]
    assert "and with them the whole post" in body["detail"]
    (command,) = stage.sent
    state = (await client.get(f"/reports/commands/{command.id}")).json()
    assert (state["state"], state["reason"]) == ("refused", "b: no scope fits its tags")


async def test_an_undecided_post_is_202_and_an_unwritten_one_503(node):
    call, stage, _ = node
    stage.mute = True
    assert (await call("/rounds", questions("a"), 202, round_id="week-9"))["undecided"] == 1
    stage.fails = WorldError("Kafka is gone")
    assert "Kafka is gone" in (await call("/rounds", questions("a"), 503, round_id="week-9"))["detail"]
    stage.fails = OutcomeUnknownError("it may still arrive")
    assert "may still arrive" in (await call("/rounds", questions("a"), 202, round_id="week-9"))["detail"]


async def test_truths_are_posted_by_id_and_corrected(node):
    call, stage, client = node
    assert (await call("/rounds/week-1/resolve", {"late": {"outcome": 0}}))["accepted"] == 1
    shown = (await client.get("/reports/rounds/week-1/questions/late")).json()
    assert shown["truth"] == {"outcome": 0}
    await call("/rounds/week-1/resolve", {"late": {"outcome": 0}, "nobody": 1}, 404)
    await call("/rounds/week-8/resolve", {"late": 1}, 404)
    twice = b'[{"question_id":"late","truth":1},{"question_id":"late","truth":2}]'
    assert "two different truths" in (await call("/rounds/week-1/resolve", twice, 422))["detail"]
    stage.refuses = {"taken-back": "it is void"}
    body = await call("/rounds/week-1/resolve", {"taken-back": 1}, 409)
    assert "it is void" in body["detail"]


async def test_a_truth_is_recorded_again_if_the_request_says_so(node):
    call, stage, _ = node
    await call("/rounds/week-1/resolve", {"late": {"outcome": 0}})
    assert (await call("/rounds/week-1/resolve", {"late": {"outcome": 0}}, again=True))["undecided"] == 0
    assert [command.data.again for command in stage.sent] == [False, True]
    stage.refuses = {"late": "it is void"}  # what was recorded before does not answer this command
    await call("/rounds/week-1/resolve", {"late": {"outcome": 0}}, 409, again=True)


async def test_a_round_is_closed_and_voided_as_a_whole_or_in_part(node):
    call, stage, client = node
    assert (await call("/rounds/week-2/close"))["accepted"] == 1
    assert stage.sent[-1].data.question_ids == ["open"]
    assert (await call("/rounds/week-1/void", reason="a mistake", question_id="late"))["accepted"] == 1
    await call("/rounds/week-1/void", reason="a mistake")
    assert stage.sent[-1].data.question_ids == ["due", "later"]
    shown = (await client.get("/reports/rounds/week-1")).json()["questions_shown"]
    assert {question["state"] for question in shown} == {"void"}
    await call("/rounds/week-1/void", code=422)
    await call("/rounds/week-1/close", code=404, question_id="nobody")
    assert (await call("/rounds/week-1/close"))["accepted"] == 0


async def test_the_table_of_stakes_is_replaced(node):
    call, _, client = node
    await call("/stakes", b"model_id,stake\nm1,2.5\n")
    assert (await client.get("/reports/stakes")).json()["stakes"] == {"m1": "2.5"}
    await call("/stakes", {"m1": -1}, 422)


# --- answers ---------------------------------------------------------------------------------------


async def test_answers_are_recorded_for_the_model_of_the_key_and_the_receipt_names_them(node):
    call, stage, _ = node
    body = b'{"open": {"value": 0.25}}'
    receipt = await call("/rounds/week-2/answers", body, key=ADA)
    assert (receipt["model_id"], receipt["cruncher_id"], receipt["recorded"]) == ("m9", "c9", 1)
    assert receipt["sha256"] == hashlib.sha256(body).hexdigest()
    (command,) = stage.sent
    assert (command.data.model_id, command.data.cruncher_id, command.data.sha256) == (
        "m9",
        "c9",
        receipt["sha256"],
    )
    (answer,) = command.data.answers
    assert (answer.question_id, answer.scope_key) == ("open", "question")
    assert msgspec.json.decode(answer.output) == {"value": 0.25}


async def test_a_large_answer_is_named_in_the_command_and_stored_in_the_data_directory(node, monkeypatch):
    monkeypatch.setattr(large_answers, "ANSWER_BYTES_MAX", 10)
    call, stage, _ = node
    await call("/rounds/week-2/answers", b'{"open": {"value": 0.25}}', key=ADA)
    (answer,) = stage.sent[0].data.answers
    assert answer.output == ev.NO_OUTPUT
    content = (stage.projector.settings.data_dir / "blobs" / answer.blob.sha256).read_bytes()
    assert (msgspec.json.decode(content), len(content)) == ({"value": 0.25}, answer.blob.bytes)


@pytest.mark.parametrize(
    ("path", "body", "code", "reason"),
    [
        (
            "week-2",
            {"open": {"valu": 1}},
            422,
            "answer 1: question 'open': BAD_OUTPUT: none of the fields ['value']",
        ),
        ("week-2", {"open": "x"}, 422, "BAD_OUTPUT"),
        ("week-2", {"open": 0.5, "other": 0.5}, 422, "answer 2: question 'other' takes no answers"),
        ("week-1", {"due": 0.5}, 409, "no question of round week-1 accepts answers now"),
        ("week-8", {"due": 0.5}, 404, "no round 'week-8'"),
        ("week-2", b"", 422, "is empty"),
    ],
)
async def test_a_wrong_answer_is_refused_with_its_row_and_nothing_is_sent(node, path, body, code, reason):
    call, stage, _ = node
    assert reason in (await call(f"/rounds/{path}/answers", body, code, key=ADA))["detail"]
    assert stage.sent == []


async def test_a_model_hands_in_a_bounded_number_of_answers_in_an_hour(node, monkeypatch):
    monkeypatch.setattr(round_answers, "ANSWERS_PER_HOUR_MAX", 3)
    call, stage, _ = node
    for code in (200, 200, 200, 429, 429):
        await call("/rounds/week-2/answers", {"open": 0.5}, code, key=ADA)
    assert len(stage.sent) == 3


async def test_a_file_with_too_many_answers_for_the_hour_does_not_count(node, monkeypatch):
    # Not 3: the limiter lives as long as the process, and counts each limit by itself.
    monkeypatch.setattr(round_answers, "ANSWERS_PER_HOUR_MAX", 5)
    call, stage, _ = node

    async def six_answers(*arguments):
        return await in_turn(*arguments) * 6

    in_turn = round_answers.in_turn
    monkeypatch.setattr(round_answers, "in_turn", six_answers)
    await call("/rounds/week-2/answers", {"open": 0.5}, 429, key=ADA)
    monkeypatch.setattr(round_answers, "in_turn", in_turn)
    await call("/rounds/week-2/answers", {"open": 0.5}, 200, key=ADA)
    assert len(stage.sent) == 1


async def test_an_answer_after_the_close_is_refused_by_the_stage(node):
    call, stage, _ = node
    stage.refuses = {"open": "closed at 2023-03-11"}
    body = await call("/rounds/week-2/answers", {"open": 0.5}, 409, key=ADA)
    assert body["refused"] == [{"item": "open", "reason": "closed at 2023-03-11"}]


async def test_no_answer_is_taken_after_the_close_while_the_clock_stands_still(node):
    call, stage, _ = node
    closes_at = START_MS + 40 * HOUR_MS
    clock = stage.projector.read.feeds.clock = closes_at - HOUR_MS
    for now, code in (
        (closes_at - 1, 200),
        (closes_at, 409),
        (clock + 23 * HOUR_MS, 409),
        (clock + 25 * HOUR_MS, 200),
    ):
        stage.now = now
        await call("/rounds/week-2/answers", {"open": 0.5}, code, key=ADA)


async def test_a_question_that_was_closed_early_takes_no_answers(node):
    call, _, _ = node
    await call("/rounds/week-2/close")
    await call("/rounds/week-2/answers", {"open": 0.5}, 409, key=ADA)
