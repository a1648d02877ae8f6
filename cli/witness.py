"""`coordinator witness`: watch a node from anywhere, judge each checkpoint as a stranger would, sign what holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from coordinator.cli.shared import run
from coordinator.cli.terminal import Console
from coordinator.infra.evidence.key import kept_key, known_keys
from coordinator.infra.evidence.witness import NOTES, REFUSED, Witness
from coordinator.streams.audit.facts import ChainBrokenError
from coordinator.streams.clock import wall_ms
from coordinator.streams.evidence.notes import COSIGNATURE
from coordinator.streams.log.errors import WorldError

EXIT_BROKEN = 1


def witness(
    node: Annotated[str, typer.Argument(metavar="URL", help="The node's address: http://127.0.0.1:8000.")],
    folder: Annotated[
        Path, typer.Option("--folder", help="Where this witness keeps its key and what it signed.")
    ],
    name: Annotated[
        str, typer.Option(help="The name that it signs with, for example a domain of yours: no spaces, no +.")
    ] = "witness",
    policy: Annotated[
        Path | None,
        typer.Option(
            help="The node's public keys, one a line; left out, the key of the first look counts from then on.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, then end.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="How often it looks.")] = 60.0,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="The most that computing one bundle again may take.")
    ] = 30.0,
) -> None:
    """Watch a node: each new checkpoint's bundle is computed again, and its note cosigned if everything holds.

    It needs no Kafka and no credentials, only the node's address. A note must go on from the last one signed here, so a
    past that was rewritten is found. At the first difference nothing is signed: it says which step and figure, keeps
    the bundle, and ends with code 1, for whatever runs it to raise the alarm.

    Whoever judges a bundle may ask for its signature too: coordinator verify FILE --policy KEYS --note NOTE

    Example: [bold]coordinator witness http://127.0.0.1:8000 --folder witness --name witness.example[/bold]
    """
    key = kept_key(folder / "key", name, COSIGNATURE)
    looker = Witness(node, folder, key, tuple(known_keys(policy)) if policy else ())
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"witness: signs as {key.verifier}")
    raise typer.Exit(run(_watch(looker, console, folder, once=once, every=every, seconds_max=minutes * 60)))


async def _watch(
    looker: Witness, console: Console, folder: Path, *, once: bool, every: float, seconds_max: float
) -> int:
    while True:
        try:
            signed = await looker.look(
                wall_ms() // 1000,
                seconds_max,
                lambda step, said: console.print(f"  ok {step:<12}{said}", markup=False),
            )
        except ChainBrokenError as error:
            console.print(Text("FAIL ", style="bold red"), Text(f"{error.step:<12}"), Text(error.reason))
            console.print(
                f"witness: {error.step} does not hold; nothing is signed, the bundle is {folder / REFUSED}"
            )
            return EXIT_BROKEN
        except WorldError as error:
            if once:
                raise
            console.print(f"witness: {error}; asked again in {every:g} s", markup=False)
        else:
            said = (
                "nothing new to sign"
                if signed is None
                else f"signed {', '.join(signed.checkpoint_ids)}: {folder / NOTES / str(signed.leaves)}"
            )
            if signed is not None or once:
                console.print(f"witness: {said}", markup=False)
        if once:
            return 0
        await asyncio.sleep(every)
