"""Faults around pay: one that is confirmed twice, and a webhook that nobody reads."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import base58

from coordinator.cli.drills.drill import Drill, DrillFailedError
from coordinator.cli.drills.feed_faults import market
from coordinator.cli.drills.market import SUBJECTS
from coordinator.cli.drills.scratch import ENDED_SECONDS_MAX, ScratchNode
from coordinator.infra.kafka.embedded import free_ports
from coordinator.infra.processes.data_dir import holder_of
from coordinator.streams.addresses import TX_HASH_BYTES

OFFERED_SECONDS_MAX = 120.0
REFUSED = 1
"""The exit code of a command that the node refuses."""
NOT_DECIDED = 3
"""The exit code of a command that is in the log and is not decided yet."""


def transaction(number: int) -> str:
    """A transaction's hash that no chain has seen."""
    return base58.b58encode(number.to_bytes(TX_HASH_BYTES, "big")).decode()


def _ids(node: ScratchNode, status: str) -> list[str]:
    rows = json.loads(node.command("checkpoint", "list", "--status", status, "--json").stdout)
    return [row["id"] for row in rows]


def _offered(node: ScratchNode) -> str:
    return node.until(lambda: _ids(node, "PENDING"), "a checkpoint is offered", OFFERED_SECONDS_MAX)[-1]


def _confirmed_twice(node: ScratchNode) -> None:
    checkpoint_id = _offered(node)
    node.command("checkpoint", "confirm", checkpoint_id, transaction(1))
    node.command("checkpoint", "confirm", checkpoint_id, transaction(1))  # the same one changes nothing
    other = node.command("checkpoint", "confirm", checkpoint_id, transaction(2), check=False)
    if other.returncode != REFUSED:
        raise DrillFailedError(
            f"a second transaction was taken: exit code {other.returncode}, {other.stdout}"
        )
    shown = json.loads(node.command("checkpoint", "show", checkpoint_id, "--json").stdout)
    if shown["tx_hash"] != transaction(1):
        raise DrillFailedError(f"the checkpoint names {shown['tx_hash']}, not the first transaction")


def _confirm_lost(node: ScratchNode) -> None:
    """The transaction is out, and the node is killed before it has decided the confirm; it is sent twice meanwhile."""
    checkpoint_id = _offered(node)
    node.kill()
    node.until(lambda: holder_of(node.data_dir) is None, "its processes have ended", ENDED_SECONDS_MAX)
    for _ in range(2):
        sent = node.command("checkpoint", "confirm", checkpoint_id, transaction(1), check=False)
        if sent.returncode != NOT_DECIDED:
            raise DrillFailedError(
                f"a confirm to a dead node ended with {sent.returncode}: {sent.stderr.strip()}"
            )
    node.go_on()
    node.until(
        lambda: checkpoint_id in _ids(node, "SUBMITTED"), "the confirm is decided", OFFERED_SECONDS_MAX
    )
    shown = json.loads(node.command("checkpoint", "show", checkpoint_id, "--json").stdout)
    if shown["tx_hash"] != transaction(1):
        raise DrillFailedError(f"the checkpoint names {shown['tx_hash']}, not the transaction")


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


def _reserve_receiver(node: ScratchNode) -> None:
    node.notes["port"] = free_ports(1)[0]
    node.environ["WEBHOOK_URL"] = f"http://127.0.0.1:{node.notes['port']}/alerts"


def _receiver_back(node: ScratchNode) -> None:
    server = HTTPServer(("127.0.0.1", node.notes["port"]), _Receiver)
    threading.Thread(target=server.serve_forever, daemon=True, name="receiver").start()
    node.left_over.append(server.shutdown)
    node.market.silent = set()


DRILLS = (
    Drill(
        name="confirmed-twice",
        breaks="A second transaction is confirmed for one checkpoint.",
        holds="The command is refused with exit code 1, and the first transaction stays.",
        inject=_confirmed_twice,
        ends_by="Nothing has to be done.",
    ),
    Drill(
        name="settlement-lost",
        breaks="The node is killed (SIGKILL) between a transaction and its confirmation. "
        "The confirmation is then sent twice.",
        holds="Each confirmation ends with exit code 3 and is in the log. The next start decides both, and one counts.",
        inject=_confirm_lost,
        ends_by="Start the node again.",
    ),
    Drill(
        name="webhook-gone",
        breaks="Nobody listens at WEBHOOK_URL when an alert must be sent (the market is silent).",
        alert="webhook",
        also=("feed",),
        prepare=_reserve_receiver,
        inject=market(silent=set(SUBJECTS)),
        end=_receiver_back,
        ends_by="Repair the receiver. The next message that arrives (here the end of `feed`) ends the alert.",
    ),
)
