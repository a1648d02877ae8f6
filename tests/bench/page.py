"""The rows of the bench, as a table for the terminal and as a page of Markdown.

The page says what was reached beside its aim, on which machine, and how it is measured again.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table


class Row(msgspec.Struct, kw_only=True):
    """One line of the table. `ratio` is to the bare loop of the same run. `verdict`: pass, missed, info, failed."""

    path: str
    reached: str
    aim: str = ""
    ratio: float | None = None
    verdict: str = "info"
    figures: dict[str, Any] = {}
    load_average: float = 0.0


def verdict(*reached: bool) -> str:
    """Passed only when every part of the aim is."""
    return "pass" if all(reached) else "missed"


def table(rows: Sequence[Row]) -> Table:
    """The rows for people."""
    columns = Table(title="Speed", title_justify="left")
    for column in ("path", "reached", "aim", "of the bare loop", "verdict", "load"):
        columns.add_column(column, justify="right" if column in ("of the bare loop", "load") else "left")
    colours = {"pass": "green", "missed": "yellow", "failed": "red", "info": ""}
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.0%}"
        columns.add_row(
            row.path, row.reached, row.aim, ratio, f"[{colours[row.verdict]}]{row.verdict}[/]" if colours[row.verdict]
            else "", f"{row.load_average:.1f}",
        )  # fmt: skip
    return columns


HEAD = ("path", "today", "aim", "of the bare loop", "", "load")
MARKS = {"pass": "reached", "missed": "**missed**", "failed": "**failed**", "info": ""}


def machine() -> dict[str, Any]:
    """Where it was measured: processor, cores, memory, system, Python."""
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _first(file: str, field: str) -> str:
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def page(rows: Sequence[Mapping[str, Any]], where: Mapping[str, Any], *, quick: bool, repeat: str) -> str:
    """The page. `rows` are those of the JSON: path, reached, aim, ratio, verdict, load_average."""
    loads = [row["load_average"] for row in rows]
    measured_on = (
        f"{where['processor']}, {where['cores']} cores, {where['memory_gb']:g} GB, {where['system']}, Python "
        f"{where['python']}. Load average {min(loads, default=0):.1f} to {max(loads, default=0):.1f}: above the number "
        "of cores, absolute figures mean little. Ratios are within this one run."
    )
    lines = ["# Speed", ""]
    if quick:
        lines += ["A quick run: it proves that the bench works, and measures nothing.", ""]
    lines += [
        measured_on,
        "",
        f"Measured by `{repeat}`; once more: the same, on a machine with nothing else to do.",
        "",
        _line(HEAD),
        _line(["---"] * len(HEAD)),
    ]
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.0%}"
        lines.append(
            _line(
                (
                    row["path"].strip(),
                    row["reached"],
                    row["aim"],
                    ratio,
                    MARKS[row["verdict"]],
                    f"{row['load_average']:.1f}",
                )
            )
        )
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
