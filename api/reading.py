"""Which read models a question is answered from: the one place where every reading route gets them.

Routes take `read: Reading` and know nothing of how it came to be; the application keeps the live ones in its state.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from coordinator.projections.registry import ReadModels


async def reading(request: Request) -> ReadModels:
    """The read models that this request is answered from."""
    live: ReadModels = request.app.state.read
    return live


Reading = Annotated[ReadModels, Depends(reading)]
