"""The environment of the Quix peer has what our scoring function imports: no quick bench installs it, so none tells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.pipeline import OF_OURS

WITH_QUIX = {
    "annotated-types",
    "pydantic",
    "pydantic_core",
    "setuptools",
    "typing-inspection",
    "typing_extensions",
}
"""pydantic, with what it needs, is a requirement of Quix Streams; setuptools is in every environment."""
IMPORTED = """
import sys
import coordinator.streams.contract.defaults
from importlib.metadata import packages_distributions

by_module = packages_distributions()
print(*{name for module in {name.partition(".")[0] for name in sys.modules} for name in by_module.get(module, ())})
"""


def test_the_peer_installs_the_libraries_of_our_scoring_function():
    imported = subprocess.run(
        [sys.executable, "-I", "-c", IMPORTED], capture_output=True, check=True, text=True
    ).stdout.split()
    assert set(imported) - WITH_QUIX == {requirement.partition("==")[0] for requirement in OF_OURS}
