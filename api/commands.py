"""The few writes: each sends a command, waits until the stage has decided it and its decision is folded
here, and answers from the folded state.

The API never decides. It checks the shape of what is asked (a hash that is no hash is 422 at once) and
leaves the rest to the checkpoint stage, which meets commands in one order. So a PATCH sent behind a confirm
is decided behind it. When the stage does not answer in time, or Kafka has not confirmed the command, the answer is 202
with the command's id: `GET /reports/commands/{id}` says what became of it, and asking again is safe.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from coordinator.api.checkpoint_answers import checkpoint_answer
from coordinator.api.checkpoint_shapes import Checkpoint, CommandState, Undecided
from coordinator.api.checkpoints import CheckpointId
from coordinator.api.payees import bind_before_confirm
from coordinator.api.problems import problem
from coordinator.api.queries import our_router
from coordinator.api.read_models import Reading
from coordinator.api.responses import shaped
from coordinator.api.shapes import Status
from coordinator.infra.wallets_file import WalletsFile
from coordinator.projections.folding.projector import Projector
from coordinator.streams.addresses import is_tx_hash
from coordinator.streams.clock import wall_ms
from coordinator.streams.events import (
    AdvanceCheckpoint,
    AdvanceCheckpointData,
    ConfirmCheckpoint,
    ConfirmCheckpointData,
    Event,
    ReleaseCheckpoint,
    ReleaseCheckpointData,
)
from coordinator.streams.log.errors import OutcomeUnknownError, WorldError
from coordinator.streams.log.ids import content_id, is_content_id

DECIDED_SECONDS_MAX = 5.0
CommandId = Annotated[str, Path(max_length=200)]

DECIDED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": Undecided,
        "description": "Nobody knows yet: not decided in time, or not confirmed by Kafka. `Location` says what became "
        "of it; asking again is safe.",
    },
    404: {"description": "There is no such checkpoint."},
    409: {"description": "The stage refused it; `state` says where the checkpoint stands."},
    503: {"description": "The command was not written, and will not be."},
}


class CommandPort(Protocol):
    """The one way out of the API: append a command."""

    async def send(self, command: Event) -> int:
        """Append to `commands`; its offset, once it is durable. Raises WorldError when it was not written and will not
        be, OutcomeUnknownError when it may still arrive.
        """
        ...


class Confirm(BaseModel):
    """The body of a confirm."""

    tx_hash: str = Field(max_length=200)


class Advance(BaseModel):
    """The body of a PATCH."""

    status: Status
    tx_hash: str | None = Field(default=None, max_length=200)
    """The transaction that was observed. By default the one recorded for the checkpoint when the call arrives."""


class Release(BaseModel):
    """The body of a release; it may be left out."""

    reason: str = Field(default="", max_length=500)


class Sender(msgspec.Struct, frozen=True):
    """What a command needs: where it goes, where its effect is seen, and the outside's clock and chance."""

    projector: Projector
    port: CommandPort
    wait_seconds: float = DECIDED_SECONDS_MAX
    now_ms: Callable[[], int] = wall_ms
    nonce: Callable[[], str] = lambda: secrets.token_hex(8)

    def command_id(self, kind: str, checkpoint_id: str, key: str, at: int) -> str:
        """A new id for each request: the same request sent twice is two commands, each with its
        answer.
        """
        return content_id("cmd", kind, checkpoint_id, key, str(at), self.nonce())

    async def decide(self, command: Event, checkpoint_id: str) -> Response:
        """Send, wait for the decision, answer."""
        checkpoints = self.projector.read.checkpoints
        if checkpoints.get(checkpoint_id) is None and self.projector.caught_up():
            return problem(404, f"there is no checkpoint {checkpoint_id}")
        try:
            offset = await self.port.send(command)
        except OutcomeUnknownError as error:
            return _undecided(command, str(error))
        except WorldError as error:
            return problem(503, str(error), command_id=command.id)
        decided = await self.projector.wait_until(
            lambda: checkpoints.commands_decided >= (offset, 0), self.wait_seconds
        )
        if not decided:
            return _undecided(command, "not decided yet")
        refusal = checkpoints.refusal(command.id)
        if refusal is not None:
            return problem(refusal.http_status, refusal.reason, state=refusal.state, command_id=command.id)
        row = checkpoints.get(checkpoint_id)
        if row is None:
            return problem(404, f"there is no checkpoint {checkpoint_id}")
        return shaped(Checkpoint, checkpoint_answer(row, checkpoints))


def _undecided(command: Event, why: str) -> Response:
    where = f"/reports/commands/{command.id}"
    answer = shaped(
        Undecided,
        {
            "detail": f"{why}; GET {where} says what became of it, and asking again is safe",
            "command_id": command.id,
        },
        202,
    )
    answer.headers["Location"] = where
    return answer


def sender_of(request: Request) -> Sender:
    """The sender of the application that was asked."""
    sender: Sender = request.app.state.sender
    return sender


@cache
def router() -> APIRouter:
    """The routes that write; `app.state` has the Sender and the WalletsFile."""
    routes = our_router()

    @routes.get(
        "/reports/commands/{command_id:path}",
        response_model=CommandState,
        responses={404: {"description": "No command has an id of that form."}},
    )
    async def command(request: Request, command_id: CommandId, read: Reading) -> Response:
        """What became of a command: `done`, `refused`, or `undecided`: still on its way, never written, or without an
        effect, because what it asks for was so already. `reason` then says how far the commands are decided.
        """
        checkpoints = read.checkpoints
        refusal, done = checkpoints.refusal(command_id), checkpoints.done_by(command_id)
        items = sender_of(request).projector.read.dead_letters.refused_of(command_id)
        state = {
            "command_id": command_id,
            "state": "undecided",
            "checkpoint_id": None,
            "status": None,
            "reason": f"it had no effect and was not refused, as far as the commands are decided (offset "
            f"{checkpoints.commands_decided[0]}): it stands behind them, changed nothing, or was never sent",
        }
        if refusal is not None:
            state |= {
                "state": "refused",
                "checkpoint_id": refusal.checkpoint_id or None,
                "reason": refusal.reason,
            }
        elif items:  # of a post: what else it asked for may be so
            state |= {
                "state": "refused",
                "reason": "; ".join(": ".join(item) for item in items)[:2_000],
            }
        elif done is not None:
            state |= {"state": "done", "checkpoint_id": done[0], "status": done[1], "reason": None}
        elif not is_content_id("cmd", command_id):
            return problem(404, f"{command_id!r} is not the id of a command: write cmd/ and 24 hex digits")
        return shaped(CommandState, state)

    @routes.post("/reports/checkpoints/{checkpoint_id}/confirm", response_model=Checkpoint, responses=DECIDED)
    async def confirm(request: Request, checkpoint_id: CheckpointId, body: Confirm) -> Response:
        """Record the transaction that pays: PENDING -> SUBMITTED. The same hash again is 200 and changes
        nothing.
        """
        tx_hash = body.tx_hash.strip()
        if not is_tx_hash(tx_hash):
            return problem(422, "tx_hash must be base58 of 64 bytes (87 or 88 characters)")
        sender = sender_of(request)
        wallets: WalletsFile = request.app.state.wallets
        at = sender.now_ms()
        read = sender.projector.read.checkpoints
        await bind_before_confirm(sender.port, read.get(checkpoint_id), read, wallets, at)
        return await sender.decide(
            ConfirmCheckpoint(
                id=sender.command_id("ConfirmCheckpoint", checkpoint_id, tx_hash, at),
                at=at,
                data=ConfirmCheckpointData(checkpoint_id=checkpoint_id, tx_hash=tx_hash),
            ),
            checkpoint_id,
        )

    @routes.patch("/reports/checkpoints/{checkpoint_id}/status", response_model=Checkpoint, responses=DECIDED)
    async def advance(request: Request, checkpoint_id: CheckpointId, body: Advance) -> Response:
        """Move on: SUBMITTED -> CLAIMABLE -> PAID. The stage says what is legal; the same state again is
        200. Name the transaction that was seen so: with another one by then it is 409.
        """
        sender = sender_of(request)
        at = sender.now_ms()
        tx_hash = body.tx_hash
        if tx_hash is None:
            row = sender.projector.read.checkpoints.get(checkpoint_id)
            tx_hash = (row.tx_hash if row is not None else None) or ""
        return await sender.decide(
            AdvanceCheckpoint(
                id=sender.command_id("AdvanceCheckpoint", checkpoint_id, f"{body.status} {tx_hash}", at),
                at=at,
                data=AdvanceCheckpointData(
                    checkpoint_id=checkpoint_id, status=body.status, tx_hash=tx_hash.strip()
                ),
            ),
            checkpoint_id,
        )

    @routes.post("/reports/checkpoints/{checkpoint_id}/release", response_model=Checkpoint, responses=DECIDED)
    async def release(request: Request, checkpoint_id: CheckpointId, body: Release | None = None) -> Response:
        """Offer a withheld checkpoint after all: WITHHELD -> PENDING. It is computed again. While any rule forbids
        offering it, 409 names the rule.
        """
        sender = sender_of(request)
        at, reason = sender.now_ms(), body.reason if body else ""
        return await sender.decide(
            ReleaseCheckpoint(
                id=sender.command_id("ReleaseCheckpoint", checkpoint_id, reason, at),
                at=at,
                data=ReleaseCheckpointData(checkpoint_id=checkpoint_id, reason=reason),
            ),
            checkpoint_id,
        )

    return routes
