"""Tools from outside that tests need and a machine may lack. Such a test skips with the reason, or fails where the tool
is required.

COORDINATOR_BROWSER_TESTS=required, as in CI, makes every missing tool a failure. npm packages are downloaded in one
exact version into the user's cache, never into the checkout.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.waiting import LIMIT_SECONDS


def missing(why: str) -> None:
    """Skips with the reason, or fails where the tests are required."""
    if os.environ.get("COORDINATOR_BROWSER_TESTS") == "required":
        pytest.fail(why)
    pytest.skip(why)


def npm_file(package: str, inside: str, sha256: str) -> str:
    """The text of a file of an npm package, `name@version`. `inside` is its path in the package, `sha256` its expected
    digest.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coordinator-tests"
    file = folder / f"{package.replace('@', '-').replace('/', '-')}-{Path(inside).name}"
    if not file.exists():
        npm = shutil.which("npm")
        if npm is None:
            missing(f"there is no npm to fetch {package} with")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", package, "--silent"], cwd=folder, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )  # fmt: skip
        if done.returncode != 0:
            missing(f"npm could not fetch {package}: {done.stderr[-300:]}")
        with tarfile.open(folder / done.stdout.strip().splitlines()[-1]) as archive:
            part = file.with_suffix(".part")
            part.write_bytes(archive.extractfile(f"package/{inside}").read())
            part.rename(file)
    sha256_of_file = hashlib.sha256(file.read_bytes()).hexdigest()
    assert sha256_of_file == sha256, f"{file} is not the {package} that these tests know: {sha256_of_file}"
    return file.read_text()
