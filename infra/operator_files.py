"""Files and folders that an operator names: are they there, and can they be read? By the variable's name if not."""

from __future__ import annotations

import stat
from collections.abc import Collection
from pathlib import Path

from coordinator.streams.log.errors import OperatorError

OPEN_ALREADY = ("/dev/stdin", "/dev/fd/")
"""What a shell hands over, such as `<(zcat answers.gz)`: somebody writes into that pipe."""


def check_no_device(path: Path) -> None:
    """Raises OperatorError for a pipe, a socket or a device: to read it may never end, to write would replace it."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    special = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    if special and not str(path).startswith(OPEN_ALREADY):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise OperatorError(f"{path} is {kind}: name a file or a folder")


def check_file(variable: str, path: Path) -> None:
    """Is there such a file, and may it be read?"""
    try:
        with path.open("rb"):
            return
    except FileNotFoundError:
        why = "there is no such file"
    except IsADirectoryError:
        why = "it is a folder; name a file"
    except (OSError, ValueError) as error:
        why = f"it cannot be read ({_why(error)})"
    raise OperatorError(f"{variable}: {path}: {why}")


def check_folder(variable: str, path: Path, *, may_be_made: bool = False, what: str = "") -> None:
    """Is there such a folder; with `may_be_made`, is nothing else in its place?"""
    try:
        fine = path.is_dir() or (may_be_made and not path.exists() and not path.is_symlink())
    except (OSError, ValueError) as error:
        raise OperatorError(f"{variable}: {what}{path} cannot be used ({_why(error)})") from None
    if not fine:
        raise OperatorError(f"{variable}: {what}{path} is not a folder; give an existing one")


def check_files(variable: str, path: str, names: Collection[str]) -> None:
    """Does the folder, where one is set, hold these files?"""
    for name in names if path else ():
        try:
            with (Path(path) / name).open("rb"):
                pass
        except OSError as error:
            raise OperatorError(
                f"{variable}={path}: {name} cannot be read ({_why(error)}); it needs {', '.join(names)}"
            ) from None


def _why(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
