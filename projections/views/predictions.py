"""Every prediction: asked, answered, scored. Folds `predictions`, `scores` and `inputs`, each into rows of
its own.

    I input_id             the input, and its ground truth per horizon            from `inputs`
    O at input_id          a round was opened at `at` (an index by time)          from `predictions`
    Q input_id             (closes_at, scopes) of a round of a question that is open   from `predictions`
    R input_id             whom the round asked                                   from `predictions`
    G input_id scope_key   model -> bytes of an answer that is in the log alone   from `predictions`
    A input_id scope_key   the answers half: the columns of its events, as JSON   from `predictions`
    N                      when the newest round was opened: nothing past it is    from `predictions`
    U                      up to which time inputs are resolved                     from `inputs`
    S input_id scope_key   the scores half: the columns of its event               from `scores`
    X at input_id scope_key   it was scored, or scored again, and is counted at `at`   from `scores`
    C input_id scope_key   model -> the carried state as the round left it         from `scores`
    D model_id holder      the model's carried state now, and what made it         from `scores`
    E holder               the state that all models of a holder share             from `scores`
    V ensemble_id subject scope_key   an ensemble's newest round                   from `scores`

One row per round, scope and half, not per event. Reading joins the halves by the lifecycle's table: SCORED
comes after PENDING whichever was folded first.

No reader is given an answer that could still be copied: while its prediction is PENDING and its horizon has not passed,
`output` is None and `hidden` is set, on every route, since all read through `round`. Answers to a posted question are
hidden in all of its rounds until it is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import ClassVar

import msgspec

from coordinator.projections.folding.projection import Projection, TermsRows, eight, encode_row, key
from coordinator.projections.folding.read_limit import ReadBudget
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.past_cut import Horizon
from coordinator.projections.storage.store import Store
from coordinator.projections.views.ended_rounds import is_round_over
from coordinator.projections.views.ensemble_rows import (
    EnsembleRow,
    keep_ensembles,
    keep_round_states,
    keep_states,
    read_ensemble,
)
from coordinator.projections.views.prediction_rows import (
    InputRow,
    Prediction,
    ScoresRow,
    StateRow,
    input_row,
    join,
    large_of,
    totals_of,
)
from coordinator.streams.events import (
    NO_OUTPUT,
    AnswerEntry,
    AnswersClosed,
    AnyEvent,
    CrunchConfigured,
    EnsemblesScored,
    InputClosed,
    InputReceived,
    InputResolved,
    InputsUntil,
    RosterEntry,
    RoundOpened,
    RoundRescored,
    RoundScored,
    ScopeAnswered,
    ScopeAnsweredData,
    StateCarried,
)
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.lifecycle import NONE

ROUNDS_PER_LOOK = 500
ROUND_LOOKS = 20
OUTPUT_BYTES_KEPT = 64 * 1024
"""A larger answer stays in the log alone."""
_answers_decoder = msgspec.json.Decoder(list[tuple[int, ScopeAnsweredData]])
"""(at, columns) of each event: JSON, for its outputs are."""
_roster_decoder = msgspec.msgpack.Decoder(list[RosterEntry])
_json = msgspec.json.Encoder()
_large_decoder = msgspec.msgpack.Decoder(dict[str, int])
_states_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_state_decoder = msgspec.json.Decoder(StateRow)
_scores_decoder = msgspec.msgpack.Decoder(ScoresRow)
_input_decoder = msgspec.msgpack.Decoder(InputRow)
_scopes_decoder = msgspec.msgpack.Decoder(list[str])


class Predictions(Projection):
    """Rounds, halves and their join."""

    name = "predictions"
    topics = ("predictions", "scores", "inputs")
    schema = 11
    explained = frozenset((b"A", b"I", b"Q", b"R", b"S", b"T", b"X"))
    leaving = (b"O", b"X", b"A", b"G", b"S", b"C", b"R", b"I")  # indexes first; `I` judges the others
    owners: ClassVar[Mapping[bytes, str]] = {
        **dict.fromkeys((b"A", b"G", b"N", b"O", b"Q", b"R"), "predictions"),
        **dict.fromkeys((b"C", b"D", b"E", b"S", b"T", b"V", b"X"), "scores"),
        **dict.fromkeys((b"I", b"U"), "inputs"),
    }

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.terms = TermsRows(store)
        self._newest_round = int.from_bytes(store.get(b"N") or b"", "big")
        self.resolved_until = int.from_bytes(store.get(b"U") or b"", "big")

    def apply(self, decision: Decision, batch: Batch) -> None:
        if decision.topic == "predictions":
            self._fold_answers(decision.events, batch)
        elif decision.topic == "scores":
            self._fold_scores(decision.events, batch)
        else:
            self._fold_inputs(decision.events, batch)

    def _fold_answers(self, events: list[AnyEvent], batch: Batch) -> None:
        for event in events:
            if type(event) is ScopeAnswered:
                self._fold_answered(event, batch)
            elif type(event) is RoundOpened:
                opened = event.data
                batch.put(b"O" + key(event.at, opened.input_id), encode_row(opened.scope_keys))
                batch.put(b"R" + key(opened.input_id), encode_row(opened.roster))
                self.count("predictions", "rounds")
                if opened.closes_at is not None:
                    row = encode_row((opened.closes_at, opened.scope_keys))
                    batch.put(b"Q" + key(opened.input_id), row)
                if event.at > self._newest_round:
                    self._newest_round = event.at
                    batch.put(b"N", eight(event.at))
            elif type(event) is AnswersClosed:
                for suffix in event.data.rounds:
                    batch.delete(b"Q" + key(event.data.input_id + suffix))

    def _fold_answered(self, event: ScopeAnswered, batch: Batch) -> None:
        """Add the event's columns. A model's second answer is illegal: its event is refused and changes nothing."""
        data = event.data
        name = b"A" + key(data.input_id, data.scope_key)
        row = batch.get(name)
        before = _answers_decoder.decode(row) if row else []
        for _, part in before:
            if twice := set(part.models).intersection(data.models):
                place = part.models.index(min(twice))
                missed = [answer.status for answer in part.unanswered if answer.place == place]
                self.refuse(batch, "predictions", event, missed[0] if missed else "PENDING")
                return
        large = {
            str(index): size
            for index, output in zip(data.models, data.outputs, strict=True)
            if (size := memoryview(output).nbytes) > OUTPUT_BYTES_KEPT
        } | {str(data.models[place]): blob.bytes for place, blob in data.blobs}
        if large:
            outputs = [
                NO_OUTPUT if str(index) in large else output
                for index, output in zip(data.models, data.outputs, strict=True)
            ]
            data = msgspec.structs.replace(data, outputs=outputs)
            other = b"G" + key(data.input_id, data.scope_key)
            row = batch.get(other)
            batch.put(other, encode_row((_large_decoder.decode(row) if row else {}) | large))
        batch.put(name, _json.encode([*before, (event.at, data)]))
        for counted, count in zip(("recorded", "absent", "failed"), data.status_counts(), strict=True):
            self.count("predictions", counted, count)

    def _fold_scores(self, events: list[AnyEvent], batch: Batch) -> None:
        for event in events:
            if isinstance(event, (RoundScored, RoundRescored)):
                self._fold_scored(event, batch)
            elif type(event) is StateCarried:
                keep_states(event, batch)
                keep_round_states(event, batch)
            elif type(event) is EnsemblesScored:
                keep_ensembles(event, batch, OUTPUT_BYTES_KEPT)
            elif type(event) is CrunchConfigured:
                self.terms.add(event.data, batch)

    def _fold_scored(self, event: RoundScored | RoundRescored, batch: Batch) -> None:
        half = key(event.data.input_id, event.data.scope_key)
        row = batch.get(b"S" + half)
        before = _scores_decoder.decode(row) if row else None
        if (before is None) is isinstance(event, RoundRescored):
            self.refuse(batch, "scores", event, "SCORED" if before else "PENDING")
            return
        scores = ScoresRow.of(event.at, event.data, before)
        batch.put(b"S" + half, encode_row(scores))
        batch.put(b"X" + eight(scores.resolvable_at) + half, b"")
        counts = scores.counts()
        for counted, count in counts.items():
            self.count("scores", counted, count - (before.counts()[counted] if before else 0))
        if before is None:
            self.count("scores", "rounds_closed")

    def _fold_inputs(self, events: list[AnyEvent], batch: Batch) -> None:
        for event in events:
            if type(event) is InputReceived:
                batch.put(b"I" + key(event.data.input_id), encode_row(input_row(event.data)))
                self.count("inputs", "received")
            elif type(event) is InputResolved:
                data = event.data
                name = b"I" + key(data.input_id)
                row = batch.get(name)
                before = _input_decoder.decode(row) if row else None
                was = before.status if before else NONE
                if before is None or not before.resolve(data):
                    self.refuse(batch, "inputs", event, was)
                    continue
                self.count("inputs", "resolved", was != before.status)
                batch.put(name, encode_row(before))
            elif type(event) is InputClosed:
                name = b"I" + key(event.data.input_id)
                if (row := batch.get(name)) is not None:
                    (asked := _input_decoder.decode(row)).close(event.at)
                    batch.put(name, encode_row(asked))
            elif type(event) is InputsUntil and event.data.until > self.resolved_until:
                self.resolved_until = event.data.until
                batch.put(b"U", event.data.until.to_bytes(8, "big"))

    def is_over(self, row_key: bytes, row: bytes, horizon: Horizon) -> bool:
        return is_round_over(self.store, row_key, row, horizon)

    def totals(self) -> dict[str, int]:
        """Counts as of what was folded: those of `COUNTED`, and of inputs `received, resolved`."""
        return totals_of(self.counted)

    def newest(
        self,
        start: int,
        until: int,
        model_ids: set[str] | None = None,
        status: str | None = None,
        *,
        after: tuple[int, str, str, str] | None = None,
        look: ReadBudget | None = None,
    ) -> Iterator[Prediction]:
        """Predictions of rounds opened in [start, until] (ms), newest round first. Take as many as wanted.

        `after` is the `place` of one of them, or of a whole round (no scope, no model): the list continues after it.
        `look` bounds what is read and not given: a prediction is one look, a round ROUND_LOOKS more.
        """
        before: tuple[int, str, str, str] | None = None
        behind = after is None
        first = key(until + 1) if after is None else key(after[0], after[1])
        first = min(first, key(self._newest_round + 1))
        for name, row in self.store.scan(b"O", start=b"O" + first, backwards=True):
            opened_at = int.from_bytes(name[1:9], "big")
            if opened_at > until:
                continue
            if opened_at < start:
                return
            if look is not None and before is not None and not look.at(*before):
                return
            # The round that a page goes on in costs nothing: a page that it used up would name itself as the next one.
            costs = look if behind else None
            if costs is not None:
                costs.costs(ROUND_LOOKS)
            for prediction in self.of_round(name, row, None if behind else after, model_ids):
                if status in (None, prediction.status):
                    yield prediction
                elif costs is not None:
                    costs.costs(1)
            behind = True
            before = (opened_at, name[9:-1].decode(), "", "")

    def of_round(
        self,
        name: bytes,
        row: bytes,
        after: tuple[int, str, str, str] | None,
        model_ids: set[str] | None,
    ) -> Iterator[Prediction]:
        """All of one round, or those behind `after` where that is of this round."""
        opened_at, input_id = int.from_bytes(name[1:9], "big"), name[9:-1].decode()
        skipping = after is not None and after[:2] == (opened_at, input_id)
        for scope_key in _scopes_decoder.decode(row):
            if skipping and after is not None and scope_key != after[2]:
                continue
            ids_wanted = None if skipping else model_ids  # the row that was last may be of another model
            for prediction in self.round(input_id, scope_key, ids_wanted, opened_at=opened_at):
                if skipping:
                    skipping = after is not None and prediction.model_id != after[3]
                elif model_ids is None or prediction.model_id in model_ids:
                    yield prediction
            skipping = False

    def oldest(
        self, start: int, until: int, model_ids: set[str] | None = None, status: str | None = None
    ) -> Iterator[Prediction]:
        """As `newest`, the oldest round first. Reads on while rounds are committed; a long reading sees the later
        ones too.
        """
        after = b"O" + key(start)
        while names := self._rounds_from(after, min(until, self._newest_round)):
            for name, row in names:
                for prediction in self.of_round(name, row, None, model_ids):
                    if status in (None, prediction.status):
                        yield prediction
            after = names[-1][0] + b"\x00"

    def _rounds_from(self, first: bytes, until: int) -> list[tuple[bytes, bytes]]:
        """Some rounds in order: an iterator kept open would pin what the store wants to compact away."""
        open_rounds = islice(self.store.scan(b"O", start=first), ROUNDS_PER_LOOK)
        return [(name, row) for name, row in open_rounds if int.from_bytes(name[1:9], "big") <= until]

    def input(self, input_id: str) -> InputRow | None:
        """An input with its ground truths, or None."""
        row = self.store.get(b"I" + key(input_id))
        return _input_decoder.decode(row) if row else None

    def round(
        self, input_id: str, scope_key: str, model_ids: set[str] | None = None, *, opened_at: int = 0
    ) -> list[Prediction]:
        """One scope of one round, both halves joined, in order of the roster; of some models where given."""
        row = self.store.get(b"A" + key(input_id, scope_key))
        if row is None:
            return []
        answers = self._answers(input_id, row, model_ids)
        if not answers:
            return []
        # All rounds of a posted question are scored, hidden and resolved as the first one.
        asked_first = ids.question_of(input_id)
        half = self.store.get(b"S" + key(asked_first, scope_key))
        scores = _scores_decoder.decode(half) if half else None
        by_model = scores.by_model(model_ids, input_id[len(asked_first) :]) if scores else {}
        left = self.store.get(b"C" + key(asked_first, scope_key)) if scores else None
        states = _states_decoder.decode(left) if left else {}
        input_row = self.input(asked_first)
        asked = input_row.scopes.get(scope_key) if input_row else None
        horizon, step, resolvable_at = asked or (None, None, None)
        decimals = self.terms.decimals(scores.contract_hash if scores else "")
        made_by = self.terms.by_hash.get(input_row.contract_hash) if input_row else None
        closed = self.is_closed(input_row, scope_key)
        large = large_of(self.store, input_id, scope_key)
        return [
            join(
                at,
                answer,
                by_model.get(answer.model_id),
                input_id=input_id,
                scope_key=scope_key,
                subject=input_row.subject if input_row else "",
                horizon_seconds=horizon,
                step_seconds=step,
                resolvable_at=scores.resolvable_at if scores else resolvable_at,
                decimals=decimals,
                value_field=made_by.value_field if made_by else "value",
                opened_at=opened_at,
                closed=closed,
                state=states.get(answer.model_id),
                output_bytes=large.get(answer.model_id),
            )
            for at, answer in answers
        ]

    def states(self, model_id: str) -> list[tuple[StateRow, msgspec.Raw | None]]:
        """(what the model carries, what it shares with all of that holder) of each of its holders, in their order."""
        rows: list[tuple[StateRow, msgspec.Raw | None]] = []
        for _, row in self.store.scan(b"D" + key(model_id)):
            own = _state_decoder.decode(row)
            shared = self.store.get(b"E" + key(own.holder))
            rows.append((own, None if shared is None else msgspec.Raw(shared)))
        return rows

    def ensembles(self) -> list[EnsembleRow]:
        """The newest round of each ensemble and scope, by id, subject and scope."""
        return [read_ensemble(row) for _, row in self.store.scan(b"V")]

    def _answers(
        self, input_id: str, row: bytes, model_ids: set[str] | None
    ) -> list[tuple[int, AnswerEntry]]:
        """(at, answer) of each model, of some where given, in the order of recording."""
        asked = self.store.get(b"R" + key(input_id))
        roster = _roster_decoder.decode(asked) if asked else []
        return [
            (at, answer)
            for at, data in _answers_decoder.decode(row)
            if not data.models or data.models[-1] < len(roster)  # `checks` reports the others
            for answer in data.entries(roster)
            if model_ids is None or answer.model_id in model_ids
        ]

    def is_closed(self, input_row: InputRow | None, scope_key: str) -> bool:
        """Whether answers are hidden, since they could be copied. An input that is not known yet hides them too."""
        if input_row is None or scope_key not in input_row.scopes:
            return True
        terms = self.terms.by_hash.get(input_row.contract_hash)
        if terms is not None and terms.answers_hidden_until == "recorded":
            return False
        return input_row.takes_answers(scope_key, self.resolved_until)
