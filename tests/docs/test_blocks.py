"""Every block of code in the documentation is run, or says why not; and what it names is there.

Run are the tutorials (`test_tutorials.py`), the guide's contracts (`test_contracts.py`), and each Python block of any
other page, here. Of a block of commands that is not run, each command and option is looked up in the command line.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter

import numpy as np
import pytest
from tests.docs.pages import (
    DOCS,
    PAGES,
    TUTORIALS,
    blocks_of,
    indented_blocks_of,
    name_of,
    reason_of,
)

from coordinator.streams import contract
from documentation.commands_page import leaves

GUIDE = DOCS / "writing-a-contract.md"
COMMANDS = {
    " ".join(words): {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    | {"--help"}
    for words, command in leaves()
}
GROUPS = {name.rpartition(" ")[0] for name in COMMANDS if " " in name}
NAMED = re.compile(r"(?:^|[\s(`])coordinator ((?:[a-z0-9]+(?:-[a-z0-9]+)*)(?: [^\n#`|]*)?)")


def how(page, block) -> str:
    """`run`, or the reason why not; nothing where the page says neither."""
    if "not run" in block.said:
        return block.said["not run"]
    if page in TUTORIALS or (block.language == "python" and page.is_relative_to(DOCS)):
        return "run"
    return reason_of(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_run_or_says_why_not(page):
    silent = [block.text for block in blocks_of(page) if not how(page, block)]
    assert silent == [], "a comment before it: not run: REASON"
    assert not page.is_relative_to(DOCS) or indented_blocks_of(page) == [], "fences, so that it is a block"


def test_most_blocks_are_run_and_the_run_says_how_many(say_at_the_end):
    ways = Counter(
        "run" if how(page, block) == "run" else "not run" for page in PAGES for block in blocks_of(page)
    )
    say_at_the_end(f"documentation: {ways['run']} blocks are run, {ways['not run']} say why not")
    assert ways["run"] > 40


PYTHON = [
    pytest.param(page, block.text, id=f"{name_of(page)}-{number}")
    for page in PAGES
    if page != GUIDE and page not in TUTORIALS and page.is_relative_to(DOCS)
    for number, block in enumerate(blocks_of(page))
    if block.language == "python" and "not run" not in block.said
]


@pytest.mark.parametrize(("page", "text"), PYTHON)
def test_a_python_block_runs_with_the_contracts_names_imported(page, text):
    names = {name: getattr(contract, name) for name in contract.__all__} | {"np": np}
    exec(compile(text, str(page), "exec"), names)  # noqa: S102 - the page's own examples


def commands_in(text: str):
    for line in text.splitlines():
        for match in NAMED.finditer(line):
            yield match[1].strip()


def split(command: str) -> tuple[str, list[str]]:
    """The command's name, and the options that are given to it."""
    try:
        words = shlex.split(command)
    except ValueError:  # the page's line ends within a quote
        words = command.split()
    name = words[0]
    if name in GROUPS and len(words) > 1:
        name = f"{name} {words[1]}"
    return name, [word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z][a-z-]*(=.*)?", word)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_option_that_a_block_names_is_there(page):
    texts = [block.text for block in blocks_of(page) if block.language in ("bash", "")] + indented_blocks_of(
        page
    )
    for text in texts:
        for command in commands_in(text):
            name, options = split(command)
            assert name in COMMANDS or name in GROUPS, command
            assert name in GROUPS or [option for option in options if option not in COMMANDS[name]] == [], (
                command
            )


def test_a_command_that_is_not_there_would_be_seen():
    assert split("log cat scores --transitions") == ("log cat", ["--transitions"])
    assert "contract fly" not in COMMANDS
    assert "--to-the-moon" not in COMMANDS["up"]
    assert list(commands_in("docker compose exec report coordinator shadow run --x")) == ["shadow run --x"]
