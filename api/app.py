"""The report API: questions about the projections, one file per subject, and the few writes in `commands`.

The application holds no state of its own and starts nothing: `server.py` runs the projector beside it. What a
router needs of a node is in `app.state`, so that the router is made once in a process (`@cache`): its routes are
read from their signatures, which is most of the work of making an application.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from fastapi import FastAPI

from coordinator.api import (
    board_history,
    book,
    checkpoints,
    commands,
    copies,
    docs,
    ensembles,
    evidence,
    explain,
    exports,
    feeds,
    health,
    invariants,
    leaderboard,
    live,
    model_detail,
    model_metrics,
    models,
    page,
    plans,
    pools,
    predictions,
    problems,
    proofs,
    round_answers,
    round_posts,
    rounds,
    schema,
    shadow,
    snapshots,
)
from coordinator.api import (
    rules as rules_page,
)
from coordinator.api.access import Access, Rules, read_rules
from coordinator.api.as_of import AsOf
from coordinator.api.commands import Sender
from coordinator.api.head_requests import HeadRequests
from coordinator.api.leaderboard import LeaderboardRoute
from coordinator.api.live_hub import Hub
from coordinator.api.monitor import Monitor
from coordinator.api.openapi import describe_access
from coordinator.api.own_routes import OwnRoutes, mount_own_routes
from coordinator.api.prometheus import Measured, Metrics
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.connections import connections_max
from coordinator.infra.evidence.bundle_cache import BundleCache, own_bundles
from coordinator.infra.rounds.checking import Checking
from coordinator.infra.rules import rules_in_force
from coordinator.infra.wallets_file import WalletsFile
from coordinator.projections.explaining.explainer import Explainer
from coordinator.streams.clock import wall_ms
from coordinator.streams.settings import Settings


class BesideReadModels(NamedTuple):
    """What answers from the log itself, or by the contract's code, where no read model has the answer. What is not
    given is made from the settings, and reads Kafka.
    """

    bundles: BundleCache | None = None
    """The evidence of checkpoints."""
    explainer: Explainer | None = None
    """How a figure came about."""
    check: round_answers.Check | None = None
    """What is wrong with answers that are handed in."""
    rules_of_terms: rules_page.Making | None = None
    """The page `/rules`."""


FROM_SETTINGS = BesideReadModels()


def create_app(
    settings: Settings,
    sender: Sender,
    *,
    own_routes: Iterable[OwnRoutes] = (),
    rules: Rules | None = None,
    monitor: Monitor | None = None,
    beside: BesideReadModels = FROM_SETTINGS,
) -> FastAPI:
    """The application over the read models of the sender's projector, and the operator's own routes after all built-in
    ones. `rules` replaces what the settings say of keys and networks. A `monitor` runs beside the application; without
    one its invariants are still answered, and nothing follows from them.

    Raises OperatorError for keys or networks that cannot be read.
    """
    projector = sender.projector
    metrics = Metrics(projector)
    monitor = monitor or Monitor(projector, sender.port, wall_ms)
    hub = Hub(projector, connections_max() // 2)
    monitor.side_tasks.append(hub.side_task)
    metrics.registry.register(invariants.GuardMetrics(monitor))
    door = partial(Access, rules=rules or read_rules(settings), refused=metrics.refused)
    title = f"Report API of {settings.crunch_id}"
    app = FastAPI(title=title, openapi_url="/openapi.json", docs_url=None, redoc_url=None)
    # A redirect would name http:// and the host of a request that came through TLS, and lose the key: 404 is honest.
    app.router.redirect_slashes = False
    read = projector.read
    state = app.state
    state.sender, state.monitor = sender, monitor
    state.explainer = beside.explainer or explain.node_explainer(settings)
    state.bundles = beside.bundles or own_bundles(settings)
    state.check, state.blobs = beside.check or Checking(settings), store_of(settings)
    state.wallets, state.exports = WalletsFile(settings.wallets_file), exports.Exports()
    state.board_history = board_history.BoardHistory()
    # Before all others: the most polled route is found first and costs nothing but itself.
    app.router.routes.insert(0, LeaderboardRoute(read.leaderboard))
    for routes in (
        page.router(),
        docs.router(),
        book.router(),
        live.router(projector, hub, metrics.registry),
        leaderboard.router(),
        board_history.router(),
        health.router(),
        models.router(),
        model_metrics.router(),
        predictions.router(),
        exports.router(),
        feeds.router(),
        snapshots.router(),
        rounds.router(),
        checkpoints.router(),
        evidence.router(),
        proofs.router(),
        schema.router(),
        pools.router(),
        copies.router(),
        ensembles.router(),
        model_detail.router(),
        shadow.router(),
        plans.router(projector.settings.data_dir),
        explain.router(),
        rules_page.router(settings.crunch_id, beside.rules_of_terms or partial(rules_in_force, settings)),
        commands.router(),
        round_posts.router(),
        round_answers.router(),
        invariants.router(),
        metrics.router(),
    ):
        # `include_router` would read every signature a second time, when the first request comes.
        app.router.routes += routes.routes
    mount_own_routes(app, own_routes)
    problems.install(app)
    app.add_middleware(AsOf, read=read)  # inside the door: a refused call reads no past
    app.add_middleware(HeadRequests)
    app.add_middleware(door)
    app.add_middleware(Measured, metrics)  # outside of the door: refused calls are counted too
    describe_access(app)
    return app
