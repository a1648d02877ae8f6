"""The contract of `coordinator up`: the default challenge, with a valid placeholder for the crunch's key.

Without a key checkpoints are withheld, rightly: nobody could be paid. A newcomer should see a whole checkpoint,
so the node that runs on replayed time uses this key. It belongs to no crunch.
"""

from __future__ import annotations

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.emission import SAMPLE_PUBKEY

CONTRACT = CrunchContract(crunch_pubkey=SAMPLE_PUBKEY)
