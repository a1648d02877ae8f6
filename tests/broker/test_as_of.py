"""As of any moment, on a real Kafka and the worker over real sockets: the answer is that of a fresh replay stopped there.

Two logs: one that the stages made, with a gap, a change of owners and garbage; and one in which decisions come hours
after their time. Each moment is the `at` of an event, a millisecond before or after: inside a burst of a round.
COORDINATOR_AS_OF_MOMENTS (100 a log) sets how many are tried by the long test, COORDINATOR_AS_OF_SEED (1) which.
"""

from __future__ import annotations

import os
import random
from types import SimpleNamespace

import httpx
import pytest
from tests.api.test_as_of import ROUTES, with_moment
from tests.broker.fixed_log import fixed_log
from tests.broker.test_projector import produce
from tests.logs import START_MS, LogBuilder
from tests.loopback import NO_CERTIFICATES
from tests.projections.test_as_of import late_log, moments
from tests.waiting import LIMIT_SECONDS

from coordinator.api.access import Rules
from coordinator.api.app import create_app
from coordinator.api.commands import Sender
from coordinator.api.keys import KeyRing
from coordinator.infra.log.own_log import log_identity
from coordinator.projections.folding.projector import Projector
from coordinator.projections.folding.replay import replay
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.topology import TOPICS

pytestmark = pytest.mark.broker
MOMENTS = int(os.environ.get("COORDINATOR_AS_OF_MOMENTS", "100"))
SEED = int(os.environ.get("COORDINATOR_AS_OF_SEED", "1"))


def staged_log(crunch_id: str) -> LogBuilder:
    """The stages' decisions on a generated market, with models that come and go meanwhile."""
    fixed, log = fixed_log(crunch_id, 240), LogBuilder(crunch_id)
    for i, model_id in enumerate(("m-good", "m-bad", "m-late")):
        log.model(model_id, at=START_MS + i * 3_600_000)
    log.model_left("m-bad", at=START_MS + 2 * 3_600_000 + 1)
    records = {topic: fixed.records[topic] for topic in TOPICS if topic in fixed.records} | fixed.undisturbed
    log.records.update({topic: written[1:] for topic, written in records.items()})  # the births are there
    return log


LOGS = {"staged": staged_log, "late": lambda _crunch_id: late_log(SEED)}


async def replayed(settings, until_ms, folder):
    """An application over a fresh replay of the broker's log that stopped at a moment."""
    result = await replay(
        settings.kafka_bootstrap, settings.crunch_id, None, until_ms, target_dir=folder / "projections"
    )
    read = open_read_models(
        folder, await log_identity(settings.kafka_bootstrap, settings.crunch_id), settings.crunch_id
    )
    app = create_app(settings, Sender(Projector(settings, read), None), rules=Rules(KeyRing(())))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node")
    return SimpleNamespace(client=client, close=read.close, hashes=result.state_hash)


async def assert_moments(worker, log, tmp_path, wanted: int) -> None:
    await produce(worker.settings.kafka_bootstrap, worker.settings.crunch_id, log)
    worker.start()
    worker.wait_caught_up(sum(len(records) for topic, records in log.records.items() if topic != "commands"))
    rng = random.Random(SEED)
    with_latecomers = 0
    async with httpx.AsyncClient(
        base_url=worker.url, timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES
    ) as client:
        for i, until in enumerate(rng.sample(moments(log), wanted)):
            if i == wanted // 2:  # what was kept is not lost with the process
                worker.end(9)
                worker.start()
                worker.wait_caught_up(1)
            then = await replayed(worker.settings, until, tmp_path / f"then-{i}")
            for path in ROUTES:
                expected = await then.client.get(path)
                answer = await client.get(with_moment(path, as_of=until))
                assert (answer.status_code, answer.json()) == (expected.status_code, expected.json()), (
                    path,
                    until,
                )
                with_latecomers += "~" in answer.headers.get("x-log-position", "")
                for part in answer.headers.get("x-state-hash", "").split(", "):
                    name, _, told = part.partition("=")
                    assert not name or told == then.hashes[name], (path, until, name)
            then.close()
    print(f"{wanted} moments, {len(ROUTES)} routes each; {with_latecomers} answers with latecomers")


@pytest.mark.parametrize("name", LOGS)
async def test_a_few_moments_equal_a_replay(worker, crunch_id, tmp_path, name):
    await assert_moments(worker, LOGS[name](crunch_id), tmp_path, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGS)
async def test_many_moments_equal_a_replay(worker, crunch_id, tmp_path, name):
    await assert_moments(worker, LOGS[name](crunch_id), tmp_path, MOMENTS)
