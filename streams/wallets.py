"""The operator's file of wallets: who is paid where, when the orchestrator does not say so or says it wrongly.

    # one line for each model; lines that begin with # and empty lines are passed over
    model_id,wallet
    17,So11111111111111111111111111111111111111112

UTF-8 CSV with exactly this heading. A model stands in it once; several models may share a wallet. A wallet is a Solana
public key: base58 of 32 bytes. What stands here wins over the wallet that the `models` topic tells. Pure: text in, a
mapping or every fault with its line out.
"""

from __future__ import annotations

import csv

from coordinator.streams.emission import is_pubkey

HEADING = ["model_id", "wallet"]
BYTES_MAX = 5_000_000
MODEL_ID_CHARS_MAX = 200


def parse_wallets(content: bytes) -> tuple[dict[str, str], list[str]]:
    """(model_id -> wallet, faults). With any fault the mapping must not be used: a payment would go astray."""
    if len(content) > BYTES_MAX:
        return {}, [f"{len(content)} bytes; at most {BYTES_MAX}"]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return {}, [f"is not UTF-8 ({error})"]
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    faults: list[str] = []
    headed = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
        except csv.Error as error:
            faults.append(f"line {number}: {error}")
            continue
        if not headed:
            headed = True
            if cells != HEADING:
                faults.append(
                    f"line {number}: the heading must be {','.join(HEADING)}, not {','.join(cells)[:80]}"
                )
                break
        elif len(cells) != len(HEADING):
            faults.append(f"line {number}: {len(cells)} columns instead of {len(HEADING)}")
        elif fault := _fault(cells[0], cells[1]):
            faults.append(f"line {number}: {fault}")
        elif cells[0] in found:
            faults.append(f"line {number}: model {cells[0]} stands on line {lines[cells[0]]} already")
        else:
            found[cells[0]], lines[cells[0]] = cells[1], number
    if not headed:
        faults.append(f"holds no line; the first must be {','.join(HEADING)}")
    return ({}, faults) if faults else (found, [])


def _fault(model_id: str, wallet: str) -> str:
    if not model_id or len(model_id) > MODEL_ID_CHARS_MAX:
        return f"the model_id is empty or longer than {MODEL_ID_CHARS_MAX} characters"
    if not is_pubkey(wallet):
        return f"the wallet of model {model_id} is no public key (base58 of 32 bytes): {wallet[:60]!r}"
    return ""
