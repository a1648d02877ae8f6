"""One of several brokers, as the only service of its host: `broker_host.py FOLDER NODE_ID CLUSTER_ID ADDRESS ...`.

The addresses are those of all brokers, in the order of their node ids.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from coordinator.infra.kafka.embedded import EmbeddedBroker

PORT, CONTROLLER_PORT = 9092, 9093


def main() -> None:
    folder, node_id, cluster_id, *addresses = sys.argv[1:]
    number = int(node_id)
    voters = {other: CONTROLLER_PORT for other, _ in enumerate(addresses, 1)}
    broker = EmbeddedBroker(
        Path(folder),
        PORT,
        node_id=number,
        cluster_id=cluster_id,
        voters=voters,
        more_settings={
            # Every address of a namespace, which nobody outside reaches.
            "listeners": f"PLAINTEXT://0.0.0.0:{PORT},CONTROLLER://0.0.0.0:{CONTROLLER_PORT}",
            "advertised.listeners": f"PLAINTEXT://{addresses[number - 1]}:{PORT},"
            f"CONTROLLER://{addresses[number - 1]}:{CONTROLLER_PORT}",
            "controller.quorum.voters": ",".join(
                f"{other}@{address}:{CONTROLLER_PORT}" for other, address in enumerate(addresses, 1)
            ),
        },
    )
    broker.start()
    broker.wait_ready()
    print("ready", flush=True)
    signal.pause()


main()
