"""The hash of a contract covers its declarations and its code, and is the same in every process. Contracts are stored
by hash.
"""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
from typing import Any

import pytest

from coordinator.infra.contracts.loading import ContractShelf, contract_hash, load_contracts
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.streams.contract import CrunchContract, ScheduledPrediction
from coordinator.streams.log.errors import ContractError, OperatorError

MODULE = """
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.streams.contract import CrunchContract, ScheduledPrediction

FACTOR = {factor}

def helper(value):
    return value * FACTOR

def score(prediction, truth):
    return {{"value": helper(0.1)}}

CONTRACT = CrunchContract(score_prediction=score, grace_seconds={grace})
"""


@pytest.fixture
def author(tmp_path, monkeypatch):
    """Writes the author's module under a unique name and loads it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules: list[str] = []

    def write(factor: int = 1, grace: int = 5, name: str = "") -> str:
        module = name or f"authors_{len(modules)}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(MODULE.format(factor=factor, grace=grace))
        importlib.invalidate_caches()
        modules.append(module)
        return f"{module}:CONTRACT"

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def test_the_hash_covers_what_the_contract_declares_and_does(author):
    same = load_contracts(author()).current_hash
    assert load_contracts(author()).current_hash == same
    assert load_contracts(author(grace=6)).current_hash != same
    assert load_contracts(author(factor=2)).current_hash != same  # a helper's constant is behaviour too
    assert CrunchContract().model_dump(mode="python").keys() == CrunchContract.model_fields.keys()


def test_the_hash_is_the_same_in_another_process(author, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from coordinator.infra.contracts.loading import load_contracts\n"
        f"print(load_contracts({author()!r}).current_hash)\n"
        "print(load_contracts('coordinator.streams.contract:CrunchContract').current_hash)\n"
    )
    seen = set()
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1
    assert seen.pop().split()[1] == contract_hash(CrunchContract())


def weighted(weight: float, prediction: Any, truth: Any) -> dict[str, float]:
    return {"value": weight * prediction.value}


class Weighted:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, prediction: Any, truth: Any) -> dict[str, float]:
        return {"value": self.weight * prediction.value}


@pytest.mark.parametrize(
    "make",
    [lambda w: functools.partial(weighted, w), Weighted, lambda w: Weighted(w).__call__],
    ids=["partial", "object", "method"],
)
def test_a_callable_with_values_of_its_own_is_hashed_by_them_and_not_by_its_address(make):
    """With an address in its hash, the contract would be another one after every restart, and the old one would be
    missing.
    """
    same = contract_hash(CrunchContract(score_prediction=make(0.5)))
    assert contract_hash(CrunchContract(score_prediction=make(0.5))) == same
    assert contract_hash(CrunchContract(score_prediction=make(0.25))) != same


def test_a_callable_with_values_that_cannot_be_written_as_text_is_refused_by_its_field():
    with pytest.raises(ContractError, match="score_prediction"):
        contract_hash(CrunchContract(score_prediction=Weighted(object())))


def test_a_function_without_source_is_hashed_by_its_code_and_constants():
    def hash_made_of(text: str):
        space: dict[str, Any] = {"__name__": "nowhere"}
        exec(text, space)  # noqa: S102 - a function whose source is in no file
        return contract_hash(CrunchContract(score_prediction=space["score"]))

    template = "def score(p, t):\n    return {'value': %s}"
    assert hash_made_of(template % "1.0") == hash_made_of(template % "1.0")
    assert hash_made_of(template % "1.0") != hash_made_of(template % "2.0")
    assert hash_made_of("def score(p, t):\n    return {'value': [x * 1.0 for x in (1,)][0]}") != hash_made_of(
        template % "1.0"
    )


def test_old_and_new_contracts_are_stored_side_by_side_by_hash(author):
    shelf = load_contracts(f"{author(factor=2)},{author(factor=3)}")
    assert isinstance(shelf, ContractShelf)
    assert shelf(shelf.current_hash) is shelf.current
    old = load_contracts(author(factor=2)).current_hash
    assert old != shelf.current_hash
    assert shelf(old).grace_seconds == 5
    with pytest.raises(OperatorError, match="is neither in the data directory nor in the log"):
        shelf("f" * 64)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "must be module:attribute"),
        ("nowhere.at.all:CONTRACT", "cannot be loaded: ModuleNotFoundError"),
        ("coordinator.streams.contract:Nothing", "cannot be loaded: AttributeError"),
        ("coordinator.streams.contract:FRAC64_ONE", "is a int, not a CrunchContract"),
    ],
)
def test_a_wrong_path_is_never_replaced_by_the_default(path, message):
    with pytest.raises(OperatorError, match=message):
        load_contracts(path)


def test_a_score_has_another_meaning_if_its_params_differ():
    def scoring(**params: Any) -> str:
        schedule = ScheduledPrediction(scope_key="1h", params=params, interval_seconds=60 + len(params))
        return scoring_hash(CrunchContract(scheduled_predictions=[schedule]))

    assert scoring() == scoring_hash(CrunchContract())
    assert scoring(scale=1) == scoring(scale=1)
    assert scoring(scale=1) != scoring(scale=2) != scoring()
