"""Expensive requests take turns: each client has one running at a time, and none waits for another client's."""

from __future__ import annotations

import asyncio
import threading

import pytest
from fastapi import HTTPException, Request
from fastapi.responses import Response

from coordinator.api import turns as api_turns
from coordinator.api.turns import Turns

REQUEST = Request({"type": "http", "client": ("10.0.0.1", 1)})


async def test_a_request_that_hangs_delays_no_other_client_and_has_no_second_meanwhile():
    turns, go_on = Turns("test", 2), threading.Event()

    def hang() -> Response:
        go_on.wait()
        return Response(b"slow")

    hanging = asyncio.create_task(turns.run(REQUEST, hang, "slow"))
    await asyncio.sleep(0)
    with pytest.raises(HTTPException) as refused:
        await turns.run(REQUEST, lambda: Response(b"second"), "slow")
    assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "10"})
    for asker in ("ada", "bob", "ada"):
        assert (await turns.run(REQUEST, lambda: Response(b"quick"), asker)).body == b"quick"
    go_on.set()
    assert (await hanging).body == b"slow"
    assert (await turns.run(REQUEST, lambda: Response(b"again"), "slow")).body == b"again"


async def test_if_too_many_wait_the_next_must_come_again(monkeypatch):
    monkeypatch.setattr(api_turns, "WAITING_MAX", 3)
    turns, go_on = Turns("test", 2), threading.Event()

    def hang() -> Response:
        go_on.wait()
        return Response()

    waiting = [asyncio.create_task(turns.run(REQUEST, hang, f"asker {n}")) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(HTTPException) as refused:
        await turns.run(REQUEST, Response, "another")
    assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "1"})
    go_on.set()
    await asyncio.gather(*waiting)
    assert (await turns.run(REQUEST, Response, "another")).status_code == 200
