"""Checks before a process starts what it will use: files and folders that settings name, the source's options, keys,
certificates.

The form of a setting is checked where it is read (`streams/settings.py`); here is what needs the disk or a library. A
worker looks at what it uses itself: in a deployment of containers the others have no such file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from coordinator.infra.kafka.security import client_options, read_security
from coordinator.infra.operator_files import check_file, check_files, check_folder
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.topology import WORKERS

TLS_FILES = ("ca.crt", "tls.crt", "tls.key")
GATEWAY_FILES = ("key.pem",)


def check_start(
    settings: Settings,
    environ: Mapping[str, str],
    workers: Collection[str] = WORKERS,
    source: str | None = None,
) -> None:
    """Check everything that these workers will use. `source` stands for FEED_SOURCE where none is chosen.

    Raises OperatorError that begins with the variable, and says what it may be.
    """
    client_options(read_security(environ))
    check_folder("DATA_DIR", settings.data_dir, may_be_made=True)
    if settings.health_file:
        check_folder("HEALTH_FILE", Path(settings.health_file).absolute().parent, what="the folder of ")
    if "feed" in workers:
        _feed(settings, environ, source or settings.feed_source)
    if "predict" in workers:
        check_files("SECURE_CERT_DIR", settings.secure_cert_dir, TLS_FILES)
        check_files("GATEWAY_CERT_DIR", settings.gateway_cert_dir, GATEWAY_FILES)
    if "report" in workers:
        _report(settings)


def _feed(settings: Settings, environ: Mapping[str, str], source: str) -> None:
    from coordinator.streams.net.outbound import check_ways_out  # noqa: PLC0415 - brings the clients
    from coordinator.streams.sources.catalog import check_source  # noqa: PLC0415
    from coordinator.streams.sources.options import options_from  # noqa: PLC0415

    if settings.feed_candles_file:
        from coordinator.streams.sources.files.candles import path_for  # noqa: PLC0415
        from coordinator.streams.sources.files.file_columns import parse_mapping  # noqa: PLC0415

        parse_mapping(settings.feed_columns, "FEED_COLUMNS")
        for subject in settings.feed_subjects:
            check_file("FEED_CANDLES_FILE (--candles)", path_for(settings.feed_candles_file, subject))
    elif source != "generated":
        check_source(source, options_from(environ, source))
    _check_offered(settings, "candles" if settings.feed_candles_file else source)
    check_ways_out(environ)


def _report(settings: Settings) -> None:
    from coordinator.api.keys import read_key_ring  # noqa: PLC0415

    if settings.wallets_file:
        check_file("WALLETS_FILE", Path(settings.wallets_file))
    if settings.api_routes_dir:
        check_folder("API_ROUTES_DIR", Path(settings.api_routes_dir))
    read_key_ring(settings.api_keys, settings.api_keys_file)


def _check_offered(settings: Settings, source: str) -> None:
    """Refuse a kind or granularity that the source does not deliver."""
    from coordinator.streams.sources.catalog import known_sources  # noqa: PLC0415

    source_info = known_sources().get(source)
    if source_info is None or not source_info.offers:
        return
    if settings.feed_kind not in source_info.offers:
        raise OperatorError(
            f"FEED_KIND: {source_info.name} delivers no {settings.feed_kind}; it has {', '.join(source_info.offers)}"
        )
    names = source_info.offers[settings.feed_kind]
    if settings.feed_granularity not in names:
        raise OperatorError(
            f"FEED_GRANULARITY: {source_info.name} delivers no {settings.feed_kind} of {settings.feed_granularity}; "
            f"it has {', '.join(names)}"
        )
