"""Posted questions, by round: the question, its state, its truth. Folds `feeds` and `inputs`.

    Q round_id question_id             a question as it was posted           from `feeds`
    R round_id                         how many a round holds                from `feeds`
    N posted_at round_id               rounds by time                        from `feeds`
    E posted_at round_id question_id   questions by time                     from `feeds`
    K                                  the table of stakes                   from `feeds`
    I round_id question_id             a question as it was asked            from `inputs`
    C round_id                         how many stand where                  from `inputs`
    L at round_id question_id          a truth that corrects another         from `inputs`

No row leaves (PAST_DAYS): however old a question is, a late truth changes its rows, and the sum of a changed row that
had left could not be told. docs/how-to/past.md says what a question costs.

Answers are not here: `question_answers.py` reads them from the read model of predictions, which hides what could still
be copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

import msgspec

from coordinator.projections.folding.projection import Projection, eight, encode_row, key
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.projections.storage.batch import Batch
from coordinator.projections.views.round_rows import (
    AskedRow,
    CorrectedTruth,
    PostedCounts,
    PostedRow,
    QuestionRow,
    RoundRow,
    posted_row,
    state_counts,
)
from coordinator.streams.events import (
    AnyEvent,
    InputClosed,
    InputReceived,
    InputResolved,
    QuestionClosed,
    QuestionPosted,
    QuestionResolved,
    QuestionVoided,
    StakesPosted,
    TruthRefused,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.lifecycle import NONE

INPUT_PREFIX = "inp/questions/"
"""How the id of an input that asks a question begins. Its round and question follow, then `~n` except for the first."""
_posted_decoder = msgspec.msgpack.Decoder(PostedRow)
_asked_decoder = msgspec.msgpack.Decoder(AskedRow)
_round_decoder = msgspec.msgpack.Decoder(PostedCounts)
_counts_decoder = msgspec.msgpack.Decoder(dict[str, int])
_stakes_decoder = msgspec.msgpack.Decoder(tuple[int, dict[str, str]])
_encode_json = msgspec.json.Encoder(order="deterministic").encode


class Rounds(Projection):
    """Rounds and their questions."""

    name = "rounds"
    topics = ("feeds", "inputs")
    explained = frozenset((b"K", b"Q"))
    owners: ClassVar[dict[bytes, str]] = {
        **dict.fromkeys((b"E", b"K", b"N", b"Q", b"R"), "feeds"),
        **dict.fromkeys((b"C", b"I", b"L"), "inputs"),
    }

    def apply(self, decision: Decision, batch: Batch) -> None:
        if decision.topic == "feeds":
            for event in decision.events:
                self._fold_posted(event, batch)
        else:
            for event in decision.events:
                self._fold_asked(event, batch)

    # --- what was posted -------------------------------------------------------------------------

    def _fold_posted(self, event: AnyEvent, batch: Batch) -> None:
        match event:
            case QuestionPosted():
                self._posted(event, batch)
            case QuestionResolved() | QuestionClosed() | QuestionVoided():
                self._changed(event, batch)
            case StakesPosted(data=data):
                batch.put(b"K", encode_row((event.at, data.stakes)))
            case _:
                pass

    def _changed(self, event: QuestionResolved | QuestionClosed | QuestionVoided, batch: Batch) -> None:
        name = b"Q" + key(event.data.round_id, event.data.question_id)
        raw = batch.get(name)
        if raw is None:
            self.refuse(batch, "feeds", event, NONE)
            return
        row = _posted_decoder.decode(raw)
        match event:
            case QuestionResolved(data=data):
                row.truth, row.truth_revision = bytes(data.truth).decode(), data.revision
            case QuestionClosed():
                row.is_closed = True
            case QuestionVoided(data=data):
                if row.void_reason is not None:
                    self.refuse(batch, "feeds", event, "void")
                    return
                row.void_reason = data.reason
                self._count_posted(data.round_id, batch, voided=1)
                self.count("feeds", "voided")
        batch.put(name, encode_row(row))

    def _posted(self, event: QuestionPosted, batch: Batch) -> None:
        data, question = event.data, event.data.question
        name = b"Q" + key(data.round_id, question.question_id)
        raw = batch.get(name)
        before = _posted_decoder.decode(raw) if raw is not None else None
        row = posted_row(before.posted_at if before else event.at, question, data.revision)
        if before is not None:
            row.truth, row.truth_revision = before.truth, before.truth_revision
            row.void_reason, row.is_closed = before.void_reason, before.is_closed
        batch.put(name, encode_row(row))
        counts = (
            _round_decoder.decode(counts_text)
            if (counts_text := batch.get(b"R" + key(data.round_id)))
            else None
        )
        if counts is None:
            counts = PostedCounts(
                posted_at=event.at, opens_at=question.opens_at, closes_at=question.closes_at
            )
            batch.put(b"N" + key(event.at, data.round_id), b"")
            self.count("feeds", "rounds")
        counts.opens_at = min(counts.opens_at, question.opens_at)
        counts.closes_at = max(counts.closes_at, question.closes_at)
        batch.put(b"R" + key(data.round_id), encode_row(counts))
        if before is None:
            batch.put(b"E" + key(event.at, data.round_id, question.question_id), b"")
            self._count_posted(data.round_id, batch, questions=1)
            self.count("feeds", "questions")

    def _count_posted(self, round_id: str, batch: Batch, *, questions: int = 0, voided: int = 0) -> None:
        name = b"R" + key(round_id)
        raw = batch.get(name)
        if raw is not None:
            counts = _round_decoder.decode(raw)
            counts.questions += questions
            counts.voided += voided
            batch.put(name, encode_row(counts))

    # --- what became of it -----------------------------------------------------------------------

    def _fold_asked(self, event: AnyEvent, batch: Batch) -> None:
        match event:
            case InputReceived(data=data) if data.question is not None:
                question = data.question
                with _QuestionCounts(self, batch, question.round_id, question.question_id) as row:
                    row.askings = max(row.askings, question.asking)
                    if data.input_id == question.input_id:
                        row.input_id, row.opened_at = question.input_id, event.at
                        row.scope_key = data.scopes[0].scope_key if data.scopes else ""
            case InputClosed(data=data) if place := place_of(data.input_id):
                with _QuestionCounts(self, batch, *place) as row:
                    row.closed_at = event.at
            case InputResolved(data=data) if place := place_of(data.input_id):
                with _QuestionCounts(self, batch, *place) as row:
                    row.input_id = row.input_id or data.input_id
                    if row.resolved_at is not None:
                        batch.put(b"L" + key(event.at, *place), eight(row.resolved_at))
                    row.resolved_at = event.at if row.resolved_at is None else row.resolved_at
                    row.closed_at = event.at if row.closed_at is None else row.closed_at
                    row.truth = None if data.truth is None else _encode_json(data.truth).decode()
                    row.revision, row.reason, row.void, row.refused = (
                        data.revision,
                        data.reason,
                        data.void,
                        None,
                    )
            case TruthRefused(data=data) if place := place_of(data.input_id):
                with _QuestionCounts(self, batch, *place) as row:
                    row.refused = data.reason
            case _:
                pass

    # --- questions -------------------------------------------------------------------------------

    def totals(self) -> dict[str, int]:
        """How many questions there are that are not void, and how many of them are `resolved` and `pending`."""
        total = self.counted("feeds", "questions") - max(
            self.counted("feeds", "voided"), self.counted("inputs", "void")
        )
        resolved = min(self.counted("inputs", "resolved"), total)
        return {"total": total, "resolved": resolved, "pending": total - resolved}

    def round(self, round_id: str) -> RoundRow | None:
        """A round with its counts, or None."""
        raw = self.store.get(b"R" + key(round_id))
        if raw is None:
            return None
        posted = _round_decoder.decode(raw)
        asked = self.store.get(b"C" + key(round_id))
        return RoundRow(
            round_id=round_id,
            posted_at=posted.posted_at,
            opens_at=posted.opens_at,
            closes_at=posted.closes_at,
            questions=posted.questions,
            counts=state_counts(posted, _counts_decoder.decode(asked) if asked else {}),
        )

    def rounds(
        self,
        state: str | None = None,
        *,
        after: tuple[int, str] | None = None,
        look: ReadBudget | None = None,
    ) -> Iterator[RoundRow]:
        """Rounds, the newest posted first; of one state where given. `after` is (posted at, id) of one of them."""
        last = None if after is None else b"N" + key(*after)
        for name, _ in self.store.scan(b"N", start=last, backwards=True):
            place = int.from_bytes(name[1:9], "big"), name[9:-1].decode()
            if name == last:
                continue
            if look is not None and not look.at(*place):
                return
            row = self.round(place[1])
            if row is not None and state in (None, row.state):
                yield row

    def question(self, round_id: str, question_id: str) -> QuestionRow | None:
        """A question, or None."""
        raw = self.store.get(b"Q" + key(round_id, question_id))
        return None if raw is None else self._joined(round_id, question_id, raw)

    def posted_at(self, round_id: str, question_id: str) -> list[int]:
        """The offsets in `feeds` of everything that was posted of a question."""
        return self.store.written_at(b"Q" + key(round_id, question_id))

    def opens_at(self, round_id: str, question_id: str) -> int | None:
        """When a question opens, in ms; None if none was posted."""
        row = self.question(round_id, question_id)
        return None if row is None else row.posted.opens_at

    def questions(self, round_id: str, *, after: str | None = None) -> Iterator[QuestionRow]:
        """The questions of a round in the order of their ids, behind `after` where given."""
        prefix = b"Q" + key(round_id)
        last = None if after is None else prefix + key(after)
        for name, raw in self.store.scan(prefix, start=last):
            if name != last:
                yield self._joined(round_id, name[len(prefix) : -1].decode(), raw)

    def newest(self, look: ReadBudget | None = None) -> Iterator[QuestionRow]:
        """Questions of all rounds, the newest posted first."""
        for name, _ in self.store.scan(b"E", backwards=True):
            round_id, question_id = name[9:-1].decode().split("\x00")
            if look is not None and not look.at(round_id, question_id):
                return
            row = self.question(round_id, question_id)
            if row is not None:
                yield row

    def corrected(self, limit: int) -> list[CorrectedTruth]:
        """At most `limit` truths that correct another, the newest first."""
        corrected: list[CorrectedTruth] = []
        for name, first_at in islice(self.store.scan(b"L", backwards=True), limit):
            round_id, question_id = name[9:-1].decode().split("\x00")
            at = int.from_bytes(name[1:9], "big")
            corrected.append(CorrectedTruth(round_id, question_id, int.from_bytes(first_at, "big"), at))
        return corrected

    def stakes(self) -> tuple[int, dict[str, str]] | None:
        """(since when, model id -> stake as a decimal) of the table in force; None before the first."""
        raw = self.store.get(b"K")
        return _stakes_decoder.decode(raw) if raw else None

    def _joined(self, round_id: str, question_id: str, raw: bytes) -> QuestionRow:
        asked = self.store.get(b"I" + key(round_id, question_id))
        return QuestionRow(
            round_id=round_id,
            question_id=question_id,
            posted=_posted_decoder.decode(raw),
            asked=_asked_decoder.decode(asked) if asked else None,
        )


class _QuestionCounts:
    """`with _Asked(..) as row`: a question's row of `inputs`, put back with the counts of its round."""

    def __init__(self, rounds: Rounds, batch: Batch, round_id: str, question_id: str) -> None:
        self._rounds, self._batch, self._round_id = rounds, batch, round_id
        self._name = b"I" + key(round_id, question_id)
        raw = batch.get(self._name)
        self.row = AskedRow() if raw is None else _asked_decoder.decode(raw)
        self._before = None if raw is None else self.row.state

    def __enter__(self) -> AskedRow:
        return self.row

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        self._batch.put(self._name, encode_row(self.row))
        state = self.row.state
        if state == self._before:
            return
        name = b"C" + key(self._round_id)
        raw = self._batch.get(name)
        counts = _counts_decoder.decode(raw) if raw else {}
        for input_state, step in ((self._before, -1), (state, 1)):
            if input_state is not None:
                counts[input_state] = counts.get(input_state, 0) + step
                self._rounds.count("inputs", input_state, step)
        self._batch.put(name, encode_row(counts))


def place_of(input_id: str) -> tuple[str, str] | None:
    """(round id, question id) of the input of a question; None for an input of the market's grid."""
    if not input_id.startswith(INPUT_PREFIX):
        return None
    round_id, _, question_id = input_id[len(INPUT_PREFIX) :].partition("/")
    return round_id, question_id.partition("~")[0]
