"""The console script's first code. Until a command begins its work, Ctrl-C ends the process here and now.

Imports take a second on a small machine, and a KeyboardInterrupt within one may be swallowed by a library, or end in a
traceback. Nothing has been done by then, so that nothing needs to be tidied up.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

EXIT_INTERRUPTED = 130
TEXT = "stopped by Ctrl-C: nothing was begun"


def main() -> None:
    """The console script's entry point."""
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # unless the shell started this job in the background
        signal.signal(signal.SIGINT, end_now)
    from coordinator.cli.main import main as run  # noqa: PLC0415 - this is what may be interrupted

    run()


def work_begins() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, as ever."""
    if signal.getsignal(signal.SIGINT) is end_now:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_now(_signal: int, _frame: Any) -> NoReturn:
    """End the process with a line. What other code has buffered is not written, and no lock is waited for."""
    os.write(2, f"{TEXT}\n".encode())
    if "--json" in sys.argv:
        os.write(1, f'{{"error": "{TEXT}", "exit_code": {EXIT_INTERRUPTED}}}\n'.encode())
    os._exit(EXIT_INTERRUPTED)
