"""Loading contracts: from `module:attribute` to a checked contract under its hash.

A contract's hash covers its declarative fields, the schemas of its types and the source of its functions,
so that "the same contract" means the same behaviour. Inputs carry the hash; a stage that is asked to work
for a hash which is not on its shelf stops and says so. Old and new contracts stand side by side.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from coordinator.streams.blame import described, where
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract_check import check_contract
from coordinator.streams.errors import ContractError, OperatorError


class ContractShelf:
    """Contracts by hash; the last one loaded is the current one."""

    def __init__(self) -> None:
        self._by_hash: dict[str, CrunchContract] = {}
        self.current_hash = ""

    def put(self, contract: CrunchContract) -> str:
        """Keep a contract and make it the current one; gives its hash."""
        self.current_hash = contract_hash(contract)
        self._by_hash[self.current_hash] = contract
        return self.current_hash

    @property
    def current(self) -> CrunchContract:
        """The contract that new inputs are made under."""
        return self._by_hash[self.current_hash]

    def __call__(self, wanted: str) -> CrunchContract:
        """The contract of a hash. Raises OperatorError when it is not here."""
        contract = self._by_hash.get(wanted)
        if contract is None:
            message = (
                f"an input asks for contract {wanted[:12]}, which is not loaded (have: "
                f"{', '.join(one[:12] for one in self._by_hash)}); name the old contract too, "
                "e.g. CONTRACT=old.module:Contract,new.module:Contract"
            )
            raise OperatorError(message)
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


def load_contract(path: str) -> CrunchContract:
    """The contract at `module:attribute`: an instance, or a class that is made without arguments."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        message = f"CONTRACT={path!r} must be module:attribute, e.g. runtime_definitions.contracts:CONTRACT"
        raise OperatorError(message)
    here = str(Path.cwd())
    if here not in sys.path and not (Path(here) / "streams").is_dir():
        sys.path.insert(0, here)  # the node's own folder: runtime_definitions lives there
    try:
        found: Any = getattr(importlib.import_module(module_name), attribute)
        contract = found() if isinstance(found, type) else found
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
    said = []
    for one in error.errors(include_url=False):
        reason = one["msg"]
        if one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(one["loc"][-1]), CrunchContract.model_fields, 1)
            reason = "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
        said.append(f"field {'.'.join(map(str, one['loc'])) or '?'}: {reason}")
    return "; ".join(said)


def contract_hash(contract: CrunchContract) -> str:
    """sha256 (hex) over what the contract says and does; the same on every machine."""
    content: dict[str, Any] = {}
    for name in sorted(type(contract).model_fields):
        value = getattr(contract, name)
        if isinstance(value, type) and issubclass(value, BaseModel):
            content[name] = [value.__qualname__, value.model_json_schema(), _source(value)]
        elif callable(value) and not isinstance(value, BaseModel):
            content[name] = _behaviour(name, value)
        else:
            content[name] = contract.model_dump(mode="json", include={name})
    return hashlib.sha256(msgspec.json.Encoder(order="deterministic").encode(content)).hexdigest()


def _behaviour(field: str, thing: Callable[..., Any]) -> Any:
    """What a callable does: its source, and the values that a partial, a method or an object carries along.

    Raises ContractError for values that are no plain data: their text may hold an address, and then the same
    contract would be another one after every restart.
    """
    if isinstance(thing, functools.partial):
        return [_behaviour(field, thing.func), _values(field, [thing.args, thing.keywords])]
    if inspect.ismethod(thing):
        owner = thing.__self__
        return [_source(thing.__func__), [] if isinstance(owner, type) else _values(field, vars(owner))]
    if inspect.isroutine(thing) or isinstance(thing, type):
        return _source(thing)
    return [_source(type(thing)), _values(field, vars(thing))]


def _values(field: str, values: Any) -> str:
    def carried(thing: Any) -> Any:
        if not callable(thing):
            message = f"a {type(thing).__name__}"
            raise TypeError(message)
        return _behaviour(field, thing)  # by_weights(my_weights): what it carries is behaviour too

    try:
        return msgspec.json.encode(values, enc_hook=carried, order="deterministic").decode()
    except (TypeError, ValueError) as error:
        message = (
            f"contract field {field}: carries values that are no plain data ({error}); use a plain function"
        )
        raise ContractError(message) from error


def _source(thing: Callable[..., Any] | type) -> str:
    """The source of the module a function or class comes from: its helpers are part of what it does."""
    module = inspect.getmodule(thing)
    try:
        if module is not None and module.__name__.startswith("coordinator."):
            return inspect.getsource(thing)
        text = inspect.getsource(module) if module is not None else inspect.getsource(thing)
    except (OSError, TypeError):
        code = getattr(thing, "__code__", None)  # defined at a prompt: there is no file to read
        text = repr(thing.__qualname__) if code is None else repr(_code(code))
    return hashlib.sha256(text.replace(os.linesep, "\n").encode()).hexdigest()


def _code(code: CodeType) -> list[Any]:
    """A code object as text: its own `repr`, and that of code inside it, holds an address; a set has no order."""
    constants = [
        _code(one)
        if isinstance(one, CodeType)
        else repr(sorted(map(repr, one)) if isinstance(one, frozenset) else one)
        for one in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, constants]
