"""A node's own Kafka at its start: prepare it on a free port, and wait until it is the one that answers there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic

from coordinator.cli.up_plan import port_is_free
from coordinator.infra.kafka.embedded import HOST, EmbeddedBroker, PortTakenError
from coordinator.infra.log.cluster_state import ask_cluster
from coordinator.infra.processes.sockets import listens
from coordinator.infra.processes.supervisor import ChildState
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings

REMARK_SECONDS = 10.0
POLL_SECONDS = 0.1
MOVED_LOOK_SECONDS = 2.0
Say = Callable[[str], None]


async def prepared_broker(settings: Settings) -> EmbeddedBroker:
    """The broker, ready to start; on another port if somebody took the planned port since it was chosen.

    Raises OperatorError when it cannot be prepared on any.
    """
    folder = settings.data_dir / "kafka"
    broker = EmbeddedBroker(folder, int(settings.kafka_bootstrap.rsplit(":", 1)[1]))
    try:
        await asyncio.to_thread(broker.prepare)
    except PortTakenError:
        # The port may have been taken for a moment only, or it was the controller's, which is chosen with every start.
        if not port_is_free(broker.port):
            broker.move()
        await asyncio.to_thread(broker.prepare)
    return broker


async def until_kafka_listens(
    broker: EmbeddedBroker, crunch_id: str, states: Mapping[str, ChildState], say: Say
) -> None:
    """Wait as long as a broker with a log of this size may need; every REMARK_SECONDS say so. Raises WorldError.

    `states` are the supervisor's: the reason why the broker ended last is part of the remark.
    """
    log_bytes, seconds_max = broker.log_bytes, broker.start_seconds_max
    listening = asyncio.create_task(until_ours_listens(broker, crunch_id, seconds_max, say))
    try:
        while not (await asyncio.wait({listening}, timeout=REMARK_SECONDS))[0]:
            reason = states["kafka"].last_exit or f"its log has {log_bytes / 1e6:,.0f} MB to look through"
            say(f"Kafka does not listen yet ({reason}); it has up to {seconds_max:.0f} s")
        listening.result()
    finally:
        listening.cancel()


async def until_ours_listens(broker: EmbeddedBroker, crunch_id: str, seconds_max: float, say: Say) -> None:
    """Wait until the Kafka that answers on the broker's port has the broker's cluster id. Raises WorldError.

    Another node's Kafka may listen on that port. Without the check, this crunch's topics would be made there.
    """
    deadline, stranger_port = monotonic() + seconds_max, 0
    while (left := deadline - monotonic()) > 0:
        port = broker.port  # it changes when somebody else took the port first
        with suppress(WorldError):
            await listens(HOST, port, "the Kafka broker", min(left, MOVED_LOOK_SECONDS))
            cluster = await ask_cluster(f"{HOST}:{port}", crunch_id)
            if cluster.cluster_id == broker.cluster_id:
                return
            if stranger_port != port:
                stranger_port = port
                say(f"another Kafka took port {port} first; ours takes another one")
        await asyncio.sleep(POLL_SECONDS)
    raise WorldError(
        f"the node's Kafka does not listen after {seconds_max:g} s; its log is {broker.log_file}"
    )
