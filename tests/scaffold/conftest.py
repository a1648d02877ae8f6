"""Rendering without the look at a git index after each file, of which a new workspace has none: 48 processes each time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def no_git_per_file() -> Iterator[None]:
    """A command that a test starts, and a workspace that is upgraded, use git as they do."""
    import copier._main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copier._main, "is_git_available", lambda: False)
        yield
