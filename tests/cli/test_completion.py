"""Completions that a shell offers at Tab: commands, their commands, and options."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from coordinator.cli import lazy_groups
from coordinator.cli.main import app


def offered(words: str) -> list[str]:
    """The completions that bash offers for the last of these words."""
    env = {
        "_COORDINATOR_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    result = CliRunner().invoke(app, env=env, prog_name="coordinator")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("coordinator checkp", ["checkpoint"]),
        ("coordinator checkpoint con", ["confirm"]),
        ("coordinator plan --rep", ["--report"]),
        ("coordinator drill feed-si", ["feed-silent"]),
        ("coordinator worker sc", ["score"]),
        ("coordinator init x --pack tra", ["trading"]),
        ("coordinator replay --projection lea", ["leaderboard"]),
        ("coordinator feeds probe gen", ["generated"]),
        ("coordinator up --feed gen", ["generated"]),
        ("coordinator backtest --feed gen", ["generated"]),
        ("coordinator log cat dead", ["dead-letters"]),
        ("coordinator keys make set", ["settle"]),
        ("coordinator checkpoint list --status PAI", ["PAID"]),
        ("coordinator checkpoint show --as prizes-", ["prizes-jsonl"]),
        ("coordinator checkpoint advance x CL", ["CLAIMABLE"]),
        ("coordinator contract rules --format h", ["html"]),
        ("coordinator contract fields aggregation.windows.hou", ["aggregation.windows.hours"]),
        ("coordinator nothing-like-that x", []),
    ],
)
def test_commands_and_options_are_offered(words: str, completions: list[str]):
    assert offered(words) == completions


def test_a_command_whose_extra_is_missing_offers_nothing_and_fails_on_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    def not_installed(name: str):
        raise ModuleNotFoundError(name="pyarrow")

    monkeypatch.setattr(lazy_groups, "import_module", not_installed)
    assert offered("coordinator explain --as") == []
