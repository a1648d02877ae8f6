"""Posted questions for `coordinator rounds`: reads them from their topics, and sends commands about them.

It asks the log, not the API, and folds it with the API's own read model, so both give the same answers. A command is
appended to `commands`; the feed worker decides it, and this waits until its effects are seen or refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coordinator.cli.folded_log import FoldedLog
from coordinator.cli.own_kafka import refuse_undecided
from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.infra.rounds.sending import CommandsOf
from coordinator.projections.views.dead_letters import DeadLetters
from coordinator.projections.views.round_rows import AskedRow
from coordinator.projections.views.round_work import RoundWork, effects_of
from coordinator.projections.views.rounds import Rounds
from coordinator.streams.clock import wall_ms
from coordinator.streams.events import Event
from coordinator.streams.log.errors import NodeRefusedError, OperatorError, WorldError
from coordinator.streams.settings import Settings

DECIDED_SECONDS_MAX = 30.0
POLL_SECONDS = 0.1
REFUSED_SHOWN = 20
JUDGED_POLLS_MAX = 30
"""A truth that was posted before, or whose question is still asked, is not judged again. Then no decision is waited
for.
"""


class RoundsLog(FoldedLog):
    """`async with RoundsLog(settings) as log`: `log.rounds` holds every question as of the last `read()`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, Rounds.name, DeadLetters.name)
        self.rounds, self._letters = self._opened(Rounds), self._opened(DeadLetters)

    def named(self, round_id: str, question_ids: Sequence[str], states: set[str]) -> list[str]:
        """These questions of a round, or all of its questions if none is named. Raises OperatorError."""
        if self.rounds.round(round_id) is None:
            round_ids = [row.round_id for row, _ in zip(self.rounds.rounds(), range(5), strict=False)]
            raise OperatorError(
                f"no round {round_id!r} was posted; the newest are {', '.join(round_ids) or 'none yet'}"
            )
        for name in question_ids:
            if self.rounds.question(round_id, name) is None:
                raise OperatorError(
                    f"no question {name!r} was posted in round {round_id!r}: nothing was done"
                )
        return list(question_ids) or [
            row.question_id for row in self.rounds.questions(round_id) if row.state in states
        ]

    async def decide(self, commands_of: CommandsOf) -> int:
        """Send the commands and wait until all is decided; how many things are so.

        Raises NodeRefusedError with each item that was refused, WorldError when nobody decides in time.
        """
        commands: list[Event] = commands_of(wall_ms())
        work = RoundWork(
            self._letters, {command.id: effects_of(self.rounds, command) for command in commands}
        )
        if not commands:
            return 0
        port = KafkaCommandPort(self.settings.kafka_bootstrap, self.settings.crunch_id)
        await port.start()
        try:
            sent = [await port.send(command) for command in commands]
        finally:
            await port.stop()
        refuse_undecided(self.settings, sent[-1])
        try:
            async with asyncio.timeout(DECIDED_SECONDS_MAX):
                while work.open():
                    await asyncio.sleep(POLL_SECONDS)
                    await self.read()
        except TimeoutError:
            raise WorldError(
                f"{work.open()} of {work.items} are in the log, but no feed worker has decided them in "
                f"{DECIDED_SECONDS_MAX:g} s; it will be decided when one runs, and you can safely run the command again"
            ) from None
        if refused := work.refused():
            lines = [f"{item}: {reason}" for item, reason in refused[:REFUSED_SHOWN]]
            more = [f"and {len(refused) - REFUSED_SHOWN:,} more"] if len(refused) > REFUSED_SHOWN else []
            raise NodeRefusedError(
                f"{len(refused)} of {work.items} refused, and nothing was done: " + "; ".join([*lines, *more])
            )
        return work.items

    async def resolve(self, round_id: str, question_ids: Sequence[str], commands_of: CommandsOf) -> int:
        """As `decide`, for truths. The contract judges them: NodeRefusedError names those that it does not take."""
        before = {name: self._asked(round_id, name) for name in question_ids}
        done = await self.decide(commands_of)
        for _ in range(JUDGED_POLLS_MAX):
            changed = {name: self._asked(round_id, name) for name in before}
            if all(changed[name] != before[name] for name in before):
                break
            await asyncio.sleep(POLL_SECONDS)
            await self.read()
        refused = [
            f"{name}: {row.refused}"
            for name, row in changed.items()
            if row is not None and row.refused and row != before[name]
        ]
        if refused:
            raise NodeRefusedError(
                f"the contract does not take {len(refused)} of {done} truths, and these questions wait for another: "
                + "; ".join(refused[:REFUSED_SHOWN])
            )
        return done

    def _asked(self, round_id: str, question_id: str) -> AskedRow | None:
        row = self.rounds.question(round_id, question_id)
        return None if row is None else row.asked
