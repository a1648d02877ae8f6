"""How large the stores of the read models are after each simulated week, with and without PAST_DAYS.

`python -m tests.bench.retention --models 7 --days 70 --past-days 14 --minutes 10`: a log of the engine's events is
made round by round and folded; the stores are cut as the report worker cuts them. Prints bytes a store, and rows.
`--questions 12 --payload-bytes 200` adds a round of posted questions a day, each with its truth an hour later. The
store of the evidence tree is left out: its rows leave with each checkpoint that is noted, and this log has none.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path
from string import ascii_lowercase

from tests.logs import HOUR_MS, MINUTE_MS, START_MS, LogBuilder
from tests.posted import Posted

from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.past_cutter import PastCutter
from coordinator.projections.views.all_views import ReadModels, open_read_models
from coordinator.streams.durations import DAY_MS
from coordinator.streams.events import Window

WEEK_DAYS = 7


def one_day(log: LogBuilder, day: int, models: list[str], minutes: int) -> None:
    """The events of a day: a candle and a tick a minute, a round every `minutes`, snapshots every hour."""
    for minute in range(24 * 60):
        at = day * DAY_MS + minute * MINUTE_MS
        log.record(START_MS + at)
        log.tick(START_MS + at + MINUTE_MS)
        if minute % minutes == 0:
            log.round(at, dict.fromkeys(models, (minute % 97 - 48) / 97))
            log.inputs_until(at + 2 * MINUTE_MS)
        if minute % 60 == 59:
            end = at + MINUTE_MS
            log.scored_until(end)
            for model_id in models:
                log.snapshot(model_id, START_MS + end - HOUR_MS, START_MS + end)


def asked(
    posted: Posted, day: int, models: list[str], questions: int, payload_bytes: int, rng: random.Random
) -> None:
    """A day's round of posted questions. Their text is random letters: it compresses as badly as any text does."""
    opens, round_id = day * DAY_MS, f"day-{day}"
    for question_id in (f"q{number}" for number in range(questions)):
        payload = {"title": "".join(rng.choices(ascii_lowercase, k=payload_bytes))}
        closes = opens + HOUR_MS
        posted.post(round_id, question_id, at=opens, opens=opens, closes=closes, payload=payload)
        posted.ask(round_id, question_id, {model_id: rng.random() for model_id in models})
        posted.close(round_id, question_id, closes)
        scores = {model_id: rng.random() for model_id in models}
        posted.resolve(round_id, question_id, closes + HOUR_MS, {"outcome": 1}, scores)


def fold(folder: Folder, log: LogBuilder, done: Counter[str]) -> None:
    """Fold what was not folded yet, and forget it: the log of months would not fit into memory."""
    for topic in folder.readers:
        for record in log.records[topic]:
            folder.fold(topic, done[topic], record)
            done[topic] += 1
        log.records[topic].clear()
    folder.commit()


def sizes(read: ReadModels) -> dict[str, tuple[int, int]]:
    """Read model -> (bytes on disk, rows of now)."""
    stores = {}
    for projection in read.all():
        projection.store.database.flush()
        rows = sum(1 for _ in projection.store.scan(b""))
        stores[projection.name] = (projection.store.bytes_on_disk(), rows)
    return stores


def main() -> None:
    """Print a line a week."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=7)
    parser.add_argument("--days", type=int, default=70)
    parser.add_argument("--past-days", type=int, default=14)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--questions", type=int, default=0)
    parser.add_argument("--payload-bytes", type=int, default=200)
    options = parser.parse_args()
    models = [f"model-{number}" for number in range(options.models)]
    with tempfile.TemporaryDirectory() as folder_path:
        log = LogBuilder()
        log.terms(windows=[Window(name="score_recent", hours=24)], checkpoint_interval_ms=DAY_MS)
        for model_id in models:
            log.model(model_id)
        read = open_read_models(Path(folder_path), "cluster", log.crunch_id)
        folder = Folder([projection for projection in read.all() if projection is not read.evidence])
        cutter, done = PastCutter(read, options.past_days), Counter[str]()
        posted, rng = Posted(log), random.Random(1)
        for day in range(options.days):
            one_day(log, day, models, options.minutes)
            asked(posted, day, models, options.questions, options.payload_bytes, rng)
            fold(folder, log, done)
            while cutter.step():
                pass
            if (day + 1) % WEEK_DAYS == 0:
                stores = sizes(read)
                whole = sum(size for size, _ in stores.values())
                parts = "  ".join(f"{name} {size / 1e6:.2f}/{rows}" for name, (size, rows) in stores.items())
                print(f"day {day + 1:3}: {whole / 1e6:8.2f} MB  (MB/rows: {parts})", flush=True)
        read.close()


if __name__ == "__main__":
    main()
