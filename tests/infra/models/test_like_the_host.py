"""A backtest's models, in processes behind pipes, give the same results as on the model host, from the same folders.

The host is real, with real gRPC. Each model is asked over it and in a backtest's process, with the same inputs, and the
node's own function judges both answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.infra.models.stage import HEAD, OpenStage, Stage, write_model
from tests.streams.build import DEFAULT, T0

from coordinator.infra.models.host.model_folder import models_of
from coordinator.infra.models.host.process import Limits
from coordinator.streams.backtest.model_processes import ProcessModels
from coordinator.streams.engine import candles, play
from coordinator.streams.engine.models import judged
from coordinator.streams.events import (
    AnswerEntry,
    InputReceived,
    InputReceivedData,
    RosterEntry,
    RoundOpened,
    RoundOpenedData,
)
from coordinator.streams.ports import ModelReply, Outcome
from coordinator.streams.predictions.calls import Calls

CONTRACT = DEFAULT.model_copy(update={"deadline_seconds": 30.0, "output_max_bytes": 1000})
HANG_SECONDS = 2.0
"""The time limit for the model that hangs. The others have the contract's limit, because they are many on few cores."""
ROUNDS = 3
MODELS = {
    "keeps_state": "self.n = getattr(self, 'n', 0) + 1; return {'value': self.n / 10}",
    "keeps_a_file": "open('kept', 'a').write('1'); return {'value': len(open('kept').read()) / 10}",
    "prints": "print('x' * 100_000); return {'value': 0.5}",
    "changes_what_it_was_given": "return {'value': 0.5} if self.latest_data()['candles'].append(1) is None else None",
    "raises": "raise KeyError('gone')",
    "gives_up": "raise SystemExit(4)",
    "nan": "return {'value': float('nan')}",
    "infinity": "return {'value': 1e999}",
    "none": "return None",
    "a_tuple": "return (1, 2)",
    "a_bare_number": "return 1",
    "true": "return True",
    "text_of_half_a_letter": "return '\\ud800'",
    "a_numpy_number": "import numpy; return {'value': numpy.float32(0.5)}",
    "too_wide": "return 2**70",
    "text": "return 'up'",
    "other_keys": "return {'price': 1.0}",
    "a_word": "return {'value': 'much'}",
    "half_a_letter": "return {'value': 0.1, 'why': '\\ud800'}",
    "large": "return {'value': 'x' * 100_000}",
    "hangs": "import time; time.sleep(60)",
    "crashes": "import os; os._exit(3)",
}
SURVIVE = MODELS.keys() - {"hangs", "crashes"}
ASKED = [MODELS.keys() - {"hangs"}, SURVIVE, SURVIVE]
"""The models asked in each round. The one that hangs is asked alone, before the others."""
Ended = Mapping[str, tuple[str, str, str, str | None]]
"""model id -> (status, output as JSON, reason, fault)"""


def source(predict: str) -> str:
    return f"""{HEAD}
class Model(TrackerBase):
    def tick(self, data):
        self.data = data

    def latest_data(self):
        return self.data

    def predict(self, subject, horizon_seconds, step_seconds):
        {predict}
"""


def inputs() -> list[InputReceivedData]:
    """The first inputs of a market, as the node makes them."""
    played = play(CONTRACT, candles([100, 101, 99, 100], start_ms=T0), {})
    return [event.data for event in played.engine.log.events("inputs") if isinstance(event, InputReceived)][
        :ROUNDS
    ]


def opened_for(data: InputReceivedData, names: list[str]) -> RoundOpened:
    return RoundOpened(
        id=f"{data.input_id}:opened",
        at=data.point,
        data=RoundOpenedData(
            input_id=data.input_id,
            roster=[RosterEntry(model_id=name, deployment_id=f"{name}-1") for name in names],
            scope_keys=[scope.scope_key for scope in data.scopes],
            clock=data.point,
            contract_hash=data.contract_hash,
            models_seq=1,
        ),
    )


def ended(entries: list[AnswerEntry]) -> Ended:
    """Each side describes the end of its process in its own words. The other reasons must be equal word for word."""
    return {
        entry.model_id: (
            entry.status,
            bytes(entry.output).decode(),
            entry.reason if entry.model_id in SURVIVE else entry.reason.partition(":")[0],
            entry.fault,
        )
        for entry in entries
    }


def by_backtest(tmp_path: Path, rounds: list[InputReceivedData]) -> list[Ended]:
    models = ProcessModels(
        models_of(tmp_path / "models"),
        "coordinator.scaffolds.challenge.tracker.TrackerBase",
        tmp_path / "work",
    )
    contract = CONTRACT.model_copy(update={"model_strikes_max": 100})
    short = contract.model_copy(update={"deadline_seconds": HANG_SECONDS})
    models.start()
    try:
        asked = [(rounds[0], {"hangs"}, short)]
        asked += [(data, names, contract) for data, names in zip(rounds, ASKED, strict=True)]
        answers_of_rounds = []
        for data, names, rules in asked:
            answers = models.answers(opened_for(data, sorted(names)), data, rules, Calls(data, rules))
            answers = answers() if callable(answers) else answers  # asked first, read later
            (entries,) = answers.values()
            answers_of_rounds.append(ended(list(entries)))
        return answers_of_rounds
    finally:
        models.close()


async def by_host(stage: Stage, rounds: list[InputReceivedData]) -> list[Ended]:
    asked = [(rounds[0], ["hangs"], HANG_SECONDS)]
    asked += [
        (data, sorted(names), CONTRACT.deadline_seconds) for data, names in zip(rounds, ASKED, strict=True)
    ]
    answers = []
    for data, names, seconds in asked:
        calls = Calls(data, CONTRACT)
        ticked = await stage.gateway.call("tick", calls.tick(""), CONTRACT.deadline_seconds, names)
        assert {reply.outcome for reply in ticked.values()} == {Outcome.OK}
        ((scope, values),) = calls.predicts("")
        replies = await stage.gateway.call("predict", values, seconds, names, CONTRACT.output_max_bytes)
        by_scope: dict[str, dict[str, ModelReply]] = {
            name: {scope.scope_key: reply} for name, reply in replies.items()
        }
        (entries,) = judged(opened_for(data, names), data, CONTRACT, by_scope).values()
        answers.append(ended(list(entries)))
    return answers


async def test_each_kind_of_model_has_the_same_results_in_a_backtest_and_on_the_host(
    tmp_path: Path, open_stage: OpenStage
):
    for name, predict in MODELS.items():
        write_model(tmp_path / "models", name, source(predict))
    rounds = inputs()
    assert len(rounds) == ROUNDS
    stage = await open_stage(tmp_path / "models", Limits(memory_limit_mb=1024))
    await stage.seen(*MODELS)
    at_the_host = await by_host(stage, rounds)
    in_a_backtest = by_backtest(tmp_path, rounds)
    # A host may notice that a process has gone before the call to it fails. The model is then absent, also by its own
    # fault.
    if at_the_host[1]["crashes"][2] == "ABSENT":
        assert in_a_backtest[1]["crashes"][2] == "CRASHED"
        at_the_host[1] = {**at_the_host[1], "crashes": in_a_backtest[1]["crashes"]}
        assert at_the_host[1]["crashes"][0::3] == ("ABSENT", "model")
    differ = [
        (number, name, of_backtest[name], of_host.get(name))
        for number, (of_backtest, of_host) in enumerate(zip(in_a_backtest, at_the_host, strict=True))
        for name in of_backtest
        if of_backtest[name] != of_host.get(name)
    ]
    assert differ == []
    assert at_the_host[-1]["keeps_state"][:2] == ("PENDING", '{"value":0.3}')
    assert at_the_host[0]["hangs"][0] == "ABSENT"
    statuses = {name: row[0] for name, row in at_the_host[1].items()}
    assert {name for name, status in statuses.items() if status == "ABSENT"} == {"crashes"}
    assert statuses["raises"] == statuses["nan"] == statuses["large"] == "FAILED"
