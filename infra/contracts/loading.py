"""Loads contracts: from `module:attribute` to a checked contract under its hash.

The hash is computed from the contract's meaning (`meaning.py`): two contracts with the same hash behave the same.
Inputs carry the hash. A stage that needs a contract which is not on its shelf stops with an error that names the hash.
Old and new contracts are on the shelf side by side.
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
    """Contracts by hash; the current one is the last that was put.

    `find` is called for a hash that is not in memory: it loads the contract from its archive, or returns None.
    """

    def __init__(self, find: Callable[[str], CrunchContract | None] = lambda _: None) -> None:
        self._by_hash: dict[str, CrunchContract] = {}
        self._find = find
        self.current_hash = ""

    def put(self, contract: CrunchContract) -> str:
        """Add a contract and make it the current one; returns its hash."""
        self.current_hash = contract_hash(contract)
        self._by_hash[self.current_hash] = contract
        return self.current_hash

    def contracts(self) -> list[CrunchContract]:
        """All contracts in memory, in the order in which they were added."""
        return list(self._by_hash.values())

    @property
    def current(self) -> CrunchContract:
        """The contract that new inputs are made under."""
        return self._by_hash[self.current_hash]

    def __call__(self, contract_hash: str) -> CrunchContract:
        """The contract of a hash. Raises OperatorError if it is neither in memory nor found."""
        contract = self._by_hash.get(contract_hash) or self._find(contract_hash)
        if contract is None:
            message = (
                f"an input needs contract {contract_hash[:12]}, which is neither in the data directory nor in the log "
                f"(loaded: {', '.join(loaded[:12] for loaded in self._by_hash) or 'none'}); restore `contracts/` of "
                "the data directory or the topics from a backup, or name its module too: "
                "CONTRACT=old.module:NAME,new.module:NAME"
            )
            raise OperatorError(message)
        self._by_hash[contract_hash] = contract
        return contract


def load_contracts(paths: str, *, kind: str = "candle") -> ContractShelf:
    """A shelf with every contract of a comma-separated list of `module:attribute`, each checked on sample data.

    A broken contract is never replaced by the default. Raises OperatorError with the cause for a path that cannot be
    imported, ContractError for a contract that fails its check.
    """
    shelf = ContractShelf()
    for path in (part.strip() for part in paths.split(",")):
        contract = load_contract(path)
        check_contract(contract, kind=kind)
        shelf.put(contract)
    return shelf


def load_contract(path: str, sources: Sources | None = None) -> CrunchContract:
    """The contract at `module:attribute`, run from disk, or from `sources` alone if they are given.

    The attribute is an instance, or a class that needs no arguments. Raises OperatorError, ContractError.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        message = f"CONTRACT={path!r} must be module:attribute, e.g. runtime_definitions.contracts:CONTRACT"
        raise OperatorError(message)
    here = str(Path.cwd())
    if here not in sys.path and not (Path(here) / "streams").is_dir():
        sys.path.insert(0, here)  # a node's folder holds the package `runtime_definitions`
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
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise OperatorError(f"contract {path} cannot be loaded: {described(error)}") from error
        of_python = error.name in sys.stdlib_module_names
        why = "is Python's own" if of_python else f"is neither in {here} nor installed"
        raise OperatorError(
            f"contract {path} cannot be loaded: {described(error)}: {error.name} {why}; run this in "
            "the folder that holds your module, and name it such as runtime_definitions.contracts:CONTRACT in a "
            "node's folder"
        ) from error
    except (Exception, SystemExit) as error:  # a module that calls sys.exit() would end this process silently
        message = f"contract {path} cannot be loaded: {described(error)}"
        raise OperatorError(message) from error
    if not isinstance(contract, CrunchContract):
        message = f"contract {path} is a {type(contract).__name__}, not a CrunchContract"
        raise ContractError(message)
    return contract


def wrong_fields(error: ValidationError) -> str:
    """Every field that pydantic refused with the reason, in one line."""
    texts = []
    for fault in error.errors(include_url=False):
        reason = fault["msg"]
        if fault["type"] == "extra_forbidden":
            similar = difflib.get_close_matches(str(fault["loc"][-1]), CrunchContract.model_fields, 1)
            reason = "there is no such field" + (f"; did you mean {similar[0]}?" if similar else "")
        texts.append(f"field {'.'.join(map(str, fault['loc'])) or '?'}: {reason}")
    return "; ".join(texts)
