"""Tells a participant which rule refused something, in plain words beside the exception.

Python says `[Errno 13] Permission denied`. Only the host knows which of its rules that was, and what to do instead.
The rule is found by where an exception comes from, never by its text. Only the standard library: a model's process
must stay small.
"""

from __future__ import annotations

import errno
import traceback

PROCESSES = (
    "a model cannot share memory between processes (multiprocessing's Pool, Queue and Lock, workers of joblib and of a "
    "DataLoader): use threads, or work in one process (n_jobs=1, num_workers=0)"
)
NETWORK = "a model has no network: bring what it needs in its folder"
FILES = "a model reads its own folder and installed libraries, and writes to its own folder alone"
BELOW_MULTIPROCESSING = ("multiprocessing", "torch.multiprocessing", "loky", "joblib.externals.loky")
NETWORK_MODULES = ("socket", "ssl", "asyncio", "http", "urllib", "urllib3", "requests", "httpx", "httpcore")
REFUSED = (errno.EPERM, errno.EACCES)
FAILED = (*REFUSED, errno.ENOSYS, errno.ENOENT, errno.EROFS)
"""What sharing memory fails with, where a system has no place for it either."""


def told(error: BaseException) -> str:
    """`Type: text`, and the rule if the confinement refused it."""
    rule = rule_of(error)
    return f"{type(error).__name__}: {error}" + (f" ({rule})" if rule else "")


def rule_of(error: BaseException) -> str:
    """The rule that an exception, or one that it came from, met; empty where none did."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError) and (rule := _rule(cause)):
            return rule
        cause = cause.__cause__ or cause.__context__
    return ""


def _rule(error: OSError) -> str:
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_in = frames[-1] if frames else ""
    if _is_of(raised_in, BELOW_MULTIPROCESSING) and error.errno in FAILED:
        return PROCESSES
    if error.errno not in REFUSED:
        return ""
    if error.filename is not None:
        return FILES
    return NETWORK if any(_is_of(frame, NETWORK_MODULES) for frame in frames) else ""


def _is_of(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
