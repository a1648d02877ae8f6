"""Schemathesis against a listening API: every check and its own phases, with the links between operations."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).with_name("fuzz.toml")
STREAM = "/reports/live"  # never ends; tested by test_live


ALL_PHASES = "examples,coverage,fuzzing,stateful"
RANDOM_PHASES = "fuzzing,stateful"
"""The phases that depend on the seed."""


def fuzz(
    api: str,
    key: str,
    *,
    examples: int,
    folder: Path,
    seconds_max: float,
    phases: str = ALL_PHASES,
    seed: int = 1,
) -> tuple[int, int, str]:
    """(exit code, number of calls, output). Exit code 0: no server error, no undocumented status, no shape that differs
    from the documented one, and no other failed check.
    """
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "--config-file",
                str(CONFIG),
                "run",
                f"{api}/openapi.json",
            ),
            *("--checks", "all", "--phases", phases, "--seed", str(seed)),
            *("--max-examples", str(examples), "--header", f"X-API-Key: {key}", "--exclude-path", STREAM),
            *(
                "--suppress-health-check",
                "all",
                "--continue-on-failure",
                "--request-timeout",
                "20",
                "--no-color",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=seconds_max,
        check=False,
        cwd=folder,
    )
    output = done.stdout + done.stderr
    generated = re.search(r"([\d,]+) generated", output)
    return done.returncode, int(generated[1].replace(",", "")) if generated else 0, output


def links_covered(output: str) -> int:
    """The number of the document's links that were followed."""
    covered = re.search(r"API Links: +([\d,]+) covered", output)
    return int(covered[1].replace(",", "")) if covered else 0


def findings(output: str) -> str:
    """What failed, and how to repeat it. A very long body is cut."""
    return "\n".join(line[:500] for line in output[max(0, output.find("= FAILURES =")) :].splitlines())[
        :8_000
    ]
