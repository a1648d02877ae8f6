"""Predictions as a file: `GET /reports/predictions.ndjson`, `.csv` and `.parquet`, oldest round first.

Reads the predictions read model in pages of rounds and sends each as soon as it is made, so that an export of any
length takes the memory of one page and no lock. A row shows a prediction as it is when its page is read. Few exports
run at once, fewer for one address, and fewer still make a page at the same moment; a further one must try again later.
A client that does not read is dropped (`connections.py`), and its place is free again.
"""

from __future__ import annotations

import csv
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from coordinator.api.callers import address_group
from coordinator.api.model_names import NO_MODEL, existing_ids
from coordinator.api.model_shapes import PredictionStatus
from coordinator.api.predictions import row_of
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import Span, span
from coordinator.api.times import zulu, zulu_or_none
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.views.prediction_rows import Prediction
from coordinator.streams.log.ids import prediction_id
from coordinator.streams.scores.units import to_float

EXPORTS_MAX = 8
EXPORTS_PER_ADDRESS_MAX = 2
PAGES_AT_ONCE_MAX = 2
ROWS_PER_PAGE = 5_000
RETRY_AFTER_SECONDS = "10"
Format = Literal["ndjson", "csv", "parquet"]
Rows = Iterator[list[Prediction]]

MEDIA = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
TEXT, WHOLE, REAL, TRUTH = "string", "int64", "float64", "bool"  # Arrow's names
COLUMNS: dict[str, str] = {
    "id": TEXT,
    "input_id": TEXT,
    "model_id": TEXT,
    "deployment_id": TEXT,
    "scope_key": TEXT,
    "subject": TEXT,
    "horizon_seconds": WHOLE,
    "step_seconds": WHOLE,
    "status": TEXT,
    "performed_at": TEXT,
    "resolvable_at": TEXT,
    "scored_at": TEXT,
    "exec_time_us": WHOLE,
    "output_json": TEXT,
    "output_hidden": TRUTH,
    "output_hidden_until": TEXT,
    "score_value": REAL,
    "score_json": TEXT,
    "score_charge": REAL,
    "reason": TEXT,
    "fault": TEXT,
}
"""Times are ISO 8601 in UTC with milliseconds and Z; scores are the same numbers as in `/reports/predictions`."""

_encode = msgspec.json.Encoder().encode


class Exports:
    """Those of an application that run now: how many for each address, and the turns in which their pages are made."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.making = threading.BoundedSemaphore(PAGES_AT_ONCE_MAX)


@cache
def router() -> APIRouter:
    """The routes of the three formats. `create_app` leaves the `Exports` with the application."""
    routes = our_router()

    def export(
        request: Request, read: Readable, form: Format, when: Span, ids: set[str] | None, status: str | None
    ) -> StreamingResponse:
        exports: Exports = request.app.state.exports
        running = exports.running
        address = address_group(request.client.host if request.client else "")
        if running.total() >= EXPORTS_MAX or running[address] >= EXPORTS_PER_ADDRESS_MAX:
            raise HTTPException(
                503,
                f"{running[address]} exports run for you and {running.total()} in all; "
                f"try again in {RETRY_AFTER_SECONDS} s",
                {"Retry-After": RETRY_AFTER_SECONDS},
            )
        running[address] += 1

        def release() -> None:
            running[address] -= 1
            if not running[address]:
                del running[address]

        predictions = read.predictions.oldest(when.start, when.end, ids, status)
        write = {"ndjson": _ndjson, "csv": _csv, "parquet": _parquet}[form]
        return _Export(write(_pages(predictions, exports.making)), release, form)

    @routes.get("/reports/predictions.ndjson", **_file("ndjson"))
    async def predictions_ndjson(
        request: Request,
        read: Reading,
        when: Annotated[Span, Depends(span)],
        ids: Annotated[set[str] | None, Depends(existing_ids)],
        status: PredictionStatus | None = None,
    ) -> StreamingResponse:
        """Predictions of rounds opened in [start, end], one JSON object a line, as in `/reports/predictions`."""
        return export(request, read, "ndjson", when, ids, status)

    @routes.get("/reports/predictions.csv", **_file("csv"))
    async def predictions_csv(
        request: Request,
        read: Reading,
        when: Annotated[Span, Depends(span)],
        ids: Annotated[set[str] | None, Depends(existing_ids)],
        status: PredictionStatus | None = None,
    ) -> StreamingResponse:
        """The same as CSV with a header (RFC 4180). A text that a spreadsheet would run begins with `'`."""
        return export(request, read, "csv", when, ids, status)

    @routes.get("/reports/predictions.parquet", **_file("parquet"))
    async def predictions_parquet(
        request: Request,
        read: Reading,
        when: Annotated[Span, Depends(span)],
        ids: Annotated[set[str] | None, Depends(existing_ids)],
        status: PredictionStatus | None = None,
    ) -> StreamingResponse:
        """The same as Parquet, one row group a page."""
        return export(request, read, "parquet", when, ids, status)

    return routes


def _file(form: Format) -> dict[str, Any]:
    """What the OpenAPI says of such a route."""
    busy = f"{EXPORTS_PER_ADDRESS_MAX} exports run for one address, or {EXPORTS_MAX} in all; Retry-After says when."
    whole = {"content": {MEDIA[form]: {"schema": {"type": "string"}}}, "description": "A file, streamed."}
    return {
        "responses": {200: whole, 503: {"description": busy}, **NO_MODEL},
        "response_class": StreamingResponse,
        "status_code": 200,
    }


class _Export(StreamingResponse):
    """A stream that gives its place back however it ends: by its end, an error, or a client that left."""

    def __init__(self, chunks: Iterator[bytes], release: Callable[[], None], form: Format) -> None:
        super().__init__(
            chunks,
            media_type=MEDIA[form],
            headers={"Content-Disposition": f'attachment; filename="predictions.{form}"'},
        )
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


def _pages(predictions: Iterator[Prediction], making: threading.BoundedSemaphore) -> Rows:
    while True:
        with making:
            page = list(islice(predictions, ROWS_PER_PAGE))
        if not page:
            return
        yield page


def _ndjson(pages: Rows) -> Iterator[bytes]:
    for page in pages:
        yield b"".join(_encode(row_of(prediction)) + b"\n" for prediction in page)


def _csv(pages: Rows) -> Iterator[bytes]:
    yield ",".join(COLUMNS).encode() + b"\r\n"
    for page in pages:
        text = io.StringIO()
        csv.writer(text).writerows(
            [_harmless(cell) for cell in _flat(prediction).values()] for prediction in page
        )
        yield text.getvalue().encode()


def _parquet(pages: Rows) -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415 - 40 MB, which only a worker that is asked for this format needs
    import pyarrow.parquet as pq  # noqa: PLC0415 - the same

    schema = pa.schema({name: pa.type_for_alias(kind) for name, kind in COLUMNS.items()})
    sink = _Chunks()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for page in pages:
            writer.write_table(pa.Table.from_pylist([_flat(prediction) for prediction in page], schema))
            yield sink.take()
    yield sink.take()


class _Chunks(io.RawIOBase):
    """A file for pyarrow to write to that keeps only what was not sent yet."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._sent = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._kept += data
        return len(data)

    def tell(self) -> int:
        return self._sent + len(self._kept)

    def take(self) -> bytes:
        """What was written since the last time."""
        out = bytes(self._kept)
        self._sent += len(out)
        self._kept.clear()
        return out


def _flat(prediction: Prediction) -> dict[str, Any]:
    scores = {
        name: to_float(units, prediction.decimals) for name, units in (prediction.score_units or {}).items()
    }
    final = prediction.status not in {"PENDING", "SCORED"}
    return {
        "id": prediction_id(prediction.input_id, prediction.scope_key, prediction.model_id),
        "input_id": prediction.input_id,
        "model_id": prediction.model_id,
        "deployment_id": prediction.deployment_id,
        "scope_key": prediction.scope_key,
        "subject": prediction.subject,
        "horizon_seconds": prediction.horizon_seconds,
        "step_seconds": prediction.step_seconds,
        "status": prediction.status,
        "performed_at": zulu(prediction.performed_at),
        "resolvable_at": zulu_or_none(prediction.resolvable_at),
        "scored_at": zulu_or_none(prediction.scored_at),
        "exec_time_us": prediction.exec_time_us,
        "output_json": None if prediction.output is None else _encode(prediction.output).decode(),
        "output_hidden": prediction.hidden,
        "output_hidden_until": zulu_or_none(prediction.resolvable_at if prediction.hidden else None),
        "score_value": scores.get(prediction.value_field),
        "score_json": _encode(scores).decode() if scores else None,
        "score_charge": None
        if prediction.charge_units is None
        else to_float(prediction.charge_units, prediction.decimals),
        "reason": prediction.reason if final else None,
        "fault": prediction.fault,
    }


def _harmless(cell: Any) -> Any:
    """Participants write some of these texts; a spreadsheet runs what begins with = + - @ or a tab."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r") and cell else cell
