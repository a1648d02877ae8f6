"""HEAD wherever GET: the answer's head alone (RFC 9110, 9.3.2). Monitors ask so, and take a 405 for an outage."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadRequests:
    """The layer. A response that would be streamed learns that its client has left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the routes for GET, and send no body."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        left = asyncio.Event()
        asked = False

        async def receive_nothing() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send_head(message: Message) -> None:
            if left.is_set():
                return
            if message["type"] == "http.response.start":
                await send(message)
                long = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                if long:
                    return  # its body comes at once, and what the route does with its end is its own
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            left.set()

        asked_for = {
            **scope,
            "method": "GET",
        }  # a copy: the server sends no body as long as its own says HEAD
        await self._app(asked_for, receive_nothing, send_head)
        if "route" in asked_for:
            scope["route"] = asked_for["route"]
