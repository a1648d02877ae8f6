"""The process that the processes of a test run are forked from: it has collected the tests, and so imported all of them.

pytest-xdist would start each process anew: each imports all files of tests and what they test, and in a fresh checkout
rewrites their asserts besides. A fork collects once more, but finds the modules imported.
All forks share one hash seed, so one run tries one order of sets; the next run has another.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from coordinator.infra.processes.forking import forked

if __name__ == "__main__":
    if "--" in sys.argv:
        split = sys.argv.index("--")
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            collected = pytest.main(["--collect-only", "-qq", "-n", "0", *sys.argv[split + 1 :]])
        if collected != pytest.ExitCode.OK:
            # pytest leaves half of a module that failed to import. A fork would find it imported, without a test and
            # without an error. So this begins again without collecting, and the forks say what is wrong.
            os.execv(sys.executable, [sys.executable, "-Iu", *sys.argv[:split]])  # noqa: S606 - this file
    if (fork := forked(sys.argv)) is not None:
        sys.argv = ["-c"]
        exec(fork[0]["code"], {"__name__": "__main__"})  # noqa: S102 - the line that execnet gives to `python -c`
