"""`coordinator contract list|show|diff|apply`: the contracts that a node keeps, and the text on disk beside them."""

from __future__ import annotations

import asyncio
import difflib
import os
import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from coordinator.cli.contract_reading import LoggedContracts, read_kept, refusal
from coordinator.cli.lazy_groups import EXIT_DIFFERENT
from coordinator.cli.letters import read_letters
from coordinator.cli.own_kafka import node_log
from coordinator.cli.shared import DataDirOption, JsonOption, KafkaOption, print_json, run, time_text
from coordinator.cli.terminal import Console
from coordinator.infra.contracts.archive import Archive, differences, pack, read_archive
from coordinator.infra.contracts.loading import load_contract
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.contracts.trial import tried
from coordinator.infra.kafka.clients import read_range
from coordinator.infra.log.commands import send_command
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.clock import wall_ms
from coordinator.streams.contract.term_settings import (
    TERM_SETTINGS,
    settings_differ,
    term_settings,
    with_term_settings,
)
from coordinator.streams.contract.terms import TermsInForce, in_force
from coordinator.streams.events import ApplyContract, CrunchConfigured
from coordinator.streams.log.counting import TailCounter
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.log.reasons import printable
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name

DECIDED_SECONDS_MAX = 30.0
POLL_SECONDS = 0.3
EXIT_FAULT = 1
ON_DISK = "disk"
HashArgument = Annotated[str, typer.Argument(metavar="HASH", help="The hash, or its beginning.")]


def list_(kafka: KafkaOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the applied contracts, oldest first: from when each applies, and which one is in force now.

    Example: [bold]coordinator contract list[/bold]
    """
    settings, _ = node_log(data_dir, kafka)
    contracts = run(read_kept(settings))
    rows = _rows(contracts)
    remark = _on_disk(settings, contracts)
    if as_json:
        print_json({"contracts": rows, "on_disk": remark})
        return

    table = Table("hash", "contract", "applied", "holds from", "")
    for row in rows:
        since = "the beginning" if row["effective_from"] == 0 else time_text(row["effective_from"])
        state = row["state"] + (f": {row['refused']}" if row["refused"] else "")
        table.add_row(
            row["hash"][:12], row["path"], time_text(row["applied_at"]), since, Text(printable(state))
        )
    Console().print_rows(table, "no contract was applied yet: the node applies its own when it starts")
    typer.echo(printable(remark))


def show(
    contract_hash: HashArgument,
    source: Annotated[bool, typer.Option("--source", help="Print the files that it runs.")] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one kept contract: the fields that it sets, the code that it reaches, the versions that it was applied with.

    Example: [bold]coordinator contract show 4c99 --source[/bold]
    """
    settings, _ = node_log(data_dir, kafka)
    applied = run(read_kept(settings)).of(contract_hash)
    command = applied.command
    archive = _opened(command)
    files = {name: content.decode(errors="replace") for name, content in sorted(archive.files.items())}
    meaning = archive.meaning
    if as_json:
        document = {
            "hash": command.data.contract_hash,
            "path": archive.path,
            "applied_at": command.at,
            "refused": applied.refused,
        }
        print_json(document | msgspec.to_builtins(meaning) | {"files": files if source else list(files)})
        return
    typer.echo(f"contract {command.data.contract_hash}\n  {archive.path}, applied {time_text(command.at)}")
    if applied.refused:
        typer.echo(printable(f"  refused by the node, so it never held: {applied.refused}"))
    for name, value in meaning.fields.items():
        typer.echo(printable(f"  {name} = {msgspec.json.encode(value).decode()}"))
    for title, names in (
        ("reaches", list(meaning.code)),
        ("files", list(files)),
        ("installed", [f"{name} {version}" for name, version in meaning.installed.items()]),
        ("of coordinator-node", [f"{name} {version}" for name, version in meaning.ours.items()]),
    ):
        typer.echo(printable(f"  {title}: {', '.join(names) or 'nothing'}"))
    for name, text in files.items() if source else ():
        typer.echo(printable(f"\n--- {name}\n{text}", lines=True))


def diff(
    old: Annotated[
        str | None, typer.Argument(metavar="[OLD]", help="A hash. Default: the one applied last.")
    ] = None,
    new: Annotated[
        str | None, typer.Argument(metavar="[NEW]", help="A hash, or `disk`, the default.")
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how two contracts differ: first in meaning, then in text. Exit code 1 if the meaning differs.

    Example: [bold]coordinator contract diff[/bold], [bold]coordinator contract diff 4c99 a010[/bold]
    """
    settings, _ = node_log(data_dir, kafka)
    contracts = run(read_kept(settings))
    before = _opened(contracts.newest() if old is None else contracts.of(old).command)
    from_disk = new in (None, ON_DISK)
    after = _disk(with_path(settings, contracts)) if from_disk else _opened(contracts.of(str(new)).command)
    differences_said = _differences(before, after)
    if as_json:
        print_json({"old": before.meaning.hash, "new": after.meaning.hash, "differences": differences_said})
    else:
        typer.echo(
            f"{before.meaning.hash[:12]} -> {after.meaning.hash[:12]}: "
            f"{'another' if differences_said else 'the same'} contract"
        )
        for difference in differences_said:
            typer.echo(printable(f"  {difference}"))
        for name in sorted(before.files.keys() | after.files.keys()):
            a, b = (
                side.files.get(name, b"").decode(errors="replace").splitlines() for side in (before, after)
            )
            for line in difflib.unified_diff(a, b, f"kept/{name}", f"new/{name}", lineterm=""):
                typer.echo(printable(line))
    raise typer.Exit(EXIT_DIFFERENT if differences_said else 0)


def apply(
    contract: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:NAME]", help="Default: CONTRACT, else the path of the one applied last."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the contract on disk in force from the next checkpoint period on.

    The command checks the contract, shows what changes, and asks. A text that is not applied does nothing, however
    often the node starts. A question that was asked before is scored by the contract under which it was asked. To
    take a change back, apply the old text again. On a stopped node it is applied at the next start.

    Settings that are part of the rules are applied with it where the environment or `.env` sets them: FEED_SOURCE,
    FEED_KIND, FEED_GRANULARITY and FEED_SUBJECTS hold at once, SNAPSHOT_INTERVAL_SECONDS, CHECKPOINT_INTERVAL_SECONDS
    and CHECKPOINT_OFFSET_SECONDS from the next period on. What is not set stays as it is.

    Examples: [bold]coordinator contract apply[/bold], [bold]coordinator contract apply --yes --json[/bold],
    [bold]CHECKPOINT_INTERVAL_SECONDS=86400 coordinator contract apply[/bold]
    """
    settings, node = node_log(data_dir, kafka)
    started = node is not None and settings.kafka_bootstrap != node.bootstrap and kafka is None
    contracts = run(read_kept(settings))
    before = _opened(contracts.newest())
    settings, settings_said = with_wanted_settings(with_path(settings, contracts, contract), contracts)
    after = _disk(settings)
    if before.meaning.hash == after.meaning.hash and not settings_said:
        _end(
            as_json,
            {"applied": False, "contract": after.meaning.hash},
            "nothing to apply: it is the one applied last",
        )
    refuse_faults(settings)
    differences_said = [*_differences(before, after), *settings_said]
    from_ms = boundary_of(contracts)
    if not as_json:
        typer.echo(f"{before.meaning.hash[:12]} -> {after.meaning.hash[:12]}, {settings.contract}")
        for line in differences_said:
            typer.echo(printable(f"  {line}"))
        typer.echo(f"applies from the end of the running checkpoint period:  {time_text(from_ms)}")
    if not yes:
        if not sys.stdin.isatty():
            raise OperatorError("this is not a terminal, so nobody can answer the question: give --yes")
        typer.confirm("apply it?", abort=True)
    holds = run(put_in_force(settings, contracts, running=not started))
    answer = {
        "applied": True,
        "contract": after.meaning.hash,
        "effective_from": holds,
        "differences": differences_said,
    }
    since = "the node takes it up when it starts" if holds is None else f"it holds from {time_text(holds)} on"
    _end(as_json, answer, f"contract {after.meaning.hash[:12]} is applied and kept; {since}")


def _end(as_json: bool, answer: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(answer)
    else:
        typer.echo(text)
    raise typer.Exit


# --- reading -----------------------------------------------------------------------------------------------------


def _in_force(contracts: LoggedContracts) -> TermsInForce:
    return in_force([event.data for event in contracts.terms])


def boundary_of(contracts: LoggedContracts) -> int | None:
    """Where the running checkpoint period ends, in ms; None before the first record."""
    terms = _in_force(contracts)
    if not terms or contracts.clock < 0:
        return None
    return terms.boundary_after(contracts.clock)


def _rows(contracts: LoggedContracts) -> list[dict[str, Any]]:
    terms = _in_force(contracts)
    now = terms.at(contracts.clock).contract_hash if terms else None
    rows = []
    for contract in {applied.hash: applied for applied in contracts.applied}.values():
        data = contract.command.data
        since = [
            event.data.effective_from
            for event in contracts.terms
            if event.data.contract_hash == data.contract_hash
        ]
        later = bool(since) and since[-1] > contracts.clock
        if data.contract_hash == now:
            state = "in force"
        elif since and all(terms.at(begun).contract_hash != data.contract_hash for begun in since):
            state = "replaced"  # by a contract that was applied before this one held
        elif since:
            state = "later" if later else "before"
        else:
            state = "refused" if contract.refused else "waits"
        rows.append(
            {
                "hash": data.contract_hash,
                "path": data.path,
                "applied_at": contract.command.at,
                "effective_from": since[-1] if since else None,
                "state": state,
                "refused": contract.refused or None,
            }
        )
    return rows


def _opened(command: ApplyContract) -> Archive:
    return read_archive(bytes(command.data.archive))


def with_path(settings: Settings, contracts: LoggedContracts, path: str | None = None) -> Settings:
    """The settings with the path of a contract: the one named, else CONTRACT, else that of the one applied last."""
    chosen = path or (
        settings.contract.split(",")[-1].strip()
        if os.environ.get("CONTRACT")
        else contracts.newest().data.path
    )
    return settings.changed(contract=chosen)


def with_wanted_settings(settings: Settings, contracts: LoggedContracts) -> tuple[Settings, list[str]]:
    """(the settings with those of the newest rules, where the environment does not set others; what differs, in words).

    Only what the environment sets is wanted: a default of this command must not change the rules.
    """
    held = contracts.settings()
    if held is None:
        return settings, []
    wanted = {name for name in TERM_SETTINGS if os.environ.get(name.upper())}
    if "feed_source" in wanted:
        wanted |= {"feed_kind", "feed_granularity"}  # what is not said of them follows from the source
    own = term_settings(settings)
    told = msgspec.structs.replace(held, **{name: getattr(own, name) for name in wanted})
    return with_term_settings(settings, told), settings_differ(held, told)


def _disk(settings: Settings) -> Archive:
    return read_archive(pack(load_contract(settings.contract), settings.contract))


def _differences(before: Archive, after: Archive) -> list[str]:
    return [] if before.meaning.hash == after.meaning.hash else differences(before.meaning, after.meaning)


def with_held_settings(settings: Settings, contracts: LoggedContracts) -> Settings:
    """The settings with those of the newest rules, as far as they are part of the rules."""
    held = contracts.settings()
    return settings if held is None else with_term_settings(settings, held)


async def applied_and_disk(settings: Settings) -> str:
    """One line: the contract applied last, what was refused since, and whether the text on disk is the applied one.

    Raises CoordinatorError.
    """
    contracts = await read_kept(settings)
    return f"contract {contracts.newest().data.contract_hash[:12]} was applied last; {_on_disk(settings, contracts)}"


def _on_disk(settings: Settings, contracts: LoggedContracts) -> str:
    refused = contracts.refused_since()
    since = f"; {refused.hash[:12]} was refused: {refused.refused}" if refused is not None else ""
    try:
        if differ := with_wanted_settings(settings, contracts)[1]:
            since += f"; settings that `coordinator contract apply` would apply: {'; '.join(differ)}"
        hash_on_disk = _disk(with_path(settings, contracts)).meaning.hash
    except OperatorError as error:
        return f"the text on disk cannot be applied: {error}{since}"
    if hash_on_disk == contracts.newest().data.contract_hash:
        return f"the text on disk is the contract applied last{since}"
    if refused is not None and hash_on_disk == refused.hash:
        return (
            f"the text on disk is the contract {hash_on_disk[:12]}, which the node refused: {refused.refused}"
        )
    return f"the text on disk is another contract, {hash_on_disk[:12]}: `coordinator contract apply` applies it{since}"


# --- applying ----------------------------------------------------------------------------------------------------


def refuse_faults(settings: Settings) -> None:
    """Try the text on disk as `contract check` does; print each fault. Raises OperatorError where there is one."""
    faults = [finding for finding in tried(settings.contract, settings) if finding.state == "fault"]
    if faults:
        for fault in faults:
            typer.echo(printable(f"FAULT {fault.check}: {fault.says}"), err=True)
        raise OperatorError(f"{settings.contract} has {len(faults)} faults; it is not applied")


async def put_in_force(settings: Settings, contracts: LoggedContracts, *, running: bool) -> int | None:
    """Send the command that applies the text on disk. Gives from when on (ms) it holds, None where no feed worker runs
    to decide that. Raises OperatorError when the node refuses it, WorldError.
    """
    node_contracts = NodeContracts(settings)
    told = None if contracts.settings() is None else term_settings(settings)
    command = node_contracts.apply_proposed(wall_ms(), told)
    offset = await send_command(settings.kafka_bootstrap, settings.crunch_id, command)
    if not running:
        return None
    try:
        async with asyncio.timeout(DECIDED_SECONDS_MAX):
            while True:
                configured = await _decided(settings, contracts.feeds_end, command.data.contract_hash)
                if configured is not None:
                    return configured.data.effective_from
                await _refuse_dead(settings, offset)
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise WorldError(
            f"the command is in the log (offset {offset}), but no feed worker has decided it in "
            f"{DECIDED_SECONDS_MAX:g} s; it will be decided when one runs"
        ) from None


async def _decided(settings: Settings, start: int, contract_hash: str) -> CrunchConfigured | None:
    counter = TailCounter("feeds")
    async with reading(settings.kafka_bootstrap) as consumer:
        _, end = (await offsets(consumer, settings.crunch_id))["feeds"]
        async for offset, record in read_range(consumer, topic_name(settings.crunch_id, "feeds"), start, end):
            decision = counter.read(offset, record)
            told = [
                event
                for event in ([] if decision is None else decision.events)
                if isinstance(event, CrunchConfigured) and event.data.contract_hash == contract_hash
            ]
            if told:
                return told[-1]  # before it stands what holds at once: another feed
    return None


async def _refuse_dead(settings: Settings, offset: int) -> None:
    """Raises OperatorError when the feed worker set the command aside, with its reason."""
    reason = refusal(await read_letters(settings.kafka_bootstrap, settings.crunch_id), offset)
    if reason:
        raise OperatorError(f"the node refused the contract: {reason}")
