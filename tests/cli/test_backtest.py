"""`coordinator backtest`: a table, and on request a page that needs no network, with Parquet files beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from coordinator.cli.main import app

HEAD = "from coordinator.scaffolds.challenge.tracker import TrackerBase\n\n\nclass M(TrackerBase):\n"
WINDOW = ["--from", "2023-11-14T00:00:00Z", "--to", "2023-11-14T01:30:00Z"]
MINUTES = 91


def models(folder: Path) -> list[str]:
    body_by_name = {
        "up": "    def predict(self, s, h, t): return {'value': 0.5}\n",
        "evil": "    def predict(self, s, h, t): raise ValueError('<script>alert(1)</script>')\n",
    }
    for name, body in body_by_name.items():
        (folder / name).mkdir()
        (folder / name / "main.py").write_text(HEAD + body)
    return [str(folder / name) for name in body_by_name]


def run(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["backtest", *arguments])


def test_it_prints_a_table_and_writes_a_page_and_every_row(tmp_path):
    report = tmp_path / "report"
    done = run(*models(tmp_path), *WINDOW, "--report", str(report))
    assert done.exit_code == 0, done.output
    assert f"{MINUTES} rounds in" in done.output
    assert re.search(r"1\s+│ up", done.output)
    assert re.search(r"evil: \d+ FAILED: MODEL_FAILED: ValueError: <script>alert\(1\)</script>", done.output)
    rows = {
        name: parquet.read_table(report / f"{name}.parquet").to_pylist() for name in ("predictions", "scores")
    }
    assert sum(row["model_id"] == "up" for row in rows["predictions"]) == MINUTES
    scored = [row["value_units"] for row in rows["scores"] if row["model_id"] == "up"]
    assert len(scored) == MINUTES - 1
    assert set(scored) <= {750_000_000, -1_250_000_000, -250_000_000}
    page = (report / "index.html").read_text()
    assert "alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    for title in (
        "Board",
        "Score over time",
        "Calibration",
        "By hour of the day",
        "By scope",
        "Missing answers",
    ):
        assert f"<h2>{title}" in page


def test_models_have_their_owners_names_and_the_page_fits_a_phone_and_a_dark_screen(tmp_path):
    folders = models(tmp_path)
    listed = "".join(
        f"  - {{folder: {name}, model_id: '{number}', model_name: {name}-er}}\n"
        for number, name in enumerate((Path(folder_).name for folder_ in folders), start=7)
    )
    (tmp_path / "models.yaml").write_text(f"models:\n{listed}")
    done = run(str(tmp_path), *WINDOW, "--report", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    assert re.search(r"1\s+│ up-er \(7\)", done.output)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<h1>Backtest of up-er, evil-er</h1>" in page
    assert '"name":"up-er (7)"' in page
    assert '<meta name="viewport" content="width=device-width' in page
    assert "@media(prefers-color-scheme:dark)" in page


def test_a_folder_without_a_name_of_its_own_is_reported_once(tmp_path):
    (tmp_path / "my_trend").mkdir()
    (tmp_path / "my_trend" / "main.py").write_text(
        HEAD + "    def predict(self, s, h, t): return {'value': 0.5}\n"
    )
    done = run(str(tmp_path / "my_trend"), *WINDOW)
    assert re.search(r"1\s+│ my_trend\s+│", done.output)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--candles", "x.csv", "--feed", "binance"], "give only one of candles, feed and log"),
        (["--candles", "missing.csv"], "missing.csv"),
        (["--feed", "binance"], "needs a window"),
    ],
)
def test_an_impossible_backtest_is_refused_in_one_line(tmp_path, arguments, says):
    done = run(*models(tmp_path), *arguments)
    assert done.exit_code == 2, done.output
    assert says in done.output


def test_two_models_of_one_name_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = models(tmp_path / "a"), models(tmp_path / "b")
    done = run(first[0], second[0], *WINDOW)
    assert done.exit_code == 2
    assert "have the model_id 'up'" in done.output
