"""Files that an operator or a participant hands in: read, or refused as a whole with the place and the reason."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.waiting import LIMIT_SECONDS

from coordinator.api.times import parse_ms
from coordinator.infra.rounds import files, sending
from coordinator.infra.rounds.answers import AnswerableQuestion, answers_of
from coordinator.infra.rounds.files import FileRefusedError, Table, read_content, table_of
from coordinator.infra.rounds.posts_in_file import PostOptions, questions_of, stakes_of, truths_of
from coordinator.infra.rounds.sending import posting, resolving

NOW = 1_700_000_000_000
LATER = "2023-11-20T00:00:00Z"
GIVEN = PostOptions(now=NOW, round_id="week-1", closes_at=NOW + 1000)


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def question(**changes):
    return {"question_id": "q1", "payload": {"a": 1}, "closes_at": LATER} | changes


def read(value):
    return read_content(json.dumps(value).encode())


@pytest.mark.parametrize(
    "content",
    [
        b'[{"id": "a", "x": 1.5}, {"id": "b", "x": null}]',
        b'{"id": "a", "x": 1.5}\n\n{"id": "b", "x": null}\n',
        b"id,x\na,1.5\nb,\n",
        b"\xef\xbb\xbfid,x\r\na,1.5\r\nb,nan\r\n",
        parquet(id=["a", "b"], x=[1.5, float("nan")]),
    ],
)
def test_four_formats_have_the_same_content(content):
    read = read_content(content)
    rows = read.objects() if isinstance(read, Table) else read
    assert rows == [{"id": "a", "x": 1.5}, {"id": "b", "x": None}]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfquestion_id,outcome\nq1,1\n",
        b"question_id,outcome\r\nq1,1\r\n",
        b"\n\r\nquestion_id,outcome\n\nq1,1\n",
        b'\xef\xbb\xbf{"question_id": "q1", "outcome": 1}\r\n{"question_id": "q1", "outcome": 1}\r\n',
    ],
    ids=["byte order mark", "lines as Windows ends them", "empty lines", "both"],
)
def test_additions_of_an_editor_change_nothing(content):
    assert {name: bytes(truth) for name, truth in truths_of(read_content(content), "r").items()} == {
        "q1": b'{"outcome":1}'
    }


def test_a_cell_that_looks_like_a_number_is_one_and_an_id_stays_text():
    table = read_content(b"question_id,n,x,word,season\n007,007,1e3,abc,2024_25\n")
    assert table.rows == [["007", 7, 1000.0, "abc", "2024_25"]]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_in_json_lines_may_hold_any_character(end):
    entries = [{"question_id": name, "output": "a\u2028b\x85c\x0bd\u2029"} for name in "xy"]
    lines = end.join(json.dumps(entry, ensure_ascii=False).replace("\\u000b", "\u2028") for entry in entries)
    assert [entry["question_id"] for entry in read_content(lines.encode())] == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"  \n ", "is empty"),
        (b"\xff\x00", "not UTF-8 text at byte 0"),
        (b'{"questions": [{"question_id": "q1"', "cut short"),
        (b"[1, 2", "cut short"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"x": {"q1": 1, "q1": 1}}', "'q1' stands twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -1e999}', "-1e999 is out of the range of numbers"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "not JSON"),
        (gzip.compress(b"question_id,outcome\nq1,1\n"), "a .gz file: unpack it"),
        (b"PK\x03\x04\x14", "a .zip or .xlsx file"),
        ("question_id,outcome\nq1,1\n".encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"question_id;outcome\nq1;0,5\n", "separated by semicolons"),
        (b"question_id\toutcome\nq1\t0.5\n", "separated by tabs"),
        (b"[" * 100_000, "nested too deeply"),
        (b"a,b\n1,2\n3\n", "line 3: 1 cells under 2 columns"),
        (b'a,b\n1,"2', "line 2: .*cut short"),
        (b"a,a\n1,2\n", "two have the same"),
        (parquet(x=[1.5, 2.5])[:-20], "not a complete Parquet file"),
        (parquet(x=[[1], [2]]), "a list in column 'x'"),
    ],
)  # fmt: skip
def test_an_unreadable_file_is_refused_with_the_place(content, complaint):
    with pytest.raises(FileRefusedError, match=complaint):
        read_content(content)


def test_a_million_rows_are_refused(monkeypatch):
    with pytest.raises(FileRefusedError, match="more than 100,000 rows"):
        read_content(parquet(x=pa.array([1], pa.int8()).take(pa.array([0] * 1_000_000))))
    with pytest.raises(FileRefusedError, match="more than 100,000 rows"):
        read_content(b"x\n" + b"1\n" * 1_000_000)
    with pytest.raises(FileRefusedError, match="the limit is 10,000"):
        questions_of([question(question_id=f"q{i}") for i in range(10_001)], GIVEN, parse_ms)
    monkeypatch.setattr(files, "BYTES_MAX", 10)
    with pytest.raises(FileRefusedError, match="11 bytes; the limit is 10"):
        read_content(b"x" * 11)


_READS_EACH = """
from tests.infra.test_round_files import parquet
from coordinator.infra.rounds.files import FileRefusedError, read_content
whole = parquet(id=[f"row-{n % 7}" for n in range(60)], x=[n / 7 for n in range(60)])
for at in range(4, len(whole), 7):
    data = bytearray(whole)
    data[at] ^= 1 << at % 8
    print(at, flush=True)
    try:
        read_content(bytes(data)).rows
    except FileRefusedError as error:
        assert "\\n" not in str(error)
"""


def test_no_flipped_bit_of_a_parquet_file_ends_the_process():
    """Anyone who may hand in answers can send such a file to the report worker. It runs in a separate process, because
    pyarrow can crash.
    """
    read = subprocess.run(
        [sys.executable, "-c", _READS_EACH], capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert read.returncode == 0, (read.stdout.splitlines()[-1:], read.stderr[-2000:])


# --- questions -------------------------------------------------------------------------------------


def test_questions_without_times_get_those_of_their_round():
    round_id, (first, second) = questions_of(
        read(
            {
                "round_id": "week-2",
                "closes_at": LATER,
                "questions": [
                    {"question_id": "a", "payload": 1},
                    question(
                        question_id="b", opens_at=NOW + 5, tags=["x"], resolves_by="BTC", resolves_at=LATER
                    ),
                ],
            }
        ),
        PostOptions(now=NOW),
        parse_ms,
    )
    assert round_id == "week-2"
    assert (first.opens_at, first.closes_at, bytes(first.payload)) == (NOW, parse_ms(LATER), b"1")
    assert (second.opens_at, second.tags, second.resolves_by) == (NOW + 5, ["x"], "BTC")
    assert second.resolves_at == parse_ms(LATER)


def test_a_question_posted_before_keeps_its_opening_if_none_is_given():
    opened_before = {("week-1", "q1"): NOW - 7}
    posts = [question(), question(question_id="q2"), question(question_id="q3", opens_at=NOW + 3)]
    _, questions = questions_of(posts, GIVEN, parse_ms, lambda *names: opened_before.get(names))
    assert [question.opens_at for question in questions] == [NOW - 7, NOW, NOW + 3]


def test_a_table_is_one_question_per_row_or_one_question():
    _, rows = questions_of(
        read_content(b"question_id,tags,title\nq1,a;b,Rain?\nq2,,Snow?\n"), GIVEN, parse_ms
    )
    assert [(question.question_id, question.tags, bytes(question.payload)) for question in rows] == [
        ("q1", ["a", "b"], b'{"title":"Rain?"}'),
        ("q2", [], b'{"title":"Snow?"}'),
    ]
    _, (question,) = questions_of(read_content(b"id,f1\na,0.5\nb,1\n"), GIVEN, parse_ms)
    assert (question.question_id, bytes(question.payload)) == (
        "table",
        b'{"columns":{"id":["a","b"],"f1":[0.5,1]}}',
    )


@pytest.mark.parametrize(
    ("posts", "reason"),
    [
        ([question(question_id="a/b")], "question 1: question_id is 'a/b'"),
        ([question(question_id="x" * 101)], "question_id is"),
        ([question(question_id=7)], "question_id is '7'"),
        ([question(), question()], "'q1' occurs twice"),
        ([question(closes_at=NOW - 1, opens_at=NOW - 5)], "closes at .*, which is in the past"),
        ([question(opens_at=LATER)], "not after it opens"),
        ([question(closes_at="soon")], "closes_at: 'soon' is neither"),
        ([question(closes_at=1.5)], "closes_at is not a time"),
        ([question(closes_at="2099-01-01T00:00:00")], "closes_at '2099-01-01T00:00:00' has no zone"),
        ([question(opens_at=-5)], "opens_at: '-5' is not between 1970 and 9999"),
        ([question(closes_at=10**25)], "closes_at"),
        ([question(question_id="e\u0301")], "question_id is"),
        ([question(question_id="q\u200b1")], "question_id is"),
        ([question(payload={"a": float("inf")})], "cannot be written as JSON"),
        ([{"question_id": "q1"}], "no payload"),
        ([question(title="x")], "unknown field 'title'"),
        ([question(tags="x")], "tags are a list"),
        ([question(payload="x" * 300_000)], "300,002 bytes; the limit is 262,144"),
        ([question(payload="\ud800")], "cannot be written as JSON"),
        (["q1"], "question 1 is not an object"),
        ([], "no question is in it"),
        (
            {"round_id": "other", "questions": [question()]},
            "says round_id 'other', beside it 'week-1' was given",
        ),
        ({"rounds": 1, "questions": []}, "the round has the unknown field 'rounds'"),
        (7, "no question is in it"),
    ],
)
def test_a_post_with_a_fault_is_refused_as_a_whole(posts, reason):
    with pytest.raises(FileRefusedError, match=reason):
        questions_of(posts, GIVEN, parse_ms)


def test_a_round_with_a_slash_in_its_name_is_refused():
    with pytest.raises(FileRefusedError, match="the round's id is 'a/b'"):
        questions_of([question()], PostOptions(now=NOW, round_id="a/b"), parse_ms)


def test_a_question_without_a_close_is_refused():
    with pytest.raises(FileRefusedError, match="no closes_at"):
        questions_of([{"question_id": "q", "payload": 1}], PostOptions(now=NOW, round_id="r"), parse_ms)


# --- truths and stakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {"q1": {"outcome": 1}, "q2": 0.5},
        {"round_id": "week-1", "truths": {"q1": {"outcome": 1}, "q2": 0.5}},
        [{"question_id": "q1", "outcome": 1}, {"question_id": "q2", "truth": 0.5}],
    ],
)
def test_truths_belong_to_ids(content):
    truths = truths_of(content, "week-1")
    assert {name: msgspec.json.decode(truth) for name, truth in truths.items()} == {
        "q1": {"outcome": 1},
        "q2": 0.5,
    }


def test_a_table_is_one_truth_per_row_or_the_truth_of_one_question():
    assert {
        name: bytes(truth)
        for name, truth in truths_of(read_content(b"question_id,outcome\nq1,1\n"), "r").items()
    } == {"q1": b'{"outcome":1}'}
    assert bytes(truths_of(read_content(b"id,target\na,1\n"), "r", "table")["table"]) == (
        b'{"columns":{"id":["a"],"target":[1]}}'
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"question_id": "q1", "truth": 1}, {"question_id": "q1", "truth": 2}], "two different truths"),
        ([{"truth": 1}], "truth 1 has no question_id: a truth needs the id"),
        ([0.5, 0.25], "truth 1 has no question_id"),
        ({"q1": None}, "null is not a truth"),
        ({"a/b": 1}, "question_id is 'a/b'"),
        ({"round_id": "other", "truths": {"q1": 1}}, "belongs to round 'other'"),
        ({}, "no truth is in it"),
        (5, "no truth is in it"),
    ],
)
def test_truths_with_a_fault_are_refused_as_a_whole(content, reason):
    with pytest.raises(FileRefusedError, match=reason):
        truths_of(content, "week-1")


def test_a_truth_that_is_repeated_unchanged_counts_once():
    assert list(truths_of([{"question_id": "q1", "truth": 1}] * 2, "r")) == ["q1"]


def test_stakes_are_decimals_by_model():
    assert stakes_of({"m1": "12.50", "m2": 3}) == {"m1": "12.50", "m2": "3"}
    assert stakes_of(read_content(b"model_id,stake\n007,1e3\n")) == {"007": "1000.0"}
    assert stakes_of({}) == {}
    for content, reason in (
        ({"m1": -1}, "not a decimal from 0 to 1e30"),
        ({"m1": "1e400"}, "not a decimal from 0 to 1e30"),
        ({"m1": "lots"}, "not a decimal"),
        ({"m1": True}, "not a decimal"),
        ({"m1": "Infinity"}, "not a decimal"),
        ([{"model_id": "m1", "stake": 1}, {"model_id": "m1", "stake": 1}], "two stakes"),
        ([{"model": "m1"}], "must have model_id and stake"),
    ):
        with pytest.raises(FileRefusedError, match=reason):
            stakes_of(content)


# --- answers ---------------------------------------------------------------------------------------

ASKED = {name: AnswerableQuestion(name, "question", "h") for name in ("q1", "q2")}


def numbers(_asked):
    """A contract whose answers are numbers, lists of rows, or mappings to numbers."""

    def check(output):
        if isinstance(output, int | float):
            return {"value": output}, ""
        if (
            isinstance(output, dict)
            and output
            and all(isinstance(number, int | float) for number in output.values())
        ):
            return output, ""
        return None, "BAD_OUTPUT: no number"

    return check


def said_in(answers):
    return {answer.question_id: (answer.scope_key, msgspec.json.decode(answer.output)) for answer in answers}


@pytest.mark.parametrize(
    "content",
    [
        {"q1": 0.5, "q2": {"a": 1}},
        {"answers": {"q1": 0.5, "q2": {"a": 1}}},
        [{"question_id": "q1", "output": 0.5}, {"question_id": "q2", "output": {"a": 1}}],
    ],
)
def test_answers_are_matched_by_id(content):
    assert said_in(answers_of(content, ASKED, numbers)) == {
        "q1": ("question", {"value": 0.5}),
        "q2": ("question", {"a": 1}),
    }


def test_a_table_of_answers():
    table = read_content(b"question_id,a,b\nq1,1,\nq2,,2\n")
    assert said_in(answers_of(table, ASKED, numbers)) == {
        "q1": ("question", {"a": 1}),
        "q2": ("question", {"b": 2}),
    }
    asked = {"q1": ASKED["q1"]}
    table = read_content(b"id,prediction\nx,0.25\ny,0.75\n")
    assert said_in(answers_of(table, asked, numbers)) == {"q1": ("question", {"x": 0.25, "y": 0.75})}
    assert said_in(answers_of(table, ASKED, numbers, "q2")) == {"q2": ("question", {"x": 0.25, "y": 0.75})}
    with pytest.raises(FileRefusedError, match="2 questions take answers"):
        answers_of(table, ASKED, numbers)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"q1": 0.5, "q3": 0.5}, "answer 2: question 'q3' takes no answers"),
        ({"q1": 0.5, "q2": "x"}, "answer 2: question 'q2': BAD_OUTPUT: no number"),
        ([{"question_id": "q1", "output": 1}, {"question_id": "q1", "output": 2}], "row 2: question 'q1' is answered twice"),
        ([{"question_id": "q1"}], "row 1 has no question_id or no output"),
        ({"a/b": 1}, "question_id is 'a/b'"),
        ([], "no answer is in it"),
        (7, "no answer is in it"),
        (table_of(["question_id", "output"], [["q1", 1], ["q2", "x"]]), "row 2: question 'q2': BAD_OUTPUT"),
    ],
)  # fmt: skip
def test_one_wrong_answer_refuses_all_and_names_its_row(content, reason):
    with pytest.raises(FileRefusedError, match=reason):
        answers_of(content, ASKED, numbers)


def test_a_post_that_is_no_single_record_is_refused(monkeypatch):
    monkeypatch.setattr(sending, "COMMAND_BYTES_MAX", 1_600)
    _, questions = questions_of([question(question_id=f"q{i}") for i in range(20)], GIVEN, parse_ms)
    (command,) = posting("week-1", questions[:3])(NOW)
    assert len(command.data.questions) == 3
    with pytest.raises(FileRefusedError, match="the limit is 1,600: post it in parts"):
        posting("week-1", questions)(NOW)
    with pytest.raises(FileRefusedError, match="post it in parts"):
        resolving("week-1", {"q1": msgspec.Raw(b"1" * 2_000)})(NOW)
