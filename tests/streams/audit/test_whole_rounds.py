"""A log of rounds that are scored as a whole: an honest one passes, and an altered score, charge or state is found and
named.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.checked import chain_of, steps_of
from tests.memory_log import MemoryLog, undisturbed
from tests.streams import test_crash_chain as crash_chain
from tests.streams.audit.test_mutations import parts_of
from tests.streams.build import PUBKEY, shelf

from coordinator.streams.audit.checkpoint import check_chain
from coordinator.streams.audit.facts import Chain, ChainBrokenError
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract, Failed, NoScore, RoundScores
from coordinator.streams.events import CheckpointData, RoundScored, SnapshotTaken, StateCarried, Window
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.envelope import Append, encode_append, encode_decision
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage


def betting(round_answers, truth, context):
    """Wealth that grows with the return; who is away pays a tenth, a bet of exactly 0.5 is refused."""
    if int(context.point) % 420_000 == 0:
        raise ValueError("a case that the author forgot")
    wealth = {name: context.states.get(name, 100.0) for name in round_answers.models}
    scores: list[Any] = []
    for answer in round_answers:
        if answer.output is None:
            wealth[answer.model_id] -= 0.1
            scores.append(wealth[answer.model_id])
        elif answer.output.value == 0.5:
            scores.append(Failed("no half bets"))
        elif answer.output.value > 0.9 and truth.return_ > 0:
            scores.append(None)
        elif abs(answer.output.value) < 0.1:
            scores.append(NoScore("sits out"))
        else:
            wealth[answer.model_id] *= 1 + truth.return_ * answer.output.value
            scores.append({"value": wealth[answer.model_id]})
    named = {
        answer.model_id: "too bold"
        for answer in round_answers
        if answer.output and answer.output.value < -0.9
    }
    return RoundScores(scores, failed=named, states=wealth, shared=sum(wealth.values()))


def relative(round_answers, truth, context):
    value = round_answers.column("value") * truth.return_ * 1000
    return RoundScores(
        {"value": value - value[round_answers.answered()].mean()},
        failed={"b": "not today"} if value[0] > 0 else {},
        no_score={"c": "too early"} if value[0] < 0 else {},
    )


def touchy(round_answers, truth, context):
    """Raises for a large answer, and for fewer than two; who has no score pays 1."""
    values = [answer.output.value if answer.output else None for answer in round_answers]
    pool = sum(1 / (value < 0.6) for value in values if value is not None)
    mean = sum(value for value in values if value is not None) / max(pool - 1, 0)
    scores = [-1.0 if value is None else (value - mean) * truth.return_ for value in values]
    states = dict(zip(round_answers.models, values, strict=True))
    return RoundScores(scores, no_score={"c": "too early"} if mean < 0 else {}, states=states, shared=mean)


SPECIAL = [
    Window(name="sum", hours=1, rule="sum"),
    Window(name="last", hours=24, last=9, least=3),
    Window(name="ewma", hours=24, rule="ewma", alpha=0.1),
    Window(name="all", hours=0, combines={"last": 1.0, "sum": 2.0}),
]
CONTRACTS = {"betting": ("scored", betting), "relative": ("zero", relative), "touchy": ("scored", touchy)}


def shelf_of(name: str) -> Callable[[str], CrunchContract]:
    policy, function = CONTRACTS[name]
    fields: dict[str, Any] = {"crunch_pubkey": PUBKEY, "score_round": function, "absence_policy": policy}
    return shelf(
        CrunchContract(**fields, gap_wait_seconds=600),
        new=CrunchContract(**fields, grace_seconds=0, gap_policy="accept"),
    )


@pytest.fixture(scope="module", params=CONTRACTS)
def played(request) -> tuple[MemoryLog, Callable[[str], CrunchContract]]:
    contracts = shelf_of(request.param)
    with pytest.MonkeyPatch.context() as patch:
        windows = {"windows": crash_chain.TERMS["windows"] + SPECIAL} if request.param == "betting" else {}
        terms = crash_chain.TERMS | windows | {"absence_policy": CONTRACTS[request.param][0]}
        patch.setattr(crash_chain, "TERMS", terms)
        log = undisturbed(crash_chain.feeds(1, 100), lambda: InputStage(contracts))
    crash_chain.predictions(log, 1)
    for stage in (ScoreStage, SnapshotStage, partial(CheckpointStage, "btc-up")):
        log = undisturbed(log, partial(stage, contracts))
    return log, contracts


def last_checkpoint(log: MemoryLog) -> CheckpointData:
    honest = Chain({"checkpoints": log.decisions("checkpoints")})
    return max(honest.checkpoints.values(), key=lambda checkpoint: checkpoint.period_end)


def both_looks(log: MemoryLog, checkpoint: CheckpointData, contracts: Any) -> list[ChainBrokenError | None]:
    """What the second check finds alone, and what both checks find together."""
    errors: list[ChainBrokenError | None] = []
    for look in (
        lambda: list(check_chain(chain_of(log, checkpoint), checkpoint, contracts)),
        lambda: steps_of(log, chain_of(log, checkpoint), checkpoint, contracts, "btc-up"),
    ):
        try:
            look()
            errors.append(None)
        except ChainBrokenError as error:
            errors.append(error)
    return errors


def test_an_honest_log_passes(played):
    log, contracts = played
    scored = [event for event in log.events("scores") if isinstance(event, RoundScored)]
    assert any(entry.charge_units is not None for event in scored for entry in event.data.unscored)
    assert both_looks(log, last_checkpoint(log), contracts) == [None, None]


def test_answers_that_the_function_cannot_score_are_blamed_and_the_audit_finds_the_same(played):
    log, contracts = played
    blamed = [
        entry
        for event in log.events("scores")
        if isinstance(event, RoundScored)
        for entry in event.data.entries()
        if "ZeroDivisionError" in (entry.reason or "")
    ]
    if contracts("new").score_round is touchy:
        ends = {(entry.fault, entry.charge_units) for entry in blamed}
        assert ends == {("model", -(10**9)), ("model", None), ("node", None)}


def rewritten(
    log: MemoryLog, kind: type, change: Callable[[Any], Any], since: int, until: int, topic: str = "scores"
) -> MemoryLog:
    """The log in which the first event of a kind within the period for which `change` returns other data is replaced.
    Later topics stay as they were.
    """
    parts = parts_of(log, topic)
    events, j, data = next(
        (events, j, data)
        for events, *_ in parts
        for j, event in enumerate(events)
        if isinstance(event, kind)
        and since + 600_000 <= event.at < until
        and (data := change(event.data)) is not None
    )
    events[j] = msgspec.structs.replace(events[j], data=data)
    out = log.copy()
    out.topics[topic] = [encode_append(Append(e=1, epoch=1, seq=0, claim="forger"))]
    for number, (rewritten_events, upto, need) in enumerate(parts, start=1):
        for record in encode_decision(rewritten_events, epoch=1, seq=number, upto=upto, need=need):
            out.append(topic, record)
    return out


def richer(data):
    states = {name: msgspec.Raw(b"%d" % 1000) for name in data.states}
    return msgspec.structs.replace(data, states=states) if states else None


def without_a_model(data):
    return msgspec.structs.replace(data, states=dict(list(data.states.items())[1:])) if data.states else None


def other_pot(data):
    return msgspec.structs.replace(data, shared=[msgspec.Raw(b"1")]) if data.shared else None


def better(data):
    column = data.units.get("value", [])
    if all(units is None for units in column):
        return None
    return msgspec.structs.replace(
        data, units={"value": [units if units is None else units + 2 for units in column]}
    )


def cheaper(data):
    if not any(entry.charge_units is not None for entry in data.unscored):
        return None
    unscored = [
        entry
        if entry.charge_units is None
        else msgspec.structs.replace(entry, charge_units=entry.charge_units + 2)
        for entry in data.unscored
    ]
    return msgspec.structs.replace(data, unscored=unscored)


def by_the_model(data):
    if not any(entry.fault == "nobody" for entry in data.unscored):
        return None
    unscored = [
        msgspec.structs.replace(entry, fault="model") if entry.fault == "nobody" else entry
        for entry in data.unscored
    ]
    return msgspec.structs.replace(data, unscored=unscored)


ALTERED = {
    "whose fault it is": (RoundScored, by_the_model, "but it is that of nobody"),
    "a state": (StateCarried, richer, "state carried"),
    "a state left out": (StateCarried, without_a_model, "state carried is as before"),
    "the shared state": (StateCarried, other_pot, "the shared state carried is 1"),
    "a score": (RoundScored, better, "the contract gives"),
    "a charge": (RoundScored, cheaper, "charged"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_each_check_names_an_alteration(played, what):
    log, contracts = played
    kind, change, says = ALTERED[what]
    if kind is StateCarried and not any(isinstance(event, kind) for event in log.events("scores")):
        assert contracts("new").score_round is relative  # which has none
        return
    checkpoint = last_checkpoint(log)
    forged = rewritten(log, kind, change, checkpoint.period_start, checkpoint.period_end)
    alone, both = both_looks(forged, checkpoint, contracts)
    assert alone is not None
    assert (alone.step, says in str(alone)) == ("scores", True), alone
    assert both is not None
    assert both.step == "scores"


def other_order(data):
    if len({model_series.units for model_series in data.series}) < 2:
        return None
    return msgspec.structs.replace(data, series=data.series[::-1])


def other_window(name):
    def change(data):
        units = data.windows_units[name]
        if units is None:
            return None
        return msgspec.structs.replace(data, windows_units=data.windows_units | {name: units + 1})

    return change


SNAPSHOTS = {"series": other_order} | {window.name: other_window(window.name) for window in SPECIAL}


@pytest.mark.parametrize("what", SNAPSHOTS)
def test_each_check_names_an_altered_window(played, what):
    log, contracts = played
    if contracts("new").score_round is not betting:  # their windows are plain
        return
    checkpoint = last_checkpoint(log)

    def change(data):
        return SNAPSHOTS[what](data) if data.period_start >= checkpoint.period_start else None

    forged = rewritten(
        log, SnapshotTaken, change, checkpoint.period_start, checkpoint.period_end + 1, topic="snapshots"
    )
    alone, both = both_looks(forged, checkpoint, contracts)
    assert alone is not None
    assert alone.step == "snapshots", alone
    assert both is not None
    assert both.step == "snapshots"
