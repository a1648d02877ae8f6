"""models.yaml and the folders beside it: every value as it was written, and nothing is left out silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.infra.models.host.model_folder import left_out, read_models
from coordinator.streams.log.errors import OperatorError

WALLET = "So11111111111111111111111111111111111111112"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("good", "my model", "modèle", "-dash"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "written",
    [
        "017",
        "17",
        "0o17",
        "0x11",
        "1e3",
        "1_000",
        "2024-01-01",
        "12:30:45",
        "no",
        "on",
        "1.0",
        "3.91E16",
        "007",
    ],
)
def test_an_id_is_the_text_that_was_written(models: Path, written: str):
    (models / "models.yaml").write_text(
        f"models:\n  - folder: good\n    model_id: {written.replace(':', '.')}\n    model_name: {written}\n"
    )
    [model] = read_models(models)
    assert (model.model_id, model.model_name) == (written.replace(":", "."), written)


def test_ids_that_differ_in_a_leading_zero_are_two(models: Path):
    (models / "models.yaml").write_text(
        "models:\n  - {folder: good, model_id: 017}\n  - {folder: my model, model_id: 17}\n"
    )
    assert [model.model_id for model in read_models(models)] == ["017", "17"]


@pytest.mark.parametrize("written", ["true", "yes", "on", "True", "false", "no", "off", "False"])
def test_active_is_what_yaml_calls_true_or_false(models: Path, written: str):
    (models / "models.yaml").write_text(f"models:\n  - folder: good\n    active: {written}\n")
    assert [model.model_id for model in read_models(models)] == (
        ["good"] if written.lower() in ("true", "yes", "on") else []
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "models:\n  - folder: good\n    model_id: 1\n  - folder: good\n    model_id: 2\n",
            "names the folder 'good' twice",
        ),
        ("models:\n  - folder: good\n    model_id: 1\n    model_id: 2\n", "model_id occurs twice"),
        ("models:\n  - folder: good\n    wallet_pubkey: not-a-wallet\n", "is no public key"),
        ("models:\n  - folder: good\n    wallet_pubkey: 0xdeadbeef\n", "is no public key"),
        (
            "models:\n  - folder: good\n    wallet_pubkey: '11111111111111111111111111111111'\n",
            "is an address of Solana itself",
        ),
        ("models:\n  - folder: good\n    wallet: x\n", "unknown field `wallet`"),
        ("models:\n  - folder: ../good\n", "give only the name of a folder"),
        ("models:\n  - folder: gone\n", "there is no gone/main.py"),
        ("models:\n  - folder: good\n    active: maybe\n", "write true or false"),
        ("models:\n\t- folder: good\n", "cannot be used"),
        ('a: &a ["x"]\nmodels: [*a]\n', "alias"),
        ("models:\n  - folder: good\n    model_id: [1]\n", "model_id at line 3 is a list"),
        ("models: !!python/object/apply:os.system ['true']\n", "cannot be used"),
        ("models:\n  - folder: good\n    model_id: " + "x" * 200 + "\n", "at most 128"),
    ],
)
def test_nonsensical_values_are_refused_by_name(models: Path, text: str, says: str):
    (models / "models.yaml").write_text(text)
    with pytest.raises(OperatorError, match="(?s)" + says.replace("(", r"\(").replace("*", r"\*")):
        read_models(models)


def test_a_file_with_a_byte_order_mark_and_a_wallet_is_read(models: Path):
    (models / "models.yaml").write_text(f"\ufeffmodels:\n  - folder: good\n    wallet_pubkey: {WALLET}\n")
    assert [model.wallet_pubkey for model in read_models(models)] == [WALLET]


def test_a_folder_whose_name_is_no_id_is_reported_as_left_out_and_used_after_a_rename(models: Path):
    (models / "notes").mkdir()
    assert [model.model_id for model in read_models(models)] == ["good"]
    assert [sentence.split("'")[1] for sentence in left_out(models)] == [
        "-dash",
        "modèle",
        "my model",
        "notes",
    ]
    (models / "models.yaml").write_text("models:\n  - folder: my model\n    model_id: 7\n")
    assert [(model.folder.name, model.model_id) for model in read_models(models)] == [
        ("my model", "7"),
        ("good", "good"),
    ]
    assert [sentence.split("'")[1] for sentence in left_out(models)] == ["-dash", "modèle", "notes"]


@pytest.mark.parametrize(
    "name", ["model_id", "model_name", "cruncher_id", "cruncher_name", "wallet_pubkey", "hotkey"]
)
@pytest.mark.parametrize("written", ["null", "Null", "NULL", "~", "[]", "[a]", "{}", "{a: b}"])
def test_other_types_than_text_are_refused_with_name_and_line(models: Path, name: str, written: str):
    (models / "models.yaml").write_text(f"models:\n  - folder: good\n    {name}: {written}\n")
    with pytest.raises(OperatorError, match=rf"models\.yaml cannot be used: {name} at line 3 is "):
        read_models(models)


@pytest.mark.parametrize(
    ("written", "read"), [("'null'", "null"), ("true", "true"), ("1.5", "1.5"), ("", "good")]
)
def test_a_quoted_value_is_text_and_an_empty_one_counts_as_missing(models: Path, written: str, read: str):
    (models / "models.yaml").write_text(f"models:\n  - folder: good\n    model_id: {written}\n")
    assert [model.model_id for model in read_models(models)] == [read]


def test_a_file_with_the_other_usual_ending_is_not_ignored(models: Path):
    (models / "models.yml").write_text("models: []\n")
    with pytest.raises(OperatorError, match=r"models\.yml is ignored: rename it to models\.yaml"):
        read_models(models)
