"""`coordinator deploy-files`: the feed is chosen once, and the settings take precedence."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from coordinator.cli import deploy_files
from coordinator.cli.main import app
from coordinator.cli.node_folder import read_dotenv


@pytest.fixture
def deploy(tmp_path, monkeypatch):
    """Runs it in an empty folder. Another test makes the wheel, and the caller decides what Binance answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEED_SOURCE", raising=False)
    monkeypatch.setattr("coordinator.infra.image_files.write_image_files", lambda folder: folder / "x.whl")
    (tmp_path / ".build").mkdir()

    def run(answer, **environment):
        async def choose():
            assert answer is not None, "it must not be asked again"
            return answer, "because"

        monkeypatch.setattr(deploy_files, "choose_feed", choose)
        done = CliRunner().invoke(app, ["deploy-files", ".build"], env=environment)
        assert done.exit_code == 0, done.output
        return read_dotenv(tmp_path / ".build/chosen.env", {}).get("FEED_SOURCE"), done.stdout

    return run


def test_the_choice_of_the_first_deploy_stays(deploy):
    assert deploy("generated")[0] == "generated"
    chosen, output = deploy(None)
    assert chosen == "generated"
    assert "generated, as before" in output


def test_the_settings_take_precedence(deploy):
    deploy("generated")
    chosen, output = deploy(None, FEED_SOURCE="pyth")
    assert chosen is None
    assert "feed: pyth, as the settings say" in output


@pytest.mark.parametrize(
    ("folder", "says"),
    [("mine", "mine holds letter.txt: choose an empty folder"), ("none/.build", "there is no folder")],
)
def test_it_writes_only_into_a_folder_of_its_own(tmp_path, monkeypatch, folder, says):
    """It empties `wheels` there, whoever made it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "wheels").mkdir(parents=True)
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    done = CliRunner().invoke(app, ["deploy-files", folder])
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert (tmp_path / "mine" / "wheels").is_dir()
    assert not (tmp_path / "none").exists()
