"""Brings what the embedded broker needs, once, and shows how far it is. `make setup` runs it; so does `up`.

Fetches Kafka's jars into the user's cache directory, then runs the broker once, empty, so that Java writes
down what it learnt (the AOT cache): every later start is about 3 s shorter. Both are skipped where they are
there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, Task, TextColumn
from rich.text import Text

from coordinator.infra.kafka.embedded import EmbeddedBroker
from coordinator.infra.kafka.runtime import (
    JAVA_MAJOR_WITH_AOT,
    FetchProgress,
    aot_cache_path,
    cache_dir,
    load_runtime,
    silent,
)
from coordinator.infra.processes.data_dir import exclusive, remove_left
from coordinator.streams.log.errors import CoordinatorError, OperatorError, WorldError

SCRATCH = "learn-"
AOT_WRITE_SECONDS_MAX = 120.0
AOT_CACHES_KEPT = 4  # one for each environment in use; 65 MB each


def ensure_runtime(progress: FetchProgress = silent) -> None:
    """Jars, Java and the AOT cache, as far as they are missing. Without a network it works on what is there.

    Raises OperatorError without a Java, WorldError when the jars cannot be fetched. A start-up cache that
    cannot be made is no error: the progress says so and the broker starts slower.
    """
    runtime = load_runtime(progress)
    if runtime.aot_cache is not None or runtime.java.major < JAVA_MAJOR_WITH_AOT:
        return
    aot_cache = aot_cache_path(runtime.java, runtime.jars)
    with exclusive(cache_dir() / "aot.lock"):
        remove_left(cache_dir(), f"{SCRATCH}*")
        if aot_cache.is_file():
            return
        progress("trying the broker once, to start faster from now on", 0, 0)
        try:
            _learn(aot_cache)
        except (WorldError, OperatorError, OSError) as error:
            progress(f"the start-up cache could not be made, starts will be slower: {error}", 0, 0)


def _learn(aot_cache: Path) -> None:
    aot_cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=cache_dir()) as scratch:
        partial = Path(scratch) / "aot"
        broker = EmbeddedBroker(Path(scratch) / "broker")
        broker.start(java_options=(f"-XX:AOTCacheOutput={partial}",))
        try:
            broker.wait_ready()
        finally:
            # Java writes the cache on its way out.
            broker.stop(grace_seconds=AOT_WRITE_SECONDS_MAX)
        if not partial.is_file():
            raise WorldError(f"Java did not write its cache within {AOT_WRITE_SECONDS_MAX:g} s")
        partial.rename(aot_cache)
    by_age = sorted(aot_cache.parent.glob("*.aot"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in by_age[AOT_CACHES_KEPT:]:
        old.unlink(missing_ok=True)


class _Bytes(DownloadColumn):
    """Nothing for work that is not counted in bytes."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


@contextmanager
def progress_bars(console: Console) -> Iterator[FetchProgress]:
    """A FetchProgress that draws one bar per text on `console`; texts without a length get a spinner. Where nobody
    watches, each text is a line.
    """
    if not console.is_interactive:
        told = set()

        def tell(text: str, done_bytes: int, total_bytes: int) -> None:  # noqa: ARG001 - a FetchProgress
            if text not in told:
                told.add(text)
                console.print(text, markup=False, soft_wrap=True)

        yield tell
        return
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), _Bytes(), console=console
    ) as bars:
        tasks = {}

        def show(text: str, done_bytes: int, total_bytes: int) -> None:
            if text not in tasks:
                tasks[text] = bars.add_task(text, total=total_bytes or None)
            bars.update(tasks[text], completed=done_bytes)

        yield show


def main() -> int:
    """Fetch with bars on the terminal; 0, or 1 with one clear line."""
    console = Console(stderr=True)
    try:
        with progress_bars(console) as progress:
            ensure_runtime(progress)
    except CoordinatorError as error:
        console.print(f"[red]setup:[/red] {error}", highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
