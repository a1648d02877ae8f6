"""Finding the model class of a submission, and the models of a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.models.stage import HEAD, write_model

from coordinator.infra.models.host.discovery import (
    BadImplementationError,
    UnknownBaseClassError,
    find_model_class,
    import_base_class,
)
from coordinator.infra.models.host.model_folder import read_models
from coordinator.scaffolds.challenge.tracker import TrackerBase
from coordinator.streams.log.errors import OperatorError

ONE = HEAD + "class Model(TrackerBase): pass\n"


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A child imports `main` once in its life. These tests do so many times in one process."""
    monkeypatch.syspath_prepend(str(tmp_path / "m"))
    yield
    for name in ("main", "helper", "lib", "a_train"):
        sys.modules.pop(name, None)


def find(tmp_path: Path, files: dict[str, str]) -> type:
    folder = tmp_path / "m"
    folder.mkdir()
    for name, source in files.items():
        (folder / name).write_text(source)
    return find_model_class(folder, TrackerBase)


def test_the_one_subclass_is_found(tmp_path: Path):
    assert find(tmp_path, {"main.py": ONE}).__name__ == "Model"


def test_an_imported_intermediate_base_is_not_taken_for_the_model(tmp_path: Path):
    files = {"helper.py": HEAD + "class Aaa(TrackerBase): pass\n"}
    files["main.py"] = "from helper import Aaa\nclass Model(Aaa): pass\n"
    assert find(tmp_path, files).__name__ == "Model"


def test_another_model_that_main_imports_and_uses_is_not_counted(tmp_path: Path):
    files = {
        "helper.py": HEAD + "class Part(TrackerBase): pass\n",
        "main.py": "from helper import Part\n" + ONE,
    }
    assert find(tmp_path, files).__name__ == "Model"


def test_an_intermediate_base_in_the_same_module_is_not_taken_for_the_model(tmp_path: Path):
    source = HEAD + "class Base(TrackerBase): pass\nclass Model(Base): pass\n"
    assert find(tmp_path, {"main.py": source}).__name__ == "Model"


def test_a_model_that_main_only_imports_is_found(tmp_path: Path):
    assert find(tmp_path, {"lib.py": ONE, "main.py": "from lib import Model\n"}).__name__ == "Model"


def test_main_alone_decides_so_that_a_training_script_is_not_run(tmp_path: Path):
    files = {"main.py": ONE, "a_train.py": "raise RuntimeError('I was run')"}
    assert find(tmp_path, files).__name__ == "Model"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (ONE + "class Other(TrackerBase): pass\n", "two models found: main.Model and main.Other"),
        (ONE + "class B(TrackerBase): pass\nclass C(TrackerBase): pass\n", "3 models found"),
        (HEAD, "no subclass of coordinator.scaffolds.challenge.tracker.TrackerBase in m"),
        ("def broken(:\n", "main could not be imported: SyntaxError"),
        ("import nowhere_at_all\n", "No module named 'nowhere_at_all'"),
        ("raise SystemExit(1)\n", "main could not be imported: SystemExit"),
    ],
)
def test_a_folder_without_exactly_one_model_says_so(tmp_path: Path, source: str, words: str):
    with pytest.raises(BadImplementationError, match=words):
        find(tmp_path, {"main.py": source})


@pytest.mark.parametrize(
    "name", ["", "TrackerBase", "nowhere.Base", "coordinator.scaffolds.challenge.tracker.Nope", "os.path"]
)
def test_a_base_class_that_cannot_be_imported_is_not_the_models_fault(name: str):
    with pytest.raises(UnknownBaseClassError):
        import_base_class(name)


WALLET = "So11111111111111111111111111111111111111112"


def test_a_folder_with_a_main_is_a_model(tmp_path: Path):
    write_model(tmp_path, "my_model", ONE)
    (tmp_path / "not_a_model").mkdir()
    (entry,) = read_models(tmp_path)
    assert (entry.model_id, entry.model_name, entry.cruncher_id) == (
        "my_model",
        "my-model",
        "my_model-cruncher",
    )


def test_the_yaml_gives_names_and_can_switch_a_model_off(tmp_path: Path):
    for name in ("a", "b"):
        write_model(tmp_path, name, ONE)
    (tmp_path / "models.yaml").write_text(
        f"models:\n- {{folder: a, model_id: 7, model_name: Ann, wallet_pubkey: {WALLET}}}\n- {{folder: b, active: false}}\n"
    )
    (entry,) = read_models(tmp_path)
    assert (entry.model_id, entry.model_name, entry.cruncher_id) == ("7", "Ann", WALLET)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("models: [{folder: a, wallet: x}]", "wallet"),
        ("models: [{folder: nobody}]", "nobody"),
        ("models: [{folder: a, model_id: b}]", "'b' is used by a and by b"),
        ("models: [{folder: a, model_id: ../x}]", "letters, digits"),
        ("models: [", "models.yaml cannot be used"),
        ("models: 3", "models.yaml cannot be used"),
    ],
)
def test_a_wrong_yaml_is_refused_by_name(tmp_path: Path, yaml: str, words: str):
    for name in ("a", "b"):
        write_model(tmp_path, name, ONE)
    (tmp_path / "models.yaml").write_text(yaml)
    with pytest.raises(OperatorError, match=words):
        read_models(tmp_path)


def test_a_missing_folder_is_the_operators_fault(tmp_path: Path):
    with pytest.raises(OperatorError, match="does not exist"):
        read_models(tmp_path / "nowhere")
