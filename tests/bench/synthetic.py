"""A log that stands before the measuring begins: rounds of one minute, as the stages would have recorded them.

Reads nothing; gives the records of `feeds`, `inputs`, `models` and `predictions`, minute by minute: epochs, numbers,
`upto` and `need` included, so that every worker can resume on it. Why not run the stages to make it: a million
predictions would take longer to make than to measure. `test_bench_smoke.py` sees that the real workers accept it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.kafka.clients import PARTITION
from coordinator.streams import events as ev
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import Append, Need, Position, encode_append, encode_decision
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name
from fakes import model_info

MINUTE_MS = 60_000
START_MS = 1_678_406_400_000  # 2023-03-10T00:00Z
SUBJECT = "BTCUSDT"
SCOPE_KEY = "60s"
HORIZON_SECONDS = 60
CANDLES_IN_PAYLOAD = 120

Records = dict[str, list[bytes]]
"""topic -> records, in order"""


class SyntheticLog:
    """`models` models that answer every minute with a number of their own. The same seed gives the same bytes.

    Offsets: every topic begins with a claim; `feeds` and `inputs` hold the terms at 1 and minute n at 2 + n;
    `predictions` opens minute n at 1 + 2n and answers it at 2 + 2n; `models` holds all models at 1.
    """

    def __init__(self, settings: Settings, models: int = 100, seed: int = 1) -> None:
        shelf = load_contracts(settings.contract, kind=settings.feed_kind)
        self.settings = settings
        self.model_ids = [f"m{index:05d}" for index in range(models)]
        self._hash = shelf.current_hash
        self.terms = make_terms(shelf.current, shelf.current_hash, settings, 0)
        self._random = random.Random(seed)
        self._prices = [20_000.0]
        self._payload = msgspec.Raw(msgspec.json.encode(self._model_input()))
        self._roster = [
            ev.RosterEntry(model_id=model_id, deployment_id=f"{model_id}_1") for model_id in self.model_ids
        ]

    def price(self, minute: int) -> float:
        """The close that is known at minute n; a seeded walk."""
        while len(self._prices) <= minute:
            self._prices.append(round(self._prices[-1] * (1 + self._random.gauss(0, 0.0005)), 2))
        return self._prices[minute]

    def point(self, minute: int) -> int:
        """The grid time of minute n, in ms."""
        return START_MS + minute * MINUTE_MS

    def _model_input(self) -> dict[str, Any]:
        candles = []
        for i in range(CANDLES_IN_PAYLOAD):
            close = 20_000.0 + i
            candles.append(
                {
                    "ts": START_MS + i * MINUTE_MS, "open": close, "high": close + 1.25, "low": close - 1.25,
                    "close": close, "volume": 12.5,
                }
            )  # fmt: skip
        return {"symbol": SUBJECT, "asof_ts": START_MS, "candles": candles}

    def candle_file(self, path: Path, minutes: int) -> Path:
        """The same market as a CSV, for a real feed worker."""
        lines = ["open_time_ms,open,high,low,close,volume"]
        for minute in range(minutes):
            values = self._candle(minute)
            row = ",".join(values[name] for name in ("open", "high", "low", "close", "volume"))
            lines.append(f"{START_MS + (minute - 1) * MINUTE_MS},{row}")
        path.write_text("\n".join(lines) + "\n")
        return path

    def _candle(self, minute: int) -> dict[str, str]:
        first, last = self.price(max(0, minute - 1)), self.price(minute)
        high, low = max(first, last), min(first, last)
        return {
            "open": f"{first:.2f}",
            "high": f"{high:.2f}",
            "low": f"{low:.2f}",
            "close": f"{last:.2f}",
            "volume": "12.5",
        }

    # --- records -----------------------------------------------------------------------------------

    def head(self, topics: Sequence[str] = ("feeds", "inputs", "models", "predictions")) -> Records:
        """Claims, terms and models: what stands before the first minute."""
        claim = encode_append(Append(e=1, epoch=1, seq=0, claim="bench"))
        configured = ev.CrunchConfigured(id="terms/bench", at=START_MS, data=self.terms)
        seen = [
            ev.ModelSeen(
                id=f"seen/{model_id}/{model_id}_1",
                at=START_MS,
                data=ev.ModelSeenData(
                    model_id=model_id, model_name=f"model-{model_id}", deployment_id=f"{model_id}_1",
                    cruncher_id=model_info(model_id).cruncher_id, cruncher_name=model_info(model_id).cruncher_name,
                ),
            )
            for model_id in self.model_ids
        ]  # fmt: skip
        first: dict[str, list[ev.Event]] = {
            "feeds": [configured],
            "inputs": [configured],
            "models": list(seen),
        }
        return {topic: [claim, *(_append(first[topic], 1) if topic in first else [])] for topic in topics}

    def minute(self, n: int, topics: Sequence[str] = ("feeds", "inputs", "predictions")) -> Records:
        """The records of minute n: its candle and tick, its input, the truth of the minute before, its round."""
        makers = {"feeds": self._feeds, "inputs": self._inputs, "predictions": self._predictions}
        return {topic: makers[topic](n) for topic in topics}

    def minutes(
        self, start: int, end: int, topics: Sequence[str] = ("feeds", "inputs", "predictions")
    ) -> Iterator[Records]:
        """Minutes start <= n < end."""
        return (self.minute(n, topics) for n in range(start, end))

    def _feeds(self, n: int) -> list[bytes]:
        at = START_MS + n * MINUTE_MS
        feed, ts_event = self.terms.feed, at - MINUTE_MS
        data = ev.FeedRecordData(
            source=feed.source, subject=SUBJECT, kind=feed.kind, granularity=feed.granularity,
            ts_event=ts_event, values=self._candle(n),
        )  # fmt: skip
        the_id = ids.feed_record_id(feed.source, SUBJECT, feed.kind, feed.granularity, ts_event, 0)
        tick = ev.ClockTicked(id=ids.tick_id(at), at=at, data=ev.ClockTickedData(rehearsal=True))
        return _append([ev.FeedRecordReceived(id=the_id, at=at, data=data), tick], 2 + n)

    def _inputs(self, n: int) -> list[bytes]:
        point = START_MS + n * MINUTE_MS
        input_id = ids.input_id(SUBJECT, point)
        scope = ev.InputScope(
            scope_key=SCOPE_KEY,
            horizon_seconds=HORIZON_SECONDS,
            step_seconds=15,
            resolvable_at=point + MINUTE_MS,
        )
        received = ev.InputReceived(
            id=f"{input_id}:received",
            at=point,
            data=ev.InputReceivedData(
                input_id=input_id, subject=SUBJECT, point=point, deadline_at=point + self.terms.deadline_ms,
                scopes=[scope], contract_hash=self._hash, rehearsal=True, payload=self._payload,
            ),
        )  # fmt: skip
        events: list[ev.Event] = [received]
        if n > 0:
            events.append(self._resolved(n - 1, point))
        until = ev.InputsUntilData(until=point, clock=point, rehearsal=True, skipped=[])
        events.append(ev.InputsUntil(id=f"inputs-until/{ids.tick_id(point)}", at=point, data=until))
        oldest = max(2, 2 + n - 120)
        return _append(events, 2 + n, {"feeds": (2 + n, 1)}, {"feeds": Need(oldest, 1, oldest - 1)})

    def _resolved(self, n: int, at: int) -> ev.InputResolved:
        input_id = ids.input_id(SUBJECT, START_MS + n * MINUTE_MS)
        entry, resolved = self.price(n), self.price(n + 1)
        change = (resolved - entry) / entry
        truth = {
            "entry_price": entry,
            "resolved_price": resolved,
            "return": change,
            "direction_up": change > 0,
        }
        data = ev.InputResolvedData(
            input_id=input_id,
            horizon_seconds=HORIZON_SECONDS,
            resolvable_at=at,
            truth=truth,
            reason=None,
            last=True,
        )
        return ev.InputResolved(id=f"{input_id}:resolved:{HORIZON_SECONDS}s", at=at, data=data)

    def _predictions(self, n: int) -> list[bytes]:
        point = START_MS + n * MINUTE_MS
        input_id = ids.input_id(SUBJECT, point)
        opened = ev.RoundOpened(
            id=f"{input_id}:opened",
            at=point,
            data=ev.RoundOpenedData(
                input_id=input_id,
                roster=self._roster,
                scope_keys=[SCOPE_KEY],
                clock=point,
                contract_hash=self._hash,
                models_seq=1,
            ),
        )
        chance = self._random.random
        entries = [
            ev.AnswerEntry(
                model_id,
                f"{model_id}_1",
                "PENDING",
                msgspec.Raw(msgspec.json.encode({"value": round(2 * chance() - 1, 6)})),
                1500,
            )
            for model_id in self.model_ids
        ]
        columns = ev.answers_in_columns(self._roster, entries)
        answers_data = ev.ScopeAnsweredData(input_id=input_id, scope_key=SCOPE_KEY, **columns)
        events: list[ev.Event] = [
            ev.ScopeAnswered(id=f"{input_id}/{SCOPE_KEY}:answers/0", at=point, data=answers_data)
        ]
        answered = ev.RoundAnsweredData(input_id=input_id, clock=point)
        events.append(ev.RoundAnswered(id=f"{input_id}:answered", at=point, data=answered))
        before: dict[str, Position] = {"inputs": (1 + n, 0) if n else (-1, -1)}
        need_before = {"inputs": Need(1 + n, 1, n) if n else Need()}
        need = {"inputs": Need(2 + n, 1, 1 + n)}
        return _append([opened], 1 + 2 * n, before, need_before) + _append(
            events, 2 + 2 * n, {"inputs": (2 + n, 0)}, need
        )


def _append(
    events: Sequence[ev.Event],
    seq: int,
    upto: Mapping[str, Position] | None = None,
    need: Mapping[str, Need] | None = None,
) -> list[bytes]:
    records = encode_decision(events, epoch=1, seq=seq, upto=dict(upto or {}), need=dict(need or {}))
    if len(records) != 1:
        raise ValueError("offsets are counted as one record a decision: use fewer models")
    return records


async def write(producer: AIOKafkaProducer, crunch_id: str, batches: Iterable[Records]) -> int:
    """Append all of it, in order per topic; the number of records once they are durable."""
    last: dict[str, Any] = {}
    count = 0
    for records in batches:
        for topic, values in records.items():
            for value in values:
                last[topic] = await producer.send(topic_name(crunch_id, topic), value, partition=PARTITION)
                count += 1
    for sent in last.values():
        await sent
    return count
