"""The market of a scratch node: a thread that appends a candle a second to a file for each subject."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from coordinator.streams.clock import wall_ms
from coordinator.streams.durations import SECOND_MS

SUBJECTS = ("DRILLA", "DRILLB")
WAVE = (0, 3, 5, 4, 1, -2, -4, -3)


class Market:
    """Writes until `stop`. The attributes say how it lies; they may be changed at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.silent: set[str] = set()
        """Subjects for which nothing is written."""
        self.factor = 1.0
        """What each price is multiplied by."""
        self.swapped = False
        """Whether two candles each are written in the wrong order."""
        self.repeats = 1
        """How often each line is written."""
        self.unreadable_lines = 0
        """How many lines that are not candles come before each candle, all different."""
        self._unreadable_written = 0
        self._ended = threading.Event()
        self._held: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for subject in SUBJECTS:
            self.path(subject).touch()
        self._thread = threading.Thread(target=self._run, daemon=True, name="market")

    def path(self, subject: str) -> Path:
        """The file of a subject."""
        return self.folder / f"{subject}.jsonl"

    @property
    def is_running(self) -> bool:
        """Whether it writes."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write nothing more."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        opened = wall_ms() // SECOND_MS * SECOND_MS
        while not self._ended.wait(max(0, opened + SECOND_MS - wall_ms()) / 1000):
            for subject in SUBJECTS:
                if subject not in self.silent and self.path(subject).exists():
                    self._write(subject, opened)
            opened += SECOND_MS

    def _write(self, subject: str, opened: int) -> None:
        price = (100 + WAVE[opened // SECOND_MS % len(WAVE)] / 10) * self.factor
        candle = dict.fromkeys(("open", "high", "low", "close"), f"{price:.2f}")
        line = json.dumps({"time": opened, **candle, "volume": "1"}) + "\n"
        if self.swapped and subject not in self._held:
            self._held[subject] = line
            return
        text = self._unreadable() + line * self.repeats + self._held.pop(subject, "")
        with self.path(subject).open("a", encoding="utf-8") as file:
            file.write(text)

    def _unreadable(self) -> str:
        begin, self._unreadable_written = (
            self._unreadable_written,
            self._unreadable_written + self.unreadable_lines,
        )
        return "".join(f"no candle {number}\n" for number in range(begin, self._unreadable_written))
