"""Every drill by its name."""

from __future__ import annotations

from coordinator.cli.drills import (
    clock_faults,
    contract_faults,
    disk_faults,
    feed_faults,
    kafka_faults,
    key_faults,
    log_faults,
    machine_faults,
    model_faults,
    process_faults,
    settling_faults,
    topic_faults,
)
from coordinator.cli.drills.drill import Drill

GROUPS = (
    feed_faults,
    process_faults,
    kafka_faults,
    model_faults,
    settling_faults,
    log_faults,
    topic_faults,
    contract_faults,
    key_faults,
    disk_faults,
    clock_faults,
    machine_faults,
)
DRILLS: dict[str, Drill] = {drill.name: drill for group in GROUPS for drill in group.DRILLS}
