"""`python -m coordinator.projections.folding.verify_process READ_MODEL`: compares a read model with the log, in a
process of its own.

Settings come from the environment. The result is written to stdout as JSON (`VerifyResult`), messages for people to
stderr. Exit code 0: equal; 1: different, or the log is damaged; 2: not compared, the last line of stderr says why.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec
import structlog

from coordinator.projections.folding.replay import verify
from coordinator.streams.log.errors import CoordinatorError
from coordinator.streams.settings import read_settings

EQUAL, DIFFERENT, NOT_COMPARED = 0, 1, 2


def main() -> int:
    """Compare, print the result, and return the exit code."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        settings = read_settings(os.environ)
        result = asyncio.run(
            verify(settings.kafka_bootstrap, settings.crunch_id, settings.data_dir, sys.argv[1:])
        )
    except CoordinatorError as error:
        sys.stderr.write(f"error: {error}\n")
        return NOT_COMPARED
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    return EQUAL if result.equal else DIFFERENT


if __name__ == "__main__":
    sys.exit(main())
