"""`coordinator apply PLAN`: the rules of a kept plan, put in force from the next checkpoint period on.

A plan was made on a log at a time. It is applied only if its basis is unchanged: the crunch, the log, the rules in
force, the text of the new ones, the next boundary. Otherwise the command names what has changed.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.contract_reading import LoggedContracts, read_kept
from coordinator.cli.contract_shelf import boundary_of, put_in_force, refuse_faults, with_held_settings
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_json, run, time_text
from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.meaning import contract_hash
from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.positions import offsets, reading
from coordinator.infra.plan_files import PlanFile, read_plan
from coordinator.streams.contract.term_settings import settings_differ
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name


def apply(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A file that `coordinator plan` saved.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the rules of a plan in force from the end of the running checkpoint period on.

    It does so only if the plan's basis is unchanged: the log, the rules in force and their settings, the text of the
    new ones, and the running period. Otherwise it names what has changed and does nothing: plan again.

    Example: [bold]coordinator apply node/plans/4c9912ab34cd-1764400000000.json[/bold]
    """
    file = read_plan(plan)
    settings, node = node_log(data_dir, kafka)
    running = node is None or settings.kafka_bootstrap == node.bootstrap or kafka is not None
    settings, contracts = _held(file, settings)
    refuse_faults(settings)
    shown = boundary_of(contracts)
    if not as_json:
        typer.echo(
            f"{file.made_on.contract_hash[:12]} -> {file.contract_hash[:12]}, {file.contract}, "
            f"from {time_text(shown)} on"
        )
    if not yes:
        if not sys.stdin.isatty():
            raise OperatorError("this is not a terminal, so nobody can answer the question: give --yes")
        typer.confirm("apply it?", abort=True)
        settings, contracts = _held(file, settings)  # the answer may have taken hours
        shown = boundary_of(contracts)
    holds = run(put_in_force(settings, contracts, running=running))
    if as_json:
        print_json(
            {"applied": True, "contract": file.contract_hash, "planned_from": shown, "effective_from": holds}
        )
    else:
        since = (
            "the node takes it up when it starts" if holds is None else f"it holds from {time_text(holds)} on"
        )
        typer.echo(f"contract {file.contract_hash[:12]} is applied and kept; {since}{later(shown, holds)}")


def later(shown: int | None, holds: int | None) -> str:
    """What to say where the rules hold from another time (ms) than was shown; "" where they do not."""
    if shown is None or holds is None or holds == shown:
        return ""
    return f", and not from {time_text(shown)} on: that period ended before the node decided"


def _held(file: PlanFile, settings: Settings) -> tuple[Settings, LoggedContracts]:
    """The settings to apply the plan with, and what the log says of contracts. Raises OperatorError for a plan that no
    longer holds.
    """
    contracts = run(read_kept(settings))
    settings = with_held_settings(settings.changed(contract=file.contract), contracts)
    if moved := [*what_moved(file, settings, contracts), *run(_other_log(file, settings))]:
        raise OperatorError(f"the plan no longer holds: {'; '.join(moved)}. Make it again: coordinator plan")
    return settings, contracts


def what_moved(file: PlanFile, settings: Settings, contracts: LoggedContracts) -> list[str]:
    """In words, what is no longer as it was when the plan was made; all but the log itself."""
    made_on, moved = file.made_on, []
    if file.values_set:
        names = ", ".join(file.values_set)
        moved.append(f"{names} was set for the plan alone (--set): write it into the contract's text")
    if made_on.crunch_id != settings.crunch_id:
        return [*moved, f"it is about crunch {made_on.crunch_id}, and this is {settings.crunch_id}"]
    newest = contracts.newest().data.contract_hash
    if newest != made_on.contract_hash:
        moved.append(f"contract {newest[:12]} was applied since, in place of {made_on.contract_hash[:12]}")
    held = contracts.settings()
    if made_on.settings is None:
        moved.append("it does not say with which settings it was made")
    elif held is not None and (differ := settings_differ(made_on.settings, held)):
        moved.append(f"settings were applied since: {', '.join(differ)}")
    on_disk = contract_hash(load_contract(file.contract))
    if on_disk != file.contract_hash and not file.values_set:
        moved.append(f"the text of {file.contract} is another one now, {on_disk[:12]}")
    now = boundary_of(contracts)
    if (
        now is not None and now != made_on.holds_from_ms
    ):  # None: no rules have come through to the checkpoints yet
        moved.append(
            f"the running period has ended: the rules would have held from {time_text(made_on.holds_from_ms)}, "
            f"and would hold from {time_text(now)} now"
        )
    return moved


async def _other_log(file: PlanFile, settings: Settings) -> list[str]:
    """Is the record that was the newest still there, byte for byte?"""
    at = file.made_on.feeds_offset
    if at < 0 or file.made_on.crunch_id != settings.crunch_id:
        return []
    name = topic_name(settings.crunch_id, "feeds")
    async with reading(settings.kafka_bootstrap) as consumer:
        start, end = (await offsets(consumer, settings.crunch_id))["feeds"]
        if not start <= at < end:
            return [f"topic {name} no longer holds offset {at}"]
        async for _, record in read_range(consumer, name, at, at + 1):
            if hashlib.sha256(record).hexdigest() == file.made_on.feeds_sha256:
                return []
    return [f"topic {name} holds another record at offset {at}"]
