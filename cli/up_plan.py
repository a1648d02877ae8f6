"""What an `up` will do, decided before anything is started: settings, folders, ports.

Reads the environment, the options and what an earlier `up` left in the data directory. All that an operator can
get wrong is refused here, in one line, while nothing runs yet.
"""

from __future__ import annotations

import os
import socket
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from coordinator.cli.shared import DEMO_CONTRACT, NodeFile, read_node_file, time_text
from coordinator.cli.start_checks import check_start
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.kafka.security import read_security
from coordinator.infra.models.host.model_folder import left_out, read_models
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings, read_settings

DEMO_CHECKPOINT_SECONDS = 21_600
DEMO_REPLAY_DAYS = 3.0
HOST = "127.0.0.1"
KAFKA_PORT = 9092
BAD_ROWS_SHOWN = 5
CHOSEN_BY_US = ("binance", "generated")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. With `choose_feed` the settings' `feed_source` does not count: Binance is asked first.

    `remarks` are lines for people about what was decided for them. The API's port may be another one when it is taken
    before it is used, unless `api_port_named`: then the operator has chosen it.
    """

    settings: Settings
    embedded: bool
    api_port_named: bool = False
    choose_feed: bool
    models_dir: Path
    for_seconds: float | None
    summary: Path | None
    remarks: list[str]


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator asked `up` for; None where an option was left out. Times are ms.

    `replay_speed` is how many times faster than life, 0 as fast as the stages allow.
    """

    data_dir: Path | None = None
    replay_speed: float = 0.0
    replay_from_ms: int | None = None
    replay_until_ms: int | None = None
    for_seconds: float | None = None
    api_port: int | None = None
    kafka: str | None = None
    models_dir: Path | None = None
    contract: str | None = None
    feed: str | None = None
    subjects: tuple[str, ...] = ()
    kind: str | None = None
    granularity: str | None = None
    candles: Path | None = None
    columns: str | None = None
    stamp: str | None = None
    summary: Path | None = None


def make_plan(options: UpOptions) -> Plan:
    """The plan for these options. Raises OperatorError naming what to change."""
    kafka, candles = _kafka(options.kafka), options.candles
    remarks: list[str] = [] if kafka is None else [f"Kafka: {kafka}, which runs already"]
    models_dir = options.models_dir or Path(os.environ.get("MODELS_DIR") or example_models())
    models = read_models(models_dir)
    remarks += left_out(models_dir)
    if not models:
        raise OperatorError(f"no models in {models_dir}: put a folder with a main.py there")
    first = read_settings(os.environ, data_dir=options.data_dir)
    before = read_node_file(first.data_dir.absolute())
    if candles is None and options.feed is None and first.feed_candles_file:
        candles = Path(first.feed_candles_file)
    chosen = _feed(options.feed, candles, before, remarks)
    settings_told = read_settings(
        os.environ, feed_source=chosen, feed_kind=options.kind, feed_granularity=options.granularity
    )
    is_candles = settings_told.feed_kind == "candle"  # three days of every trade are no demonstration
    settings = read_settings(
        os.environ,
        data_dir=first.data_dir.absolute(),
        contract=options.contract or (None if os.environ.get("CONTRACT") else DEMO_CONTRACT),
        kafka_bootstrap=kafka or f"{HOST}:{_port_or_free(KAFKA_PORT, 'Kafka', remarks)}",
        model_runner_node_host=HOST,
        model_runner_node_port=_port_or_free(first.model_runner_node_port, "the model host", remarks),
        api_port=_api_port(options.api_port, first, remarks),
        feed_source=chosen,
        feed_subjects=options.subjects or None,
        feed_kind=options.kind,
        feed_granularity=options.granularity,
        feed_candles_file="" if candles is None else str(candles.absolute()),
        feed_columns=options.columns,
        feed_stamp=options.stamp,
        replay_from_ms=options.replay_from_ms,
        replay_until_ms=options.replay_until_ms,
        replay_speed=options.replay_speed,
        replay_days=None if os.environ.get("REPLAY_DAYS") else DEMO_REPLAY_DAYS * is_candles,
        replay_models_min=None if os.environ.get("REPLAY_MODELS_MIN") else len(models),
        checkpoint_interval_seconds=_unless_set("CHECKPOINT_INTERVAL_SECONDS", DEMO_CHECKPOINT_SECONDS),
        settle_rehearsals=_unless_set("SETTLE_REHEARSALS", True),
    )
    # A source that is still to be chosen is a built-in one. A kind that the first one does not deliver exists nowhere.
    check_start(settings, os.environ, source=chosen or CHOSEN_BY_US[0])
    if candles is not None:
        remarks += looked_through(settings)
    return Plan(
        settings=settings,
        embedded=kafka is None,
        api_port_named=options.api_port is not None or bool(os.environ.get("API_PORT")),
        choose_feed=chosen is None,
        models_dir=models_dir.absolute(),
        for_seconds=options.for_seconds,
        summary=None if options.summary is None else options.summary.absolute(),
        remarks=remarks,
    )


def _kafka(named: str | None) -> str | None:
    """The address of a Kafka that runs already; None: one is started here."""
    if named is not None and ":" not in named:
        raise OperatorError(f"--kafka {named}: give HOST:PORT, e.g. 127.0.0.1:9092")
    kafka = named or os.environ.get("KAFKA_BOOTSTRAP") or None
    if kafka is None and read_security(os.environ).protocol != "PLAINTEXT":
        raise OperatorError(
            f"KAFKA_SECURITY_PROTOCOL={os.environ['KAFKA_SECURITY_PROTOCOL']} is for a Kafka that runs already, but "
            "`up` starts one that uses plain text on this machine: name your Kafka with --kafka HOST:PORT, or unset "
            "the variable"
        )
    return kafka


def example_models() -> Path:
    """The folder of the example models that come with the package."""
    return Path(str(files("coordinator.scaffolds.challenge") / "examples"))


def port_is_free(port: int) -> bool:
    """Whether 127.0.0.1:port can be listened on now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no listener
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _feed(feed: str | None, candles: Path | None, before: NodeFile | None, remarks: list[str]) -> str | None:
    """The source, or None when it is to be chosen. A log that began with one market goes on with it."""
    if candles is not None:
        return "candles"
    if feed is not None:
        from coordinator.streams.sources.catalog import source_names  # noqa: PLC0415

        if feed not in source_names() or feed == "candles":
            names_known = ", ".join(name for name in source_names() if name != "candles")
            raise OperatorError(
                f"--feed {feed} is unknown; choose from {names_known}, or give a file with --candles FILE"
            )
        return feed
    if os.environ.get("FEED_SOURCE"):
        return os.environ["FEED_SOURCE"]
    if before is not None and before.feed_chosen:
        remarks.append(
            f"feed: {before.feed_source}, as before in this data directory (another: coordinator contract apply)"
        )
        return before.feed_source
    return None


def looked_through(settings: Settings) -> list[str]:
    """What the file of candles will come to, in lines for people. Raises OperatorError for one that cannot be used."""
    from coordinator.streams.ports import Subscription  # noqa: PLC0415
    from coordinator.streams.sources.files.candles import candle_file, path_for, two_subjects  # noqa: PLC0415
    from coordinator.streams.sources.files.file_records import BadRow, keep_first  # noqa: PLC0415
    from coordinator.streams.sources.files.file_rows import make_reading  # noqa: PLC0415

    reading = make_reading(settings.feed_columns, settings.feed_stamp, any_price=settings.feed_any_price)
    remarks: list[str] = []
    served: dict[Path, str] = {}
    for subject in settings.feed_subjects:
        path = path_for(settings.feed_candles_file, subject)
        subscription = Subscription("candles", subject, "candle", settings.feed_granularity)
        bad: list[BadRow] = []
        file, says_whose = candle_file(path, subscription, keep_first(bad, BAD_ROWS_SHOWN), reading)
        if not says_whose and served.setdefault(path, subject) != subject:
            raise two_subjects(path, [served[path], subject])
        account = file.account
        last_at = account.last_at or 0
        remarks.append(
            f"{path.name}: {subject} {settings.feed_granularity}, {account.text()}; "
            f"{time_text(account.first_at)} to {time_text(last_at)}"
        )
        remarks += [f"  refused: {row.said(path.name)}" for row in bad]
        remarks += [f"  is this price right? {leap}" for leap in account.leaps[:BAD_ROWS_SHOWN]]
        if settings.replay_from_ms is not None and last_at < settings.replay_from_ms:
            raise OperatorError(f"--from is after the last candle of {path}, {time_text(last_at)}")
        until = settings.replay_until_ms
        if until is not None and account.first_at is not None and until < account.first_at:
            raise OperatorError(
                f"--until is before the first candle of {path}, {time_text(account.first_at)}"
            )
    return remarks


def _api_port(asked: int | None, settings: Settings, remarks: list[str]) -> int:
    if asked is None and not os.environ.get("API_PORT"):
        return _port_or_free(settings.api_port, "the API", remarks)
    port = settings.api_port if asked is None else asked
    if not port_is_free(port):
        raise OperatorError(f"port {port} on {HOST} is taken by another process; choose another with --port")
    return port


def _port_or_free(port: int, whose: str, remarks: list[str]) -> int:
    if port_is_free(port):
        return port
    other = free_ports(1)[0]
    remarks.append(f"port {port} is taken; {whose} uses {other}")
    return other


def _unless_set(variable: str, value: Any) -> Any:
    return None if os.environ.get(variable) else value
