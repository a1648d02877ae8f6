"""The rights of each role: it may write what the topology says, and nothing of another crunch."""

from __future__ import annotations

import json
import shlex

import pytest
from tests import forked

from coordinator.infra.kafka.groups import WORKER_OF
from coordinator.infra.kafka.rights import OPERATOR, ROLES, WITNESS, Right, rights_of, rights_script
from coordinator.streams.topology import STREAMS, WORKERS

CRUNCH = "btc-up"


def topics_with(role: str, operation: str) -> set[str]:
    return {
        name
        for right in rights_of(CRUNCH, role)
        for name in right.names
        if right.kind == "topic" and operation in right.operations
    }


def test_each_topic_is_written_by_the_worker_that_owns_it_and_by_no_other():
    writers = {
        stream.topic: {role for role in WORKERS if f"{CRUNCH}.{stream.topic}" in topics_with(role, "Write")}
        for stream in STREAMS
    }
    assert writers == {
        "feeds": {"feed"},
        "inputs": {"feed"},
        "predictions": {"predict"},
        "models": {"predict"},
        "scores": {"score"},
        "snapshots": {"score"},
        "checkpoints": {"checkpoint"},
        "commands": {"report", "feed"},
        "dead-letters": set(WORKERS),
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_right_is_to_this_crunch_alone(role):
    for right in rights_of(CRUNCH, role):
        for name in right.names:
            if right.kind == "topic":
                assert name.startswith(f"{CRUNCH}."), right
            else:
                assert not right.prefixed, right
                assert name in {f"{CRUNCH}-{stage}" for stage in WORKER_OF}, right


def test_only_the_operator_may_do_more_than_read_and_write_topics():
    for role in ROLES:
        operations = {operation for right in rights_of(CRUNCH, role) for operation in right.operations}
        assert ("All" in operations) == (role == OPERATOR)
        assert operations - {"All"} <= {"Read", "Write", "Describe", "DescribeConfigs"}


def test_a_witness_may_read_and_nothing_else():
    assert list(rights_of(CRUNCH, WITNESS)) == [
        Right(WITNESS, "topic", (f"{CRUNCH}.",), ("Read", "Describe"), prefixed=True)
    ]


def test_the_script_is_safe_for_a_shell_whatever_the_name_of_a_user():
    user = "CN=api; rm -rf /"
    script = rights_script(CRUNCH, "kafka-1:9092", {"report": user})
    for line in script.splitlines()[3:]:
        words = shlex.split(line)
        assert words[:6] == [
            *("kafka-acls.sh", "--bootstrap-server", "kafka-1:9092"),
            *("--add", "--allow-principal", f"User:{user}"),
        ]


def command(*arguments, tmp_path):
    return forked.run(["topics", "rights", *arguments], env={"CRUNCH_ID": CRUNCH}, cwd=tmp_path)


def test_the_command_names_each_role_and_accepts_other_names(tmp_path):
    done = command("--user", "report=api", "--kafka", "kafka-1:9092", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line[2:] for line in done.stdout.splitlines() if line.startswith("# ")] == list(ROLES)
    assert "User:api " in done.stdout
    assert "User:btc-up-score " in done.stdout
    rights = json.loads(command("--json", tmp_path=tmp_path).stdout)
    assert rights[0]["user"] == "btc-up-feed"
    assert len(rights) == sum(len(list(rights_of(CRUNCH, role))) for role in ROLES)


@pytest.mark.parametrize("pair", ["reporter=x", "report", "report=", "=x"])
def test_an_unknown_role_is_refused_with_the_list_of_roles(pair, tmp_path):
    done = command("--user", pair, tmp_path=tmp_path)
    assert done.returncode == 2
    assert "feed, predict, score, checkpoint, report, operator, witness" in done.stderr
