"""An answer to a posted question is hidden until the question is closed: on every route, in files, in a past, in
bundles, in explanations and in the live stream.
"""

from __future__ import annotations

import msgspec
import pytest
from pydantic import BaseModel, field_validator
from structlog.testing import capture_logs
from tests.api.test_hidden_answers import NAMES, ROUTES, read, take
from tests.api.test_hidden_answers import everything as every_body
from tests.given import decision
from tests.logs import HOUR_MS, MINUTE_MS, START_MS, busy_log
from tests.posted import Posted
from tests.streams.asked import SCOPE, Q, all_answered, asked, asks, came, closed, round_opened, the_round

from coordinator.api.live_state import LiveState
from coordinator.projections.views.hidden_answers import hidden_until
from coordinator.streams import events as ev
from coordinator.streams.agents.owning.dead_letters import dead_letter
from coordinator.streams.agents.predict.submissions import Submissions
from coordinator.streams.contract.types import InferenceOutput
from coordinator.streams.ports import ModelReply, Outcome
from coordinator.streams.predictions.columns import in_events
from coordinator.streams.predictions.replies import judge
from coordinator.streams.predictions.stage import PredictionStage

OPEN_AT = START_MS + 10 * HOUR_MS
CLOSES = OPEN_AT + 90 * 24 * HOUR_MS
CROWD = {f"crowd-{number}": round(0.70000001 + number * 0.00012347, 8) for number in range(40)}
AGAIN = {f"crowd-{number}": round(0.20000001 + number * 0.00012347, 8) for number in range(40)}
HANDED_IN = {"crowd-x": 0.31415927}
SECRETS = {
    repr(value).encode()
    for answers_by_model in (CROWD, AGAIN, HANDED_IN)
    for value in answers_by_model.values()
}
SUFFIX = "~sab12cd34ef56"
EXPLAINED = f"/reports/explain/predictions/{Q}/question/crowd-7"
OF_QUESTIONS = (
    "/reports/rounds",
    "/reports/rounds/r1",
    "/reports/rounds/r1/questions/q1",
    "/events/overview",
    EXPLAINED,
)


@pytest.fixture
def log():
    """A node with a question that is open for ninety days, asked twice and answered by hand."""
    log = busy_log()
    log.tick(OPEN_AT)
    Posted(log).post("r1", "q1", at=10 * HOUR_MS, opens=10 * HOUR_MS, closes=CLOSES - START_MS)
    hash_then = log.contract_at(OPEN_AT)

    def of_now(event: ev.AnyEvent) -> ev.AnyEvent:
        data = msgspec.structs.replace(event.data, contract_hash=hash_then)
        return msgspec.structs.replace(event, data=data)

    for model_id in (*CROWD, *HANDED_IN):
        log.model(model_id)
    for asking, (suffix, answers_by_model) in enumerate((("", CROWD), ("~2", AGAIN)), 1):
        at = OPEN_AT + asking * MINUTE_MS
        log.append("inputs", of_now(asked(asking, at, closes_at=CLOSES)))
        opened, *answers = the_round(suffix, answers_by_model, at, closes_at=CLOSES)
        log.append("predictions", of_now(opened))
        log.append("predictions", *answers)
    opened, *answers = the_round(SUFFIX, HANDED_IN, OPEN_AT + 3 * MINUTE_MS, closes_at=CLOSES)
    log.append("predictions", of_now(opened), *answers)
    log.inputs_until(10 * HOUR_MS + 5 * MINUTE_MS)
    return log


async def close(api, log, at=OPEN_AT + HOUR_MS):
    log.append("inputs", closed(at))
    await take(api, log, "inputs")
    log.inputs_until(max(api.read.predictions.resolved_until, at + 1) - START_MS)
    await take(api, log, "inputs")


async def everything(api, **params):
    """Each body, also of the question's own routes, and the messages to a new listener of the live stream."""
    bodies = await every_body(api, NAMES | {"{prediction_id}": f"{Q}/question/crowd-7"}, **params)
    live = LiveState(api.read)
    live.turn(api.projector.positions())
    bodies["live"] = live.first_message(live.since(None), {}) + live.changes_since(0, always=True)
    return bodies


def seen(bodies):
    return {path for path, body in bodies.items() if any(secret in body for secret in SECRETS)}


async def test_no_route_and_no_file_contains_an_answer_before_the_close(api, log):
    for params in ({}, {"start": START_MS}, {"as_of": OPEN_AT + 10 * MINUTE_MS}):
        bodies = await everything(api, **params)
        assert len(bodies) > (10 if "as_of" in params else 20)
        assert bodies.keys() >= {*OF_QUESTIONS, "live"}
        assert seen(bodies) == set()
    # The market goes on for a month. The question stays open, and its answers hidden.
    log.inputs_until(31 * 24 * HOUR_MS)
    await take(api, log, "inputs")
    assert seen(await everything(api, start=START_MS)) == set()
    await close(api, log)
    bodies = await everything(api, start=START_MS)
    for path in ROUTES:  # the search finds them where they may be seen
        assert all(secret in bodies[f"/reports/{path}"] for secret in SECRETS), path
    for path in ("/reports/rounds/r1/questions/q1", EXPLAINED):
        assert path in seen(bodies)


async def test_a_past_before_the_close_stays_hidden_for_good(api, log):
    await close(api, log)
    log.tick(OPEN_AT + 2 * HOUR_MS)
    await take(api, log, "feeds")
    assert seen(await everything(api, as_of=OPEN_AT + 10 * MINUTE_MS)) == set()


@pytest.mark.parametrize("path", ROUTES)
async def test_each_row_has_the_time_until_which_it_is_hidden(api, path):
    rows = [row for row in await read(api, path) if row["model_id"] == "crowd-0"]
    assert len(rows) == 2
    for row in rows:
        assert row["status"] == "PENDING"
        assert row["output_hidden"] in (True, "True")


async def test_a_bundle_waits_for_the_close(api, log):
    end = len(log.records["predictions"]) - 1
    assert hidden_until(api.read.predictions, end) == CLOSES
    log.inputs_until(31 * 24 * HOUR_MS)
    await take(api, log, "inputs")
    assert hidden_until(api.read.predictions, end) == CLOSES
    await close(api, log)
    log.append("predictions", all_answered("", "~2", SUFFIX, at=OPEN_AT + HOUR_MS))
    await take(api, log, "predictions")
    assert hidden_until(api.read.predictions, end) is None


async def test_the_read_model_behind_page_and_live_stream_contains_no_answer(api):
    """The stream itself sends no output of a prediction, so a reader of this list gets none either."""
    state = api.projector.read.predictions
    told = msgspec.json.encode(list(state.newest(OPEN_AT, OPEN_AT + HOUR_MS)))
    assert not any(secret in told for secret in SECRETS)
    assert b"crowd-0" in told


async def test_a_row_is_scored_if_its_answer_counted_and_replaced_otherwise(api, log):
    await close(api, log)
    read_models = api.read.predictions
    models = sorted({*CROWD, *HANDED_IN})
    data = ev.RoundScoredData(
        input_id=Q,
        scope_key="question",
        subject="questions",
        point=OPEN_AT + MINUTE_MS,
        resolvable_at=OPEN_AT + 2 * HOUR_MS,
        horizon_seconds=0,
        rehearsal=False,
        contract_hash=log.contract_at(OPEN_AT),
        models=models,
        crunchers=[],
        units={"value": [5] * len(models)},
        unscored=[],
        reasons=[],
        rounds=[SUFFIX if model_id == "crowd-x" else "~2" for model_id in models],
        replaced={"": [models.index(model_id) for model_id in CROWD]},
    )
    log.append("inputs", came(1.0, OPEN_AT + 2 * HOUR_MS))
    log.append("scores", ev.RoundScored(id=f"{Q}/question:scored", at=OPEN_AT + 2 * HOUR_MS, data=data))
    await take(api, log, "inputs")
    await take(api, log, "scores")
    of = {
        suffix: {row.status for row in read_models.round(Q + suffix, "question")}
        for suffix in ("", "~2", SUFFIX)
    }
    assert of == {"": {"REPLACED"}, "~2": {"SCORED"}, SUFFIX: {"SCORED"}}
    totals = read_models.totals()
    assert (totals["replaced"], totals["pending"]) == (len(CROWD), 2)


def quoted(value: float) -> float:
    """An author's check whose message quotes the refused value."""
    if value != round(value, 2):
        raise ValueError(f"{value} has more than two digits")
    return value


class Quoting(BaseModel):
    value: float
    _check = field_validator("value")(quoted)


class Failing(BaseModel):
    value: float

    @field_validator("value")
    @classmethod
    def _check(cls, value: float) -> float:
        raise KeyError(value)


def handed_in(question_ids=("q1",), at=OPEN_AT + 5 * MINUTE_MS, value=b'{"value": 0.31415927}', number=1):
    answers = [
        ev.SubmittedAnswer(question_id=question_id, scope_key="", output=msgspec.Raw(value))
        for question_id in question_ids
    ]
    data = ev.SubmitAnswersData(
        round_id="r1", model_id="crowd-x", cruncher_id="x", answers=answers, sha256=str(number) * 64
    )
    return ev.SubmitAnswers(id=f"cmd/hand-in/{number}", at=at, data=data)


REFUSED = {
    "its author quotes": (Quoting, handed_in(number=1)),
    "its author fails": (Failing, handed_in(number=2)),
    "no number": (InferenceOutput, handed_in(value=b'{"value": "0.31415927?"}', number=3)),
    "a list": (InferenceOutput, handed_in(value=b'{"value": [0.31415927]}', number=4)),
    "twice": (InferenceOutput, handed_in(("q1", "q1"), number=5)),
    "unknown": (InferenceOutput, handed_in(("q1", "q9"), number=6)),
    "late": (InferenceOutput, handed_in(at=CLOSES + 1, number=7)),
}


async def test_a_refusal_of_a_handed_in_answer_does_not_reveal_it(api, log):
    """It is not in the worker's log, nor in the dead letter, which alerts, /reports/commands and `dead-letters list`
    show.
    """
    letters = {why: await refused(output_type, command) for why, (output_type, command) in REFUSED.items()}
    for of_command in letters.values():
        for letter in of_command:
            log.append("dead-letters", letter)
            await take(api, log, "dead-letters")
    bodies = await every_body(api, NAMES | {"{command_id}": REFUSED["late"][1].id})
    for why, (_, command) in REFUSED.items():
        path = "/reports/commands/" + command.id
        bodies[path] = (await api.client.get(path)).content
        assert letters[why][0].data.reason.encode() in bodies[path], why
    assert {path for path, body in bodies.items() if b"0.31415927" in body} == set()


async def refused(output_type, command):
    """The dead letters of a refused command. What the worker logs does not contain its answer."""
    stage = PredictionStage()
    for told in stage.unfold(decision("inputs", 5, [asked(1, OPEN_AT, closes_at=CLOSES)])):
        stage.fold(stage.state, told)
    letters = []

    async def keep(topic, offset, body, reason):
        letters.append(dead_letter(topic, str(offset), reason, body, OPEN_AT))

    async def is_behind():
        return False

    class NothingAhead:
        async def closings(self, _start):
            return {}

    waiting = Submissions(stage, lambda _: asks(output_type=output_type), NothingAhead(), keep)
    number = int(command.id.rpartition("/")[2])  # each command has an offset of its own
    waiting.take(decision("commands", number, [command]))
    with capture_logs() as logs:
        told = await waiting.next(is_behind, max(command.at, OPEN_AT), 1)
    assert told.event.rounds == []
    assert letters
    assert [line["event"] for line in logs] == ["answer_refused"] * len(letters)
    assert "0.314" not in repr(logs)
    assert b"0.314" not in b"".join(map(msgspec.json.encode, letters))
    return letters


FAILED = {
    "author-quotes": (Quoting, Outcome.OK, {"output": {"value": 0.27182818}}),
    "author-fails": (Failing, Outcome.OK, {"output": {"value": 0.27182818}}),
    "raises": (InferenceOutput, Outcome.MODEL_FAILED, {"detail": "ValueError: not 0.27182818"}),
    "no-json": (InferenceOutput, Outcome.BAD_OUTPUT, {"detail": "the key '0.27182818' occurs twice"}),
    "too-big": (InferenceOutput, Outcome.TOO_BIG, {"detail": "0.27182818 is too long"}),
}
"""Model -> how it is judged. Each reason in the log contains the answer."""


async def test_a_failure_that_quotes_an_answer_is_shown_after_the_close(api, log):
    """And the explanation of a round without an answer does not reveal the answer in another round."""
    at, later = OPEN_AT + 4 * MINUTE_MS, OPEN_AT + 5 * MINUTE_MS
    opened = round_opened("~3", sorted(FAILED), at, closes_at=CLOSES)
    entries = []
    for model_id in sorted(FAILED):
        output_type, outcome, of_reply = FAILED[model_id]
        reply = ModelReply(model_id, "q-d", outcome, None if outcome is Outcome.OK else "model", **of_reply)
        alone = round_opened("~3", [model_id], at, closes_at=CLOSES)
        entries += judge(alone, {model_id: reply}, output_type, 1000)
        assert "0.27182818" in entries[-1].reason  # the log has it, as it has the answers
        log.model(model_id)
        await take(api, log, "models")
    hash_then = log.contract_at(OPEN_AT)
    for asking, (when, events) in enumerate(
        [
            (at, [opened, *in_events(opened, {SCOPE: entries}, at)]),
            (later, the_round("~4", dict.fromkeys(FAILED, 0.57721566), later, closes_at=CLOSES)),
        ],
        3,
    ):
        question = asked(asking, when, closes_at=CLOSES)
        data = msgspec.structs.replace(question.data, contract_hash=hash_then)
        log.append("inputs", msgspec.structs.replace(question, data=data))
        await take(api, log, "inputs")
        data = msgspec.structs.replace(events[0].data, contract_hash=hash_then)
        log.append("predictions", msgspec.structs.replace(events[0], data=data), *events[1:])
        await take(api, log, "predictions")

    explained = [f"/reports/explain/predictions/{Q}~3/{SCOPE}/{model_id}" for model_id in FAILED]

    async def telling(**params):
        names = NAMES | {"{prediction_id}": f"{Q}~3/{SCOPE}/raises"}
        bodies = await every_body(api, names, **params)
        for path in explained:
            bodies[path] = (await api.client.get(path, params=params or None)).content
            assert b"FAILED" in bodies[path], path
        told = {
            secret: {path for path, body in bodies.items() if secret in body}
            for secret in (b"0.27182818", b"0.57721566")
        }
        return told[b"0.27182818"], told[b"0.57721566"]

    past = {"as_of": later + MINUTE_MS}
    for params in ({}, {"start": START_MS}, past):
        assert await telling(**params) == (set(), set())
    await close(api, log)
    quoted, answered = await telling(start=START_MS)
    assert quoted >= {"/reports/predictions", "/reports/predictions.csv", *explained}
    assert answered >= {"/reports/predictions", "/reports/rounds/r1/questions/q1", *explained}
    log.tick(OPEN_AT + 2 * HOUR_MS)
    await take(api, log, "feeds")
    assert await telling(**past) == (set(), set())
