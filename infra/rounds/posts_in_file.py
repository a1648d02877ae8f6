"""What is posted, from what was read of a file: questions, truths, stakes. All of it is checked before any is sent.

A file of questions is one of these; times are ISO 8601 with a zone or ms, and those of the round hold where a question
says none:

- an object `{"round_id", "opens_at", "closes_at", "resolves_at", "questions": [..]}`, a list of questions, or lines of
  them: `{"question_id", "payload", "tags", "opens_at", "closes_at", "resolves_at", "resolves_by"}`;
- a table with a column `question_id`: a question for each row, whose payload is the other columns;
- any other table: one question, whose payload is the table, `{"columns": {name: [cells]}}`; one that is larger than a
  payload may be (`beside_the_log`) is kept as a blob, and the payload says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from coordinator.infra.rounds.files import FileRefusedError, Table
from coordinator.infra.rounds.tables import TableBlob, kept
from coordinator.streams.events import PostedQuestion
from coordinator.streams.feeds.post_checks import PAYLOAD_BYTES_MAX, QUESTIONS_MAX, STAKE_MAX, TAGS_MAX
from coordinator.streams.log.errors import OperatorError

CELL_BYTES_MIN = 2
"""Of a cell as JSON, with its comma."""
ROOM_BYTES = 100
"""What a payload needs around the columns of a table."""
COMMAND_BYTES_MAX = 7 * 1024 * 1024
"""The largest size of one post, which is one record of the log, so that it is done as a whole or not at all."""
TRUTH_BYTES_MAX = 4 * 1024 * 1024
STAKES_MAX = 10_000
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
ID_TEXT = "1 to 100 letters, digits and ._:-, beginning with a letter or a digit"
TABLE = "table"
"""The id of the question of a table, where none is given."""
_FIELDS = {
    "question_id", "payload", "tags", "opens_at", "closes_at", "resolves_at", "resolves_by",
}  # fmt: skip
_TIMES = ("opens_at", "closes_at", "resolves_at")
ParseTime = Callable[[str], int]
OpensAtOf = Callable[[str, str], int | None]
"""(round id, question id) -> when a question that was posted before opens; None for a new one."""


class PostOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What was given in addition to the file; times in ms. `opens_at` is the time of the post, unless something says
    otherwise.
    """

    now: int
    round_id: str = ""
    question_id: str = ""
    opens_at: int | None = None
    closes_at: int | None = None
    resolves_at: int | None = None
    tags: tuple[str, ...] = ()


def questions_of(
    content: Any,
    beside: PostOptions,
    parse_time: ParseTime,
    opens_at_of: OpensAtOf = lambda _round, _question: None,
) -> tuple[str, list[PostedQuestion]]:
    """(round id, its questions). Raises FileRefusedError, which names the question and what is wrong with it.

    Where nothing says when a question opens it opens now. One that was posted before keeps its time (`opens_at_of`), so
    that the same file posted again is the same post.
    """
    round_id, times = beside.round_id, {name: getattr(beside, name) for name in _TIMES}
    blob = None
    if isinstance(content, TableBlob):
        blob, entries = content.blob, _one_of(content.payload(), beside)
    elif isinstance(content, Table):
        entries = _of_table(content, beside)
    elif isinstance(content, dict) and "questions" in content:
        _only(content, {"round_id", "questions", *_TIMES}, "the round")
        round_id = _agreed("round_id", content.get("round_id"), round_id)
        times = {
            name: _time(content, name, parse_time, "the round") if times[name] is None else times[name]
            for name in _TIMES
        }
        entries = content["questions"]
    else:
        entries = [content] if isinstance(content, dict) else content
    check_id(round_id, "the round's id")
    if not isinstance(entries, list) or not entries:
        raise FileRefusedError("no question is in it: an object with `questions`, a list, lines, or a table")
    if len(entries) > QUESTIONS_MAX:
        raise FileRefusedError(
            f"{len(entries):,} questions; the limit is {QUESTIONS_MAX:,} in one post: nothing was posted"
        )
    questions = [
        _question(entry, number, times, beside, parse_time, lambda name: opens_at_of(round_id, name))
        for number, entry in enumerate(entries, 1)
    ]
    ids = [question.question_id for question in questions]
    if len(set(ids)) != len(ids):
        raise FileRefusedError(
            f"question {next(question_id for question_id in ids if ids.count(question_id) > 1)!r} occurs twice"
        )
    return round_id, [msgspec.structs.replace(question, blob=blob) for question in questions]


def beside_the_log(content: Any) -> Any:
    """What was read, or a `TableBlob` if it is the table of one question and larger than a payload.

    Raises FileRefusedError.
    """
    if not isinstance(content, Table) or "question_id" in content.columns:
        return content
    cells_are_few = content.row_count * len(content.columns) * CELL_BYTES_MIN <= PAYLOAD_BYTES_MAX
    if cells_are_few and len(encoded(_columns(content), "the table")) <= PAYLOAD_BYTES_MAX - ROOM_BYTES:
        return content
    return kept(content)


def _one_of(payload: Any, beside: PostOptions) -> list[dict[str, Any]]:
    return [{"question_id": beside.question_id or TABLE, "payload": payload}]


def _of_table(table: Table, beside: PostOptions) -> list[dict[str, Any]]:
    if "question_id" not in table.columns:
        return _one_of({"columns": _columns(table)}, beside)
    entries = []
    for row in table.objects():
        own = {name: row.pop(name) for name in (*_TIMES, "question_id", "resolves_by") if name in row}
        tags = row.pop("tags", None)
        entries.append(
            {name: value for name, value in own.items() if value is not None}
            | {"payload": row, "tags": [tag for tag in str(tags).split(";") if tag] if tags else []}
        )
    return entries


def _question(
    entry: Any,
    number: int,
    times: Mapping[str, int | None],
    beside: PostOptions,
    parse_time: ParseTime,
    opens_at_of: Callable[[str], int | None],
) -> PostedQuestion:
    where = f"question {number}"
    if not isinstance(entry, dict):
        raise FileRefusedError(f"{where} is not an object")
    question_id = check_id(entry.get("question_id"), f"{where}: question_id")
    where = f"question {question_id!r}"
    _only(entry, _FIELDS, where)
    if "payload" not in entry:
        raise FileRefusedError(f"{where} has no payload, so models would see nothing")
    own = {name: _time(entry, name, parse_time, where) for name in _TIMES}
    opens_at, closes_at, resolves_at = (times[name] if own[name] is None else own[name] for name in _TIMES)
    if opens_at is None:
        before = opens_at_of(question_id)
        opens_at = beside.now if before is None else before
    if closes_at is None:
        raise FileRefusedError(f"{where} has no closes_at, and the round has none either")
    if closes_at <= opens_at:
        raise FileRefusedError(f"{where} closes at {closes_at}, which is not after it opens at {opens_at}")
    if closes_at <= beside.now:
        raise FileRefusedError(f"{where} closes at {closes_at}, which is in the past")
    tags = entry.get("tags") or list(beside.tags)
    if not isinstance(tags, list) or len(tags) > TAGS_MAX or not all(isinstance(tag, str) for tag in tags):
        raise FileRefusedError(f"{where}: tags are a list of at most {TAGS_MAX} texts")
    payload = encoded(entry["payload"], where)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise FileRefusedError(
            f"{where}: its payload has {len(payload):,} bytes; the limit is {PAYLOAD_BYTES_MAX:,}"
        )
    return PostedQuestion(
        question_id=question_id,
        payload=msgspec.Raw(payload),
        opens_at=opens_at,
        closes_at=closes_at,
        tags=tags,
        resolves_at=resolves_at,
        resolves_by=str(entry.get("resolves_by") or ""),
    )


def truths_of(content: Any, round_id: str, question_id: str = "") -> dict[str, msgspec.Raw]:
    """Question id -> its truth as JSON: of an object of them (also below `truths`), of lines or a table with
    `question_id` and `truth` (or the truth's fields as columns), or of one question whose truth is all of it.

    Raises FileRefusedError, also for a question with two different truths.
    """
    if question_id:
        check_id(question_id, "the question's id")
        truth = {"columns": _columns(content)} if isinstance(content, Table) else content
        return {question_id: msgspec.Raw(_truth_text(truth, f"question {question_id!r}"))}
    if isinstance(content, Table):
        content = content.objects()
    if isinstance(content, dict):
        if content.get("round_id") not in (None, round_id):
            raise FileRefusedError(f"the file belongs to round {content['round_id']!r}, not to {round_id!r}")
        pairs = (
            list(content.get("truths", content).items())
            if isinstance(content.get("truths", content), dict)
            else []
        )
    else:
        pairs = [
            _truth(entry, number)
            for number, entry in enumerate(content if isinstance(content, list) else [], 1)
        ]
    if not pairs:
        raise FileRefusedError(
            "no truth is in it: an object of question ids, lines, or a table with question_id"
        )
    if len(pairs) > QUESTIONS_MAX:
        raise FileRefusedError(f"{len(pairs):,} truths; the limit is {QUESTIONS_MAX:,} at once")
    truths: dict[str, msgspec.Raw] = {}
    for name, truth in pairs:
        check_id(name, "question_id")
        if truth is None:
            raise FileRefusedError(f"question {name!r}: null is not a truth")
        text = _truth_text(truth, f"question {name!r}")
        if name in truths and bytes(truths[name]) != text:
            raise FileRefusedError(f"question {name!r} has two different truths: nothing was resolved")
        truths[name] = msgspec.Raw(text)
    return truths


def _truth_text(truth: Any, where: str) -> bytes:
    text = encoded(truth, where)
    if len(text) > TRUTH_BYTES_MAX:
        raise FileRefusedError(
            f"{where}: its truth has {len(text):,} bytes; the limit is {TRUTH_BYTES_MAX:,}"
        )
    return text


def _columns(table: Table) -> dict[str, list[Any]]:
    return {name: [row[place] for row in table.rows] for place, name in enumerate(table.columns)}


def _truth(entry: Any, number: int) -> tuple[str, Any]:
    if not isinstance(entry, dict) or "question_id" not in entry:
        raise FileRefusedError(f"truth {number} has no question_id: a truth needs the id of its question")
    rest = {name: value for name, value in entry.items() if name != "question_id"}
    return str(entry["question_id"]), rest["truth"] if set(rest) == {"truth"} else rest


def stakes_of(content: Any) -> dict[str, str]:
    """Model id -> its stake: of an object (also below `stakes`), or a table or lines with `model_id` and `stake`.

    Raises FileRefusedError.
    """
    if isinstance(content, Table):
        content = content.objects()
    if isinstance(content, list):
        rows = [row if isinstance(row, dict) else {} for row in content]
        if not all({"model_id", "stake"} <= row.keys() for row in rows):
            raise FileRefusedError("a line or row of stakes must have model_id and stake")
        pairs = [(str(row["model_id"]), row["stake"]) for row in rows]
    elif isinstance(content, dict):
        table = content.get("stakes", content)
        pairs = list(table.items()) if isinstance(table, dict) else []
    else:
        pairs = []
    if len(pairs) > STAKES_MAX:
        raise FileRefusedError(f"{len(pairs):,} stakes; the limit is {STAKES_MAX:,}")
    stakes: dict[str, str] = {}
    for model_id, stake in pairs:
        try:
            amount = Decimal(str(stake))
            if not amount.is_finite() or not 0 <= amount <= STAKE_MAX or isinstance(stake, bool):
                raise InvalidOperation
        except InvalidOperation:
            raise FileRefusedError(
                f"the stake of {model_id!r} is not a decimal from 0 to 1e30: {str(stake)[:40]!r}"
            ) from None
        if model_id in stakes:
            raise FileRefusedError(f"model {model_id!r} has two stakes")
        stakes[model_id] = format(amount, "f")
    return stakes


def check_id(name: Any, what: str) -> str:
    """The id of a round or a question. Raises FileRefusedError for an invalid one."""
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise FileRefusedError(f"{what} is {str(name)[:110]!r}: write {ID_TEXT}")
    return name


def encoded(value: Any, where: str) -> bytes:
    """Plain JSON. Raises FileRefusedError for text that is no Unicode."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        raise FileRefusedError(f"{where} cannot be written as JSON: {error}") from error


def _only(entry: Mapping[str, Any], fields: set[str], where: str) -> None:
    unknown = sorted(entry.keys() - fields)
    if unknown:
        raise FileRefusedError(
            f"{where} has the unknown field {unknown[0]!r}; known are {', '.join(sorted(fields))}"
        )


def _agreed(name: str, in_file: Any, beside: str) -> str:
    if in_file is None or in_file == beside:
        return beside
    if beside:
        raise FileRefusedError(f"the file says {name} {in_file!r}, beside it {beside!r} was given")
    return str(in_file)


def _has_zone(text: str) -> bool:
    """Whether a time in ISO 8601 says its zone; anything else is for who parses it."""
    try:
        return text.isdigit() or datetime.fromisoformat(text.upper()).tzinfo is not None
    except ValueError:
        return True


def _time(entry: Mapping[str, Any], name: str, parse_time: ParseTime, where: str) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise FileRefusedError(f"{where}: {name} is not a time: {value!r}")
    if isinstance(value, str) and not _has_zone(value):
        raise FileRefusedError(f"{where}: {name} {value[:40]!r} has no zone: end it with Z or +00:00")
    try:
        return parse_time(str(value))
    except (ValueError, OperatorError) as error:
        raise FileRefusedError(f"{where}: {name}: {error}") from error
