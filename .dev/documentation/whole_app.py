"""The report API with everything switched on, over an empty node in a temporary folder: what pages are made of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from coordinator.api.app import create_app
from coordinator.api.commands import Sender
from coordinator.api.monitor import make_monitor
from coordinator.api.prometheus import Measured
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.settings import Settings


class NoPort:
    """Nobody listens: no command is sent while a page is made."""

    async def send(self, command: Any) -> int:
        """Never called. Raises AssertionError."""
        raise AssertionError(command)


@contextmanager
def whole_app() -> Iterator[tuple[FastAPI, Any]]:
    """The application and its registry of metrics; it is not served, and reads no Kafka."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            data_dir=Path(folder), chain="fake", settle_rehearsals=True, webhook_url="http://127.0.0.1:9"
        )
        read = open_read_models(settings.data_dir, "cluster", settings.crunch_id)
        try:
            projector, port = Projector(settings, read), NoPort()
            app = create_app(settings, Sender(projector, port), monitor=make_monitor(projector, port))
            yield app, registry_of(app)
        finally:
            read.close()


def registry_of(app: FastAPI) -> Any:
    """The registry behind `/metrics`."""
    layers: Any = app.user_middleware
    return next(layer.args[0].registry for layer in layers if layer.cls is Measured)
