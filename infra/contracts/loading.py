"""Loading contracts: from `module:attribute` to a checked contract under its hash.

A contract's hash is its meaning (`meaning.py`), so that "the same contract" means the same behaviour. Inputs
carry the hash; a stage that is asked to work for a hash which is not on its shelf stops and says so. Old and new
contracts stand side by side.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coordinator.infra.contracts.meaning import contract_hash
from coordinator.infra.contracts.sources import Sources, load, run_from_disk
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import described, where
from coordinator.streams.contract.checking.check import check_contract
from coordinator.streams.log.errors import ContractError, OperatorError

__all__ = ["ContractShelf", "contract_hash", "load_contract", "load_contracts", "wrong_fields"]


class ContractShelf:
    """Contracts by hash; the last one put is the current one.

    What is not in memory is asked of `find` (the kept ones: data directory, then log) and opened by it.
    """

    def __init__(self, find: Callable[[str], CrunchContract | None] = lambda _: None) -> None:
        self._by_hash: dict[str, CrunchContract] = {}
        self._find = find
        self.current_hash = ""

    def put(self, contract: CrunchContract) -> str:
        """Keep a contract and make it the current one; gives its hash."""
        self.current_hash = contract_hash(contract)
        self._by_hash[self.current_hash] = contract
        return self.current_hash

    def contracts(self) -> list[CrunchContract]:
        """All that were put, in order."""
        return list(self._by_hash.values())

    @property
    def current(self) -> CrunchContract:
        """The contract that new inputs are made under."""
        return self._by_hash[self.current_hash]

    def __call__(self, contract_hash: str) -> CrunchContract:
        """The contract of a hash. Raises OperatorError when it is not here."""
        contract = self._by_hash.get(contract_hash) or self._find(contract_hash)
        if contract is None:
            message = (
                f"an input asks for contract {contract_hash[:12]}, which is kept neither in the data "
                "directory nor in the log "
                f"(here: {', '.join(one[:12] for one in self._by_hash) or 'none'}); restore `contracts/` of the data "
                "directory or the topics from a backup, or name its text too: CONTRACT=old.module:NAME,new.module:NAME"
            )
            raise OperatorError(message)
        self._by_hash[contract_hash] = contract
        return contract


def load_contracts(paths: str, *, kind: str = "candle") -> ContractShelf:
    """A shelf of every `module:attribute` in a comma list, each checked on sample data.

    Raises OperatorError for a path that cannot be imported (with the cause: a broken contract is never replaced
    by the default), ContractError for one that fails its check.
    """
    shelf = ContractShelf()
    for path in (part.strip() for part in paths.split(",")):
        contract = load_contract(path)
        check_contract(contract, kind=kind)
        shelf.put(contract)
    return shelf


def load_contract(path: str, sources: Sources | None = None) -> CrunchContract:
    """The contract at `module:attribute`, run from disk, or from `sources` alone.

    It is an instance, or a class that is made without arguments. Raises OperatorError, ContractError.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        message = f"CONTRACT={path!r} must be module:attribute, e.g. runtime_definitions.contracts:CONTRACT"
        raise OperatorError(message)
    here = str(Path.cwd())
    if here not in sys.path and not (Path(here) / "streams").is_dir():
        sys.path.insert(0, here)  # the node's own folder: runtime_definitions lives there
    try:
        ours = module_name.partition(".")[0] == "coordinator"
        if sources is not None:
            module = load(sources, module_name)
        else:
            module = importlib.import_module(module_name) if ours else run_from_disk(module_name)
        contract_or_class: Any = getattr(module, attribute)
        contract = contract_or_class() if isinstance(contract_or_class, type) else contract_or_class
    except ValidationError as error:
        place = where(error)
        raise ContractError(
            f"contract {path}: {wrong_fields(error)}" + (f" ({place})" if place else "")
        ) from error
    except (Exception, SystemExit) as error:  # a file that calls sys.exit() would end us without a word
        message = f"contract {path} cannot be loaded: {described(error)}"
        raise OperatorError(message) from error
    if not isinstance(contract, CrunchContract):
        message = f"contract {path} is a {type(contract).__name__}, not a CrunchContract"
        raise ContractError(message)
    return contract


def wrong_fields(error: ValidationError) -> str:
    """Every field that pydantic refused, with its reason, in one line."""
    faults = []
    for error_ in error.errors(include_url=False):
        reason = error_["msg"]
        if error_["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(error_["loc"][-1]), CrunchContract.model_fields, 1)
            reason = "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
        faults.append(f"field {'.'.join(map(str, error_['loc'])) or '?'}: {reason}")
    return "; ".join(faults)
