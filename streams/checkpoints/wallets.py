"""Reads the operator's file of wallets: where models are paid, if the orchestrator does not say so, or says it wrongly.

    # one line for each model; lines that begin with # and empty lines are skipped
    model_id,wallet
    17,So11111111111111111111111111111111111111112

UTF-8 CSV with exactly this heading. Each model has one line; several models may share a wallet. A wallet is a Solana
public key that somebody can hold: base58 of 32 bytes, and no address of the chain itself. Spreadsheets rewrite ids, so
ids that look rewritten are refused (`17.0`, `1.7E+01`, invisible letters, `017` beside `17`). The file has precedence
over the wallet of the `models` topic. Pure: takes the bytes, returns a mapping, or every fault with its line.
"""

from __future__ import annotations

import csv
import re
import unicodedata

from coordinator.streams.addresses import wallet_fault

HEADING = ["model_id", "wallet"]
BYTES_MAX = 5_000_000
MODEL_ID_CHARS_MAX = 200
_REWRITTEN = re.compile(r"[+-]?(\d+\.0*|\d+(\.\d+)?[eE][+-]?\d+|\d{1,3}(,\d{3})+)", re.ASCII)
"""What a spreadsheet makes of a whole number."""


def parse_wallets(content: bytes) -> tuple[dict[str, str], list[str]]:
    """(model_id -> wallet, faults). With any fault the mapping is empty: a wrong line would pay somebody else."""
    if len(content) > BYTES_MAX:
        return {}, [f"{len(content)} bytes; at most {BYTES_MAX}"]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return {}, [f"is not UTF-8 ({error})"]
    wallets: dict[str, str] = {}
    lines: dict[str, tuple[int, str]] = {}
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
        elif before := lines.get(_plain(cells[0])):
            other = "" if before[1] == cells[0] else f" as {before[1]}"
            faults.append(f"line {number}: model {cells[0]} stands on line {before[0]} already{other}")
        else:
            wallets[cells[0]], lines[_plain(cells[0])] = cells[1], (number, cells[0])
    if not headed:
        faults.append(f"holds no line; the first must be {','.join(HEADING)}")
    return ({}, faults) if faults else (wallets, [])


def _plain(model_id: str) -> str:
    """The id in the form in which two spellings of the same id are equal, as `017` and `17`."""
    plain = unicodedata.normalize("NFKC", model_id).casefold()
    return plain.lstrip("0") or "0" if plain.isdecimal() else plain


def _fault(model_id: str, wallet: str) -> str:
    if not model_id or len(model_id) > MODEL_ID_CHARS_MAX:
        return f"the model_id is empty or longer than {MODEL_ID_CHARS_MAX} characters"
    if not model_id.isprintable():
        shown = model_id.encode("ascii", "backslashreplace").decode()[:60]
        return f"the model_id {shown} holds a character that nobody sees; type it anew"
    if _REWRITTEN.fullmatch(model_id):
        return f"the model_id {model_id} looks like a number that a spreadsheet has rewritten; make it text there"
    if fault := wallet_fault(wallet):
        return f"the wallet of model {model_id} {fault}: {wallet[:60]!r}"
    return ""
