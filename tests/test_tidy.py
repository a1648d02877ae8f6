"""Style that is a test: which folder may import which, what the core may not call, and that the README is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.streams.topology import BIRTH, STREAMS, mermaid

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("streams", "projections", "api", "cli", "scaffolds", "infra")

ALLOWED = {
    # contract <- stages <- agents; events <- projections <- api; infra implements ports; scaffolds imports nothing
    "core": {"core"},
    "net": {"core", "net"},
    "agents": {"core", "agents", "sources", "net", "infra"},
    "sources": {"core", "sources", "net"},
    "projections": {"core", "projections", "infra"},
    "api": {"core", "projections", "api", "infra"},
    "infra": {"core", "net", "infra"},
    "scaffolds": {"scaffolds"},
    "cli": {"core", "agents", "sources", "net", "projections", "api", "cli", "infra", "scaffolds"},
}

STAGES = {"feed", "inputs", "prediction", "registry", "score", "aggregate", "checkpoint"}

BANNED_IN_CORE = {
    r"\bdatetime\.now\(": "take the time as an argument, in ms",
    r"\btime\.(time|time_ns|monotonic)\(": "take the time as an argument",
    r"\buuid4\(": "make the id from content (streams/ids.py)",
    r"\brandom\.": "take a seed as an argument",
    r"\bos\.environ|\bgetenv\(": "streams/settings.py reads settings from a mapping that is handed in",
    r"\bopen\(|\.read_text\(|\.write_text\(": "files belong to infra/ or streams/sources/",
    r"^\s*(import|from) (faust|aiokafka|asyncio|httpx|websockets)\b": "I/O belongs to streams/agents or infra/",
}


def _modules() -> Iterator[tuple[Path, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, _part(path.relative_to(ROOT).parts)


def _part(parts: tuple[str, ...]) -> str:
    if parts[0] != "streams":
        return parts[0]
    return parts[1] if len(parts) > 2 and parts[1] in ("agents", "sources", "net") else "core"


def _imported(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = tuple(name.split("."))
            if parts[0] == "coordinator" and len(parts) > 1:
                yield node.lineno, parts[1:]


def test_arrows_between_folders_point_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} ({part}) imports coordinator.{'.'.join(target)}"
        for path, part in _modules()
        for line, target in _imported(path)
        if _part((*target, "x")) not in ALLOWED[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_infra_implements_ports_and_imports_no_stage() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports the stage {target[1]}"
        for path, part in _modules()
        if part == "infra"
        for line, target in _imported(path)
        if target[0] == "streams" and len(target) > 1 and target[1] in STAGES
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("pattern", "instead"), BANNED_IN_CORE.items())
def test_the_core_is_pure(pattern: str, instead: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()} -> {instead}"
        for path, part in _modules()
        if part == "core"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path, _ in _modules()
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent, silent


def test_no_file_has_grown_past_400_lines() -> None:
    # events.py is one list: every event of the format on one page.
    long = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path, _ in _modules()
        if path.name != "events.py" and len(path.read_text().splitlines()) > 400
    }
    assert not long, long


def test_no_machine_path_or_registry_address_stands_in_a_tracked_file() -> None:
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
    ).stdout.split("\0")
    pattern = re.compile(
        r"https?://[^ \"'`]*(/simple\b|/packages/|/maven2|registry\.)|(?<![\w.])/(work|root|farm)/"
    )
    wrong = []
    for name in filter(None, files):
        path = ROOT / name
        if path.is_symlink() or not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        wrong += [f"{name}: {match.group(0)}" for match in pattern.finditer(text)]
    assert not wrong, wrong


def test_no_market_data_is_in_the_repository() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=False, text=True).stdout
    assert not re.findall(r"(?im)^.*\.(?:csv|csv\.gz|parquet|feather)$", files)


def test_the_readme_holds_the_diagram_of_the_topology() -> None:
    readme = (ROOT / "README.md").read_text()
    assert f"```mermaid\n{mermaid()}```" in readme, "run: coordinator topology"


def test_the_topology_names_every_event_of_the_format_once_or_as_terms_passed_on() -> None:
    from coordinator.streams.envelope import KINDS

    named = [kind for stream in STREAMS for kind in stream.events]
    assert {BIRTH, *named} == set(KINDS)
    twice = {kind for kind in named if named.count(kind) > 1}
    assert twice == {"CrunchConfigured"}


def test_importing_streams_from_the_root_is_prevented() -> None:
    # `python -m` from the root would make `import streams` succeed, with second class objects.
    run = subprocess.run(
        [sys.executable, "-I", "-c", "import streams"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    assert run.returncode != 0
    assert "No module named 'streams'" in run.stderr


def test_every_test_that_the_security_table_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 10
    for file, test in named:
        text = (ROOT / file).read_text()
        assert not test or f"def {test}(" in text, f"{file}::{test}"
