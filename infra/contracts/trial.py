"""Is a contract a function? It is run in two processes that differ in all that must not count, and compared.

The log is replayed and audited on other machines, so the same records must give the same numbers. Two child processes
run every function of a contract twice on the same data: with another seed for hashes, in another order, in another
environment and folder, with another time. They also say what a function reads from outside. Nothing of the contract
runs in the process that asks: a function that ends it, prints, or never comes back is a finding like any other.

`python -m coordinator.infra.contracts.trial` is the child: a `Task` as JSON on stdin, lines of JSON on stdout.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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

CALL_SECONDS_MAX = 10.0
LOAD_SECONDS_MAX = 60.0
EXAMINED = "its functions, on sample data"
TRIAL_SECONDS_MAX = 120.0
ELSEWHERE_SECONDS = 211 * 24 * 3600 + 7 * 3600 + 13 * 60 + 37
"""How far the second process's clock is ahead: another month, weekday, hour and minute."""
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
"""What lies in /dev/shm is anybody's file."""
_NO_DATA = (".py", ".pyc", ".so", ".pth", ".zip")


class Task(msgspec.Struct):
    """What a child runs; `other` is the second one."""

    path: str
    settings: dict[str, str]
    paths: list[str]
    other: bool


class Said(msgspec.Struct, omit_defaults=True):
    """One line of a child. `doing`: what begins now; `got`: its result, by the same name, as JSON."""

    doing: str = ""
    got: str = ""
    loaded: str = ""
    finding: Finding | None = None
    reads: str = ""
    done: bool = False


class Trial(msgspec.Struct):
    """What one child said until it ended."""

    results: dict[str, list[str]] = {}
    findings: list[Finding] = []
    reads: dict[str, str] = {}
    loaded: str = ""
    broke: str = ""


def tried(path: str, settings: Settings) -> list[Finding]:
    """Every finding on the contract at `module:attribute`; one that does not load is a finding too."""
    first = _run(path, settings, other=False)
    if first.broke or not first.loaded:
        end = [Finding("ends", State.FAULT, first.broke)] if first.broke else []
        return first.findings + end
    if any(finding.state is State.FAULT and finding.check in _STEPS for finding in first.findings):
        return [
            *first.findings,
            Finding("the same twice", State.UNKNOWN, "not reached, since an earlier one has a fault"),
        ]
    compared = list(_compared(first, _run(path, settings, other=True)))
    if any(
        "score_prediction" in one.says or "score_round" in one.says
        for one in compared
        if one.state is State.FAULT
    ):
        unsure = "not judged, since the score is not the same twice"
        findings = [finding for finding in first.findings if finding.check != "score and size"]
        return [*findings, Finding("score and size", State.UNKNOWN, unsure), *compared]
    return [*first.findings, *compared]


_STEPS = (
    "build_input",
    "resolve_ground_truth",
    "score_prediction",
    "score_round",
    "aggregate_snapshot",
    "build_emission",
    "payout",
)


def _compared(first: Trial, second: Trial) -> Iterator[Finding]:
    check = "the same twice"
    if second.broke or not second.loaded:
        why = second.broke or "; ".join(finding.says for finding in second.findings)
        yield Finding(check, State.FAULT, f"it runs here, and not in another folder and environment: {why}")
        return
    faults = [_differs(name, got, second.results.get(name, [])) for name, got in first.results.items()]
    named: dict[str, str] = {}
    for fault in faults:
        if fault:
            named.setdefault(fault.partition(" ")[0], fault)
    for name, got in first.results.items():
        if got[0].startswith("raises "):
            named.setdefault(name.partition(",")[0], f"{name}: {got[0]}")
    if first.loaded != second.loaded:
        named["contract"] = (
            "the contract itself is another one in another environment: its fields or what its "
            "functions carry come from outside"
        )
    for function, what in (first.reads | second.reads).items():
        named.setdefault(function, what)
    for fault in named.values():
        yield Finding(check, State.FAULT, f"{fault}; the log is replayed, and the same must come out")
    if not named:
        yield Finding(
            check, State.OK, f"{len(first.results)} calls gave the same in another process, order and time"
        )


def _differs(name: str, here: list[str], there: list[str]) -> str:
    """What kind of difference there is between the results of one call, or nothing."""
    function, _, about = name.partition(", ")
    shown_about = f", {about}" if about else ""
    if len(set(here)) > 1 or len(set(there)) > 1:
        one = here if len(set(here)) > 1 else there
        return (
            f"{function} is not the same twice{shown_about}: {one[0]} and then {next(x for x in one if x != one[0])} "
            "(chance, or something that it remembers)"
        )
    if here[:1] != there[:1]:
        return (
            f"{function} is not the same twice{shown_about}: {here[0]}, and {there[0] if there else 'nothing'} in "
            "another process (the clock, the order of calls, hash(), id(), or the environment)"
        )
    return ""


def _run(path: str, settings: Settings, *, other: bool) -> Trial:
    here = [str(Path(folder).absolute()) for folder in sys.path if folder]
    if not (Path.cwd() / "streams").is_dir():
        here.insert(0, str(Path.cwd()))  # as `load_contract` does: the second process stands elsewhere
    task = Task(path, environment(settings), here, other)
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
            return _listen(child, msgspec.json.encode(task))
        finally:
            child.kill()
            child.wait()


def _listen(child: subprocess.Popen[bytes], task: bytes) -> Trial:
    trial, doing = Trial(), "being loaded"
    if child.stdin is None or child.stdout is None:
        raise RuntimeError
    child.stdin.write(task)
    child.stdin.close()
    ends = time.monotonic() + TRIAL_SECONDS_MAX
    patience, done = LOAD_SECONDS_MAX, False
    lines = _Lines(child.stdout)
    while (line := lines.next(min(patience, max(0.1, ends - time.monotonic())))) != b"":
        if line is None:
            trial.broke = f"{doing}: did not come back within {min(patience, TRIAL_SECONDS_MAX):g} s"
            return trial
        message = msgspec.json.decode(line, type=Said)
        if message.doing:
            doing, patience = (
                message.doing,
                LOAD_SECONDS_MAX if message.doing == EXAMINED else CALL_SECONDS_MAX,
            )
            trial.results.setdefault(doing, [])
        if message.got:
            trial.results[doing].append(message.got)
        if message.finding is not None:
            trial.findings.append(message.finding)
        if message.reads:
            trial.reads.setdefault(doing.partition(",")[0], f"{doing.partition(',')[0]} {message.reads}")
        trial.loaded = message.loaded or trial.loaded
        done = done or message.done
    trial.results = {name: got for name, got in trial.results.items() if got}
    if not done:
        code = child.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        trial.broke = f"{doing}: ended the whole process ({how})"
    return trial


class _Lines:
    """Lines of a pipe as they come."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._whole: list[bytes] = []
        self._rest = b""

    def next(self, seconds: float) -> bytes | None:
        """The next line; b"" at the end, None when none comes in time."""
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

    def say(self, **what: Any) -> None:
        self._out.write(msgspec.json.encode(Said(**what)) + b"\n")
        self._out.flush()

    def run(self) -> None:
        sys.path[:] = self.task.paths
        if self.task.other:
            move_clock(ELSEWHERE_SECONDS)
        random.seed(2 if self.task.other else 1)
        sys.addaudithook(self._audit)
        try:
            contract = self._load()
        except OperatorError as error:
            self.say(finding=Finding("loads", State.FAULT, str(error)), done=True)
            return
        self.say(loaded=meaning_of(contract).hash)
        settings = read_settings(self.task.settings)
        calls = list(calls_of(contract, settings.feed_kind))
        for name, call in reversed(calls) if self.task.other else calls:
            self.say(doing=name)
            for _ in range(2):
                self._reads, self._armed = "", True
                try:
                    got = call()
                except AUTHORS_ERRORS as error:
                    got = f"raises {described(error)}"
                finally:
                    self._armed = False
                self.say(got=got, reads=self._reads)
        if not self.task.other:
            loads = f"{self.task.path}, hash {meaning_of(contract).hash[:12]}"
            self.say(doing=EXAMINED, finding=Finding("loads", State.OK, loads))
            for finding in examine(contract, settings):
                self.say(finding=finding)
        self.say(done=True)

    def _load(self) -> CrunchContract:
        self.say(doing="its file, when it is imported")
        self._armed = True
        try:
            return load_contract(self.task.path)
        finally:
            self._armed = False
            self.say(reads=self._reads)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by Python for what a process does to the outside; it cannot be taken off again."""
        if not self._armed:
            return
        if event == "open":
            path, mode = str(arguments[0]), str(arguments[1])
            is_harmless = path.endswith(_NO_DATA) or path.startswith(
                (*_SYSTEM_FILES, sys.prefix, sys.base_prefix)
            )
            # An import looks at each entry of the module path, and opens one that is no folder: it may be an archive.
            is_harmless = is_harmless or path in sys.path
            reads = (mode == "None" and not int(arguments[2] or 0) & os.O_ACCMODE) or "r" in mode
            if not is_harmless and reads and not path.isdigit() and not is_own_file(path):
                self._reads = (
                    f"reads {path}, which is no part of the contract: put it beside the module that names it"
                )
        elif event in ("socket.connect", "socket.getaddrinfo"):
            self._reads = "asks the network"
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            self._reads = "starts another program"


def _main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    out = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)  # what a contract prints is not for the one who listens here
    child = _Child(task, out)
    try:
        child.run()
    except KeyboardInterrupt:
        os._exit(130)
    out.flush()
    os._exit(0)  # threads that a contract left behind are not waited for


if __name__ == "__main__":
    _main()
