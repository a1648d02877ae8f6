"""The demo's contract: the default challenge with a placeholder key, so that its checkpoints are offered.

The key is thirty-two zero bytes in base58: valid in form, nobody's account. Without a key checkpoints are
withheld; a real crunch sets its own in `runtime_definitions/contracts.py`.
"""

from coordinator.streams.contract import CrunchContract

PLACEHOLDER_PUBKEY = "1" * 32

CONTRACT = CrunchContract(crunch_pubkey=PLACEHOLDER_PUBKEY)
