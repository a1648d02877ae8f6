"""Tests whether a contract is deterministic: runs it in two processes that differ in everything that must not matter.

The log is replayed and audited on other machines, so the same records must give the same numbers. Two child processes
run every function of a contract twice on the same data. The second has another hash seed, order of calls, environment,
folder and time. Both also report what a function reads from outside. The contract does not run in the calling process:
a function that ends its process, prints, or never returns is a finding like any other. A function that never returns is
ended by its CPU time, not by the clock on the wall: a busy machine must not make a finding.

`python -m coordinator.infra.contracts.trial` is the child. It reads a `Task` as JSON from stdin and writes a `Report`
as JSON per line.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.meaning import meaning_of
from coordinator.infra.contracts.moved_clock import move_clock
from coordinator.infra.contracts.sources import is_own_file
from coordinator.infra.contracts.trial_calls import calls_of
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, described
from coordinator.streams.contract.checking.findings import Finding, State, examine
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings, environment, read_settings

CALL_CPU_SECONDS_MAX = 10.0
LOAD_CPU_SECONDS_MAX = 60.0
"""For the import of the contract's module with all that it imports, and for EXAMINED, which makes many calls."""
CALL_SILENT_SECONDS_MAX = 120.0
"""By the clock on the wall, for a call that waits. Far above the limits of CPU time, which a busy machine stretches."""
LOAD_SILENT_SECONDS_MAX = 300.0
"""By the clock on the wall, until the first call begins: a busy machine takes long to start Python and to import."""
TRIAL_SECONDS_MAX = 900.0
LOADED = "being loaded"
IMPORTED = "its file, when it is imported"
EXAMINED = "its functions, on sample data"
ELSEWHERE_SECONDS = 211 * 24 * 3600 + 7 * 3600 + 13 * 60 + 37
"""How far the clock of the second process is ahead: another month, weekday, hour and minute."""
KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT")
_SYSTEM_FILES = (
    "/proc/",
    "/sys/",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/dev/tty",
    "/dev/pts/",
    "/etc/",
    "/usr/",
    "/lib",
)
"""Files of the system, which a function may read. Not all of /dev: any process may write to /dev/shm."""
_NO_DATA = (".py", ".pyc", ".so", ".pth", ".zip")


class Task(msgspec.Struct):
    """What a child runs.

    `paths` is its module path; `other` is true for the second process. The limits are seconds of CPU time, of a call
    and of an import: the kernel ends the child beyond them.
    """

    path: str
    settings: dict[str, str]
    paths: list[str]
    other: bool
    call_cpu_seconds_max: float
    load_cpu_seconds_max: float

    def cpu_seconds_max(self, doing: str) -> float:
        """The limit of one call, by its name in the reports."""
        return self.load_cpu_seconds_max if doing in (IMPORTED, EXAMINED) else self.call_cpu_seconds_max


class Report(msgspec.Struct, omit_defaults=True):
    """One line of a child.

    `doing`: the call that begins now; `result`: the result of that call as text; `loaded`: the contract's hash;
    `reads`: what the call read from outside; `done`: the child has finished.
    """

    doing: str = ""
    result: str = ""
    loaded: str = ""
    finding: Finding | None = None
    reads: str = ""
    done: bool = False


class Trial(msgspec.Struct):
    """What one child reported until it ended.

    `results`: call -> its results, one per run. `reads`: function -> a sentence about what it read. `broke`: why the
    child ended early; "" if it did not.
    """

    results: dict[str, list[str]] = {}
    findings: list[Finding] = []
    reads: dict[str, str] = {}
    loaded: str = ""
    broke: str = ""


def tried(path: str, settings: Settings, on_call: Callable[[], None] = lambda: None) -> list[Finding]:
    """Every finding on the contract at `module:attribute`. That it does not load is a finding, too. `on_call`: called
    with each call of the contract that begins, of some hundred.
    """
    first = _run(path, settings, on_call, other=False)
    if first.broke or not first.loaded:
        end = [Finding("ends", State.FAULT, first.broke)] if first.broke else []
        return first.findings + end
    if any(finding.state is State.FAULT and finding.check in _STEPS for finding in first.findings):
        return [
            *first.findings,
            Finding("the same twice", State.UNKNOWN, "not reached, because an earlier check found a fault"),
        ]
    compared = list(_compared(first, _run(path, settings, on_call, other=True)))
    if any(
        "score_prediction" in finding.says or "score_round" in finding.says
        for finding in compared
        if finding.state is State.FAULT
    ):
        unsure = "not judged, because the score is not the same twice"
        findings = [finding for finding in first.findings if finding.check != "score and size"]
        return [*findings, Finding("score and size", State.UNKNOWN, unsure), *compared]
    return [*first.findings, *compared]


_STEPS = (
    "build_input",
    "resolve_ground_truth",
    "score_prediction",
    "score_round",
    "ensembles",
    "aggregate_snapshot",
    "build_emission",
    "payout",
)


def _compared(first: Trial, second: Trial) -> Iterator[Finding]:
    check = "the same twice"
    if second.broke or not second.loaded:
        reason = second.broke or "; ".join(finding.says for finding in second.findings)
        yield Finding(
            check, State.FAULT, f"it runs here, but not in another folder and environment: {reason}"
        )
        return
    # One fault per function, the first that was found: its other calls would only repeat it.
    fault_of_function: dict[str, str] = {}
    for name, results in first.results.items():
        if fault := _difference(name, results, second.results.get(name, [])):
            fault_of_function.setdefault(fault.partition(" ")[0], fault)
    for name, results in first.results.items():
        if results[0].startswith("raises "):
            fault_of_function.setdefault(name.partition(",")[0], f"{name}: {results[0]}")
    if first.loaded != second.loaded:
        fault_of_function["contract"] = (
            "the contract itself differs in another environment: its fields, or values that its functions hold, come "
            "from outside"
        )
    for function, sentence in (first.reads | second.reads).items():
        fault_of_function.setdefault(function, sentence)
    for fault in fault_of_function.values():
        yield Finding(check, State.FAULT, f"{fault}; a replay of the log must give the same results")
    if not fault_of_function:
        yield Finding(
            check, State.OK, f"{len(first.results)} calls gave the same in another process, order and time"
        )


def _difference(name: str, here: list[str], there: list[str]) -> str:
    """How the results of one call differ, in the first process or between the two; "" if they do not."""
    function, _, about = name.partition(", ")
    shown_about = f", {about}" if about else ""
    for results in (here, there):
        if other := next((result for result in results if result != results[0]), None):
            return (
                f"{function} is not the same twice{shown_about}: {results[0]} and then {other} "
                "(chance, or something that it remembers)"
            )
    if here[:1] != there[:1]:
        return (
            f"{function} is not the same twice{shown_about}: {here[0]}, and {there[0] if there else 'nothing'} in "
            "another process (the clock, the order of calls, hash(), id(), or the environment)"
        )
    return ""


def _run(path: str, settings: Settings, on_call: Callable[[], None], *, other: bool) -> Trial:
    here = [str(Path(folder).absolute()) for folder in sys.path if folder]
    if not (Path.cwd() / "streams").is_dir():
        here.insert(0, str(Path.cwd()))  # as `load_contract` does: the second process runs in another folder
    task = Task(path, environment(settings), here, other, CALL_CPU_SECONDS_MAX, LOAD_CPU_SECONDS_MAX)
    environ = dict(os.environ) | {"PYTHONHASHSEED": "1"}
    if other:
        environ = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        environ |= {"PYTHONHASHSEED": "2", "TZ": "Pacific/Chatham", "LANG": "C"}
    with tempfile.TemporaryDirectory(prefix="coordinator-trial-") as folder:
        child = subprocess.Popen(
            [sys.executable, "-Pm", "coordinator.infra.contracts.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            cwd=folder if other else None,
            start_new_session=True,
        )
        try:
            return _listen(child, task, on_call)
        finally:
            child.kill()
            child.wait()


def _listen(child: subprocess.Popen[bytes], task: Task, on_call: Callable[[], None]) -> Trial:
    """Write the task to a child and read its reports until it ends, or until it reports nothing for too long."""
    trial, doing = Trial(), LOADED
    if child.stdin is None or child.stdout is None:
        raise RuntimeError
    child.stdin.write(msgspec.json.encode(task))
    child.stdin.close()
    ends = time.monotonic() + TRIAL_SECONDS_MAX
    done = False
    lines = _Lines(child.stdout)
    while (line := lines.next(min(_silent_seconds_max(doing), max(0.1, ends - time.monotonic())))) != b"":
        if line is None:
            silent_seconds = min(_silent_seconds_max(doing), TRIAL_SECONDS_MAX)
            trial.broke = f"{doing}: did not come back within {silent_seconds:g} s"
            return trial
        report = msgspec.json.decode(line, type=Report)
        if report.doing:
            doing = report.doing
            on_call()
            trial.results.setdefault(doing, [])
        if report.result:
            trial.results[doing].append(report.result)
        if report.finding is not None:
            trial.findings.append(report.finding)
        if report.reads:
            function = doing.partition(",")[0]
            trial.reads.setdefault(function, f"{function} {report.reads}")
        trial.loaded = report.loaded or trial.loaded
        done = done or report.done
    trial.results = {name: results for name, results in trial.results.items() if results}
    if not done:
        code = child.wait()
        if code == -signal.SIGPROF:
            trial.broke = f"{doing}: used more than {task.cpu_seconds_max(doing):g} s of CPU time"
        else:
            end = f"signal {-code}" if code < 0 else f"exit code {code}"
            trial.broke = f"{doing}: ended the whole process ({end})"
    return trial


def _silent_seconds_max(doing: str) -> float:
    return LOAD_SILENT_SECONDS_MAX if doing in (LOADED, IMPORTED, EXAMINED) else CALL_SILENT_SECONDS_MAX


class _Lines:
    """The lines of a pipe, read with a timeout."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._whole: list[bytes] = []
        self._rest = b""

    def next(self, seconds: float) -> bytes | None:
        """The next line; b"" at the end of the pipe, None after `seconds` without a line."""
        while not self._whole:
            if not select.select([self._out], [], [], seconds)[0]:
                return None
            chunk = os.read(self._out.fileno(), 65536)
            if not chunk:
                return b""
            *self._whole, self._rest = (self._rest + chunk).split(b"\n")
        return self._whole.pop(0)


# --- the child ---------------------------------------------------------------------------------------------------


class _Child:
    def __init__(self, task: Task, out: IO[bytes]) -> None:
        self.task = task
        self._out = out
        self._armed = False
        self._reads = ""
        self._own: set[str] = set()

    def report(self, **fields: Any) -> None:
        self._out.write(msgspec.json.encode(Report(**fields)) + b"\n")
        self._out.flush()

    def begin(self, doing: str, **fields: Any) -> None:
        """Report what begins now, and give it its CPU time. SIGPROF, which follows it, ends a process by default."""
        self.report(doing=doing, **fields)
        signal.setitimer(signal.ITIMER_PROF, self.task.cpu_seconds_max(doing))

    def run(self) -> None:
        sys.path[:] = self.task.paths
        if self.task.other:
            move_clock(ELSEWHERE_SECONDS)
        random.seed(2 if self.task.other else 1)
        sys.addaudithook(self._audit)
        try:
            contract = self._load()
        except OperatorError as error:
            self.report(finding=Finding("loads", State.FAULT, str(error)), done=True)
            return
        self.report(loaded=meaning_of(contract).hash)
        settings = read_settings(self.task.settings)
        calls = list(calls_of(contract, settings.feed_kind))
        for name, call in reversed(calls) if self.task.other else calls:
            self.begin(name)
            for _ in range(2):
                self._reads, self._armed = "", True
                try:
                    result = call()
                except AUTHORS_ERRORS as error:
                    result = f"raises {described(error)}"
                finally:
                    self._armed = False
                self.report(result=result, reads=self._reads)
        if not self.task.other:
            loads = f"{self.task.path}, hash {meaning_of(contract).hash[:12]}"
            self.begin(EXAMINED, finding=Finding("loads", State.OK, loads))
            for finding in examine(contract, settings):
                self.report(finding=finding)
        self.report(done=True)

    def _load(self) -> CrunchContract:
        self.begin(IMPORTED)
        self._armed = True
        try:
            return load_contract(self.task.path)
        finally:
            self._armed = False
            self.report(reads=self._reads)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python calls this for what the process does to the outside. A hook cannot be removed: hence `_armed`."""
        if not self._armed:
            return
        if event == "open":
            path, mode = str(arguments[0]), str(arguments[1])
            is_harmless = path.endswith(_NO_DATA) or path.startswith(
                (*_SYSTEM_FILES, sys.prefix, sys.base_prefix)
            )
            # An import opens each entry of the module path that is not a folder, because it may be an archive.
            is_harmless = is_harmless or path in sys.path
            reads = (mode == "None" and not int(arguments[2] or 0) & os.O_ACCMODE) or "r" in mode
            if not is_harmless and reads and not path.isdigit() and not is_own_file(path):
                self._reads = (
                    f"reads {path}, which is not part of the contract: put it beside the module that names it"
                )
        elif event in ("socket.connect", "socket.getaddrinfo"):
            self._reads = "uses the network"
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            self._reads = "starts another program"


def _main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    out = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)  # what a contract prints must not mix with the reports
    child = _Child(task, out)
    try:
        child.run()
    except KeyboardInterrupt:
        os._exit(130)
    out.flush()
    os._exit(0)  # do not wait for threads that the contract has started


if __name__ == "__main__":
    _main()
