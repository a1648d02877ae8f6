"""Reads answers that a participant hands in and checks them by the contract, in a process of its own.

Both the file and the validators of the contract's output type may take long or much memory, and the report worker goes
on answering others (`author_process.py`). Their time begins when the contract is loaded. There are a few such
processes, so that one file that takes its ten seconds delays no other. `python -m coordinator.infra.rounds.checking` is
the child.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from queue import LifoQueue
from typing import Any, NamedTuple

import msgspec

from coordinator.infra.author_process import ANSWER_SECONDS_MAX, AuthorProcess, UnansweredError, serve
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.infra.rounds.answers import AnswerableQuestion, answers_of
from coordinator.infra.rounds.files import FileRefusedError, read_content
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import SubmittedAnswer
from coordinator.streams.log.errors import CoordinatorError, WorldError
from coordinator.streams.predictions.replies import check_output
from coordinator.streams.settings import Settings

AT_ONCE = 2
"""How many files are checked at a time, each in a process of at most 4 GiB."""


class HandIn(NamedTuple):
    """A file as its bytes, the questions that take answers, and the one that it is of ("" if it names them)."""

    body: bytes
    asked: Mapping[str, AnswerableQuestion]
    question_id: str


class Checked(msgspec.Struct):
    """The answers, or why there are none: the participant's fault, or that the contract cannot be read."""

    answers: list[SubmittedAnswer] = []
    refused: str = ""
    unreadable: str = ""


def checked_here(hand_in: HandIn, contracts: Contracts) -> list[SubmittedAnswer]:
    """The answers of a file. Raises FileRefusedError with the place and the reason, and CoordinatorError for a contract
    that cannot be read.
    """

    def check(asked: AnswerableQuestion) -> Callable[[Any], tuple[Any, str]]:
        contract = contracts(asked.contract_hash)
        return lambda output: check_output(output, contract.output_type, contract.output_max_bytes)

    return answers_of(read_content(hand_in.body), hand_in.asked, check, hand_in.question_id)


class Checking:
    """Call it from any thread; AT_ONCE files are checked at a time. `close` ends the processes."""

    def __init__(self, settings: Settings, seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        self._processes = [AuthorProcess(settings, __name__, seconds_max) for _ in range(AT_ONCE)]
        # The one that was used last comes first: on a quiet node the others are never started.
        self._free: LifoQueue[AuthorProcess] = LifoQueue()
        for process in self._processes:
            self._free.put(process)

    def close(self) -> None:
        """End the processes; the next file starts another one."""
        for process in self._processes:
            process.close()

    def __call__(self, hand_in: HandIn) -> list[SubmittedAnswer]:
        """The answers of a file. Raises FileRefusedError, also for a check that hangs or dies, and WorldError."""
        process = self._free.get()
        try:
            return self._answers(process, hand_in)
        finally:
            self._free.put(process)

    @staticmethod
    def _answers(process: AuthorProcess, hand_in: HandIn) -> list[SubmittedAnswer]:
        try:
            checked = msgspec.json.decode(process.ask(hand_in), type=Checked)
        except UnansweredError as error:
            raise FileRefusedError(f"not checked: the check by the contract {error}") from error
        except msgspec.DecodeError as error:
            process.close()
            raise FileRefusedError("not checked: the check by the contract gave no answer") from error
        if checked.unreadable:
            raise WorldError(checked.unreadable)
        if checked.refused:
            raise FileRefusedError(checked.refused)
        return checked.answers


def prepared(settings: Settings) -> Callable[[HandIn], Callable[[], bytes]]:
    """What checks in the child."""
    shelf = NodeContracts(settings).shelf

    def load(hand_in: HandIn) -> Callable[[], bytes]:
        loaded: dict[str, CrunchContract | CoordinatorError] = {}
        for contract_hash in {asked.contract_hash for asked in hand_in.asked.values()}:
            try:
                loaded[contract_hash] = shelf(contract_hash)
            except CoordinatorError as error:  # it stops the answers that need it, and no others
                loaded[contract_hash] = error

        def contract_of(contract_hash: str) -> CrunchContract:
            contract = loaded[contract_hash]
            if isinstance(contract, CoordinatorError):
                raise contract
            return contract

        return lambda: _answer(hand_in, contract_of)

    return load


def _answer(hand_in: HandIn, contracts: Contracts) -> bytes:
    try:
        checked = Checked(checked_here(hand_in, contracts))
    except FileRefusedError as error:
        checked = Checked(refused=str(error))
    except CoordinatorError as error:
        checked = Checked(unreadable=str(error))
    return msgspec.json.encode(checked)


if __name__ == "__main__":
    serve(prepared)
