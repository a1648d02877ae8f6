"""The process that tests fork from (`forked.py`): it has imported what a worker needs, and nothing of a test."""

from __future__ import annotations

import os
import runpy
import sys
import time
import warnings
from pathlib import Path

from typer.main import get_command

from coordinator.cli import preloaded
from coordinator.cli.main import app
from coordinator.infra.contracts import trial
from coordinator.infra.processes.forking import forked

sys.path.append(root := str(Path(__file__).resolve().parents[1]))
from tests import forked_modules
from tests.forked import ADDRESS

sys.path.remove(root)
preloaded.import_all()
command = get_command(app)
if (fork := forked(sys.argv)) is not None:
    request, _ = fork
    script, module = request.get("script", ""), request.get("module", "")
    sys.argv = [script or module or "coordinator", *request["arguments"]]
    time.tzset()  # TZ of the request
    if script:
        runpy.run_path(script, run_name="__main__")
    elif module:
        warnings.simplefilter("ignore", RuntimeWarning)  # it is imported already, and runs anew as `__main__`
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        if ADDRESS in os.environ:  # the two processes of a trial are forks as well
            trial.subprocess = forked_modules
        command()
