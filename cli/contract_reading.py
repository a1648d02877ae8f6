"""Reads from the log which contracts were applied, which terms hold, and what time it is."""

from __future__ import annotations

import dataclasses
from typing import Any

from coordinator.cli.letters import read_letters
from coordinator.infra.contracts.from_log import read_applied, read_terms
from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.contract.term_settings import settings_of
from coordinator.streams.contract.terms import in_force
from coordinator.streams.events import ApplyContract, CrunchConfigured, TermSettings
from coordinator.streams.log.counting import TailCounter
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name


@dataclasses.dataclass
class Applied:
    """A command that applies a contract. `refused` is the feed worker's reason where it did not take it up."""

    command: ApplyContract
    refused: str = ""

    @property
    def hash(self) -> str:
        """The contract's."""
        return self.command.data.contract_hash


@dataclasses.dataclass
class LoggedContracts:
    """What the log says of contracts. `clock` is the time of the newest record of `feeds`, -1 without one, in ms."""

    applied: list[Applied]
    terms: list[CrunchConfigured]
    clock: int
    feeds_end: int

    def newest(self) -> ApplyContract:
        """The contract that was applied last and not refused. Raises OperatorError before the first."""
        taken = [applied.command for applied in self.applied if not applied.refused]
        if not taken:
            raise OperatorError(
                "no contract was applied yet: the first start of the node applies the text on disk"
                + (f". One was refused: {self.applied[-1].refused}" if self.applied else "")
            )
        return taken[-1]

    def settings(self) -> TermSettings | None:
        """The settings that were applied last; None in a log of an earlier version whose rules have not come through to
        the checkpoints yet.
        """
        if (told := self.newest().data.settings) is not None:
            return told
        return (
            settings_of(in_force([event.data for event in self.terms]).events[-1].data)
            if self.terms
            else None
        )

    def refused_since(self) -> Applied | None:
        """The last command if the node refused it, else None. What was applied before still holds then."""
        return self.applied[-1] if self.applied and self.applied[-1].refused else None

    def of(self, beginning: str) -> Applied:
        """The newest command that applied the contract of a hash. Raises OperatorError for none or several."""
        contracts = {applied.hash: applied for applied in self.applied if applied.hash.startswith(beginning)}
        if len(contracts) != 1:
            raise OperatorError(
                f"{len(contracts) or 'no'} applied contracts begin with {beginning!r}; "
                "see `coordinator contract list`"
            )
        return next(iter(contracts.values()))


async def read_kept(settings: Settings) -> LoggedContracts:
    """Read the topics, which the caller has checked to be the node's. Raises WorldError, OperatorError (no topics)."""
    where = settings.kafka_bootstrap, settings.crunch_id
    commands, terms, clock = await read_applied(*where), await read_terms(*where), -1
    letters = await read_letters(*where) if commands else []
    applied = [Applied(command, refusal(letters, offset)) for offset, command in commands]
    async with reading(settings.kafka_bootstrap) as consumer:
        start, end = (await offsets(consumer, settings.crunch_id))["feeds"]
        counter = TailCounter("feeds")
        feeds = topic_name(settings.crunch_id, "feeds")
        async for offset, record in read_range(consumer, feeds, max(start, end - 20), end):
            decision = counter.read(offset, record)
            if decision is not None:
                clock = max([clock, *(event.at for event in decision.events)])
    return LoggedContracts(applied, terms, clock, end)


def refusal(letters: list[dict[str, Any]], offset: int) -> str:
    """Why the command at `offset` was refused, by the dead letters; "" where it was not."""
    return next(
        (
            str(letter["reason"])
            for letter in letters
            if letter["origin"] == "commands" and str(letter["position"]).split(" ", 1)[0] == str(offset)
        ),
        "",
    )
