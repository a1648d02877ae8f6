"""`coordinator explain`: why a prediction's score, a period or a share is what it is, from the recorded events on.

Reads the report worker's read models for where the events stand, and the log for what they say; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from coordinator.cli.lazy_groups import EXIT_DIFFERENT
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    parse_time,
    print_json,
    quiet_libraries,
    run,
    time_text,
)
from coordinator.cli.terminal import Console
from coordinator.infra.explaining import Explaining
from coordinator.infra.log.appends import KafkaAppends
from coordinator.infra.log.own_log import log_identity
from coordinator.projections.explaining.explainer import Explainer
from coordinator.projections.explaining.open_stores import read_beside
from coordinator.projections.folding.as_of import (
    PastReadModels,
    Readable,
    cuts_at,
    folded_until,
)
from coordinator.projections.folding.past_held import PastCutError
from coordinator.streams.audit.explain.steps import SHOWN_CHARS_MAX, Explanation, Source, Step
from coordinator.streams.log.errors import OperatorError

LINES_MAX = 12
"""Inputs of a step that are printed; `--json` has all that are listed."""


def explain(
    figure: Annotated[
        str,
        typer.Argument(
            metavar="FIGURE",
            help="A prediction's id (inp/SUBJECT/POINT/SCOPE/MODEL); a checkpoint's id or `latest`; `board`; `copies`; "
            "or a model's id.",
        ),
    ],
    of: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|PERIOD]",
            help="For a checkpoint, `board` or `copies`: the model. For a model: a time in the period, ISO 8601 with a "
            "zone or epoch ms.",
            show_default=False,
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="As it was known at this time: ISO 8601 with a zone, or epoch ms."),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="With `board`: the window, board or key of the summary that ranks it.")
    ] = "",
    scope: Annotated[
        str,
        typer.Option(
            "--scope", help="With `board`, or a model and a period: its windows in SUBJECT/SCOPE_KEY alone."
        ),
    ] = "",
    other: Annotated[
        str, typer.Option("--other", help="With `copies`: the model that it is compared with.")
    ] = "",
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a figure: every recorded event that it depends on, and each step of the arithmetic with its numbers.

    The node's own functions repeat each step, and the result is compared with what is recorded; exit code 1 if one
    differs. The contract's functions run in a separate process. If they do not end within 10 s, or crash it, the
    figure is explained as it is recorded, with exit code 2. An answer that is still hidden is not explained until it
    is public. For a whole checkpoint, use
    [bold]coordinator verify-e2e[/bold].

    Examples: [bold]coordinator explain inp/BTCUSDT/1677628800000/60s/7[/bold],
    [bold]coordinator explain latest 7[/bold], [bold]coordinator explain board 7 --by long[/bold],
    [bold]coordinator explain copies 7 --other 9[/bold],
    [bold]coordinator explain 7 2026-11-28T12:00:00Z --json[/bold]
    """
    at_ms = None if as_of is None else parse_time(as_of)
    make = _asked(figure, of, by, scope, other)
    settings, _ = node_log(data_dir, kafka)
    identity = run(log_identity(settings.kafka_bootstrap, settings.crunch_id))
    quiet_libraries()
    faults: list[str] = []
    appends = KafkaAppends(settings.kafka_bootstrap, settings.crunch_id)
    explaining = Explaining(settings, on_fault=faults.append)
    with closing(explaining), read_beside(settings.data_dir, identity, settings.crunch_id) as live:
        read: Readable = live
        if at_ms is not None:
            _check_within(live, at_ms, as_of or "")
            try:
                read = PastReadModels(live, cuts_at(live, at_ms, folded_until(live)))
            except PastCutError as error:
                raise OperatorError(str(error)) from None
        explanation = make(Explainer(appends, explaining), read)
    if as_json:
        print_json(explanation)
    else:
        print_explanation(explanation)
    if explanation.agrees is False:
        raise typer.Exit(EXIT_DIFFERENT)
    if faults:
        raise OperatorError(f"{faults[0]}; the figure is explained from the record")


def _asked(
    figure: str, of: str | None, by: str, scope: str, other: str
) -> Callable[[Explainer, Readable], Explanation]:
    """What makes the explanation that the words ask for. Raises OperatorError for words that do not go together."""
    is_prediction, is_share = figure.startswith("inp/"), figure.startswith("ckp_") or figure == "latest"
    is_place, is_pair = figure == "board", figure == "copies"
    if is_prediction and of is not None:
        raise OperatorError("a prediction's id includes its model: leave out the second argument")
    if of is None and not is_prediction:
        raise OperatorError(
            f"name the MODEL whose share of {figure} it is (`coordinator checkpoint show {figure}` lists them)"
            if is_share
            else "name a prediction (inp/SUBJECT/POINT/SCOPE/MODEL), a checkpoint, `board` or `copies` and a MODEL, or "
            "a model and a time in the PERIOD: coordinator explain 7 2026-11-28T12:00:00Z"
        )
    if bool(other) != is_pair:
        raise OperatorError(
            "`copies` compares two models, and --other names the second one: coordinator explain copies 7 --other 9"
        )
    if by and (not is_place or scope):
        raise OperatorError(
            "--by works only with `board` and without --scope: coordinator explain board MODEL --by NAME"
        )
    if scope and (is_prediction or is_share or is_pair):
        raise OperatorError(
            "--scope works only with `board`, or with a model and a period: coordinator explain board MODEL --scope "
            "SUBJECT/SCOPE"
        )
    if of is None:
        return lambda explainer, read: explainer.prediction(read, figure)
    if is_pair:
        return lambda explainer, read: explainer.copies(read, (of, other))
    if is_share:
        return lambda explainer, read: explainer.share(read, figure, of)
    if is_place and scope:
        return lambda explainer, read: explainer.scope(read, of, scope)
    if is_place:
        return lambda explainer, read: explainer.place(read, of, by)
    period_ms = parse_time(of)
    if scope:
        return lambda explainer, read: explainer.scope(read, figure, scope, period_ms)
    return lambda explainer, read: explainer.snapshot(read, figure, period_ms)


def _check_within(live: Readable, at_ms: int, as_of: str) -> None:
    """Raises OperatorError for a time before the first record; says on stderr where the log ends before the time."""
    oldest = min((row.oldest for row in live.feeds.all() if row.record_count), default=None)
    if oldest is not None and at_ms < oldest:
        raise OperatorError(f"--as-of {as_of}: the log's first record is of {time_text(oldest)}")
    if at_ms > live.feeds.clock > 0:
        typer.echo(
            f"--as-of {as_of}: the log ends at {time_text(live.feeds.clock)}, so this shows the state at that time",
            err=True,
        )


def print_explanation(explanation: Explanation) -> None:
    """The steps on stdout, one below the other."""
    console = Console(highlight=False)
    console.print(explanation.title, style="bold", markup=False)
    console.print(explanation.id, markup=False)
    for number, step in enumerate(explanation.steps, start=1):
        _print_step(console, number, step)
    console.print()
    if explanation.hidden_until_ms is not None:
        console.print("The answer is hidden, and what follows from it is not explained yet.")
    elif explanation.agrees is None:
        console.print("Nothing could be computed again here; the notes say why.")
    else:
        console.print(
            "Every step that was computed again gives the recorded figure."
            if explanation.agrees
            else "A step gives another figure than the recorded one: `coordinator verify-e2e` checks its whole period."
        )


VERDICT = {True: (" equal", "green"), False: (" DIFFERENT", "bold red"), None: ("", "")}


def _print_step(console: Console, number: int, step: Step) -> None:
    words, style = VERDICT[step.agrees]
    console.print()
    console.print(Text.assemble((f"{number}. {step.name}", "bold"), (words, style)))
    console.print(Text(step.rule, "dim"))
    for source in step.sources:
        console.print(Text(f"  {_place(source)}  {source.kind} {source.event_id}", "cyan"))
    table = Table.grid(padding=(0, 2))
    for value in step.inputs[-LINES_MAX:]:
        table.add_row(
            "  <-",
            Text(value.name),
            Text(value.shown),
            Text(_place(value.source) if value.source else "", "cyan"),
        )
    more = step.left_out + max(0, len(step.inputs) - LINES_MAX)
    if more:
        console.print(f"  and {more} before these" + ("" if step.left_out else ": --json has them"))
    for value in step.result:
        exact = "" if value.exact == value.shown or len(value.exact) > SHOWN_CHARS_MAX else value.exact
        table.add_row("  =", Text(value.name), Text(value.shown), Text(exact))
    console.print(table)
    if step.note:
        console.print(Text(f"  {step.note}", "yellow"))


def _place(source: Source) -> str:
    return f"{source.topic}:{source.offset}"
