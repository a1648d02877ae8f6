"""Sources by name: the built-in ones, and those of other packages.

Makes a `FeedSource` from its name and its options (texts, as in `FEED_OPT_*`), and lists all sources with their kinds
and granularities. A package adds a source by an entry point in the group `coordinator.feeds`: a callable (usually the
class itself) that takes (options, on_garbage) and returns the source. A name that is taken twice is refused, because
nobody could say which source ran. A plug-in that cannot be loaded does not hide the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import msgspec

from coordinator.streams.contract.blame import described
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedSource
from coordinator.streams.sources.binance.source import BinanceSource
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.files.candles import CandleFileSource
from coordinator.streams.sources.files.file import FileSource
from coordinator.streams.sources.files.file_rows import READING_OPTIONS, reading_of
from coordinator.streams.sources.generated import GeneratedSource
from coordinator.streams.sources.options import Options
from coordinator.streams.sources.pyth.source import PythSource
from coordinator.streams.sources.questions.source import QuestionsSource

ENTRY_POINT_GROUP = "coordinator.feeds"
BUILT_IN = "built-in"

SourceFactory = Callable[[Mapping[str, str], OnGarbage | None], FeedSource]


class SourceOffer(msgspec.Struct, frozen=True):
    """What one source delivers: kind -> granularities, as its class declares it.

    `origin` is "built-in" or the name of the distribution. `error` is "" unless the source cannot be used. `offers` is
    empty if the class declares nothing; then only a try shows what it delivers.
    """

    name: str
    about: str
    offers: Mapping[str, tuple[str, ...]]
    origin: str
    error: str = ""


def source_names() -> list[str]:
    """The names that `source_by_name` accepts now, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def known_sources() -> dict[str, SourceOffer]:
    """Name -> source, sorted. A source that cannot be loaded is included, with its `error`."""
    return {name: _offer(name) for name in source_names()}


def source_by_name(
    name: str, options: Mapping[str, str] | None = None, on_garbage: OnGarbage | None = None
) -> FeedSource:
    """The source `name`, made with its options.

    Raises OperatorError for an unknown name (it lists the known ones), a name taken twice, or a wrong option.
    """
    factory = _factory(name)
    if name in _BUILT_IN:
        return factory(options or {}, on_garbage)
    try:
        return factory(options or {}, on_garbage)
    except OperatorError:
        raise
    except Exception as error:  # code of another package: a missing option or a bug may raise anything
        raise OperatorError(
            f"FEED_SOURCE={name} cannot be made from its options (FEED_OPT_...): {described(error)}"
        ) from error


def check_source(name: str, options: Mapping[str, str]) -> None:
    """Check that the source can be made. Raises OperatorError as `source_by_name` does.

    A built-in source is made and dropped. A source of another package is not made, because that may have any effect.
    """
    factory = _factory(name)
    if name in _BUILT_IN:
        factory(options, None)


def _factory(name: str) -> SourceFactory:
    points = list(entry_points(group=ENTRY_POINT_GROUP, name=name))
    if len(points) + (name in _BUILT_IN) > 1:
        owners = ", ".join(["coordinator"] * (name in _BUILT_IN) + [point.value for point in points])
        raise OperatorError(f"feed source {name!r} comes from {owners}; uninstall all but one")
    if points:
        return _loaded(points[0])
    if name not in _BUILT_IN:
        raise OperatorError(
            f"FEED_SOURCE: feed source {name!r} is unknown; choose from {', '.join(source_names())}"
        )
    return _BUILT_IN[name][1]


def _offer(name: str) -> SourceOffer:
    points = list(entry_points(group=ENTRY_POINT_GROUP, name=name))
    dist = points[0].dist if points else None
    origin = BUILT_IN if name in _BUILT_IN else dist.name if dist is not None else points[0].value
    try:
        source: Any = _factory(name)
    except OperatorError as error:
        return SourceOffer(name, "", {}, origin, str(error))
    source = _BUILT_IN[name][0] if name in _BUILT_IN else source
    offers = {str(kind): tuple(names) for kind, names in dict(getattr(source, "offers", {})).items()}
    return SourceOffer(name, str(getattr(source, "about", "")), offers, origin)


def _loaded(point: EntryPoint) -> SourceFactory:
    try:
        factory: SourceFactory = point.load()
    except Exception as error:  # the module of another package runs here, and may raise anything
        raise OperatorError(
            f"feed source {point.name!r} ({point.value}) cannot be loaded: {error}"
        ) from error
    if not callable(factory):
        raise OperatorError(f"feed source {point.name!r} ({point.value}) is neither a class nor a function")
    return factory


def _candles(options: Mapping[str, str], on_garbage: OnGarbage | None) -> FeedSource:
    checked = Options("candles", options, ("path", *READING_OPTIONS))
    if not checked.text("path"):
        raise OperatorError("feed source 'candles' needs the option path: a file of candles")
    return CandleFileSource(checked.text("path"), on_garbage, reading_of(checked))


def _generated(options: Mapping[str, str], _on_garbage: OnGarbage | None) -> FeedSource:
    return GeneratedSource(Options("generated", options, ("seed",)).whole("seed", 1))


_BUILT_IN: Mapping[str, tuple[type, SourceFactory]] = MappingProxyType(
    {
        "binance": (BinanceSource, BinanceSource.from_options),
        "candles": (CandleFileSource, _candles),
        "file": (FileSource, FileSource.from_options),
        "generated": (GeneratedSource, _generated),
        "questions": (QuestionsSource, QuestionsSource.from_options),
        "pyth": (PythSource, PythSource.from_options),
    }
)
