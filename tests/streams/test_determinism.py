"""The log is the same whatever Python's hash seed is, and whichever process wrote it.

Sets and dicts of strings have another order in every process. A small run, from candles to checkpoints, is made in
separate processes with different PYTHONHASHSEEDs. The bytes of every topic must be equal.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from tests.streams.test_crash_chain import market
from tests.waiting import LIMIT_SECONDS

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json, sys
sys.path.insert(0, {root!r})
from tests.streams.test_determinism import digests
print(json.dumps(digests()))
"""


def digests() -> dict[str, str]:
    """sha256 and length of all records, per topic."""
    log = market(6, 60)
    return {
        topic: hashlib.sha256(b"".join(b"%d:%s" % (len(record), record) for record in records)).hexdigest()
        for topic, records in sorted(log.topics.items())
    }


def test_processes_with_different_hash_seeds_write_the_same_bytes():
    seen = []
    for seed in ("0", "1", "4242"):
        path = ":".join(entry for entry in sys.path if entry)
        done = subprocess.run(
            [sys.executable, "-c", CODE.format(root=str(ROOT))],
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
        )
        assert done.returncode == 0, done.stderr
        seen.append(json.loads(done.stdout))
    assert {"feeds", "inputs", "predictions", "scores", "snapshots", "checkpoints"} <= set(seen[0])
    assert seen[0] == seen[1] == seen[2] == digests()
