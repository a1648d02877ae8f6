"""A name in a query that its route does not know is 422: a misspelt `strat=` would else answer for all times."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

WIDGET_NAMES = frozenset({"projectIds", "start", "end"})
"""The web app's widgets send these to every address that they are pointed at."""
SCOPE_CHARS_MAX = 300
ScopeName = Annotated[
    str, Query(max_length=SCOPE_CHARS_MAX, description="SUBJECT/SCOPE_KEY", examples=["BTCUSDT/60s"])
]
PAST_NAMES = frozenset({"as_of", "as_of_offsets"})
"""What these mean, and where, `as_of.py` says."""


async def known_names(request: Request) -> None:
    """A dependency of every built-in route. Raises HTTPException 422 that names what is unknown, and what is near."""
    route = request.scope.get("route")
    if isinstance(route, APIRoute) and route.path.startswith(
        "/reports/"
    ):  # probes and scrapers add what they like
        check_names(request.query_params.keys(), names_of(route.dependant))


def our_router() -> APIRouter:
    """A router whose routes ask `known_names` first."""
    return APIRouter(dependencies=[Depends(known_names)])


def check_names(names: Iterable[str], allowed: frozenset[str]) -> None:
    """Raises HTTPException 422 for a name that is neither known nor known to all."""
    for name in names:
        if name not in allowed and name not in WIDGET_NAMES and name not in PAST_NAMES:
            near = get_close_matches(name[:40], sorted(allowed | WIDGET_NAMES | PAST_NAMES), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise HTTPException(422, f"query: {name[:40]!r} is not a parameter of this route{hint}")


def names_of(dependant: Dependant) -> frozenset[str]:
    """The query's names that a route and what it depends on declare."""
    own = {query_param.alias for query_param in dependant.query_params}
    return frozenset(own.union(*(names_of(dependency) for dependency in dependant.dependencies)))
