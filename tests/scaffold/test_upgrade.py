"""A workspace of an older version is upgraded to this one: the operator's changes stay, whatever interrupts the
upgrade.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from tests.scaffold.workspace import coordinator
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.scaffolds import merging, upgrade
from coordinator.scaffolds.merging import changes_of
from coordinator.scaffolds.render import RenderError, render

NODE, CHALLENGE = "crunch-node-my-challenge", "crunch-my-challenge"
PRISTINE = f"{NODE}/.scaffold/pristine"
RUNBOOK, ENV = f"{NODE}/RUNBOOK.md", f"{NODE}/.env"
OLD = "0.0.9"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """What this version makes; only read."""
    return render("my-challenge", "realtime", tmp_path_factory.mktemp("now"), version="0.1.0")


@pytest.fixture
def workspace(rendered, tmp_path):
    return shutil.copytree(rendered.root, tmp_path / "my-challenge")


@pytest.fixture
def rendering(rendered, monkeypatch):
    """Rendering takes half a second, and gives the same each time."""
    monkeypatch.setattr(upgrade, "render", lambda *_, **__: rendered)


def older(workspace, path, change):
    """As an older version had rendered it: `change` makes its text of today's; None where it had no such file."""
    for folder in (workspace, workspace / PRISTINE):
        text = (folder / path).read_text() if (folder / path).exists() else ""
        if (was := change(text)) is None:
            (folder / path).unlink()
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(was)


def edit(workspace, path, change):
    """As the operator changed it."""
    (workspace / path).write_text(change((workspace / path).read_text()))


def older_workspace(workspace):
    """A file of each fate: replaced, merged, in conflict, added, removed, beside."""
    older(workspace, f"{NODE}/.scaffold/answers.yml", lambda text: text.replace("0.1.0", OLD))
    older(workspace, "README.md", lambda text: f"# The old README\n{text}")
    older(workspace, RUNBOOK, lambda text: f"An old line\n{text}")
    edit(workspace, RUNBOOK, lambda text: f"{text}\nMy own way to the machine room\n")
    older(workspace, f"{CHALLENGE}/pyproject.toml", lambda text: text.replace("[project]", "[project] # old"))
    edit(workspace, f"{CHALLENGE}/pyproject.toml", lambda text: text.replace("# old", "# mine"))
    older(workspace, f"{NODE}/pytest.ini", lambda _: None)
    older(workspace, f"{NODE}/old.txt", lambda _: "no more\n")
    older(workspace, ENV, lambda text: text.replace("COMPOSE_PROFILES=single", "COMPOSE_PROFILES=old"))
    edit(workspace, ENV, lambda text: text.replace("COMPOSE_PROFILES=old", "COMPOSE_PROFILES=ha"))
    (workspace / ENV).chmod(0o600)


ACTIONS = {
    f"{CHALLENGE}/pyproject.toml": "conflict",
    ENV: "beside",
    f"{NODE}/.scaffold/answers.yml": "replaced",
    RUNBOOK: "merged",
    f"{NODE}/old.txt": "removed",
    f"{NODE}/pytest.ini": "added",
    "README.md": "replaced",
}


def tree(folder: Path, *without: str) -> dict[str, tuple[bytes, int]]:
    return {
        name: (path.read_bytes(), path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (name := path.relative_to(folder).as_posix()).startswith(without)
    }


def test_each_file_gets_its_expected_state_and_nothing_of_the_operator_is_lost(
    workspace, rendered, rendering
):
    older_workspace(workspace)
    was = tree(workspace)
    outcome = upgrade.upgrade(workspace, version="0.1.0")
    assert {change.path: change.action for change in outcome.changes} == ACTIONS
    assert outcome.from_version == OLD
    now = {
        name: content.decode()
        for name, (content, _) in tree(workspace, PRISTINE).items()
        if "book" not in name
    }
    assert now["README.md"] == (rendered.root / "README.md").read_text()
    assert now[RUNBOOK] == (rendered.root / RUNBOOK).read_text() + "\nMy own way to the machine room\n"
    for line in ("<<<<<<< yours", "[project] # mine", "||||||| before", "[project] # old", ">>>>>>> new"):
        assert line in now[f"{CHALLENGE}/pyproject.toml"]
    assert now[ENV].encode() == was[ENV][0]
    assert now[f"{ENV}.new"] == (rendered.root / ENV).read_text()
    assert f"{NODE}/old.txt" not in now
    assert (workspace / ENV).stat().st_mode & 0o777 == 0o600
    assert tree(workspace / PRISTINE) == tree(rendered.node / ".scaffold/pristine")
    again = upgrade.upgrade(workspace / NODE, version="0.1.0")
    assert (again.changes, again.resumed, again.from_version) == ([], [], "0.1.0")


def test_copying_back_the_old_files_undoes_an_upgrade(workspace, rendering):
    older_workspace(workspace)
    was = tree(workspace)
    upgrade.upgrade(workspace, version="0.1.0")
    new_pristine = workspace / PRISTINE
    shutil.rmtree(new_pristine)
    shutil.copytree(workspace / NODE / ".scaffold" / "before", workspace, dirs_exist_ok=True)
    back = tree(workspace, f"{NODE}/.scaffold/before")
    assert {name: back[name] for name in was} == was
    assert set(back) - set(was) == {f"{NODE}/pytest.ini", f"{ENV}.new"}


def test_a_dry_run_reports_the_same_and_writes_nothing(workspace, rendering):
    older_workspace(workspace)
    was = tree(workspace)
    outcome = upgrade.upgrade(workspace, version="0.1.0", dry_run=True)
    assert {change.path: change.action for change in outcome.changes} == ACTIONS
    assert tree(workspace) == was


def test_without_git_the_new_file_stands_beside_and_none_is_marked(workspace, rendering, monkeypatch):
    older_workspace(workspace)
    monkeypatch.setattr(merging.shutil, "which", lambda _: None)
    was = tree(workspace)
    outcome = upgrade.upgrade(workspace, version="0.1.0")
    beside = {change.path for change in outcome.changes if change.action == "beside"}
    assert beside == {RUNBOOK, ENV, f"{CHALLENGE}/pyproject.toml"} == {file.path for file in outcome.unmerged}
    now = tree(workspace)
    assert all(now[path] == was[path] and f"{path}.new" in now for path in beside)


@pytest.mark.parametrize(
    ("old", "mine", "new", "expected"),
    [
        ("a", "a", "a", []),
        ("a", "mine", "a", []),
        ("a", "new", "new", []),
        (None, "new", "new", []),
        ("a", None, None, []),
        ("a", "a", "new", ["replaced"]),
        (None, None, "new", ["added"]),
        ("a", "a", None, ["removed"]),
        ("a", None, "new", ["stays"]),
        ("a", "mine", None, ["stays"]),
        (None, "mine", "new", ["beside"]),
        ("a\0", "mine\0", "new\0", ["beside"]),
        ("a\n", "mine\n", "new\n", ["conflict"]),
        ("1\n2\n3\n4\n5\n", "1\n2\n3\n4\nmine\n", "new\n2\n3\n4\n5\n", ["merged"]),
    ],
)
def test_every_case_of_three_files(old, mine, new, expected):
    def files(text):
        return {} if text is None else {"x": text.encode()}

    assert [change.action for change in changes_of(files(old), files(mine), files(new))] == expected


def test_a_removed_part_does_not_come_back(workspace, rendering):
    older(workspace, f"{CHALLENGE}/README.md", lambda _: None)
    shutil.rmtree(workspace / CHALLENGE)
    (change,) = upgrade.upgrade(workspace, version="0.1.0").changes
    assert (change.path, change.action) == (f"{CHALLENGE}/README.md", "stays")
    assert not (workspace / CHALLENGE).exists()


def test_a_folder_that_is_no_workspace_or_lacks_its_pristine_copy_is_refused(workspace, tmp_path, rendering):
    with pytest.raises(RenderError, match="is no workspace"):
        upgrade.upgrade(tmp_path, version="0.1.0")
    shutil.rmtree(workspace / PRISTINE)
    with pytest.raises(RenderError, match=r"pristine is missing, .* of coordinator-node 0\.1\.0 makes"):
        upgrade.upgrade(workspace, version="0.1.0")
    (workspace / NODE).rename(workspace / "node")
    with pytest.raises(RenderError, match="name the folder crunch-node-my-challenge again"):
        upgrade.upgrade(workspace / "node", version="0.1.0")


WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")


def killed_at(workspace, count):
    """Upgrade in a process that kills itself before its `count`-th write; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        left = count

        def kill_at_last(event, arguments):
            nonlocal left
            if event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                if str(workspace) not in str(arguments[0]):
                    return
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill_at_last)
        upgrade.upgrade(workspace, version="0.1.0")
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize("every", [5, pytest.param(3, marks=pytest.mark.slow)])
def test_an_upgrade_killed_at_any_write_is_completed_by_the_next_one(workspace, rendering, tmp_path, every):
    older_workspace(workspace)
    was = tree(workspace)
    whole = shutil.copytree(workspace, tmp_path / "whole")
    upgrade.upgrade(whole, version="0.1.0")
    expected, before = tree(whole), tree(whole / NODE / ".scaffold/before")
    resumed = 0
    for count in range(1, 100_000, every):
        broken = shutil.copytree(workspace, tmp_path / "broken")
        if not killed_at(broken, count):
            break
        for name, (content, _) in tree(broken, f"{NODE}/.scaffold").items():
            if not name.endswith(".upgrade"):
                allowed = [files[name][0] for files in (was, expected) if name in files]
                assert content in allowed, (count, name)
        outcome = upgrade.upgrade(broken, version="0.1.0")
        resumed += bool(outcome.resumed)
        assert tree(broken) == expected, count
        assert tree(broken / NODE / ".scaffold/before") == before, count
        shutil.rmtree(broken)
    assert count > resumed > len(ACTIONS)


def test_edits_between_a_kill_and_the_next_upgrade_stay(workspace, rendering, tmp_path):
    older_workspace(workspace)
    for count in range(100, 100_000, 5):
        broken = shutil.copytree(workspace, tmp_path / "broken")
        assert killed_at(broken, count)
        if (broken / NODE / ".scaffold/upgrade/plan.json").exists():
            break
        shutil.rmtree(broken)
    edit(broken, "README.md", lambda text: f"{text}in the meantime\n")
    outcome = upgrade.upgrade(broken, version="0.1.0")
    assert "README.md" in outcome.resumed
    assert (broken / "README.md").read_text().endswith("in the meantime\n")
    assert (broken / "README.md.new").is_file()


@pytest.mark.parametrize("what", ["a file", "a folder", "a step out of a killed upgrade"])
def test_nothing_is_written_through_a_link_or_out_of_the_workspace(workspace, rendering, tmp_path, what):
    """A workspace may come from somebody else."""
    older_workspace(workspace)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "README.md").write_text("mine\n")
    if what == "a file":
        (workspace / "README.md").unlink()
        (workspace / "README.md").symlink_to(outside / "README.md")
    elif what == "a folder":
        folder = next(path for path in sorted(workspace.iterdir()) if path.is_dir() and path.name != NODE)
        shutil.copytree(folder, outside / "folder")
        shutil.rmtree(folder)
        folder.symlink_to(outside / "folder")
    else:
        staged = workspace / NODE / ".scaffold/upgrade"
        path = os.path.relpath(outside / "README.md", workspace)
        (staged / "new" / path).resolve().parent.mkdir(parents=True, exist_ok=True)
        (staged / "new").mkdir(parents=True)
        (staged / "plan.json").write_text(json.dumps([{"path": path, "before": "", "removed": False}]))
    was = tree(workspace), tree(outside)
    with pytest.raises(upgrade.RenderError, match=r"is a link, and no file|leads out of the workspace"):
        upgrade.upgrade(workspace, version="0.1.0")
    assert (tree(workspace), tree(outside)) == was


def test_a_plan_that_cannot_be_read_is_refused(workspace, rendering):
    older_workspace(workspace)
    staged = workspace / NODE / ".scaffold/upgrade"
    staged.mkdir()
    (staged / "plan.json").write_text("[{")
    with pytest.raises(upgrade.RenderError, match=r"remove .*upgrade, and upgrade again"):
        upgrade.upgrade(workspace, version="0.1.0")


def test_the_command_lists_what_to_look_at(workspace, tmp_path):
    """With real templates: this version's own workspace has nothing to do."""
    init_done = coordinator(tmp_path, "init", "fresh")
    assert init_done.returncode == 0, init_done.stderr
    done = coordinator(tmp_path / "fresh" / "crunch-node-fresh", "upgrade")
    assert (done.returncode, done.stdout.endswith("nothing to do\n")) == (0, True), done.stdout + done.stderr
    fresh = tmp_path / "fresh"
    for folder in (fresh, fresh / "crunch-node-fresh/.scaffold/pristine"):
        (folder / "README.md").write_text("old\n")
    (fresh / "README.md").write_text("mine\n")
    for dry in (["--dry-run"], []):
        result = CliRunner().invoke(app, ["upgrade", str(fresh), *dry])
        assert result.exit_code == 1
        assert "conflict README.md  (both of us changed the same lines: 1 places are marked)" in result.output
        assert "1 files to look at: README.md" in result.output
    assert "<<<<<<< yours" in (fresh / "README.md").read_text()
    assert CliRunner().invoke(app, ["upgrade", str(tmp_path)]).exit_code == 2
