"""The real host with real children over real gRPC, through the real client, by the gateway."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.infra.models.stage import (
    CRUNCH_ID,
    HEAD,
    PREDICT,
    OpenStage,
    Stage,
    changes,
    gather_notices,
    model_source,
    write_model,
)
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.infra.models.host import process
from coordinator.infra.models.host.host import ModelHost
from coordinator.infra.models.host.installed_packages import IMPORT_ROOT
from coordinator.infra.models.host.process import Limits
from coordinator.streams.ports import ModelReply, Outcome

ASK = ("BTCUSDT", 60, 15)
MAX_BYTES = 65_536
TICK = {"symbol": "BTCUSDT", "asof_ts": 60_000, "candles": []}


AT_WORK = "import time; time.sleep(100)"
"""Longer than any test lasts, so that it is still working whenever the test looks, however busy the machine is."""


async def ask(stage: Stage, *model_ids: str, timeout_seconds: float = LIMIT_SECONDS) -> dict[str, ModelReply]:
    return await stage.gateway.call("predict", ASK, timeout_seconds, model_ids, MAX_BYTES)


def assert_ended_in_the_call(reply: ModelReply) -> None:
    """gRPC or the host reports its broken connection, whichever is first."""
    assert reply.outcome in {Outcome.CRASHED, Outcome.ABSENT}
    assert reply.fault == "model"


async def test_each_kind_of_model_has_its_own_outcome(tmp_path: Path, open_stage: OpenStage):
    for name, predict in (PREDICT | {"slow": AT_WORK}).items():
        write_model(tmp_path / "models", name, model_source(predict))
    stage = await open_stage(tmp_path / "models", Limits(memory_limit_mb=1024, call_limit_seconds=100.0))
    notices = await stage.seen(*PREDICT)
    assert {notice.change for notice in notices} == {"seen"}

    ticks = await stage.gateway.call("tick", [TICK], LIMIT_SECONDS, list(PREDICT))
    assert {reply.outcome for reply in ticks.values()} == {Outcome.OK}

    others = [name for name in PREDICT if name != "slow"]
    replies, late = await asyncio.gather(
        ask(stage, *others, "nobody"), ask(stage, "slow", timeout_seconds=0.8)
    )
    replies |= late
    assert_ended_in_the_call(replies.pop("crashes"))
    assert {model_id: reply.outcome for model_id, reply in replies.items()} == {
        "good": Outcome.OK,
        "raises": Outcome.MODEL_FAILED,
        "nan": Outcome.OK,
        "slow": Outcome.DEADLINE,
        "tuple": Outcome.MODEL_FAILED,
        "large": Outcome.TOO_BIG,
        "exits": Outcome.MODEL_FAILED,
        "hungry": Outcome.MODEL_FAILED,
        "nobody": Outcome.ABSENT,
    }
    assert replies["good"].output == {"value": 0.25}
    assert replies["good"].deployment_id == stage.host.models["good"].deployment_id
    assert 0 < replies["good"].exec_time_us < LIMIT_SECONDS * 1e6
    assert math.isnan(replies["nan"].output["value"])
    assert "RuntimeError: no" in (stage.log_dir / "raises.log").read_text()

    # A failed call does not affect a model's next call. A model that is still working is busy.
    again = await ask(stage, "good", "raises", "slow", "hungry")
    assert [reply.outcome for reply in again.values()] == [
        Outcome.OK,
        Outcome.MODEL_FAILED,
        Outcome.BUSY,
        Outcome.MODEL_FAILED,
    ]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("{'value': numpy.float32(0.25)}", "a dict that is not JSON: Object of type float32 is not JSON"),
        ("[numpy.int64(1)]", "a list that is not JSON: Object of type int64 is not JSON"),
        ("numpy.float32(0.25)", "a float32 cannot be sent: use None, float, int, str, dict or list"),
        ("numpy.zeros(3)", "a ndarray cannot be sent: use None, float, int, str, dict or list"),
    ],
)
async def test_an_answer_of_numpy_types_fails_and_names_the_type(
    tmp_path: Path, open_stage: OpenStage, answer: str, says: str
):
    write_model(tmp_path / "models", "numpy", f"import numpy\n{model_source(f'return {answer}')}")
    stage = await open_stage(tmp_path / "models")
    await stage.seen("numpy")
    reply = (await ask(stage, "numpy"))["numpy"]
    assert (reply.outcome, reply.output) == (Outcome.MODEL_FAILED, None)
    assert reply.detail.startswith("VariantError: ")
    assert says in reply.detail


async def test_no_model_is_called_if_none_is_named_or_no_time_is_left(tmp_path: Path, open_stage: OpenStage):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models")
    await stage.seen("good")
    assert await ask(stage) == {}
    replies = await ask(stage, "good", timeout_seconds=0.0)
    assert replies["good"].outcome is Outcome.DEADLINE


async def test_a_submission_that_cannot_be_set_up_is_reported_and_stopped(
    tmp_path: Path, open_stage: OpenStage
):
    models = tmp_path / "models"
    write_model(models, "good", model_source(PREDICT["good"]))
    write_model(
        models, "bad_init", HEAD + "class M(TrackerBase):\n  def __init__(self): raise ValueError('x')\n"
    )
    write_model(models, "syntax_error", "def broken(:\n")
    write_model(models, "two", HEAD + "class A(TrackerBase): pass\nclass B(TrackerBase): pass\n")
    stage = await open_stage(models)
    bad = ("bad_init", "syntax_error", "two")
    notices = await gather_notices(
        stage.gateway,
        lambda all_: (
            changes(all_, "good") == ["seen"] and all(changes(all_, name)[-1:] == ["left"] for name in bad)
        ),
    )
    assert {notice.info.model_id: notice.code for notice in notices if notice.change == "failed"} == {
        "bad_init": "MULTIPLE_FAILED",
        "syntax_error": "BAD_IMPLEMENTATION",
        "two": "BAD_IMPLEMENTATION",
    }
    reasons = {notice.info.model_id: notice.reason for notice in notices if notice.change == "failed"}
    assert reasons["bad_init"] == "ValueError: x"
    assert "SyntaxError" in reasons["syntax_error"]
    assert "main.A and main.B" in reasons["two"]
    for name in bad:
        assert stage.host.models[name].failure.reason == reasons[name]
        assert changes(notices, name) == ["seen", "failed", "left"]
        assert stage.host.models[name].state == "STOPPED"
    assert "two models found: main.A and main.B" in (stage.log_dir / "two.log").read_text()
    replies = await ask(stage, "good", *bad)
    assert [reply.outcome for reply in replies.values()] == [Outcome.OK] + [Outcome.ABSENT] * 3


async def test_a_killed_process_recovers_as_a_new_deployment_and_answers(
    tmp_path: Path, open_stage: OpenStage
):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models")
    (first,) = await stage.seen("good")
    old_port = stage.host.models["good"].port
    os.kill(stage.pid("good"), signal.SIGKILL)
    notices = await gather_notices(stage.gateway, lambda all_: len(all_) >= 2)
    assert changes(notices, "good") == ["recovering", "seen"]
    assert notices[1].info.deployment_id > first.info.deployment_id
    assert stage.host.models["good"].port != old_port
    replies = await ask(stage, "good")
    assert replies["good"].outcome is Outcome.OK
    assert replies["good"].deployment_id == notices[1].info.deployment_id


async def test_a_model_that_dies_beyond_its_budget_is_stopped(tmp_path: Path, open_stage: OpenStage):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models", Limits(restarts_max=1))
    await stage.seen("good")
    os.kill(stage.pid("good"), signal.SIGKILL)
    await stage.seen("good")
    os.kill(stage.pid("good"), signal.SIGKILL)
    notices = await gather_notices(stage.gateway, lambda all_: changes(all_, "good")[-1:] == ["left"])
    assert changes(notices, "good") == ["left"]
    assert stage.host.models["good"].failure is not None
    assert (await ask(stage, "good"))["good"].outcome is Outcome.ABSENT


@pytest.mark.parametrize(
    "hang",
    ["import time; time.sleep(60)", "import re; re.match('(a+)+b', 'a' * 60)"],
    ids=["waits", "holds the GIL"],
)
async def test_a_model_that_hangs_is_ended_at_the_hard_limit(
    tmp_path: Path, open_stage: OpenStage, hang: str
):
    write_model(tmp_path / "models", "hangs", model_source(hang))
    stage = await open_stage(tmp_path / "models", Limits(call_limit_seconds=0.5))
    await stage.seen("hangs")
    replies = await ask(stage, "hangs", timeout_seconds=0.2)
    assert replies["hangs"].outcome is Outcome.DEADLINE
    notices = await gather_notices(stage.gateway, lambda all_: len(all_) >= 2)
    assert changes(notices, "hangs") == ["recovering", "seen"]


async def test_a_second_call_finds_a_working_model_busy(tmp_path: Path, open_stage: OpenStage):
    write_model(
        tmp_path / "models", "slow", model_source("import time; time.sleep(3); return {'value': 0.1}")
    )
    stage = await open_stage(tmp_path / "models")
    await stage.seen("slow")
    replies = await asyncio.gather(ask(stage, "slow"), ask(stage, "slow"))
    assert {reply["slow"].outcome for reply in replies} == {Outcome.OK, Outcome.BUSY}


async def test_a_slow_setup_delays_no_other_model(tmp_path: Path, open_stage: OpenStage):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    go_on = tmp_path / "go_on"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.05)\n"
    write_model(tmp_path / "models", "a_slow_setup", HEAD + waits + model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models")
    notices = await stage.seen("good")
    assert changes(notices, "a_slow_setup") == []
    replies = await ask(stage, "good", "a_slow_setup")
    assert [reply.outcome for reply in replies.values()] == [Outcome.OK, Outcome.ABSENT]
    go_on.touch()
    await stage.seen("a_slow_setup")


async def test_a_wrong_base_class_stops_no_model(
    tmp_path: Path, open_stage: OpenStage, caplog: pytest.LogCaptureFixture
):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models", base_classname="cruncher.ModelBaseClass")
    async with limit():
        while "MODEL_BASE_CLASSNAME=cruncher.ModelBaseClass" not in caplog.text:
            await asyncio.sleep(0.05)
    assert stage.gateway.notices() == []
    assert stage.host.models["good"].state == "RUNNING"


async def test_a_child_sees_a_scrubbed_environment_and_works_on_a_copy(
    tmp_path: Path, open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COORDINATOR_TEST_SECRET", "s3cret")
    source = model_source("import os; open('here', 'w').close(); return sorted(os.environ)")
    folder = write_model(tmp_path / "models", "curious", source)
    (folder / "resources").mkdir()
    (folder / "resources" / "weights").write_text("1")
    stage = await open_stage(tmp_path / "models")
    await stage.seen("curious")
    reply = (await ask(stage, "curious"))["curious"]
    assert set(reply.output) <= {*process.ENVIRONMENT_KEPT, "LC_CTYPE", "HOME", "TMPDIR"}
    work = stage.log_dir / "work" / "curious"
    assert (work / "here").exists()
    assert (work / "resources" / "weights").read_text() == "1"
    assert not (folder / "here").exists()


async def test_the_output_of_a_model_is_kept_up_to_a_limit(tmp_path: Path, open_stage: OpenStage):
    source = model_source("print('x' * 200_000); print('the end'); return 1")
    write_model(tmp_path / "models", "loud", source)
    stage = await open_stage(tmp_path / "models", Limits(log_bytes_max=100_000))
    await stage.seen("loud")
    for _ in range(3):
        assert (await ask(stage, "loud"))["loud"].output == 1
    async with limit():
        while "the end" not in (stage.log_dir / "loud.log").read_text():
            await asyncio.sleep(0.05)
    bytes_kept = sum(path.stat().st_size for path in stage.log_dir.glob("loud.log*"))
    assert bytes_kept <= 100_000


async def test_the_gateway_finds_a_host_that_comes_up_later(tmp_path: Path):
    from coordinator.infra.models.gateway import RunnerClientGateway

    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    first = ModelHost(tmp_path / "models", CRUNCH_ID, 0, tmp_path / "logs")
    port = await first.start()
    await first.stop()
    gateway = RunnerClientGateway("127.0.0.1", port, CRUNCH_ID)
    async with limit():
        await gateway.start()
    assert (await gateway.call("predict", ASK, 1.0, ["good"]))["good"].outcome is Outcome.ABSENT
    second = ModelHost(tmp_path / "models", CRUNCH_ID, port, tmp_path / "logs")
    await second.start()
    stage = Stage(second, port, gateway, tmp_path / "logs")
    try:
        await stage.seen("good")
        assert (await ask(stage, "good"))["good"].outcome is Outcome.OK
    finally:
        await gateway.stop()
        await second.stop()


async def test_a_round_during_a_restart_of_the_host_is_no_models_fault(tmp_path: Path, open_stage: OpenStage):
    go_on = tmp_path / "go_on"
    go_on.touch()
    slow = f"    def __init__(self):\n        import pathlib, time\n        while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.05)\n"
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]) + slow)
    stage = await open_stage(tmp_path / "models")
    await stage.seen("good")
    await stage.host.stop()
    go_on.unlink()
    waits = asyncio.create_task(ask(stage, "good"))  # its channel is closed when the host is back
    second = ModelHost(tmp_path / "models", CRUNCH_ID, stage.port, tmp_path / "logs")
    await second.start()
    try:
        replies = [
            (await waits)["good"],
            (await ask(stage, "good"))["good"],
        ]  # the second, during its setup
        assert stage.gateway.connected
        assert [(reply.outcome, reply.fault) for reply in replies] == [(Outcome.ABSENT, "node")] * 2
        go_on.touch()
        await stage.seen("good")
        assert (await ask(stage, "good"))["good"].outcome is Outcome.OK
    finally:
        await second.stop()


async def test_a_host_that_comes_back_with_fewer_models_has_lost_the_others(
    tmp_path: Path, open_stage: OpenStage
):
    for name in ("good", "other"):
        write_model(tmp_path / "models", name, model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models")
    await stage.seen("good", "other")
    assert stage.gateway.connected
    await stage.host.stop()
    replies = await ask(stage, "good", timeout_seconds=0.3)
    assert replies["good"].outcome is Outcome.CRASHED
    assert not stage.gateway.connected

    (tmp_path / "models" / "other" / "main.py").unlink()
    second = ModelHost(tmp_path / "models", CRUNCH_ID, stage.port, tmp_path / "logs")
    await second.start()
    try:
        notices = await gather_notices(stage.gateway, lambda all_: len(all_) >= 2)
        assert {(notice.info.model_id, notice.change) for notice in notices} == {
            ("other", "left"),
            ("good", "seen"),
        }
        assert (await ask(stage, "good"))["good"].outcome is Outcome.OK
    finally:
        await second.stop()


async def test_one_models_failed_authentication_affects_no_other_answer(
    tmp_path: Path, open_stage: OpenStage
):
    from model_runner_client.security.wallet_gelegation import AuthError

    async def refuse(*_: object, **__: object) -> None:
        raise AuthError("wrong wallet")

    for name in ("good", "forged"):
        write_model(tmp_path / "models", name, model_source(PREDICT["good"]))
    stage = await open_stage(tmp_path / "models")
    await stage.seen("good", "forged")
    stage.gateway._runner.model_cluster.models_run["forged"].grpc_stub = SimpleNamespace(Call=refuse)
    replies = await ask(stage, "good", "forged")
    assert [reply.outcome for reply in replies.values()] == [Outcome.OK, Outcome.ABSENT]
    notices = await gather_notices(stage.gateway, lambda all_: changes(all_, "forged")[-1:] == ["left"])
    assert [notice.code for notice in notices if notice.change == "failed"] == ["CONNECTION_FAILED"]


async def test_a_process_that_forgot_its_setup_is_set_up_again(tmp_path: Path, open_stage: OpenStage):
    # The model forgets by itself. To the client this looks like a process that was restarted on the same port.
    source = model_source(
        "import gc\n        [setattr(o, '_model', None) for o in gc.get_objects()"
        " if type(o).__name__ == 'DynamicSubclassServicer']"
    )
    write_model(tmp_path / "models", "forgets", source)
    stage = await open_stage(tmp_path / "models")
    await stage.seen("forgets")
    await ask(stage, "forgets")
    assert (await ask(stage, "forgets"))["forgets"].outcome is Outcome.CRASHED
    async with limit():
        while (await ask(stage, "forgets"))["forgets"].outcome is not Outcome.OK:
            await asyncio.sleep(0.05)


async def test_a_crash_is_noticed_although_the_model_left_something_running(
    tmp_path: Path, open_stage: OpenStage
):
    crash = model_source("import os, subprocess; subprocess.Popen(['sleep', '3600']); os._exit(3)")
    write_model(tmp_path / "models", "parent", crash)
    stage = await open_stage(tmp_path / "models")
    await stage.seen("parent")
    assert_ended_in_the_call((await ask(stage, "parent"))["parent"])
    notices = await gather_notices(stage.gateway, lambda all_: len(all_) >= 2)
    assert changes(notices, "parent") == ["recovering", "seen"]


async def test_processes_started_by_a_model_end_with_it(tmp_path: Path, open_stage: OpenStage):
    source = model_source("import subprocess; return subprocess.Popen(['sleep', '3600']).pid")
    write_model(tmp_path / "models", "parent", source)
    stage = await open_stage(tmp_path / "models")
    await stage.seen("parent")
    pid = (await ask(stage, "parent"))["parent"].output
    assert alive(pid)
    await stage.host.stop()
    async with limit():
        while alive(pid) and not zombie(pid):
            await asyncio.sleep(0.02)


def run_host(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(IMPORT_ROOT)}
    command = [sys.executable, "-P", "-m", "coordinator.infra.models.host", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def children_of(pid: int) -> list[int]:
    """The models' processes, forked by the host's fork server."""
    (server,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in Path(f"/proc/{server}/task/{server}/children").read_text().split()]


def zombie(pid: int) -> bool:
    """Dead, and not yet collected by the process that adopted it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find the children")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
async def test_the_hosts_children_end_with_it(tmp_path: Path, number: signal.Signals, code: int):
    for name in ("a", "b"):
        write_model(tmp_path / "models", name, model_source(PREDICT["good"]))
    logs = tmp_path / "logs"
    host = run_host(
        *("--models", str(tmp_path / "models"), "--port", "0"), "--crunch", CRUNCH_ID, "--log-dir", str(logs)
    )
    assert host.stdout is not None
    assert host.stdout.readline().startswith("listening on 127.0.0.1:")
    pids = children_of(host.pid)
    assert len(pids) == 2
    host.send_signal(number)
    assert host.wait(LIMIT_SECONDS) == code
    async with limit():
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.02)
    host.communicate()


def test_a_wrong_folder_is_one_line_and_exit_code_two(tmp_path: Path):
    host = run_host(
        *("--models", str(tmp_path / "nowhere"), "--port", "0", "--crunch", "c", "--log-dir", str(tmp_path))
    )
    _, error = host.communicate(timeout=LIMIT_SECONDS)
    assert host.returncode == 2
    assert error.startswith("error: the models folder")
    assert len(error.splitlines()) == 1
