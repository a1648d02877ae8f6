"""The check-up of the challenge and of a running node: contract, models, clock, feed, Kafka, API.

Each does what the node itself would do, for a moment: runs the contract on sample data, starts every model in a
process of its own, connects to the feed, asks Kafka for its topics. Nothing is written anywhere.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from coordinator.api.progress import stands_still
from coordinator.api.times import zulu
from coordinator.cli.checkup import Finding, State
from coordinator.cli.contract import examined
from coordinator.cli.contract_shelf import applied_and_disk
from coordinator.cli.feeds import probe_source
from coordinator.cli.model_check import make_ticks
from coordinator.cli.model_trial import ModelTrial
from coordinator.cli.status import ask_api
from coordinator.cli.up_plan import looked_through
from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.kafka.groups import nobody, stage_members
from coordinator.infra.kafka.probe import why_silent
from coordinator.infra.kafka.topics import list_topics
from coordinator.infra.log.models_state import ModelsLog
from coordinator.infra.log.progress import look_at_ends
from coordinator.infra.models.host.model_folder import models_of, read_models
from coordinator.infra.models.host.process import Limits
from coordinator.infra.ntp import ntp_time_ms
from coordinator.infra.wallets_file import WalletsFile
from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import CoordinatorError, LogError, OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.options import options_from

ROUNDS = 3
IDS_NAMED_MAX = 5
CLOCK_SECONDS_MAX = 5.0
CLOCK_OFF_SECONDS_MAX = 10.0
"""A round's deadline is 10 s: a clock that is off by more moves whole rounds."""
OwnCheck = Callable[[], Awaitable[None]]
"""Sees that the topics are the node's own and whole. Raises CoordinatorError."""


async def stopped(settings: Settings) -> Finding:
    """The finding that the node is not running. Nothing is asked then: another program may listen at its address."""
    how = f"start it: coordinator up --data-dir {settings.data_dir}"
    return Finding("node", State.FAULT, f"the node of {settings.data_dir} is not running", how)


async def contract(settings: Settings) -> list[Finding]:
    """What `coordinator contract check` finds; all well is one line."""
    out: list[Finding] = []
    for path in settings.contract.split(","):
        findings = examined(path.strip(), settings)
        bad = [finding for finding in findings if finding.state != "ok"]
        out += [
            Finding(
                f"contract: {finding.check}",
                State.FAULT if finding.state == "fault" else State.UNKNOWN,
                finding.says,
                "correct it; `coordinator contract check` shows the line",
            )
            for finding in bad
        ]
        if not bad:
            out.append(Finding("contract", State.OK, f"{path.strip()}: {len(findings)} checks, no fault"))
    return out


async def wallets(
    settings: Settings, model_ids_known: Callable[[], Awaitable[Collection[str]]], stranger: State
) -> Finding:
    """Can the operator's file of wallets be paid by, where one is named? `known` gives the ids that models have,
    `stranger` says how bad another id is.
    """
    if not settings.wallets_file:
        return Finding("wallets", State.OK, "WALLETS_FILE is not set: wallets come from the models")
    try:
        wallet_of_model = WalletsFile(settings.wallets_file).lookup()
    except OperatorError as error:
        return Finding(
            "wallets", State.FAULT, str(error), "correct it, then run coordinator checkpoint wallets again"
        )
    says = f"{settings.wallets_file} names the wallets of {len(wallet_of_model)} models"
    try:
        strangers = sorted(wallet_of_model.keys() - set(await model_ids_known()))
    except CoordinatorError as error:
        return Finding("wallets", State.OK, f"{says}; not compared with the models: {error}")
    if strangers:
        named = ", ".join(strangers[:IDS_NAMED_MAX]) + (", .." if len(strangers) > IDS_NAMED_MAX else "")
        return Finding(
            "wallets",
            stranger,
            f"{says}; no model here has the id {named}",
            "is the id spelt correctly?",
        )
    return Finding("wallets", State.OK, says)


async def ids_in_log(settings: Settings, own: OwnCheck) -> Collection[str]:
    """The ids of all models that this node has ever seen. Raises CoordinatorError."""
    await own()
    async with ModelsLog(settings) as log:
        await log.read()
        return log.models.seen.keys()


async def ids_in_folder(folder: Path) -> Collection[str]:
    """The ids of the models that the node will run. Raises OperatorError."""
    return [entry.model_id for entry in read_models(folder, strict=False)]


async def models(settings: Settings, folder: Path) -> list[Finding]:
    """Three rounds with every model of `folder`, as the model host would run them."""
    try:
        entries = models_of(folder)
        challenge = load_contracts(settings.contract, kind=settings.feed_kind).current
        ticks = make_ticks(challenge, None, settings.feed_subjects[0], ROUNDS)
    except OperatorError as error:
        return [Finding("models", State.FAULT, str(error), "see `coordinator models check`")]
    hard = challenge.deadline_seconds + 1
    limits = Limits(call_limit_seconds=hard, setup_limit_seconds=max(hard, 30.0), memory_limit_mb=2048)
    faults = []
    for entry in entries:
        with tempfile.TemporaryDirectory(prefix="coordinator-checkup-") as scratch:
            trial = await ModelTrial(
                entry, challenge, settings.model_base_classname, ticks, limits, Path(scratch)
            ).run(lambda _done, _total: None)
        if trial.reason:
            again = f"coordinator models check {entry.folder}"
            faults.append(Finding(f"model {entry.model_id}", State.FAULT, trial.reason, again))
    text = f"{len(entries)} in {folder}, each answered {ROUNDS} rounds"
    return faults or [Finding("models", State.OK, text)]


async def clock(settings: Settings, wall_ms: Callable[[], int] = wall_ms) -> list[Finding]:
    """Whether this machine's clock agrees with the source's, and with NTP_SERVER where one is named."""
    name = settings.feed_source
    asked: dict[str, Callable[[], Awaitable[int]]] = {}
    if settings.ntp_server:
        asked[f"NTP_SERVER {settings.ntp_server}"] = lambda: ntp_time_ms(settings.ntp_server)
    if not settings.feed_candles_file:
        try:
            source = source_by_name(name, options_from(os.environ, name))
        except OperatorError as error:
            return [Finding("clock", State.UNKNOWN, str(error), "correct FEED_SOURCE and its options")]
        if (ask := getattr(source, "time_ms", None)) is not None:
            asked[name] = ask
    if not asked:
        return [
            Finding(
                "clock", State.OK, "there is nothing to compare it with; set NTP_SERVER=HOST to a time server"
            )
        ]
    return [await _clock_beside(whose, ask, wall_ms) for whose, ask in asked.items()]


async def _clock_beside(whose: str, ask: Callable[[], Awaitable[int]], wall_ms: Callable[[], int]) -> Finding:
    began_ms = wall_ms()
    try:
        async with asyncio.timeout(CLOCK_SECONDS_MAX):
            said_ms = await ask()
    except (CoordinatorError, TimeoutError) as error:
        why = str(error) or f"no answer within {CLOCK_SECONDS_MAX:g} s"
        return Finding(
            "clock", State.UNKNOWN, f"{whose} does not report the time: {why}", "check the network"
        )
    off_seconds = ((began_ms + wall_ms()) // 2 - said_ms) / 1000
    if abs(off_seconds) <= CLOCK_OFF_SECONDS_MAX:
        return Finding("clock", State.OK, f"agrees with {whose} to {max(1, round(abs(off_seconds)))} s")
    how = "set this machine's clock, and keep it set (NTP): time waits for what the sources confirm"
    side = "ahead of" if off_seconds > 0 else "behind"
    return Finding("clock", State.FAULT, f"{abs(off_seconds):.0f} s {side} {whose}", how)


async def feed(settings: Settings, seconds: float) -> list[Finding]:
    """Whether the source delivers each subject now, within `seconds` for each."""
    if settings.feed_candles_file:
        try:
            text = await asyncio.to_thread(looked_through, settings)
        except OperatorError as error:
            return [
                Finding("feed", State.FAULT, str(error), "correct the file, or give another with --candles")
            ]
        return [Finding("feed", State.OK, f"a replay of {'; '.join(text)}")]
    out = []
    for subject in settings.feed_subjects:
        name, source = f"feed {subject}", settings.feed_source
        try:
            probed = await probe_source(
                source, subject, settings.feed_kind, settings.feed_granularity, seconds
            )
        except CoordinatorError as error:
            how = "check the network, FEED_SOURCE and FEED_SUBJECTS; `coordinator feeds list` shows what is known"
            out.append(Finding(name, State.FAULT, f"{source}: {error}", how))
        else:
            out.append(Finding(name, State.OK, f"{source}: {probed['said']}"))
    return out


async def kafka(bootstrap: str, crunch_id: str, *, own: OwnCheck | None) -> list[Finding]:
    """Whether Kafka lets us in, and the crunch's topics are as they must be. Without `own` the node has not begun."""
    try:
        reason = await why_silent(bootstrap)
    except OperatorError as error:
        return [Finding("kafka", State.FAULT, str(error), "correct the KAFKA_... settings")]
    if reason:
        how = "start it, or name the right one in KAFKA_BOOTSTRAP"
        return [Finding("kafka", State.FAULT, f"{bootstrap}: {reason}", how)]
    answers = Finding("kafka", State.OK, f"{bootstrap} answers")
    return [answers, await topics(bootstrap, crunch_id, own)]


async def topics(bootstrap: str, crunch_id: str, own: OwnCheck | None) -> Finding:
    """Whether the crunch's topics are as they must be. Without `own`, missing ones are made when a node starts."""
    try:
        topics_there = await list_topics(bootstrap, crunch_id)
    except CoordinatorError as error:
        return Finding("topics", State.UNKNOWN, str(error), "see `coordinator topics list`")
    wrong = [f"{topic.name}: {'; '.join(topic.mismatches)}" for topic in topics_there if topic.mismatches]
    if wrong:
        return Finding(
            "topics", State.FAULT, wrong[0], "coordinator topics mend, or choose another CRUNCH_ID"
        )
    missing = [topic.name for topic in topics_there if topic.partitions == 0]
    if own is not None:
        try:
            await own()
        except OperatorError as error:
            return Finding("topics", State.FAULT, str(error), "see `coordinator topics list`")
        except CoordinatorError as error:
            return Finding("topics", State.UNKNOWN, str(error), "see `coordinator topics list`")
    text = f"{len(topics_there) - len(missing)} of {crunch_id} are as they must be"
    return Finding(
        "topics", State.OK, text + (f", {len(missing)} will be made at the start" if missing else "")
    )


async def applied(settings: Settings, own: OwnCheck) -> Finding:
    """Which contract the node applies, and whether the text on disk is that contract."""
    try:
        await own()
        return Finding("applied", State.OK, await applied_and_disk(settings))
    except CoordinatorError as error:
        return Finding("applied", State.UNKNOWN, str(error), "see `coordinator contract list`")


async def stages(settings: Settings, own: OwnCheck) -> list[Finding]:
    """Whether every stage decides and the feed goes on. Read from the log, so it works while the API is down."""
    bootstrap, crunch_id = settings.kafka_bootstrap, settings.crunch_id
    try:
        await own()
        progress = await look_at_ends(bootstrap, crunch_id)
        missing = nobody(await stage_members(bootstrap, crunch_id))
    except LogError as error:
        return [Finding("stages", State.FAULT, str(error), "see `coordinator status`")]
    except CoordinatorError as error:
        return [Finding("stages", State.UNKNOWN, str(error), "check Kafka; look at its log")]
    late = [
        Finding(f"stage {stage}", State.FAULT, text, "start the worker; `coordinator up` keeps all of them")
        for stage, text in missing.items()
    ]
    late += [
        Finding(f"{alert.kind} {alert.name}", State.FAULT, alert.text, "the log of its worker has the reason")
        for alert in stands_still(progress, settings, wall_ms())
    ]
    at = zulu(progress.feed.clock) if progress.feed.clock else "nowhere yet"
    return late or [
        Finding("stages", State.OK, f"no stage has anything left to decide; the feed's clock is at {at}")
    ]


async def api(address: str) -> list[Finding]:
    """What the API's health says, and which of the node's own alerts are on."""
    answer = await ask_api(address)
    if answer["ok"]:
        alerts = (answer["health"] or {}).get("alerts", [])
        return [Finding("api", State.OK, f"{address} answers, {len(alerts)} alerts are on")] + [
            Finding(
                f"alert {alert['kind']}",
                State.FAULT,
                f"{alert['name']}: {alert['text']}",
                f"do what the runbook says: {address}/docs/book/runbook/{alert['kind']}/",
            )
            for alert in alerts
        ]
    health = answer["health"] if isinstance(answer["health"], dict) else {}
    reason = health.get("error") or answer["reason"]
    return [Finding("api", State.FAULT, f"{address}: {reason}", "look at the report worker's log")]
