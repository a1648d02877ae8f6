"""What strangers wrote is shown on a terminal, never obeyed."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import coordinator.cli
from coordinator.cli.lazy_groups import one_line
from coordinator.cli.terminal import Console, progress_bar
from coordinator.infra.fetch import progress_bars
from coordinator.streams.log.reasons import as_name, as_reason, printable

NAMES = {
    "an escape sequence": ("\x1b[2J\x1b]0;owned\x07me", "?[2J?]0;owned?me"),
    "eight bit controls": ("\x9b31mred\x85", "?31mred?"),
    "the direction turned": ("abc\u202etxt.exe", "abc?txt.exe"),
    "a line of its own": ("good\nevil\r\tall is well", "good evil  all is well"),
    "separators": ("a\u2028b\u2029c\x00", "a?b?c?"),
    "half a letter": ("\ud800x", "?x"),
    "what people write": ("Модель №1, 模型 👩\u200d🔬 é", "Модель №1, 模型 👩\u200d🔬 é"),
}


@pytest.mark.parametrize(("name", "shown"), NAMES.values(), ids=NAMES)
def test_a_name_is_one_printable_line(name: str, shown: str):
    assert as_name(name) == as_reason(name) == shown
    assert printable(shown) == shown


def test_names_and_reasons_are_short():
    assert (len(as_name("x" * 10**6)), len(as_reason("\x1b" * 10**6))) == (100, 300)


@pytest.mark.parametrize("force", [True, False])
def test_the_console_keeps_its_own_sequences_apart_from_the_text(force: bool):
    out = io.StringIO()
    console = Console(file=out, force_terminal=force, color_system="truecolor" if force else None, width=100)
    evil = "\x1b[2J\x1b]0;owned\x07\x9b1mname"
    table = Table("model", title=evil)
    table.add_row(Text(evil, style="bold"))
    table.add_row(evil)
    console.print(table)
    console.print(f"reason: {evil}", markup=False)
    console.print(Text("what it printed last:\n" + evil, style="red"), soft_wrap=True)
    output = out.getvalue()
    assert ("\x1b[" in output) is force
    assert not re.search(r"[\x00-\x09\x0b-\x1a\x1c-\x1f\x7f-\x9f]", output)
    assert not re.search(r"\x1b(?!\[[0-9;]*m)|\[2J(?<!\?\[2J)", output)
    assert "what it printed last:\n" in re.sub(r"\x1b\[[0-9;]*m", "", output)


def test_where_nobody_watches_a_bar_writes_nothing_and_a_fetch_a_line():
    console = Console(file=io.StringIO())
    with progress_bar("records", console) as update:
        update(1, 2)
    assert console.file.getvalue() == ""
    with progress_bars(console) as on_progress:
        for done in range(3):
            on_progress("kafka.jar", done, 2)
        on_progress("trying the broker once", 0, 0)
    assert console.file.getvalue() == "kafka.jar\ntrying the broker once\n"


def test_what_is_not_counted_in_bytes_shows_none():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, force_interactive=True)
    with progress_bars(console) as on_progress:
        on_progress("trying the broker once", 0, 0)
    assert "trying the broker once" in console.file.getvalue()
    assert "bytes" not in console.file.getvalue()


def test_a_bar_in_a_narrow_terminal_does_not_stop_the_command():
    console = Console(width=20, force_terminal=True, file=io.StringIO())
    with progress_bar("a label that is longer than the terminal is wide", console) as update:
        update(1, 2)


def test_an_error_is_one_printable_line():
    assert one_line("no model '\x1b[2J'\nat all") == "no model '?[2J' at all"


def test_no_command_uses_a_console_that_obeys():
    folder = Path(str(coordinator.cli.__file__ or next(iter(coordinator.cli.__path__)) + "/x")).parent
    assert len(list(folder.glob("*.py"))) > 20
    obeying = [
        file.name
        for file in folder.glob("*.py")
        if "rich.console import Console" in file.read_text() and file.name != "terminal.py"
    ]
    assert obeying == []
