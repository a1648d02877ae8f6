"""A participant whose model violates a rule of the host learns the rule where the failure is shown."""

from __future__ import annotations

import sys

import pytest
from tests.infra.models.stage import CRUNCH_ID, HEAD, OpenStage, gather_notices, model_source, write_model  # noqa: F401
from tests.infra.models.test_host import ask

from coordinator.infra.models.host.refusals import FILES, NETWORK, PROCESSES, told
from coordinator.streams.ports import Outcome

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's means are Linux's")
MET = {
    "a pool": ("import multiprocessing; multiprocessing.Pool(2).map(abs, [1])", PROCESSES),
    "a lock": ("import multiprocessing; multiprocessing.Lock()", PROCESSES),
    "a queue": ("import multiprocessing; multiprocessing.Queue()", PROCESSES),
    "an executor": (
        "import concurrent.futures as f; list(f.ProcessPoolExecutor(2).map(abs, [1]))", PROCESSES,
    ),
    "shared memory": (
        "from multiprocessing.shared_memory import SharedMemory; SharedMemory(create=True, size=9)", PROCESSES,
    ),
    "a connection": ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:1')", NETWORK),
    "a socket": ("import socket; socket.socket()", NETWORK),
    "a file of the machine": ("open('/etc/shadow').read()", FILES),
    "a file beside its own": ("open('/tmp/by_a_model', 'w')", FILES),
}  # fmt: skip


@linux
async def test_a_forbidden_action_is_explained_to_the_author_in_plain_words(tmp_path, open_stage: OpenStage):
    names = {f"m{number}": case for number, case in enumerate(MET.values())}
    for name, (statement, _) in names.items():
        write_model(tmp_path / "models", name, model_source(f"{statement}; return {{'value': 0.1}}"))
    stage = await open_stage(tmp_path / "models")
    await stage.seen(*names)
    replies = await ask(stage, *names)
    for name, (statement, rule) in names.items():
        assert replies[name].outcome is Outcome.MODEL_FAILED, statement
        assert rule in replies[name].detail, (statement, replies[name].detail)


@linux
async def test_at_the_top_of_a_module_it_is_the_reason_of_the_failed_setup(tmp_path, open_stage: OpenStage):
    source = f"import multiprocessing\nlock = multiprocessing.Lock()\n{model_source('return 1.0')}"
    write_model(tmp_path / "models", "bad", source)
    stage = await open_stage(tmp_path / "models")
    notices = await gather_notices(
        stage.gateway, lambda all_: any(notice.change == "failed" for notice in all_)
    )
    (failed,) = [notice for notice in notices if notice.change == "failed"]
    assert PROCESSES in failed.reason


def test_a_models_own_error_is_shown_unchanged():
    assert told(ValueError("x")) == "ValueError: x"
    assert told(FileNotFoundError(2, "No such file", "weights")) == (
        "FileNotFoundError: [Errno 2] No such file: 'weights'"
    )
    assert told(PermissionError("mine")) == "PermissionError: mine"
