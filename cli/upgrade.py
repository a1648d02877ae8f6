"""`coordinator upgrade`: a workspace of an older version is brought to this one."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.lazy_groups import EXIT_DIFFERENT
from coordinator.cli.shared import JsonOption, print_json
from coordinator.scaffolds.merging import BESIDE, FileChange
from coordinator.scaffolds.render import RenderError
from coordinator.scaffolds.upgrade import Upgrade
from coordinator.scaffolds.upgrade import upgrade as upgrade_workspace
from coordinator.streams.log.errors import OperatorError

CONTRACT = "runtime_definitions/contracts.py"


def upgrade(
    folder: Annotated[
        Path,
        typer.Argument(metavar="[FOLDER]", help="A workspace, or its node's folder.", show_default="here"),
    ] = Path(),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would become of each file; write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a workspace that an older version made to this version, and keep all that you changed in it.

    A file that you did not change is replaced by the new one. If both you and the new version changed a file, the two
    are merged line by line (by git, if it is installed; no repository is needed). Lines that both changed are marked
    in the file, and the file is listed. A file that cannot be merged stays as it is, and the new one is put beside it
    as NAME.new. Exit code 1 means that there is something for you to look at. Replaced files are kept in
    `.scaffold/before`. A contract on disk is only a proposal: the node continues with the applied one.

    Examples: [bold]coordinator upgrade --dry-run[/bold], [bold]coordinator upgrade ~/crunches/btc-up[/bold]
    """
    today = version("coordinator-node")
    try:
        outcome = upgrade_workspace(folder, version=today, dry_run=dry_run)
    except RenderError as error:
        raise OperatorError(str(error)) from error
    if as_json:
        print_json(_facts(outcome, today, dry_run=dry_run))
    else:
        _say(outcome, today, dry_run=dry_run)
    if outcome.unmerged:
        raise typer.Exit(EXIT_DIFFERENT)


def _facts(outcome: Upgrade, today: str, *, dry_run: bool) -> dict[str, object]:
    return {
        "node": str(outcome.node),
        "from": outcome.from_version,
        "to": today,
        "dry_run": dry_run,
        "resumed": outcome.resumed,
        "changes": [
            {"path": change.path, "action": change.action, "reason": change.reason}
            for change in outcome.changes
        ],
        "unmerged": [_where(change) for change in outcome.unmerged],
    }


def _where(change: FileChange) -> str:
    return f"{change.path}.new" if change.action == BESIDE else change.path


def _say(outcome: Upgrade, today: str, *, dry_run: bool) -> None:
    if outcome.resumed:
        typer.echo(f"completed an upgrade that was killed: {len(outcome.resumed)} files")
    if not outcome.changes:
        typer.echo(f"{outcome.node.parent} is what coordinator-node {today} makes: nothing to do")
        return
    for change in outcome.changes:
        typer.echo(f"{change.action:9}{_where(change)}" + (f"  ({change.reason})" if change.reason else ""))
    verb = "would go" if dry_run else "went"
    typer.echo(f"{outcome.node.parent} {verb} from {outcome.from_version} to {today}")
    if outcome.unmerged:
        typer.echo(
            f"{len(outcome.unmerged)} files to look at: {', '.join(map(_where, outcome.unmerged))}", err=True
        )
    if any(change.content is not None and change.path.endswith(CONTRACT) for change in outcome.changes):
        typer.echo(
            "the contract's file changed: `coordinator contract diff` shows how; it has no effect until you apply it"
        )
    if not dry_run:
        typer.echo(f"replaced files are in: {outcome.node / '.scaffold/before'}")
