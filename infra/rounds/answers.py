"""A participant's answers to the questions of a round, from what was read of a file, checked against the contract.

- an object of question ids to outputs (also below `answers`), or lines `{"question_id", "scope_key", "output"}`;
- a table with a column `question_id`: a row's other columns are the output's fields, or `output` alone;
- any other table is the answer to one question. An output type that reads tables itself gets `{"columns": {name:
  [cells]}}`, as a hosted model may send it. To any other it is offered in these shapes, and the first that fits is
  taken: `{first column: second}` where there are two, rows as lists, rows as objects, columns as lists, and that.

Nothing is taken unless all of it is right: the first answer that is refused is named with its row and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coordinator.infra.rounds.files import FileRefusedError, Table
from coordinator.infra.rounds.posts_in_file import check_id, encoded
from coordinator.streams.events import SubmittedAnswer
from coordinator.streams.feeds.post_checks import QUESTIONS_MAX


class AnswerableQuestion(msgspec.Struct, frozen=True):
    """A question that accepts answers now."""

    question_id: str
    scope_key: str
    contract_hash: str
    """Under which it is asked."""


Check = Callable[[Any], tuple[Any, str]]
"""Output -> (it as plain JSON, "") or (None, why the contract's output type does not take it)."""


def answers_of(
    content: Any,
    asked: Mapping[str, AnswerableQuestion],
    check_of: Callable[[AnswerableQuestion], Check],
    question_id: str = "",
) -> list[SubmittedAnswer]:
    """The answers, in the order in which they stand. Raises FileRefusedError, which names the question and row."""
    pairs = _pairs(content, list(asked), question_id)
    if not pairs:
        raise FileRefusedError("no answer is in it: an object of question ids, lines, or a table")
    if len(pairs) > QUESTIONS_MAX:
        raise FileRefusedError(f"{len(pairs):,} answers; the limit is {QUESTIONS_MAX:,} at once")
    answers: dict[str, SubmittedAnswer] = {}
    for where, name, output in pairs:
        check_id(name, f"{where}: question_id")
        if name not in asked:
            raise FileRefusedError(
                f"{where}: question {name!r} takes no answers: it is unknown, not open yet, or closed"
            )
        if name in answers:
            raise FileRefusedError(f"{where}: question {name!r} is answered twice")
        plain = _fitting(output, check_of(asked[name]), f"{where}: question {name!r}")
        answers[name] = SubmittedAnswer(
            question_id=name, scope_key=asked[name].scope_key, output=msgspec.Raw(encoded(plain, where))
        )
    return list(answers.values())


def _pairs(content: Any, asked: list[str], question_id: str) -> list[tuple[str, str, Any]]:
    """(where it stands, question id, output) of each."""
    if question_id:
        return [("the file", question_id, content)]
    if isinstance(content, Table):
        if "question_id" not in content.columns:
            if len(asked) != 1:
                raise FileRefusedError(
                    f"{len(asked)} questions take answers: name the question of this table, or add a column "
                    "question_id"
                )
            return [("the table", asked[0], content)]
        pairs = []
        for number, row in enumerate(content.objects(), 1):
            name = row.pop("question_id")
            row = {column: cell for column, cell in row.items() if cell is not None}  # noqa: PLW2901
            pairs.append((f"row {number}", str(name), row["output"] if set(row) == {"output"} else row))
        return pairs
    if isinstance(content, dict):
        of = content.get("answers", content)
        if isinstance(of, dict):
            return [(f"answer {number}", name, output) for number, (name, output) in enumerate(of.items(), 1)]
        content = of
    if not isinstance(content, list):
        return []
    pairs = []
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict) or not {"question_id", "output"} <= entry.keys():
            raise FileRefusedError(f"row {number} has no question_id or no output")
        pairs.append((f"row {number}", str(entry["question_id"]), entry["output"]))
    return pairs


def _fitting(output: Any, check: Check, where: str) -> Any:
    shapes = [output]
    if isinstance(output, Table):
        # A check that reads tables gets one shape only. Otherwise it might accept another shape of a table that it has
        # refused, or rows that it has not checked.
        shapes = [as_columns(output)] if _reads_tables(check, output.columns) else shapes_of(output)
    reasons = []
    for shape in shapes:
        plain, reason = check(shape)
        if plain is not None:
            return plain
        reasons.append(reason)
    raise FileRefusedError(
        f"{where}: {reasons[0]}"
        + ("" if len(reasons) == 1 else f"; as rows: {reasons[-3]}; as a table: {reasons[-1]}")
    )


def _reads_tables(check: Check, columns: list[str]) -> bool:
    """Whether the output type makes something of its own of a table, here of one without rows."""
    empty: Any = {"columns": {name: [] for name in columns}}
    plain, _ = check(empty)
    return plain is not None and plain != empty


def as_columns(table: Table) -> dict[str, dict[str, list[Any]]]:
    """The table as a payload, a truth and a hosted model's answer have it."""
    return {"columns": {name: [row[i] for row in table.rows] for i, name in enumerate(table.columns)}}


def shapes_of(table: Table) -> list[Any]:
    """The shapes in which a table may be an output."""
    shapes: list[Any] = [table.rows, table.objects()]
    if len(table.columns) == 2:  # noqa: PLR2004 - a name and what it is worth
        names = [str(row[0]) for row in table.rows]
        if len(set(names)) != len(names):
            raise FileRefusedError(
                f"{next(name for name in names if names.count(name) > 1)!r} occurs twice in column {table.columns[0]!r}"
            )
        shapes.insert(0, {name: row[1] for name, row in zip(names, table.rows, strict=True)})
    columns = as_columns(table)
    return [*shapes, columns["columns"], columns]
