"""Values that nobody means: every number is bounded, an empty word and a device are refused, each in one line."""

from __future__ import annotations

import os

import pytest
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.infra.processes.data_dir import MARKER
from documentation.commands_page import leaves, value_kind

NUMBERS = [
    (words, option)
    for words, command in leaves()
    for option in command.params
    if not getattr(option, "is_flag", False) and value_kind(option) in ("INTEGER", "NUMBER")
]
FROM_TO = ["--from", "2023-11-14T00:00:00Z", "--to", "2023-11-14T00:05:00Z"]


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Runs a command in an empty folder that it must leave empty, and gives its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.iterdir())
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 2, done.output
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert sorted(tmp_path.iterdir()) == before
        return done.stderr

    return run


@pytest.mark.parametrize(
    ("words", "option"), NUMBERS, ids=[f"{' '.join(words)} {option.opts[0]}" for words, option in NUMBERS]
)
def test_every_number_has_a_least_and_a_greatest_value(words, option):
    assert option.min is not None
    assert option.max is not None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("replay", "--archive="), "--archive"),
        (("replay", "--archive", ""), "--archive"),
        (("init", "x-y", "--output", ""), "--output"),
        (("init", ""), "init"),
        (("replay", "--until", ""), "--until"),
        (("checkpoint", "list", "--data-dir", "", "--limit", "3"), "--data-dir"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_empty_word_is_refused_before_anything_is_done(refused, arguments, named):
    """`--output "$UNSET"` would else be this folder."""
    assert f"the value after {named} is empty" in refused(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "PIPE"),
        ("import", "PIPE"),
        ("apply", "PIPE"),
        ("simulate", "--schedule", "PIPE"),
        ("bundle", "latest", "--out", "PIPE"),
        ("checkpoint", "wallets", "PIPE"),
        ("backtest", "PIPE", "--feed", "generated", *FROM_TO),
    ],
    ids=" ".join,
)
def test_a_pipe_or_a_device_is_named_and_neither_read_nor_replaced(refused, arguments, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), ("/dev/null", "a device")):
        words = [str(path) if word == "PIPE" else word for word in arguments]
        assert f"{path} is {kind}: name a file or a folder" in refused(*words)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is a folder: name a file that `coordinator bundle` or `coordinator prove` wrote"),
        (b"", "is neither a bundle nor a proof: name a file that `coordinator bundle`"),
        (b"hello\n", "is neither a bundle nor a proof: name a file that `coordinator bundle`"),
    ],
    ids=["a folder", "empty", "of another kind"],
)
def test_what_cannot_be_judged_is_no_payout_that_does_not_hold(refused, tmp_path, content, says):
    place = tmp_path / "given"
    place.mkdir() if content is None else place.write_bytes(content)
    assert says in refused("verify", str(place))


def test_a_bundle_that_is_damaged_is_judged(tmp_path):
    (tmp_path / "cut.bundle").write_bytes(b"PK\x03\x04 and no more")
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "cut.bundle")])
    assert done.exit_code == 1, done.output
    assert "does not hold" in done.output


def test_a_file_where_a_folder_is_to_be_made_is_named(refused, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "main.py").write_text(MODEL)
    (tmp_path / "report").write_text("mine")
    window = ("--feed", "generated", *FROM_TO)
    assert "cannot be used: File exists" in refused("backtest", "model", *window, "--report", "report")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("export gone/a.node", "there is no folder"),
        ("export .", "is a folder: name a file"),
        ("bundle latest --out gone/a", "there is no folder"),
        ("bundle latest --out .", "is a folder: name a file"),
        ("prove inp/x/1/60s/m --out .", "is a folder: name a file"),
        ("topics backup gone/a", "there is no folder"),
        ("topics backup .", "is a folder: name a file"),
        ("topics restore gone", "there is no such file"),
        ("log archive --until 1700000000000 --to file", "file is not a folder"),
        ("log restore file --to gone/a", "there is no folder"),
        ("feeds export binance BTCUSDT candle 1m --out file/data", "file is not a folder"),
        ("checkpoint correct ckp_1 --reason x --total-prize 1 --records gone", "there is no such file"),
        ("up --summary gone/run.json", "there is no folder"),
        ("init x-y --pack gone", "there is no pack 'gone'"),
    ],
)
def test_what_cannot_be_written_or_read_is_told_before_a_node_is_asked(refused, tmp_path, arguments, says):
    """Nothing listens here: a command that asked Kafka first would say so, with 3."""
    (tmp_path / "file").write_text("mine")
    assert says in refused(*arguments.split())


MODEL = """
from coordinator.scaffolds.challenge.tracker import TrackerBase

class Model(TrackerBase):
    def predict(self, subject, horizon_seconds, step_seconds):
        return {"value": 0.5}
"""


@pytest.mark.parametrize("seeds", ["²..3", "1..9" + "0" * 5000, "5..1", "-1..3", "1.."])
def test_what_is_no_range_of_seeds_is_refused(refused, seeds):
    assert "two numbers, A..B" in refused("simulate", "--seeds", seeds)


@pytest.mark.parametrize("time", ["9" * 5000, "9" * 20])
def test_a_time_of_very_many_digits_is_refused(refused, time):
    assert "is after the year 9999" in refused("replay", "--until", time)


REASONS = {
    ("log", "give-up"): ["9" * 64],
    ("models", "ban"): ["17"],
    ("models", "readmit"): ["17"],
    ("rounds", "void"): ["week-12"],
    ("checkpoint", "correct"): ["ckp_1f0c", "--total-prize", "1"],
    ("checkpoint", "release"): ["ckp_1f0c"],
}


def test_a_reason_that_is_too_long_is_refused_before_a_node_is_asked_by_every_command_that_takes_one(refused):
    taking = {
        tuple(words)
        for words, command in leaves()
        if any("--reason" in option.opts for option in command.params)
    }
    assert taking == set(REASONS)
    for words, rest in REASONS.items():
        assert "--reason needs a text of at most 500 characters" in refused(
            *words, *rest, "--reason", "x" * 501
        )


def test_a_reason_of_bytes_that_are_no_text_is_taken_with_question_marks(tmp_path):
    """A shell of another encoding gives such ones: Python makes lone surrogates of them, which no file takes."""
    (tmp_path / MARKER).write_text("{}")
    arguments = ["log", "give-up", "9" * 64, "--reason", "la p\udce9riode de mai\x1b[2J"]
    done = CliRunner().invoke(app, arguments, env={"DATA_DIR": str(tmp_path)}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "blobs" / "given-up" / ("9" * 64)).read_text().endswith("Z la p?riode de mai?[2J\n")
