"""`coordinator verify-e2e`: a running node followed from outside, from its health to a replay that equals it.

Reads the API and the topics, as anybody may; writes nothing. Steps come in the order of the flow; the first that does
not hold ends it with its name and the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from coordinator.cli.own_kafka import running_log
from coordinator.cli.shared import (
    DataDirOption,
    JsonOption,
    KafkaOption,
    parse_address,
    print_json,
    run,
    time_text,
)
from coordinator.cli.terminal import Console
from coordinator.cli.verify_log import found_in, read_chain, topics_of
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.projections.folding.replay import replay
from coordinator.streams.audit.checkpoint import check_log
from coordinator.streams.audit.facts import AuditBlobs, ChainBrokenError
from coordinator.streams.durations import YEAR_SECONDS
from coordinator.streams.events import CheckpointData
from coordinator.streams.log.errors import CoordinatorError
from coordinator.streams.log.recorded_state import WrongStateError
from coordinator.streams.net.outbound import http_client
from coordinator.streams.settings import Settings

EXIT_BROKEN = 1
POLL_SECONDS = 1.0
API_SECONDS_MAX = 10.0
NAMES_SHOWN = 8
OK = 200
STEPS = (
    *("health", "models", "feed", "input", "predictions", "scores", "snapshots", "checkpoint", "emission"),
    *("api", "replay"),
)
OnCheck = Callable[[], Awaitable[None]]
OnWait = Callable[[str, str], None]
"""(step, what it waits for)"""


def verify_e2e(
    timeout: Annotated[
        float,
        typer.Option(
            min=1,
            max=YEAR_SECONDS,
            help="Seconds to wait for a node that has no checkpoint yet. Computing again has no time limit.",
        ),
    ] = 300.0,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="ID", help="Which one. Default: the last.", show_default=False),
    ] = None,
    kafka: KafkaOption = None,
    data_dir: DataDirOption = None,
    api: Annotated[
        str | None,
        typer.Option(help="Address of the report API. Default: that of the node.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a running node from outside and compute its figures again; exit code 1 names the step that does not hold.

    health, models, feed, input, predictions of every model, scores (again from the feed and the contract), snapshots,
    checkpoint, emission (exactly 1,000,000,000, as the ranking gives it), what the API offers for payment, and a
    replay whose state_hash equals the live one. It checks the last checkpoint, and waits for the first one if there
    is none yet. A withheld checkpoint has no offer, so for it everything but the offer is checked.

    Examples: [bold]coordinator verify-e2e[/bold], [bold]make verify-e2e ARGS='--timeout 900'[/bold]
    """
    named = parse_address(api) if api is not None else None
    settings, node, own = running_log(data_dir, kafka)
    address = named or (node.api if node is not None else f"http://{settings.api_host}:{settings.api_port}")
    # Lines for people go to stderr with --json, so that stdout holds the result alone.
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    result = run(_verify(settings, own, address.rstrip("/"), timeout, console, checkpoint))
    if as_json:
        print_json(result)
    raise typer.Exit(0 if result["ok"] else EXIT_BROKEN)


async def _verify(
    settings: Settings,
    own: OnCheck,
    address: str,
    timeout_seconds: float,
    console: Any,
    checkpoint_id: str | None,
) -> dict[str, Any]:
    """Walk the steps, the waiting under one time limit; gives `{ok, steps, failed_step, reason, seconds}`."""
    began = monotonic()
    done: list[dict[str, str]] = []
    failed, reason = "", ""
    waits_at, waits_for = STEPS[0], ""

    def waiting(step: str, text: str) -> None:
        nonlocal waits_at, waits_for
        waits_at, waits_for = step, text
        status.update(f"[{STEPS.index(step) + 1}/{len(STEPS)}] {step}: {text} ({monotonic() - began:.0f} s)")

    with console.status("looking") as status:
        try:
            async for step, result in _walk(settings, own, address, waiting, timeout_seconds, checkpoint_id):
                done.append({"step": step, "said": result})
                console.print(Text("  ok ", style="green"), Text(f"{step:<12}"), Text(result))
        except ChainBrokenError as error:
            failed, reason = error.step, error.reason
        except TimeoutError:
            failed, reason = waits_at, f"not within {timeout_seconds:g} s; {waits_for or 'no output'}"
        except CoordinatorError as error:
            failed, reason = waits_at, str(error)
    seconds = monotonic() - began
    if failed:
        console.print(Text("FAIL ", style="bold red"), Text(f"{failed:<12}"), Text(reason))
        console.print(f"verify-e2e: {failed} failed ({len(done)} of {len(STEPS)} steps did, {seconds:.1f} s)")
    else:
        console.print(f"verify-e2e: all {len(STEPS)} steps hold ({seconds:.1f} s)")
    return {
        "ok": not failed,
        "steps": done,
        "failed_step": failed,
        "reason": reason,
        "seconds": round(seconds, 3),
    }


async def _walk(
    settings: Settings,
    own: OnCheck,
    address: str,
    waiting: OnWait,
    timeout_seconds: float,
    wanted: str | None,
) -> AsyncIterator[tuple[str, str]]:
    contracts = NodeContracts(settings).shelf
    async with http_client(address, timeout=API_SECONDS_MAX) as client:
        until = asyncio.get_running_loop().time() + timeout_seconds
        async with asyncio.timeout_at(until):
            health = await _until(lambda: _health(client, settings.crunch_id), waiting)
        yield "health", health
        async with asyncio.timeout_at(until):
            running = await _until(lambda: _models(client), waiting)
        yield "models", running
        # The rest is of one checkpoint: once it exists, everything that it was made of is in the topics.
        async with asyncio.timeout_at(until):
            checkpoint_id = wanted or await _until(lambda: _checkpoint(client), waiting)
        at = "feed"

        def told(topic: str, read: int, end: int) -> None:
            waiting(at, f"reading {topic}, {read:,} of {end:,} records")

        bootstrap, crunch_id = settings.kafka_bootstrap, settings.crunch_id
        waiting(at, "reading the topics, and computing again what they say")
        await own()  # an address of node.json may be another node's by now
        chain = await read_chain(bootstrap, crunch_id, checkpoint_id, told)
        chain.blobs = AuditBlobs(store_of(settings))
        checkpoint = found_in(chain, checkpoint_id)
        topics = topics_of(bootstrap, crunch_id, told)
        async for step, result in check_log(topics, chain, checkpoint, contracts, crunch_id):
            yield step, result
            at = STEPS[min(STEPS.index(step) + 1, len(STEPS) - 1)]
        waiting("api", "asking for the emission")
        yield "api", await _offered(client, checkpoint)
        waiting("replay", "folding all topics anew")
        yield "replay", await _replay(client, settings)


async def _until(look: Callable[[], Awaitable[str | tuple[str, str]]], waiting: OnWait) -> str:
    """Look until there is a result; (step, why not yet) means to look again. The caller sets the time limit."""
    while True:
        answer = await look()
        if isinstance(answer, str):
            return answer
        waiting(*answer)
        await asyncio.sleep(POLL_SECONDS)


async def _get(client: Any, path: str) -> tuple[int, Any, str]:
    """(status, JSON, "") or (0, None, why there is no answer)."""
    try:
        answer = await client.get(path)
        return answer.status_code, answer.json(), ""
    except (httpx.HTTPError, ValueError) as error:
        return 0, None, f"{client.base_url} gives no answer to {path} ({type(error).__name__})"


async def _health(client: Any, crunch_id: str) -> str | tuple[str, str]:
    status, body, no_answer = await _get(client, "/healthz")
    if no_answer:
        return "health", no_answer
    if body.get("crunch_id") != crunch_id:
        raise ChainBrokenError("health", f"the API is of crunch {body.get('crunch_id')}, not of {crunch_id}")
    if status != OK:
        return "health", f"/healthz says {body.get('status')}: {body.get('error') or body.get('lag')}"
    return f"{client.base_url} folds, {sum(body['lag'].values())} records behind, clock {body['clock_ts']}"


async def _models(client: Any) -> str | tuple[str, str]:
    status, body, no_answer = await _get(client, "/reports/models")
    if no_answer or status != OK:
        return "models", no_answer or f"/reports/models says {status}"
    running = [model["model_name"] for model in body if model["state"] == "RUNNING"]
    if not running:
        return "models", f"none of {len(body)} models runs"
    shown = ", ".join(sorted(running)[:NAMES_SHOWN]) + (", .." if len(running) > NAMES_SHOWN else "")
    return f"{len(running)} of {len(body)} run: {shown}"


async def _checkpoint(client: Any) -> str | tuple[str, str]:
    """The last checkpoint's id; or the step that the flow has not reached, and how far it is."""
    status, body, no_answer = await _get(client, "/reports/checkpoints")
    if no_answer or status != OK:
        return "checkpoint", no_answer or f"/reports/checkpoints says {status}"
    if body:
        return str(max(body, key=lambda checkpoint: str(checkpoint["period_end"]))["id"])
    _, counts, no_answer = await _get(client, "/reports/summary")
    if no_answer or counts is None:
        return "checkpoint", no_answer
    _, health, _ = await _get(client, "/healthz")
    predictions = counts["predictions"]
    reached = {
        "feed": (
            counts["feed_records"],
            "no feed record yet; is the feed worker up, and does its source answer?",
        ),
        "input": (counts["inputs"]["received"], f"no input yet, of {counts['feed_records']} feed records"),
        "predictions": (
            sum(predictions.values()),
            f"no prediction yet, of {counts['inputs']['received']} inputs",
        ),
        "scores": (predictions["scored"], f"no score yet: {predictions}"),
        "snapshots": (counts["snapshots"], f"no snapshot yet; {predictions['scored']} predictions scored"),
    }
    clock = (health or {}).get("clock_ts") or "not ticking"
    for step, (count, not_yet) in reached.items():
        if not count:
            return step, f"{not_yet}; the clock is {clock}"
    return (
        "checkpoint",
        f"none yet, its period is not over: {counts['snapshots']} snapshots, the clock is {clock}",
    )


async def _offered(client: Any, checkpoint: CheckpointData) -> str:
    """What the API offers for payment is what the log says; of a withheld checkpoint it offers nothing."""
    status, shown, no_answer = await _get(client, f"/reports/checkpoints/{checkpoint.checkpoint_id}")
    if status == OK and shown.get("status") == "WITHHELD":
        why = shown.get("reason") or "see `coordinator checkpoint show`"
        return f"{checkpoint.checkpoint_id} is withheld, so that nothing is offered for payment: {why}"
    path = f"/reports/checkpoints/{checkpoint.checkpoint_id}/emission"
    if checkpoint.payout is not None and checkpoint.payout.retained_is == "left":
        path = f"/reports/checkpoints/{checkpoint.checkpoint_id}/payload"  # paid by prizes: no emission is handed out
    status, body, no_answer = await _get(client, path)
    if status == OK and path.endswith("/payload"):
        body = body.get("emission")
    if status != OK or body != checkpoint.emission:
        raise ChainBrokenError(
            "api", no_answer or f"{path} says {status}: {body}, the log {checkpoint.emission}"
        )
    period = f"{time_text(checkpoint.period_start)} to {time_text(checkpoint.period_end)}"
    return f"{path} is the log's, {period}"


async def _replay(client: Any, settings: Settings) -> str:
    """Folds all topics again up to the position of the live read models: their hashes are equal, or the differing one
    is named.
    """
    status, live, no_answer = await _get(client, "/reports/summary")
    if status != OK:
        raise ChainBrokenError("replay", no_answer or f"/reports/summary says {status}")
    try:
        result = await replay(settings.kafka_bootstrap, settings.crunch_id, limits=live["positions"])
    except WrongStateError as error:
        raise ChainBrokenError("replay", str(error)) from error
    for name, state_hash in live["state_hash"].items():
        if result.state_hash[name] != state_hash:
            raise ChainBrokenError(
                "replay",
                f"{name}: the live state_hash is {state_hash}, the replayed one {result.state_hash[name]}",
            )
    states = f", {result.states_checked} recorded states as their events make them" * bool(
        result.states_checked
    )
    return f"{result.events:,} events folded anew, {len(result.state_hash)} state hashes equal{states}"
