"""Sources by their name: the built-in ones, and those that other packages bring.

Reads a name and its options (text, as `FEED_OPT_*` gives them), gives a `FeedSource`. A package brings a
source by an entry point in the group `coordinator.feeds`: a callable that takes (options, on_garbage) and
returns the source. A name that is taken twice is refused, since nobody could say which one ran.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from coordinator.streams.errors import OperatorError
from coordinator.streams.ports import FeedSource
from coordinator.streams.sources.binance import REST_URL, WEBSOCKET_URL, BinanceSource
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.candles import CandleFileSource
from coordinator.streams.sources.generated import GeneratedSource

ENTRY_POINT_GROUP = "coordinator.feeds"

SourceFactory = Callable[[Mapping[str, str], OnGarbage | None], FeedSource]


def source_names() -> list[str]:
    """Names that `source_by_name` knows now, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def source_by_name(
    name: str, options: Mapping[str, str] | None = None, on_garbage: OnGarbage | None = None
) -> FeedSource:
    """The source `name`, made with its options.

    Raises OperatorError for an unknown name (with the known ones), a name taken twice, a wrong option.
    """
    factories = [_BUILT_IN[name]] if name in _BUILT_IN else []
    points = list(entry_points(group=ENTRY_POINT_GROUP, name=name))
    if len(factories) + len(points) > 1:
        owners = ", ".join(["coordinator"] * len(factories) + [point.value for point in points])
        raise OperatorError(f"feed source {name!r} is given by {owners}; uninstall all but one")
    if points:
        factories = [_loaded(points[0])]
    if not factories:
        raise OperatorError(f"feed source {name!r} is unknown; known are {', '.join(source_names())}")
    return factories[0](options or {}, on_garbage)


def _loaded(point: EntryPoint) -> SourceFactory:
    try:
        factory: SourceFactory = point.load()
    except (ImportError, AttributeError) as error:
        raise OperatorError(
            f"feed source {point.name!r} ({point.value}) cannot be loaded: {error}"
        ) from error
    return factory


def _binance(options: Mapping[str, str], on_garbage: OnGarbage | None) -> FeedSource:
    _refuse_unknown("binance", options, ("rest_url", "websocket_url"))
    return BinanceSource(
        options.get("rest_url", REST_URL), options.get("websocket_url", WEBSOCKET_URL), on_garbage
    )


def _candles(options: Mapping[str, str], on_garbage: OnGarbage | None) -> FeedSource:
    _refuse_unknown("candles", options, ("path",))
    if "path" not in options:
        raise OperatorError("feed source 'candles' needs the option path: a file of candles")
    return CandleFileSource(options["path"], on_garbage)


def _generated(options: Mapping[str, str], _on_garbage: OnGarbage | None) -> FeedSource:
    _refuse_unknown("generated", options, ("seed",))
    seed = options.get("seed", "1")
    try:
        return GeneratedSource(int(seed))
    except ValueError:
        raise OperatorError(f"feed source 'generated': seed is {seed!r}; give a whole number") from None


def _refuse_unknown(name: str, options: Mapping[str, str], known: Collection[str]) -> None:
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise OperatorError(f"feed source {name!r} has no option {unknown[0]}; it has {', '.join(known)}")


_BUILT_IN: Mapping[str, SourceFactory] = MappingProxyType(
    {"binance": _binance, "candles": _candles, "generated": _generated}
)
