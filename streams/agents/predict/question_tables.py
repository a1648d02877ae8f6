"""The table that goes with a question: read from the store of blobs before its models are asked."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.streams import large_answers
from coordinator.streams.events import InputReceivedData
from coordinator.streams.large_answers import stopped_by
from coordinator.streams.log.errors import BlobLostError, WorldError
from coordinator.streams.ports import Blobs, Table

log = structlog.get_logger()


async def table_of(data: InputReceivedData, blobs: Blobs | None) -> tuple[Table | None, str]:
    """(the table that models get with this input, why it cannot be had).

    A lost one stops this round alone, and the log of the worker says so: the question is asked again as its contract
    says, by when the operator may have put the table back.
    """
    try:
        # In a thread: to hash some MB would hold up the event loop.
        return await asyncio.to_thread(large_answers.table_of, data, blobs), ""
    except (BlobLostError, WorldError) as error:  # a store out of reach: other rounds must not wait for it
        log.error("blob_lost", input_id=data.input_id, reason=str(error))  # noqa: TRY400 - for the operator
        return None, stopped_by(error)
