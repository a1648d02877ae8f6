"""Starts the process of a shadow: at once for `coordinator shadow start`, and with the node for `coordinator up`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coordinator.infra.shadow_files import ShadowFiles


def spawn_shadow(files: ShadowFiles, kafka: str | None, data_dir: Path | None) -> subprocess.Popen[bytes]:
    """Start `coordinator shadow run` as a process of its own, which outlives this one."""
    options = [*(("--kafka", kafka) if kafka else ()), *(("--data-dir", str(data_dir)) if data_dir else ())]
    with files.log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "coordinator.cli.main", "shadow", "run", *options],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def resume_shadow(data_dir: Path) -> subprocess.Popen[bytes] | None:
    """Start the process of a shadow that is on and has none, after a reboot say; None where there is nothing to start.

    Raises OperatorError for an order that cannot be read.
    """
    files = ShadowFiles(data_dir)
    order = files.order()
    if order is None or order.stopped or files.is_held():
        return None
    return spawn_shadow(files, None, data_dir)
