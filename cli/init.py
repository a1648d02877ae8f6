"""`coordinator init`, `demo` and `packs`: a workspace of one's own, rendered by `scaffolds/render.py`."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.shared import JsonOption, one_of, print_json
from coordinator.scaffolds.render import DEFAULT_PACK, RenderError, Workspace, packs, render
from coordinator.streams.log.errors import OperatorError

DEMO_NAME = "btc-up"
DEMO_PACK = "realtime"

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Folder that the workspace is made in.", show_default="here")
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="If NAME exists already, rename the old one to NAME.old-1 and continue."),
]


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case words joined by '-', e.g. btc-up.")],
    pack: Annotated[
        str,
        typer.Option(
            help="What kind of challenge; `coordinator packs` lists them.", autocompletion=one_of(packs)
        ),
    ] = (DEFAULT_PACK),
    output: OutputOption = Path(),
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a workspace for a challenge of your own: the node's folder and the participants' package.

    NAME/crunch-node-NAME holds the contract, the settings and the deployment; NAME/crunch-NAME is the Python package
    that participants install. Nothing is fetched. An invalid name, or a folder that exists already, is refused, and
    nothing is written.

    Examples: [bold]coordinator init my-challenge[/bold],
    [bold]coordinator init eth-minutes --pack realtime --output ~/crunches[/bold]
    """
    _make(name, pack, output, force=force, as_json=as_json)


def demo(output: OutputOption = Path(), force: ForceOption = False, as_json: JsonOption = False) -> None:
    """Make the workspace `btc-up`: the realtime pack with its example models, ready to run.

    The same as [bold]coordinator init btc-up --pack realtime[/bold].
    """
    _make(DEMO_NAME, DEMO_PACK, output, force=force, as_json=as_json)


def list_packs(as_json: JsonOption = False) -> None:
    """List the packs: the kinds of challenge that `coordinator init --pack` can start from."""
    pack_of_name = packs()
    if as_json:
        print_json(
            [
                {"name": pack.name, "about": pack.about, "default": pack.name == DEFAULT_PACK}
                for pack in pack_of_name.values()
            ]
        )
        return
    width = max(map(len, pack_of_name))
    for pack in pack_of_name.values():
        default = " (the default)" if pack.name == DEFAULT_PACK else ""
        typer.echo(f"{pack.name:{width}}  {pack.about}{default}")


def _make(name: str, pack: str, output: Path, *, force: bool, as_json: bool) -> None:
    try:
        workspace = render(name, pack, output, version=version("coordinator-node"), force=force)
    except RenderError as error:
        raise OperatorError(str(error)) from error
    if as_json:
        print_json(
            {
                "node": str(workspace.node),
                "challenge": str(workspace.challenge),
                "package": workspace.package,
                "kept_aside": None if workspace.kept_aside is None else str(workspace.kept_aside),
            }
        )
        return
    _say(workspace)


def _say(workspace: Workspace) -> None:
    here = Path.cwd()

    def shown(path: Path) -> Path:
        return path.relative_to(here) if path.is_relative_to(here) else path

    if workspace.kept_aside is not None:
        typer.echo(f"the old folder is now {shown(workspace.kept_aside)}")
    typer.echo(f"{shown(workspace.node)}  the node: contract, settings, deployment")
    typer.echo(
        f"{shown(workspace.challenge)}  the package {workspace.package}: base class, scoring, example models"
    )
    typer.echo("")
    typer.echo(f"next:  cd {shlex.quote(str(shown(workspace.node)))}")
    typer.echo("       coordinator contract check    # is the contract right?")
    typer.echo("       coordinator up                # the whole node here, without Docker")
    if (workspace.node / "Makefile").is_file():
        typer.echo("       make deploy && make verify-e2e    # the same in containers")
