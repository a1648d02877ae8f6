"""`coordinator preflight` before a node is started, `coordinator doctor` while it runs: what is wrong, and what to do.

Both run one check after the other, print each result as it comes, and end with 1 when anything is wrong or could not be
checked. The operator leaves out by name what is not used, and the table says so.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from coordinator.cli import checkup, checkup_node
from coordinator.cli.checkup import Finding, State
from coordinator.cli.lazy_groups import one_line
from coordinator.cli.own_kafka import is_stopped, running_log
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_json, read_node_file, run
from coordinator.cli.start_checks import check_start
from coordinator.cli.terminal import Console
from coordinator.cli.up_plan import example_models
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings, read_settings

Look = Callable[[], Awaitable[Finding | list[Finding]]]

EXIT_FAULT = 1
OF_A_RUNNING_NODE = ("kafka", "applied", "stages", "api")
MARKS = {
    "ok": ("ok", "green"),
    "fault": ("FAULT", "bold red"),
    "unknown": ("?", "bold red"),
    "skipped": ("-", "dim"),
}

SkipOption = Annotated[
    list[str] | None,
    typer.Option("--skip", help="Leave out this check; may be repeated.", show_default=False),
]
SecondsOption = Annotated[
    float,
    typer.Option("--feed-seconds", min=0.5, max=600, help="How long to wait for a record of each subject."),
]


def preflight(
    skip: SkipOption = None,
    feed_seconds: SecondsOption = 10.0,
    models: Annotated[
        Path | None, typer.Option(help="Folder of models. Default: MODELS_DIR.", show_default=False)
    ] = None,
    kafka: KafkaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check before a start: Docker, compose, ports, memory, disk, files, contract, models, clock, feed, Kafka,
    topics.

    Run it in the node's folder. Each check says what it found and, if something is wrong, what to do. A check that
    cannot be made counts as wrong. The exit code is 1 if anything is wrong, and 2 for an invalid setting. Kafka is
    checked only if you name one (KAFKA_BOOTSTRAP or --kafka); otherwise it is started with the node.

    Examples: [bold]coordinator preflight[/bold],
    [bold]coordinator preflight --skip docker --skip compose[/bold] (for `coordinator up`)
    """
    settings = read_settings(os.environ, kafka_bootstrap=kafka)
    before = read_node_file(settings.data_dir)
    if before is not None and before.feed_chosen and not os.environ.get("FEED_SOURCE"):
        settings = read_settings(
            os.environ, kafka_bootstrap=kafka, feed_source=before.feed_source
        )  # as `up` will
    check_start(settings, os.environ)
    named = kafka is not None or bool(os.environ.get("KAFKA_BOOTSTRAP"))
    folder = models or Path(os.environ.get("MODELS_DIR") or example_models())
    steps = _before(settings, folder, feed_seconds, named=named)
    _report(_look(steps, _left_out(skip, steps)), "before the start", as_json=as_json)


def doctor(
    skip: SkipOption = None,
    feed_seconds: SecondsOption = 10.0,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a running node: Docker, disk, contract, clock, feed, Kafka and its topics, each stage, the API.

    Each check says what it found and, if something is wrong, what to do. A check that cannot be made counts as wrong.
    The exit code is 1 if anything is wrong.

    Examples: [bold]coordinator doctor --data-dir node --skip docker[/bold], [bold]coordinator doctor --json[/bold]
    """
    settings, node, own = running_log(data_dir, kafka)
    check_start(settings, os.environ)

    api = node.api if node is not None else f"http://{settings.api_host}:{settings.api_port}"
    steps = _during(settings, api, feed_seconds, own)
    if is_stopped(settings, node):
        for name in OF_A_RUNNING_NODE:
            del steps[name]
        steps["node"] = partial(checkup_node.stopped, settings)
    _report(_look(steps, _left_out(skip, steps)), "while it runs", as_json=as_json)


def _before(settings: Settings, models: Path, feed_seconds: float, *, named: bool) -> dict[str, Look]:
    async def kafka() -> list[Finding]:
        if not named:
            return [checkup.Finding("kafka", checkup.State.SKIPPED, "none is given: the node starts its own")]
        return await checkup_node.kafka(settings.kafka_bootstrap, settings.crunch_id, own=None)

    return {
        "docker": checkup.docker,
        "compose": lambda: checkup.compose(Path.cwd()),
        "ports": lambda: checkup.ports({settings.api_port: ("the API", "API_PORT")}),
        "memory": lambda: checkup.memory_here(models),
        "disk": lambda: checkup.disk_here(settings.data_dir),
        "files": checkup.open_files,
        "contract": lambda: checkup_node.contract(settings),
        "wallets": lambda: checkup_node.wallets(
            settings, lambda: checkup_node.ids_in_folder(models), checkup.State.OK
        ),
        "models": lambda: checkup_node.models(settings, models),
        "clock": lambda: checkup_node.clock(settings),
        "feed": lambda: checkup_node.feed(settings, feed_seconds),
        "kafka": kafka,
    }


def _during(
    settings: Settings, api: str, feed_seconds: float, own: Callable[[], Awaitable[None]]
) -> dict[str, Look]:
    bootstrap, crunch_id = settings.kafka_bootstrap, settings.crunch_id
    return {
        "docker": checkup.docker,
        "disk": lambda: checkup.disk_here(settings.data_dir),
        "contract": lambda: checkup_node.contract(settings),
        "wallets": lambda: checkup_node.wallets(
            settings, lambda: checkup_node.ids_in_log(settings, own), checkup.State.FAULT
        ),
        "clock": lambda: checkup_node.clock(settings),
        "feed": lambda: checkup_node.feed(settings, feed_seconds),
        "kafka": lambda: checkup_node.kafka(bootstrap, crunch_id, own=own),
        "applied": lambda: checkup_node.applied(settings, own),
        "stages": lambda: checkup_node.stages(settings, own),
        "api": lambda: checkup_node.api(api),
    }


async def _look(steps: dict[str, Look], left_out: set[str]) -> AsyncIterator[Finding]:
    """The findings, each as soon as it is known."""
    for name, look in steps.items():
        if name in left_out:
            yield Finding(name, State.SKIPPED, "left out (--skip)")
            continue
        finding = await look()
        for single in finding if isinstance(finding, list) else [finding]:
            yield single


def _left_out(skip: list[str] | None, steps: dict[str, Look]) -> set[str]:
    left_out = set(skip or ())
    if unknown := sorted(left_out - set(steps)):
        raise OperatorError(f"--skip {unknown[0]}: choose from {', '.join(steps)}")
    return left_out


def _report(findings: AsyncIterator[Finding], when: str, *, as_json: bool) -> None:
    findings_made = run(_gather(findings, None if as_json else _say))
    faults = sum(finding.bad for finding in findings_made)
    if as_json:
        print_json({"when": when, "faults": faults, "findings": findings_made})
    else:
        text = f"{faults} {'thing needs' if faults == 1 else 'things need'} you" if faults else "all is well"
        Console().print(text, style="bold red" if faults else "green")
    raise typer.Exit(EXIT_FAULT if faults else 0)


async def _gather(findings: AsyncIterator[Finding], say: Callable[[Finding], None] | None) -> list[Finding]:
    out = []
    async for finding in findings:
        out.append(finding)
        if say is not None:
            say(finding)
    return out


def _say(finding: Finding) -> None:
    """Print a finding on one line, and what to do about it on the next."""
    mark, style = MARKS[finding.state]
    console = Console()
    console.print(
        Text.assemble(
            (f"{mark:>5}", style), "  ", (f"{finding.check:<10}", "bold"), "  ", one_line(finding.says)
        ),
        soft_wrap=True,
    )
    if finding.bad and finding.do:
        console.print(Text(f"       -> {finding.do}"), soft_wrap=True)
