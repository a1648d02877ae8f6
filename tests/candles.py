"""The candles of the tests: the real ones where they are available, else a generated market. The test's output says
which.
"""

from __future__ import annotations

import os
from pathlib import Path

from coordinator.streams.ports import Subscription
from coordinator.streams.sources.generated import generated_candles

START = 1_677_628_800_000
"""2023-03-01T00:00:00Z, the open of the first real candle."""
MINUTE = 60_000
GENERATED_DAYS = 4


def candle_file(folder: Path) -> Path:
    """A CSV(.gz) of BTCUSDT minutes from START on. It is generated in `folder` where the real one is missing."""
    places = [os.environ.get("COORDINATOR_CANDLES_DIR"), Path(__file__).parents[2] / "shared" / "data"]
    for place in filter(None, places):
        for file in sorted(Path(place).glob("BTCUSDT-1m-*.csv.gz")):
            print(f"candles: {file.name}")
            return file
    print("candles: a generated market, since the real ones are not here (COORDINATOR_CANDLES_DIR)")
    file = folder / "candles.csv"
    subscription = Subscription("generated", "BTCUSDT", "candle", "1m")
    columns = ("open", "high", "low", "close", "volume")
    with file.open("w") as stream:
        stream.write("open_time_ms," + ",".join(columns) + "\n")
        for record in generated_candles(
            subscription, START + MINUTE, START + GENERATED_DAYS * 1440 * MINUTE, seed=7
        ):
            stream.write(f"{record.ts_event}," + ",".join(record.values[name] for name in columns) + "\n")
    return file
