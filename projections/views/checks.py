"""The node's own sums, kept twice: what must hold of the log whatever happened. Folds `predictions`, `scores`,
`snapshots`, `checkpoints`.

    O input_id             a round under way: who was asked, what is recorded         from `predictions`
    A input_id scope_key   a complete round waits for its scores                      from `predictions`
    Q question             its scope, while it still takes answers                    from `predictions`
    S input_id scope_key   a scored round waits for its predictions to be folded      from `scores`
    K checkpoint_id, H tx_hash, P, L: what was offered, paid by, closed               from one topic each
    B name id              what does not hold, with the time and the reason

Double entry: a round's answers come from `predictions`, its endings from `scores`, each counted by itself. Once both
are there they must be equal; then both rows go, so the store stays as small as what is under way. Whichever half comes
first, the rows are the same. Nothing here is derived from what it is compared with.
"""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.projections.folding.projection import Projection, encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.projections.views.check_rows import Closed, OpenRound, closed_by
from coordinator.streams.checkpoints.offering import retained_frac64
from coordinator.streams.contract.emission import FRAC64_ONE, emission_faults, emission_sha256
from coordinator.streams.contract.payout_amounts import frac64_shares
from coordinator.streams.events import (
    AnswersClosed,
    AnyEvent,
    CheckpointData,
    CheckpointOpened,
    CheckpointSubmitted,
    CheckpointWithheld,
    PeriodClosed,
    RoundAnswered,
    RoundOpened,
    RoundScored,
    ScopeAnswered,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.ids import is_question, question_of

PREDICTIONS, REWARDS, PERIODS, SETTLEMENTS = "predictions", "rewards", "periods", "settlements"
BROKEN_SHOWN = 3


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One invariant as of now. `detail` says what was found; `counts` are the numbers behind it.

    Not `withholds`: broken it is an alert and no reason to withhold pay, since the log itself may be sound.
    """

    name: str
    about: str
    ok: bool
    detail: str
    counts: dict[str, int] = {}
    checked: bool = True
    withholds: bool = True


_open_decoder = msgspec.msgpack.Decoder(OpenRound)
_answers_decoder = msgspec.msgpack.Decoder(list[int])
_closed_decoder = msgspec.msgpack.Decoder(Closed)
_scope_decoder = msgspec.msgpack.Decoder(str)
_text_decoder = msgspec.msgpack.Decoder(tuple[int, str])


class Checks(Projection):
    """Counts both sides of each sum, and keeps a row for each difference."""

    name = "checks"
    topics = ("predictions", "scores", "snapshots", "checkpoints")
    schema = 2
    keeps_past = False  # what holds is asked of now alone

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._open = {name[1:-1].decode(): _open_decoder.decode(row) for name, row in store.scan(b"O")}

    def apply(self, decision: Decision, batch: Batch) -> None:
        if decision.topic == "predictions":
            self._fold_predictions(decision.events, batch)
        elif decision.topic == "scores":
            self._fold_scores(decision.events, batch)
        else:
            for event in decision.events:
                self._fold_money(event, batch)

    # --- predictions: opened = scored + failed + absent + pending ------------------------------------

    def _fold_predictions(self, events: list[AnyEvent], batch: Batch) -> None:
        touched: set[str] = set()
        for event in events:
            kind = type(event)
            data: Any = event.data
            if isinstance(event, ScopeAnswered):
                tally = self._tally(event, batch)
                for column, count in enumerate(event.data.status_counts()):
                    tally[column] += count
                touched.add(event.data.input_id)
            elif kind is RoundOpened:
                if data.input_id in self._open:
                    self._broken(batch, PREDICTIONS, data.input_id, event.at, "the round was opened twice")
                tallies = {scope_key: [0, 0, 0] for scope_key in data.scope_keys}
                self._open[data.input_id] = OpenRound(len(data.roster), tallies)
                touched.add(data.input_id)
                self.count("predictions", "opened", len(data.roster) * len(data.scope_keys))
            elif kind is RoundAnswered:
                self._answered(data.input_id, event.at, batch)
                touched.discard(data.input_id)
            elif kind is AnswersClosed:
                self._question_answered(data.input_id, batch)
        for round_key in touched:
            if round_key in self._open:
                batch.put(b"O" + key(round_key), encode_row(self._open[round_key]))

    def _tally(self, event: ScopeAnswered, batch: Batch) -> list[int]:
        data = event.data
        the_round = self._open.get(data.input_id)
        if (
            the_round is None
            or data.scope_key not in the_round.tallies
            or (data.models and data.models[-1] >= the_round.roster)
        ):
            what = f"predictions of no open round: {data.input_id} {data.scope_key}"
            self._broken(batch, PREDICTIONS, event.id, event.at, what)
            return [0, 0, 0]
        return the_round.tallies[data.scope_key]

    def _answered(self, input_id: str, at: int, batch: Batch) -> None:
        the_round = self._open.pop(input_id, None)
        if the_round is None:
            self._broken(
                batch, PREDICTIONS, f"{input_id}/answered", at, "a round was answered that is not open"
            )
            return
        batch.delete(b"O" + key(input_id))
        for scope_key, tally in the_round.tallies.items():
            if sum(tally) != the_round.roster:
                what = f"{input_id} {scope_key}: {the_round.roster} were asked, {sum(tally)} are recorded"
                self._broken(batch, PREDICTIONS, f"{input_id}/{scope_key}/answers", at, what)
            where = key(input_id, scope_key)
            if is_question(input_id):
                self._answered_question(question_of(input_id), scope_key, tally, batch)
                continue
            closed = batch.get(b"S" + where)
            if closed is None:
                batch.put(b"A" + where, encode_row(tally))
            else:
                batch.delete(b"S" + where)
                self._balance(batch, input_id, scope_key, tally, _closed_decoder.decode(closed))

    def _answered_question(self, question: str, scope_key: str, tally: list[int], batch: Batch) -> None:
        """Add one round of a question to its sums. A model that missed a round has that as its end there."""
        recorded, absent, failed = tally
        self.count("predictions", "absent", absent)
        self.count("predictions", "failed", failed)
        name = b"A" + key(question, scope_key)
        row = batch.get(name)
        before = _answers_decoder.decode(row)[0] if row else 0
        batch.put(name, encode_row([before + recorded, 0, 0]))
        batch.put(b"Q" + key(question), encode_row(scope_key))

    def _question_answered(self, question: str, batch: Batch) -> None:
        """No more answers of a question come: if it is scored already, its sums must be equal now."""
        row = batch.get(b"Q" + key(question))
        scope_key = _scope_decoder.decode(row) if row else ""
        batch.delete(b"Q" + key(question))
        where = key(question, scope_key)
        tally, closed = batch.get(b"A" + where), batch.get(b"S" + where)
        if tally is not None and closed is not None:
            batch.delete(b"A" + where)
            batch.delete(b"S" + where)
            self._balance(
                batch, question, scope_key, _answers_decoder.decode(tally), _closed_decoder.decode(closed)
            )

    def _fold_scores(self, events: list[AnyEvent], batch: Batch) -> None:
        for event in events:
            if type(event) is not RoundScored:
                continue
            data, closed = event.data, closed_by(event.data)
            for name in ("scored", "failed", "absent", "replaced"):
                self.count("scores", name, getattr(closed, name))
            where = key(data.input_id, data.scope_key)
            tally = batch.get(b"A" + where)
            # `Q` is there while answers to a question may still come.
            if tally is None or batch.get(b"Q" + key(data.input_id)) is not None:
                batch.put(b"S" + where, encode_row(closed))
            else:
                batch.delete(b"A" + where)
                self._balance(batch, data.input_id, data.scope_key, _answers_decoder.decode(tally), closed)

    def _balance(self, batch: Batch, input_id: str, scope_key: str, tally: list[int], closed: Closed) -> None:
        recorded, absent, failed = tally
        # Each recorded answer must end as a score or as a failure to score. A model that failed or was absent when it
        # was asked keeps that status. So `failed` of the scores counts both kinds of failure, `absent` one alone.
        sums = (closed.scored, closed.failed, closed.absent)
        right = (
            closed.scored == closed.scored_events
            and closed.scored_events + closed.failed_events + closed.replaced == recorded
            and closed.failed == failed + closed.failed_events
            and closed.absent == absent
        )
        if not right:
            what = (
                f"{input_id} {scope_key}: answered {recorded}, absent {absent}, failed {failed}, but closed as "
                f"scored {sums[0]}, failed {sums[1]}, absent {sums[2]} with {closed.scored_events} scores and "
                f"{closed.failed_events} failures to score; {closed.replaced} were replaced"
            )
            # The time of neither topic: whichever half is folded last, the row is the same.
            self._broken(batch, PREDICTIONS, f"{input_id}/{scope_key}/sums", 0, what)

    # --- money -----------------------------------------------------------------------------------------

    def _fold_money(self, event: AnyEvent, batch: Batch) -> None:
        match event:
            case PeriodClosed(data=data):
                # Periods must join without a gap or an overlap. Otherwise a score would be paid never, or twice.
                until = _number(batch.get(b"P"))
                if until is not None and data.from_ms != until:
                    what = f"the period from {data.from_ms} follows one that ended at {until}"
                    self._broken(batch, PERIODS, event.id, event.at, what)
                batch.put(b"P", encode_row(max(data.until_ms, until or 0)))
                self.count("snapshots", "periods_closed")
            case CheckpointOpened(data=data):
                self._offered(data, event, batch)
            case CheckpointWithheld(data=data):
                self._first(data.checkpoint, event, batch)
                batch.put(b"K" + key(data.checkpoint.checkpoint_id), encode_row("WITHHELD"))
                self.count("checkpoints", "withheld")
            case CheckpointSubmitted(data=data):
                # One transaction pays one checkpoint: a hash that comes again may hide that a payment was never made.
                name = b"H" + key(data.tx_hash)
                before = batch.get(name)
                if before is not None:
                    what = (
                        f"{data.tx_hash} pays {data.checkpoint_id}, and was used for {before.decode()} before"
                    )
                    self._broken(batch, SETTLEMENTS, event.id, event.at, what)
                batch.put(name, data.checkpoint_id.encode())
                self.count("checkpoints", "submitted")
            case _:
                pass

    def _offered(self, data: CheckpointData, event: AnyEvent, batch: Batch) -> None:
        name = b"K" + key(data.checkpoint_id)
        before = batch.get(name)
        if before is None:
            self._first(data, event, batch)
        elif before != encode_row("WITHHELD"):
            self._broken(
                batch, SETTLEMENTS, event.id, event.at, f"{data.checkpoint_id} was offered a second time"
            )
        batch.put(name, encode_row("OFFERED"))
        # Computed again from the event alone: the stage that made the emission is what is checked here.
        retained, _ = retained_frac64(data)
        faults = emission_faults(data.emission, len(data.ranking), FRAC64_ONE - retained)
        if data.payout is not None and frac64_shares(data.payout.pools)[1] != data.payout.retained_frac64:
            faults.append("the pools do not leave what the payout says is retained")
        if emission_sha256(data.emission) != data.emission_sha256:
            faults.append("the emission is not the one that was hashed")
        if faults:
            self._broken(batch, REWARDS, event.id, event.at, f"{data.checkpoint_id}: {'; '.join(faults)}")
        self.count("checkpoints", "offered")

    def _first(self, data: CheckpointData, event: AnyEvent, batch: Batch) -> None:
        end = _number(batch.get(b"L"))
        if data.period_start >= data.period_end or (end is not None and data.period_start < end):
            what = f"{data.checkpoint_id} is of {data.period_start} to {data.period_end}, the one before ended at {end}"
            self._broken(batch, PERIODS, event.id, event.at, what)
        batch.put(b"L", encode_row(max(data.period_end, end or 0)))

    # --- what is found ---------------------------------------------------------------------------------

    def _broken(self, batch: Batch, name: str, the_id: str, at: int, what: str) -> None:
        batch.put(b"B" + key(name, the_id), encode_row((at, what)))

    @property
    def checkpoints_built(self) -> int:
        """Where the newest checkpoint's period ends (ms); -1 before the first."""
        end = _number(self.store.get(b"L"))
        return -1 if end is None else end

    def findings(self) -> list[Finding]:
        """Every invariant of the log, as of what is folded. Cost: what is under way."""
        waiting = [0, 0, 0]
        for _, row in self.store.scan(b"A"):
            waiting = [a + b for a, b in zip(waiting, _answers_decoder.decode(row), strict=True)]
        ahead = 0  # closed by `scores` before `predictions` was folded so far
        for _, row in self.store.scan(b"S"):
            closed = _closed_decoder.decode(row)
            ahead += closed.scored + closed.failed + closed.absent + closed.replaced
        asked = answered = 0
        for projection in self._open.values():
            asked += projection.roster * len(projection.tallies)
            answered += sum(map(sum, projection.tallies.values()))
        opened = self.counted("predictions", "opened")
        counts = {
            "opened": opened,
            "scored": self.counted("scores", "scored"),
            "failed": self.counted("scores", "failed") + self.counted("predictions", "failed"),
            "absent": self.counted("scores", "absent") + self.counted("predictions", "absent"),
            "replaced": self.counted("scores", "replaced"),
            "pending": sum(waiting) + asked,
        }
        # `scores` may be folded ahead of `predictions`: what it closed and `predictions` has not opened is in `ends`
        # and in neither of the other two numbers, so it is subtracted.
        ends = counts["scored"] + counts["failed"] + counts["absent"] + counts["replaced"]
        adds_up = opened == ends - ahead + counts["pending"]
        replaced = f"+ {counts['replaced']} replaced " if counts["replaced"] else ""
        text = (
            f"{opened} opened = {counts['scored']} scored + {counts['failed']} failed + {counts['absent']} absent "
            f"{replaced}+ {counts['pending']} pending, of which {asked - answered} are still asked"
        )
        if not adds_up:
            text = f"does not add up: {text}; {ahead} closed before they were folded"
        return [
            self._finding(
                PREDICTIONS,
                "Every prediction opened is scored, failed, absent or pending",
                text,
                counts,
                adds_up,
            ),
            self._finding(
                REWARDS,
                "Every emission offered sums to exactly 1,000,000,000 and is the one hashed",
                f"{self.counted('checkpoints', 'offered')} emissions offered",
                {"offered": self.counted("checkpoints", "offered")},
            ),
            self._finding(
                PERIODS,
                "Periods follow each other without a hole, and none has two checkpoints",
                f"{self.counted('snapshots', 'periods_closed')} runs of periods closed",
                {"closed": self.counted("snapshots", "periods_closed")},
            ),
            self._finding(
                SETTLEMENTS,
                "No checkpoint is offered twice, no transaction pays two",
                f"{self.counted('checkpoints', 'submitted')} transactions recorded",
                {"submitted": self.counted("checkpoints", "submitted")},
            ),
        ]

    def _finding(
        self,
        name: str,
        about: str,
        text: str,
        counts: dict[str, int],
        adds_up: bool = True,  # noqa: FBT001, FBT002
    ) -> Finding:
        broken = []
        number = 0
        for _, row in self.store.scan(b"B" + key(name)):
            number += 1
            if number <= BROKEN_SHOWN:
                broken.append(_text_decoder.decode(row)[1])
        more = f" and {number - BROKEN_SHOWN} more" if number > BROKEN_SHOWN else ""
        detail = "; ".join([*broken, *([] if adds_up else [text])]) + more
        return Finding(
            name=name,
            about=about,
            ok=adds_up and not number,
            detail=detail or text,
            counts={**counts, "broken": number},
        )


def _number(row: bytes | None) -> int | None:
    return None if row is None else int(msgspec.msgpack.decode(row))
