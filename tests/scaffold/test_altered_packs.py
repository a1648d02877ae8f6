"""Each pack played through with its own example models: what the log says holds, and a score, a state, a stake, a posted
truth or a share that was altered in it is found and named. `coordinator verify-e2e` runs the same checks over the topics
of a node.
"""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from tests import checked
from tests.memory_log import MemoryLog
from tests.scaffold.workspace import load_contract

from coordinator import scaffolds
from coordinator.streams.audit.facts import ChainBrokenError
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine import candles, play
from coordinator.streams.engine.engine import CRUNCH_ID
from coordinator.streams.events import (
    CheckpointData,
    CheckpointOpened,
    QuestionResolved,
    RoundRescored,
    RoundScored,
    StakesPosted,
    StateCarried,
)
from coordinator.streams.log.envelope import decode_append, encode_decision
from coordinator.streams.ports import FeedRecord
from coordinator.streams.sources.questions.lines import read_line

PACKS = {
    "realtime": "challenge",
    "density": "density",
    "trading": "trading",
    "tournament": "ranks",
    "events": "forecasts",
}
"""Pack -> the folder with its example models."""
SUBJECTS = {"trading": ("BTCUSDT", "ETHUSDT")}
POSTED = ("tournament", "events")
CORRECTED = {
    "do": "resolve",
    "at": "2024-02-20T10:00:00Z",
    "round_id": "week-6",
    "truths": {"q28": {"outcome": 0}},
}
"""Two days after the last question of the pack of events resolved to yes, and in the same checkpoint period."""
MINUTES = 150
DAY_SECONDS = 86_400


class Log(NamedTuple):
    """What a pack left in its topics, and the last checkpoint of it."""

    topics: MemoryLog
    contract: CrunchContract
    checkpoint: CheckpointData
    pack: str = ""


def example_models(folder: str) -> dict[str, Any]:
    """A model of each example, as its `main.py` has it."""
    models = {}
    for main in sorted((Path(scaffolds.__path__[0]) / folder / "examples").glob("*/main.py")):
        spec = importlib.util.spec_from_file_location(f"example_{main.parent.name}", main)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (models[main.parent.name],) = [
            value()
            for value in vars(module).values()
            if isinstance(value, type) and value.__module__ == spec.name and hasattr(value, "predict")
        ]
    return models


def prices(subject: str) -> list[float]:
    """A market that rises, by steps that a trend model can follow."""
    chance = random.Random(subject)
    return [
        round(price, 2)
        for price in accumulate((chance.gauss(0.02, 0.06) for _ in range(MINUTES)), initial=100.0)
    ]


def questions(pack: str) -> list[FeedRecord]:
    """The posts that come with a pack; the one of events corrects the truth of its last question."""
    path = Path(scaffolds.__path__[0]) / PACKS[pack] / "questions" / "example.jsonl"
    lines = path.read_text().splitlines()
    if pack == "events":
        lines.append(json.dumps(CORRECTED))
    posts = [read_line(line) for line in lines]
    end = max(post.at or 0 for post in posts) + 8 * DAY_SECONDS * 1000
    close = {"do": "close", "round_id": "nobody-asked-it", "at": end}
    posts.append(read_line(json.dumps(close)))  # refused, and time passes: the week ends
    return [
        FeedRecord("questions", "questions", "question", "1s", at, at, {"post": text})
        for at, text in posts
        if at is not None
    ]


@pytest.fixture(scope="module", params=PACKS)
def played(request, tmp_path_factory):
    pack = request.param
    with load_contract(pack, tmp_path_factory.mktemp(pack)) as contract:
        models = example_models(PACKS[pack])
        if pack in POSTED:
            records, days = questions(pack), 1
            # Stakes are by the ids of `examples/models.yaml`, which follow the folders' names.
            models = {str(201 + place): model for place, model in enumerate(models.values())}
        else:
            subjects, days = SUBJECTS.get(pack, ("BTCUSDT",)), 0
            records = [record for subject in subjects for record in candles(prices(subject), subject=subject)]
        whole = play(
            contract,
            records,
            models,
            snapshot_interval_seconds=days * DAY_SECONDS or 600,
            checkpoint_interval_seconds=7 * days * DAY_SECONDS or 3600,
        )
        topics = MemoryLog(whole.engine.log.topics)
        opened = [event.data for event in topics.events("checkpoints") if isinstance(event, CheckpointOpened)]
        yield Log(topics, contract, opened[-1], pack)


def fault_of(log: Log, topics: MemoryLog) -> ChainBrokenError | None:
    """What the whole check of the checkpoint finds first; None where all holds."""
    chain = checked.chain_of(topics, log.checkpoint)
    checkpoint = chain.checkpoints[log.checkpoint.checkpoint_id]
    return checked.fault_of(topics, chain, checkpoint, lambda _: log.contract, CRUNCH_ID)


def better_score(data: Any) -> Any:
    """The first score of a round, two units better than it was: one may be rounding."""
    if not data.units.get("value"):
        return None
    column = [*data.units["value"]]
    place = next((i for i, units in enumerate(column) if units is not None), None)
    if place is None:
        return None
    column[place] += 2
    return msgspec.structs.replace(data, units=data.units | {"value": column})


def richer(data: Any) -> Any:
    """Fees of the first account, paid back."""
    for model_id, state in data.states.items():
        account = msgspec.json.decode(state)
        if account["fees"]:
            states = data.states | {model_id: msgspec.Raw(msgspec.json.encode(account | {"fees": 0.0}))}
            return msgspec.structs.replace(data, states=states)
    return None


def moved_share(data: Any) -> Any:
    """Two billionths from the first to the next, or everything to who had nothing: it still sums up."""
    emission = msgspec.json.decode(msgspec.json.encode(data.emission))
    first, *others = emission["cruncher_rewards"]
    if others:
        first["reward_pct"] -= 2
        others[0]["reward_pct"] += 2
    else:
        first["cruncher_index"] = (first["cruncher_index"] + 1) % len(data.ranking)
    return msgspec.structs.replace(data, emission=emission)


def other_truth(data: Any) -> Any:
    """The truth of an event turned round, or the first target of a table moved."""
    truth = msgspec.json.decode(data.truth)
    if "outcome" in truth:
        truth["outcome"] = 1 - truth["outcome"]
    else:
        targets = truth["columns"]["target"]
        targets[0] = 1 - (targets[0] or 0)
    return msgspec.structs.replace(data, truth=msgspec.Raw(msgspec.json.encode(truth)))


def larger_stake(data: Any) -> Any:
    """A stake that is twice what was posted."""
    if not data.stakes:
        return None
    model_id, stake = next(iter(data.stakes.items()))
    return msgspec.structs.replace(data, stakes=data.stakes | {model_id: str(2 * int(stake))})


class Altered(NamedTuple):
    """What is altered: in which topic and event, how; which step names it, and what it says. `packs`: that have it."""

    topic: str
    kind: type
    change: Callable[[Any], Any]
    step: str
    says: str
    packs: tuple[str, ...] = tuple(PACKS)


ALTERED = {
    "a score": Altered("scores", RoundScored, better_score, "scores", ": units.value["),
    "a corrected score": Altered(
        "scores", RoundRescored, better_score, "scores", "units.value[", ("events",)
    ),
    "a state": Altered(
        "scores",
        StateCarried,
        richer,
        "scores",
        ".fees is 0.0, inputs and predictions give ",
        ("trading",),
    ),
    "a posted truth": Altered("feeds", QuestionResolved, other_truth, "feed", ": truth.", POSTED),
    "a stake": Altered(
        "feeds", StakesPosted, larger_stake, "feed", "has another content than its id says", ("tournament",)
    ),
    "a stake that counted": Altered(
        "inputs", StakesPosted, larger_stake, "feed", "inputs: the table of stakes", ("tournament",)
    ),
    "a share": Altered("checkpoints", CheckpointOpened, moved_share, "checkpoint", "cruncher_rewards[0]."),
}


def altered(log: Log, topic: str, kind: type, change: Callable[[Any], Any]) -> MemoryLog:
    """The log with the last event of this kind within the period for which `change` gives other data; of stakes, which
    hold on, the last one before its end. All other records stay what they are, and where they are.
    """
    since, until = log.checkpoint.period_start, log.checkpoint.period_end
    decision, j, data = [
        (decision, j, data)
        for decision in log.topics.decisions(topic)
        for j, event in enumerate(decision.events)
        if isinstance(event, kind)
        and (kind is StakesPosted or since <= getattr(event.data, "resolvable_at", since) < until)
        and event.at <= until + (0 if topic in ("scores", "feeds") else 10**9)
        and (data := change(event.data)) is not None
    ][-1]
    events = [*decision.events]
    events[j] = msgspec.structs.replace(events[j], data=data)
    out = log.topics.copy()
    epoch = decode_append(out.topics[topic][decision.offset]).epoch
    (out.topics[topic][decision.offset],) = encode_decision(
        events, epoch=epoch, seq=decision.seq, upto=dict(decision.upto), need=dict(decision.need)
    )
    return out


def test_what_a_pack_leaves_in_the_log_holds_and_pays(played):
    assert fault_of(played, played.topics) is None
    assert sum(reward["reward_pct"] for reward in played.checkpoint.emission["cruncher_rewards"]) == 10**9


def test_only_packs_of_which_it_is_said_have_states_stakes_and_corrections(played):
    kinds = {type(event) for topic in ("feeds", "scores") for event in played.topics.events(topic)}
    for kind in (StateCarried, RoundRescored, QuestionResolved, StakesPosted):
        packs, *_ = (alteration.packs for alteration in ALTERED.values() if alteration.kind is kind)
        assert (kind in kinds) == (played.pack in packs)


@pytest.mark.parametrize("what", ALTERED)
def test_one_altered_number_is_found_and_named(played, what):
    topic, kind, change, step, says, packs = ALTERED[what]
    if played.pack not in packs:
        return
    fault = fault_of(played, altered(played, topic, kind, change))
    print(what, played.pack, fault)
    assert fault is not None
    assert fault.step == step, fault
    assert says in str(fault)
