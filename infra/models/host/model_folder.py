"""Finds the models of a folder, and whose they are.

Reads `<models_dir>/<name>/main.py` and an optional `<models_dir>/models.yaml`; emits `ModelEntry`s.
A folder alone is enough: the file only adds names. A misspelt field is refused, not ignored, because
a model paid to the wrong wallet is worse than a host that does not start.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import yaml

from coordinator.streams.addresses import wallet_fault
from coordinator.streams.log.errors import OperatorError

MODELS_FILE = "models.yaml"
MAIN_FILE = "main.py"
ID_CHARS_MAX = 128
SAFE_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{ID_CHARS_MAX - 1}}}")
ACTIVE = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
YAML_BYTES_MAX = 5_000_000


class ModelEntry(msgspec.Struct, frozen=True):
    """One model to run: its ids and names, and the folder of its code."""

    model_id: str
    model_name: str
    cruncher_id: str
    cruncher_name: str
    wallet_pubkey: str
    hotkey: str
    folder: Path


class _YamlModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str
    model_id: str = ""
    model_name: str = ""
    cruncher_id: str = ""
    cruncher_name: str = ""
    wallet_pubkey: str = ""
    hotkey: str = ""
    active: str = "true"


class _YamlFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: list[_YamlModel] = []


class _VerbatimYaml(yaml.SafeLoader):  # type: ignore[misc]  # no types are shipped with it
    """YAML in which every value is a text: `017` is not 15, `no` is not False, `1e3` is not a number.

    An id that a reader of YAML changes is another model's id, and another's pay.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name): write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - as the library has it
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.YAMLError(f"{twice[0]} occurs twice at line {node.start_mark.line + 1}")
        for key, value in node.value:
            if key.value in _YamlModel.__struct_fields__:
                _refuse_no_text(key.value, value)
        return super().construct_mapping(node, deep)


def _refuse_no_text(name: str, value: Any) -> None:
    """A field is one text. `null` is nobody's id, and a list or a map none: who wrote it meant something else."""
    line = value.start_mark.line + 1
    if not isinstance(value, yaml.ScalarNode):
        raise yaml.YAMLError(f"{name} at line {line} is a list or a map: write one text")
    if value.style is None and value.value.lower() in ("null", "~"):
        raise yaml.YAMLError(
            f"{name} at line {line} is {value.value}, which is no {name}: leave it out, or write it in quotes"
        )


def read_models(models_dir: Path, *, strict: bool = True) -> list[ModelEntry]:
    """The models of a folder, by model_id. Raises OperatorError for anything that cannot be run as meant.

    Not `strict`: `models.yaml` may name a folder that is not there (any more, or yet), as it does while the host runs.
    """
    named, present = _named_and_present(models_dir)
    if strict and (missing := sorted(set(named) - present)):
        raise OperatorError(
            f"{MODELS_FILE} names {missing[0]!r}, but there is no {missing[0]}/{MAIN_FILE} beside it"
        )
    entries = [
        _entry(models_dir.resolve() / folder, named.get(folder, _YamlModel(folder)))
        for folder in sorted(present)
        if _active(named, folder) and (folder in named or SAFE_ID.fullmatch(folder))
    ]
    by_id: dict[str, ModelEntry] = {}
    for entry in entries:
        if not SAFE_ID.fullmatch(entry.model_id):
            raise OperatorError(
                f"model_id {entry.model_id!r} of {entry.folder.name}: use letters, digits, . _ - "
                f"(at most {ID_CHARS_MAX}), the first a letter or digit"
            )
        if entry.wallet_pubkey and (fault := wallet_fault(entry.wallet_pubkey)):
            raise OperatorError(f"wallet_pubkey {entry.wallet_pubkey[:60]!r} of {entry.folder.name} {fault}")
        if other := by_id.get(entry.model_id):
            raise OperatorError(
                f"model_id {entry.model_id!r} is used by {other.folder.name} "
                f"and by {entry.folder.name}: change one of them"
            )
        by_id[entry.model_id] = entry
    return sorted(entries, key=lambda entry: entry.model_id)


def models_of(directory: Path) -> list[ModelEntry]:
    """The model of a folder with a main.py, or all models of a folder of folders. Raises OperatorError."""
    if not directory.is_dir():
        raise OperatorError(
            f"{directory} is not a folder: give a folder with a {MAIN_FILE}, or a folder of such folders"
        )
    if (directory / MAIN_FILE).is_file():
        name = directory.resolve().name
        if not SAFE_ID.fullmatch(name):
            raise OperatorError(
                f"the folder's name {name!r} cannot be a model's id: use letters, digits, . _ -"
            )
        return [model_alone(directory.resolve())]
    entries = read_models(directory)
    if not entries:
        raise OperatorError(f"no model in {directory}: it has no {MAIN_FILE}, and no folder in it has one")
    return entries


def left_out(models_dir: Path) -> list[str]:
    """One sentence for each folder that is not run as a model, with what to do about it."""
    named, present = _named_and_present(models_dir)
    reasons = []
    for path in sorted(models_dir.iterdir()):
        folder = path.name
        if (
            folder in present
            and _active(named, folder)
            and folder not in named
            and not SAFE_ID.fullmatch(folder)
        ):
            reasons.append(
                f"{folder!r} is left out: its name cannot be a model_id; rename it, or give it one in {MODELS_FILE}"
            )
        elif folder in present and not _active(named, folder):
            reasons.append(f"{folder!r} is left out: {MODELS_FILE} says active: false")
        elif path.is_dir() and folder not in present and not folder.startswith((".", "__")):
            reasons.append(f"{folder!r} is left out: it has no {MAIN_FILE}")
    return reasons


def _named_and_present(models_dir: Path) -> tuple[dict[str, _YamlModel], set[str]]:
    if not models_dir.is_dir():
        raise OperatorError(f"the models folder {models_dir} does not exist: name a folder of models")
    if (
        other := models_dir / "models.yml"
    ).exists():  # names and wallets in it would be missed without a word
        raise OperatorError(f"{other} is ignored: rename it to {MODELS_FILE}")
    named: dict[str, _YamlModel] = {}
    for listed in _read_yaml(models_dir / MODELS_FILE):
        if listed.folder in named:
            raise OperatorError(f"{MODELS_FILE} names the folder {listed.folder!r} twice: keep one of them")
        if not listed.folder or Path(listed.folder).name != listed.folder:
            raise OperatorError(
                f"{MODELS_FILE} names {listed.folder!r}: give only the name of a folder beside it"
            )
        if listed.active.lower() not in ACTIVE:
            raise OperatorError(
                f"{MODELS_FILE}: active of {listed.folder!r} is {listed.active!r}; write true or false"
            )
        named[listed.folder] = listed
    return named, {path.parent.name for path in models_dir.glob(f"*/{MAIN_FILE}") if path.is_file()}


def _active(named: dict[str, _YamlModel], folder: str) -> bool:
    return folder not in named or ACTIVE[named[folder].active.lower()]


def model_alone(folder: Path) -> ModelEntry:
    """The model of one folder, with names made from the folder's."""
    return _entry(folder, _YamlModel(folder.name))


def _read_yaml(path: Path) -> list[_YamlModel]:
    if not path.exists():
        return []
    try:
        content = path.read_bytes()
        if len(content) > YAML_BYTES_MAX:
            raise OperatorError(f"{path} has {len(content)} bytes; at most {YAML_BYTES_MAX}")
        read = yaml.load(content, Loader=_VerbatimYaml)  # noqa: S506 - a SafeLoader that makes nothing but texts
        return msgspec.convert(read or {}, _YamlFile).models
    except (yaml.YAMLError, msgspec.ValidationError, OSError, RecursionError) as error:
        raise OperatorError(f"{path} cannot be used: {' '.join(str(error).split())}") from error


def _entry(folder: Path, listed: _YamlModel) -> ModelEntry:
    cruncher_id = listed.cruncher_id or listed.wallet_pubkey or f"{folder.name}-cruncher"
    return ModelEntry(
        model_id=listed.model_id or folder.name,
        model_name=listed.model_name or folder.name.replace("_", "-"),
        cruncher_id=cruncher_id,
        cruncher_name=listed.cruncher_name or cruncher_id,
        wallet_pubkey=listed.wallet_pubkey,
        hotkey=listed.hotkey,
        folder=folder,
    )
