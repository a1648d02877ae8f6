"""What the same scoring costs without any of our guarantees: one aiokafka loop that decodes, scores and encodes.

Reads `inputs` (truths) and `predictions` to their ends; writes nothing, counts no epochs, keeps no state, sends
nothing. So it is a bound, not a rival: a node must pay for what makes it survive.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import msgspec
from aiokafka import TopicPartition

from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.kafka.clients import make_reader
from coordinator.streams.events import InputResolved, ScopeAnswered
from coordinator.streams.log.envelope import decode_append, decode_events
from coordinator.streams.settings import read_settings
from coordinator.streams.topology import topic_name


async def main() -> None:
    settings = read_settings(os.environ)
    contract = load_contracts(settings.contract, kind=settings.feed_kind).current
    output_type, truth_type, score = (
        contract.output_type,
        contract.ground_truth_type,
        contract.score_prediction,
    )
    encode = msgspec.json.Encoder().encode
    consumer = make_reader(settings.kafka_bootstrap)
    await consumer.start()
    inputs, predictions = (
        TopicPartition(topic_name(settings.crunch_id, topic), 0) for topic in ("inputs", "predictions")
    )
    ends = await consumer.end_offsets([inputs, predictions])
    truths: dict[str, Any] = {}
    scored = written_bytes = 0
    began = time.perf_counter()
    for partition in (inputs, predictions):
        consumer.assign([partition])
        consumer.seek(partition, 0)
        position = 0
        while position < ends[partition]:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                position = records[-1].offset + 1
                for record in records:
                    append = decode_append(record.value)
                    if append is None or append.claim:
                        continue
                    results = []
                    for event in decode_events(append.events):
                        if type(event) is ScopeAnswered:
                            truth = truths.get(event.data.input_id)
                            if truth is not None:
                                for index, raw in zip(event.data.models, event.data.outputs, strict=True):
                                    output = output_type.model_validate(msgspec.json.decode(raw))
                                    results.append((index, score(output, truth)))
                        elif type(event) is InputResolved:
                            truths[event.data.input_id] = truth_type.model_validate(event.data.truth)
                    if results:
                        written_bytes += len(encode(results))
                        scored += len(results)
    seconds = time.perf_counter() - began
    await consumer.stop()
    sys.stdout.write(json.dumps({"event": "measured", "predictions": scored, "seconds": seconds}) + "\n")


asyncio.run(main())
