"""The process that makes a bundle is killed (SIGKILL) between any two calls: the file is missing, or it is complete."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.infra.evidence.bundles import bundle_of, whole_log

from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.streams.evidence.bundle_judging import Trust, judge_bundle

KILLS = 8


def in_a_process(folder: Path, kill_at: int) -> int:
    """Make the second checkpoint's bundle in a fork that kills itself at its n-th call of a C function. Returns its
    signal, 0 if it came to its end.
    """
    whole_log()
    child = os.fork()
    if not child:
        calls = 0

        def count(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal calls
            calls += event == "c_call"
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        try:
            bundle_of(folder, whole_log(), 1)
        finally:
            sys.setprofile(None)
            (folder / "calls").write_text(str(calls))
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status)


@pytest.mark.parametrize("before", [False, True], ids=["first", "over an earlier one"])
def test_a_bundle_that_is_killed_is_whole_or_absent(tmp_path: Path, before: bool):
    path = tmp_path / "checkpoint.bundle"
    earlier = bundle_of(tmp_path, whole_log(), 0).read_bytes() if before else None
    bundle_of(tmp_path, whole_log(), 1)  # now the tree exists, and each run makes the same calls
    assert in_a_process(tmp_path, -1) == 0
    calls, whole = int((tmp_path / "calls").read_text()), path.read_bytes()
    seen = set()
    rng = random.Random(before)
    # The last calls are those that write the file and give it its name.
    moments = [rng.randrange(1, calls) for _ in range(KILLS // 2)] + [calls - n for n in range(1, KILLS // 2)]
    for kill_at in moments:
        if earlier is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(earlier)
        assert in_a_process(tmp_path, kill_at) == signal.SIGKILL
        content = path.read_bytes() if path.exists() else None
        assert content in (earlier, whole), kill_at
        seen.add(content)
    assert seen == {earlier, whole}
    list(judge_bundle(BundleFile(bundle_of(tmp_path, whole_log(), 1)), Trust()))
