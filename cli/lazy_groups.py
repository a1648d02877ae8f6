"""How `coordinator` finds its commands and ends them: a command's module is imported when that command runs.

`coordinator --help` needs no module of a command: the table in `main.py` holds the line that it shows for each. So a
command imports at the top of its module whatever it needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from coordinator.cli.entry import EXIT_INTERRUPTED, work_begins
from coordinator.cli.json_answer import json_answer
from coordinator.infra.disk import full_disk_of, wrong_place_of
from coordinator.infra.operator_files import check_no_device
from coordinator.streams.log.errors import CoordinatorError, OperatorError, WorldError
from coordinator.streams.log.reasons import printable

EXIT_DIFFERENT = 1
EXIT_OPERATOR = 2
EXIT_WORLD = 3
AS_JSON = "coordinator.as_json"
"""Key in the context: whether --json is among the words."""
command_ends = ExitStack()
"""What is let go when the command ends, however it ends."""

WORDS = "coordinator.words"
"""Key in the context: the first words, which name the command."""
_ANEW = "the same command begins anew"
_ON = "what was finished stays, and the same command goes on after it"
AFTER_CTRL_C = {
    **dict.fromkeys(
        (
            *("replay", "backtest", "plan", "plan-capacity", "simulate", "explain", "verify", "verify-e2e"),
            *("contract check", "models check", "checkpoint dry-run"),
        ),
        f"nothing was changed; {_ANEW}",
    ),
    **dict.fromkeys(
        ("bundle", "export", "prove", "log restore", "topics backup"), f"no file was written; {_ANEW}"
    ),
    **dict.fromkeys(("log archive", "feeds import", "feeds export", "feeds backfill"), _ON),
    "import": f"no directory was made; {_ANEW}",
    "topics restore": "the topics hold a part of the backup; delete them before you restore it again",
}
"""Command -> what happened to its work when it was interrupted, and how to continue."""

Commands = Mapping[str, tuple[str, str]]
"""Name -> (`module:attribute` within `coordinator.cli`, the line that help shows). The attribute is a function, or a
`typer.Typer` with commands of its own."""


def lazy_group(commands: Commands) -> type[TyperGroup]:
    """The class of a group with these commands, in this order, for `typer.Typer(cls=...)`.

    A command ends with one clear line and an exit code by whose fault it is: OperatorError gives 2, WorldError and a
    full disk 3, any other error that is raised on purpose 1.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            # A command as it appears in help and in suggestions: its name and its line.
            named = {name: TyperCommand(name, help=line) for name, (_, line) in commands.items()}
            super().__init__(**attributes | {"commands": named})

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """The command that will run. Only here its module is imported."""
            name, command, rest = super().resolve_command(ctx, args)
            if not name:
                return name, command, rest
            try:
                return name, load_command(commands, name), rest
            except OperatorError:
                if not ctx.resilient_parsing:
                    raise
                # A shell asks what may be typed next. A command whose extra is not installed has nothing to offer.
                return name, command, rest

        def parse_args(self, ctx: Any, args: list[str]) -> Any:
            json_answer.begin()
            ctx.meta[AS_JSON] = "--json" in args
            ctx.meta.setdefault(WORDS, args[:2])  # a group within this one has only the rest of them
            with clear_end(as_json=ctx.meta[AS_JSON]):
                if not ctx.resilient_parsing:
                    _check_not_empty(args)
                return super().parse_args(ctx, args)

        def invoke(self, ctx: Any) -> Any:
            with clear_end(as_json=ctx.meta[AS_JSON]), interruptible(ctx):
                return super().invoke(ctx)

    return LazyGroup


@contextmanager
def interruptible(ctx: Any) -> Iterator[None]:
    """Ctrl-C within it ends with a line that says what became of the work, and with the exit code of shells: 130.

    The end of the command's own Kafka interrupts it, too, and is raised as what it is.
    """
    try:
        yield
    except KeyboardInterrupt:
        if (reason := _fallen_broker()) is not None:
            raise reason from None
        words = ctx.meta[WORDS]
        how = AFTER_CTRL_C.get(" ".join(words)) or AFTER_CTRL_C.get(words[0], "")
        text = "stopped by Ctrl-C" + (f": {how}" if how else "")
        typer.echo(text, err=True)
        if ctx.meta[AS_JSON]:
            json_answer.print_error(text, EXIT_INTERRUPTED)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _fallen_broker() -> Exception | None:
    """Asked of the module only if the command has used it: it imports Kafka's."""
    module = sys.modules.get("coordinator.infra.kafka.running_broker")
    return None if module is None else module.fallen_broker()


@contextmanager
def clear_end(*, as_json: bool = False) -> Iterator[None]:
    """What ends within it on purpose ends with one clear line: raises typer.Exit with the exit code.

    With `as_json`, stdout gets the same as JSON, also for a word that typer refuses and then explains on stderr.
    """
    try:
        with command_ends:
            yield
    except CoordinatorError as error:
        raise ended(error, as_json=as_json) from error
    except typer.TyperException as error:
        if as_json:
            text = getattr(error, "format_message", error.__str__)()
            json_answer.print_error(text, getattr(error, "exit_code", EXIT_OPERATOR))
        raise
    except OSError as error:
        if (ours := full_disk_of(error) or wrong_place_of(error)) is None:
            raise
        raise ended(ours, as_json=as_json) from error


def load_command(commands: Commands, name: str) -> Any:
    """Import a command of the table. Raises OperatorError where it needs libraries that an extra brings."""
    module, _, attribute = commands[name][0].partition(":")
    try:
        command_or_app = getattr(import_module(f"coordinator.cli.{module}"), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "coordinator").partition(".")[0] == "coordinator":
            raise
        extra = "verify" if name == "verify" else "node"
        raise OperatorError(f"{name} needs {error.name}: pip install 'coordinator-node[{extra}]'") from error
    if not isinstance(command_or_app, typer.Typer):
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        alone.command(name)(command_or_app)
        command_or_app = alone
    command = get_command(command_or_app)
    command.name = name
    _prepare(command)
    return command


def _check_not_empty(words: Sequence[str]) -> None:
    """Raises OperatorError for an empty word. It comes from a variable of the shell that is not set, and would mean
    this folder, any name, or everything.
    """
    for before, word in pairwise(("coordinator", *words)):
        option = word.removesuffix("=") if word.startswith("--") and word.endswith("=") else ""
        if not word or option:
            raise OperatorError(
                f"the value after {option or before} is empty: give a value, or leave the option out"
            )


def _prepare(command: Any) -> None:
    """Let the command, or each in it, refuse pipes and devices where it takes a file, and then begin its work."""
    inner = getattr(command, "commands", None)
    if inner is not None:
        for inner_command in inner.values():
            _prepare(inner_command)
        return
    work = command.invoke

    def invoke(ctx: Any) -> Any:
        for value in ctx.params.values():
            for path in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(path, Path):
                    check_no_device(path)
        work_begins()
        return work(ctx)

    command.invoke = invoke


def one_line(text: str) -> str:
    """`text` without line breaks and controls of the terminal."""
    return printable(" ".join(text.split()))


def ended(error: CoordinatorError, *, as_json: bool, code: int | None = None) -> typer.Exit:
    """Say `error`, and what to raise then: its exit code is `code`, by default that of whose fault the error is."""
    text = one_line(str(error))
    typer.echo(f"error: {text}", err=True)
    if code is None:
        codes = {OperatorError: EXIT_OPERATOR, WorldError: EXIT_WORLD}
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), EXIT_DIFFERENT)
    if as_json:
        json_answer.print_error(text, code)
    return typer.Exit(code)
