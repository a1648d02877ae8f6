"""The embedded broker: a real Kafka (KRaft, one node) as a child process, without Docker.

Reads and writes `data_dir`: `cluster_id`, `server.properties`, `log/` (Kafka's data, which is the node's log), and
`broker.log` (Kafka's output). The data survives `kill -9` of any process, but not a power cut: for that, use a cluster.

The child has a session of its own, so that Ctrl-C reaches only the supervisor. The kernel kills the child when its
parent dies, so that no broker stays on a data directory. The kernel's rule is per thread: the thread that calls
`start()` must live as long as the broker. Call it from the main thread; `prepare()` and `wait_ready()`, which take
seconds, may run in any thread.

For several brokers of one cluster, give each its own `node_id`, and all the same `cluster_id` and `voters`.
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from coordinator.infra.disk import DiskFullError, has_no_room, says_full
from coordinator.infra.kafka.broker_settings import server_properties
from coordinator.infra.kafka.runtime import FetchProgress, KafkaRuntime, load_runtime, silent
from coordinator.infra.processes.fork_server import bound_to_us
from coordinator.infra.rotated_log import RotatedLog
from coordinator.infra.whole_file import write_whole
from coordinator.streams.log.errors import OperatorError, WorldError

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
PORTS_TRIED_MAX = 200
LOG_BYTES_MAX = 10 * 1024 * 1024
HEAP_MB = 384
"""The bound of Java's heap. The resident memory is about 150 MB more."""
LOCALE = {"LC_ALL": "C.UTF-8"}
"""Without it Java replaces each letter of a path that the locale does not have by a question mark."""
STOP_SECONDS_MIN, STOP_BYTES_PER_SECOND = 30.0, 50 * 1024 * 1024
START_SECONDS_MIN, START_BYTES_PER_SECOND = 60.0, 5 * 1024 * 1024
PORT_HELP = (
    "end what listens there, choose another (0: a free one), or use a running Kafka: --kafka HOST:PORT"
)

LOGGING = """rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX} %p %c{1} %m%n
"""


class EmbeddedBroker:
    """One broker in `data_dir`. `port` 0 takes a free port, which this object then keeps.

    `voters`: node id -> controller port, for each node of the cluster; None: this broker is a cluster by itself.
    `more_settings` are Kafka's settings that override ours, for example further listeners.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        node_id: int = 1,
        cluster_id: str = "",
        voters: Mapping[int, int] | None = None,
        more_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.node_id = node_id
        self.log_file = self.data_dir / "broker.log"
        self._cluster_id = cluster_id
        self._voters = dict(voters) if voters is not None else None
        self._more_settings = dict(more_settings or {})
        self._runtime: KafkaRuntime | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start_bytes = 0

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:PORT`; the port is known once `prepare()` has run."""
        return f"{HOST}:{self.port}"

    @property
    def cluster_id(self) -> str:
        """The id of this directory's cluster; made at the first call."""
        return self._keep_cluster_id()

    def move(self) -> None:
        """Take other free ports at the next start: for a broker whose port no client knows yet."""
        self.port, self._voters = 0, None

    @property
    def pid(self) -> int | None:
        """The child's process id; None before the first start."""
        return None if self._process is None else self._process.pid

    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The ended child's exit code (negative: the signal); None while it runs and before the first start."""
        return None if self._process is None else self._process.poll()

    @property
    def log_bytes(self) -> int:
        """The size of Kafka's data on the disk now.

        What Kafka deletes or renames meanwhile is not counted: a broker must be stopped all the same.
        """
        total = 0
        for folder, _, names in os.walk(self.data_dir / "log"):  # a folder that is gone is passed over
            for name in names:
                if name.endswith(".log"):
                    with suppress(FileNotFoundError):
                        total += os.lstat(Path(folder) / name).st_size
        return total

    @property
    def stop_seconds_max(self) -> float:
        """How long a clean stop may take. If Kafka is killed before it ends, the next start recovers the whole log."""
        return STOP_SECONDS_MIN + self.log_bytes / STOP_BYTES_PER_SECOND

    @property
    def start_seconds_max(self) -> float:
        """How long a start may take that recovers the whole log from a slow disk."""
        return START_SECONDS_MIN + self.log_bytes / START_BYTES_PER_SECOND

    @property
    def disk_is_full(self) -> bool:
        """Whether the disk was full since this start. `broker.log` is on the same disk, and may lack the message."""
        return says_full(self._output()) or (not self.is_alive() and has_no_room(self.data_dir))

    @property
    def why_ended(self) -> WorldError:
        """The error to raise when the child has ended by itself."""
        if self.disk_is_full:
            return DiskFullError(self.data_dir)
        return WorldError(f"the Kafka broker ended (exit code {self.exit_code}). {self._last_lines()}")

    @property
    def runtime(self) -> KafkaRuntime | None:
        """Java and the jars; None before `prepare()`."""
        return self._runtime

    def prepare(self, progress: FetchProgress = silent) -> None:
        """Prepare the start: jars, Java, ports, settings, and the first format. It can be called again.

        Raises OperatorError (no Java, a taken port, a directory of another node id), WorldError (the jars cannot be
        fetched, the format fails).
        """
        self._runtime = load_runtime(progress)
        # This object keeps its ports: a broker that died starts again where its clients know it.
        ports = free_ports(2)
        self.port = self.port or ports[0]
        self._voters = self._voters or {self.node_id: ports[1]}
        controller_port = self._voters[self.node_id]
        for port in (self.port, controller_port):
            _check_port(port)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        self._settings_file.write_text(
            server_properties(
                node_id=self.node_id,
                port=self.port,
                controller_port=controller_port,
                voters=self._voters,
                log_dir="log",  # relative: Kafka splits the setting at commas, and the folder's path may have some
                more=self._more_settings,
            ),
            encoding="utf-8",
        )
        self._format()

    def start(self, progress: FetchProgress = silent, *, java_options: tuple[str, ...] = ()) -> None:
        """Start the child, unless it runs; returns once it is forked. Call `wait_ready()` next.

        Raises as `prepare()` does.
        """
        if self.is_alive():
            return
        self.prepare(progress)
        self._process = self._spawn(*java_options)

    def wait_ready(self, timeout_seconds: float | None = None) -> None:
        """Wait until clients can connect, at most as long as a log of this size may need.

        Raises WorldError with Kafka's last lines when the time is over or the child ended.
        """
        timeout_seconds = self.start_seconds_max if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if self._process is None:
                raise WorldError("the Kafka broker was not started")
            if (code := self._process.poll()) is not None:
                raise WorldError(
                    f"the Kafka broker ended (exit code {code}) before it listened. {self._last_lines()}"
                )
            try:
                socket.create_connection((HOST, self.port), timeout=0.5).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise WorldError(
            f"Kafka does not listen on {self.bootstrap} after {timeout_seconds:g} s. {self._last_lines()}"
        )

    def stop(self, grace_seconds: float | None = None) -> None:
        """Stop the child with SIGTERM, and kill it after `grace_seconds` (default: what a log of this size may need).

        A second call does nothing.
        """
        if self._process is None or self._process.poll() is not None:
            return
        grace_seconds = self.stop_seconds_max if grace_seconds is None else grace_seconds
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the child with SIGKILL."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def _settings_file(self) -> Path:
        return self.data_dir / "server.properties"

    def _spawn(self, *options: str) -> subprocess.Popen[bytes]:
        assert self._runtime is not None, "prepare() comes first"  # noqa: S101
        command = self._runtime.command(
            "kafka.Kafka",
            # A node's broker needs about 40 MB of heap. The heap starts small, and returns what a busy hour needed, at
            # the latest five minutes after it. New objects, most of which are garbage at once, get at most 8 MB.
            *("-Xms16m", "-XX:MaxNewSize=8m", "-XX:MinHeapFreeRatio=20", "-XX:MaxHeapFreeRatio=40"),
            "-XX:G1PeriodicGCInterval=300000",
            "-XX:TrimNativeHeapInterval=5000",
            f"-Xmx{HEAP_MB}m",
            "-XX:MaxDirectMemorySize=128m",
            "-XX:+ExitOnOutOfMemoryError",
            "-Dlog4j2.configurationFile=log4j2.properties",
            *options,
        )
        RotatedLog(self.log_file, LOG_BYTES_MAX).close()  # rotates the file if earlier starts have filled it
        with self.log_file.open("ab") as log:
            self._log_start_bytes = log.tell()
            return subprocess.Popen(
                bound_to_us([*command, self._settings_file.name]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env={**os.environ, **LOCALE, "MALLOC_ARENA_MAX": "2"},
                start_new_session=True,
            )

    def _format(self) -> None:
        """Format the data directory, once: it gets its cluster id.

        Kafka's own tool writes two files, and needs a second or two. The larger file, with the features of this version
        of Kafka, is the same every time: it is cached. The other file, with three ids, is written here.
        """
        log = self.data_dir / "log"
        if (log / "meta.properties").is_file():
            return
        assert self._runtime is not None, "prepare() comes first"  # noqa: S101
        cluster_id, bootstrap_file = self._keep_cluster_id(), self._runtime.bootstrap
        if bootstrap_file is None or not bootstrap_file.is_file():
            self._format_by_kafka(cluster_id)
            if bootstrap_file is not None:
                write_whole(bootstrap_file, (log / "bootstrap.checkpoint").read_bytes())
            return
        log.mkdir(exist_ok=True)
        write_whole(log / "bootstrap.checkpoint", bootstrap_file.read_bytes())
        ids = f"version=1\ncluster.id={cluster_id}\nnode.id={self.node_id}\ndirectory.id={new_cluster_id()}\n"
        write_whole(log / "meta.properties", ids.encode())  # last: with it the directory is formatted

    def _format_by_kafka(self, cluster_id: str) -> None:
        assert self._runtime is not None, "prepare() comes first"  # noqa: S101
        command = self._runtime.command("kafka.tools.StorageTool", "-Xmx128m")
        finished = subprocess.run(
            [
                *command,
                "format",
                "--ignore-formatted",
                f"--cluster-id={cluster_id}",
                "-c",
                self._settings_file.name,
            ],
            env={**os.environ, **LOCALE},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.data_dir,
        )
        if finished.returncode != 0:
            output = (finished.stderr or finished.stdout).strip()
            raise WorldError(f"Kafka's storage in {self.data_dir} could not be formatted: {output}")

    def _keep_cluster_id(self) -> str:
        file = self.data_dir / "cluster_id"
        if not file.is_file():
            file.write_text(self._cluster_id or new_cluster_id(), encoding="utf-8")
        return file.read_text(encoding="utf-8").strip()

    def _output(self) -> str:
        """Kafka's output since this start."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start_bytes)
            return log.read(LOG_BYTES_MAX).decode(errors="replace")

    def _last_lines(self) -> str:
        """Where Kafka's log is, with its last lines since this start; the inner lines of stack traces are left out."""
        if self.disk_is_full:
            return str(DiskFullError(self.data_dir))
        text = self._output()
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\t")]
        return f"Its log is {self.log_file}; last lines: " + (" | ".join(lines[-5:]) or "none")


def new_cluster_id() -> str:
    """A cluster id as Kafka makes them: 16 random bytes in URL-safe base64, not beginning with a dash.

    It names a broker's data, and no event holds it.
    """
    while (cluster_id := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass  # Kafka's tools take a leading dash for an option: one id in 64 has it
    return cluster_id


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports on 127.0.0.1 that are free now. Raises OperatorError if there are not enough.

    They are below the ports that the kernel assigns to outgoing connections: such a port could be taken by any
    connection before we listen on it.
    """
    ports: list[int] = []
    with ExitStack() as probes:
        for attempt in range(PORTS_TRIED_MAX):
            probe = probes.enter_context(socket.socket())
            try:
                # A random port, not the next one: several nodes may start at the same time.
                probe.bind((HOST, secrets.choice(PORTS) if attempt < PORTS_TRIED_MAX // 2 else 0))
            except OSError:
                continue
            ports.append(int(probe.getsockname()[1]))
            if len(ports) == count:
                return ports
    raise OperatorError(f"no {count} free ports on {HOST}: stop the processes that use them")


class PortTakenError(OperatorError):
    """The port cannot be used now: another process has it, or it is not a port that we may use."""


def _check_port(port: int) -> None:
    """Raises PortTakenError, naming the port, if we cannot listen on it now."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Java does: a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise PortTakenError(
                f"port {port} on {HOST} cannot be used for Kafka ({error}); {PORT_HELP}"
            ) from error
