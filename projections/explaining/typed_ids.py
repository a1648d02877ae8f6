"""Turns what a person typed into ids of the log.

Reads `predictions` and `checkpoints`. Raises UnknownFigureError, which says what an id looks like and where to find it.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.past_held import check_rows_held
from coordinator.projections.views.checkpoints import CheckpointRow
from coordinator.streams.durations import FAR_MS
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.ids import input_of_question, is_question, question_of
from coordinator.streams.log.reasons import printable

ID_CHARS_MAX = 600
SHOWN_CHARS = 120


class UnknownFigureError(OperatorError):
    """No figure has this name, now or as of the moment that was asked about."""


def shown(text: str) -> str:
    """Untrusted text, made printable and short enough for a message."""
    return repr(printable(text[:SHOWN_CHARS]))


def parts_of(read: Readable, prediction_id: str) -> tuple[str, str, str]:
    """(input_id, scope_key, model_id) of a prediction's id. Subjects, scopes and models may contain slashes, so each
    cut is tried against the inputs that exist, and the longest scope first.
    """
    point_ms = FAR_MS
    for input_id, rest in _inputs_in(prediction_id[:ID_CHARS_MAX]):
        # Answers that were handed in belong to a round that has no input of its own.
        row = read.predictions.input(input_id) or read.predictions.input(question_of(input_id))
        if row is None:
            if not is_question(input_id):
                point_ms = int(input_id.rpartition("/")[2])
            continue
        for scope_key in sorted(row.scopes, key=len, reverse=True):
            if rest.startswith(f"{scope_key}/"):
                return input_id, scope_key, rest[len(scope_key) + 1 :]
        raise UnknownFigureError(
            f"input {shown(input_id)} was asked for the scopes {', '.join(row.scopes)}: an id ends in /SCOPE/MODEL"
        )
    check_rows_held(read.predictions, point_ms, "this round")
    raise UnknownFigureError(
        f"no prediction {shown(prediction_id)} is known: an id is inp/SUBJECT/POINT_MS/SCOPE/MODEL, or "
        "inp/questions/ROUND/QUESTION/question/MODEL, as `id` in "
        "/reports/predictions?projectIds=MODEL, or on a model's page"
    )


def _inputs_in(text: str) -> Iterator[tuple[str, str]]:
    """Every (input_id, rest) that the text can be cut into. An input's id ends in a time in ms, or is a question's."""
    pieces = text.split("/")
    if asked := input_of_question(text):
        yield asked, text[len(asked) + 1 :]
    for i in range(2, len(pieces) - 2):
        if pieces[0] == "inp" and pieces[i].isascii() and pieces[i].isdigit():
            yield "/".join(pieces[: i + 1]), "/".join(pieces[i + 1 :])


def checkpoint_of(read: Readable, name: str) -> CheckpointRow:
    """The checkpoint of an id; `latest` is the newest one that was offered."""
    row = read.checkpoints.latest_offered() if name == "latest" else read.checkpoints.get(name[:ID_CHARS_MAX])
    if row is None and name == "latest":
        raise UnknownFigureError("no checkpoint was offered yet, as of the time that is asked about")
    if row is None:
        raise UnknownFigureError(
            f"no checkpoint {shown(name)} is known: an id is ckp_ and 24 hex digits, as `coordinator checkpoint list` "
            "and /reports/checkpoints name them; `latest` is the newest one offered"
        )
    return row
