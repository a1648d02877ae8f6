"""The page of every metric: what `/metrics` of a node has with everything switched on."""

from __future__ import annotations

import asyncio
from typing import Any

from documentation.markdown import MADE, code, plain, table
from documentation.whole_app import whole_app

HEAD = f"""\
# Metrics

`GET /metrics` of the report worker, in Prometheus' text format. Counters end in `_total`, durations are in seconds. A
part that is switched off (`CHAIN`, `WEBHOOK_URL`) has no metrics.

{MADE}"""


def families() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """`(name, type, help, labels)` of each, as Prometheus names it."""
    with whole_app() as (_, registry):
        labels = {
            name: tuple(getattr(collector, "_labelnames", ()))
            for collector, names in registry._collector_to_names.items()  # noqa: SLF001 - the library tells no other way
            for name in names
        }
        collected = asyncio.run(_collected(registry))
    return sorted(_family(family, labels) for family in collected)


async def _collected(registry: Any) -> list[Any]:
    return list(registry.collect())  # some of it asks the running loop for its time


def _family(family: Any, labels: dict[str, tuple[str, ...]]) -> tuple[str, str, str, tuple[str, ...]]:
    named = tuple(getattr(family, "_labelnames", ())) or labels.get(family.name, ())
    if not named and family.samples:
        named = tuple(sorted({label for sample in family.samples for label in sample.labels} - {"le"}))
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return name, family.type, family.documentation, named


def page() -> str:
    """The whole page."""
    rows = [
        (code(name), kind, ", ".join(map(code, labels)) or "-", plain(about))
        for name, kind, about, labels in families()
    ]
    return "\n".join([HEAD, table(("metric", "type", "labels", "meaning"), rows)])
