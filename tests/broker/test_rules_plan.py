"""Plan and apply on a real Kafka with a feed worker: nothing is touched, and a plan that no longer holds says why."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from tests import forked
from tests.broker.test_contract_apply import settings, write  # noqa: F401 - a fixture
from tests.infra.test_kept_contracts import RULES
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.infra.log.positions import topic_ends
from coordinator.streams.settings import environment

pytestmark = pytest.mark.broker
GATED = RULES.replace("score_prediction=score,", "score_prediction=score, min_participation=0.5,")


async def test_a_plan_is_applied_only_while_its_basis_is_unchanged(settings, tmp_path):  # noqa: F811
    env = {**os.environ, **environment(settings)}

    async def coordinator(*words):
        done = await asyncio.to_thread(forked.run, [*words, "--json"], env=env, cwd=tmp_path)
        return done.returncode, json.loads(done.stdout or "null"), done.stderr

    with (tmp_path / "feed.log").open("wb") as log:
        feed = forked.start(["worker", "feed"], env=env, cwd=tmp_path, out=log)
    try:
        async with limit():
            while True:
                code, same, output = await coordinator("plan")
                if code == 0:
                    break
                assert code == 1, output
                await asyncio.sleep(0.5)
        assert (same["plan"]["change"], same["plan"]["periods"]) == ("none", [])

        code, missing, output = await coordinator("plan", "--contract", "no_such_rules:CONTRACT")
        assert (code, missing["exit_code"], "no_such_rules" in missing["error"]) == (1, 1, True)
        assert "no_such_rules" in output

        write(tmp_path, rules=GATED)
        before = await topic_ends(settings.kafka_bootstrap, settings.crunch_id)
        _, plan, _ = await coordinator("plan")
        after = await topic_ends(settings.kafka_bootstrap, settings.crunch_id)
        assert {
            topic: after[topic] for topic in ("commands", "checkpoints", "snapshots", "dead-letters")
        } == {topic: before[topic] for topic in ("commands", "checkpoints", "snapshots", "dead-letters")}
        changed = {term["name"]: (term["old"], term["new"]) for term in plan["plan"]["terms"]}
        assert changed["min_participation"] == (0.0, 0.5)
        _, what_if, _ = await coordinator("plan", "--set", "min_participation=0.7")

        write(tmp_path, rules=GATED.replace("0.5", "0.6"))
        code, _, output = await coordinator("apply", plan["file"], "--yes")
        assert (code, "is another one now" in output) == (2, True), output
        code, _, output = await coordinator("apply", what_if["file"], "--yes")
        assert (code, "was set for the plan alone" in output) == (2, True), output

        write(tmp_path, rules=GATED)
        code, applied, output = await coordinator("apply", plan["file"], "--yes")
        assert code == 0, output
        assert applied["effective_from"] == plan["made_on"]["holds_from_ms"]
        code, _, output = await coordinator("apply", plan["file"], "--yes")
        assert (code, "was applied since" in output) == (2, True), output
    finally:
        feed.kill()
        feed.wait(LIMIT_SECONDS)


async def test_a_change_applied_since_a_plan_was_made_invalidates_it_and_the_growing_log_does_not(
    settings,  # noqa: F811
    tmp_path,
):
    env = {**os.environ, **environment(settings)}

    async def coordinator(*words, **more_env):
        done = await asyncio.to_thread(forked.run, [*words, "--json"], env={**env, **more_env}, cwd=tmp_path)
        return done.returncode, json.loads(done.stdout or "null"), done.stderr

    async def planned(rules):
        write(tmp_path, rules=rules)
        code, plan, output = await coordinator("plan")
        assert code in (0, 2), output
        return plan

    async def applied_text(rules, **more_env):
        write(tmp_path, rules=rules)
        code, answer, output = await coordinator("contract", "apply", "--yes", **more_env)
        assert code == 0, output
        return answer

    with (tmp_path / "feed.log").open("wb") as log:
        feed = forked.start(["worker", "feed"], env=env, cwd=tmp_path, out=log)
    try:
        async with limit():
            while (await coordinator("plan"))[0] != 0:
                await asyncio.sleep(0.5)

        # Other settings under the same contract: what the plan computed had the periods of before.
        plan = await planned(GATED)
        await applied_text(RULES, CHECKPOINT_INTERVAL_SECONDS="43200")
        write(tmp_path, rules=GATED)
        code, _, output = await coordinator("apply", plan["file"], "--yes")
        assert (code, "CHECKPOINT_INTERVAL_SECONDS 21600 -> 43200" in output) == (2, True), output

        # Another contract.
        plan = await planned(GATED)
        other = await applied_text(GATED.replace("0.5", "0.4"))
        write(tmp_path, rules=GATED)
        code, _, output = await coordinator("apply", plan["file"], "--yes")
        assert (code, f"contract {other['contract'][:12]} was applied since" in output) == (2, True), output

        # Another contract, and then the former text again before either held: the plan's rules replace the same ones.
        await applied_text(RULES)
        plan = await planned(GATED)
        await applied_text(GATED.replace("0.5", "0.4"))
        back = await applied_text(RULES)
        assert back["contract"] == plan["made_on"]["contract_hash"]
        write(tmp_path, rules=GATED)
        ends = await topic_ends(settings.kafka_bootstrap, settings.crunch_id)
        assert ends["feeds"] > plan["made_on"]["feeds_offset"] + 1  # the log has grown
        code, answer, output = await coordinator("apply", plan["file"], "--yes")
        assert code == 0, output
        # As the feed worker decided it.
        assert (answer["contract"], answer["effective_from"]) == (
            plan["contract_hash"],
            plan["made_on"]["holds_from_ms"],
        )
    finally:
        feed.kill()
        feed.wait(LIMIT_SECONDS)
