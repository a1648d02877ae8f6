"""The second half of a verdict runs in a fork: what its process costs are mostly imports, and these tests start many."""

from __future__ import annotations

import pytest
from tests import forked_modules

from coordinator.infra.evidence import recompute


@pytest.fixture(autouse=True)
def forked_recomputing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`test_bundle.py` has the test with the process itself."""
    monkeypatch.setattr(recompute, "subprocess", forked_modules)
