"""Writes rules, dashboards, runbook pages and the topics' AsyncAPI: `make observability`. With `--check`, only says
what is old.
"""

from __future__ import annotations

import sys
from pathlib import Path

from observability import alert_rules, asyncapi, dashboards, runbook

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scaffolds/base/template/crunch-node-{{ slug }}/deployment/observe"
RUNBOOK = ROOT / "docs/runbook"


def files() -> dict[Path, str]:
    """Every file that is made, with its text."""
    text_of = {FOLDER / "rules.yml": alert_rules.rules(), FOLDER / "rules_test.yml": alert_rules.rule_tests()}
    text_of |= {
        FOLDER / f"dashboards/{name}.json": dashboards.dashboard(name) for name in dashboards.DASHBOARDS
    }
    text_of |= {RUNBOOK / name: text for name, text in runbook.pages().items()}
    text_of[ROOT / "docs/asyncapi.yaml"] = asyncapi.document()
    return text_of


def main(arguments: list[str]) -> int:
    """0, or 1 if something is old and was not to be written."""
    old = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    old += [path for path in RUNBOOK.glob("*.md") if path not in files()]
    for path in old:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
        if "--check" not in arguments:
            if path in files():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(files()[path])
            else:
                path.unlink()
    return int(bool(old) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
