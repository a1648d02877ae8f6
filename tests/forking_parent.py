"""The process that tests fork from (`forked.py`): it has imported what a worker needs, and nothing of a test."""

from __future__ import annotations

import runpy
import sys

from typer.main import get_command

from coordinator.cli import preloaded
from coordinator.cli.main import app
from coordinator.infra.processes.forking import forked

preloaded.import_all()
command = get_command(app)
if (fork := forked(sys.argv)) is not None:
    request, _ = fork
    script = request.get("script", "")
    sys.argv = [script or "coordinator", *request["arguments"]]
    if script:
        runpy.run_path(script, run_name="__main__")
    else:
        command()
