"""The contract of `coordinator up`: the default challenge, with a valid placeholder for the crunch's public key.

Without a key every checkpoint is withheld, because nobody could be paid. To show a newcomer a whole checkpoint, the
demo on replayed time uses this placeholder. It is the key of no crunch.
"""

from __future__ import annotations

from coordinator.streams.addresses import SAMPLE_PUBKEY
from coordinator.streams.contract import CrunchContract

CONTRACT = CrunchContract(crunch_pubkey=SAMPLE_PUBKEY)
