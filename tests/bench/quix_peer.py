"""The same scoring in Quix Streams, in that library's own environment (it wants an older pydantic).

`quix_peer.py BOOTSTRAP TOPIC RECORDS TRUTHS.json`: reads appends of 100 predictions from TOPIC as JSON, validates
and scores each with the default contract's function, writes one record of scores per append. It is given our
batching: one record per round, not one per prediction.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".dev"))

from pydantic import BaseModel
from quixstreams import Application

from coordinator.streams.contract.defaults import score_prediction


class Output(BaseModel):
    """As the default contract's."""

    value: float


bootstrap, topic_name, records, truths_file = sys.argv[1:]
truths = {
    key: SimpleNamespace(return_=value) for key, value in json.loads(Path(truths_file).read_text()).items()
}
marks: list[tuple[float, int]] = []


def score_append(append: dict[str, Any]) -> list[dict[str, Any]]:
    """One append of predictions -> its scores."""
    out = []
    for event in append.get("events", ()):
        truth = truths.get(event["data"]["input_id"]) if event["kind"] == "ScopeAnswered" else None
        if truth is not None:
            for index, output in zip(event["data"]["models"], event["data"]["outputs"], strict=True):
                result = score_prediction(Output.model_validate(output), truth)
                out.append({"id": f"{event['id']}/{index}", "value": result["value"]})
    if out:
        marks.append((time.perf_counter(), len(out) + (marks[-1][1] if marks else 0)))
    return out


app = Application(
    broker_address=bootstrap, consumer_group=f"quix-{time.time_ns()}", auto_offset_reset="earliest",
    loglevel=logging.WARNING,
)  # fmt: skip
source = app.topic(topic_name, key_deserializer="bytes", value_deserializer="json")
target = app.topic(f"{topic_name}-quix", value_serializer="json")
app.dataframe(source).apply(score_append).to_topic(target)
app.run(count=int(records), timeout=30)
(first_at, first), (last_at, last) = marks[0], marks[-1]
print(json.dumps({"event": "measured", "predictions": last - first, "seconds": last_at - first_at}))
