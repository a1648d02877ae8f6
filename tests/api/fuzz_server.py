"""The real application behind a real socket, over a log in memory. The fuzzer of `test_fuzz` calls it.

python -m tests.api.fuzz_server PORT FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvicorn
from tests.api.conftest import ScriptedStage
from tests.explained import explainer_over
from tests.logs import busy_log, fold_into

from coordinator.api.access import Rules
from coordinator.api.app import BesideReadModels, create_app
from coordinator.api.commands import Sender
from coordinator.api.keys import KeyRing, Scope, make_entry, parse_entries
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.settings import Settings

KEY, ENTRY = make_entry("fuzz", Scope.ADMIN, "s" * 43)


async def main(port: int, folder: Path) -> None:
    log = busy_log()
    settings = Settings(data_dir=folder)
    projector = Projector(settings, open_read_models(folder, "cluster", log.crunch_id))
    fold_into(projector.folder, log)
    projector._started = True
    stage = ScriptedStage(projector, log)
    rules = Rules(KeyRing(parse_entries(ENTRY, "test")))
    sender, explainer = Sender(projector, stage, wait_seconds=0.2), explainer_over(log)
    app = create_app(settings, sender, rules=rules, beside=BesideReadModels(explainer=explainer))
    await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error")).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
