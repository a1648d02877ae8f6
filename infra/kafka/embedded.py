"""The embedded broker: a real Kafka (KRaft, one node) as a child process, without Docker.

Reads and writes `data_dir`: `cluster_id`, `server.properties`, `log/` (Kafka's own data, the truth of the
node), `broker.log` (what Kafka says). It survives `kill -9` of anything, not a power cut: for that, use a
cluster.

The child is a session of its own, so that Ctrl-C reaches the supervisor alone, and the kernel kills it when
its parent dies: no broker is ever left behind on a data directory. The kernel's rule is per thread: the
thread that calls `start()` must live as long as the broker (call it from the main thread; `prepare()` and
`wait_ready()`, which take seconds, may run in any thread).

Several brokers of one cluster: give each its `node_id`, the same `cluster_id` and the same `voters`.
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
from contextlib import ExitStack
from pathlib import Path

from coordinator.infra.disk import DiskFullError, has_no_room, says_full
from coordinator.infra.kafka.broker_settings import server_properties
from coordinator.infra.kafka.runtime import FetchProgress, KafkaRuntime, ensure_jars, load_runtime, silent
from coordinator.infra.processes.fork_server import bound_to_us
from coordinator.infra.rotated_log import RotatedLog
from coordinator.streams.log.errors import OperatorError, WorldError

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
PORTS_TRIED_MAX = 200
LOG_BYTES_MAX = 10 * 1024 * 1024
LOCALE = {"LC_ALL": "C.UTF-8"}
"""Java turns every letter of a path that its locale lacks into a question mark."""
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
    """One broker in `data_dir`. `port` 0 takes a free one, which then stays for the life of this object.

    `heap_mb` bounds Java's heap (resident memory is about 150 MB more). `voters` maps every node id of a
    cluster to its controller port; left out, this broker is a cluster by itself. `more_settings` are Kafka's own and
    win over ours (further listeners, say).
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        heap_mb: int = 384,
        *,
        node_id: int = 1,
        cluster_id: str = "",
        voters: Mapping[int, int] | None = None,
        more_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.heap_mb = heap_mb
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
        """What the cluster of this directory is called; known once `prepare()` has run."""
        return self._keep_cluster_id()

    def move(self) -> None:
        """Take free ports at the next start: for one that nobody has been told of yet."""
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
        """What Kafka's own data takes on the disk now."""
        files = (self.data_dir / "log").rglob("*.log")
        return sum(file.stat().st_size for file in files if file.exists())

    @property
    def stop_seconds_max(self) -> float:
        """How long a clean end may take: killed before it, the next start recovers the whole log."""
        return STOP_SECONDS_MIN + self.log_bytes / STOP_BYTES_PER_SECOND

    @property
    def start_seconds_max(self) -> float:
        """How long a start may take, with the recovery of the whole log on a slow disk."""
        return START_SECONDS_MIN + self.log_bytes / START_BYTES_PER_SECOND

    @property
    def disk_is_full(self) -> bool:
        """Did Kafka, since this start, find no room? Its log lies on the same disk: it may not have got it written."""
        return says_full(self._heard()) or (not self.is_alive() and has_no_room(self.data_dir))

    def ensure_jars(self, progress: FetchProgress = silent) -> None:
        """Fetch Kafka's jars where they are missing. Raises WorldError when they cannot be had."""
        ensure_jars(progress)

    @property
    def runtime(self) -> KafkaRuntime | None:
        """What the broker runs on; known once `prepare()` has run."""
        return self._runtime

    def prepare(self, progress: FetchProgress = silent) -> None:
        """Everything before the start: jars, Java, ports, settings, the first format. Repeatable.

        Raises OperatorError (no Java, a taken port, another node id's directory), WorldError (no jars, no
        format).
        """
        self._runtime = load_runtime(progress)
        # Ports are kept for this object's life: a broker that died comes back where clients know it.
        free = free_ports(2)
        self.port = self.port or free[0]
        self._voters = self._voters or {self.node_id: free[1]}
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
                log_dir="log",  # below where it runs: Kafka splits this at commas, which a folder's name may have
                more=self._more_settings,
            ),
            encoding="utf-8",
        )
        self._format()

    def start(self, progress: FetchProgress = silent, *, java_options: tuple[str, ...] = ()) -> None:
        """Start the child; returns once it is forked. Call `wait_ready()` next. A running one is kept.

        Raises as `prepare()` does.
        """
        if self.is_alive():
            return
        self.prepare(progress)
        self._process = self._spawn(*java_options)

    def wait_ready(self, timeout_seconds: float | None = None) -> None:
        """Wait until clients can connect, for as long as a log of this size may need.

        Raises WorldError, with Kafka's last lines, if they cannot.
        """
        timeout_seconds = self.start_seconds_max if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if self._process is None:
                raise WorldError("the Kafka broker was not started")
            if (code := self._process.poll()) is not None:
                raise WorldError(
                    f"the Kafka broker ended (exit code {code}) before it listened. {self._said()}"
                )
            try:
                socket.create_connection((HOST, self.port), timeout=0.5).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise WorldError(
            f"Kafka does not listen on {self.bootstrap} after {timeout_seconds:g} s. {self._said()}"
        )

    def stop(self, grace_seconds: float | None = None) -> None:
        """End the child: asked first (SIGTERM), killed after `grace_seconds` (as long as a log of this size may need).
        Stopping twice does nothing.
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
        """End the child with SIGKILL, as a power user or a fault test would."""
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
            # A node's broker keeps some 20 MB: its heap begins small, and what a busy hour took is given back.
            *("-Xms16m", "-XX:MinHeapFreeRatio=20", "-XX:MaxHeapFreeRatio=40"),
            "-XX:TrimNativeHeapInterval=5000",
            f"-Xmx{self.heap_mb}m",
            "-XX:MaxDirectMemorySize=128m",
            "-XX:+ExitOnOutOfMemoryError",
            "-Dlog4j2.configurationFile=log4j2.properties",
            *options,
        )
        RotatedLog(self.log_file, LOG_BYTES_MAX).close()  # a long file of earlier starts becomes the old one
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
        """Give the directory its cluster id, once. A start after that keeps it.

        Kafka's own tool writes two files and takes a second or two for it. The larger one, with the features of this
        version of Kafka, is the same every time: it is kept, and the other one, three ids, is written here.
        """
        log = self.data_dir / "log"
        if (log / "meta.properties").is_file():
            return
        assert self._runtime is not None, "prepare() comes first"  # noqa: S101
        cluster_id, bootstrap_file = self._keep_cluster_id(), self._runtime.bootstrap
        if bootstrap_file is None or not bootstrap_file.is_file():
            self._format_by_kafka(cluster_id)
            if bootstrap_file is not None:
                _replace(bootstrap_file, (log / "bootstrap.checkpoint").read_bytes())
            return
        log.mkdir(exist_ok=True)
        _replace(log / "bootstrap.checkpoint", bootstrap_file.read_bytes())
        ids = f"version=1\ncluster.id={cluster_id}\nnode.id={self.node_id}\ndirectory.id={new_cluster_id()}\n"
        _replace(log / "meta.properties", ids.encode())  # last: with it the directory is formatted

    def _format_by_kafka(self, cluster_id: str) -> None:
        assert self._runtime is not None, "prepare() comes first"  # noqa: S101
        command = self._runtime.command("kafka.tools.StorageTool", "-Xmx128m")
        done = subprocess.run(
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
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip()
            raise WorldError(f"Kafka's storage in {self.data_dir} could not be formatted: {output}")

    def _keep_cluster_id(self) -> str:
        file = self.data_dir / "cluster_id"
        if not file.is_file():
            file.write_text(self._cluster_id or new_cluster_id(), encoding="utf-8")
        return file.read_text(encoding="utf-8").strip()

    def _heard(self) -> str:
        """What Kafka has said since this start."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start_bytes)
            return log.read(LOG_BYTES_MAX).decode(errors="replace")

    def _said(self) -> str:
        """Kafka's last words since this start, without the stack traces' inner lines."""
        if self.disk_is_full:
            return str(DiskFullError(self.data_dir))
        text = self._heard()
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\t")]
        return f"Its log is {self.log_file}; last lines: " + (" | ".join(lines[-5:]) or "none")


def new_cluster_id() -> str:
    """A cluster id as Kafka makes them: 16 random bytes in URL-safe base64, never beginning with a dash.

    It names a broker's data and enters no event.
    """
    while (cluster_id := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass  # a dash in front reads as an option of Kafka's tools: one id in 64
    return cluster_id


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports on 127.0.0.1 that nobody has now, drawn from below those that the kernel gives to
    outgoing connections: one of these may be taken by anybody before we listen there.
    """
    ports: list[int] = []
    with ExitStack() as probes:
        for attempt in range(PORTS_TRIED_MAX):
            probe = probes.enter_context(socket.socket())
            try:
                # Chance, not the next number: several nodes start side by side.
                probe.bind((HOST, secrets.choice(PORTS) if attempt < PORTS_TRIED_MAX // 2 else 0))
            except OSError:
                continue
            ports.append(int(probe.getsockname()[1]))
            if len(ports) == count:
                return ports
    raise OperatorError(f"no {count} free ports on {HOST}: end what listens there")


class PortTakenError(OperatorError):
    """Nobody else can listen on that port now."""


def _check_port(port: int) -> None:
    """Raises PortTakenError, naming the port, if nobody can listen on it now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: TIME_WAIT is no listener
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise PortTakenError(
                f"port {port} on {HOST} cannot be used for Kafka ({error}); {PORT_HELP}"
            ) from error


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all, also beside another process that does the same."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
