"""A shadow: a plan that follows the live log. It decides under other rules beside the live ones, and is never paid.

Reads the counted decisions of `feeds`, `inputs` and `predictions`, and runs an engine under the other rules over them,
as `rerun.py` does over a whole log. The live side is what `snapshots` and `checkpoints` say. Emits nothing.

On a live log the feed is ahead of the answers. So the engine is given a decision of the feed only once `inputs` has
decided it, and `predictions` holds the answers to every input up to it. The other rules must ask the models the same:
the first difference raises OperatorError, since nobody knows the answer to another question.

`keep` gives the shadow's state as bytes, to resume from. They are a cache, as an engine's state is.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from itertools import takewhile

import msgspec

from coordinator.streams.checkpoints.ranking import rank_snapshots
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.terms import in_force
from coordinator.streams.engine.asked_inputs import question
from coordinator.streams.engine.engine import Engine, Output, Recorded, StaleStateError
from coordinator.streams.engine.models import RecordedAnswers, RecordedRounds
from coordinator.streams.engine.plan import ModelStanding, standings
from coordinator.streams.engine.rerun import RetoldFeed, SavedRun
from coordinator.streams.events import (
    AnyEvent,
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    CrunchConfigured,
    InputReceived,
    SnapshotTaken,
    SnapshotTakenData,
    Terms,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, Position
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.stage import NOTHING_DECIDED, Draft
from coordinator.streams.ports import BlobReader

TOPICS_READ = ("feeds", "inputs", "predictions", "snapshots", "checkpoints")
AHEAD_MAX = 2_000
"""How many decisions of a topic may wait for another topic. No more are read, so that memory stays flat."""
NO_CHECKPOINT = "no checkpoint"
PERIODS_MAX = 30
"""The newest checkpoint periods that each side remembers."""
CHECKPOINTS_MAX = 3
"""The number of periods whose whole checkpoint it remembers: a checkpoint of 20,000 models takes some megabytes."""


class ShadowRules(msgspec.Struct, frozen=True, kw_only=True):
    """The other rules: `terms` of a contract, in place of all terms that hold from `from_ms` on."""

    crunch_id: str
    terms: Terms
    from_ms: int

    @property
    def key(self) -> str:
        """A hash of these rules. A state that was kept under other rules is refused by it."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class PeriodDecided(msgspec.Struct, frozen=True):
    """The checkpoint of [start, end) in ms on one side. `note` says why it is withheld; "" if it is not."""

    start: int
    end: int
    models: dict[str, ModelStanding]
    note: str


class CheckpointDecided(msgspec.Struct, frozen=True):
    """One side's checkpoint as it was decided at a time (ms). `note` is that of the period."""

    at: int
    data: CheckpointData
    note: str


class SideDecisions(msgspec.Struct, kw_only=True):
    """What one side decided last. `terms` are its newest recorded terms; `snapshots` are its models' snapshots of the
    period that ends at `board_end` (ms).
    """

    terms: list[Terms]
    """No default here or in `snapshots`: so a file of an earlier version is refused, and not read without its board."""
    snapshots: dict[str, SnapshotTakenData]
    board_end: int | None = None
    periods: list[PeriodDecided] = []
    """Oldest first, at most PERIODS_MAX."""
    checkpoints: list[CheckpointDecided] = []
    """The latest of these periods, oldest first, at most CHECKPOINTS_MAX. Each has the counts of every model."""

    def take(self, events: Iterable[AnyEvent], from_ms: int) -> None:
        """Take one decision of `snapshots` or `checkpoints`. Periods that begin before `from_ms` are left out."""
        for event in events:
            match event:
                case CrunchConfigured(data=terms) if terms not in self.terms:
                    self.terms = [*self.terms, terms][-PERIODS_MAX:]
                case SnapshotTaken(data=data) if data.period_start >= from_ms:
                    if data.period_end != self.board_end:
                        self.snapshots, self.board_end = {}, data.period_end
                    self.snapshots[data.model_id] = data
                case CheckpointOpened(data=data) if data.period_start >= from_ms:
                    self._decided(event.at, data, "")
                case CheckpointWithheld(data=data) if data.checkpoint.period_start >= from_ms:
                    self._decided(event.at, data.checkpoint, f"withheld: {data.reason}")
                case _:
                    pass

    def _decided(self, at: int, data: CheckpointData, note: str) -> None:
        newer = [
            checkpoint
            for checkpoint in self.checkpoints
            if checkpoint.data.checkpoint_id != data.checkpoint_id
        ]
        newer.append(CheckpointDecided(at, data, note))
        self.checkpoints = sorted(newer, key=lambda checkpoint: checkpoint.data.period_start)[
            -CHECKPOINTS_MAX:
        ]
        models, note = standings((data, note))
        decided = PeriodDecided(data.period_start, data.period_end, models, note)
        others = [
            period for period in self.periods if (period.start, period.end) != (decided.start, decided.end)
        ]
        self.periods = sorted([*others, decided], key=lambda period: period.start)[-PERIODS_MAX:]

    def board_terms(self) -> Terms | None:
        """The terms that the board is ranked by: those of its snapshot period. None while there is no board."""
        if self.board_end is None or not self.terms:
            return None
        return in_force(self.terms).at(self.board_end - 1)

    def board(self) -> dict[str, ModelStanding]:
        """model_id -> its place on the board, best first; the models without a rank come last."""
        terms = self.board_terms()
        if terms is None:
            return {}
        ranked, unranked = rank_snapshots(self.snapshots.values(), terms)
        board = {model_id: ModelStanding(place, units) for place, model_id, units in ranked}
        return board | {model_id: ModelStanding() for model_id in unranked}


class AskedInput(msgspec.Struct, frozen=True):
    """A recorded input that the engine has not decided yet: a hash of what it asks, and up to where in `feeds` its
    decision had read.
    """

    question: str
    feed: Position


class SavedShadow(msgspec.Struct, frozen=True):
    """A shadow's whole state. `needs` is topic -> where to read on; `rounds` is JSON."""

    key: str
    engine: bytes
    needs: dict[str, Need]
    told: bool
    clock: int
    rounds: bytes
    asked: dict[str, AskedInput]
    covered: Position
    new: SideDecisions
    live: SideDecisions
    begun: int = 0
    """The offset in `feeds` at which a plan's run was taken up: inputs that were decided before it are decided."""


def begun_with(rules: ShadowRules, run: SavedRun) -> bytes:
    """The state of a shadow before its rules begin, from a run of the recorded rules up to then."""
    return msgspec.msgpack.encode(
        SavedShadow(
            key=rules.key,
            engine=run.engine,
            needs=dict.fromkeys(TOPICS_READ, Need()) | {"feeds": run.feeds, "predictions": run.predictions},
            told=False,
            clock=run.clock,
            rounds=run.rounds,
            asked={},
            covered=NOTHING_DECIDED,
            new=SideDecisions(terms=run.told, snapshots={}),
            live=_empty_side(),
            begun=run.feeds.offset,
        )
    )


class Shadow:
    """Call `take` with each decision of each topic, in order; then `step` until it gives False. `new` and `live` are
    the two sides, and `clock` is the event time (ms) up to which the other rules have decided.

    Raises StaleStateError for a state that was kept by another version or under other rules.
    """

    def __init__(
        self,
        rules: ShadowRules,
        contracts: Contracts,
        state_bytes: bytes | None = None,
        blobs: BlobReader | None = None,
    ) -> None:
        self.rules = rules
        state = None if state_bytes is None else _read(state_bytes, rules)
        self.new, self.live = (_empty_side(), _empty_side()) if state is None else (state.new, state.live)
        self.clock = 0 if state is None else state.clock
        self.needs = dict.fromkeys(TOPICS_READ, Need()) if state is None else state.needs
        """Topic -> where to read on after a restart."""
        self._asked = {} if state is None else state.asked
        self._covered = NOTHING_DECIDED if state is None else state.covered
        self._begun = 0 if state is None else state.begun
        self._feed: deque[Decision] = deque()
        self._retold = RetoldFeed(rules.terms, rules.from_ms, told=state is not None and state.told)
        rounds = None if state is None else msgspec.json.decode(state.rounds, type=RecordedRounds)
        self._answers = RecordedAnswers((), rounds)
        self._engine = Engine(
            contracts,
            self._answers,
            crunch_id=rules.crunch_id,
            output=Output(
                {
                    "inputs": lambda decision: self._compare(decision.events),
                    "snapshots": lambda decision: self.new.take(decision.events, rules.from_ms),
                    "checkpoints": lambda decision: self.new.take(decision.events, rules.from_ms),
                },
                keeps_log=False,
            ),
            recorded=Recorded(blobs=blobs),
            state_bytes=None if state is None else state.engine,
        )

    def wants(self, topic: str) -> bool:
        """Whether more of a topic may be read. It may not while much of it waits for other topics."""
        match topic:
            case "feeds":
                return len(self._feed) < AHEAD_MAX
            case "inputs":
                return len(self._asked) < AHEAD_MAX
            case "predictions":
                return len(self._answers.rounds.answered) < AHEAD_MAX
            case _:
                return True

    def take(self, decision: Decision) -> None:
        """Take the next counted decision of one of TOPICS_READ."""
        match decision.topic:
            case "feeds":
                self._feed.append(decision)
                return  # its need moves in `step` alone, so after a restart it is read again
            case "inputs":
                feed = decision.upto.get("feeds", self._covered)
                for event in decision.events:
                    if isinstance(event, InputReceived) and feed[0] >= self._begun:
                        self._asked[event.data.input_id] = AskedInput(question(event.data), feed)
                self._covered = max(self._covered, feed)
            case "predictions":
                self._answers.rounds.take(decision)
            case _:
                self.live.take(decision.events, self.rules.from_ms)
        self.needs[decision.topic] = decision.after()

    def step(self) -> bool:
        """Give the engine the next decision of the feed, if it is ready. Says whether it was. Raises OperatorError if
        the other rules ask the models something else than they were asked. Raises what a stage raises.
        """
        if not self._feed:
            return False
        decision = self._feed[0]
        if not self._is_ready((decision.offset, len(decision.events) - 1)):
            return False
        self._feed.popleft()
        if events := self._retold.events(decision):
            self._engine.tell(Draft(events, {}, {}))
        self.clock = max([self.clock, *(event.at for event in decision.events)])
        self.needs["feeds"] = decision.after()
        # The engine has taken each input that it decided out of `_asked`. If one of this decision or an earlier one is
        # still there, the other rules did not ask it.
        missed = next(iter(self._asked.items()), None)
        if missed is not None and missed[1].feed[0] <= decision.offset:
            raise _asked_otherwise(missed[0], "would not have been asked")
        return True

    def _is_ready(self, until: Position) -> bool:
        """Whether the inputs decided of the feed up to this position, and all answers to them, have been read."""
        # `_asked` is in the order of the log, so the inputs up to the position come first.
        inputs_due = takewhile(lambda item: item[1].feed[0] <= until[0], self._asked.items())
        return until <= self._covered and all(
            input_id in self._answers.rounds.answered for input_id, _ in inputs_due
        )

    def _compare(self, events: Iterable[AnyEvent]) -> None:
        for event in events:
            if isinstance(event, InputReceived):
                asked = self._asked.pop(event.data.input_id, None)
                if asked is None or asked.question != question(event.data):
                    raise _asked_otherwise(event.data.input_id, "was not asked so")

    def keep(self) -> bytes:
        """The state as bytes, to resume from. Raises LogError while something waits to be decided."""
        return msgspec.msgpack.encode(
            SavedShadow(
                key=self.rules.key,
                engine=self._engine.keep(),
                needs=self.needs,
                told=self._retold.told,
                clock=self.clock,
                rounds=msgspec.json.encode(self._answers.rounds),
                asked=self._asked,
                covered=self._covered,
                new=self.new,
                live=self.live,
                begun=self._begun,
            )
        )


def _empty_side() -> SideDecisions:
    return SideDecisions(terms=[], snapshots={})


def _read(state_bytes: bytes, rules: ShadowRules) -> SavedShadow:
    try:
        state = msgspec.msgpack.decode(state_bytes, type=SavedShadow)
    except msgspec.DecodeError as error:
        raise StaleStateError(f"what the shadow kept cannot be read: {error}") from error
    if state.key != rules.key:
        raise StaleStateError("what the shadow kept is of other rules")
    return state


def _asked_otherwise(input_id: str, how: str) -> OperatorError:
    return OperatorError(
        f"under these rules the models would have been asked something else: input {input_id} {how}. Their "
        "answers cannot be known: choose rules that ask the same as the live ones"
    )
