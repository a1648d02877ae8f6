"""Which models a folder holds, and whose they are.

Reads `<models_dir>/<name>/main.py` and an optional `<models_dir>/models.yaml`; emits `ModelEntry`s.
A folder alone is enough: the file only adds names. A misspelt field is refused, not ignored, because
a model paid to the wrong wallet is worse than a host that does not start.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from coordinator.streams.errors import OperatorError

MODELS_FILE = "models.yaml"
MAIN_FILE = "main.py"
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ModelEntry(msgspec.Struct, frozen=True):
    """One model to run: who it is, and where its code lies."""

    model_id: str
    model_name: str
    cruncher_id: str
    cruncher_name: str
    wallet_pubkey: str
    hotkey: str
    folder: Path


class _YamlModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str
    model_id: str | int = ""
    model_name: str = ""
    cruncher_id: str = ""
    cruncher_name: str = ""
    wallet_pubkey: str = ""
    hotkey: str = ""
    active: bool = True


class _YamlFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: list[_YamlModel] = []


def read_models(models_dir: Path, *, strict: bool = True) -> list[ModelEntry]:
    """The models of a folder, by model_id. Raises OperatorError for anything that cannot be run as meant.

    Not `strict`: `models.yaml` may name a folder that is not there (any more, or yet), as it does while the host runs.
    """
    if not models_dir.is_dir():
        raise OperatorError(f"the models folder {models_dir} does not exist: name a folder of models")
    named = {one.folder: one for one in _read_yaml(models_dir / MODELS_FILE)}
    present = {
        path.parent.name for path in models_dir.glob(f"*/{MAIN_FILE}") if SAFE_ID.fullmatch(path.parent.name)
    }
    if strict and (missing := sorted(set(named) - present)):
        raise OperatorError(
            f"{MODELS_FILE} names {missing[0]!r}, but there is no {missing[0]}/{MAIN_FILE} beside it"
        )
    found = [
        _entry(models_dir.resolve() / folder, named.get(folder, _YamlModel(folder)))
        for folder in sorted(present)
        if folder not in named or named[folder].active
    ]
    by_id: dict[str, ModelEntry] = {}
    for entry in found:
        if not SAFE_ID.fullmatch(entry.model_id):
            raise OperatorError(
                f"model_id {entry.model_id!r} of {entry.folder.name}: use letters, digits, . _ -"
            )
        if other := by_id.get(entry.model_id):
            raise OperatorError(
                f"model_id {entry.model_id!r} is that of {other.folder.name} "
                f"and of {entry.folder.name}: change one"
            )
        by_id[entry.model_id] = entry
    return sorted(found, key=lambda entry: entry.model_id)


def model_alone(folder: Path) -> ModelEntry:
    """The model of one folder, with names made from the folder's."""
    return _entry(folder, _YamlModel(folder.name))


def _read_yaml(path: Path) -> list[_YamlModel]:
    if not path.exists():
        return []
    try:
        read = msgspec.yaml.decode(path.read_bytes(), type=_YamlFile | None)
    except (msgspec.DecodeError, OSError) as error:
        raise OperatorError(f"{path} cannot be used: {' '.join(str(error).split())}") from error
    return read.models if read is not None else []


def _entry(folder: Path, given: _YamlModel) -> ModelEntry:
    cruncher_id = given.cruncher_id or given.wallet_pubkey or f"{folder.name}-cruncher"
    return ModelEntry(
        model_id=str(given.model_id) or folder.name,
        model_name=given.model_name or folder.name.replace("_", "-"),
        cruncher_id=cruncher_id,
        cruncher_name=given.cruncher_name or cruncher_id,
        wallet_pubkey=given.wallet_pubkey,
        hotkey=given.hotkey,
        folder=folder,
    )
