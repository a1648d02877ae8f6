"""Answers that are handed in are checked in a separate process: one that hangs, dies or uses too much memory costs that
file alone.
"""

from __future__ import annotations

import sys
import threading

import pytest
from tests import forked_modules
from tests.waiting import LIMIT_SECONDS

from coordinator.infra import author_process
from coordinator.infra.contracts.archive import ArchiveFolder, pack
from coordinator.infra.contracts.loading import contract_hash, load_contract
from coordinator.infra.rounds.answers import AnswerableQuestion
from coordinator.infra.rounds.checking import Checking, HandIn
from coordinator.infra.rounds.files import FileRefusedError
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings

RULES = """
import os
import time
from pydantic import BaseModel, field_validator
from coordinator.streams.contract import CrunchContract

class Answer(BaseModel):
    value: float

    @field_validator("value")
    @classmethod
    def _checked(cls, value):
        print("not an answer")
        if value == 1:
            while True:
                pass
        if value == 2:
            os._exit(3)
        while value == 4 and not os.path.exists(os.environ["GO_ON"]):
            time.sleep(0.02)
        if value == 3:
            return len([bytes(1 << 30) for _ in range(64)])  # 64 GiB, none of which is touched
        return value

CONTRACT = CrunchContract(output_type=Answer, crunch_pubkey="1" * 32)
"""

TO_LOAD = """
import os
import time
if os.environ.get("LOAD") == "dies":
    os._exit(3)
time.sleep(float(os.environ.get("LOAD", "0")))
"""


@pytest.fixture(autouse=True)
def forks(monkeypatch):
    """The process is a fork, since what it costs are mostly imports. `test_explaining.py` starts the process itself."""
    monkeypatch.setattr(author_process, "subprocess", forked_modules)


def file_of(body: str, contract_hash: str) -> HandIn:
    return HandIn(
        body.encode(), {name: AnswerableQuestion(name, "", contract_hash) for name in ("a", "b")}, ""
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """The settings of a node and the hash of its contract."""
    folder = tmp_path_factory.mktemp("checking")
    (folder / "rules_of_answers.py").write_text(RULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        contract = load_contract("rules_of_answers:CONTRACT")
        key = contract_hash(contract)
        settings = Settings(
            data_dir=folder / "data",
            contract="rules_of_answers:CONTRACT",
            feed_source="generated",
            kafka_bootstrap="127.0.0.1:1",
        )
        settings.data_dir.mkdir()
        ArchiveFolder(settings.data_dir).put(key, pack(contract, settings.contract))
        yield settings, key


@pytest.fixture(scope="module")
def hand_in(node):
    """`hand_in(body)`: the result of the node's check of a file, in a child."""
    settings, key = node
    check = Checking(settings, seconds_max=LIMIT_SECONDS)
    yield lambda body, contract_hash=key: check(file_of(body, contract_hash))
    check.close()


def answers(hand_in, body: str) -> dict[str, bytes]:
    return {answer.question_id: bytes(answer.output) for answer in hand_in(body)}


def test_answers_are_read_and_checked_as_the_contract_says(hand_in):
    assert answers(hand_in, '{"a": 0.25, "b": {"value": 0.5}}') == {
        "a": b'{"value":0.25}',
        "b": b'{"value":0.5}',
    }
    with pytest.raises(FileRefusedError, match="answer 2: question 'b': BAD_OUTPUT: value"):
        hand_in('{"a": 0.25, "b": {"value": "much"}}')
    with pytest.raises(FileRefusedError, match="question 'c' takes no answers"):
        hand_in('{"c": 0.25}')


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (2, "not checked: the check by the contract ended the process that ran it"),
        (3, "BAD_OUTPUT: Answer cannot take it: MemoryError"),
    ],
    ids=["dies", "eats memory"],
)
def test_a_validator_that_dies_or_uses_too_much_memory_refuses_that_file_alone(hand_in, value, says):
    with pytest.raises(FileRefusedError, match=says):
        hand_in(f'{{"a": {value}}}')
    assert answers(hand_in, '{"a": 0.25}') == {"a": b'{"value":0.25}'}


def test_a_validator_that_hangs_refuses_that_file_alone(node):
    settings, key = node
    check = Checking(settings, seconds_max=2.0)
    try:
        with pytest.raises(
            FileRefusedError, match="not checked: the check by the contract did not end within 2 s"
        ):
            check(file_of('{"a": 1}', key))
        assert [answer.question_id for answer in check(file_of('{"a": 0.25}', key))] == ["a"]
    finally:
        check.close()


def test_a_contract_that_cannot_be_read_is_the_nodes_fault(hand_in):
    with pytest.raises(WorldError, match="does not answer"):
        hand_in('{"a": 0.25}', "0" * 64)


@pytest.fixture
def check_of(node, tmp_path, monkeypatch):
    """`check_of(load, seconds_max)`: a check, and a file under a contract that no process has loaded; `load` is what
    loading it does: a number of seconds that it takes, or "dies".
    """
    settings, key = node
    (tmp_path / "rules_to_load.py").write_text(TO_LOAD + RULES.replace("not an answer", "another one"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    contract = load_contract("rules_to_load:CONTRACT")
    other = contract_hash(contract)
    assert other != key
    ArchiveFolder(settings.data_dir).put(other, pack(contract, "rules_to_load:CONTRACT"))
    checks = []

    def make(load: str, seconds_max: float) -> tuple[Checking, HandIn]:
        monkeypatch.setenv("LOAD", load)
        checks.append(Checking(settings, seconds_max))
        checks[-1](file_of('{"a": 0.25}', key))  # the process is up
        return checks[-1], file_of('{"a": 0.25}', other)

    yield make
    for check in checks:
        check.close()


def test_the_time_of_a_check_begins_after_the_contract_was_loaded(check_of):
    check, file = check_of("2", 1.5)
    assert [answer.question_id for answer in check(file)] == ["a"]


@pytest.mark.parametrize(("load", "why"), [("30", "not within 0.5 s"), ("dies", "that ended its process")])
def test_a_contract_that_does_not_load_is_the_nodes_fault(check_of, monkeypatch, load, why):
    check, file = check_of(load, 60.0)
    if load != "dies":
        monkeypatch.setattr(author_process, "START_SECONDS_MAX", 0.5)
    with pytest.raises(WorldError, match=f"the contract could not be loaded: {why}"):
        check(file)


def test_a_file_that_takes_long_delays_no_other(node, monkeypatch, tmp_path):
    """The second file is answered while the first one is still being checked."""
    settings, key = node
    go_on = tmp_path / "go-on"
    monkeypatch.setenv("GO_ON", str(go_on))
    check = Checking(settings, seconds_max=60.0)
    in_order: list[str] = []

    def slow() -> None:
        assert check(file_of('{"a": 4}', key))
        in_order.append("the slow one")

    waiting = threading.Thread(target=slow)
    try:
        waiting.start()
        assert check(file_of('{"a": 0.5}', key))
        in_order.append("the other")
        go_on.touch()
        waiting.join()
    finally:
        check.close()
    assert in_order == ["the other", "the slow one"]
