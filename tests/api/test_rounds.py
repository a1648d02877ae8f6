"""Posted questions over the API: rounds, questions, the overview of events, and what is hidden until when."""

from __future__ import annotations

import pytest
from tests.logs import HOUR_MS, START_MS, LogBuilder
from tests.posted import Posted, add_questions

from coordinator.api.times import zulu


@pytest.fixture
def log():
    log = LogBuilder()
    log.terms()
    for name in ("m1", "m2", "m3"):
        log.model(name)
    add_questions(log)
    return log


async def test_rounds_are_listed_newest_first_with_their_counts(api):
    rows = await api.get("/reports/rounds")
    assert [row["round_id"] for row in rows] == ["week-2", "week-1"]
    assert rows[1] == {
        "round_id": "week-1",
        "state": "closed",
        "posted_at": zulu(START_MS),
        "opens_at": zulu(START_MS),
        "closes_at": zulu(START_MS + 30 * HOUR_MS),
        "questions": 5,
        "upcoming": 1,
        "open": 0,
        "closed": 1,
        "resolved": 1,
        "void": 2,
    }
    assert [row["round_id"] for row in await api.get("/reports/rounds", state="open")] == ["week-2"]
    await api.get("/reports/rounds", 422, state="gone")


async def test_the_lists_continue_after_their_cursors(api):
    first = await api.client.get("/reports/rounds", params={"limit": 1})
    assert [row["round_id"] for row in first.json()] == ["week-2"]
    second = await api.get("/reports/rounds", limit=1, cursor=first.headers["X-Next-Cursor"])
    assert [row["round_id"] for row in second] == ["week-1"]
    question_ids, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        answer = await api.client.get("/reports/rounds/week-1", params=params)
        question_ids += [question["question_id"] for question in answer.json()["questions_shown"]]
        cursor = answer.headers.get("X-Next-Cursor")
        if cursor is None:
            break
    assert question_ids == ["due", "late", "later", "never-asked", "taken-back"]


async def test_a_question_is_shown_with_its_truth_or_why_there_is_none(api):
    shown = {
        question["question_id"]: question
        for question in (await api.get("/reports/rounds/week-1"))["questions_shown"]
    }
    assert (shown["due"]["state"], shown["due"]["truth"]) == ("resolved", {"outcome": 1})
    assert shown["due"]["resolved_at"] == zulu(START_MS + 3 * HOUR_MS)
    assert shown["late"]["truth_refused"] == "outcome: Field required"
    assert shown["taken-back"]["payload"] == [[1.5, 2.5]]
    assert shown["never-asked"]["reason"] == "it was annulled"


async def test_what_was_not_posted_is_404(api):
    await api.get("/reports/rounds/week-9", 404)
    await api.get("/reports/rounds/week-1/questions/none", 404)


async def test_the_answers_to_a_question_are_shown_after_its_close(api):
    answers = {
        answer["model_id"]: answer
        for answer in (await api.get("/reports/rounds/week-1/questions/due"))["answers"]
    }
    assert (answers["m1"]["output"], answers["m1"]["score"]) == ({"value": 0.75}, {"value": 0.0625})
    assert (answers["m3"]["status"], answers["m3"]["reason"]) == ("ABSENT", "past the deadline")


@pytest.mark.parametrize("as_of", [None, START_MS + 30 * 60_000])
async def test_no_answer_to_an_open_question_is_shown_live_or_as_of(api, as_of):
    at = {} if as_of is None else {"as_of": as_of}
    path = "week-2/questions/open" if as_of is None else "week-1/questions/due"
    answers = (await api.get(f"/reports/rounds/{path}", **at))["answers"]
    assert {answer["model_id"] for answer in answers} >= {"m1", "m2"}
    assert all(answer["output"] is None and answer["score"] is None for answer in answers)
    assert {answer["output_hidden"] for answer in answers if answer["status"] == "PENDING"} == {True}
    events = {event["event_id"]: event for event in (await api.get("/events/overview", **at))["events"]}
    name = "week-2/open" if as_of is None else "week-1/due"
    assert events[name]["predictions"] == []
    assert not events[name]["resolved"]


async def test_the_overview_of_events_has_the_fields_of_the_web_app(api):
    body = await api.get("/events/overview")
    assert (body["total"], body["resolved_count"], body["pending_count"]) == (4, 1, 3)
    assert [event["event_id"] for event in body["events"]] == [
        "week-2/open",
        "week-1/later",
        "week-1/late",
        "week-1/due",
    ]
    assert body["events"][3] == {
        "event_id": "week-1/due",
        "title": "Due?",
        "description": "",
        "source": "desk",
        "cutoff": zulu(START_MS + HOUR_MS),
        "yes_price": 0.4,
        "outcome": 1.0,
        "resolved": True,
        "performed_at": zulu(START_MS)[:-1],
        "predictions": [
            {
                "model_id": "m1",
                "model_name": "name of m1",
                "prediction": 0.75,
                "brier_score": 0.0625,
                "scored": True,
            },
            {
                "model_id": "m2",
                "model_name": "name of m2",
                "prediction": 0.25,
                "brier_score": 0.5625,
                "scored": True,
            },
        ],
    }
    late = body["events"][2]["predictions"]
    assert [
        (prediction["prediction"], prediction["brier_score"], prediction["scored"]) for prediction in late
    ] == [
        (0.75, None, False),
        (0.25, None, False),
    ]


async def test_the_overview_takes_a_limit_and_a_filter(api):
    assert len((await api.get("/events/overview", limit=2))["events"]) == 2
    resolved = await api.get("/events/overview", resolved_only="true")
    assert [event["event_id"] for event in resolved["events"]] == ["week-1/due"]
    pending = await api.get("/events/overview", pending_only="true")
    assert [event["event_id"] for event in pending["events"]] == [
        "week-2/open",
        "week-1/later",
        "week-1/late",
    ]
    assert (await api.get("/events/overview", resolved_only="true", pending_only="true"))["events"] == []
    await api.get("/events/overview", 422, limit=0)


async def test_the_stakes_in_force_are_shown(api):
    assert await api.get("/reports/stakes") == {
        "since": zulu(START_MS + 5 * HOUR_MS),
        "stakes": {"m1": "12.5"},
    }


async def test_a_question_closed_a_moment_ago_shows_no_answer_until_the_inputs_have_passed_the_close(
    api, log
):
    posted = Posted(log)
    posted.post("r", "q", closes=50 * HOUR_MS)
    posted.ask("r", "q", {"m1": 0.5})
    posted.close("r", "q", 50 * HOUR_MS, watermark=False)

    async def fold():
        for topic in ("feeds", "inputs", "predictions"):
            start = api.projector.folder.readers[topic].next_offset
            await api.projector.take(topic, list(enumerate(log.records[topic][start:], start)))

    async def told():
        (answer,) = (await api.get("/reports/rounds/r/questions/q"))["answers"]
        events = (await api.get("/events/overview", pending_only="true"))["events"]
        (event,) = (event for event in events if event["event_id"] == "r/q")
        return answer["output"], event["predictions"][0]["prediction"]

    await fold()
    assert await told() == (None, None)
    log.inputs_until(50 * HOUR_MS + 1)
    await fold()
    assert await told() == ({"value": 0.5}, 0.5)
