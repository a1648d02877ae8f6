"""What the host tells a model's process when it forks it, as JSON: what it serves, what bounds it, what it may read.

Only the standard library: the host and the processes of all models import it. These are no options of a command line,
because a parser's code would run in every model's process, and each would have 2.5 MB of its own for it.
"""

from __future__ import annotations

from typing import NamedTuple


class Serving(NamedTuple):
    """One process of a model. Limits in seconds and MB, 0 MB: no limit; paths as text, since JSON has no others."""

    folder: str
    """Its working copy of the submission: the only place where it may write."""
    listen: str
    call_limit_seconds: float
    setup_limit_seconds: float
    memory_limit_mb: int
    disk_limit_mb: int
    readable: list[str]
    path: list[str]
    """Where its imports look last."""
    listable: list[str]
    """Folders whose names it may list."""
