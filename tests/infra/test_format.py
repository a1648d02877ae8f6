"""A new log directory is formatted by copying what Kafka's own tool wrote the first time."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.infra.kafka.embedded import EmbeddedBroker
from coordinator.infra.kafka.runtime import Java, KafkaRuntime


@pytest.fixture
def runtime(tmp_path):
    features = tmp_path / "bootstrap.checkpoint"
    features.write_bytes(b"the features of this version")
    return KafkaRuntime(Java(Path("/no/java"), 25), (), None, features)


def formatted(folder: Path, runtime: KafkaRuntime, **options) -> tuple[bytes, dict[str, str]]:
    folder.mkdir(exist_ok=True)
    broker = EmbeddedBroker(folder, **options)
    broker._runtime = runtime
    broker._format()
    lines = (folder / "log" / "meta.properties").read_text().split()
    return (folder / "log" / "bootstrap.checkpoint").read_bytes(), dict(line.split("=") for line in lines)


def test_no_java_runs_and_every_directory_has_unique_ids(tmp_path, runtime):
    features, ids = formatted(tmp_path / "a", runtime, node_id=7)
    assert features == b"the features of this version"
    assert (ids["version"], ids["node.id"]) == ("1", "7")
    assert ids["cluster.id"] == (tmp_path / "a" / "cluster_id").read_text()
    _, others = formatted(tmp_path / "b", runtime, node_id=7)
    assert ids["directory.id"] != others["directory.id"]
    assert ids["cluster.id"] != others["cluster.id"]


def test_a_formatted_directory_is_left_alone(tmp_path, runtime):
    _, ids = formatted(tmp_path / "a", runtime)
    assert formatted(tmp_path / "a", runtime)[1] == ids


def test_without_the_copy_kafkas_own_tool_is_used(tmp_path, runtime):
    runtime.bootstrap.unlink()
    with pytest.raises(FileNotFoundError, match="/no/java"):
        formatted(tmp_path / "a", runtime)
    assert not (tmp_path / "a" / "log" / "meta.properties").exists()
