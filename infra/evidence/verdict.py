"""The whole verdict on a bundle: first what needs none of the contract's code, then everything computed again.

Reads the file alone. `coordinator verify` shows it to somebody, a witness signs by it.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from coordinator.infra.evidence.bundle_file import BundleFile
from coordinator.infra.evidence.recompute import recompute
from coordinator.streams.audit.facts import broken
from coordinator.streams.evidence.bundle import BundleRefusedError
from coordinator.streams.evidence.bundle_judging import Judged, Trust, judge_bundle
from coordinator.streams.log.counting import Decision


def verdict(
    file: Path, trust: Trust, seconds_max: float, on_decision: Callable[[Decision], None] | None = None
) -> Iterator[tuple[str, str]]:
    """(step, what was checked) in the order of trust. Raises ChainBrokenError: the first step that does not hold.

    `on_decision` is given every decision as the log is read; what it was given counts once all steps hold.
    """
    try:
        members = BundleFile(file)
    except BundleRefusedError as error:
        broken("bundle", str(error))
    for step in judge_bundle(members, trust, on_decision):
        if isinstance(step, Judged):
            yield "versions", _differences(step.manifest.versions)
        else:
            yield step
    yield from recompute(file, seconds_max)


def _differences(versions: dict[str, str]) -> str:
    """Which libraries are others here than at the node."""
    others = []
    for name, there in sorted(versions.items()):
        try:
            here = platform.python_version() if name == "python" else importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = "none"
        if here != there:
            others.append(f"{name} {here} here, {there} there")
    return "; ".join(others) or f"all {len(versions)} that matter are those of the node"
