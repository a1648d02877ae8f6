"""`coordinator witness`: watch a node from anywhere, judge each checkpoint as a stranger would, sign what holds."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from coordinator.cli.shared import parse_address, run
from coordinator.cli.terminal import Console, progress_bar
from coordinator.infra.evidence.from_topics import FromTopics
from coordinator.infra.evidence.signing_keys import kept_key, known_keys
from coordinator.infra.evidence.witness import NOTES, REFUSED, Witness
from coordinator.infra.webhook import Alert, Alerts, Webhook
from coordinator.streams.audit.facts import ChainBrokenError
from coordinator.streams.clock import wall_ms
from coordinator.streams.durations import YEAR_SECONDS
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.signing.note_keys import COSIGNATURE

EXIT_BROKEN = 1


def witness(
    node: Annotated[str, typer.Argument(metavar="URL", help="The node's address: http://127.0.0.1:8000.")],
    folder: Annotated[
        Path, typer.Option("--folder", help="The folder for this witness's key and for what it signed.")
    ],
    name: Annotated[
        str, typer.Option(help="The name that it signs with, for example a domain of yours: no spaces, no +.")
    ] = "witness",
    policy: Annotated[
        Path | None,
        typer.Option(
            help=(
                "A file with the node's public keys, one per line. Default: the key that the node shows "
                "first is trusted from then on."
            ),
            show_default=False,
        ),
    ] = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help=(
                "Read the log from these topics, and ask the node only for its note. Rights to read are "
                "enough. TLS and SASL: KAFKA_SECURITY_PROTOCOL."
            ),
            show_default=False,
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help=(
                "Sign nothing if a figure differs by one unit of rounding. Without it, such a note is "
                "signed and the difference is reported."
            ),
        ),
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Check once, then end.")] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, max=YEAR_SECONDS, help="How often to check.")
    ] = 60.0,
    minutes: Annotated[
        float,
        typer.Option(min=0.01, max=YEAR_SECONDS / 60, help="Time limit for computing one bundle again."),
    ] = 30.0,
) -> None:
    """Watch a node: compute every payout in its log again, and cosign its newest note if all of them hold.

    A note that the witness missed is checked with the next one, because the next bundle holds the whole log. It needs
    no Kafka and no credentials, only the node's address; with --kafka it computes from the topics themselves. A note
    must go on from the last one signed here, so a past that was rewritten is found. At the first difference the
    witness signs nothing. It names the step and the figure, keeps the bundle, posts an alert to WEBHOOK_URL if that
    is set, and ends with exit code 1.

    A difference of one unit of rounding is still signed, because `exp` may differ by that much on another processor.
    With --exact such a difference counts like any other.

    Whoever judges a bundle may ask for its signature too: coordinator verify FILE --policy KEYS --note NOTE

    Example: [bold]coordinator witness http://127.0.0.1:8000 --folder witness --name witness.example[/bold]
    """
    node = parse_address(node)
    settings = read_settings(os.environ, kafka_bootstrap=kafka)
    webhook = _webhook(settings)
    key = kept_key(folder / "key", name, COSIGNATURE)
    console = Console(highlight=False, soft_wrap=True)
    topics = FromTopics(settings, lambda: progress_bar("records")) if kafka else None
    looker = Witness(node, folder, key, tuple(known_keys(policy)) if policy else (), topics, exact=exact)
    console.print(f"witness: signs as {key.verifier}")
    code = run(_watch(looker, webhook, console, folder, once=once, every=every, seconds_max=minutes * 60))
    raise typer.Exit(code)


def _webhook(settings: Settings) -> Webhook | None:
    url = settings.webhook_url.get_secret_value()
    return Webhook(url, settings.webhook_secret.get_secret_value(), wall_ms=wall_ms) if url else None


async def _alert(webhook: Webhook, witness: Witness, error: ChainBrokenError, console: Console) -> None:
    """Post the first difference. The exit code says it too, so a receiver that is away changes nothing but a line."""
    text = f"{witness.node_url}: {error.step} does not hold: {error.reason}; nothing is signed"
    (notice,) = Alerts(witness.name).update([Alert("witness", error.step, text)], wall_ms())
    try:
        await webhook.post(notice)
    except (WorldError, OperatorError) as failed:
        console.print(f"witness: the alert did not arrive at {webhook.host}: {failed}", markup=False)


async def _watch(
    looker: Witness,
    webhook: Webhook | None,
    console: Console,
    folder: Path,
    *,
    once: bool,
    every: float,
    seconds_max: float,
) -> int:
    while True:
        try:
            signed = await looker.look(
                wall_ms() // 1000,
                seconds_max,
                lambda step, result: console.print(f"  ok {step:<12}{result}", markup=False),
            )
        except ChainBrokenError as error:
            console.print(Text("FAIL ", style="bold red"), Text(f"{error.step:<12}"), Text(error.reason))
            bundle_note = f", the bundle is {folder / REFUSED}" if (folder / REFUSED).exists() else ""
            console.print(
                f"witness: {error.step} does not hold; nothing is signed{bundle_note}", markup=False
            )
            if webhook is not None:
                await _alert(webhook, looker, error, console)
            return EXIT_BROKEN
        except WorldError as error:
            if once:
                raise
            console.print(f"witness: {error}; retrying in {every:g} s", markup=False)
        else:
            text = (
                "nothing new to sign"
                if signed is None
                else f"signed {', '.join(signed.checkpoint_ids)}: {folder / NOTES / str(signed.leaves)}"
            )
            if signed is not None or once:
                console.print(f"witness: {text}", markup=False)
        if once:
            return 0
        await asyncio.sleep(every)
