"""What a folder says about the node that is run in it: `.env`, and what `coordinator init` rendered.

Reads `.env` (`dotenv_values.py`) and `.scaffold/answers.yml` of the current folder; fills in what the environment does
not say. The environment wins over `.env`, and `.env` over the scaffold. So a command in a node's folder knows its
crunch, contract and models without an option, and the same file serves the containers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import msgspec

from coordinator.cli.dotenv_values import read_values
from coordinator.streams.log.errors import OperatorError

DOTENV = ".env"
ANSWERS = ".scaffold/answers.yml"
OWN_ROUTES = "api"
FILE_BYTES_MAX = 1_000_000


class _Answers(msgspec.Struct, frozen=True):
    slug: str
    package: str


def take_over_settings(environ: MutableMapping[str, str], folder: Path) -> None:
    """Puts the values of `folder` into `environ` where that has none. Raises OperatorError naming file and line."""
    for name, value in read_dotenv(folder / DOTENV, environ).items():
        environ.setdefault(name, value)
    answers = _read_answers(folder / ANSWERS)
    if answers is None:
        return
    ours = {
        "CRUNCH_ID": answers.slug,
        "CONTRACT": "runtime_definitions.contracts:CONTRACT",
        "MODEL_BASE_CLASSNAME": f"{answers.package}.tracker.TrackerBase",
    }
    if (folder / OWN_ROUTES).is_dir():
        ours["API_ROUTES_DIR"] = str(folder.absolute() / OWN_ROUTES)
    challenge = folder.absolute().parent / f"crunch-{answers.slug}"
    if challenge.is_dir():
        ours["MODELS_DIR"] = str(challenge / "examples")
        # Models run in processes of their own; this is how they find the base class that they subclass.
        paths = [str(challenge), *environ.get("PYTHONPATH", "").split(os.pathsep)]
        environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    for name, value in ours.items():
        environ[name] = environ.get(name) or value  # compose hands on what is not set as an empty text


def read_dotenv(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a file of KEY=VALUE lines, as compose reads them; empty when there is none.

    Raises OperatorError naming the first line that cannot be read.
    """
    text = _read(path)
    if text is None:
        return {}
    try:
        return read_values(text, environ)
    except ValueError as error:
        raise OperatorError(f"{path}, {error}") from None


def _read_answers(path: Path) -> _Answers | None:
    text = _read(path)
    if text is None:
        return None
    try:
        return msgspec.yaml.decode(text, type=_Answers)
    except msgspec.DecodeError as error:
        raise OperatorError(f"{path} cannot be used: {error}") from error


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise OperatorError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
        return raw.decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} cannot be read: {error}") from error
