"""The supervisor: children that die are started again, and all of them end with us.

Reads the ends of child processes; emits messages for people and the state of each child. A child that dies is
started again after a pause that grows (0.5, 1, 2, 4 .. 30 s) and is short again once it was well for 60 s: a
child that fails at once must not eat the machine, and one that fails once a day must not wait.

Exit code 2 of a child is an operator's error: starting again would only repeat it, so it ends the whole node
with the child's own message. Everything else, exit code 0 included, is a death: no child of a node is ever done.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Callable, Mapping
from time import monotonic

import msgspec

from coordinator.infra.processes.children import Process
from coordinator.infra.processes.ending import END_SECONDS_MAX
from coordinator.streams.log.errors import OperatorError

PAUSE_SECONDS_FIRST = 0.5
PAUSE_SECONDS_MAX = 30.0
HEALTHY_SECONDS = 60.0
OPERATOR_ERROR_CODE = 2
GRACE_SECONDS = END_SECONDS_MAX + 2.0
"""A worker that cannot end cleanly ends itself after END_SECONDS_MAX, and says in its log what held it up. The kill is
for one that does not even do that."""
GRACE_SECONDS_LAST = 4.0
REMARK_SECONDS = 40.0
WORDS_CHARS = 200
LOOK_SECONDS = 5.0
SILENT_SECONDS_MAX = 60.0
_PREFIX = re.compile(r"^(error|coordinator worker \w+): ")

Say = Callable[[str], None]


class Pauses(msgspec.Struct, frozen=True):
    """How long to wait before a start again, in seconds."""

    first: float = PAUSE_SECONDS_FIRST
    longest: float = PAUSE_SECONDS_MAX
    healthy: float = HEALTHY_SECONDS

    def next(self, last: float | None, lived: float) -> float:
        """The pause after a life of `lived` seconds; `last` is the pause before it, None for the first."""
        if last is None or lived >= self.healthy:
            return self.first
        return min(last * 2, self.longest)


class ChildState(msgspec.Struct):
    """What is known of one child. `state`: starting, running, waiting (to be started again) or ended."""

    name: str
    state: str = "starting"
    pid: int | None = None
    restarts: int = 0
    last_exit: str = ""


class Supervisor:
    """Keeps children running until `stop()`. `say` gets one line for each death and each start again."""

    def __init__(self, say: Say, pauses: Pauses | None = None) -> None:
        self._say = say
        self._pauses = pauses or Pauses()
        self._children: dict[str, tuple[Process, ChildState, bool]] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._changed: Callable[[], None] = lambda: None
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done, with an exception, when the node cannot continue: await it beside the work."""

    @property
    def states(self) -> Mapping[str, ChildState]:
        """The children by name, in the order in which they were handed over."""
        return {name: state for name, (_, state, _) in self._children.items()}

    def on_change(self, call: Callable[[], None]) -> None:
        """`call` after every start of a child."""
        self._changed = call

    def keep(self, process: Process, *, last: bool = False) -> None:
        """Start a child and keep it running. `last`: on `stop()` it is ended when the others have gone."""
        state = ChildState(process.name)
        self._children[process.name] = (process, state, last)
        self._keepers[process.name] = asyncio.create_task(self._keep(process, state))
        self._keepers[process.name].add_done_callback(self._broken)

    async def stop(
        self,
        grace_seconds: float = GRACE_SECONDS,
        last_seconds: float | None = None,
    ) -> None:
        """End every child: asked first, killed with its group after the grace. The last ones go last.

        Takes at most about `grace_seconds + last_seconds`; the latter is what the last ones ask for.
        Called again, with less grace, it hurries.
        """
        self._stopping = True
        await self.end_early(grace_seconds)
        lasting = [name for name, (_, _, last) in self._children.items() if last]
        if last_seconds is None:
            last_seconds = max(
                [GRACE_SECONDS_LAST, *(self._children[name][0].stop_seconds_max for name in lasting)]
            )
        if last_seconds > REMARK_SECONDS:
            self._say(
                f"{', '.join(lasting)} may take {last_seconds:.0f} s to write everything out; asked to end "
                "again, it is killed, and recovers its log at the next start"
            )
        await self._end(lasting, last_seconds)
        self.failure.cancel()

    async def end_early(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End all children but the last ones, for good: the node's work is over, its log can still be read."""
        await self._end([name for name, (_, _, last) in self._children.items() if not last], grace_seconds)

    def kill_all(self) -> None:
        """End every child at once: for the operator who asks twice."""
        self._stopping = True
        for process, state, _ in self._children.values():
            state.state = "ended"
            process.kill()

    async def _end(self, names: list[str], grace_seconds: float) -> None:
        keepers = []
        for name in names:
            process, state, _ = self._children[name]
            keeper = self._keepers[name]
            if keeper.done():
                continue
            if state.state == "waiting":
                keeper.cancel()
            elif state.state != "ended":
                process.terminate()
            state.state = "ended"
            keepers.append(keeper)
        try:
            if keepers:
                await asyncio.wait(keepers, timeout=grace_seconds)
        finally:
            for name in names:
                self._children[name][0].kill()
        if keepers:
            await asyncio.wait(keepers, timeout=2.0)

    async def _keep(self, process: Process, state: ChildState) -> None:
        try:
            await self._keep_running(process, state)
        finally:
            state.state = "ended"

    async def _keep_running(self, process: Process, state: ChildState) -> None:
        pause: float | None = None
        while state.state != "ended":
            born = monotonic()
            await process.start()
            state.pid = process.pid
            if state.state == "ended":  # asked to end while it was being forked
                process.terminate()
            else:
                state.state = "running"
            self._changed()
            code = await self._ended(process)
            state.last_exit = describe_exit(code)
            if state.state == "ended" or self._stopping:
                break
            if code == OPERATOR_ERROR_CODE:
                raise OperatorError(_PREFIX.sub("", process.last_line) or f"{process.name} says no more")
            pause = self._pauses.next(pause, monotonic() - born)
            state.state = "waiting"
            state.restarts += 1
            words = last_words(process.last_line)
            remark = f", it last said: {words}" if words else ""
            self._say(f"{process.name} ended ({state.last_exit}{remark}); starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            state.state = "starting"

    async def _ended(self, process: Process) -> int:
        """The exit code. A child that lives and gives no sign of life any more is killed, to be started again."""
        ending = asyncio.ensure_future(process.wait())
        try:
            while not (await asyncio.wait({ending}, timeout=LOOK_SECONDS))[0]:
                if process.silent_seconds > SILENT_SECONDS_MAX:
                    self._say(f"{process.name} hangs ({process.silent_seconds:.0f} s without a sign of life)")
                    process.kill()
                    break
            return await ending
        finally:
            ending.cancel()

    def _broken(self, keeper: asyncio.Task[None]) -> None:
        """A keeper that raises has found what a start again does not mend; it must not be lost."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None and not self.failure.done():
            self.failure.set_exception(error)


def describe_exit(code: int) -> str:
    """`exit code 1`, or the name of the signal that ended the process."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def last_words(line: str) -> str:
    """What a log line says, short enough for a message: of a JSON line its event and its error or message."""
    if line.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            line_fields = msgspec.json.decode(line)
            parts = [
                str(line_fields[name])
                for name in ("event", "error", "message", "reason")
                if line_fields.get(name)
            ]
            line = ": ".join(parts) or line
    line = " ".join(line.split())
    return line if len(line) <= WORDS_CHARS else line[: WORDS_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"
