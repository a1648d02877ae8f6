"""Checks in the background that the log still gives the read models that we serve, one read model at a time.

A process of its own (`projections/folding/verify_process.py`), at the lowest priority and bounded in time, rebuilds one
read model from the first event, up to where ours stands, and compares three hashes.

A read model that differs is an alert and withholds nothing: what is paid is decided from the log, and the read model
may be rebuilt from it at any time. A log that the disk has altered withholds: what it says cannot be known any more. A
check that could not be made is neither, and says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence

import msgspec
import psutil
import structlog

from coordinator.projections.folding import verify_process
from coordinator.projections.folding.replay import VerifyResult
from coordinator.projections.views.all_views import PROJECTIONS
from coordinator.projections.views.checks import Finding
from coordinator.streams.settings import Settings, environment

NAME = "replay"
ABOUT = "The log, folded again from the first event, gives the hash of the read model we serve"
CHECK_SECONDS_MAX = 1800.0
LOWEST_PRIORITY = 19
WORDS_BYTES_MAX = 64 * 1024
_decoder = msgspec.json.Decoder(VerifyResult)
_log = structlog.get_logger()


class ReplayCheck:
    """`finding` is what is known now. Checks the read models in turn; `command` replaces ours in tests. `folded` says
    whether a read model holds anything yet: one that has read nothing has nothing to be compared.
    """

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str] | None = None,
        *,
        folded: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        self._settings = settings
        self._folded = folded
        self._command = command or (sys.executable, "-I", "-m", verify_process.__name__)
        self._verdicts: dict[str, tuple[bool, str]] = {}
        self._damaged: dict[str, str] = {}
        """Read model -> why the log could not be folded into it."""
        self._failed = ""
        self.checks = 0

    async def run(self) -> None:
        """Check the next read model every REPLAY_CHECK_SECONDS until cancelled; 0 checks nothing."""
        while self._settings.replay_check_seconds > 0:
            for name in PROJECTIONS:
                await asyncio.sleep(self._settings.replay_check_seconds)
                await self.check(name)

    async def check(self, name: str) -> None:
        """Check one read model now."""
        if not self._folded(name):
            return
        command = [*self._command, name]
        try:
            child = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **environment(self._settings)},
            )
        except OSError as error:  # no memory or no process to be had: the node continues without this check
            self._failed = f"{name} could not be checked: {error}"
            _log.warning("replay_check_failed", projection=name, reason=str(error))
            return
        try:
            with contextlib.suppress(psutil.Error):
                psutil.Process(child.pid).nice(LOWEST_PRIORITY)
            async with asyncio.timeout(CHECK_SECONDS_MAX):
                stdout, stderr = await child.communicate()
        except TimeoutError:
            self._failed = f"{name}: not done within {CHECK_SECONDS_MAX:g} s"
            return
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        self.checks += 1
        self._judge(name, child.returncode, stdout, stderr)

    def _judge(self, name: str, code: int | None, stdout: bytes, stderr: bytes) -> None:
        try:
            if code not in (verify_process.EQUAL, verify_process.DIFFERENT):
                raise ValueError(_last_words(stderr))
            result = _decoder.decode(stdout)
            verdict = None if result.log_fault else result.verdicts[0]
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            why = _last_words(stderr) or str(error)
            self._failed = f"{name} could not be checked (exit {code}): {why}"
            _log.warning("replay_check_failed", projection=name, code=code, reason=why)
            return
        self._failed = ""
        if verdict is None:
            self._damaged[name] = result.log_fault
            _log.error("log_damaged", projection=name, reason=result.log_fault)
            return
        self._damaged.pop(name, None)
        self._verdicts[name] = (verdict.equal, verdict.reason)
        if not verdict.equal:
            _log.error("replay_differs", projection=name, reason=verdict.reason)

    def finding(self) -> Finding:
        """The invariant as of the last checks."""
        damaged = [f"{name}: {reason}" for name, reason in self._damaged.items()]
        differ = {name: reason for name, (equal, reason) in self._verdicts.items() if not equal}
        right = len(self._verdicts) - len(differ)
        wrong = damaged + [
            f"{name}: {reason} (to rebuild it, stop the report worker and delete "
            f"{self._settings.data_dir / 'projections' / name})"
            for name, reason in differ.items()
        ]
        text = f"{right} of {len(PROJECTIONS)} read models checked and equal"
        if self._settings.replay_check_seconds <= 0:
            text = "not checked: REPLAY_CHECK_SECONDS is 0"
        elif not self._verdicts and not damaged:
            text = f"not checked yet: one read model every {self._settings.replay_check_seconds:g} s"
        return Finding(
            name=NAME,
            about=ABOUT,
            ok=not wrong,
            detail="; ".join([*wrong, *([self._failed] if self._failed else [])]) or text,
            counts={"equal": right, "different": len(differ), "checks": self.checks},
            checked=bool(self._verdicts or damaged),
            withholds=bool(damaged),
        )


def _last_words(words: bytes) -> str:
    return " ".join(words[-WORDS_BYTES_MAX:].decode(errors="replace").split())[-300:]
