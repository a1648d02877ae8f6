"""The Kafka of a command that has no node beside it: it runs while the command works.

The clients wait for a broker that does not answer, some of them for minutes. But this broker is our own child: if it
ends while the command works, as with a full disk, nobody brings it back. So the work is interrupted then, as by Ctrl-C,
and the reason is raised in place of the interruption. The signal is another one than Ctrl-C's, which a command in the
background ignores.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.infra.kafka.embedded import EmbeddedBroker
from coordinator.streams.log.errors import WorldError

LOOK_SECONDS = 0.5
INTERRUPTION = signal.SIGURG
"""A process that has no handler for it ignores it."""


class _Watch:
    """Looks at the broker's process from a thread, until `end`."""

    fallen: WorldError | None = None
    """Why the last broker ended by itself; None while none did."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        _Watch.fallen = None  # of this broker, not of one before it
        self._broker = broker
        self._over = threading.Event()
        self._deciding = threading.Lock()
        threading.Thread(target=self._run, daemon=True, name="kafka-watch").start()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            if self._broker.is_alive():
                continue
            with self._deciding:
                if not self._over.is_set():
                    _Watch.fallen = self._broker.why_ended
                    signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPTION)
            return

    def end(self) -> None:
        with self._deciding:
            self._over.set()


def _interrupt(_number: int, _frame: object) -> None:
    # The clients' inner tasks wait for the broker to the last; nobody needs a line about each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    raise KeyboardInterrupt


def fallen_broker() -> WorldError | None:
    """Why a command's own Kafka ended under it, when a KeyboardInterrupt comes; None if somebody pressed Ctrl-C."""
    return _Watch.fallen


@contextmanager
def running_broker(folder: Path) -> Iterator[EmbeddedBroker]:
    """A broker that answers, during the block. For the main thread.

    If it ends meanwhile, the block gets a KeyboardInterrupt, in whose place the reason is raised: DiskFullError,
    WorldError.
    """
    broker = EmbeddedBroker(folder)
    broker.start()
    try:
        broker.wait_ready()
        before = signal.signal(INTERRUPTION, _interrupt)
        watch = _Watch(broker)
        try:
            yield broker
        except KeyboardInterrupt:
            if (reason := fallen_broker()) is None:
                raise
            raise reason from None
        finally:
            watch.end()
            signal.signal(INTERRUPTION, before)
    finally:
        broker.stop()
