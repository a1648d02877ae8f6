"""Rich's console for texts of strangers: what it prints is shown, never obeyed.

A model's name, a reason or a log may hold escape sequences. Rich's own are kept apart from the text (they are styles
and control segments), so the text alone is made printable, wherever in a table or a line it stands.

No text is cut: a long word continues in the next line of its cell, and a table that would have no readable columns in
so narrow a terminal is written row by row, a line for each of its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import rich.console
from rich.console import Group
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from coordinator.streams.log.reasons import printable

COLUMN_CHARS_MIN = 8
"""The least width of a column whose words are longer: a narrower one cannot be read."""


class Console(rich.console.Console):
    """`rich.console.Console`, safe for any text."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """The segments of a renderable, with printable text."""
        if isinstance(renderable, Table):
            renderable = self._fitting(renderable, options or self.options)
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, lines=True), segment.style)

    def print_rows(self, table: Table, nothing: str) -> None:
        """Print a table; if it has no rows, print the sentence that says why."""
        self.print(table if table.rows else Text(nothing))

    def _fitting(self, table: Table, options: rich.console.ConsoleOptions) -> Any:
        if any(not isinstance(cell, str | Text) for column in table.columns for cell in column.cells):
            return table  # a progress bar's own layout, which fits itself
        widths = []
        for column in table.columns:
            column.overflow = "fold"
            cells = [column.header, *column.cells]
            longest = max(Measurement.get(self, options, cell).minimum for cell in cells)
            widths.append(
                max(Measurement.get(self, options, cell).maximum for cell in cells)
                if column.no_wrap
                else min(longest, COLUMN_CHARS_MIN)
            )
        borders = 3 * len(widths) + 1
        return table if sum(widths) + borders <= options.max_width else self._row_by_row(table)

    def _row_by_row(self, table: Table) -> Group:
        lines = [Text(""), self._text(table.title)] if table.title else []
        headers = [self._text(column.header) for column in table.columns]
        for row in zip(*(column.cells for column in table.columns), strict=True):
            lines.append(Text(""))
            for header, cell in zip(headers, row, strict=True):
                name = Text.assemble(header, ": ") if header.plain else Text()
                lines.append(Text.assemble(name, self._text(cell), overflow="fold"))
        return Group(*lines)

    def _text(self, cell: Any) -> Text:
        return self.render_str(cell) if isinstance(cell, str) else cell


def counted(on_progress: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """Called once a record (with its time), it shows every fiftieth step of `total`: drawing each would cost more."""
    done = 0

    def step(_at: int) -> None:
        nonlocal done
        done += 1
        if done % 50 == 0:
            on_progress(done, total)

    return step


class Bars(Progress):
    """`rich.progress.Progress` that writes nothing where nobody watches, such as into a file."""

    def start(self) -> None:
        """Draw from now on."""
        if self.console.is_interactive:
            super().start()

    def stop(self) -> None:
        """Take the bars away."""
        if self.console.is_interactive:
            super().stop()


@contextmanager
def progress_bar(label: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar that is gone when the work is done; yields a function of (done, total).

    It stands on stderr unless `console` is given, so that stdout holds the result alone.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console or Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        # A caller that does not know the total passes 0.
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
