"""The hash of a contract covers its meaning: equivalent contracts have the same hash, others a different one."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.infra.contracts import sources as contract_sources
from coordinator.infra.contracts.code import digest_of, shape
from coordinator.infra.contracts.loading import contract_hash, load_contract
from coordinator.streams.contract import (
    CrunchContract,
    absence,
    aggregation,
    boards,
    call_method,
    ensembles,
    metrics,
    payout,
    periods,
    provided_versions,
    questions,
    schedules,
    types,
)
from coordinator.streams.contract import contract as contract_module

FILES = {
    "rules/__init__.py": "",
    "rules/contracts.py": """
from coordinator.streams.contract import CrunchContract
from rules.scoring import score

CONTRACT = CrunchContract(score_prediction=score, grace_seconds=6)
""",
    "rules/scoring.py": '''
"""How it is scored."""
import math
import numpy as np
from typing import Any

from .units import LIMITS, clipped

def unused(value):
    return value * 3

def score(prediction: Any, truth: Any) -> dict[str, Any]:
    """The score."""
    said = clipped(prediction.value)  # a comment
    return {"value": float(np.sign(truth.return_)) * said + math.floor(LIMITS["floor"])}
''',
    "rules/units.py": """
LIMITS = {"floor": 0.5}
TOP = 0.75

def clipped(value):
    return min(TOP, max(-TOP, value))
""",
}


@pytest.fixture
def hash_of(tmp_path, monkeypatch):
    """The hash of a workspace with these files. A change is (file, old, new)."""
    number = 0

    def hash_of(*changes: tuple[str, str, str], **files: str) -> str:
        nonlocal number
        folder = tmp_path / str(number)
        number += 1
        texts = FILES | {name.replace("__", "/") + ".py": text for name, text in files.items()}
        for name, old, new in changes:
            assert old in texts[name], (name, old)
            texts = texts | {name: texts[name].replace(old, new)}
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        importlib.invalidate_caches()
        return contract_hash(load_contract("rules.contracts:CONTRACT"))

    return hash_of


SAME = {
    "a comment": ("rules/scoring.py", "# a comment", "# other words"),
    "a docstring": ("rules/scoring.py", '"""The score."""', '"""The score, said at length."""'),
    "no docstring": ("rules/scoring.py", '    """The score."""\n', ""),
    "layout": ("rules/units.py", "min(TOP, max(-TOP, value))", "min(\n        TOP,\n        max(-TOP, value),\n    )"),
    "quotes": ("rules/units.py", '"floor"', "'floor'"),
    "the order of imports": ("rules/scoring.py", "import math\nimport numpy as np\n", "import numpy as np\nimport math\n"),
    "an import that nobody uses": ("rules/scoring.py", "import math\n", "import math\nimport json\n"),
    "a function that is not reached": ("rules/scoring.py", "value * 3", "value * 4"),
    "annotations": ("rules/scoring.py", "prediction: Any, truth: Any) -> dict[str, Any]", "prediction, truth)"),
    "another way to import": ("rules/contracts.py", "from rules.scoring", "from .scoring"),
    "the file of the contract": ("rules/contracts.py", "\nCONTRACT", "\n# the crunch\nCONTRACT"),
    "the order of statements": (
        "rules/units.py",
        'LIMITS = {"floor": 0.5}\nTOP = 0.75\n',
        'TOP = 0.75\nLIMITS = {"floor": 0.5}\n',
    ),
}  # fmt: skip
OTHER = {
    "a field": ("rules/contracts.py", "grace_seconds=6", "grace_seconds=7"),
    "a constant of a helper elsewhere": ("rules/units.py", "TOP = 0.75", "TOP = 500"),
    "a helper elsewhere": ("rules/units.py", "min(TOP", "min(2 * TOP"),
    "a value in a table": ("rules/units.py", "0.5", "1.5"),
    "the code itself": ("rules/scoring.py", "* said", "* said * said"),
    "what an import is of": ("rules/scoring.py", "import math\n", "import cmath as math\n"),
    "another helper under the same name": (
        "rules/scoring.py",
        "import LIMITS, clipped",
        "import LIMITS, clipped as _c\nclipped = abs",
    ),
    "what is done at import": ("rules/units.py", "TOP = 0.75\n", "TOP = 0.75\nLIMITS['floor'] = 3\n"),
    "what another module does to it": (
        "rules/contracts.py",
        "\nCONTRACT",
        "\nimport rules.units\nrules.units.TOP = 3\nCONTRACT",
    ),
    "a decorator": (
        "rules/scoring.py",
        "def score(",
        "def twice(f):\n    return lambda *a: {'value': 2 * f(*a)['value']}\n\n@twice\ndef score(",
    ),
    "a default argument": (
        "rules/units.py",
        "def clipped(value):",
        "def clipped(value, factor=2):\n    value *= factor",
    ),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_equivalent_contracts_have_the_same_hash(hash_of, change):
    assert hash_of(change) == hash_of()


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_a_contract_that_does_something_else_has_another_hash(hash_of, change):
    assert hash_of(change) != hash_of()


def test_a_type_is_hashed_by_its_fields_and_not_by_its_docstrings(hash_of):
    typed = (
        '{doc}\nfrom __future__ import annotations\nfrom pydantic import BaseModel, Field\n'
        'from coordinator.streams.contract import CrunchContract\n'
        'class Leg(BaseModel):\n    size: float = Field(le={top})\n'
        'class Answer(BaseModel):\n    """{doc_of_type}"""\n    value: float\n    legs: list["Leg"] = []\n'
        'CONTRACT = CrunchContract(output_type=Answer)\n'
    )  # fmt: skip
    first_hash = hash_of(rules__contracts=typed.format(doc='"""A."""', doc_of_type="x", top=1))
    assert hash_of(rules__contracts=typed.format(doc="", doc_of_type="an answer", top=1)) == first_hash
    assert hash_of(rules__contracts=typed.format(doc="", doc_of_type="x", top=2)) != first_hash


def test_a_file_that_the_contract_names_is_part_of_the_hash(hash_of, monkeypatch):
    text = (
        "import json\nfrom pathlib import Path\nfrom coordinator.streams.contract import CrunchContract\n"
        "TABLE = json.loads((Path(__file__).parent / 'table.txt').read_text())\n"
        "def score(p, t):\n    return {'value': TABLE[0] * p.value}\n"
        "CONTRACT = CrunchContract(score_prediction=score)\n"
    )
    monkeypatch.setitem(FILES, "rules/table.txt", "[1, 2]")
    first_hash = hash_of(rules__contracts=text)
    assert hash_of(rules__contracts=text) == first_hash
    monkeypatch.setitem(FILES, "rules/table.txt", "[3, 2]")
    assert hash_of(rules__contracts=text) != first_hash


def test_the_version_of_an_installed_package_counts_where_it_is_used(hash_of, monkeypatch):
    with_package, without = hash_of(), ("rules/scoring.py", "float(np.sign(truth.return_))", "truth.return_")
    plain = hash_of(without)
    monkeypatch.setattr("coordinator.infra.contracts.code.version_of_distribution", lambda name: "0.0.1")
    assert hash_of() != with_package
    assert hash_of(without) == plain  # it is imported but not used


@pytest.mark.parametrize(
    "functions",
    [
        ("lambda p, t: {'value': 1.0 * p.value}", "lambda p, t: {'value': 2.0 * p.value}"),
        ("made(1.0)", "made(2.0)"),
        ("Scored(1.0)", "Scored(2.0)"),
        ("partial(weighted, 1.0)", "partial(weighted, 2.0)"),
        ("lru_cache(made(1.0))", "lru_cache(made(2.0))"),
    ],
    ids=lambda pair: pair[0],
)
def test_the_numbers_of_a_function_count_however_it_was_made(hash_of, functions):
    text = (
        "from functools import lru_cache, partial\nfrom coordinator.streams.contract import CrunchContract\n"
        "def weighted(w, p, t):\n    return {'value': w * p.value}\n"
        "def made(w):\n    def score(p, t):\n        return weighted(w, p, t)\n    return score\n"
        "class Scored:\n    def __init__(self, w):\n        self.w = w\n"
        "    def __call__(self, p, t):\n        return weighted(self.w, p, t)\n"
        "CONTRACT = CrunchContract(score_prediction=%s)\n"
    )
    first_hash, other = (hash_of(rules__contracts=text % each) for each in functions)
    assert first_hash != other
    assert hash_of(rules__contracts="# again\n" + text % functions[0]) == first_hash
    helper = text.replace("w * p.value", "w * p.value + 1")
    if "weighted" in functions[0] or "made" in functions[0] or "Scored" in functions[0]:
        assert hash_of(rules__contracts=helper % functions[0]) != first_hash


# --- our own releases --------------------------------------------------------------------------------------------


class Later(CrunchContract):
    """A later release of the class: one more field, with a default."""

    calm_seconds: float = 0.0


Later.__module__ = CrunchContract.__module__


def test_a_field_added_by_a_later_release_changes_no_contract(monkeypatch):
    settings: dict[str, Any] = {"grace_seconds": 6, "crunch_pubkey": "1" * 32}
    assert contract_hash(Later(**settings)) == contract_hash(CrunchContract(**settings))
    assert contract_hash(Later(**settings, calm_seconds=1)) != contract_hash(CrunchContract(**settings))


def test_a_default_of_ours_counts_if_its_meaning_has_changed(monkeypatch):
    unset, written_out = CrunchContract(), CrunchContract(grace_seconds=5)
    before = contract_hash(unset), contract_hash(written_out)
    for key in ("CrunchContract.grace_seconds", "defaults.score_prediction", "Aggregation.ranking_key"):
        with monkeypatch.context() as patched:
            patched.setitem(provided_versions.CHANGED, key, 2)
            assert contract_hash(unset) != before[0], key
            assert (contract_hash(written_out) == before[1]) == (key == "CrunchContract.grace_seconds")


def _digest(source_of: Any) -> str:
    return digest_of(shape(ast.parse(inspect.getsource(source_of))))[:12]


def _ours() -> dict[str, tuple[int, str]]:
    """The parts of ours that a contract may use, with the version and the digest of each: modules of functions as a
    whole, the defaults of types one by one.
    """
    meanings: dict[str, tuple[int, str]] = {}
    for folder, name in (
        ("streams.contract", "defaults"),
        ("streams.contract", "strategies"),
        ("streams.contract", "emission"),
        ("streams", "addresses"),
        ("streams.contract", "payout_rules"),
        ("streams.contract", "boards"),
        ("streams.scores", "boards"),
        ("streams.contract", "payout_amounts"),
        ("streams.contract", "periods"),
        ("streams.snapshots", "metrics"),
        ("streams.snapshots", "windows"),
        ("streams.scores", "charges"),
        ("streams.scores", "ensemble_rules"),
        ("scaffolds.challenge", "scoring"),
    ):
        module = importlib.import_module(f"coordinator.{folder}.{name}")
        meanings[f"{folder.rpartition('.')[2]}.{name}" if name == "boards" else name] = (
            sum(key.startswith(f"{name}.") for key in provided_versions.CHANGED),
            _digest(module),
        )
    meanings["payout"] = (0, _digest(payout.pools_paid) + _digest(payout._why_not))
    modules = (
        contract_module,
        absence,
        aggregation,
        boards,
        call_method,
        ensembles,
        metrics,
        payout,
        periods,
        questions,
        schedules,
        types,
    )
    kinds = {id(kind): kind for module in modules for kind in vars(module).values()}
    for kind in kinds.values():
        if (
            inspect.isclass(kind)
            and hasattr(kind, "model_fields")
            and kind.__module__ in {module.__name__ for module in modules}
            and kind.__name__[0] != "_"
        ):
            for field, info in kind.model_fields.items():
                key = f"{kind.__name__}.{field}"
                default = info.get_default(call_default_factory=True)
                does = default.func if isinstance(default, functools.partial) else default
                shown = provided_versions.our_key(does) if callable(does) else repr(does)
                more = [repr(default.keywords)] if does is not default else []
                meanings[key] = (provided_versions.version_of(key), digest_of([shown, *more])[:12])
    return meanings


def test_our_parts_mean_what_their_version_says():
    path = Path(__file__).with_name("contract_meanings.txt")
    pinned = path.read_text().splitlines()
    now = [f"{key} {version} {digest}" for key, (version, digest) in sorted(_ours().items())]
    assert sorted(pinned) == sorted(now), (
        "a default, strategy or type of ours has another text. If the same contract now gives something else, raise "
        f"its version in streams/contract/provided_versions.py (a new field has 1, and needs nothing). Then, in {path.name}, replace "
        f"{sorted(set(pinned) - set(now))} by {sorted(set(now) - set(pinned))}"
    )


def test_the_owner_of_a_module_is_recognised():
    owners = {name: contract_sources.whose(name) for name in ("coordinator", "math", "numpy", "json")}
    assert owners == {"coordinator": "ours", "math": "python", "numpy": "installed", "json": "python"}
