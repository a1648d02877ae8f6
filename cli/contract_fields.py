"""`coordinator contract fields [NAME]`: what a contract can say, from the docstrings of its source."""

from __future__ import annotations

import textwrap
from difflib import get_close_matches
from typing import Annotated

import typer

from coordinator.cli.contract_page import page
from coordinator.cli.shared import JsonOption, one_of, print_json
from coordinator.streams import contract
from coordinator.streams.contract.fields import FieldDoc, fields_of, parts_of
from coordinator.streams.log.errors import OperatorError

WIDTH = 100
GIVEN = (
    "RawInput", "ModelInput", "InferenceOutput", "GroundTruth", "ScoreResult", "RoundAnswers", "Answer", "RoundContext",
    "RoundScores", "Failed", "NoScore", "Member", "EmissionCheckpoint", "CruncherReward", "ProviderReward",
)  # fmt: skip
"""What functions are given and may give."""
NAMED = (
    "tiers", "proportional", "softmax", "by_weights", "top", "in_proportion", "by_percentile", "by_softmax",
    "stake_payout",
)  # fmt: skip
"""What a contract may name as its `build_emission` or as a pool's rule, and what a `score_round` may call."""


def given_docs() -> list[FieldDoc]:
    """What functions are given and may give."""
    from coordinator.streams.snapshots.metrics import PeriodSeries  # noqa: PLC0415 - it brings numpy

    return parts_of({name: getattr(contract, name) for name in GIVEN} | {"PeriodSeries": PeriodSeries})


def named_docs() -> list[FieldDoc]:
    """The functions that a contract may name."""
    return parts_of({name: getattr(contract, name) for name in NAMED})


def _names() -> list[str]:
    return [*(field.path for field in fields_of(contract.CrunchContract)), *GIVEN, *NAMED]


def fields(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A field, such as `aggregation` or `score_prediction`; or what a function is given, such as "
            "`RoundAnswers`, or a function that a contract may name, such as `top`.",
            autocompletion=one_of(_names),
        ),
    ] = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="All as one page of Markdown, for a docs folder.")
    ] = False,
) -> None:
    """List the fields of a contract: each with its type, its default and its meaning.

    With NAME: that field and the fields of the object it is made of, in full; of a callable its signature, what it is
    given and what it may give, and the default's own.

    Examples: [bold]coordinator contract fields[/bold], [bold]coordinator contract fields score_prediction[/bold],
    [bold]coordinator contract fields RoundAnswers[/bold]
    """
    all_fields = fields_of(contract.CrunchContract)
    if as_markdown:
        typer.echo(page(all_fields, given_docs(), named_docs()), nl=False)
        return
    fields_shown = [
        field
        for field in (all_fields if name is None else [*all_fields, *given_docs(), *named_docs()])
        if name is None or field.path == name or field.path.startswith(f"{name}.")
    ]
    if not fields_shown:
        near = get_close_matches(str(name), _names(), 3)
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
        typer.echo(f"{depth}{_head(field)}")
        doc = field.doc if name is not None else field.doc.partition("\n\n")[0]
        for paragraph in filter(None, doc.split("\n\n")):
            # What is indented is an example or a signature, and keeps its lines.
            lines = paragraph.splitlines()
            whole = any(line.startswith(" ") for line in lines)
            text = paragraph if whole else textwrap.fill(" ".join(lines), WIDTH)
            typer.echo(textwrap.indent(text, f"{depth}    "))
    if name is None:
        typer.echo("\nfor one field in full: coordinator contract fields NAME")
        typer.echo(f"what functions get and may return: {', '.join(GIVEN)}, PeriodSeries")
        typer.echo(f"functions that a contract may name: {', '.join(NAMED)}")


def _head(field: FieldDoc) -> str:
    if not field.default:
        return f"{field.path}: {field.type}"
    return f"{field.path}: {field.type} = {field.default}"
