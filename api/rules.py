"""`GET /rules`: the rules in force, in words, made of the contract that the node runs.

Plain HTML from this process alone, as `/docs` is. The contract is that of the terms in the log; its module is run by a
process of its own (`infra/rules.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from threading import Lock

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from coordinator.api.plain_page import plain_page
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.times import zulu
from coordinator.streams.contract.rules import as_html
from coordinator.streams.contract.rules.text_parts import Section
from coordinator.streams.events import Terms
from coordinator.streams.log.errors import WorldError

Making = Callable[[Terms], list[Section]]
"""The sections of the rules. Raises WorldError where the contract cannot be had."""


def router(crunch_id: str, making: Making) -> APIRouter:
    """The route; it is a page, and not in the API's document. `making` is asked once for each terms."""
    routes = our_router()
    shown: list[tuple[Terms, str]] = []
    one_at_a_time = Lock()

    @routes.get("/rules", response_class=HTMLResponse, include_in_schema=False)
    def rules(read: Reading) -> HTMLResponse:
        """The page. A contract that cannot be had is 503, with the reason."""
        terms = read.leaderboard.terms_now
        if terms is None:
            raise HTTPException(404, "there are no rules yet: the node has fed nothing so far")
        with one_at_a_time:
            if not shown or shown[0][0] != terms:
                try:
                    sections = making(terms)
                except WorldError as error:
                    raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
                shown[:] = [(terms, page(crunch_id, as_html(about(terms), sections)))]
            return HTMLResponse(shown[0][1])

    return routes


def about(terms: Terms) -> str:
    """Which contract these rules are made of."""
    since = f" It holds since {zulu(terms.effective_from)}." if terms.effective_from > 0 else ""
    return f"Made from the contract `{terms.contract_hash[:12]}`, which the node runs.{since}"


def page(crunch_id: str, rules: str) -> str:
    """The whole page around the rules, which are HTML already."""
    title = f"Rules of {crunch_id}"
    main = f"<h1>{escape(title)}</h1>\n{rules}"
    return plain_page(title, crunch_id, "Pages", '<a href="/">Leaderboard</a>', main)
