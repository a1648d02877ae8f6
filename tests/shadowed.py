"""A shadow of the tests' log in the state that its process leaves: three models; the other rules swap two of them."""

from __future__ import annotations

from pathlib import Path

from tests.logs import START_MS, LogBuilder, make_terms
from tests.streams.build import snapshot

from coordinator.api.shadow_loop import ShadowLoop
from coordinator.infra.shadow_files import ShadowFiles, ShadowOrder, ShadowResult, ShadowStatus
from coordinator.streams.engine.divergence import Bounds
from coordinator.streams.engine.plan import ModelStanding
from coordinator.streams.engine.shadow import CheckpointDecided, PeriodDecided, ShadowRules, SideDecisions

HOUR = 3_600_000
END = START_MS + 6 * HOUR
NOW = 2_000_000_000_000
BOUNDS = Bounds(rank_moves=1)


def order_of(bounds: Bounds = BOUNDS, **changes) -> ShadowOrder:
    """The operator's request."""
    rules = ShadowRules(crunch_id="btc-up", terms=make_terms(contract_hash="b" * 64), from_ms=START_MS)
    values = {
        "rules": rules, "contract": "new_rules:CONTRACT", "bounds": bounds, "started_at_ms": NOW - HOUR,
    }  # fmt: skip
    return ShadowOrder(**(values | changes))


def side(units: dict[str, int | None], shares: dict[str, int], *, withheld: bool = False) -> SideDecisions:
    """A board by these units of 10**-6, and a checkpoint of these shares in billionths."""
    models = {
        model_id: ModelStanding(place, units[model_id], share)
        for place, (model_id, share) in enumerate(shares.items(), start=1)
    }
    return SideDecisions(
        terms=[make_terms(effective_from=START_MS, ranking_key="day", score_decimals=6)],
        snapshots={
            model_id: snapshot(model_id, START_MS, 0, n=0, end=END, windows_units={"day": value}).data
            for model_id, value in units.items()
        },
        board_end=END,
        periods=[PeriodDecided(START_MS, END, models, "")],
        checkpoints=[
            CheckpointDecided(END, LogBuilder().checkpoint_data(0, shares), "withheld: a" if withheld else "")
        ],
    )


def write_shadow(data_dir: Path, order: ShadowOrder | None = None, **fields) -> ShadowFiles:
    """The files of a running shadow. `fields` are changes to the status that its process writes."""
    order = order or order_of()
    files = ShadowFiles(data_dir)
    files.put_order(order)
    status = {"key": order.rules.key, "pid": 7, "at_ms": NOW - 2_000, "clock": END + HOUR, "feeds_end": 1}
    files.put_status(ShadowStatus(**(status | fields)))
    new = side(
        {"m1": 300_000, "m2": 500_000, "m3": None}, {"m2": 650_000_000, "m1": 350_000_000}, withheld=True
    )
    live = side({"m1": 400_000, "m2": 200_000, "m3": None}, {"m1": 600_000_000, "m2": 400_000_000})
    files.put_result(ShadowResult(key=order.rules.key, clock=END + HOUR, new=new, live=live))
    return files


def shadowed_loop(data_dir: Path) -> ShadowLoop:
    """The loop, after it has read the shadow once."""
    write_shadow(data_dir)
    loop = ShadowLoop(data_dir, lambda: NOW)
    loop.look_now()
    return loop
