"""A node, an operator who settles, and a chain, in one thread: everything real but the broker, and all of it killable.

The real checkpoint stage over a log in memory (claims, zombies and all), the real chain watch over what a reader of
that log sees, the fake chain. A `Crashes` decides at every I/O whether the process that does it dies there: before it
or after it. A killed stage's owner leaves sends behind that arrive late; a killed watcher or operator forgets all but
what it had written down.

Three operators: `tool` records the hash here before it sends; `web` sends and then confirms, as the web app does, and
settles what is PENDING only by a look at the chain that is later than its last attempt could land; `node` is the
settling of the fake chain itself.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

from tests.memory_log import Author, Budget, KilledError, MemoryLog, Owner
from tests.streams.build import HOUR, PUBKEY, T0, configured, period_closed, shelf, snapshot

from coordinator.api.chain_loop import ChainLoop
from coordinator.infra.chain.fake import FakeChain, transaction_hash
from coordinator.projections.views.checkpoints import CheckpointRow
from coordinator.streams import events as ev
from coordinator.streams.checkpoints.settlement import Settlements
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract import CrunchContract
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings

PERIOD = 6 * HOUR
FINAL_SECONDS = 20.0
LANDS_WITHIN = 30.0
"""Seconds after which a sent transaction that has not landed never will."""


class Crashes:
    """Where processes die: a share of all I/O, by a seed. `count` is how often it happened."""

    def __init__(self, rng: random.Random, share: float) -> None:
        self.rng, self.share, self.count = rng, share, 0

    def maybe(self) -> None:
        if self.share and self.rng.random() < self.share:
            self.count += 1
            raise KilledError


def run(coroutine):
    """A coroutine whose awaits never wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


class View:
    """The state of a reader of `checkpoints`, by the real rules of counting and of the lifecycle."""

    def __init__(self, log: MemoryLog) -> None:
        self.log, self.counter, self.settlements = log, Counter("checkpoints"), Settlements()
        self.rows: dict[str, CheckpointRow] = {}
        self.data: dict[str, ev.CheckpointData] = {}
        self.models = SimpleNamespace(get=lambda _: SimpleNamespace(wallet_pubkey=PUBKEY))
        self.version = 0
        self.offered_again: list[tuple[str, int]] = []
        """(checkpoint, time of the look) of each way back to PENDING."""

    def read(self) -> None:
        records = self.log["checkpoints"]
        while self.counter.next_offset < len(records):
            decision = self.counter.read(self.counter.next_offset, records[self.counter.next_offset])
            if decision is None:
                continue
            self.version += 1
            for event in decision.events:
                self.settlements.evolve(event)  # raises for an illegal move
                if isinstance(event, ev.CheckpointOpened | ev.CheckpointWithheld):
                    data = event.data if isinstance(event, ev.CheckpointOpened) else event.data.checkpoint
                    self.data[data.checkpoint_id] = data
                if isinstance(event, ev.CheckpointSubmissionFailed):
                    the_id = event.data.checkpoint_id
                    if len(decision.events) == 1:
                        self.offered_again.append((the_id, event.at))
            for the_id, state in self.settlements.states.items():
                before = self.rows.get(the_id)
                moves = before.moves if before else []
                if not moves or moves[-1][0] != state.status:
                    moves = [*moves, (state.status, 0)]
                self.rows[the_id] = CheckpointRow(
                    checkpoint=self.data[the_id], status=state.status, created_at=state.period_end, changed_at=0,
                    tx_hash=state.tx_hash or None, moves=moves, payees=dict(state.payees),
                )  # fmt: skip

    def get(self, the_id):
        return self.rows.get(the_id)

    def newest(self):
        yield from sorted(self.rows.values(), key=lambda row: -row.checkpoint.period_end)


class World:
    """`step()` does one random thing; `settle()` lets all faults end and everything come to rest."""

    def __init__(self, seed: int, crash_share: float, periods: int = 3) -> None:
        self.rng = random.Random(seed)
        self.crashes = Crashes(self.rng, crash_share)
        self.style = ("tool", "web", "node")[seed % 3]
        self.now = T0 / 1000 + periods * 6 * 3600
        self.log = MemoryLog()
        self.snapshots = Author(self.log, "snapshots")
        self.snapshots.write(configured(effective_from=T0))
        self.periods, self.built = periods, 0
        self.contracts = shelf(CrunchContract(crunch_pubkey=PUBKEY))
        self.owner: Owner | None = None
        self.chain = FakeChain(
            lambda: self.now, final_seconds=FINAL_SECONDS, claimable_seconds=40, paid_seconds=60
        )
        self.in_flight: list[tuple[float, str, str, bool]] = []
        self.view = View(self.log)
        self.watcher: ChainLoop | None = None
        # What the operator has on disk.
        self.signed: dict[str, tuple[str, bool]] = {}
        self.last_attempt = self.now
        self.attempts = 0
        self.faults = True

    # --- the chain, and what crashes around it -------------------------------------------------------

    def land(self) -> None:
        for flight in [transaction for transaction in self.in_flight if transaction[0] <= self.now]:
            self.in_flight.remove(flight)
            _, tx_hash, the_id, fails = flight
            self.accept(tx_hash, the_id, fails)

    def accept(self, tx_hash: str, the_id: str, fails: bool) -> None:
        others = [
            other
            for other, done in self.chain.settlements.items()
            if done.checkpoint_id == the_id and not done.fails and other != tx_hash
        ]
        assert not (others and not fails), f"two settlements of {the_id}: {others[0]} and {tx_hash}"
        self.chain.send(tx_hash, PUBKEY, the_id, fails=fails)

    def send(self, tx_hash: str, the_id: str, fails: bool) -> None:
        """Sends a signed transaction: it lands now, later or never, and the sender may not get the answer."""
        self.crashes.maybe()
        fate = self.rng.random() if self.faults else 1.0
        if fate < 0.15:  # never lands, and nobody says so
            raise TimeoutError
        if fate < 0.3:
            self.in_flight.append((self.now + self.rng.uniform(0, LANDS_WITHIN), tx_hash, the_id, fails))
            raise TimeoutError
        self.accept(tx_hash, the_id, fails)
        if fate < 0.5:
            raise TimeoutError  # accepted, and the answer is lost
        self.crashes.maybe()

    async def status_of(self, hashes):
        self.crashes.maybe()
        if self.faults and self.rng.random() < 0.1:
            raise WorldError("the chain does not answer")
        statuses = await self.chain.status_of(hashes)
        self.crashes.maybe()
        return statuses

    async def checkpoints_of(self, crunch, since_ms):
        self.crashes.maybe()
        if self.faults and self.rng.random() < 0.1:
            raise WorldError("the chain does not answer")
        return await self.chain.checkpoints_of(crunch, since_ms)

    def port(self):
        async def send(command):
            self.crashes.maybe()
            offset = self.log.append("commands", encode_event(command))
            self.crashes.maybe()
            if self.faults and self.rng.random() < 0.05:
                raise WorldError("written, but the answer is lost")
            return offset

        return SimpleNamespace(send=send)

    def command(self, event: ev.Event) -> None:
        run(self.port().send(event))

    def check_offers(self) -> None:
        """Checks that no checkpoint returned to PENDING by a look at a chain that had another settlement of it."""
        for the_id, at in self.view.offered_again:
            under_way = [
                tx_hash
                for tx_hash, done in self.chain.settlements.items()
                if done.checkpoint_id == the_id
                and done.at <= at / 1000
                and not (done.fails and at / 1000 - done.at >= FINAL_SECONDS)
            ]
            assert not under_way, f"{the_id} was offered again while {under_way} was under way"

    # --- processes -----------------------------------------------------------------------------------

    def stage_step(self) -> None:
        """The stage's owner reads one record, or is started. It is killed after some sends."""
        try:
            if self.owner is None:
                sends = self.rng.randint(1, 12) if self.crashes.share else None
                self.owner = Owner(
                    self.log, CheckpointStage("btc-up", self.contracts, settle_rehearsals=True), Budget(sends)
                )
                self.owner.start()
                self.resume(self.owner)
            self.owner.step(self.rng.choice(("snapshots", "commands", "commands")))
        except KilledError:
            assert self.owner is not None
            self.owner.leave_zombie()
            self.owner = None
            self.crashes.count += 1

    def resume(self, owner: Owner) -> None:
        """As the tenure does: everything decided is folded first, from both sources."""
        for source in owner.stage.drivers:
            reader = owner.readers[source]
            while not reader.at_end and reader.counter.next_offset <= owner.stage.upto[source][0]:
                decision = reader.step()
                if decision is not None:
                    owner.stage.absorb(decision)
        owner.pump()

    def watch(self) -> None:
        """One look of the chain watch. Its own state of the node may be behind."""
        if self.watcher is None:
            projector = SimpleNamespace(
                settings=Settings(settle_rehearsals=True), caught_up=lambda: True,
                read=SimpleNamespace(checkpoints=self.view),
            )  # fmt: skip
            chain = SimpleNamespace(
                name="chain", status_of=self.status_of, checkpoints_of=self.checkpoints_of
            )
            settles_on = SimpleNamespace(send=self.node_sends) if self.style == "node" else None
            self.watcher = ChainLoop(
                chain, projector, self.port(), lambda: int(self.now * 1000), settles_on=settles_on
            )
        try:
            run(self.watcher.look())
        except KilledError:
            self.watcher = None

    def node_sends(self, tx_hash, crunch, the_id):
        assert crunch == PUBKEY
        try:
            self.send(tx_hash, the_id, self.faults and self.rng.random() < 0.2)
        except TimeoutError as error:
            raise WorldError("no answer") from error

    def operate(self) -> None:
        """The operator looks at one checkpoint that can be settled, and takes the next step."""
        rows = [row for row in self.view.newest() if row.status != "PAID"]
        if not rows:
            return
        row = self.rng.choice(rows)
        try:
            if row.status == "WITHHELD":
                self.command(self.made(ev.ReleaseCheckpoint, ev.ReleaseCheckpointData, row))
            elif self.style == "tool":
                self.tool(row)
            elif self.style == "web":
                self.web(row)
        except KilledError:
            self.last_attempt = self.now  # a web operator who starts again does not know what was under way
        except (WorldError, TimeoutError):
            pass

    def made(self, kind, data, row, **fields):
        self.attempts += 1
        the_id = row.checkpoint.checkpoint_id
        return kind(
            id=f"op-{self.attempts}", at=int(self.now * 1000), data=data(checkpoint_id=the_id, **fields)
        )

    def sign(self, the_id: str) -> str:
        self.attempts += 1
        tx_hash = transaction_hash(the_id, str(self.attempts), self.style)
        self.signed[tx_hash] = (the_id, self.faults and self.rng.random() < 0.2)
        return tx_hash

    def tool(self, row) -> None:
        """Records the hash here, then sends what is recorded here: whatever dies in between, it is one transaction."""
        the_id = row.checkpoint.checkpoint_id
        if row.status == "PENDING":
            tx_hash = self.sign(the_id)
            self.crashes.maybe()
            self.command(self.made(ev.ConfirmCheckpoint, ev.ConfirmCheckpointData, row, tx_hash=tx_hash))
        elif row.status == "SUBMITTED" and row.tx_hash not in self.chain.settlements:
            self.send(row.tx_hash, the_id, self.signed[row.tx_hash][1])

    def web(self, row) -> None:
        """Sends, then confirms. A new attempt follows only after a look later than the last one could land."""
        the_id = row.checkpoint.checkpoint_id
        if row.status == "SUBMITTED" and not self.signed[row.tx_hash][1] and self.rng.random() < 0.5:
            self.command(
                self.made(
                    ev.AdvanceCheckpoint,
                    ev.AdvanceCheckpointData,
                    row,
                    status="CLAIMABLE",
                    tx_hash=row.tx_hash,
                )
            )
        checked = self.watcher.checked_at if self.watcher is not None else None
        if row.status != "PENDING" or checked is None or checked / 1000 <= self.last_attempt + LANDS_WITHIN:
            return
        tx_hash = self.sign(the_id)
        self.last_attempt = self.now
        self.send(tx_hash, the_id, self.signed[tx_hash][1])
        self.command(self.made(ev.ConfirmCheckpoint, ev.ConfirmCheckpointData, row, tx_hash=tx_hash))

    def close_a_period(self) -> None:
        if self.built >= self.periods:
            return
        start = T0 + self.built * PERIOD
        if self.rng.random() < 0.3:
            try:
                data = ev.WithholdCheckpointData(reason="look first", period_at=start + 1)
                self.command(ev.WithholdCheckpoint(id=f"w{self.built}", at=start, data=data))
            except (KilledError, WorldError):
                pass
        models = [snapshot("a", start, 9, rehearsal=True), snapshot("b", start, 7, rehearsal=True)]
        self.snapshots.write(*models, period_closed(start, start + PERIOD, 2))
        self.built += 1

    # --- time ----------------------------------------------------------------------------------------

    def step(self) -> None:
        """Does one random thing."""
        self.land()
        self.now += self.rng.uniform(0, 4)
        what = self.rng.random()
        if what < 0.35:
            self.stage_step()
        elif what < 0.55:
            self.view.read()
        elif what < 0.72:
            self.watch()
        elif what < 0.95:
            self.operate()
        else:
            self.close_a_period()

    def settle(self, steps_max: int = 3000) -> bool:
        """No more faults and crashes: true when every checkpoint is PAID."""
        self.crashes.share, self.faults = 0.0, False
        if self.owner is not None:
            self.owner.budget.left = None
        while self.built < self.periods:
            self.close_a_period()
        for _ in range(steps_max):
            self.now += 1
            self.step()
            if len(self.view.rows) == self.periods and all(
                row.status == "PAID" for row in self.view.rows.values()
            ):
                return True
        return False
