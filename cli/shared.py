"""What the commands share: options, times and speeds as people write them, settings, where a node is, printing."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import stamina.instrumentation
import structlog
import typer

from coordinator.cli.json_answer import json_answer
from coordinator.infra.whole_file import write_whole
from coordinator.streams.durations import SECOND_MS, moment_text
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.reasons import printable
from coordinator.streams.setting_checks import FAR_FUTURE_MS, SECONDS_LIKE
from coordinator.streams.settings import Settings, environment, read_settings

NODE_FILE = "node.json"
REASON_CHARS_MAX = 500
DEMO_CONTRACT = "coordinator.infra.contracts.demo:CONTRACT"
Result = TypeVar("Result")

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Directory of a running or earlier `coordinator up`.", show_default=False
    ),
]
KafkaOption = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        help="Kafka to ask, HOST:PORT. Default: KAFKA_BOOTSTRAP, else the one of --data-dir. "
        "TLS and SASL: KAFKA_SECURITY_PROTOCOL.",
    ),
]
COLUMNS = typer.Option(
    help="Which column is which, where the file does not say it in a known way: time=when,open=2,high=3,... "
    "(a name in its header, or a number from 1).",
    show_default=False,
)
STAMP = typer.Option(
    help="Which end of a candle its time is: `open` (the default, also of a bare `timestamp`) or `close`.",
    show_default=False,
)
RulesFromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="An end of a checkpoint period, ISO 8601 with a zone or epoch ms. Default: where today's rules began.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class NodeFile(msgspec.Struct, kw_only=True):
    """`<data_dir>/node.json`: what `up` leaves for the other commands. `pids` are of the last start.

    `feed` holds the FEED_ variables that it runs with, whatever the environment says meanwhile. `wallets_file` is its
    WALLETS_FILE, for a command whose environment has none. Without it the command would pay to other wallets.
    """

    bootstrap: str
    api: str
    crunch_id: str
    feed_source: str
    feed_chosen: bool = False
    feed: dict[str, str] = {}
    wallets_file: str = ""
    pids: dict[str, int] = {}


def one_of(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """For `autocompletion`: a shell is offered those of `names` that begin with what was typed."""

    def offered(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return offered


def parse_time(text: str) -> int:
    """Unix ms from ISO 8601 with a zone (`2023-03-10T00:00:00Z`, `2023-03-10 01:00+01:00`) or from epoch ms.

    Raises OperatorError for anything else; a time without a zone is refused, not guessed.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        if len(text) > len(str(FAR_FUTURE_MS)):
            raise OperatorError(f"{text[:20]}... is after the year 9999: times are milliseconds since 1970")
        if int(text) in SECONDS_LIKE:
            raise OperatorError(
                f"{text} would be a time of 1970 to 1973: times are in milliseconds, {text}000?"
            )
        if int(text) > FAR_FUTURE_MS:
            raise OperatorError(
                f"{text} is after the year 9999: times are in milliseconds, not in microseconds"
            )
        return int(text)
    day = text.removesuffix("Z").removesuffix("z")
    if len(day) == len("2023-03-10") and day[4:8:3] == "--":
        raise OperatorError(f"{text!r} has no time of day; write {day}T00:00:00Z for midnight UTC")
    zoned = f"{text[:-4]}+00:00" if text.upper().endswith(" UTC") else text.upper()
    try:
        moment = datetime.fromisoformat(zoned)
    except ValueError:
        raise OperatorError(
            f"{text!r} is not a time; write ISO 8601 with a zone, e.g. 2023-03-10T00:00:00Z, or milliseconds since 1970"
        ) from None
    if moment.tzinfo is None:
        plain = text.replace(" ", "T")
        raise OperatorError(
            f"{text!r} has no zone; write {plain}Z for UTC, or an offset such as {plain}+01:00"
        )
    since_epoch = moment - datetime.fromtimestamp(0, UTC)
    milliseconds = (since_epoch.days * 86_400 + since_epoch.seconds) * 1000 + since_epoch.microseconds // 1000
    if milliseconds < 0:
        raise OperatorError(f"{text!r} is before 1970")
    return milliseconds


def parse_address(text: str) -> str:
    """The address of a node's API, without a slash at its end. Raises OperatorError for an invalid one."""
    scheme, separator, host = text.partition("://")
    if scheme not in ("http", "https") or not separator or not host.strip("/"):
        raise OperatorError(f"{text!r} is not an address of a node: write http://HOST:PORT or https://HOST")
    return text.rstrip("/")


def parse_speed(text: str) -> float:
    """How many times faster than life, > 0; `max` gives 0.0, which is as fast as the stages allow.

    Raises OperatorError for anything else.
    """
    if text.strip().lower() == "max":
        return 0.0
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise OperatorError(f"--speed {text}: give max, or a factor of real time, e.g. 60")
    return speed


def time_text(time_ms: int | None) -> str:
    """A time for people, in UTC; `-` for none."""
    if time_ms is None or time_ms < 0:
        return "-"
    return moment_text(time_ms - time_ms % SECOND_MS)


def reason_words(reason: str) -> str:
    """The words behind `--reason`, as an event, a file and a terminal can take them. Raises OperatorError for none, or
    for too many: cut short they might say something else.
    """
    words = printable(reason).strip()
    if not words or len(words) > REASON_CHARS_MAX:
        raise OperatorError(f"--reason needs a text of at most {REASON_CHARS_MAX} characters")
    return words


def read_node_file(data_dir: Path) -> NodeFile | None:
    """What an `up` left in this directory, or None. Raises OperatorError when it cannot be read."""
    path = data_dir / NODE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=NodeFile)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise OperatorError(
            f"{path} cannot be read ({error}); remove it; the next `coordinator up` writes it again"
        ) from error


def write_node_file(data_dir: Path, node: NodeFile) -> None:
    """Leave it for the other commands: whole or not at all."""
    write_whole(data_dir / NODE_FILE, msgspec.json.format(msgspec.json.encode(node)) + b"\n")


def node_of(settings: Settings) -> NodeFile:
    """What an `up` with these settings would leave behind, without its processes."""
    return NodeFile(
        bootstrap=settings.kafka_bootstrap,
        api=f"http://{settings.api_host}:{settings.api_port}",
        crunch_id=settings.crunch_id,
        feed_source=settings.feed_source,
        feed={name: text for name, text in environment(settings).items() if name.startswith("FEED_")},
        wallets_file=str(Path(settings.wallets_file).absolute()) if settings.wallets_file else "",
    )


def node_settings(data_dir: Path | None, kafka: str | None = None) -> tuple[Settings, NodeFile | None]:
    """Settings of the node that a command asks about, and what its `up` left.

    Kafka is: `--kafka`, else that of a `--data-dir` given by hand, else KAFKA_BOOTSTRAP, else that of the default
    data directory, else the default. Raises OperatorError, also for a --data-dir that holds no node.
    """
    settings = read_settings(os.environ, data_dir=data_dir)
    node = read_node_file(settings.data_dir)
    if data_dir is not None and node is None and kafka is None:
        raise OperatorError(
            f"{data_dir} holds no {NODE_FILE}: `coordinator up` has never run there; check --data-dir"
        )
    bootstrap = kafka
    if (
        bootstrap is None
        and node is not None
        and (data_dir is not None or not os.environ.get("KAFKA_BOOTSTRAP"))
    ):
        bootstrap = node.bootstrap
    crunch_id, environ = None, dict(os.environ)
    if node is not None and bootstrap == node.bootstrap:
        environ |= node.feed
        if not os.environ.get("WALLETS_FILE"):
            environ["WALLETS_FILE"] = node.wallets_file
        if not os.environ.get("CRUNCH_ID"):
            crunch_id = node.crunch_id
    return read_settings(environ, data_dir=data_dir, kafka_bootstrap=bootstrap, crunch_id=crunch_id), node


def print_json(value: Any) -> None:
    """JSON on stdout, indented, and nothing else there."""
    json_answer.print(msgspec.to_builtins(value))


def print_done(text: str, facts: Mapping[str, Any], *, as_json: bool) -> None:
    """What a command has done: a line for people, or the facts as JSON for programs."""
    if as_json:
        print_json(facts)
    else:
        typer.echo(text)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that speaks to Kafka, without the libraries' own words on stderr."""
    quiet_libraries()
    return asyncio.run(_closing_quietly(work))


async def _closing_quietly(work: Coroutine[Any, Any, Result]) -> Result:
    """After Ctrl-C the loop closes every open generator at once, also those that wait for each other, and writes a
    traceback for each that is busy. The command has ended by then: nobody can do anything about it.
    """

    def unless_closing(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "asyncgen" not in context:
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(unless_closing)
    return await work


def quiet_libraries() -> None:
    """A command says in one line what went wrong; what its libraries tried before that is not for people."""
    # stdout holds the result alone. Asked for at each line, since whoever calls us may give us another one to write to.
    structlog.configure(
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    stamina.instrumentation.set_on_retry_hooks([])
