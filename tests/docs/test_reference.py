"""The reference pages are what the code says, and the code says something of each thing that it offers."""

from __future__ import annotations

import ast
import re

import pytest

from coordinator.api.invariant_shapes import AlertKind
from documentation import commands_page, events_page, llms, metrics_page, raised_pages, settings_page
from documentation.parsed_code import calls, modules, text_of
from documentation.reference import FOLDER, PAGES, ROOT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name):
    assert (FOLDER / name).read_text() == PAGES[name](), "run: make docs-reference"


def test_no_page_is_left_over():
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


def test_every_command_and_each_of_its_options_says_what_it_is():
    silent = [
        (" ".join(words), parameter.name)
        for words, command in commands_page.leaves()
        for parameter in commands_page.parameters(command)
        if not parameter.help
    ]
    assert silent == []
    assert [words for words, command in commands_page.leaves() if not command.help] == []


def test_every_setting_says_what_it_is():
    assert settings_page.undocumented() == [], "a docstring below the field"


def test_every_variable_that_the_code_reads_is_on_the_page():
    assert settings_page.read_elsewhere() == set(), "a line in OTHER of .dev/documentation/settings_page.py"


def test_every_event_says_what_it_is():
    assert [name for name, kind in events_page.kinds().items() if not events_page.about(kind)] == []


def test_every_metric_has_a_help_text():
    assert [name for name, _, about, _ in metrics_page.families() if not about] == []


def test_every_metric_that_the_code_names_is_on_the_page():
    """What is made only where something is switched on would be missing from a node that has it off."""
    named = set()
    for _, tree, _ in modules():
        for name, call in calls(tree):
            if name.endswith(("MetricFamily", "Gauge", "Counter", "Histogram", "Info")) and call.args:
                text = text_of(call.args[0])
                if text and text.startswith("coordinator_") and isinstance(call.args[0], ast.Constant):
                    named.add(text)
    shown = {name.removesuffix("_total") for name, *_ in metrics_page.families()}
    assert named
    assert named <= shown


def test_every_kind_of_alert_is_told_by_some_code():
    told = {kind for kind, _, _ in raised_pages.told_alerts()}
    assert told == set(AlertKind.__args__)


def test_messages_that_cannot_be_listed_are_few():
    messages = list(raised_pages.raised())
    unlisted = [message for message in messages if message[2] is None]
    assert len(messages) > 300
    assert len(unlisted) < len(messages) / 5


def test_the_map_for_language_models_is_that_of_the_contents():
    assert (ROOT / "llms.txt").read_text() == llms.text(), "run: make docs-reference"
    named = re.findall(r"\]\(([^)]+)\)", llms.text())
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).is_file()] == []
