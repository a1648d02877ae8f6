"""Rich's console for texts of strangers: what it prints is shown, never obeyed.

A model's name, a reason or a log may hold escape sequences. Rich's own are kept apart from the text (they are styles
and control segments), so the text alone is made printable, wherever in a table or a line it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from coordinator.streams.log.reasons import printable


class Console(rich.console.Console):
    """`rich.console.Console`, safe for any text."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """The segments of a renderable, with printable text."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, lines=True), segment.style)
