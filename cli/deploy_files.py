"""`coordinator deploy-files DIR`: what `docker compose build` needs. `make deploy` calls it.

Writes the image's ingredients (`infra/image_files.py`) and `chosen.env`: the feed source, where the settings leave it
open. What was chosen once stays: a log that began with one market goes on with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.node_folder import read_dotenv
from coordinator.cli.shared import JsonOption, print_done, run
from coordinator.infra.image_files import write_image_files
from coordinator.streams.sources.binance.source import BinanceSource

CHOSEN = "chosen.env"
PROBE_SECONDS = 5.0


def deploy_files(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into, e.g. .build.")],
    as_json: JsonOption = False,
) -> None:
    """Write this installation's wheel, the lists of its libraries, and the chosen feed, for `docker compose build`.

    Part of [bold]make deploy[/bold] in a node's folder.
    """
    wheel = write_image_files(folder)
    if source := os.environ.get("FEED_SOURCE", ""):
        why = "as the settings say"
        (folder / CHOSEN).unlink(missing_ok=True)
    else:
        before = read_dotenv(folder / CHOSEN, {}).get("FEED_SOURCE")
        source, why = (before, "as before") if before else run(choose_feed())
        (folder / CHOSEN).write_text(
            f"# Chosen by `make deploy`; FEED_SOURCE in .env overrides it.\nFEED_SOURCE={source}\n",
            encoding="utf-8",
        )
        why += " (FEED_SOURCE in .env overrides it)"
    text = f"the image gets {wheel.name}\nfeed: {source}, {why}"
    print_done(text, {"wheel": wheel.name, "feed": source, "reason": why}, as_json=as_json)


async def choose_feed() -> tuple[str, str]:
    """Real history where it can be had, else a generated market; and why."""
    answer = await BinanceSource().probe(PROBE_SECONDS)
    if answer.ok:
        return "binance", "which answers"
    return "generated", f"a made-up market, since Binance does not answer: {answer.reason}"
