"""Keeps `import streams` from working beside `import coordinator.streams`.

`python -m pytest` puts the checkout's root on the module path. Then `streams` imports as well, from the same
files, and every class exists twice: an event decoded by one is no instance of the other, and `match` falls
through. So the root leaves the path, and an import that would still find our folders there (something put the
root back) is refused with the right name. tests/test_packaging.py proves both.

`make test` runs the files of tests side by side in several processes (pytest-xdist). What that needs is here too.
"""

from __future__ import annotations

import gc
import os
import runpy
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import structlog
from hypothesis import settings

ROOT = Path(__file__).resolve().parent
FOLDERS = frozenset({"api", "cli", "infra", "projections", "scaffolds", "streams"})


class RefuseSecondImport(MetaPathFinder):
    """Refuses a top-level import of one of our folders; other packages of that name it lets pass."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in FOLDERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None:
            return None
        places = [*(spec.submodule_search_locations or []), spec.origin or ""]
        if any(place and Path(place).resolve().is_relative_to(ROOT / fullname) for place in places):
            raise ImportError(
                f"import coordinator.{fullname}, not {fullname}: it would make every class twice"
            )
        return spec


sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
sys.meta_path.insert(0, RefuseSecondImport())

# A deadline of an example is a bound on the wall clock, which a busy machine breaks: no test has one.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# By default structlog lets rich draw a traceback, with the source coloured: up to 0.1 s of CPU for each that is logged.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

LONG_FILES = frozenset(
    {
        *("test_contract_apply.py", "test_crash_equivalence.py", "test_ownership.py", "test_explain.py"),
        *(
            "test_guard.py",
            "test_predict_crash.py",
            "test_tutorials.py",
            "test_up.py",
            "test_two_crunches.py",
        ),
        *("test_questions_whole_node.py", "test_page.py", "test_kafka_security.py", "test_drills.py"),
        *("test_workspace.py", "test_main_job.py", "test_corrections.py", "test_kafka_rights.py"),
        *("test_broker_outage.py", "test_posted_round.py", "test_feed_history.py", "test_poison.py"),
        *(
            "test_accessibility.py",
            "test_questions_killed.py",
            "test_projector.py",
        ),  # all these with a broker
        *(
            "test_canaries.py",
            "test_fuzz.py",
            "test_survival.py",
            "test_traces_lost.py",
            "test_keeper.py",
        ),  # without
        *("test_contract_trial.py", "test_hidden_questions.py", "test_clock_seams.py", "test_packaging.py"),
        *("test_model_processes.py", "test_shadow.py", "test_host.py", "test_check.py", "test_checking.py"),
    }
)
"""Files that take longer than fifteen seconds."""
LONG_FILE = 5
"""How many others a long file stands for: two long ones that wait do not begin together."""
BROKER_FILES_WITHIN = 0.7
"""The part of a run in which the files that need a broker begin: behind it, no long one holds up the end."""
forks_of_run: list[Any] = []
"""The processes of the run, in the one that started them (`tests.forked.ForkedProcess`)."""
said_at_the_end = pytest.StashKey[list[str]]()
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at before it is used
FOLDER = "coordinator-tests-"
SHARED_MEMORY_FREE_BYTES_MIN = 4 * 1024**3
folder_in_memory, succeeded = pytest.StashKey[Path](), pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[said_at_the_end] = []
    if has_room_in_memory() and not {"PYTEST_XDIST_WORKER", "PYTEST_DEBUG_TEMPROOT"} & os.environ.keys():
        # A store that is opened waits for the disk, and every test of the API opens eight: on a busy disk most of its
        # time. Whatever makes temporary folders, in this process or a child of it, makes them here.
        remove_left_folders()
        folder = config.stash[folder_in_memory] = Path(
            tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=SHARED_MEMORY)
        )
        os.environ |= {"PYTEST_DEBUG_TEMPROOT": str(folder), "TMPDIR": str(folder)}
        tempfile.tempdir = None  # it is looked up again


def remove_left_folders() -> None:
    """Those of runs that failed and have ended: they were kept to be looked at."""
    for left in SHARED_MEMORY.glob(f"{FOLDER}*-*"):
        pid = left.name.removeprefix(FOLDER).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)


def has_room_in_memory() -> bool:
    """Whether folders can be made in memory, and programs run in them."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        return False
    found = os.statvfs(SHARED_MEMORY)
    return found.f_bavail * found.f_frsize >= SHARED_MEMORY_FREE_BYTES_MIN and not found.f_flag & os.ST_NOEXEC


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: four processes more than cores. All tests together wait about three times as long, for processes that
    they have started and for limits, as they compute: with fewer, cores are idle.
    """
    return (os.cpu_count() or 1) + 4


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """The processes of the run are forks of one that has collected (`tests/forking_collection.py`). Elsewhere than on
    Linux nothing is forked, and each is started.
    """
    if sys.platform != "linux":
        return
    import execnet.gateway_io  # noqa: PLC0415 - pytest-xdist brings it, and a run without it has no such processes

    # A file of tests cannot be imported before pytest collects.
    forked = runpy.run_path(str(ROOT / "tests/forked.py"))
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    forks_for_all = forked["ForksForAll"](folder)
    os.environ[forked["ADDRESS"]] = forks_for_all.address
    parent = forked["ForkingParent"](ROOT / "tests/forking_collection.py", ["--", *config.args])

    def end() -> None:
        parent.end()
        forks_for_all.end()
        os.environ.pop(forked["ADDRESS"])
        shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(end)

    class ForkedIO(execnet.gateway_io.Popen2IOMaster):
        """What execnet starts a Python by, with a fork in place of it."""

        def __init__(self, args: list[str], execmodel: Any) -> None:
            (reading, to_stdin), (from_stdout, writing) = os.pipe(), os.pipe()
            request = {
                "name": "pytest",
                "code": args[-1],
                "environ": dict(os.environ),
                "cwd": str(Path.cwd()),
            }
            self.popen = parent.fork(request, (reading, writing, 2))
            forks_of_run.append(self.popen)
            os.close(reading)
            os.close(writing)
            execnet.gateway_io.Popen2IO.__init__(
                self, os.fdopen(to_stdin, "wb"), os.fdopen(from_stdout, "rb"), execmodel
            )

    execnet.gateway_io.Popen2IOMaster = ForkedIO


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Ctrl-C of a terminal does not reach forks: each has a session of its own. Other ends (`-x`) let them finish."""
    if excinfo.type is KeyboardInterrupt:
        for fork in forks_of_run:
            fork.send_signal(signal.SIGINT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process ends the run alone. Those that need a broker are spread among the
    others: they mostly wait, the others compute, and side by side they keep the cores busy without fighting for them.
    """
    waits: dict[Path, bool] = {}  # file -> whether a test of it needs a broker
    for item in items:
        waits[item.path] = waits.get(item.path, False) or item.get_closest_marker("broker") is not None
    place: dict[Path, float] = {}
    for waiting, part in ((True, BROKER_FILES_WITHIN), (False, 1.0)):
        files = [path for path, file_waits in waits.items() if file_waits == waiting]
        files.sort(key=lambda path: path.name not in LONG_FILES)
        lengths = [LONG_FILE if path.name in LONG_FILES else 1 for path in files]
        begins = accumulate(lengths, initial=0)
        place |= {path: part * begin / sum(lengths) for path, begin in zip(files, begins, strict=False)}
    items.sort(key=lambda item: place[item.path])


def pytest_collection() -> None:
    """Thousands of tests and what they import live to the end: the garbage collector looks at them neither while they
    come nor later. In each process of a run that was a quarter of the CPU of collecting.
    """
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes that are no text are called by their argument: packed ones hold the time, and the processes of a run must
    give every test the same name.
    """
    return argname if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()) else None


@pytest.fixture(scope="session")
def logging_at_first() -> dict[str, Any]:
    """How the log is set before any test, and before any fixture of a file."""
    return structlog.get_config()


@pytest.fixture(autouse=True)
def logging_as_it_was(logging_at_first: dict[str, Any]) -> Iterator[None]:
    """What a test, or a command that it runs in this process, sets for the log does not reach the next test; nor does
    what a fixture of a whole file sets.
    """
    yield
    structlog.configure(**logging_at_first)


@pytest.fixture(scope="session")
def say_at_the_end(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """A line under the results, from whichever process the test runs in."""
    return pytestconfig.stash[said_at_the_end].append


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """What the tests left goes with the run; of a failed one it is kept, until the next run."""
    folder = config.stash.get(folder_in_memory, None)
    if folder is not None and config.stash.get(succeeded, False):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[succeeded] = exitstatus == pytest.ExitCode.OK
    if hasattr(session.config, "workeroutput"):  # a process of several: another one prints the results
        session.config.workeroutput["said"] = session.config.stash[said_at_the_end]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if output := getattr(node, "workeroutput", None):  # a process that crashed has none
        node.config.stash[said_at_the_end] += output["said"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in dict.fromkeys(config.stash[said_at_the_end]):
        terminalreporter.write_line(line)
