"""The page of every command, argument and option, out of the command line itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from coordinator.cli.lazy_groups import load_command
from coordinator.cli.main import COMMANDS
from documentation.markdown import MADE, code, plain, table

_VALUES: dict[Any, str] = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
HEAD = f"""\
# Commands

`coordinator COMMAND --help` shows the same. A setting that is not in the environment comes from `.env` in
the current folder: [Settings](settings.md).

| exit code | means |
|---|---|
| 0 | done |
| 1 | a difference or a fault was found, or the node refused a command |
| 2 | you must change something; the message says what |
| 3 | something outside did not answer or refused: a broker, a source, a full disk |
| 70 | only `worker`: it cannot continue because of the log, something outside or a bug; its last line says which |
| 130 | ended by Ctrl-C; stderr says what happened to the work |

With `--json` stdout holds one JSON document, also where a command ends with an error:
`{{"error": "what the line on stderr says", "exit_code": 2}}`. Commands that print a line for each result say so.

{MADE}"""


def leaves() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that runs something: its words and itself."""

    def walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield words, command
            return
        for name, inner_command in inner.items():
            yield from walk((*words, name), inner_command)

    for name in COMMANDS:
        yield from walk((name,), load_command(COMMANDS, name))


def parameters(command: Any) -> list[Any]:
    """What a person may give: no hidden ones."""
    return [
        parameter
        for parameter in command.params
        if not getattr(parameter, "hidden", False) and parameter.name != "help"
    ]


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_entry(words, command) for words, command in leaves())])


def _entry(words: tuple[str, ...], command: Any) -> str:
    rows = [
        (_names(parameter), _default(parameter), plain(_marks(parameter.help or "")))
        for parameter in parameters(command)
    ]
    about = "\n\n".join(_paragraph(part) for part in _marks(command.help or "").strip().split("\n\n"))
    options = f"\n{table(('argument or option', 'default', 'meaning'), rows)}" if rows else ""
    return f"## coordinator {' '.join(words)}\n\n{about}\n{options}"


def _paragraph(text: str) -> str:
    lines = [line.strip() for line in text.replace("\b", "").splitlines()]
    if any(line.startswith("`coordinator") for line in lines[1:]):
        return "\n".join(
            ["", *(f"- {line}" if line.startswith("`") else f"{line}\n" for line in lines)]
        ).strip()
    return plain(" ".join(lines))


def _marks(text: str) -> str:
    return re.sub(r"\[/?bold\]", "`", text)


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
        return code(name if parameter.required or name.startswith("[") else f"[{name}]")
    kind = "" if parameter.is_flag else f" {parameter.metavar or value_kind(parameter)}"
    names = ", ".join(f"{name}{kind}" for name in parameter.opts)
    return code(names + (f" / {', '.join(parameter.secondary_opts)}" if parameter.secondary_opts else ""))


def value_kind(parameter: Any) -> str:
    """What an argument or option takes: `TEXT`, `INTEGER`, or its choices."""
    return _value(parameter.type_descriptor.annotation)


def _value(annotation: Any) -> str:
    """What an option takes: `TEXT`, or its choices."""
    inner = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Literal:
        return "|".join(map(str, inner))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(member.value) for member in annotation)
    if inner:
        return _value(inner[0])
    return _VALUES.get(annotation, "TEXT")


def _default(parameter: Any) -> str:
    shown = getattr(parameter, "show_default", True)
    if isinstance(shown, str):
        return shown
    if parameter.required:
        return "needed"
    if parameter.default in (None, False, (), "") or shown is False or callable(parameter.default):
        return ""
    return code(str(getattr(parameter.default, "value", parameter.default)))
