"""What live listeners are sent, with the turn in which each part last changed. Pure.

The state is what a page shows: the board's rows, the newest checkpoints, the feeds. `turn` compares it with what the
projections hold now, and stamps what changed with the turn's number. A listener remembers one number, the last turn
that it was sent; it is owed everything with a later stamp. A slow listener therefore gets fewer and larger messages and
needs no queue, and listeners that are owed the same share one encoding.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec

from coordinator.api.live_position import position_text, reached
from coordinator.api.times import zulu, zulu_or_none
from coordinator.projections.folding.as_of import horizon_of
from coordinator.projections.views.all_views import ReadModels
from coordinator.projections.views.board_rows import Board, BoardRow
from coordinator.projections.views.checkpoints import CheckpointRow
from coordinator.streams.scores.units import to_float

TURNS_MAX = 4_096
CHECKPOINTS_MAX = 50
BOARD_TOPICS = ("inputs", "models", "scores", "snapshots")
_encode = msgspec.json.Encoder().encode
Rows = dict[str, tuple[int, dict[str, Any]]]
"""key -> (turn in which the row last changed, row)"""


class OwedChanges(msgspec.Struct, frozen=True):
    """What a listener is owed: all changes after `turn`, and in addition what changed before `turn`.

    `board`, `feeds`: whether it is owed the whole board, all feeds. `checkpoints`: the ids of checkpoints it is owed;
    None: the newest. `reason`: why the stream could not resume; None: it resumed, or the listener is new.
    """

    turn: int
    board: bool = False
    feeds: bool = False
    checkpoints: list[str] | None = []
    reason: str | None = None


class LiveState:
    """The state as of the last turn."""

    def __init__(self, read: ReadModels) -> None:
        self._read = read
        self.number = 0
        self._turns: list[tuple[int, dict[str, int]]] = []
        self._board: Rows = {}
        self._gone: dict[str, int] = {}
        self._head: tuple[int, dict[str, Any]] = (0, {})
        self._feeds: tuple[int, dict[str, Any]] = (0, {})
        self._checkpoints: Rows = {}
        self._versions: tuple[int, int, int] | None = None
        self._encoded: dict[int, bytes] = {}  # turn -> the changes since it, until the next turn

    @property
    def positions(self) -> dict[str, int]:
        """Up to where the log was folded at the last turn: topic -> next offset."""
        return self._turns[-1][1]

    def turn(self, positions: Mapping[str, int]) -> None:
        """Take over what the projections hold now; `positions` is up to where they are folded."""
        self.number += 1
        self._turns.append((self.number, dict(positions)))
        del self._turns[:-TURNS_MAX]
        self._encoded.clear()
        read = self._read
        # A projection counts its changes: what has the same version as at the last turn need not be compared.
        versions = (read.leaderboard.version, read.checkpoints.version, read.feeds.version)
        last_versions = self._versions or (-1, -1, -1)
        if versions[0] != last_versions[0]:
            self._turn_board(read.leaderboard.board())
        if versions[1] != last_versions[1]:
            rows = {row.checkpoint.checkpoint_id: checkpoint_line(row) for row in self._newest()}
            self._checkpoints = _stamped(self._checkpoints, rows, self.number)
        if versions[2] != last_versions[2]:
            feeds = feeds_line(read)
            if feeds != self._feeds[1]:
                self._feeds = (self.number, feeds)
        self._versions = versions  # last: if a step above raised, the next turn does it again

    def _newest(self) -> list[CheckpointRow]:
        return list(islice(self._read.checkpoints.newest(), CHECKPOINTS_MAX))

    def _turn_board(self, board: Board | None) -> None:
        if board is None:
            return
        head = {
            "until": zulu(board.until),
            "ranking_key": board.ranking_key,
            "direction": board.direction,
            "mixed_contracts": board.mixed_contracts,
            "ranked_as_of": zulu_or_none(board.ranked_as_of),
            "windows": list(board.rows[0].windows_units) if board.rows else [],
        }
        if head != self._head[1]:
            self._head = (self.number, head)
        rows = {row.model.model_id: board_line(board, place, row) for place, row in enumerate(board.rows)}
        for model_id in self._board.keys() - rows.keys():
            self._gone[model_id] = self.number
        for model_id in self._gone.keys() & rows.keys():
            del self._gone[model_id]
        self._board = _stamped(self._board, rows, self.number)

    def since(self, sent: Mapping[str, int] | None) -> OwedChanges:
        """What a listener is owed that was sent everything before these offsets; None: nothing yet."""
        everything = OwedChanges(self.number, board=True, feeds=True, checkpoints=None)
        if sent is None:
            return everything
        now = self.positions
        if sent.keys() - now.keys() or not reached(sent, now):
            reason = (
                "the id is ahead of this node, which is catching up or reads another log: all is sent again"
            )
            return msgspec.structs.replace(everything, reason=reason)
        # Positions only grow, so the turns whose positions the listener has are the first ones.
        turns_sent = bisect_right(self._turns, False, key=lambda turn: not reached(turn[1], sent))
        if turns_sent:
            return OwedChanges(self._turns[turns_sent - 1][0])
        changed = self._read.checkpoints.changed_since(sent.get("checkpoints", 0))
        if changed is None:
            reason = "the id is older than the stored changes of checkpoints: all is sent again"
            return msgspec.structs.replace(everything, reason=reason)
        return OwedChanges(
            self.number,
            board=any(sent.get(topic, 0) < now.get(topic, 0) for topic in BOARD_TOPICS),
            feeds=sent.get("feeds", 0) < now.get("feeds", 0),
            checkpoints=changed,
        )

    def first_message(self, owed: OwedChanges, hello: Mapping[str, Any]) -> bytes:
        """A listener's first message: the `state` event, then what it is owed."""
        parts = [message("state", {**hello, "reset": owed.reason})]
        if owed.board and self._head[1]:
            parts.append(self._board_message(-1))
        parts += [message("checkpoint", line) for line in self._owed_checkpoints(owed.checkpoints)]
        if owed.feeds:
            parts.append(message("feeds", self._feeds[1]))
        return b"".join(parts) + self.changes_since(owed.turn, always=True)

    def _owed_checkpoints(self, checkpoint_ids: list[str] | None) -> list[dict[str, Any]]:
        if checkpoint_ids is None:
            return [line for _, line in reversed(self._checkpoints.values())]
        rows = (self._read.checkpoints.get(checkpoint_id) for checkpoint_id in checkpoint_ids)
        return [checkpoint_line(row) for row in rows if row is not None]

    def changes_since(self, turn: int, *, always: bool = False) -> bytes:
        """Everything that changed after `turn`, and a beat with the id; empty if nothing changed (unless `always`)."""
        body = self._encoded.get(turn)
        if body is None:
            parts = []
            if self._head[0] > turn or any(at > turn for at, _ in self._board.values()):
                parts.append(self._board_message(turn))
            changed = [(at, line) for at, line in self._checkpoints.values() if at > turn]
            parts += [
                message("checkpoint", line)
                for _, line in sorted(changed, key=lambda at_and_line: at_and_line[0])
            ]
            if self._feeds[0] > turn:
                parts.append(message("feeds", self._feeds[1]))
            body = self._encoded[turn] = b"".join(parts)
        return body + self.beat() if body or always else b""

    def beat(self) -> bytes:
        """The times, and the id: everything up to that position was sent."""
        return message("beat", times(self._read), position_text(self.positions))

    def _board_message(self, turn: int) -> bytes:
        return message(
            "leaderboard",
            {
                **self._head[1],
                "complete": turn < 0,
                "rows": [line for at, line in self._board.values() if at > turn],
                "gone": [model_id for model_id, at in self._gone.items() if at > turn >= 0],
            },
        )


def times(read: ReadModels) -> dict[str, Any]:
    """The times that `as_of` can ask for: from the first terms, or from the horizon (PAST_DAYS), to the clock.
    Null before there are any.
    """
    terms = read.leaderboard.terms.in_order
    horizon = horizon_of(read)
    first = max(terms[0].effective_from, horizon.from_ms if horizon else 0) if terms else None
    return {
        "first_ts": zulu_or_none(first),
        "clock_ts": zulu_or_none(read.feeds.clock or None),
    }


def message(event: str, body: Any, message_id: str | None = None) -> bytes:
    """One server-sent event. JSON holds no raw line break, so one data line is enough."""
    head = f"event: {event}\n" if message_id is None else f"id: {message_id}\nevent: {event}\n"
    return head.encode() + b"data: " + _encode(body) + b"\n\n"


def board_line(board: Board, place: int, row: BoardRow) -> dict[str, Any]:
    """One row of the board. `place` counts the rows from 0, ranked models first."""
    return {
        "model_id": row.model.model_id,
        "model_name": row.model.model_name,
        "cruncher_name": row.model.cruncher_name,
        "place": place,
        "rank": row.rank,
        "ensemble": row.model.ensemble,
        "status": row.active,
        "state": row.model.status,
        "scored_count": row.scored_count,
        "last_scored_at": zulu_or_none(row.last_scored_at),
        "unranked_reason": row.unranked_reason or None,
        "scores": [
            None if units is None else to_float(units, board.decimals) for units in row.windows_units.values()
        ],
    }


def checkpoint_line(row: CheckpointRow) -> dict[str, Any]:
    """A checkpoint and its moves, without its shares: `/reports/checkpoints/{id}` has them."""
    checkpoint = row.checkpoint
    return {
        "id": checkpoint.checkpoint_id,
        "status": row.status,
        "reason": row.reason or None,
        "period_start": zulu(checkpoint.period_start),
        "period_end": zulu(checkpoint.period_end),
        "created_at": zulu(row.created_at),
        "submitted_at": zulu_or_none(row.submitted_at),
        "tx_hash": row.tx_hash,
        "model_count": len(checkpoint.ranking),
        "rehearsal": checkpoint.rehearsal,
        "moves": [{"status": status, "at": zulu(at)} for status, at in row.moves],
    }


def source_rows(read: ReadModels) -> list[dict[str, Any]]:
    """Each source of the feeds with its state, its reason and since when."""
    return [
        {
            "source": state.source,
            "state": state.state,
            "reason": state.reason,
            "since": zulu(state.since_ms),
        }
        for state in read.feeds.states()
    ]


def feeds_line(read: ReadModels) -> dict[str, Any]:
    """The state of the sources and of each subscription."""
    return {
        "sources": source_rows(read),
        "feeds": [
            {
                "source": row.source,
                "subject": row.subject,
                "kind": row.kind,
                "granularity": row.granularity,
                "record_count": row.record_count,
                "watermark_ts": zulu(row.watermark) if row.record_count else None,
                "gap_count": row.gap_count,
                "open_gap_count": read.feeds.open_gap_count(row),
            }
            for row in read.feeds.all()
        ],
    }


def _stamped(before: Rows, rows: dict[str, dict[str, Any]], number: int) -> Rows:
    """`rows`, each with the turn in which it last changed: an equal row keeps its stamp."""
    stamped: Rows = {}
    for name, row in rows.items():
        old = before.get(name)
        stamped[name] = old if old is not None and old[1] == row else (number, row)
    return stamped
