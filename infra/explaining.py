"""Runs explanations in a process of their own (`author_process.py`): a contract's function that hangs or dies ends only
that process.

The report worker asks it (`api/explain.py`), and so does `coordinator explain`. A figure that is not explained in time
is explained from the record, with the reason. `python -m coordinator.infra.explaining` is the child.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec

from coordinator.infra.author_process import ANSWER_SECONDS_MAX, AuthorProcess, UnansweredError, serve
from coordinator.infra.blobs.store_by_settings import store_of
from coordinator.infra.contracts.node_contracts import NodeContracts
from coordinator.streams.audit.explain.copies import CopyFacts
from coordinator.streams.audit.explain.recomputing import Facts, explain_again, explain_recorded
from coordinator.streams.audit.explain.steps import Explanation
from coordinator.streams.log.errors import CoordinatorError
from coordinator.streams.settings import Settings


class Explaining:
    """`close` ends the process."""

    def __init__(
        self,
        settings: Settings,
        seconds_max: float = ANSWER_SECONDS_MAX,
        on_fault: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_fault` gets the reason why the contract's code did not explain a figure."""
        self._on_fault = on_fault
        self._process = AuthorProcess(settings, __name__, seconds_max)
        self.close = self._process.close

    def __call__(self, facts: Facts) -> Explanation:
        """The explanation of the facts. Raises WorldError as `AuthorProcess.ask`."""
        if isinstance(facts, CopyFacts) or not facts.contract_hash:
            return explain_recorded(facts)  # nothing of the author's runs
        try:
            return msgspec.json.decode(self._process.ask(facts), type=Explanation)
        except UnansweredError as error:
            why = str(error)
        except msgspec.DecodeError:
            self.close()
            why = "ended the process that ran it"
        fault = f"not computed again: the contract's code {why}"
        self._on_fault(fault)
        return explain_recorded(msgspec.structs.replace(facts, contract_hash="", contract_fault=fault))


def prepared(settings: Settings) -> Callable[[Facts], Callable[[], bytes]]:
    """What explains in the child."""
    shelf, blobs = NodeContracts(settings).shelf, store_of(settings)

    def load(facts: Facts) -> Callable[[], bytes]:
        if not isinstance(facts, CopyFacts):
            with suppress(CoordinatorError):  # the explanation meets it again, and says it
                shelf(facts.contract_hash)
        return lambda: msgspec.json.encode(explain_again(facts, shelf, blobs))

    return load


if __name__ == "__main__":
    serve(prepared)
