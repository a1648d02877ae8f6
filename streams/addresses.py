"""Addresses and transaction hashes of Solana, by their form.

Nothing of the contract is imported here: the model host checks the wallets of models, and a contract takes megabytes.
"""

from __future__ import annotations

import base58

PUBKEY_BYTES = 32
TX_HASH_BYTES = 64
TX_HASH_CHARS_MAX = 90
SAMPLE_PUBKEY = "1" * 32
"""Thirty-two zero bytes in base58: valid in form, nobody's account."""


def base58_bytes(text: str) -> int | None:
    """How many bytes a base58 text encodes, or None if it is not base58."""
    if text != text.strip():
        return None  # the library drops blanks at the end; what is hashed and paid to is the text with them
    try:
        return len(base58.b58decode(text))
    except ValueError:
        return None


def is_pubkey(text: str | None) -> bool:
    """Base58 of 32 bytes: what a Solana public key is."""
    return bool(text) and len(text or "") <= 2 * PUBKEY_BYTES and base58_bytes(text or "") == PUBKEY_BYTES


NOBODYS_ADDRESSES = frozenset(
    (
        "1" * PUBKEY_BYTES,
        "1nc1nerator11111111111111111111111111111111",
        "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
        "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
        "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
        "ComputeBudget111111111111111111111111111111",
        "Stake11111111111111111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
        "Config1111111111111111111111111111111111111",
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
    )
)
"""The system program (32 ones), where money is burnt, and programs that nobody can spend for."""


def wallet_fault(text: str | None) -> str | None:
    """Why nobody can be paid at this address, as words after "the wallet", or None for one that may be a person's."""
    if not is_pubkey(text):
        return "is no public key (base58 of 32 bytes)"
    if text in NOBODYS_ADDRESSES or (text or "").startswith("Sysvar"):
        return "is an address of Solana itself, not a person's: what is paid there is lost"
    return None


def is_tx_hash(text: str) -> bool:
    """Base58 of 64 bytes: what a Solana transaction's hash is. It has 88 letters at most."""
    return len(text) <= TX_HASH_CHARS_MAX and base58_bytes(text) == TX_HASH_BYTES
