"""What a shadow leaves in the data directory, each file whole or not at all: what to decide, how far, and the result.

`coordinator shadow start` and `stop` write the order, the shadow's own process all else; the report worker only reads.
So a shadow that fails has no way into the node. The files are a cache: without them a shadow begins at the first event.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from coordinator.infra.contracts.archive import ArchiveFolder
from coordinator.infra.whole_file import write_whole
from coordinator.streams.engine.divergence import Bounds
from coordinator.streams.engine.shadow import ShadowRules, SideDecisions
from coordinator.streams.log.errors import OperatorError

FOLDER = "shadow"
SILENT_MS_MAX = 60_000
"""A shadow whose process has said nothing for so long is gone, or hangs."""
FILE_BYTES_MAX = 256 * 1024 * 1024
LOOKS = (0.02, 0.05, 0.1)
T = TypeVar("T")


class ShadowOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator asked for. `contract` is the path that the rules were read from."""

    rules: ShadowRules
    contract: str
    bounds: Bounds
    started_at_ms: int
    stopped: bool = False


class ShadowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the shadow's process is, as it says every few seconds. `pid` is 0 before the first process.

    `error` is why it ended by itself, `waiting` what it waits for; `ended` says that it ended as it was told to.
    `feeds_read` and `feeds_end` are offsets in `feeds`: up to where it has decided, and the topic's end.
    """

    key: str
    pid: int
    at_ms: int
    clock: int = 0
    feeds_read: int = 0
    feeds_end: int = 0
    error: str = ""
    waiting: str = ""
    ended: bool = False


class ShadowResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided, beside what the live rules did. `clock` (event time, ms) is when the last of it was decided."""

    key: str
    clock: int
    new: SideDecisions
    live: SideDecisions


class ShadowFiles:
    """The folder `shadow` of a data directory. What is missing is None; what cannot be read raises OperatorError."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER
        self.contracts = ArchiveFolder(self.folder)
        self.log = self.folder / "shadow.log"

    def order(self) -> ShadowOrder | None:
        """What was asked for last."""
        return self._read("order.json", ShadowOrder)

    def status(self) -> ShadowStatus | None:
        """What its process said last."""
        return self._read("status.json", ShadowStatus)

    def result(self) -> ShadowResult | None:
        """What it decided last."""
        return self._read("result.json", ShadowResult)

    def result_written(self) -> tuple[int, int] | None:
        """Names the file of the result: another one, another name."""
        try:
            stat = (self.folder / "result.json").stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    def kept(self, log: str) -> bytes | None:
        """The saved state to continue from, if it was saved for this log (`OwnLog.identity`)."""
        try:
            identity, _, content = (self.folder / "state").read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        return content if identity == log.encode() else None

    def put_order(self, order: ShadowOrder) -> None:
        """Write down what is asked for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("order.json", order)

    def put_status(self, status: ShadowStatus) -> None:
        """Write down how the process is."""
        self._write("status.json", status)

    def put_result(self, result: ShadowResult) -> None:
        """Write down what is decided."""
        self._write("result.json", result)

    def put_kept(self, log: str, state_bytes: bytes) -> None:
        """Save the state to continue from: positions in this log."""
        write_whole(self.folder / "state", log.encode() + b"\n" + state_bytes)

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time is the shadow. Raises OperatorError while another one is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as lock_file:
            for pause in (*LOOKS, None):
                try:
                    fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if pause is None:
                        raise OperatorError(
                            "a shadow already runs: stop it with `coordinator shadow stop`"
                        ) from None
                    time.sleep(pause)  # somebody may only be looking (`is_held`)
            yield

    def is_held(self) -> bool:
        """Whether a process is the shadow now."""
        try:
            with (self.folder / "lock").open("rb") as lock_file:
                fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _write(self, name: str, content: object) -> None:
        write_whole(self.folder / name, msgspec.json.encode(content) + b"\n")

    def _read(self, name: str, shape: type[T]) -> T | None:
        path = self.folder / name
        try:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise OperatorError(f"{path} is too large for a file of a shadow")
            return msgspec.json.decode(path.read_bytes(), type=shape)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise OperatorError(
                f"{path} cannot be read: {error}; delete it, and start the shadow anew"
            ) from error


def why_ill(order: ShadowOrder, status: ShadowStatus | None, now_ms: int, *, has_process: bool = True) -> str:
    """Why a shadow that should run does not; "" where it runs, or should not.

    A caller that can see its lock passes `has_process`; others see only how long it has been silent.
    """
    if order.stopped:
        return ""
    if status is not None and status.error:
        return f"it failed: {status.error}. It decides nothing until `coordinator shadow start`"
    if not has_process and status is not None and status.pid:
        return (
            f"its process {status.pid} is gone. `coordinator shadow start` begins it again where it was; "
            "its log says more"
        )
    silent_ms = now_ms - (order.started_at_ms if status is None else status.at_ms)
    if silent_ms < SILENT_MS_MAX and not (status is not None and status.ended):
        return ""
    return (
        f"its process is gone or hangs: it said nothing for {max(0, silent_ms) // 1000} s. `coordinator shadow start` "
        "begins it again where it was"
    )
