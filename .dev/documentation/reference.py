"""Writes `docs/reference/`: every page out of the code that it tells of.

    python -Im documentation.reference     what `make docs-reference` runs; a test compares the pages with the code

A page is made by one function without arguments. What stands in it comes from the code alone, so that two machines
make the same page: no time, no path, no figure of this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from documentation import (
    api_page,
    commands_page,
    events_page,
    llms,
    metrics_page,
    raised_pages,
    settings_page,
    topics_page,
)

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"

PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": commands_page.page,
    "settings.md": settings_page.page,
    "topics.md": topics_page.page,
    "events.md": events_page.page,
    "events.schema.json": events_page.schema,
    "api.md": api_page.page,
    "metrics.md": metrics_page.page,
    "alerts.md": raised_pages.alerts,
    "messages.md": raised_pages.messages,
}


def main() -> None:
    """Write the pages that have changed, and name them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    (ROOT / "llms.txt").write_text(llms.text())


if __name__ == "__main__":
    main()
