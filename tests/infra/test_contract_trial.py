"""`contract check` in two processes: a result that differs between them is found and named; an exit of the process is a
finding.
"""

from __future__ import annotations

import sys

import pytest
from tests import forked_modules

from coordinator.infra.contracts import trial as contract_trial
from coordinator.infra.contracts.trial import tried
from coordinator.streams.contract.checking.findings import Finding, State
from coordinator.streams.settings import Settings

TEMPLATE = """
import datetime, functools, os, random, sys, time
from datetime import datetime as moment
from coordinator.streams.contract import CrunchContract

seen, FACTOR = [], float(os.environ.get("A_FACTOR", "1"))
random.seed(7)

def base(prediction, truth):
    d = (truth.return_ > 0) - (truth.return_ < 0)
    v = min(1.0, max(-1.0, prediction.value))
    return 2 * v * d - v * v

def score(prediction, truth):
    {extra}
    return {{"value": {value}}}

CONTRACT = CrunchContract(score_prediction=score)
"""


@pytest.fixture
def forks(monkeypatch):
    """The two processes are forks: what they cost are mostly imports. Each keeps its own hash seed."""
    monkeypatch.setattr(contract_trial, "subprocess", forked_modules)


@pytest.fixture
def trial(tmp_path, monkeypatch):
    def trial(value: str, extra: str = "pass", text: str = TEMPLATE) -> list[Finding]:
        (tmp_path / "its_contract.py").write_text(text.format(value=value, extra=extra))
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        return tried("its_contract:CONTRACT", Settings())

    return trial


def faults(findings: list[Finding]) -> str:
    return " ".join(finding.says for finding in findings if finding.state is State.FAULT)


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize(
    ("value", "extra"),
    [
        ("base(prediction, truth) + random.random() * 1e-7", "pass"),
        ("base(prediction, truth)", "seen.append(1) or (len(seen) == 150 and prediction.__dict__.update(value=0.7))"),
        ("base(prediction, truth) + hash(str(prediction.value)) % 1000 / 1e7", "pass"),
        ("base(prediction, truth) + id(object()) % 1000003 / 1e8", "pass"),
        ("base(prediction, truth) * (0.5 ** (time.time() % 86400 / 86400))", "pass"),
        ("base(prediction, truth) + moment.now().hour / 1e7", "pass"),
        ("base(prediction, truth) + datetime.date.today().month / 1e7", "pass"),
        ("base(prediction, truth) + list({'a', 'b', 'c', 'd', 'e'}).index('a') / 1e7", "pass"),
        ("base(prediction, truth) * FACTOR", "pass"),
        ("base(prediction, truth) + (random.random() * 1e-7 if 0.1 < prediction.value < 0.4 else 0)", "pass"),
    ],
)  # fmt: skip
def test_a_result_that_is_not_the_same_twice_is_named(trial, monkeypatch, value, extra):
    monkeypatch.setenv("A_FACTOR", "2")
    assert "score_prediction is not the same twice" in faults(trial(value, extra))


def test_a_file_that_is_no_part_of_it_is_named_and_one_beside_it_is_not(trial, tmp_path):
    (tmp_path.parent / "elsewhere.txt").write_text("2")
    outside = f"float(open({str(tmp_path.parent / 'elsewhere.txt')!r}).read())"
    assert "elsewhere.txt, which is not part of the contract" in faults(
        trial(f"base(prediction, truth) * {outside}")
    )
    (tmp_path / "beside.txt").write_text("2")
    beside = "float(open(os.path.join(os.path.dirname(__file__), 'beside.txt')).read())"
    assert not faults(trial(f"base(prediction, truth) * {beside}"))


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("os._exit(0)", "score_prediction, for {'value': 0.5} after a small rise: ended the whole process"),
        ("os.kill(os.getpid(), 9)", "ended the whole process (signal 9)"),
        (
            "time.sleep(100)",
            "score_prediction, for {'value': 0.5} after a small rise: did not come back within 3 s",
        ),
        (
            "[0 for _ in iter(int, 1)]",
            "score_prediction, for {'value': 0.5} after a small rise: used more than 1 s of CPU time",
        ),
        ("prediction.value == -0.1 and sys.exit(1)", "SystemExit: 1"),
    ],
)
def test_a_function_that_ends_the_process_or_never_returns_is_a_fault_with_its_name(
    trial, monkeypatch, extra, says
):
    monkeypatch.setattr(contract_trial, "CALL_CPU_SECONDS_MAX", 1.0)
    if "sleep" in extra:
        monkeypatch.setattr(contract_trial, "CALL_SILENT_SECONDS_MAX", 3.0)
    complaint = faults(trial("base(prediction, truth)", extra))
    assert says in complaint
    assert "score_prediction" in complaint


@pytest.mark.usefixtures("forks")
def test_the_time_in_which_a_call_does_not_run_is_not_counted(trial, monkeypatch):
    monkeypatch.setattr(contract_trial, "CALL_CPU_SECONDS_MAX", 1.0)
    assert not faults(trial("base(prediction, truth)", "seen or seen.append(time.sleep(2))"))


@pytest.mark.usefixtures("forks")
def test_caches_and_printed_texts_are_no_fault(trial):
    extra = "print('scored'); functools.lru_cache(base); random.Random(3).random()"
    findings = trial("base(prediction, truth) + random.Random(5).random() * 0", extra)
    assert not faults(findings)
    assert [finding.state for finding in findings if finding.check == "the same twice"] == [State.OK]


@pytest.mark.usefixtures("forks")
def test_a_file_that_does_not_load_is_one_finding(trial):
    (finding,) = trial("", text="import nothing_like_this\nCONTRACT = 1")
    assert (finding.check, finding.state) == ("loads", State.FAULT)
    assert "nothing_like_this" in finding.says


ROUND = """
import time
import numpy as np
from coordinator.streams.contract import CrunchContract, RoundScores

seen = []

def score_round(answers, truth, context):
    v = np.clip(answers.column("value"), -1, 1)
    score = 2 * v * np.sign(truth.return_) - v * v
    {extra}
    return RoundScores({{"value": {value}}}, shared=(context.shared or 0) + 1)

CONTRACT = CrunchContract(score_round=score_round)
"""


def test_a_round_that_is_a_function_of_its_answers_and_state_is_the_same_twice(trial):
    findings = trial("score - np.nanmean(score) + (context.shared or 0)", text=ROUND)
    assert not faults(findings)
    states = {finding.check: finding.state for finding in findings}
    assert (states["the same twice"], states["score_round"]) == (State.OK, State.OK)


def test_an_import_that_looks_at_a_missing_folder_of_the_module_path_is_no_fault(
    trial, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", [str(tmp_path.parent / "gone"), *sys.path])
    assert not faults(trial("score - np.nanmean(score)", "import xml.dom.minidom", text=ROUND))


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize(
    ("value", "extra"),
    [
        ("score + np.random.default_rng().random() / 1e6", "pass"),
        ("score + len(seen) / 1e6", "seen.append(1)"),
        ("score + time.time() / 1e9", "pass"),
    ],
)
def test_a_round_scored_by_chance_the_clock_or_earlier_calls_is_named(trial, value, extra):
    assert "score_round is not the same twice" in faults(trial(value, extra, text=ROUND))
