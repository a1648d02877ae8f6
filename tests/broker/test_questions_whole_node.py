"""Posted questions on a whole node in replayed time, while each of its five workers is killed with SIGKILL in turn.

The feed worker reads the posts from a file that says when each was made, the predict worker asks the models, and score,
checkpoint and report do their part, all as processes over a real broker. Scores, board and payouts are held against the
oracles of the engine's tests, which know what was posted and how models behave and read nothing of the node but its
results.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import Mapping
from typing import Any

import pytest
from tests.broker.asked_contract import CLIP, FACTOR
from tests.broker.asked_models import behaviours, linear
from tests.broker.crash import HEARTBEAT_SECONDS, SESSION_SECONDS, Board, Plan, board
from tests.broker.report import Report, kill_while_folding
from tests.streams.engine import test_questions_played as events_played
from tests.streams.engine import test_tournament_played as tournament

from coordinator.api.rounds import EVENTS_MAX
from coordinator.infra.kafka.embedded import free_ports
from coordinator.streams import events as ev
from coordinator.streams.settings import Settings, environment

pytestmark = pytest.mark.broker

T0, DAY = tournament.T0, tournament.DAY
LIVES = {
    "feed": [Plan("before-send", "feeds", "", 30), Plan("after-send", "inputs", "", 25)],
    "score": [Plan("before-send", "scores", "", 3), Plan("durable-send", "snapshots", "", 9)],
    "checkpoint": [Plan("take", "checkpoints", "", 20), Plan("claimed", "checkpoints")],
}
"""Worker -> how each of its lives ends. After them comes a life that is not killed."""
FIRST, SECOND = ({worker: [lives[i]] for worker, lives in LIVES.items()} for i in (0, 1))
"""For a small run of either kind one of them: together they have each once."""
IN_A_ROUND = [Plan("call", "predictions", count=8), Plan("before-send", "predictions", "", 6)]
"""Answers that were given and not recorded are lost. The models are asked again while the round is open."""
BETWEEN_ROUNDS = [Plan("take", "predictions", "", 9), Plan("claimed", "predictions")]
"""A question that is open for a minute is not asked again after it, so no answer of it may be lost."""


class WholeNode:
    """Five workers over a file of posts, which the feed worker replays."""

    def __init__(
        self, field: Board, contract: str, models: str, posts: list[dict[str, Any]], node: Any
    ) -> None:
        self.field = field
        self.ends_at = posts[-1]["at"]
        folder = field.log_dir / "data"
        folder.mkdir()
        path = folder / "posts.jsonl"
        path.write_text("".join(json.dumps(post) + "\n" for post in posts))
        settings = Settings(
            crunch_id=field.crunch_id,
            kafka_bootstrap=field.bootstrap,
            data_dir=folder,
            api_port=free_ports(1)[0],
            contract=f"asked_contract:{contract}",
            settle_rehearsals=True,
            replay_from_ms=T0,
            replay_until_ms=self.ends_at,
            replay_models_min=len(behaviours(models)),
            session_timeout_seconds=SESSION_SECONDS,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            **node,
        )
        self._variables = {
            **environment(settings),
            "FEED_OPT_PATH": str(path),
            "COORDINATOR_TEST_MODELS": models,
        }
        self.report = Report(settings)

    async def run(
        self, lives: Mapping[str, list[Plan]], seconds_max: float, *, report_kills: int = 1
    ) -> None:
        """Waits until the whole file is decided and each worker has died as planned."""
        self.report.start()
        ends_at = time.monotonic() + seconds_max
        await asyncio.gather(
            self._kill_report(report_kills), *(self._live(name, plans) for name, plans in lives.items())
        )
        while not await self._is_over():
            assert time.monotonic() < ends_at, self._tails()
            await asyncio.sleep(0.2)

    async def _live(self, name: str, plans: list[Plan]) -> None:
        for plan in plans:
            worker = self.field.start(name, plan, **self._variables)
            assert await worker.wait_end() == -signal.SIGKILL, worker.tail()
            assert worker.events("harmed"), worker.tail()
        self.field.start(name, **self._variables)

    async def _kill_report(self, times: int) -> None:
        draw = random.Random(5)
        for _ in range(times):
            await kill_while_folding(self.report, draw)
            self.report.start()

    async def _is_over(self) -> bool:
        snapshots, checkpoints = await self.field.look("snapshots"), await self.field.look("checkpoints")
        return any(
            isinstance(event, ev.PeriodClosed) and event.data.until_ms >= self.ends_at // DAY * DAY
            for decision in snapshots[-3:]
            for event in decision.events
        ) and any(
            isinstance(event, ev.CheckpointOpened) for decision in checkpoints for event in decision.events
        )

    def _tails(self) -> str:
        return "\n".join(f"{worker.name}: {worker.tail()[-1500:]}" for worker in self.field.workers[-4:])

    async def events(self) -> dict[str, list[ev.AnyEvent]]:
        """The counted events of each topic of a stage."""
        return {
            topic: [event for decision in await self.field.look(topic) for event in decision.events]
            for topic in ("feeds", "predictions", "scores", "snapshots", "checkpoints")
        }

    def read(self, path: str) -> Any:
        """The answer of a route after everything is folded."""
        self.report.wait_caught_up(1)
        answer = self.report.get(path)
        assert answer.is_success, answer.text
        return answer.json()


def ticks(days: int) -> list[dict[str, Any]]:
    """Posts that change nothing, one a day: a replay has the time from its posts."""
    return [{"do": "stakes", "stakes": {}, "at": T0 + day * DAY + 1} for day in range(days)]


def posts_of_tournament(posted: tournament.Tournament) -> list[dict[str, Any]]:
    posts: list[dict[str, Any]] = [{"do": "stakes", "stakes": posted.stakes, "at": T0}]
    for day in range(1, tournament.PERIOD // DAY + 2):
        at, (week, rest) = T0 + day * DAY, divmod(day, 7)
        posts.append({"do": "stakes", "stakes": posted.stakes, "at": at})
        if rest == 1 and week < tournament.ROUNDS:
            question = {
                "question_id": "table",
                "payload": {"rows": posted.tables[week]},
                "opens_at": at + 2,
                "closes_at": at + 2 * DAY,
            }
            posts.append({"do": "post", "round_id": f"week-{week}", "questions": [question], "at": at + 1})
        if rest == 3 and 4 <= week < tournament.ROUNDS + 4:
            truths = {"table": {"target": posted.targets[week - 4]}}
            posts.append({"do": "resolve", "round_id": f"week-{week - 4}", "truths": truths, "at": at + 1})
    return posts


def posts_of_events(drawn: list[events_played.Posted]) -> list[dict[str, Any]]:
    posts = ticks(events_played.PERIOD_DAYS + 2)
    for posted in drawn:
        models = events_played.MODELS
        payload = {
            "said": {name: events_played.answer_of(name, posted.lean) for name in models},
            "down": {
                name: [events_played.is_down(name, posted, asking) for asking in (0, 1)] for name in models
            },
        }
        question = {
            "question_id": posted.name,
            "payload": payload,
            "opens_at": posted.opens_at,
            "closes_at": posted.closes_at,
        }
        posts.append({"do": "post", "round_id": "r", "questions": [question], "at": T0 + 2})
        posts.append({"do": "stakes", "stakes": {}, "at": posted.opens_at + events_played.ASKED_AGAIN})
        if posted.is_void:
            void = {"do": "void", "round_id": "r", "reason": "annulled", "question_ids": [posted.name]}
            posts.append({**void, "at": posted.comes_at})
            continue
        for at, outcome in [
            (posted.comes_at, posted.outcome),
            *([posted.corrected] if posted.corrected else []),
        ]:
            truths = {posted.name: {"outcome": outcome}}
            posts.append({"do": "resolve", "round_id": "r", "truths": truths, "at": at})
    return sorted(posts, key=lambda post: post["at"])


@pytest.mark.parametrize(
    ("rows", "features", "models", "lives", "seconds_max"),
    [(60, 6, 5, FIRST, 600), pytest.param(1000, 50, 20, LIVES, 900, marks=pytest.mark.slow)],
    ids=["small", "as the issue has it"],
)
async def test_a_tournament_under_kill_of_every_worker(
    kafka_bootstrap, crunch_id, tmp_path, rows, features, models, lives, seconds_max
):
    posted = tournament.drawn(rows, features, models)
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        posts, names = posts_of_tournament(posted), f"of_tournament:{models}"
        node = WholeNode(field, "ASKED_AGAIN", names, posts, tournament.NODE)
        try:
            await node.run(lives | {"predict": IN_A_ROUND}, seconds_max)
            decided = await node.events()
            tournament.hold_against_the_oracle(posted, decided.__getitem__)
            for topic, worker in (("feeds", "feed"), ("scores", "score"), ("checkpoints", "checkpoint")):
                assert await field.claims(topic) >= len(lives[worker]), topic
            # The page and the API show the same: the board in its order, each round's scores and payouts.
            means = {
                name: sum(tournament.corr(linear(number, table), target) for table, target in zip(posted.tables, posted.targets, strict=True))
                for number, name in enumerate(posted.stakes)
            }  # fmt: skip
            rows_of_board = node.read("/reports/leaderboard")
            assert [row["model_id"] for row in rows_of_board] == sorted(means, key=lambda name: -means[name])
            last = tournament.ROUNDS - 1
            shown = node.read(f"/reports/rounds/week-{last}/questions/table")
            assert shown["state"] == "resolved"
            scores = {answer["model_id"]: answer["score"] for answer in shown["answers"] if answer["score"]}
            for number, (name, stake) in enumerate(posted.stakes.items()):
                value = tournament.corr(linear(number, posted.tables[last]), posted.targets[last])
                assert scores[name]["value"] == pytest.approx(value, abs=1e-6)
                payout = float(stake) * FACTOR * max(-CLIP, min(CLIP, value))
                assert scores[name]["payout"] == pytest.approx(payout, abs=1e-6)
        finally:
            node.report.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("count", "lives", "seconds_max"),
    [
        # test_questions_killed.py kills the workers of such a log for less
        pytest.param(40, SECOND, 600, marks=pytest.mark.slow),
        pytest.param(500, LIVES, 1800, marks=pytest.mark.slow),
    ],
    ids=["forty", "500"],
)
async def test_events_under_kill_of_every_worker(
    kafka_bootstrap, crunch_id, tmp_path, count, lives, seconds_max
):
    posted = events_played.drawn(count, seed=count)
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        node = WholeNode(field, "GATED", "of_events", posts_of_events(posted), events_played.NODE)
        try:
            await node.run(lives | {"predict": BETWEEN_ROUNDS}, seconds_max)
            decided = await node.events()
            events_played.hold_against_the_oracle(posted, decided.__getitem__)
            shown_max = min(count, EVENTS_MAX)
            overview = node.read(f"/events/overview?limit={shown_max}")
            counted = {f"r/{question.name}": question for question in posted if not question.is_void}
            assert (overview["total"], overview["resolved_count"], overview["pending_count"]) == (
                len(counted), len(counted), 0,
            )  # fmt: skip
            event_ids = {event["event_id"] for event in overview["events"]}
            assert event_ids <= counted.keys()
            assert len(event_ids) == min(len(counted), shown_max)
            for shown in overview["events"]:
                question = counted[shown["event_id"]]
                outcome = question.corrected[1] if question.corrected else question.outcome
                assert (shown["outcome"], shown["resolved"]) == (outcome, True)
                assert {row["model_id"]: (row["prediction"], row["brier_score"]) for row in shown["predictions"]} == {
                    name: (
                        events_played.answer_of(name, question.lean),
                        pytest.approx(events_played.units(name, question, outcome) / events_played.UNIT, abs=1e-9),
                    )
                    for name in events_played.MODELS
                    if events_played.answered(name, question)
                }  # fmt: skip
        finally:
            node.report.end(signal.SIGKILL)
