"""Each pack played through with its own example models: what the log says holds, and a score, a state or a share that was
altered in it is found and named. `coordinator verify-e2e` runs the same checks over the topics of a node.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.memory_log import MemoryLog
from tests.scaffold.workspace import load_contract
from tests.streams.audit.test_mutations import parts_of, topics_of, written

from coordinator import scaffolds
from coordinator.streams.audit.checkpoint import STEPS, check_log
from coordinator.streams.audit.facts import TOPICS_READ, Chain, ChainBrokenError
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine import candles, play
from coordinator.streams.engine.engine import CRUNCH_ID
from coordinator.streams.events import CheckpointData, CheckpointOpened, RoundScored, StateCarried

PACKS = {"realtime": "challenge", "density": "density", "trading": "trading"}
"""Pack -> the folder with its example models."""
SUBJECTS = {"trading": ("BTCUSDT", "ETHUSDT")}
MINUTES = 150


class Log(NamedTuple):
    """What a pack left in its topics, and the last checkpoint of it."""

    topics: MemoryLog
    contract: CrunchContract
    checkpoint: CheckpointData


def example_models(folder: str) -> dict[str, Any]:
    """A model of each example, as its `main.py` has it."""
    made = {}
    for main in sorted((Path(scaffolds.__path__[0]) / folder / "examples").glob("*/main.py")):
        spec = importlib.util.spec_from_file_location(f"example_{main.parent.name}", main)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (made[main.parent.name],) = [
            value()
            for value in vars(module).values()
            if isinstance(value, type) and value.__module__ == spec.name and hasattr(value, "predict")
        ]
    return made


def prices(subject: str) -> list[float]:
    """A market that rises, by steps that a trend model can follow."""
    chance = random.Random(subject)
    return [
        round(one, 2) for one in accumulate((chance.gauss(0.02, 0.06) for _ in range(MINUTES)), initial=100.0)
    ]


@pytest.fixture(scope="module", params=PACKS)
def played(request, tmp_path_factory):
    with load_contract(request.param, tmp_path_factory.mktemp(request.param)) as contract:
        records = [
            record
            for subject in SUBJECTS.get(request.param, ("BTCUSDT",))
            for record in candles(prices(subject), subject=subject)
        ]
        whole = play(
            contract,
            records,
            example_models(PACKS[request.param]),
            snapshot_interval_seconds=600,
            checkpoint_interval_seconds=3600,
        )
        topics = MemoryLog(whole.engine.log.topics)
        opened = [one.data for one in topics.events("checkpoints") if isinstance(one, CheckpointOpened)]
        yield Log(topics, contract, opened[-1])


def fault_of(log: Log, topics: MemoryLog) -> ChainBrokenError | None:
    """What the whole check of the checkpoint finds first; None where all holds."""
    period = (log.checkpoint.period_start, log.checkpoint.period_end)
    chain = Chain({topic: topics.decisions(topic) for topic in TOPICS_READ}, period)
    checkpoint = chain.checkpoints[log.checkpoint.checkpoint_id]

    async def walk() -> list[str]:
        steps = check_log(topics_of(topics), chain, checkpoint, lambda _: log.contract, CRUNCH_ID)
        return [step async for step, _ in steps]

    try:
        assert asyncio.run(walk()) == list(STEPS)
    except ChainBrokenError as error:
        return error
    return None


def better_score(data: Any) -> Any:
    """The first score of a round, one unit better than it was."""
    if not data.units.get("value"):
        return None
    column = [*data.units["value"]]
    place = next((i for i, one in enumerate(column) if one is not None), None)
    if place is None:
        return None
    column[place] += 1
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
    """One billionth from the first to the next, or everything to who had nothing: it still sums up."""
    emission = msgspec.json.decode(msgspec.json.encode(data.emission))
    first, *others = emission["cruncher_rewards"]
    if others:
        first["reward_pct"] -= 1
        others[0]["reward_pct"] += 1
    else:
        first["cruncher_index"] = (first["cruncher_index"] + 1) % len(data.ranking)
    return msgspec.structs.replace(data, emission=emission)


ALTERED: dict[str, tuple[str, type, Callable[[Any], Any], str, str]] = {
    "a score": ("scores", RoundScored, better_score, "scores", ": units.value["),
    "a state": ("scores", StateCarried, richer, "scores", ".fees is 0.0, inputs and predictions give "),
    "a share": ("checkpoints", CheckpointOpened, moved_share, "checkpoint", "cruncher_rewards[0]."),
}


def altered(log: Log, topic: str, kind: type, change: Callable[[Any], Any]) -> MemoryLog:
    """The log with the last event of this kind within the period for which `change` gives other data."""
    parts = parts_of(log.topics, topic)
    since, until = log.checkpoint.period_start, log.checkpoint.period_end
    events, j, data = [
        (events, j, data)
        for events, *_ in parts
        for j, event in enumerate(events)
        if isinstance(event, kind)
        and since <= getattr(event.data, "resolvable_at", since) < until
        and event.at <= until + (0 if topic == "scores" else 10**9)
        and (data := change(event.data)) is not None
    ][-1]
    events[j] = msgspec.structs.replace(events[j], data=data)
    return written(log.topics, topic, parts, redone=False)


def test_what_a_pack_leaves_in_the_log_holds_and_pays(played):
    assert fault_of(played, played.topics) is None
    assert sum(one["reward_pct"] for one in played.checkpoint.emission["cruncher_rewards"]) == 10**9


@pytest.mark.parametrize("what", ALTERED)
def test_one_altered_number_is_found_and_named(played, what):
    topic, kind, change, step, says = ALTERED[what]
    carries = any(isinstance(event, StateCarried) for event in played.topics.events("scores"))
    assert carries == (played.contract.score_type.__name__ == "Profit")  # the trading pack alone
    if kind is StateCarried and not carries:
        return
    fault = fault_of(played, altered(played, topic, kind, change))
    assert fault is not None
    assert fault.step == step, fault
    assert says in str(fault)
