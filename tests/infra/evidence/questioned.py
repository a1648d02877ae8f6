"""A log of posted questions: asked again, answered by hand, void, and with a corrected truth."""

from __future__ import annotations

from functools import lru_cache

from tests.infra.evidence.bundles import MODULE, applied
from tests.streams.engine.test_questions_again import handed_in, post, resolve
from tests.streams.engine.test_questions_played import DAY, HOUR, MINUTE, T0

from coordinator.infra.contracts.archive import unpack
from coordinator.streams import events as ev
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.settings import Settings

PERIOD_DAYS = 4
AGAIN, VOID, ANNULLED, CORRECTED, LATER = "again", "void", "annulled", "corrected", "later"
"""Questions of each kind: asked again because a model was down, and answered by hand twice; void after it closed; void
while it was open; with a truth corrected two days later; with a truth that comes in the second checkpoint period.
"""
RULES = """
from pydantic import BaseModel

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.questions import Questions


class Outcome(BaseModel):
    outcome: float


def brier(prediction, truth):
    return {"value": 1 - (prediction.value - truth.outcome) ** 2}


ASKED = {
    "crunch_pubkey": "So11111111111111111111111111111111111111112",
    "ground_truth_type": Outcome,
    "score_prediction": brier,
    "questions": Questions(ask_missing_seconds=60),
}
FIRST = CrunchContract(**ASKED)
SECOND = CrunchContract(**ASKED)
"""
SETTINGS = Settings(
    feed_source="questions",
    feed_kind="question",
    feed_granularity="1s",
    feed_subjects=("questions",),
    snapshot_interval_seconds=DAY // 1000,
    checkpoint_interval_seconds=PERIOD_DAYS * DAY // 1000,
    checkpoint_offset_seconds=T0 // 1000 % (PERIOD_DAYS * DAY // 1000),
)


def annul(engine: Engine, name: str, at: int) -> None:
    """A question is voided now."""
    data = ev.VoidQuestionsData(round_id="r", reason="no such event", question_ids=[name])
    engine.command(ev.VoidQuestions(id=f"void/{name}", at=at, data=data))


@lru_cache
def questioned_log() -> MemoryLog:
    """Two checkpoint periods. `slow` misses the first asking of AGAIN and answers the second; `even` answers all."""
    key, archive = applied(RULES)["FIRST"]
    contract = unpack(archive, key)
    askings: dict[str, int] = {}

    def slow(data, _call):
        name = data["question_id"]
        askings[name] = askings.get(name, 0) + 1
        if name == AGAIN and askings[name] == 1:
            raise RuntimeError
        return {"value": 0.75}

    models = {"slow": slow, "even": lambda _data, _call: {"value": 0.5}}
    engine = Engine({key: contract}.__getitem__, Functions(models), crunch_id="btc-up")
    engine.configure(make_terms(contract, key, SETTINGS, 0, scoring_hash=key))
    data = ev.ApplyContractData(contract_hash=key, path=f"{MODULE}:FIRST", archive=archive)
    engine.command(ev.ApplyContract(id="cmd/apply/0", at=T0, data=data))
    engine.feed(T0, [])
    for name in (AGAIN, VOID, ANNULLED, CORRECTED):
        post(engine, name, T0, T0 + DAY // 2)
    post(engine, LATER, T0 + MINUTE, T0 + (PERIOD_DAYS + 1) * DAY)
    engine.feed(T0 + MINUTE, [])
    engine.feed(T0 + 2 * MINUTE, [])
    engine.feed(T0 + 3 * MINUTE, [])
    handed_in(engine, AGAIN, T0 + HOUR, 0.9)
    engine.feed(T0 + 2 * HOUR, [])
    handed_in(engine, AGAIN, T0 + 2 * HOUR, 0.8)
    annul(engine, ANNULLED, T0 + 2 * HOUR)
    engine.feed(T0 + DAY // 2, [])
    at = T0 + DAY // 2 + HOUR
    engine.feed(at, [])
    resolve(engine, AGAIN, at, 1.0)
    resolve(engine, CORRECTED, at, 0.0)
    annul(engine, VOID, at)
    for day in range(1, 2 * PERIOD_DAYS + 2):
        engine.feed(T0 + day * DAY, [])
        if day == 2:
            resolve(engine, CORRECTED, T0 + day * DAY + HOUR, 1.0)
        if day == PERIOD_DAYS + 2:
            resolve(engine, LATER, T0 + day * DAY + HOUR, 1.0)
    return engine.log
