"""`coordinator contract rules`: the rules in words, made from the contract."""

from __future__ import annotations

import os
from enum import StrEnum
from html import escape
from typing import Annotated

import typer

from coordinator.infra.contracts.loading import load_contract
from coordinator.streams.contract.rules import Circumstances, as_html, as_markdown, rules_of
from coordinator.streams.settings import read_settings


class Format(StrEnum):
    """How the rules are written."""

    MD = "md"
    HTML = "html"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
</head>
<body><main><h1>{title}</h1>
{rules}
</main></body>
</html>"""


def rules(
    contract: Annotated[
        str | None,
        typer.Argument(metavar="[MODULE:NAME]", help="Default: CONTRACT, as the node would take it."),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Markdown, or a page of HTML.")] = Format.MD,
) -> None:
    """Write the rules for participants, generated from the contract: what is asked, scored, ranked and paid.

    Because the text is generated, it says exactly what the node does. Functions of your own appear in it as they are
    run. Subjects and intervals come from the settings, in the environment or in `.env` here. The page of a running
    node shows the rules in force at `/rules`.

    Examples: [bold]coordinator contract rules[/bold],
    [bold]coordinator contract rules runtime_definitions.contracts:CONTRACT --format html > rules.html[/bold]
    """
    settings = read_settings(os.environ, contract=contract)
    path = settings.contract.split(",")[-1].strip()
    node = Circumstances(
        crunch_id=settings.crunch_id,
        subjects=settings.feed_subjects,
        snapshot_interval_seconds=settings.snapshot_interval_seconds,
        checkpoint_interval_seconds=settings.checkpoint_interval_seconds,
        checkpoint_offset_seconds=settings.checkpoint_offset_seconds,
    )
    sections = rules_of(load_contract(path), node)
    title, about = f"Rules of {node.crunch_id}", f"Made from the contract `{path}`."
    if format_ is Format.HTML:
        typer.echo(_PAGE.format(title=escape(title), rules=as_html(about, sections)))
    else:
        typer.echo(as_markdown(title, about, sections), nl=False)
