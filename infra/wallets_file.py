"""Reads the operator's file of wallets (WALLETS_FILE), again whenever it has changed on disk.

A file that is missing or wrong is an OperatorError at every asking: paying by half a mapping, or by yesterday's, would
send money to the wrong place without a word.
"""

from __future__ import annotations

from pathlib import Path

from coordinator.streams.checkpoints.wallets import BYTES_MAX, parse_wallets
from coordinator.streams.log.errors import OperatorError

FAULTS_NAMED_MAX = 5


class WalletsFile:
    """`lookup()` gives model_id -> wallet; an empty path gives an empty mapping."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._read: tuple[int, int] | None = None
        self._wallets: dict[str, str] = {}

    def lookup(self) -> dict[str, str]:
        """The mapping as the file stands now. Raises OperatorError naming the file, the line and the fault."""
        if self._path is None:
            return {}
        try:
            stat = self._path.stat()
            now = (stat.st_mtime_ns, stat.st_size)
            if now != self._read:
                self._read = None
                with self._path.open("rb") as file:
                    self._wallets = checked(str(self._path), file.read(BYTES_MAX + 1))
                self._read = now
        except OSError as error:
            raise OperatorError(
                f"WALLETS_FILE {self._path} cannot be read: {error.strerror or error}"
            ) from error
        return self._wallets


def checked(name: str, content: bytes) -> dict[str, str]:
    """The mapping in `content`. Raises OperatorError with the first faults."""
    wallets, faults = parse_wallets(content)
    if faults:
        more = f"; and {len(faults) - FAULTS_NAMED_MAX} more" if len(faults) > FAULTS_NAMED_MAX else ""
        raise OperatorError(f"{name}: {'; '.join(faults[:FAULTS_NAMED_MAX])}{more}")
    return wallets
