"""The docs' contracts and pages: each contract is short and has no fault, the page is the source's, the guide runs."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.checkout import root_on_path
from typer.testing import CliRunner

from coordinator.cli.contract_fields import GIVEN, NAMED, given_docs, named_docs
from coordinator.cli.main import app
from coordinator.streams import contract
from coordinator.streams.contract.checking.findings import State, examine
from coordinator.streams.contract.fields import fields_of
from coordinator.streams.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
POSTED = ("numinous", "numinous_reforecast", "numerai", "datacrunch", "metaculus")
"""They ask what an operator posts: `contract check` tries them on truths that their types have as examples."""
PLAYABLE = ("btc_up", "synth", "synth_subnet", "falcon", "predictoor", "trading", *POSTED)
LINES_MAX = 80
"""Of code: what is no docstring, comment or blank line."""
UNSEEN = {"trading": ["score varies"], "numinous": ["score varies"], "numinous_reforecast": ["score varies"]}
"""What one round cannot show: what was bought is worth something in a later one, and a mean of the last 200 is one then."""


@pytest.fixture(autouse=True)
def root_of_the_checkout():
    with root_on_path():
        yield


def loaded(name: str) -> contract.CrunchContract:
    return import_module(f"docs.contracts.{name}").CONTRACT


def lines_of_code(path: Path) -> int:
    text = path.read_text()
    silent: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                silent |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    empty = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    lines_with_code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in empty
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines_with_code - silent)


@pytest.mark.parametrize("name", PLAYABLE)
def test_a_reference_contract_is_short_and_has_no_fault(name: str):
    played = loaded(name)
    subjects = {schedule.scope.subject for schedule in played.schedules() if schedule.scope.subject} or {
        "BTC"
    }
    for board in played.aggregation.boards:
        subjects |= set(board.weights)
    settings = Settings(feed_subjects=tuple(sorted(subjects)))
    if name in POSTED:
        assert played.questions is not None
        assert not played.schedules()
        settings = Settings(feed_source="questions", feed_kind="question", feed_subjects=("questions",))
    by_check = {finding.check: finding for finding in examine(played, settings)}
    assert [finding for finding in by_check.values() if finding.state is State.FAULT] == []
    assert [finding.check for finding in by_check.values() if finding.state is State.UNKNOWN] == UNSEEN.get(
        name, []
    )
    assert lines_of_code(DOCS / "contracts" / f"{name}.py") <= LINES_MAX


def test_the_page_of_all_fields_is_what_the_source_says():
    printed = CliRunner().invoke(app, ["contract", "fields", "--markdown"]).output
    page = (DOCS / "contract-fields.md").read_text()
    assert page == printed, "coordinator contract fields --markdown > docs/contract-fields.md"


def test_everything_that_an_author_imports_is_on_the_page():
    nested = {field.path.rpartition(".")[2] for field in fields_of(contract.CrunchContract)}
    objects = {name for name in contract.__all__ if isinstance(getattr(contract, name), type)}
    page = (DOCS / "contract-fields.md").read_text()
    assert nested
    assert [name for name in objects | set(GIVEN) | set(NAMED) if name not in page] == []


def test_everything_that_a_function_is_given_says_what_it_is():
    assert [documented.path for documented in [*given_docs(), *named_docs()] if not documented.doc] == []


BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "writing-a-contract.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_example_of_the_guide_is_a_contract_without_a_fault(block: str):
    names: dict[str, Any] = {}
    exec(compile(block, "writing-a-contract.md", "exec"), names)  # noqa: S102 - the page's own examples
    findings = examine(names["CONTRACT"], Settings(feed_subjects=("BTCUSDT",)))
    assert [finding for finding in findings if finding.state is State.FAULT] == []


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_every_link_leads_somewhere(page: str):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (DOCS / page).read_text())
    assert [link for link in links if not link.startswith("http") and not (DOCS / link).exists()] == []
