"""A table that is one question and too large for the log is stored as Parquet and named in the question, or refused."""

from __future__ import annotations

import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coordinator.api.times import parse_ms
from coordinator.cli.rounds import _keep
from coordinator.infra.rounds.files import FileRefusedError, read_content, table_of
from coordinator.infra.rounds.posts_in_file import (
    PAYLOAD_BYTES_MAX,
    PostOptions,
    beside_the_log,
    questions_of,
)
from coordinator.infra.rounds.tables import TableBlob
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings

NOW = 1_700_000_000_000
GIVEN = PostOptions(now=NOW, round_id="week-1", closes_at=NOW + 1000)
ROWS = 20_000


def large_csv() -> bytes:
    return ("id,f1,none\n" + "".join(f"row-{row},{row / 7},\n" for row in range(ROWS))).encode()


def test_a_large_parquet_table_is_stored_byte_for_byte_and_named_in_the_question():
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"id": [f"row-{row}" for row in range(ROWS)], "f1": [row / 7 for row in range(ROWS)]}), sink
    )
    content = sink.getvalue()
    table_kept = beside_the_log(read_content(content))
    assert isinstance(table_kept, TableBlob)
    assert table_kept.content == content
    name, (question,) = questions_of(table_kept, GIVEN, parse_ms)
    sha256 = hashlib.sha256(content).hexdigest()
    assert (name, question.question_id) == ("week-1", "table")
    assert question.blob is not None
    assert (question.blob.sha256, question.blob.bytes, question.blob.rows) == (sha256, len(content), ROWS)
    assert question.blob.columns == [("id", "string"), ("f1", "double")]
    assert json.loads(bytes(question.payload)) == {
        "table": {"sha256": sha256, "bytes": len(content), "rows": ROWS, "columns": 2}
    }


def test_no_cell_of_a_stored_parquet_table_becomes_a_python_object(monkeypatch):
    """3,000 rows of 1,150 features are 3.45 million cells. The report worker used to grow by some hundred MB at each
    post.
    """

    def none_is_made(_table: pa.Table) -> None:
        raise AssertionError

    sink = io.BytesIO()
    words = pa.array(["a", "b"] * (ROWS // 2)).dictionary_encode()
    whole = {"none": pa.nulls(ROWS), "n": pa.array(range(ROWS), pa.uint64()), "is": pa.array([True] * ROWS)}
    whole |= {f"f{number}": pa.array([0.25] * ROWS) for number in range(5)}
    pq.write_table(
        pa.table({"id": words, "x": pa.array([0.5, None] * (ROWS // 2), pa.float32())} | whole), sink
    )
    monkeypatch.setattr("coordinator.infra.rounds.files._rows_of", none_is_made)
    table_kept = beside_the_log(read_content(sink.getvalue()))
    assert isinstance(table_kept, TableBlob)
    assert (table_kept.blob.rows, len(table_kept.blob.columns)) == (ROWS, 10)


def test_a_large_csv_becomes_the_same_parquet_each_time():
    table_kept, again = (beside_the_log(read_content(large_csv())) for _ in range(2))
    assert isinstance(table_kept, TableBlob)
    assert table_kept == again
    table = pq.read_table(pa.BufferReader(table_kept.content))
    assert table.column_names == ["id", "f1", "none"]
    assert table["f1"].to_pylist()[:2] == [0, 1 / 7]
    assert (str(table["none"].type), table["none"].null_count) == ("double", ROWS)


def test_a_table_near_the_bound_of_a_payload_can_be_posted_whichever_way_is_chosen():
    around, inline = len(b'{"columns":{"a":[""]}}'), set()
    for chars in range(PAYLOAD_BYTES_MAX - around - 200, PAYLOAD_BYTES_MAX - around + 2, 7):
        table_kept = beside_the_log(table_of(["a"], [["x" * chars]]))
        _, (question,) = questions_of(table_kept, GIVEN, parse_ms)
        inline.add(question.blob is None)
    assert inline == {True, False}


def test_a_large_table_of_questions_is_still_many_questions():
    table = read_content(
        b"question_id,f1\n" + b"".join(b"question-%d,0.125\n" % number for number in range(20_000))
    )
    assert beside_the_log(table) is table


def test_a_column_of_several_types_is_refused_by_its_name():
    with pytest.raises(FileRefusedError, match="column 'f1' has cells of several types"):
        beside_the_log(read_content(large_csv() + b"last,word,\n"))


def test_a_table_that_no_model_host_accepts_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("coordinator.infra.rounds.tables.TABLE_BYTES_MAX", 1_000)
    with pytest.raises(FileRefusedError, match="the limit is 1,000: write numbers as float32"):
        beside_the_log(read_content(large_csv()))


def test_a_table_is_stored_only_where_a_node_has_its_data(tmp_path):
    table_kept = beside_the_log(read_content(large_csv()))
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(OperatorError, match="post it to the node with POST /rounds"):
        _keep(settings, table_kept)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "crunch.json").write_text("{}")
    _keep(settings, table_kept)
    assert (tmp_path / "blobs" / table_kept.blob.sha256).read_bytes() == table_kept.content
