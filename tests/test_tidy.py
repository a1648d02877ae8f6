"""Style rules that are tests: which folder may import which, what the core may not call."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from coordinator.streams.topology import BIRTH, STREAMS

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("streams", "projections", "api", "cli", "scaffolds", "infra")

PIPELINE = (
    "streams/feeds",
    "streams/inputs",
    "streams/models",
    "streams/predictions",
    "streams/scores",
    "streams/snapshots",
    "streams/checkpoints",
)
CORE = (
    "streams",
    "streams/log",
    "streams/contract",
    "streams/contract/checking",
    *PIPELINE,
    "streams/engine",
    "streams/audit",
    "streams/evidence",
    "streams/signing",
)
"""The pure folders: no I/O, no clock, no randomness."""

ALLOWED = {
    # Each folder with the folders that it may import, upstream before downstream. It may import itself too. Modules at
    # the top of streams/ (events, ports, settings, topology) are "streams".
    "streams": {"streams/log"},
    "streams/log": {"streams"},
    "streams/contract": {"streams", "streams/log"},
    "streams/feeds": {"streams", "streams/log", "streams/contract"},
    "streams/inputs": {"streams", "streams/log", "streams/contract", "streams/feeds"},
    "streams/models": {"streams", "streams/log", "streams/contract"},
    "streams/predictions": {"streams", "streams/log", "streams/contract"},
    "streams/scores": {"streams", "streams/log", "streams/contract"},
    "streams/snapshots": {"streams", "streams/log", "streams/contract", "streams/scores"},
    "streams/checkpoints": {
        "streams",
        "streams/log",
        "streams/contract",
        "streams/scores",
        "streams/signing",
    },
    # Code that tries a contract or computes a checkpoint again runs the stages' own parts.
    "streams/contract/checking": {"streams", "streams/log", "streams/contract", *PIPELINE},
    "streams/evidence": {"streams", "streams/log", "streams/contract", "streams/audit", "streams/signing"},
    "streams/signing": {"streams", "streams/log"},
    "streams/engine": {"streams", "streams/log", "streams/contract", *PIPELINE},
    "streams/audit": {"streams", "streams/log", "streams/contract", *PIPELINE, "streams/engine"},
    # The shells. infra implements ports and imports no stage (below). scaffolds imports nothing.
    "streams/net": {*CORE},
    "streams/sources": {*CORE, "streams/net"},
    "streams/backtest": {*CORE, "streams/sources", "infra"},
    "streams/agents": {*CORE, "streams/net", "streams/sources", "infra"},
    "streams/simulation": {*CORE, "streams/agents", "infra", "projections"},
    "projections": {*CORE, "infra"},
    "api": {*CORE, "projections", "infra"},
    "infra": {*CORE, "streams/net"},
    "scaffolds": set(),
    "cli": {
        *CORE,
        "streams/net",
        "streams/sources",
        "streams/agents",
        "streams/backtest",
        "streams/simulation",
        "projections",
        "api",
        "infra",
        "scaffolds",
    },
}

BANNED_IN_CORE = {
    r"\bdatetime\.now\(": "take the time as an argument, in ms",
    r"\btime\.(time|time_ns|monotonic)\(": "take the time as an argument",
    r"\bwall_ms\(\)|\bcoordinator\.streams\.clock\b": "take the time as an argument, in ms",
    r"\buuid4\(": "make the id from content (streams/log/ids.py)",
    r"\brandom\.": "take a seed as an argument",
    r"\bos\.environ|\bgetenv\(": "streams/settings.py reads settings from a mapping that is handed in",
    r"\bopen\(|\.read_text\(|\.write_text\(": "files belong to infra/ or streams/sources/",
    r"^\s*(import|from) (faust|aiokafka|asyncio|httpx|websockets)\b": "I/O belongs to streams/agents or infra/",
}
LAYERS = {
    "api": "routes about it",
    "cli": "a command about it",
    "streams/events": "its events",
    "streams/contract": "what the contract says about it",
    "streams/contract/rules": "its section in the rules in words",
    "streams/audit": "it, computed again",
    "streams/audit/explain": "how it came about",
    "projections/views": "its read model",
    "projections/explaining": "what its explanation reads",
    ".dev/documentation": "its page in the book",
}
"""Each folder with its part of a topic. A module here may have the name of the module it belongs to. Elsewhere a name
must be unique.
"""
SHARED_NAMES = {
    "__init__": "Python's",
    "__main__": "Python's",
    "stage": "each folder of the pipeline has its stage; streams/log has the frame of them all",
    "state": "what the stage beside it folds",
    "questions": "posted questions in the state of the stage beside it",
    "catalog": "what can be named in a setting or a command: sources, drills",
    "market": "prices by time: what the input stage still needs of them, and what the drills play",
    "source": "each folder of sources has its source",
    "messages": "each source that converts messages has them",
    "worker": "each worker that is not a stage alone, and the command that starts it",
}
"""Names that modules of several folders share, and why nobody looks for them in the wrong folder."""
VAGUE_NAMES = {"one", "said", "known", "given", "found", "kept", "made"}
PARAMETERS_MAX = 7
MORE_PARAMETERS = {
    "streams/backtest/entry_point.py:backtest": "participants call it with the few options that they want, by their names",
    "streams/log/counting.py:Decision": "made for each decision that is read or taken: a part of it would cost as much",
}
"""Functions with more than PARAMETERS_MAX parameters, and why an object with a name of its own is not better."""
DURATION = re.compile(r"_?(?:(?:SECOND|MINUTE|HOUR|DAY|WEEK|YEAR)_(?:MS|SECONDS)|EPOCH|FAR_MS)")
CLOCK = ROOT / "streams" / "clock.py"
"""The one shell at the top of streams/, because api, infra and the sources have no other folder in common."""


def _modules() -> Iterator[tuple[Path, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.is_relative_to(ROOT / "api" / "book"):  # made: `docs/` has the same files
                continue
            yield path, _part(path.relative_to(ROOT).parts)


def _part(parts: tuple[str, ...]) -> str:
    """The longest folder of the table that contains a file, or a dotted name with the name it imports."""
    folders = ["/".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1)]
    return next(folder for folder in folders if folder in ALLOWED)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _imported(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    """(line, the parts of the dotted name after `coordinator`) of each import of ours."""
    return list(_imports(_tree(path)))


def _imports(tree: ast.Module) -> Iterator[tuple[int, tuple[str, ...]]]:
    for node in ast.walk(tree):
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
        if _part((*target, "x")) not in {part, *ALLOWED[part]}
    ]
    assert not wrong, "\n".join(wrong)


def test_infra_implements_ports_and_imports_no_stage() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports the stage of {target[1]}"
        for path, part in _modules()
        if part == "infra"
        for line, target in _imported(path)
        if "/".join(target[:2]) in PIPELINE and target[2] == "stage"
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_starts_its_commands() -> None:
    """A process that is started by name counts as an import."""
    wrong = [
        f"{path.relative_to(ROOT)} names coordinator.cli"
        for path, part in _modules()
        if part not in ("cli", "scaffolds") and "coordinator.cli" in path.read_text()
    ]
    assert not wrong, "\n".join(wrong)


def test_the_api_and_the_command_line_use_the_projectors_interface_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, part in _modules()
        if part in ("api", "cli")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"folder\.readers|projector\.folder|store\.positions", line)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("pattern", "instead"), BANNED_IN_CORE.items())
def test_the_core_is_pure(pattern: str, instead: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()} -> {instead}"
        for path, part in _modules()
        if part in CORE and path != CLOCK
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_docstring() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path, _ in _modules()
        if path.name != "__init__.py" and not ast.get_docstring(_tree(path))
    ]
    assert not silent, silent


def test_a_variable_is_named_after_what_it_holds() -> None:
    """`one`, `known` or `made` fit every value, so they hide the type where money is summed. Fields of classes are
    exempt: they are the stored format, and their class says what they belong to.
    """
    files = [path for path, _ in _modules()] + sorted((ROOT / ".dev").rglob("*.py"))
    files += sorted((ROOT / "docs").rglob("*.py"))  # authors learn from them
    files += sorted((ROOT / "tests").rglob("*.py"))
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files
        for line, name in _bound(_tree(path))
        if name in VAGUE_NAMES
    ]
    assert not wrong, "\n".join(wrong)


def _bound(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of each variable and parameter that a module binds, without the fields of its classes."""
    fields: set[ast.expr] = set()
    for node in ast.walk(tree):  # a class comes before what stands in it
        match node:
            case ast.ClassDef(body=body):
                for statement in body:
                    if isinstance(statement, ast.Assign | ast.AnnAssign):
                        fields.update(
                            statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                        )
            case ast.Name(id=name, ctx=ast.Store()) if node not in fields:
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case (
                ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
                | ast.ExceptHandler(name=str(name))
            ):
                yield node.lineno, name


def test_a_length_of_time_is_defined_in_one_place() -> None:
    """A second definition may differ, as two `FAR_FUTURE_MS` did. Rendered workspaces import nothing of ours."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: import {node.id} from streams/durations.py"
        for path, part in _modules()
        if part != "scaffolds" and path.name != "durations.py"
        for statement in _tree(path).body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and DURATION.fullmatch(node.id)
    ]
    assert not wrong, "\n".join(wrong)


def test_what_belongs_together_is_an_object_with_a_name() -> None:
    """In a call with nine values a reader cannot see what belongs together. The parameters of commands are their
    options, so they are exempt.
    """
    many = {
        f"{path.relative_to(ROOT)}:{name}": count
        for path, part in _modules()
        for name, function in _functions(_tree(path).body)
        if (count := len(_parameters(function))) > PARAMETERS_MAX
        and not (part == "cli" and re.search(r"\btyper\.|Option\b", ast.unparse(function.args)))
    }
    surplus = {name: count for name, count in many.items() if name not in MORE_PARAMETERS}
    assert not surplus, surplus
    assert set(many) == set(MORE_PARAMETERS), (
        "MORE_PARAMETERS lists a function that does not need it any more"
    )


def _functions(
    body: list[ast.stmt], of: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(name, function) of all functions; the name of `__init__` is its class's."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (of if node.name == "__init__" else node.name), node
            yield from _functions(node.body)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args
    named = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in named if name not in ("self", "cls")]


def test_a_module_name_is_unique_unless_both_modules_belong_to_one_topic() -> None:
    files = [path for path, part in _modules() if part != "scaffolds"] + sorted(
        (ROOT / ".dev").glob("*/*.py")
    )
    homes: dict[str, set[str]] = {}
    for path in files:
        if ".dev/coordinator" not in str(path):
            homes.setdefault(path.stem, set()).add(str(path.parent.relative_to(ROOT)))
    double = {name: sorted(folders) for name, folders in homes.items() if len(folders - set(LAYERS)) > 1}
    surplus = {name: folders for name, folders in double.items() if name not in SHARED_NAMES}
    assert not surplus, surplus
    assert set(double) == set(SHARED_NAMES), "SHARED_NAMES lists a name that is not double any more"


def test_no_file_has_grown_past_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path, _ in _modules()
        if len(path.read_text().splitlines()) > 400
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


def test_the_topology_names_every_event_of_the_format_once_or_as_passed_on() -> None:
    from coordinator.streams.log.envelope import KINDS

    named = [kind for stream in STREAMS for kind in stream.events]
    assert {BIRTH, *named} == set(KINDS)
    twice = {kind for kind in named if named.count(kind) > 1}
    assert twice == {"CrunchConfigured", "QuestionPosted", "QuestionVoided", "StakesPosted"}


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
