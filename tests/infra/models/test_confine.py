"""What a model can do to the machine, to the node and to other models: tried by a real child, with the kernel's
answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest
import websockets
from tests.infra.models.stage import (
    CRUNCH_ID,
    HEAD,
    PREDICT,
    OpenStage,
    gather_notices,
    model_source,
    write_model,
)
from tests.waiting import limit

from coordinator.infra.models.host.confine import HOST_ENVIRONMENT, scrubbed_environment
from coordinator.infra.models.host.host import ModelHost
from coordinator.infra.models.host.hosted_model import HostedModel
from coordinator.infra.models.host.installed_packages import installed
from coordinator.infra.models.host.process import Limits
from coordinator.infra.models.host.usage import excesses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's means are Linux's")

TRIES = """
import ctypes, os, platform, resource, shutil, signal, socket, subprocess, sys, tempfile, threading
from pathlib import Path

def bind(): socket.socket().bind(("127.0.0.1", 0))
MACHINE = 0 if platform.machine() == "x86_64" else 1
POLICY_IDLE = (ctypes.c_uint32 * 12)(48, 5)
def by_number(numbers, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(numbers[MACHINE], *arguments) < 0: raise PermissionError if ctypes.get_errno() == 1 else OSError(ctypes.get_errno(), "")
def own_child(): child = subprocess.Popen(["sleep", "60"]); child.kill(); child.wait()
def trace():
    if ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0): raise PermissionError
def by_another_program():
    if subprocess.run(["cat", OUTSIDE], capture_output=True).returncode: raise PermissionError
def by_a_link(): os.symlink(OUTSIDE, "link"); open("link").read()
def thread(): threading.Thread(target=print).start()

REFUSED = {
    "read a rival's submission": lambda: os.listdir(RIVAL),
    "read a rival's working copy": lambda: os.listdir("../rival"),
    "read a file of the operator": lambda: open(OUTSIDE).read(),
    "read it by another program": by_another_program,
    "read it through a link": by_a_link,
    "read the host's environment": lambda: open(f"/proc/{os.getppid()}/environ").read(),
    "read the host's memory": lambda: open(f"/proc/{os.getppid()}/maps").read(),
    "read the passwords": lambda: open("/etc/shadow").read(),
    "write beside its folder": lambda: open("../written", "w"),
    "write for all": lambda: open("/tmp/written", "w"),
    "open a socket": bind,
    "open a local socket": lambda: socket.socket(socket.AF_UNIX),
    "reach the host": lambda: socket.create_connection(("127.0.0.1", PORT)),
    "end the host": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "end a rival": lambda: os.kill(RIVAL_PID, signal.SIGKILL),
    "end a rival's group": lambda: os.killpg(RIVAL_PID, signal.SIGKILL),
    "trace the host": trace,
    "limit a rival": lambda: resource.prlimit(RIVAL_PID, resource.RLIMIT_NOFILE, (1, 1)),
    "slow a rival down": lambda: os.setpriority(os.PRIO_PROCESS, RIVAL_PID, 19),
    "slow all of its user down": lambda: os.setpriority(os.PRIO_USER, 0, 19),
    "slow a rival down by a policy": lambda: by_number((314, 274), RIVAL_PID, POLICY_IDLE, 0),
    "keep memory after its end": lambda: by_number((29, 194), 0, 4096, 0o1600),
    "keep memory that nobody counts": lambda: os.memfd_create("hidden"),
    "mark a file of the operator": lambda: os.setxattr(OUTSIDE, "user.x", b"1"),
    "leave its process group": lambda: os.setsid(),
    "set the clock": lambda: __import__("time").clock_settime(0, 0.0),
}
ALLOWED = {
    "write a file of its own": lambda: open("own", "w").write("1"),
    "write a temporary file": lambda: tempfile.TemporaryFile().write(b"1"),
    "read its weights": lambda: open("resources/weights").read(),
    "run a program": lambda: subprocess.run([sys.executable, "-c", "import json"], check=True),
    "copy a file of its own": lambda: shutil.copy2("main.py", "copy"),
    "end its own child": own_child,
    "start a thread": thread,
    "import a library": lambda: __import__("numpy").ones(3) @ __import__("numpy").ones(3),
}

WITHOUT_EFFECT = {
    "lock the operator's file": lambda: os.chmod(OUTSIDE, 0),
    "open what it may read to all": lambda: os.fchmod(os.open(LIBRARY, os.O_RDONLY), 0o777),
    "give the operator's file away": lambda: os.chown(OUTSIDE, 1, 1),
    "make it look old": lambda: os.utime(OUTSIDE, (0, 0)),
}

def outcome(attempt):
    try:
        attempt()
    except (PermissionError, FileNotFoundError) as error:
        return type(error).__name__
    return "done"
"""


async def test_a_model_reaches_neither_the_machine_nor_the_node_nor_other_models(
    tmp_path: Path, open_stage: OpenStage
):
    models, outside = tmp_path / "models", tmp_path / "wallets.csv"
    outside.write_text("secret")
    write_model(models, "rival", model_source(PREDICT["good"]))
    library = Path(os.__file__)
    before = [path.stat() for path in (outside, library)]
    constants = (
        "OUTSIDE, LIBRARY, RIVAL, PORT, RIVAL_PID = "
        f"{str(outside)!r}, {str(library)!r}, {str(models / 'rival')!r}, 1, int(open('pid').read())"
    )
    folder = write_model(models, "curious", "")
    (folder / "main.py").write_text(
        f"{HEAD}{TRIES}\nclass Model(TrackerBase):\n"
        "    def predict(self, subject, horizon_seconds, step_seconds):\n"
        f"        global OUTSIDE, LIBRARY, RIVAL, PORT, RIVAL_PID\n        {constants}\n"
        "        return {name: outcome(attempt) for name, attempt in {**REFUSED, **WITHOUT_EFFECT, **ALLOWED}.items()}\n"
    )
    (folder / "resources").mkdir()
    (folder / "resources" / "weights").write_text("1")
    stage = await open_stage(models)
    await stage.seen("curious", "rival")
    assert stage.host.unconfined == []
    (stage.log_dir / "work" / "curious" / "pid").write_text(str(stage.pid("rival")))

    replies = await stage.gateway.call("predict", ("BTCUSDT", 60, 15), 10.0, ["curious"], 65_536)
    outcomes = replies["curious"].output
    scope: dict[str, dict[str, object]] = {}
    exec(TRIES, scope)  # noqa: S102 - the names of the attempts
    assert {name: outcomes[name] for name in scope["REFUSED"] if outcomes[name] != "PermissionError"} in (
        {},
        {"read the passwords": "FileNotFoundError"},
    )
    assert {name: outcomes[name] for name in scope["ALLOWED"] if outcomes[name] != "done"} == {}
    after = [path.stat() for path in (outside, library)]
    assert [(stat.st_mode, stat.st_uid, stat.st_mtime_ns) for stat in after] == [
        (stat.st_mode, stat.st_uid, stat.st_mtime_ns) for stat in before
    ]
    again = await stage.gateway.call("predict", ("BTCUSDT", 60, 15), 5.0, ["rival"], 65_536)
    assert again["rival"].output == {"value": 0.25}


@pytest.mark.parametrize(
    ("does", "why"),
    [
        (
            "import subprocess; self.kept = [subprocess.Popen(['sleep', '3600']) for _ in range(9)]",
            "processes; 8 are allowed",
        ),
        (
            "import os, time\n        for i in range(40): open(f'part{i}', 'wb').write(b'x' * 1_000_000)",
            "has written more than the 32 MB",
        ),
    ],
    ids=["processes", "files"],
)
async def test_the_total_use_of_a_model_is_bounded(
    tmp_path: Path, open_stage: OpenStage, caplog: pytest.LogCaptureFixture, does: str, why: str
):
    source = model_source(f"{does}\n        return {{'value': 1}}")
    write_model(tmp_path / "models", "hungry", source)
    stage = await open_stage(tmp_path / "models", Limits(processes_max=8, disk_limit_mb=32, restarts_max=0))
    await stage.seen("hungry")
    await stage.gateway.call("predict", ("BTCUSDT", 60, 15), 5.0, ["hungry"])
    await gather_notices(stage.gateway, lambda all_: any(notice.change != "seen" for notice in all_))
    failure = stage.host.models["hungry"].failure
    assert failure is not None
    assert why in failure.reason


def test_the_memory_of_several_processes_is_summed(tmp_path: Path):
    for pid, group, pages in ((10, 10, 30_000), (11, 10, 40_000), (20, 20, 1)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S 1 {group} " + "0 " * 18 + f"{pages} 0 0\n")
    limits = Limits(memory_limit_mb=200, disk_limit_mb=0)
    folder = tmp_path / "copy"
    reasons = excesses({"a": (10, folder), "b": (20, folder)}, limits, proc=tmp_path)
    assert list(reasons) == ["a"]
    assert "its 2 processes hold" in reasons["a"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "unreadable"])
async def test_a_file_that_cannot_be_copied_fails_only_its_own_model(
    tmp_path: Path, open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch, kind: str
):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    folder = write_model(tmp_path / "models", "odd", model_source(PREDICT["good"]))
    monkeypatch.chdir(folder)  # the address of a socket must be short
    if kind == "pipe":
        os.mkfifo("pipe")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind("s")
    else:
        Path("gone").symlink_to("nowhere")
        Path("x" * 200).mkdir()
        Path("folder").mkdir()
        os.mkfifo("folder/pipe")
    async with limit():
        stage = await open_stage(tmp_path / "models", Limits(restarts_max=0))
        await stage.seen("good")
    failure = stage.host.models["odd"].failure
    assert failure is not None
    assert "could not be copied" in failure.reason
    assert "is no file" in failure.reason


@pytest.mark.parametrize("leads_to", ["/", "../rival"])
async def test_a_link_as_weights_opens_no_other_folder(tmp_path: Path, open_stage: OpenStage, leads_to: str):
    write_model(tmp_path / "models", "rival", model_source(PREDICT["good"]))
    folder = write_model(tmp_path / "models", "curious", model_source(PREDICT["good"]))
    (folder / "resources").symlink_to(leads_to)
    stage = await open_stage(tmp_path / "models", Limits(restarts_max=0))
    await stage.seen("rival")
    failure = stage.host.models["curious"].failure
    assert failure is not None
    assert "resources is a link" in failure.reason


async def test_a_fault_of_the_host_itself_stops_one_model_and_delays_no_start(
    tmp_path: Path, open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    write_model(tmp_path / "models", "odd", model_source(PREDICT["good"]))
    died = HostedModel.died

    def broken(model: HostedModel, now_seconds: float, limits: Limits) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(HostedModel, "died", broken)
    (tmp_path / "models" / "odd" / "pipe").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "models" / "odd" / "pipe")
    async with limit():
        stage = await open_stage(tmp_path / "models")
    monkeypatch.setattr(HostedModel, "died", died)
    assert stage.host.models["good"].state == "RUNNING"
    failure = stage.host.models["odd"].failure
    assert failure is not None
    assert failure.code == "HOST_FAILED"


@pytest.mark.parametrize(
    ("token", "shown", "state"),
    [
        ("", None, "STOPPED"),  # each model is cut off from the network, so no connection comes from one
        ("secret", "secret", "STOPPED"),
        ("secret", "other", "RUNNING"),
        ("secret", None, "RUNNING"),
    ],
)
async def test_a_failure_report_is_accepted_from_the_coordinator_alone(
    tmp_path: Path, token: str, shown: str | None, state: str
):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    host = ModelHost(tmp_path / "models", CRUNCH_ID, 0, tmp_path / "logs", token=token)
    port = await host.start()
    try:
        report = {"model_id": "good", "failure_code": "MULTIPLE_FAILED", "ip": "127.0.0.1"}
        headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
        async with websockets.connect(
            f"ws://127.0.0.1:{port}/{CRUNCH_ID}", additional_headers=headers
        ) as connection:
            await connection.recv()
            await connection.send(json.dumps({"event": "report_failure", "data": [report]}))
            await connection.ping()
            await asyncio.sleep(0.2)
        assert host.models["good"].state == state
    finally:
        await host.stop()


async def test_where_models_are_not_sealed_a_report_without_a_token_stops_nobody(tmp_path: Path):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    host = ModelHost(tmp_path / "models", CRUNCH_ID, 0, tmp_path / "logs")
    port = await host.start()
    try:
        child = host.models["good"].child
        assert child is not None
        child.confined = ("files",)
        assert host.unconfined == ["good"]
        report = {"model_id": "good", "failure_code": "MULTIPLE_FAILED", "ip": "127.0.0.1"}
        async with websockets.connect(f"ws://127.0.0.1:{port}/{CRUNCH_ID}") as connection:
            await connection.recv()
            await connection.send(json.dumps({"event": "report_failure", "data": [report]}))
            await asyncio.sleep(0.2)
        assert host.models["good"].state == "RUNNING"
    finally:
        await host.stop()


def test_the_process_that_starts_models_gets_no_secret_of_the_node(monkeypatch: pytest.MonkeyPatch):
    for name in (
        "KAFKA_SASL_PASSWORD",
        "WEBHOOK_SECRET",
        "EVIDENCE_KEY",
        "API_KEYS",
        "SOLANA_RPC_URL",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, "s3cret")
    assert "s3cret" not in scrubbed_environment().values()
    assert set(scrubbed_environment()) <= set(HOST_ENVIRONMENT)


async def test_an_old_library_on_the_operators_path_comes_after_ours_and_is_available_to_models(
    tmp_path: Path, open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "old" / "google" / "protobuf").mkdir(parents=True)
    for name in ("google", "google/protobuf", "only_there"):
        (tmp_path / "old" / name).mkdir(exist_ok=True)
        (tmp_path / "old" / name / "__init__.py").write_text("__version__ = 'old'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "old"))
    installed.cache_clear()
    source = "import google.protobuf as one, only_there as two; return [one.__version__, two.__version__]"
    write_model(tmp_path / "models", "asks", model_source(source))
    stage = await open_stage(tmp_path / "models")
    await stage.seen("asks")
    installed.cache_clear()
    reply = (await stage.gateway.call("predict", ("BTCUSDT", 60, 15), 5.0, ["asks"], 65_536))["asks"]
    assert reply.output[0] != "old"
    assert reply.output[1] == "old"
