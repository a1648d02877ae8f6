"""`coordinator init`, `demo` and `packs`: what they create, and that a refusal leaves nothing behind."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.scaffold.workspace import clean_environment, command, coordinator, load_contract, run
from tests.waiting import LIMIT_SECONDS
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.infra.models.host.model_folder import read_models
from coordinator.scaffolds import render as rendering
from coordinator.scaffolds.render import SLUG_CHARS_MAX, RenderError, package_name, packs, render
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
NODE = "crunch-node-my-challenge"
CHALLENGE = "crunch-my-challenge"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """One workspace that the tests of this module only read."""
    output = tmp_path_factory.mktemp("made")
    return render("my-challenge", "realtime", output, version="1.2.3")


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def everything_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_workspace_holds_the_nodes_folder_and_the_participants_package(workspace):
    files = set(files_in(workspace.root))
    assert {
        "README.md",
        "AGENTS.md",
        "Makefile",
        f"{NODE}/runtime_definitions/__init__.py",
        f"{NODE}/runtime_definitions/contracts.py",
        f"{NODE}/api/README.md",
        f"{NODE}/deployment/report-ui/config/global-settings.json",
        f"{NODE}/deployment/report-ui/config/leaderboard-columns.json",
        f"{NODE}/.gitignore",
        f"{NODE}/.scaffold/answers.yml",
        f"{CHALLENGE}/pyproject.toml",
        f"{CHALLENGE}/README.md",
        f"{CHALLENGE}/crunch_my_challenge/__init__.py",
        f"{CHALLENGE}/crunch_my_challenge/tracker.py",
        f"{CHALLENGE}/crunch_my_challenge/scoring.py",
        f"{CHALLENGE}/examples/models.yaml",
        f"{CHALLENGE}/examples/trend_following/main.py",
        f"{CHALLENGE}/examples/mean_reverting/main.py",
        f"{CHALLENGE}/tests/test_models.py",
        f"{CHALLENGE}/tests/test_scoring.py",
    } <= files
    assert not [name for name in files if name.endswith((".jinja", ".pyc")) or "{{" in name]
    assert len(read_models(workspace.challenge / "examples")) >= 3


def test_nothing_in_it_is_left_to_fill_in_or_refers_to_our_own_package(workspace):
    for name in files_in(workspace.root):
        text = (workspace.root / name).read_text()
        if "observe/dashboards" not in name:  # Grafana writes {{label}}
            assert "{{" not in text, name
        assert "coordinator.scaffolds" not in text, name
        if name.endswith(".py"):
            assert ast.get_docstring(ast.parse(text)), name
        if name.endswith(".json"):
            json.loads(text)


def test_the_participants_package_is_the_code_of_the_example_challenge(workspace):
    """In one place only: `coordinator up` without a workspace runs the code that a workspace begins with."""
    origin = ROOT / "scaffolds" / "challenge"
    for path in origin.rglob("*.py"):
        inside = path.relative_to(origin)
        copy = (
            workspace.challenge / "crunch_my_challenge" if len(inside.parts) == 1 else workspace.challenge
        ) / inside
        ours = path.read_text().replace("coordinator.scaffolds.challenge", "crunch_my_challenge")
        assert copy.read_text() == ours


def test_the_answers_and_the_pristine_rendering_are_kept_for_an_upgrade(workspace):
    pristine_of = workspace.node / ".scaffold"
    assert files_in(workspace.root) == sorted(
        [
            *files_in(pristine_of / "pristine"),
            *(f"{NODE}/.scaffold/pristine/{file}" for file in files_in(pristine_of / "pristine")),
        ]
    )
    for name in files_in(pristine_of / "pristine"):
        assert (pristine_of / "pristine" / name).read_bytes() == (workspace.root / name).read_bytes()
    answers = (pristine_of / "answers.yml").read_text()
    assert all(
        line in answers
        for line in ("slug: my-challenge", "package: crunch_my_challenge", "pack: realtime", '"1.2.3"')
    )


@pytest.mark.parametrize("pack", packs())
def test_the_columns_for_the_web_app_are_those_of_the_nodes_own_schema(pack, tmp_path):
    from coordinator.api.schema import columns, tip_of

    with load_contract(pack, tmp_path) as contract:
        windows = make_terms(contract, "", Settings(), 0).windows
    shipped = tmp_path / "gamed/crunch-node-gamed/deployment/report-ui/config/leaderboard-columns.json"
    assert json.loads(shipped.read_text()) == columns({window.name: tip_of(window) for window in windows})


def test_two_renderings_are_equal_byte_for_byte(workspace, tmp_path):
    again = render("my-challenge", "realtime", tmp_path, version="1.2.3")
    assert files_in(again.root) == files_in(workspace.root)
    assert all(
        (again.root / name).read_bytes() == (workspace.root / name).read_bytes()
        for name in files_in(workspace.root)
    )


def test_it_needs_no_git_and_no_settings_of_the_user(tmp_path):
    """copier looks for both; a broken file of its user's settings would otherwise end every `init`."""
    settings = tmp_path / "copier.yml"
    settings.write_text("defaults: [broken\n")
    done = coordinator(tmp_path, "init", "a", PATH="", COPIER_SETTINGS_PATH=str(settings))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a/crunch-node-a/runtime_definitions/contracts.py").is_file()


def test_init_prints_what_it_made_and_what_to_do_next(tmp_path):
    done = coordinator(tmp_path, "init", "my-challenge", "--output", "deep/er")
    assert done.returncode == 0, done.stderr
    assert f"deep/er/my-challenge/{NODE}  the node" in done.stdout
    assert f"next:  cd deep/er/my-challenge/{NODE}\n" in done.stdout
    assert everything_in(tmp_path / "deep/er/my-challenge")
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["my-challenge"]


def test_the_line_to_copy_is_correct_for_a_shell(tmp_path):
    done = coordinator(tmp_path, "init", "my-challenge", "--output", "sp ace/$x")
    assert f"next:  cd 'sp ace/$x/my-challenge/{NODE}'\n" in done.stdout


def test_the_demo_is_btc_up_with_the_realtime_pack(tmp_path):
    assert coordinator(tmp_path, "demo").returncode == 0
    node = tmp_path / "btc-up/crunch-node-btc-up"
    assert "pack: realtime" in (node / ".scaffold/answers.yml").read_text()
    assert len(read_models(tmp_path / "btc-up/crunch-btc-up/examples")) == 7


def test_packs_lists_all_packs(tmp_path):
    output = coordinator(tmp_path, "packs").stdout
    assert "realtime Which way" in " ".join(output.split())
    assert output.count("(the default)") == 1
    listed = json.loads(coordinator(tmp_path, "packs", "--json").stdout)
    assert [(pack["name"], pack["default"]) for pack in listed] == [
        ("density", False),
        ("events", False),
        ("realtime", True),
        ("tournament", False),
        ("trading", False),
    ]
    assert all(pack["about"] in output for pack in listed)


SLUGS = ["a", "0", "btc-up", "a-1-b", "x" * SLUG_CHARS_MAX]
NOT_SLUGS = [
    *(
        "",
        "A",
        "my_challenge",
        "my challenge",
        "-a",
        "a-",
        "a--b",
        "a.b",
        "ä",
        "a\n",
        "x" * (SLUG_CHARS_MAX + 1),
    ),
    *("..", "../a", "a/b", "/a", "a/../../b", ".", "~", "{{ slug }}", "a;b", "\x00"),
]


@pytest.mark.parametrize("slug", SLUGS, ids=[repr(slug[:12]) for slug in SLUGS])
def test_a_slug_is_made_from_the_name(slug, tmp_path):
    workspace = render(slug, "realtime", tmp_path, version="1")
    assert (workspace.challenge / package_name(slug) / "tracker.py").is_file()
    assert package_name(slug).isidentifier()


@pytest.mark.parametrize("slug", NOT_SLUGS, ids=[repr(slug[:12]) for slug in NOT_SLUGS])
def test_a_name_that_is_no_slug_is_refused_and_nothing_is_written(slug, tmp_path):
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    before = everything_in(tmp_path)
    with pytest.raises(RenderError, match="lower-case words"):
        render(slug, "realtime", folder, version="1")
    assert everything_in(tmp_path) == before


REFUSED = {
    "no slug": (("init", "Bad Name/../x"), "the name 'Bad Name/../x' must be lower-case"),
    "a path that escapes": (("init", "../x"), "the name '../x' must be lower-case"),
    "an existing folder": (("init", "there"), "there exists; choose another name"),
    "a file in its place": (("init", "file"), "file exists; choose another name"),
    "a link in its place, to nowhere": (("init", "link"), "link exists; choose another name"),
    "an unknown pack": (
        ("init", "a", "--pack", "nope"),
        "there is no pack 'nope'; known are density, events, realtime, tournament, trading",
    ),
    "a pack that escapes": (("init", "a", "--pack", "../base"), "there is no pack '../base'"),
    "an output that is a file": (("init", "a", "--output", "file"), "cannot write into"),
    "an output below a file": (("init", "a", "--output", "file/b/c"), "cannot write into"),
    "an existing demo": (("demo", "--output", "demos"), "btc-up exists"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_one_line_with_exit_code_2_and_nothing_is_written(
    arguments, words, tmp_path, monkeypatch
):
    (tmp_path / "there").mkdir()
    (tmp_path / "demos/btc-up").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = everything_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert (done.stdout, done.stderr.count("\n"), done.stderr[:7]) == ("", 1, "error: ")
    assert everything_in(tmp_path) == before


def test_from_the_command_line_a_refusal_is_one_line_too(tmp_path):
    done = coordinator(tmp_path, "init", "../x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the name '../x' must be lower-case")
    assert everything_in(tmp_path) == []


def test_with_force_existing_files_are_moved_aside_and_not_lost(tmp_path):
    for n in (1, 2):
        (tmp_path / "there").mkdir(exist_ok=True)
        (tmp_path / "there/mine.txt").write_text(f"work {n}")
        done = coordinator(tmp_path, "init", "there", "--force")
        assert done.returncode == 0, done.stderr
        assert f"the old folder is now there.old-{n}" in done.stdout
        assert (tmp_path / f"there.old-{n}/mine.txt").read_text() == f"work {n}"
        assert not (tmp_path / "there/mine.txt").exists()
        assert (tmp_path / "there/crunch-node-there/runtime_definitions/contracts.py").is_file()


def test_a_rendering_that_fails_half_way_leaves_the_existing_files(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/mine.txt").write_text("work")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rendering, "_put_aside", full)
    before = everything_in(tmp_path)
    with pytest.raises(RenderError, match="No space"):
        render("old", "realtime", tmp_path, version="1", force=True)
    with pytest.raises(RenderError, match="No space"):
        render("new", "realtime", tmp_path / "a" / "b", version="1", force=True)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("pack", packs())
def test_a_pack_has_three_models_with_owners_and_a_contract_that_fits_a_page(pack, tmp_path):
    workspace = render("a-b", pack, tmp_path, version="1")
    entries = read_models(workspace.challenge / "examples")
    assert len(entries) >= 3
    assert len({entry.cruncher_id for entry in entries}) == len(entries)
    assert all(entry.wallet_pubkey and entry.cruncher_name for entry in entries)
    contract = (workspace.node / "runtime_definitions/contracts.py").read_text()
    assert len(contract.splitlines()) <= 85
    reasons = workspace.challenge / "CANNOT_BE_GAMED.md"
    assert "cannot be gamed" in (reasons.read_text() if reasons.exists() else contract)
    assert "coordinator.scaffolds" not in "".join(
        path.read_text() for path in workspace.challenge.rglob("*.py")
    )


def test_a_pack_is_laid_over_the_base(tmp_path, monkeypatch):
    """What `packs/` gets next: a folder with a `pack.yaml`, and in `template/` what differs."""
    pack = tmp_path / "packs" / "silent"
    (pack / "template" / "crunch-node-{{ slug }}" / "api").mkdir(parents=True)
    (pack / "pack.yaml").write_text("about: nothing is asked\npackage_from: challenge\n")
    (pack / "template" / "README.md.jinja").write_text("of {{ slug }}, silent\n")
    (pack / "template" / "crunch-node-{{ slug }}" / "api" / "more.md").write_text("{{ slug }} stays\n")
    monkeypatch.setattr(rendering, "PACKS", tmp_path / "packs")
    assert list(packs()) == ["silent"]
    workspace = render("a-b", "silent", tmp_path / "out", version="1")
    assert (workspace.root / "README.md").read_text() == "of a-b, silent\n"
    assert (workspace.node / "api/more.md").read_text() == "{{ slug }} stays\n"
    assert (workspace.node / "api/README.md").is_file()
    assert (workspace.challenge / "crunch_a_b/tracker.py").is_file()


def test_the_challenge_is_an_installable_package_that_needs_nothing(workspace, tmp_path):
    done = run(
        workspace.challenge,
        [
            sys.executable,
            "-Im",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(tmp_path / "dist"),
            ".",
        ],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("crunch_my_challenge-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        f"crunch_my_challenge/{file}" for file in ("__init__.py", "tracker.py", "scoring.py", "py.typed")
    } <= {*names}
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    alone = run(
        tmp_path,
        [
            sys.executable,
            "-S",
            "-c",
            "from crunch_my_challenge import scoring, tracker; print(scoring.score(0.5, 1))",
        ],
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert (alone.returncode, alone.stdout) == (0, "0.75\n"), alone.stderr


def test_copier_is_not_imported_before_it_is_needed(tmp_path):
    code = "import sys; from coordinator.cli import main; sys.exit('copier' in sys.modules)"
    assert subprocess.run([sys.executable, "-Ic", code], check=False, timeout=LIMIT_SECONDS).returncode == 0
    assert (
        "init"
        in subprocess.run(
            command("--help"),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
            env=clean_environment(),
        ).stdout
    )
