"""The plans that `coordinator plan` keeps: what each rests on and what it computed, one file each.

`coordinator apply` takes such a file, and the report worker shows those in the folder `plans` of the data directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from coordinator.infra.whole_file import write_whole
from coordinator.streams.engine.plan import RulesPlan
from coordinator.streams.events import TermSettings
from coordinator.streams.log.errors import OperatorError

FOLDER = "plans"
PLAN_BYTES_MAX = 256 * 1024 * 1024


class PlanBasis(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan rests on: apply asks whether it still holds."""

    crunch_id: str
    contract_hash: str
    """The contract that was told last."""
    settings: TermSettings | None = None
    """Those told last, which the new rules were planned with. None: the plan is older than this field."""
    feeds_offset: int
    """The newest record of `feeds`; -1 for none."""
    feeds_sha256: str
    """The hash of that record's bytes."""
    holds_from_ms: int | None
    """The next end of a checkpoint period, from which on the new rules would hold."""


class PlanFile(msgspec.Struct, frozen=True, kw_only=True):
    """A kept plan. `values_set` are those of `--set`: no text contains them, so they cannot be applied."""

    format: int = 1
    made_at_ms: int
    made_on: PlanBasis
    contract: str
    contract_hash: str
    values_set: dict[str, Any]
    plan: RulesPlan
    seconds: float


def read_plan(path: Path, bytes_max: int = PLAN_BYTES_MAX) -> PlanFile:
    """The plan in a file. Raises OperatorError for a file that is no plan, or larger than `bytes_max`."""
    try:
        if path.stat().st_size > bytes_max:
            raise OperatorError(f"{path} is larger than {bytes_max:,} bytes")
        return msgspec.json.decode(path.read_bytes(), type=PlanFile)
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise OperatorError(f"{path} is not a plan: {error}") from error


def write_plan(path: Path, file: PlanFile) -> None:
    """Write a plan, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(file)) + b"\n")


def plan_path(data_dir: Path, contract_hash: str, made_at_ms: int) -> Path:
    """Where a plan is kept unless the operator says otherwise."""
    return data_dir / FOLDER / f"{contract_hash[:12]}-{made_at_ms}.json"


def kept_plans(data_dir: Path) -> dict[str, Path]:
    """The plans of a data directory by their names, newest first. Empty where none was kept."""
    paths = (data_dir / FOLDER).glob("*.json")
    return {path.stem: path for path in sorted(paths, key=_made_at, reverse=True)}


def _made_at(path: Path) -> tuple[int, str]:
    """The time in the name that `plan_path` gives; a file of another name comes last."""
    made_at = path.stem.rpartition("-")[2]
    return (int(made_at) if made_at.isdecimal() and made_at.isascii() else -1), path.stem
