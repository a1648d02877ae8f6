"""The tutorials, run as they stand on their pages: their commands are the test.

Each begins in an empty folder. Those that start the same node share it: what it costs is paid once. So are the imports
of the other commands, which are forks. What a page says that one sees is looked for in what the commands print.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import TUTORIALS, Block, blocks_of
from tests.forked_command import ForkedCommand
from tests.waiting import LIMIT_SECONDS, looks

pytestmark = pytest.mark.broker
OTHER_TERMINAL = "in another terminal, until"
AGAIN = "until it shows"


class Terminal:
    """A shell in a folder: what one types into it, block by block. `running` are the other terminals."""

    def __init__(
        self, folder: Path, running: dict[tuple[Path, str], subprocess.Popen], commands: Path
    ) -> None:
        self.folder, self.running = folder, running
        self.environ = environment_of_a_reader(folder, commands)

    def take(self, block: Block) -> None:
        if OTHER_TERMINAL in block.said:
            self._start(block)
        elif "file" in block.said:
            path = self.folder / block.said["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif AGAIN in block.said:
            tries = [self._run(block.text)]
            for _ in looks(1.0, lambda: tries[-1][1]):
                if block.said[AGAIN] in tries[-1][1]:
                    break
                tries.append(self._run(block.text))
            self._see(block, *tries[-1])
        else:
            self._see(block, *self._run(block.text))

    def _see(self, block: Block, code: int, output: str) -> None:
        assert code == int(block.said.get("exit code", 0)), f"{block.text}\n{output}"
        for part in block.shows:
            assert any(words in output for words in part.split("|")), (
                f"{block.text} does not show {part!r}:\n{output}"
            )

    def _run(self, text: str) -> tuple[int, str]:
        place = self.folder.parent / f"{self.folder.name}.place"
        script = f"set -euo pipefail\ntrap 'pwd > {place}' EXIT\n{text}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        self.folder = Path(place.read_text().strip())
        return done.returncode, done.stdout

    def _start(self, block: Block) -> None:
        key = (self.folder, block.text)
        log = self.folder / "other-terminal.log"
        if key not in self.running:
            with log.open("wb") as out:
                self.running[key] = subprocess.Popen(
                    ["bash", "-c", f"exec {block.text.strip()}"],
                    cwd=self.folder,
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
        for _ in looks(0.2, log.read_text):
            if block.said[OTHER_TERMINAL] in log.read_text():
                return
            assert self.running[key].poll() is None, log.read_text()


def environment_of_a_reader(folder: Path, commands: Path) -> dict[str, str]:
    """A reader's: `coordinator` on the path, nothing of this run's settings, wide enough for tables."""
    names_of_reader = (
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "XDG_CACHE_HOME",
        "JAVA_HOME",
        "COORDINATOR_KAFKA_JARS",
    )
    environ = {name: os.environ[name] for name in names_of_reader if name in os.environ}
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), environ["PATH"]])
    return environ | {"PATH": path, "COLUMNS": "160", "PWD": str(folder)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    with ForkedCommand(tmp_path_factory.mktemp("bin")) as command:
        yield command.folder


@pytest.fixture(scope="module")
def running():
    processes: dict[tuple[Path, str], subprocess.Popen] = {}
    yield processes
    for process in processes.values():
        process.send_signal(signal.SIGINT)  # Ctrl-C, as the page says
    for process in processes.values():
        process.wait(LIMIT_SECONDS)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_it_is_written(page, folder, running, commands):
    terminal = Terminal(folder, running, commands)
    blocks = blocks_of(page)
    assert sum(block.language == "bash" for block in blocks) >= 4
    assert any(block.shows for block in blocks), "it ends with something seen"
    for block in blocks:
        if "not run" not in block.said:
            terminal.take(block)
