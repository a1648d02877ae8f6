"""A time before the log's first record is refused, one after its last is told of: neither passes in silence."""

from __future__ import annotations

import pytest
from tests.logs import START_MS, busy_log, fold_into
from typer.testing import CliRunner

from coordinator.cli.explain import _check_within as explained_within
from coordinator.cli.main import app
from coordinator.cli.replay import _check_within as replayed_within
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.replay import ReplayResult, Times
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.log.errors import OperatorError

LAST_MS = START_MS + 60_000


def replayed() -> ReplayResult:
    return ReplayResult(
        events=1, records=1, seconds=1.0, events_per_second=1.0, duplicates_ignored=0, state_hash={},
        first_at_ms=START_MS, last_at_ms=LAST_MS,
    )  # fmt: skip


def test_a_replay_until_before_the_log_is_refused_and_until_after_it_says_so(capsys):
    with pytest.raises(OperatorError, match=r"--until 1990-01-01 00:00:00Z: the log begins at 2\d{3}-"):
        replayed_within(replayed(), 631_152_000_000)
    assert capsys.readouterr().err == ""
    for within in (None, START_MS, LAST_MS):
        replayed_within(replayed(), within)
    assert capsys.readouterr().err == ""
    replayed_within(replayed(), LAST_MS + 1)
    assert "the log ends at" in capsys.readouterr().err


def test_the_times_of_a_log_are_those_of_its_events_and_not_of_its_first_rules(tmp_path):
    """Those hold from 0 on."""
    log, read = busy_log(), open_read_models(tmp_path, "cluster", "btc-up")
    folder = Folder([read.feeds, read.snapshots], until_ms=1)
    times = Times()
    folder.on_decision = times.take
    fold_into(folder, log, commit_every=100)
    read.close()
    assert times.first is not None
    assert times.last is not None
    assert START_MS - 86_400_000 < times.first < times.last


def test_an_explanation_as_of_before_the_log_is_refused_and_as_of_after_it_says_so(tmp_path, capsys):
    log, read = busy_log(), open_read_models(tmp_path, "cluster", "btc-up")
    fold_into(Folder([read.feeds]), log, commit_every=100)
    with pytest.raises(OperatorError, match="the log's first record is of"):
        explained_within(read, 5, "1970")
    explained_within(read, read.feeds.clock, "now")
    assert capsys.readouterr().err == ""
    explained_within(read, read.feeds.clock + 1, "later")
    assert "--as-of later: the log ends at" in capsys.readouterr().err
    read.close()


def test_a_backtest_names_its_own_options(tmp_path):
    span = ("--from", "2023-11-14T22:20:00Z", "--to", "2023-11-14T22:10:00Z")
    done = CliRunner().invoke(app, ["backtest", str(tmp_path), *span])
    assert done.exit_code == 2
    assert "--from 2023-11-14T22:20:00Z is not before --to 2023-11-14T22:10:00Z" in done.stderr
