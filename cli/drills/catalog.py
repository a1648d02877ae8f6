"""Every drill by its name."""

from __future__ import annotations

from coordinator.cli.drills import (
    feed_faults,
    log_faults,
    machine_faults,
    model_faults,
    process_faults,
    settling_faults,
)
from coordinator.cli.drills.drill import Drill

GROUPS = (
    feed_faults,
    process_faults,
    model_faults,
    settling_faults,
    log_faults,
    machine_faults,
)
DRILLS: dict[str, Drill] = {drill.name: drill for group in GROUPS for drill in group.DRILLS}
