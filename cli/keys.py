"""`coordinator keys`: keys for the API. The key is shown once; what the node keeps is its hash."""

from __future__ import annotations

import os
import re
import secrets
from typing import Annotated

import typer

from coordinator.api.keys import SCOPES, make_entry, read_key_ring
from coordinator.cli.shared import JsonOption, one_of, print_json
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import read_settings

app = typer.Typer(no_args_is_help=True, help="Keys for the report API: read, settle, admin, submit.")
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
WHOSE = re.compile(r"[^\s;#]{1,200}")


@app.command("make")
def make(
    scope: Annotated[
        str,
        typer.Argument(
            metavar="SCOPE",
            help="read, settle or admin (each includes the ones before it), or submit.",
            autocompletion=one_of(lambda: SCOPES),
        ),
    ],
    key_id: Annotated[
        str | None, typer.Option("--id", help="A name for it, shown in lists. Default: a random one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="For submit: the id of the model it answers for.")] = None,
    cruncher: Annotated[str | None, typer.Option(help="For submit: the id of the model's cruncher.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is printed once, with the line to store for it.

    Put the line into the file that API_KEYS_FILE names (or into API_KEYS) and restart the report worker. Send the key
    as X-API-Key or as Authorization: Bearer. To revoke a key, remove its line.

    A key with scope submit is for a participant without a hosted model: it hands in the answers of one model.

    Example: [bold]coordinator keys make settle --id payments[/bold]
    """
    if scope not in SCOPES:
        raise OperatorError(f"{scope!r} is not a scope: choose from {', '.join(SCOPES)}")
    for option, value in (("--model", model), ("--cruncher", cruncher)):
        if (value is not None) is not (scope == "submit"):
            raise OperatorError(f"{option} works only with the scope submit, and that scope needs it")
        if value is not None and not WHOSE.fullmatch(value):
            raise OperatorError(f"{option} {value!r}: 1 to 200 characters without blanks, ; or #")
    name = key_id if key_id is not None else secrets.token_hex(4)
    if not ID.fullmatch(name):
        raise OperatorError(f"--id {name!r}: use 1 to 64 letters, digits, _ or -")
    key, line = make_entry(name, SCOPES[scope], secrets.token_urlsafe(32), model or "", cruncher or "")
    if as_json:
        print_json({"key": key, "entry": line})
        return
    typer.echo(f"the key, which is shown only now:   {key}")
    typer.echo(f"the line for API_KEYS_FILE: {line}")


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the keys that the settings name: id and scope. A file that cannot be read is an error with its line.

    Example: [bold]API_KEYS_FILE=keys.txt coordinator keys list[/bold]
    """
    settings = read_settings(os.environ)
    entries = read_key_ring(settings.api_keys, settings.api_keys_file).entries()
    if as_json:
        print_json(
            [
                {"id": entry.key_id, "scope": entry.scope.name.lower()}
                | ({"model_id": entry.model_id, "cruncher_id": entry.cruncher_id} if entry.model_id else {})
                for entry in entries
            ]
        )
        return
    for entry in entries:
        whose = f"  {entry.model_id} of {entry.cruncher_id}" if entry.model_id else ""
        typer.echo(f"{entry.key_id}  {entry.scope.name.lower()}{whose}")
    if not entries:
        typer.echo("no key: set API_KEYS_FILE or API_KEYS; `coordinator keys make` makes one")
