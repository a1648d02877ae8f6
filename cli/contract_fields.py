"""`coordinator contract fields [NAME]`: what a contract can say, from the docstrings of its source."""

from __future__ import annotations

import textwrap
from difflib import get_close_matches
from typing import Annotated

import typer

from coordinator.cli.shared import JsonOption, print_json
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.fields import fields_of
from coordinator.streams.log.errors import OperatorError

WIDTH = 100


def fields(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A field, such as `aggregation` or `score_prediction`."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what a contract can say: each field with its type, its default and what it means.

    With NAME: that field and the fields of the object it is made of, in full; of a callable its signature, what it is
    given and what it may give, and the default's own.

    Examples: [bold]coordinator contract fields[/bold], [bold]coordinator contract fields score_prediction[/bold]
    """
    all_fields = fields_of(CrunchContract)
    fields_shown = [
        field
        for field in all_fields
        if name is None or field.path == name or field.path.startswith(f"{name}.")
    ]
    if not fields_shown:
        near = get_close_matches(str(name), [field.path for field in all_fields], 3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise OperatorError(f"a contract has no field {name!r}{hint}")
    if as_json:
        print_json(
            [
                {"name": field.path, "type": field.type, "default": field.default, "doc": field.doc}
                for field in fields_shown
            ]
        )
        return
    for field in fields_shown:
        depth = "  " * field.path.count(".")
        typer.echo(f"{depth}{field.path}: {field.type} = {field.default}")
        doc = field.doc if name is not None else field.doc.partition("\n\n")[0]
        for paragraph in filter(None, doc.split("\n\n")):
            # What is indented is an example or a signature, and keeps its lines.
            lines = paragraph.splitlines()
            whole = any(line.startswith(" ") for line in lines)
            text = paragraph if whole else textwrap.fill(" ".join(lines), WIDTH)
            typer.echo(textwrap.indent(text, f"{depth}    "))
    if name is None:
        typer.echo("\none in full: coordinator contract fields NAME")
