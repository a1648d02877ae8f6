"""Tables in terminals of any width: every text is there, and none is cut."""

from __future__ import annotations

import io
import re

import pytest
from rich.table import Column, Table
from rich.text import Text

from coordinator.cli.terminal import Console
from coordinator.infra.fetch import progress_bars

LONG = "a-model-with-a-name-of-more-than-forty-letters-0123456789"
ID = "ckp_897f61d8f1f8723e3b0e0506"


def shown(width: int, table: Table, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width).print(table)
    file.flush()
    return raw.getvalue().decode(encoding)


def letters(text: str) -> str:
    """Without boxes, spaces and line breaks: what a folded word is made of."""
    return re.sub(r"[^A-Za-z0-9_-]", "", text)


@pytest.fixture
def table():
    table_ = Table("rank", "model", Column("id", no_wrap=True), "", title="leaderboard")
    table_.add_row("1", Text(LONG), ID, "why")
    table_.add_row("2", "[bold]short[/bold]", ID, "")
    return table_


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [5, 20, 40, 60, 80, 200])
def test_nothing_is_cut_at_any_width(table, width, encoding):
    output = shown(width, table, encoding)
    assert "\N{HORIZONTAL ELLIPSIS}" not in output
    assert "..." not in output
    assert all(len(line) <= width for line in output.splitlines())
    words = ("leaderboard", "rank", "model", "short", "why")
    if width >= 60:  # a folded word of a table stands in pieces between others' lines
        assert all(word in output for word in words)
    if width < 60:
        assert all(letters(word) in letters(output) for word in (*words, LONG, ID))


def test_a_narrow_terminal_has_a_line_for_each_column(table):
    lines = [line.rstrip() for line in shown(40, table).splitlines()]
    assert lines[1] == "leaderboard"
    assert "rank: 2" in lines
    assert f"id: {ID}" in lines
    assert "model: short" in lines
    assert "why" in lines  # of a column without a name


def test_a_wide_one_has_a_table(table):
    assert re.search(rf"\u2502 1\s+\u2502 {LONG} \u2502 {ID} \u2502 why \u2502", shown(200, table))


@pytest.mark.parametrize("columns", [5, 20, 80])
def test_a_progress_bar_in_a_narrow_terminal_is_no_table_of_texts(columns):
    """Its cells are bars, not texts: it once ended `up` where the labels were longer than the line."""
    written = io.StringIO()
    console = Console(file=written, width=columns)
    with progress_bars(console) as on_progress:
        on_progress("a label that is longer than the terminal is wide " * 2, 1, 2)
        on_progress("another one", 0, 0)
    console.print("after it")
    assert "after" in written.getvalue()


def test_in_place_of_a_table_without_rows_stands_why(table):
    out = io.StringIO()
    console = Console(file=out, width=80)
    console.print_rows(Table("id", "reason", title="0 dead letters"), "no dead letter")
    assert out.getvalue() == "no dead letter\n"
    console.print_rows(table, "no model")
    assert ID in out.getvalue()
    assert "no model" not in out.getvalue()
