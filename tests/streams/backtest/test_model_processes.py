"""Models of a backtest, each in its process. State, prints, exceptions, hangs, crashes and nonsense count as on the
node.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet
from tests.streams.build import DEFAULT, MINUTE, T0

from coordinator.infra.models.host.model_folder import models_of
from coordinator.streams.backtest.parquet_files import Tables
from coordinator.streams.backtest.run import Plan, run_backtest
from coordinator.streams.contract import Aggregation
from coordinator.streams.engine import candles, play
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

HEAD = "import time, os\nfrom coordinator.scaffolds.challenge.tracker import TrackerBase\n\n\nclass M(TrackerBase):\n"
MODELS = {
    "counts": "    n = 0\n    def tick(self, d): self.n += 1\n    def predict(self, s, h, t): return {'value': self.n / 100}\n",
    "prints": "    def predict(self, s, h, t):\n        print('x' * 200_000)\n        return {'value': 0.5}\n",
    "raises": "    def predict(self, s, h, t): raise KeyError('gone')\n",
    "nan": "    def predict(self, s, h, t): return {'value': float('nan')}\n",
    "hangs": "    n = 0\n    def tick(self, d): self.n += 1\n"
    "    def predict(self, s, h, t):\n        if self.n == 3: time.sleep(60)\n        return {'value': self.n / 100}\n",
    "exits": "    n = 0\n    def tick(self, d): self.n += 1\n"
    "    def predict(self, s, h, t):\n        if self.n == 2: os._exit(3)\n        return {'value': 0.1}\n",
    "huge": "    def predict(self, s, h, t): return {'value': 1.0, 'x': 'y' * 400_000}\n",
    "writes": "    def predict(self, s, h, t):\n        open('kept', 'a').write('1')\n"
    "        return {'value': len(open('kept').read()) / 100}\n",
}
RECORDS = candles([100 + n % 3 for n in range(12)], start_ms=T0)
CONTRACT = DEFAULT.model_copy(update={"deadline_seconds": 60.0, "model_strikes_max": 5})
SHORT = CONTRACT.model_copy(update={"deadline_seconds": 3.0})
"""For models that hang. No other answer takes as long as this deadline, even on a busy machine."""


def folder_of(tmp_path: Path, *names: str, body: str = "") -> Path:
    for name in names:
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "main.py").write_text(HEAD + (body or MODELS[name]))
    return tmp_path / "models"


def played(folder: Path, tmp_path: Path, contract=CONTRACT, **options):
    settings = Settings(
        feed_source="generated", snapshot_interval_seconds=60, checkpoint_interval_seconds=300
    )
    plan = Plan(
        models_of(folder),
        contract,
        "c" * 64,
        settings,
        "coordinator.scaffolds.challenge.tracker.TrackerBase",
        **options,
    )
    instants = [(record.at, [record]) for record in RECORDS]
    with Tables(tmp_path / "tables", "value") as tables:
        result = run_backtest(plan, instants, tmp_path / "work", on_decision=tables.take)
    by_model: dict = {}
    for row in parquet.read_table(tmp_path / "tables" / "predictions.parquet").to_pylist():
        by_model.setdefault(row["model_id"], []).append(row)
    return result, by_model


def test_every_kind_of_failure_costs_what_it_costs_on_the_node(tmp_path):
    result, rows = played(folder_of(tmp_path, *MODELS), tmp_path, SHORT)
    outputs = {name: [row["output"] for row in of] for name, of in rows.items()}
    assert outputs["counts"] == [f'{{"value":{n / 100}}}' for n in range(1, 13)]
    assert outputs["prints"] == ['{"value":0.5}'] * 12
    assert {row["reason"] for row in rows["raises"]} == {"MODEL_FAILED: KeyError: 'gone'"}
    assert len(rows["raises"]) == CONTRACT.model_strikes_max  # then it was stopped
    assert {row["reason"] for row in rows["nan"]} == {"BAD_OUTPUT: .value is not finite"}
    # It was restarted without its memory, so the third round after each start hangs again.
    hung = [row["status"] for row in rows["hangs"]]
    assert hung == (["PENDING", "PENDING", "ABSENT"] * 5)[: len(hung)]
    assert {row["fault"] for row in rows["hangs"] if row["status"] == "ABSENT"} == {"model"}
    assert [row["status"] for row in rows["exits"]][:4] == ["PENDING", "ABSENT", "PENDING", "ABSENT"]
    assert "its process ended with 3" in rows["exits"][1]["reason"]
    assert all(row["reason"].startswith("TOO_BIG") for row in rows["huge"])
    assert outputs["writes"] == outputs["counts"]
    assert (tmp_path / "work" / "prints.log").stat().st_size <= 1024 * 1024
    by_id = {line.model_id: line for line in result.models}
    assert by_id["counts"].of.scored == 11
    assert by_id["nan"].rank is None
    assert sum(line.share for line in result.models) % 10**9 == 0


def test_a_process_that_ends_now_and_then_is_begun_again_as_a_model_host_does(tmp_path):
    """A host gives up at the fifth end within 300 s. Over all of a long backtest that would be too strict."""
    folder = folder_of(tmp_path, "exits")
    folder_of(tmp_path, "ends", body="    def predict(self, s, h, t): os._exit(3)\n")
    _, rows = played(folder, tmp_path, CONTRACT.model_copy(update={"model_strikes_max": 0}))
    assert [row["status"] for row in rows["exits"]] == ["PENDING", "ABSENT"] * 6
    assert [row["status"] for row in rows["ends"]] == ["ABSENT"] * 5


PIPE = "    def predict(self, s, h, t):\n        os.write(int(sys.argv[-1]), {said})\n{then}        return {{'value': 0.1}}\n"


@pytest.mark.parametrize(
    ("written", "then", "status"),
    [
        (b"\0\0\0\2no", "", "ABSENT"),  # no answer at all, where one is due
        (b"\0\0\0\0", "", "ABSENT"),  # an empty one
        (b"\0\0\0\7par", "        time.sleep(60)\n", "ABSENT"),  # the beginning of one
    ],
)
def test_a_model_that_writes_to_the_pipe_harms_itself_alone(tmp_path, written, then, status):
    folder = folder_of(tmp_path, "counts")
    folder_of(tmp_path, "meddles", body=PIPE.format(said=written, then=then))
    (folder / "meddles" / "main.py").write_text("import sys\n" + (folder / "meddles" / "main.py").read_text())
    result, rows = played(folder, tmp_path, SHORT)
    assert {row["status"] for row in rows["meddles"]} == {status}
    assert {row["fault"] for row in rows["meddles"]} == {"model"}
    assert [row["status"] for row in rows["counts"]] == ["PENDING"] * 12
    assert {line.model_id: line.of.scored for line in result.models} == {"counts": 11, "meddles": 0}


def test_a_fork_of_a_model_that_returns_answers_nothing(tmp_path):
    """Otherwise both would answer, and each later round would get the answer to an earlier one."""
    body = (
        "    n = 0\n    def tick(self, d): self.n += 1\n"
        "    def predict(self, s, h, t):\n        if os.fork() == 0: time.sleep(0.05 * (self.n % 2))\n"
        "        return {'value': self.n / 100}\n"
    )
    _, rows = played(folder_of(tmp_path, "forks", body=body), tmp_path)
    assert [row["output"] for row in rows["forks"]] == [f'{{"value":{n / 100}}}' for n in range(1, 13)]


def test_the_numbers_are_those_of_the_engine(tmp_path):
    """The same model, as a function in this process."""
    result, _ = played(folder_of(tmp_path, "counts"), tmp_path)
    scores = parquet.read_table(tmp_path / "tables" / "scores.parquet").to_pylist()
    n = iter(range(1, 13))
    same = play(
        CONTRACT,
        RECORDS,
        {"counts": lambda data, call: {"value": next(n) / 100}},
        snapshot_interval_seconds=60,
    )
    assert [row["value_units"] for row in scores] == [row.units["value"] for row in same.scores["counts"]]
    (line,) = result.models
    assert line.of.total[0] == sum(row.units.get("value", 0) for row in same.scores["counts"])
    assert (line.of.scored, result.rounds) == (11, 12)
    assert (result.first_point, result.last_point) == (T0, T0 + 11 * MINUTE)


def test_the_board_by_a_key_of_the_summary_is_that_of_play(tmp_path):
    contract = CONTRACT.model_copy(update={"aggregation": Aggregation(ranking_key="value")})
    result, _ = played(folder_of(tmp_path, "counts", "prints", "nan"), tmp_path, contract)
    n = iter(range(1, 13))
    models = {
        "counts": lambda data, call: {"value": next(n) / 100},
        "prints": lambda data, call: {"value": 0.5},
        "nan": lambda data, call: {"value": float("nan")},
    }
    same = play(contract, RECORDS, models, snapshot_interval_seconds=60)
    assert len(same.board) == 2
    assert [(line.rank, line.model_id, line.rank_units) for line in result.models] == [
        *((place.rank, place.model_id, place.units) for place in same.board),
        (None, "nan", None),
    ]


def test_a_slow_answer_is_reported_and_costs_nothing_by_default(tmp_path):
    body = "    def predict(self, s, h, t):\n        time.sleep(0.01)\n        return {'value': 0.1}\n"
    folder = folder_of(tmp_path, "slow", body=body)
    result, _ = played(folder, tmp_path)
    (line,) = result.models
    assert line.of.scored == 11
    assert line.p50_us >= 10_000
    assert line.late_count == 0


def test_a_model_that_cannot_be_created_is_named(tmp_path):
    folder = folder_of(tmp_path, "broken", body="    def __init__(self): raise ValueError('no weights')\n")
    with pytest.raises(
        OperatorError, match="broken cannot be run: its construction failed: ValueError: no weights"
    ):
        played(folder, tmp_path)
    (folder / "broken" / "main.py").write_text("x = 1\n")
    with pytest.raises(OperatorError, match="no subclass of"):
        played(folder, tmp_path)
