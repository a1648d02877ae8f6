"""`coordinator`: the command line. One module for each command; this one only names them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.lazy_groups import lazy_group
from coordinator.cli.node_folder import take_over_settings

COMMANDS = {
    "init": (
        "init:init",
        "Make a workspace for a challenge of your own: the node's folder and the participants' package.",
    ),
    "demo": (
        "init:demo",
        "Make the workspace `btc-up`: the realtime pack with its example models, ready to run.",
    ),
    "packs": (
        "init:list_packs",
        "List the packs: the kinds of challenge that `coordinator init --pack` can start from.",
    ),
    "upgrade": (
        "upgrade:upgrade",
        "Bring a workspace that an older version made to this version, and keep all that you changed in it.",
    ),
    "up": (
        "up:up",
        "Start Kafka, the models, the five workers and the page here, and keep them running until Ctrl-C.",
    ),
    "worker": ("worker:worker", "Run one worker until SIGTERM, with settings from the environment."),
    "status": (
        "status:status",
        "Show how far every stage is, what is in the topics, and the last checkpoint.",
    ),
    "preflight": (
        "doctor:preflight",
        (
            "Check before a start: Docker, compose, ports, memory, disk, files, contract, models, "
            "clock, feed, Kafka, topics."
        ),
    ),
    "doctor": (
        "doctor:doctor",
        (
            "Check a running node: Docker, disk, contract, clock, feed, Kafka and its topics, each stage, "
            "the API."
        ),
    ),
    "plan-capacity": (
        "plan_capacity:plan_capacity",
        "Say what disk, memory, cores and broker settings a challenge needs, from what its contract costs here.",
    ),
    "replay": (
        "replay:replay",
        "Rebuild the read models from the first event on; print events, events/s and each state_hash.",
    ),
    "plan": (
        "rules_plan:app",
        (
            "Show what other rules would have made of the recorded past: scores, ranks, shares, and who "
            "would no longer be paid."
        ),
    ),
    "apply": (
        "rules_apply:apply",
        "Put the rules of a plan in force from the end of the running checkpoint period on.",
    ),
    "shadow": ("shadow:app", "Other rules beside the live ones, on the live log: never paid."),
    "explain": (
        "explain:explain",
        (
            "Explain a figure: every recorded event that it depends on, and each step of the arithmetic "
            "with its numbers."
        ),
    ),
    "simulate": (
        "simulate:simulate",
        (
            "Run the whole node in memory, without Kafka, with faults drawn from a seed; then check that "
            "every promise holds."
        ),
    ),
    "drill": (
        "drill:drill",
        (
            "Break a scratch node on purpose: wait for the alert, do what its runbook page says, and see "
            "the alert end."
        ),
    ),
    "topology": (
        "topology:topology",
        "Print the stages and topics as a table, and as a Mermaid diagram (paste it into any Markdown).",
    ),
    "verify-e2e": (
        "verify_e2e:verify_e2e",
        (
            "Check a running node from outside and compute its figures again; exit code 1 names the step "
            "that does not hold."
        ),
    ),
    "bundle": (
        "bundle:bundle",
        (
            "Write everything that a checkpoint depends on into one file: `coordinator verify FILE` checks "
            "it without this node."
        ),
    ),
    "export": (
        "export_import:export_node",
        (
            "Write the whole node into one file: its log, contracts and settings. The file holds no key "
            "and no password."
        ),
    ),
    "import": (
        "export_import:import_node",
        "Make a node's data directory from an export: `coordinator up` continues from there.",
    ),
    "prove": (
        "prove:prove",
        "Write a text that proves one prediction: `coordinator verify FILE` checks it with the node's public key.",
    ),
    "verify": (
        "verify:verify",
        (
            "Check a bundle without its node: is the payout right? If not (exit code 1), the step and the "
            "figure are named."
        ),
    ),
    "witness": (
        "witness:witness",
        (
            "Watch a node: compute every payout in its log again, and cosign its newest note if all of "
            "them hold."
        ),
    ),
    "evidence": ("evidence:app", "The key that signs the notes about the log."),
    "deploy-files": (
        "deploy_files:deploy_files",
        "Write this installation's wheel, the lists of its libraries, and the chosen feed, for `docker compose build`.",
    ),
    "contract": ("contract:app", "The contract: what is asked, how it is scored, how it pays."),
    "topics": ("topics:app", "Make or look at the crunch's topics."),
    "log": ("log:app", "Read the log itself; copy its closed periods into files."),
    "dead-letters": ("dead_letters:app", "Look at what was set aside because it could not be read."),
    "feeds": ("feeds:app", "Sources of market data, and the past of a feed."),
    "keys": ("keys:app", "Keys for the report API: read, settle, admin, submit."),
    "rounds": ("rounds:app", "Questions that you post: rounds of them, their truths and stakes."),
    "submit": (
        "submit:submit",
        "Hand in answers to the open questions of a round; the last ones before the close count.",
    ),
    "models": ("models:app", "Run models on this machine."),
    "backtest": (
        "backtest:backtest",
        (
            "Play models through a past market with the node's own stages: scores, leaderboard and exact "
            "payout."
        ),
    ),
    "checkpoint": ("checkpoint:app", "Look at checkpoints, and bring them to PAID."),
}
"""What `cli/lazy_groups.py` takes; a test compares each line with the help of the command itself."""

app = typer.Typer(
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "A crunch coordinator as a log of events: feeds in, scored predictions, a leaderboard and an exact emission "
        "out.\n\n"
        "[bold]coordinator up[/bold] runs a whole node here, with its own Kafka, example models and a page to "
        "look at.\n\n"
        "[bold]coordinator init NAME[/bold] makes a workspace for a challenge of your own.\n\n"
        "Settings come from the environment (CRUNCH_ID, KAFKA_BOOTSTRAP, FEED_SUBJECTS, "
        "CHECKPOINT_INTERVAL_SECONDS, ...), or else from `.env` in the current folder.\n\n"
        "Exit codes: 0 done, 1 a difference, fault or refusal, 2 you must change something (the message says what), "
        "3 something outside did not answer, 130 ended by Ctrl-C. With --json an error is JSON on stdout, too."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - most runs do not ask

        typer.echo(version("coordinator-node"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001 - eager: its own callback has ended the program by then
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before a command."""
    take_over_settings(os.environ, Path.cwd())
    # As in the processes that this one starts: a contract beside the node's first one imports the same packages.
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path += [path for path in named if path and path not in sys.path]


def main() -> None:
    """The console script's entry point."""
    app()


if __name__ == "__main__":
    main()
