"""A challenge played through in one call: records, a contract and models in; scores, board and emission out.

    from coordinator.streams.engine import candles, play

    played = play(CONTRACT, candles([100, 101, 99]), {"up": lambda data, call: {"value": 1.0}})
    assert [score.units["value"] for score in played.scores["up"]] == [10**9, -3 * 10**9]
    assert played.board[0].model_id == "up"
    assert played.emission["cruncher_rewards"] == [{"cruncher_index": 0, "reward_pct": 10**9}]

For authors of contracts and models, and for their tests. Takes feed records, a contract and models; gives scores, the
board and the emission. The stages are those of a node, without a broker. The period ends right behind the last scored
round, so that there is an emission whatever the node's intervals are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.checkpoints.ranking import rank_snapshots
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine.engine import Engine, Output
from coordinator.streams.engine.models import Functions
from coordinator.streams.engine.period_end import Ending
from coordinator.streams.events import RoundScored, ScoreEntry, Terms
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.counting import Decision
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.settings import Settings

START_MS = 1_704_067_200_000
"""2024-01-01T00:00Z: a boundary of every interval."""
ANY_HASH = "0" * 64


class Score(msgspec.Struct, frozen=True):
    """How one prediction ended. `units` are the fields of its score in units of 10**-score_decimals, and empty unless
    it is SCORED. Times are in ms.
    """

    point: int
    subject: str
    scope_key: str
    resolvable_at: int
    status: str
    units: dict[str, int]
    reason: str


class Place(msgspec.Struct, frozen=True):
    """One line of the board. `units` is the contract's `ranking_key`; models with equal ranks are tied. A key of the
    snapshot summary is that of the snapshot period that was running at the end.
    """

    rank: int
    model_id: str
    units: int


class Played(msgspec.Struct, frozen=True):
    """The result. `scores` are by model, in the order in which the rounds resolved. `engine` holds the whole log."""

    engine: Engine
    scores: dict[str, list[Score]]
    board: list[Place]
    ending: Ending | None
    """What the running period would pay; None if nothing was scored."""

    @property
    def emission(self) -> dict[str, Any] | None:
        """The emission in the shape of the chain; None if nobody would be ranked."""
        checkpoint = self.ending.checkpoint if self.ending else None
        return None if checkpoint is None else checkpoint.emission


def candles(
    closes: Sequence[float | str],
    *,
    subject: str = "BTCUSDT",
    granularity: str = "1m",
    start_ms: int = START_MS,
) -> list[FeedRecord]:
    """Candles that close at these prices, without a gap. The first closes at `start_ms`."""
    subscription, length = (
        Subscription("generated", subject, "candle", granularity),
        granularity_ms(granularity),
    )
    records: list[FeedRecord] = []
    before = closes[0] if closes else ""
    for number, close in enumerate(closes):
        at = start_ms + number * length
        low, high = sorted((before, close), key=float)
        values = {"open": before, "high": high, "low": low, "close": close, "volume": 1}
        records.append(
            subscription.record(at - length, at, {name: str(value) for name, value in values.items()})
        )
        before = close
    return records


def play(
    contract: CrunchContract,
    records: Iterable[FeedRecord],
    models: Mapping[str, Any],
    *,
    players: Mapping[str, str] | None = None,
    **settings: Any,
) -> Played:
    """Play the records (of any number of subjects, each in the order of `at`) through the contract and the models.

    `models` are functions `(data, call) -> output`, or objects with the contract's methods (see `Functions`). `players`
    is model -> cruncher. `settings` are those of a node, such as `snapshot_interval_seconds=600`. Raises OperatorError
    for invalid settings or terms.
    """
    by_subject: dict[str, list[FeedRecord]] = {}
    for record in records:
        by_subject.setdefault(record.subject, []).append(record)
    scores: dict[str, list[Score]] = {model_id: [] for model_id in models}

    def collect_scores(decision: Decision) -> None:
        for event in decision.events:
            if isinstance(event, RoundScored):
                for entry in event.data.entries():
                    scores[entry.model_id].append(score_of(event, entry))

    engine = Engine(lambda _: contract, Functions(models, players), output=Output({"scores": collect_scores}))
    terms: Terms | None = None
    if first := next((of[0] for of in by_subject.values()), None):
        named = {"feed_source": first.source, "feed_kind": first.kind, "feed_granularity": first.granularity}
        node = Settings(**(named | {"feed_subjects": tuple(by_subject)} | settings))
        terms = make_terms(contract, ANY_HASH, node, 0)
        engine.configure(terms)
    for at, of_instant in merge_by_time(by_subject.values()):
        engine.feed(at, of_instant)
    ending = engine.end_now() if any(scores.values()) else None
    ranked = rank_snapshots(ending.snapshots, terms)[0] if ending and terms else []
    return Played(engine, scores, [Place(*place) for place in ranked], ending)


def score_of(event: RoundScored, entry: ScoreEntry) -> Score:
    """The ending of one prediction, from its entry in a scored round."""
    data = event.data
    return Score(
        data.point, data.subject, data.scope_key, data.resolvable_at, entry.status, entry.units, entry.reason
    )
