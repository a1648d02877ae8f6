"""Rounds: how answers are judged, whose fault a missing answer is, which models are on the roster."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, Field, StrictFloat, field_validator
from tests.given import given
from tests.streams.build import HASH, MINUTE, T0, opened, received

from coordinator.streams.contract import InferenceOutput
from coordinator.streams.events import (
    AnswerEntry,
    RosterEntry,
    RoundAnswered,
    RoundOpened,
    ScopeAnswered,
)
from coordinator.streams.log.envelope import (
    MESSAGE_BYTES_MAX,
    Need,
    decode_append,
    decode_events,
    encode_decision,
)
from coordinator.streams.log.finite import not_finite
from coordinator.streams.log.reasons import QUOTED, REASON_CHARS
from coordinator.streams.log.stage import PlacedEvent
from coordinator.streams.log.transitions import transitions
from coordinator.streams.models.stage import ModelStage
from coordinator.streams.ports import ModelInfo, ModelNotice, ModelReply, Outcome
from coordinator.streams.predictions.replies import UNREADABLE, WORKER_DIED, all_missed, check_output, judge
from coordinator.streams.predictions.stage import (
    NODE_LATE,
    NODE_RESTARTED,
    Answered,
    PredictionStage,
    RoundAsked,
    in_events,
)

MAX_BYTES = 200


class Two(BaseModel):
    value: float
    confidence: float = 1.0


class Ranged(BaseModel):
    value: float = Field(ge=-1, le=1)


class Worded(BaseModel):
    side: Literal["up", "down"]
    note: str = ""


class Counted(BaseModel):
    n: int


class Loose(BaseModel):
    model_config = {"extra": "allow"}
    value: float


def nested(depth: int) -> Any:
    out: Any = []
    for _ in range(depth):
        out = [out]
    return out


GOOD = {
    "a value": ({"value": 0.5}, InferenceOutput, {"value": 0.5}),
    "a bare number": (0.5, InferenceOutput, {"value": 0.5}),
    "a bare whole number": (-1, InferenceOutput, {"value": -1.0}),
    "a whole number for a float": ({"value": 1}, InferenceOutput, {"value": 1.0}),
    "beyond 1: the scoring clips": ({"value": 1e300}, InferenceOutput, {"value": 1e300}),
    "more than was asked": ({"value": 0.5, "mood": "calm"}, InferenceOutput, {"value": 0.5}),
    "one of two fields, the other by default": ({"value": 0.5}, Two, {"value": 0.5, "confidence": 1.0}),
    "no numbers at all": ({"side": "up"}, Worded, {"side": "up", "note": ""}),
}


class Exact(BaseModel):
    value: StrictFloat


class Checked(BaseModel):
    value: float

    @field_validator("value")
    @classmethod
    def _checked(cls, value: float) -> float:
        if value > 1:
            return 1 / (value - value)
        if value < -1:
            raise SystemExit(1)
        return value


# Numbers are read as pydantic reads them. A contract that accepts numbers alone uses StrictFloat.
GOOD |= {
    "a truth value for a number": ({"value": True}, InferenceOutput, {"value": 1.0}),
    "text for a number, as Python writes it": ({"value": "1_000"}, InferenceOutput, {"value": 1000.0}),
    "a number where only numbers are meant": ({"value": 1}, Exact, {"value": 1.0}),
    "a count beyond 64 bit": ({"n": 10**150}, Counted, {"n": 10**150}),
}
BAD = {
    "a truth value where only numbers are meant": ({"value": True}, Exact, "value: "),
    "text where only numbers are meant": ({"value": "0.5"}, Exact, "value: "),
    "a validator of the author's that raises": (
        {"value": 2.0},
        Checked,
        "Checked cannot take it: ZeroDivisionError",
    ),
    "one that would end the process": ({"value": -2.0}, Checked, "Checked cannot take it: SystemExit"),
    "nothing": (None, InferenceOutput, "a NoneType, not an object"),
    "text": ("up", InferenceOutput, "a str, not an object"),
    "a list": ([0.5], InferenceOutput, "a list, not an object"),
    "a bare truth": (True, InferenceOutput, "a bool, not an object"),
    "a bare number where none is meant": (0.5, Worded, "a float, not an object"),
    "a dict that shares no key": ({"price": 0.5}, InferenceOutput, "none of the fields"),
    "an empty dict": ({}, InferenceOutput, "none of the fields"),
    "defaults alone are no answer": ({"other": 1}, Loose, "none of the fields"),
    "a bare NaN": (float("nan"), InferenceOutput, ".value is not finite"),
    "NaN": ({"value": float("nan")}, InferenceOutput, ".value is not finite"),
    "infinity": ({"value": float("inf")}, InferenceOutput, ".value is not finite"),
    "minus infinity": ({"value": float("-inf")}, InferenceOutput, ".value is not finite"),
    "NaN as a word": ({"value": "nan"}, InferenceOutput, "value"),
    "infinity as a word": ({"value": "-Infinity"}, InferenceOutput, "value"),
    "NaN beside the answer": (
        {"value": 0.5, "x": [1.0, {"y": float("nan")}]},
        InferenceOutput,
        ".x[1].y is not finite",
    ),
    "a number beyond a float": ({"value": 10**400}, InferenceOutput, "value"),
    "null": ({"value": None}, InferenceOutput, "value: Input should be a valid number"),
    "a list for a number": ({"value": [0.5]}, InferenceOutput, "value: Input should be a valid number"),
    "text for a number": ({"value": "much"}, InferenceOutput, "value: "),
    "out of the type's range": ({"value": 1.5}, Ranged, "value: Input should be less than or equal to 1"),
    "a word that is none": ({"side": "left"}, Worded, "side: "),
    "a fraction for a count": ({"n": 0.5}, Counted, "n: "),
    "a required field left out": ({"confidence": 0.5}, Two, "value: Field required"),
    "half a letter": ({"value": 0.5, "x": "\ud800"}, Loose, "Loose cannot take it: "),
    "nested without end": ({"value": 0.5, "x": nested(5000)}, Loose, "nested deeper than 100"),
    "too big": (
        {"side": "up", "note": "x" * MAX_BYTES},
        Worded,
        "BAD_OUTPUT: 223 bytes, more than output_max_bytes (200)",
    ),
}


@pytest.mark.parametrize(("output", "output_type", "plain"), GOOD.values(), ids=GOOD)
def test_a_good_answer_is_recorded_as_plain_json(output, output_type, plain):
    assert check_output(output, output_type, MAX_BYTES) == (plain, "")


@pytest.mark.parametrize(("output", "output_type", "reason"), BAD.values(), ids=BAD)
def test_a_bad_answer_is_recorded_with_the_error(output, output_type, reason):
    plain, fault = check_output(output, output_type, MAX_BYTES)
    assert plain is None
    assert reason in fault


def test_an_answer_that_nests_too_deep_is_invalid_also_in_an_unused_field():
    assert check_output({"value": 0.5, "x": nested(90)}, InferenceOutput, MAX_BYTES) == ({"value": 0.5}, "")
    assert check_output({"value": 0.5, "x": nested(101)}, InferenceOutput, MAX_BYTES)[0] is None


@pytest.mark.parametrize("size", [len(b'{"side":"up","note":""}') + 1, 200])
def test_the_size_is_that_of_the_recorded_bytes(size):
    note = "x" * (size - len(b'{"side":"up","note":""}'))
    assert check_output({"side": "up", "note": note}, Worded, size)[0] is not None
    assert check_output({"side": "up", "note": note}, Worded, size - 1)[0] is None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1.0, float("inf")], "[1]"),
        ([1e308, 1e308], None),  # only their sum is not finite
        ([float("inf"), float("-inf")], "[0]"),
        ([0, 0.5, "x", float("nan")], "[3]"),
        ({"a": {"b": [[], [{"c": (1.0, float("nan"))}]]}}, ".a.b[1][0].c[1]"),
        ({"a": float("nan"), "b": float("nan")}, ".a"),
        ([[], {}, None, True, 10**400], None),
        (float("nan"), "the value"),
    ],
)
def test_the_first_number_that_is_not_finite_is_named_by_its_path(value, path):
    assert not_finite(value) == path


# --- judging a round -------------------------------------------------------------------------------------

JUDGED = {
    Outcome.OK: ("PENDING", None),
    Outcome.MODEL_FAILED: ("FAILED", "model"),
    Outcome.BAD_OUTPUT: ("FAILED", "model"),
    Outcome.TOO_BIG: ("FAILED", "model"),
    Outcome.DEADLINE: ("ABSENT", "model"),
    Outcome.BUSY: ("ABSENT", "model"),
    Outcome.CRASHED: ("ABSENT", "model"),
    Outcome.ABSENT: ("ABSENT", "node"),
}


def judged(reply: ModelReply | None, output_type: type[BaseModel] = InferenceOutput):
    the_round = opened(T0, ["m1"])
    (entry,) = judge(the_round, {} if reply is None else {"m1": reply}, output_type, MAX_BYTES)
    return entry


def recorded(the_round: RoundOpened, *entries: Any) -> list[Any]:
    """The events of one scope, encoded and decoded."""
    events = list(in_events(the_round, {"60s": entries}, T0 + 5))
    (record,) = encode_decision(events, epoch=1, seq=1, upto={}, need={})
    append = decode_append(record)
    assert append is not None
    return decode_events(append.events)


def test_the_table_names_every_outcome():
    assert set(JUDGED) == set(Outcome)


@pytest.mark.parametrize(
    ("outcome", "status", "fault"), [(outcome, *worth) for outcome, worth in JUDGED.items()]
)
def test_each_outcome_becomes_one_answer_with_a_reason_and_a_fault(outcome, status, fault):
    output = {"value": 0.5} if outcome is Outcome.OK else None
    event = judged(
        ModelReply("m1", "d2", outcome, fault, output=output, detail="what it said", exec_time_us=7)
    )
    assert (event.status, event.model_id, event.exec_time_us) == (status, "m1", 7)
    if fault:
        unread = (
            f"{UNREADABLE}{QUOTED}" if outcome is Outcome.BAD_OUTPUT else ""
        )  # its bytes may be those of the answer
        assert (event.fault, event.reason) == (fault, f"{outcome}: {unread}what it said")
        assert event.deployment_id == "m1-d"
    else:
        assert msgspec.json.decode(event.output) == {"value": 0.5}
        assert event.deployment_id == "d2"


def test_a_model_that_is_recovering_is_absent_by_its_own_fault():
    event = judged(ModelReply("m1", "d", Outcome.ABSENT, "model", detail="recovering"))
    assert event.status == "ABSENT"
    assert event.fault == "model"


def test_a_model_without_a_reply_is_absent_by_the_nodes_fault():
    event = judged(None)
    assert event.status == "ABSENT"
    assert (event.fault, event.reason) == ("node", "ABSENT: no reply")


def test_an_invalid_answer_has_failed():
    event = judged(ModelReply("m1", "d", Outcome.OK, output={"value": float("nan")}))
    assert event.status == "FAILED"
    assert (event.fault, event.reason) == ("model", "BAD_OUTPUT: .value is not finite")


def test_a_long_reason_is_cut():
    assert (
        len(judged(ModelReply("m1", "d", Outcome.MODEL_FAILED, "model", detail="x" * 9999)).reason)
        == REASON_CHARS
    )


def test_a_key_that_cannot_be_encoded_does_not_break_the_record_that_names_it():
    event = judged(ModelReply("m1", "d", Outcome.OK, output={"value": 0.5, "\ud800": float("nan")}))
    assert event.reason == "BAD_OUTPUT: .? is not finite"
    assert recorded(opened(T0, ["m1"]), event)


def test_a_models_error_text_cannot_break_the_record():
    event = judged(ModelReply("m1", "d", Outcome.MODEL_FAILED, "model", detail="half a letter \ud800"))
    assert recorded(opened(T0, ["m1"]), event)


def test_every_model_has_one_answer_in_the_order_of_the_roster():
    models = [f"m{i}" for i in range(30)]
    the_round = opened(T0, models, scope_keys=("a", "b"))
    replies = {model_id: ModelReply(model_id, "d", Outcome.OK, output=0.1) for model_id in models[::2]}
    entries = judge(the_round, replies, InferenceOutput, MAX_BYTES)
    events = list(in_events(the_round, {"b": entries[::-1], "a": entries}, T0))
    assert [event.data.scope_key for event in events] == ["a", "b"]
    for event in events:
        assert [entry.model_id for entry in event.data.entries(the_round.data.roster)] == models
    rosters: dict[str, list[RosterEntry]] = {}
    moves = [move for event in [the_round, *events] for move in transitions(event, rosters)]
    assert len({move.id for move in moves}) == 60


@pytest.mark.parametrize("kilobytes", [0, 1, 64])
def test_large_answers_are_split_over_several_events_that_fit_into_a_record(kilobytes):
    """The answers are the same. The split depends on content alone, so a repeated decision is split alike."""
    models = [f"m{i}" for i in range(100)]
    the_round = opened(T0, models)
    output = msgspec.Raw(msgspec.json.encode({"note": "x" * 1000 * kilobytes}))
    entries = [AnswerEntry(model_id, f"{model_id}-d", "PENDING", output, 5) for model_id in models]
    events = list(in_events(the_round, {"60s": entries}, T0))
    assert events == list(in_events(the_round, {"60s": entries[::-1]}, T0))
    assert len(events) == {0: 1, 1: 1, 64: 7}[kilobytes]
    assert len({event.id for event in events}) == len(events)
    assert [entry for event in events for entry in event.data.entries(the_round.data.roster)] == entries
    for record in encode_decision(events, epoch=1, seq=1, upto={}, need={}):
        assert len(record) < MESSAGE_BYTES_MAX


def test_one_bad_answer_does_not_affect_the_others():
    """W2 of the peer: one NaN stopped everybody's predictions."""
    the_round = opened(T0, ["a", "b", "c"])
    replies = {
        "a": ModelReply("a", "d", Outcome.OK, output={"value": 0.1}),
        "b": ModelReply("b", "d", Outcome.OK, output={"value": float("nan")}),
        "c": ModelReply("c", "d", Outcome.OK, output={"value": 0.2}),
    }
    statuses = [entry.status for entry in judge(the_round, replies, InferenceOutput, MAX_BYTES)]
    assert statuses == ["PENDING", "FAILED", "PENDING"]


@pytest.mark.parametrize("reason", [NODE_RESTARTED, NODE_LATE])
def test_in_a_round_nobody_could_answer_all_are_absent_by_the_nodes_fault(reason):
    missed = all_missed(opened(T0, ["a", "b"], scope_keys=("x", "y")), reason, "node")
    assert {key: [entry.model_id for entry in entries] for key, entries in missed.items()} == {
        "x": ["a", "b"],
        "y": ["a", "b"],
    }
    every = [entry for entries in missed.values() for entry in entries]
    assert {(entry.status, entry.reason, entry.fault) for entry in every} == {("ABSENT", reason, "node")}


def test_in_a_round_left_open_recorded_models_are_left_out_and_the_one_that_killed_the_worker_failed():
    missed = all_missed(opened(T0, ["a", "b", "c"]), NODE_RESTARTED, "node", but={"a"}, died_of={"b", "a"})
    assert [(entry.model_id, entry.status, entry.fault, entry.reason) for entry in missed["60s"]] == [
        ("b", "FAILED", "model", WORKER_DIED),
        ("c", "ABSENT", "node", NODE_RESTARTED),
    ]


def arrive(stage, data, offset: int) -> None:
    """An input in a decision of its own."""
    event = msgspec.structs.replace(received(T0), data=data)
    stage.fold(stage.state, PlacedEvent("inputs", event, (offset, 0), Need(offset), Need(offset + 1)))


# --- the stage's own state -------------------------------------------------------------------------------


def test_a_round_is_open_from_its_opening_to_its_answer():
    stage = PredictionStage()
    data = received(T0).data
    draft = stage.hear(RoundAsked(data, [RosterEntry(model_id="a", deployment_id="d")], T0 + 1, 1))
    assert [type(event) for event in draft.events] == [RoundOpened]
    assert draft.upto == {}  # opening decides nothing yet: after a crash now, the next owner gets the input
    stage.remember(draft)
    the_id = data.input_id
    assert list(stage.state.open_rounds) == [the_id]
    arrive(stage, data, 7)
    missed = all_missed(stage.state.open_rounds[the_id].opened, NODE_LATE, "node")
    done = stage.hear(Answered(the_id, missed, T0 + 2))
    assert [type(event) for event in done.events] == [ScopeAnswered, RoundAnswered]
    assert (done.upto, done.need) == ({"inputs": (7, 0)}, {"inputs": Need(7)})
    stage.remember(done)
    assert stage.decided("inputs", (7, 0))
    assert (stage.state.own.rounds, stage.state.arrived) == ({}, {})


def test_a_round_that_was_not_opened_cannot_be_answered():
    with pytest.raises(RuntimeError, match="no round of x is open"):
        PredictionStage().hear(Answered("x", {}, T0))


def test_a_new_owner_knows_the_round_that_the_previous_one_left_open():
    scene = given(PredictionStage()).own(opened(T0, ["a"]))
    (left,) = scene.stage.state.open_rounds.values()
    assert left.opened == opened(T0, ["a"])
    assert left.opened.data.contract_hash == HASH


def test_rounds_side_by_side_decide_up_to_the_oldest_open_one():
    """The same after a crash: a round that was answered after an open one is not asked again."""
    stage, after = PredictionStage(), PredictionStage()
    inputs = [received(T0, subject).data for subject in ("A", "B", "C")]
    roster = [RosterEntry(model_id="m", deployment_id="d")]
    drafts = [stage.hear(RoundAsked(data, roster, T0, 1)) for data in inputs]
    for number, (data, draft) in enumerate(zip(inputs, drafts, strict=True)):
        arrive(stage, data, number)
        stage.remember(draft)
    a, b, c = (data.input_id for data in inputs)
    for the_id, upto in ((b, {}), (a, {"inputs": (1, 0)})):
        draft = stage.hear(Answered(the_id, {}, T0))
        assert draft.upto == upto
        stage.remember(draft)
        drafts.append(draft)
        if the_id == b:
            for decided in drafts:
                after.remember(decided)
    draft = stage.hear(Answered(c, {}, T0))
    assert (draft.upto, draft.need) == ({"inputs": (2, 0)}, {"inputs": Need(2)})

    assert list(after.state.open_rounds) == [a, c]
    arrive(after, inputs[0], 0)
    arrive(after, inputs[1], 1)
    assert after.state.is_answered(b)
    assert after.hear(Answered(a, {}, T0)).upto == {"inputs": (1, 0)}


def test_a_round_answered_after_an_open_one_is_remembered_until_upto_has_passed_it():
    """A new owner may close the oldest round before it has read the records after it."""
    stage = PredictionStage()
    inputs = [received(T0, subject).data for subject in ("A", "B", "C")]
    roster = [RosterEntry(model_id="m", deployment_id="d")]
    a, b, c = (data.input_id for data in inputs)
    for data in inputs[:2]:
        stage.remember(stage.hear(RoundAsked(data, roster, T0, 1)))
    stage.remember(stage.hear(Answered(b, {}, T0)))
    arrive(stage, inputs[0], 0)
    closing = stage.hear(Answered(a, {}, T0))
    assert closing.upto == {"inputs": (0, 0)}
    stage.remember(closing)
    arrive(stage, inputs[1], 1)
    assert stage.state.is_answered(b)
    arrive(stage, inputs[2], 2)
    stage.remember(stage.hear(RoundAsked(inputs[2], roster, T0, 1)))
    stage.remember(stage.hear(Answered(c, {}, T0)))
    assert stage.decided("inputs", (2, 0))
    assert (stage.state.own.rounds, stage.state.arrived) == ({}, {})


# --- the models ------------------------------------------------------------------------------------------


def notice(change: str, model_id: str = "7", deployment: str = "d1", **fields: str) -> ModelNotice:
    extra = {name: fields.pop(name) for name in ("code", "reason") if name in fields}
    info = ModelInfo(
        model_id=model_id, model_name=fields.pop("name", "trend"), deployment_id=deployment, **fields
    )
    return ModelNotice(change, info, **extra)


NOTICES = {
    # notices of the gateway in turns: the kinds of events of each turn
    "seen once": ([[notice("seen")]], [["ModelSeen"]]),
    "seen again": ([[notice("seen")], [notice("seen")]], [["ModelSeen"], []]),
    "seen twice at once": ([[notice("seen"), notice("seen")]], [["ModelSeen"]]),
    "a new deployment": (
        [[notice("seen")], [notice("seen", deployment="d2")]],
        [["ModelSeen"], ["ModelSeen"]],
    ),
    "a new name": ([[notice("seen")], [notice("seen", name="x")]], [["ModelSeen"], ["ModelSeen"]]),
    "a wallet": ([[notice("seen")], [notice("seen", wallet_pubkey="w")]], [["ModelSeen"], ["ModelSeen"]]),
    "left": ([[notice("seen")], [notice("left")]], [["ModelSeen"], ["ModelLeft"]]),
    "left twice": (
        [[notice("seen")], [notice("left")], [notice("left")]],
        [["ModelSeen"], ["ModelLeft"], []],
    ),
    "left unseen": ([[notice("left")]], [[]]),
    "the old deployment left after the new came": (
        [[notice("seen")], [notice("seen", deployment="d2"), notice("left", deployment="d1")]],
        [["ModelSeen"], ["ModelSeen"]],
    ),
    "back again": (
        [[notice("seen")], [notice("left")], [notice("seen")]],
        [["ModelSeen"], ["ModelLeft"], ["ModelSeen"]],
    ),
    "recovering tells nothing": ([[notice("seen")], [notice("recovering")]], [["ModelSeen"], []]),
    "a failure reported": (
        [[notice("seen"), notice("failed", code="BAD_IMPLEMENTATION", reason="raises")]],
        [["ModelSeen", "ModelFailureReported"]],
    ),
}


@pytest.mark.parametrize(("turns", "expected"), NOTICES.values(), ids=NOTICES)
def test_a_notice_makes_an_event_only_if_it_is_news(turns, expected):
    stage, kinds = ModelStage(), []
    for i, notices in enumerate(turns):
        draft = stage.offer(notices, T0 + i * MINUTE)
        if draft is not None:
            stage.remember(draft)
        kinds.append([type(event).__name__ for event in draft.events] if draft else [])
    assert kinds == expected


def test_a_model_seen_before_the_first_tick_is_seen_again_after_it():
    """A node's models appear before its first tick. Without this they would have been first seen in 1970."""
    stage = ModelStage()
    stage.remember(stage.offer([notice("seen"), notice("seen", model_id="gone")], 0))
    assert stage.offer([], 0) is None
    stage.remember(stage.offer([notice("left", model_id="gone")], 0))
    draft = stage.offer([], T0)
    assert [(type(event).__name__, event.at) for event in draft.events] == [("ModelSeen", T0)]
    stage.remember(draft)
    assert stage.offer([], T0 + 1) is None
    assert len(stage.models.roster()) == 1


def test_offering_a_notice_changes_nothing_until_the_draft_is_remembered():
    stage = ModelStage()
    assert stage.offer([notice("seen")], T0) == stage.offer([notice("seen")], T0)


def roster(*notices: ModelNotice) -> list[tuple[str, str]]:
    stage = ModelStage()
    for i, notice in enumerate(notices):
        draft = stage.offer([notice], T0 + i)
        if draft is not None:
            stage.remember(draft)
    return [(entry.model_id, entry.deployment_id) for entry in stage.models.roster()]


def test_the_roster_lists_the_models_to_ask_in_order():
    assert roster(notice("seen", "9"), notice("seen", "10"), notice("seen", "1")) == [
        ("1", "d1"),
        ("10", "d1"),
        ("9", "d1"),
    ]
    assert roster(notice("seen"), notice("seen", deployment="d2")) == [("7", "d2")]


def test_only_a_stopped_model_leaves_the_roster():
    assert roster(notice("seen"), notice("recovering"), notice("failed", code="X")) == [("7", "d1")]
    assert roster(notice("seen"), notice("left")) == []
    assert roster(notice("seen"), notice("left"), notice("seen", deployment="d2")) == [("7", "d2")]
    assert roster(notice("seen"), notice("seen", deployment="d2"), notice("left", deployment="d1")) == [
        ("7", "d2")
    ]


def test_a_banned_model_stays_off_when_it_comes_back():
    from coordinator.streams.events import ModelBanned, ModelBannedData

    stage = ModelStage()
    stage.remember(stage.offer([notice("seen")], T0))
    stage.fold(
        stage.state,
        PlacedEvent("models", ModelBanned(id="b", at=T0, data=ModelBannedData(model_id="7", reason="x"))),
    )
    stage.remember(stage.offer([notice("seen", deployment="d2")], T0 + 1))
    assert stage.models.roster() == []


def test_the_orchestrators_texts_cannot_break_the_record():
    draft = ModelStage().offer(
        [notice("seen"), notice("failed", code="X", reason="half a letter \ud800")], T0
    )
    assert encode_decision(draft.events, epoch=1, seq=1, upto={}, need={})
