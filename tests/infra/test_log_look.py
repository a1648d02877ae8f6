"""Reading the topics tolerates a broker that answers one client late and the next at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaTimeoutError

from coordinator.infra.log import cluster_state as log_look
from coordinator.infra.log.cluster_state import ClusterFound, look_at_log
from coordinator.streams.log.errors import WorldError
from coordinator.streams.simulation import loop


async def _nothing(*_: object) -> None:
    return None


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A log that lets the first `late` readers wait in vain."""
    scene = SimpleNamespace(late=0, asked=0)

    async def ask_cluster(*_: object) -> ClusterFound:
        return ClusterFound("cluster", {"feeds": "id"})

    async def topics(*_: object) -> dict[str, object]:
        scene.asked += 1
        if scene.asked <= scene.late:
            raise KafkaTimeoutError("Failed to get offsets by times in 20000 ms")
        return {}

    monkeypatch.setattr(log_look, "ask_cluster", ask_cluster)
    monkeypatch.setattr(log_look, "make_reader", lambda *_, **__: SimpleNamespace(start=_nothing))
    monkeypatch.setattr(log_look, "stop_reader", _nothing)
    monkeypatch.setattr(log_look, "_topics", topics)
    return scene


def test_a_broker_that_answers_the_next_client_is_asked_again(broker):
    broker.late = 2
    assert loop.run(look_at_log("127.0.0.1:1", "btc-up")).cluster_id == "cluster"


def test_a_broker_that_never_answers_is_reported_as_unreadable(broker):
    broker.late = 10**6
    with pytest.raises(WorldError, match=r"topics of btc-up .* cannot be read"):
        loop.run(look_at_log("127.0.0.1:1", "btc-up"))
