"""What the monitor watches besides the read models: the chain, the payees, the log on disk, and the webhook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from coordinator.api.chain_loop import ChainLoop, make_chain
from coordinator.api.commands import CommandPort
from coordinator.api.evidence_loop import EvidenceLoop
from coordinator.api.payees import PayeesLoop
from coordinator.api.shadow_loop import ShadowLoop
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.chain.fake import FakeChain
from coordinator.infra.kafka.groups import stage_members
from coordinator.infra.log.scrub import LogScrub
from coordinator.infra.webhook import Webhook
from coordinator.projections.folding.projector import Projector
from coordinator.streams.clock import wall_ms


class Watches(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor watches besides the read models. A part that is None is not watched.

    `members` asks Kafka how many members each stage's group has: stage -> count.
    """

    chain: ChainLoop | None = None
    webhook: Webhook | None = None
    payees: PayeesLoop | None = None
    scrub: LogScrub | None = None
    evidence: EvidenceLoop | None = None
    shadow: ShadowLoop | None = None
    members: Callable[[], Awaitable[dict[str, int]]] | None = None


def make_watches(projector: Projector, port: CommandPort) -> Watches:
    """The parts that the settings ask for. Raises OperatorError for an impossible chain or webhook."""
    settings = projector.settings
    chain = make_chain(settings, wall_ms)
    fake = chain if isinstance(chain, FakeChain) else None
    return Watches(
        chain=None if chain is None else ChainLoop(chain, projector, port, wall_ms, settles_on=fake),
        payees=PayeesLoop(projector, port, wall_ms),
        scrub=LogScrub(
            settings.kafka_bootstrap, settings.crunch_id, settings.scrub_mb_per_minute, store_of(settings)
        ),
        evidence=EvidenceLoop(settings, projector.read.evidence),
        members=lambda: stage_members(settings.kafka_bootstrap, settings.crunch_id),
        webhook=Webhook(
            settings.webhook_url.get_secret_value(),
            settings.webhook_secret.get_secret_value(),
            wall_ms=wall_ms,
        )
        if settings.webhook_url
        else None,
    )
