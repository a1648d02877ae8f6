"""A contract's hash: what it says and does, and nothing else.

What counts: the fields that it sets; the code that its functions and types reach in the operator's own packages, as
trees (`code.py`); the values that functions carry along; the versions of installed packages that this code
imports; the version of each default, strategy and type of ours (`streams/contract/meaning.py`). What does not:
comments, docstrings, layout, the order of imports, code that it does not reach, fields of ours that came later and
fields left unset.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import msgspec
from pydantic import BaseModel

from coordinator.infra.contracts.code import Module, Reach, Text, digest_of, shape
from coordinator.infra.contracts.sources import (
    Sources,
    distribution_of,
    place_of,
    public_name,
    sources_of,
    whose,
)
from coordinator.streams.contract import Aggregation, CrunchContract, ScheduledPrediction
from coordinator.streams.contract.meaning import CHANGED, our_key, version_of
from coordinator.streams.log.errors import ContractError

SCORING = (
    "score_prediction",
    "score_round",
    "state_scope",
    "score_type",
    "resolve_ground_truth",
    "ground_truth_type",
)


class Meaning(msgspec.Struct, frozen=True):
    """What a contract means. `code` has, by module and name, the digests of the statements reached.

    `modules` are the operator's modules in the order in which they were reached.
    """

    modules: list[str]
    fields: dict[str, Any]
    code: dict[str, list[str]]
    data: dict[str, str]
    ours: dict[str, int]
    installed: dict[str, str]

    @property
    def hash(self) -> str:
        """sha256 (hex); the same on every machine, and whatever the modules are called: a name does nothing."""
        numbers = {name: f"module {i}" for i, name in enumerate(self.modules)}

        def bare(value: Any) -> Any:
            if isinstance(value, str):
                sign = "= " if value.startswith("= ") else ""
                module, colon, name = value.removeprefix("= ").partition(":")
                return sign + numbers.get(module, module) + colon + name
            if isinstance(value, dict):
                return {bare(key): bare(one) for key, one in value.items()}
            return [bare(one) for one in value] if isinstance(value, list) else value

        data = sorted([name.rpartition("/")[2], digest] for name, digest in self.data.items())
        return digest_of([bare(self.fields), bare(self.code), data, self.ours, self.installed])


def contract_hash(contract: CrunchContract) -> str:
    """The hash of what the contract says and does. Raises ContractError as `meaning_of` does."""
    return meaning_of(contract).hash


def scoring_hash(contract: CrunchContract) -> str:
    """The hash of what a score of this contract means. Scores of two hashes are never added."""
    fields = CrunchContract.model_fields
    field_values = {name: getattr(contract, name) for name in SCORING}
    fields_set = {name: value for name, value in field_values.items() if value is not fields[name].default}
    if params := [(one.scope_key, one.params) for one in contract.scheduled_predictions if one.params]:
        fields_set["scheduled_predictions"] = [
            ScheduledPrediction(scope_key=key, params=one) for key, one in params
        ]
    field = Aggregation(value_field=contract.aggregation.value_field)
    return contract_hash(CrunchContract(**fields_set, aggregation=field))


def meaning_of(contract: CrunchContract) -> Meaning:
    """What a contract says and does.

    Raises ContractError for a function that carries what is no plain data: its text may hold an address, and then the
    same contract would be another one after every restart.
    """
    return _Reader(contract).meaning()


def sources_of_contract(contract: CrunchContract) -> Sources | None:
    """The sources that a contract was loaded from, found by its class and functions."""
    things = [type(contract), *(getattr(contract, name) for name in type(contract).model_fields)]
    for thing in things:
        inner = thing
        while isinstance(inner, functools.partial):
            inner = inner.func
        module_sources = sources_of(getattr(inner, "__module__", "")) or sources_of(type(inner).__module__)
        if module_sources is not None:
            return module_sources
    return None


class _Reader:
    def __init__(self, contract: CrunchContract) -> None:
        self._contract = contract
        self._sources = sources_of_contract(contract)
        self._reach = Reach(self._sources, self._text_of)
        self._field = ""
        self._within: list[int] = []

    def meaning(self) -> Meaning:
        contract, reach = self._contract, self._reach
        fields = self._set_fields(contract, top=True)
        metrics = contract.aggregation.metrics
        for name in metrics.names if metrics else ():
            key = f"metrics.{name}"  # a contract names a metric by text, so no value leads to its function
            reach.ours[key] = version_of(key)
        if self._sources is not None:
            for name in self._sources.modules():
                module = reach.module(name)
                if module is not None:
                    reach.effects_of(module)
        return Meaning(
            modules=list(dict.fromkeys(key.partition(":")[0] for key in reach.code)),
            fields=fields,
            code=dict(sorted(reach.code.items())),
            data=dict(sorted(reach.data.items())),
            ours=dict(sorted(reach.ours.items())),
            installed=dict(sorted(reach.installed.items())),
        )

    def _text_of(self, module: str) -> Text | None:
        if self._sources is not None:
            file = self._sources.file_of(module)
            if file is not None:
                return self._sources.files.get(file, b""), not file.endswith(".py") or file.endswith(
                    "__init__.py"
                )
            if self._sources.file_of(module.partition(".")[0]) is not None:
                return None
        top = module.partition(".")[0]
        owner = whose(top)
        if owner in ("ours", "python") or (owner == "installed" and distribution_of(top) is not None):
            return None
        loaded = sys.modules.get(module)
        place = getattr(loaded, "__file__", None) if loaded or owner == "installed" else place_of(module)
        path = Path(place or "")
        return (path.read_bytes(), path.name == "__init__.py") if path.suffix == ".py" else None

    # --- fields --------------------------------------------------------------------------------------------------

    def _set_fields(self, thing: BaseModel, *, top: bool = False) -> dict[str, Any]:
        """The fields that a model or a subclass sets; of the others only whether their meaning has changed."""
        kind = type(thing)
        described: dict[str, Any] = {}
        theirs = [parent for parent in kind.__mro__ if not _is_ours(parent)]
        named = {name for their in theirs for name in inspect.get_annotations(their)}
        for name in sorted(kind.model_fields):
            value = getattr(thing, name)
            if top:
                self._field = name
            if name in thing.model_fields_set or name in named:
                described[name] = self._value(value)
                continue
            does = value.func if isinstance(value, functools.partial) else value
            key = our_key(does) if isinstance(does, (FunctionType, type)) else f"{kind.__name__}.{name}"
            if key in CHANGED:
                self._reach.ours[key] = version_of(key)
            if isinstance(value, BaseModel) and (inner := self._set_fields(value)):
                described[name] = inner
        if not _is_ours(kind):
            described["class"] = self._value(kind)
        return described

    def _value(self, value: Any) -> Any:
        """Plain data for anything that a contract, a partial, a closure or an object may hold."""
        if isinstance(value, BaseModel):
            return self._set_fields(value)
        if isinstance(value, dict):
            return [[self._value(key), self._value(inner_value)] for key, inner_value in value.items()]
        if isinstance(value, (list, tuple)):
            return [self._value(inner_value) for inner_value in value]
        if isinstance(value, ModuleType):
            return f"module {public_name(value.__name__)}"
        if callable(value):
            return self._behaviour(value)
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            return [str(getattr(value, "dtype", "")), self._value(value.tolist())]
        try:
            return msgspec.to_builtins(value, order="deterministic")
        except (TypeError, ValueError) as error:
            raise ContractError(
                f"contract field {self._field}: carries values that are no plain data ({error}); use a plain function"
            ) from error

    # --- functions and types -------------------------------------------------------------------------------------

    def _behaviour(self, thing: Callable[..., Any]) -> Any:
        if id(thing) in self._within:
            return "itself"
        self._within.append(id(thing))
        try:
            return self._behaves(thing)
        finally:
            self._within.pop()

    def _behaves(self, thing: Any) -> Any:
        if isinstance(thing, functools.partial):
            return [
                "partial",
                self._behaviour(thing.func),
                self._value(thing.args),
                self._value(thing.keywords),
            ]
        if inspect.ismethod(thing):
            owner = thing.__self__
            if isinstance(owner, type):
                return ["method", thing.__name__, self._behaviour(owner)]
            return ["method", thing.__name__, self._behaviour(type(owner)), self._carried(owner)]
        if isinstance(thing, type):
            return self._type(thing)
        inner = inspect.unwrap(thing)
        if isinstance(inner, FunctionType):
            return self._function(inner)
        if inspect.isroutine(inner):
            return f"built in {getattr(inner, '__module__', '')}.{inner.__qualname__}"
        return ["object", self._behaviour(type(thing)), self._carried(thing)]

    def _carried(self, thing: Any) -> Any:
        if hasattr(thing, "__dict__"):
            return self._value(vars(thing))
        try:
            return self._value(
                thing.__reduce__()[1]
            )  # what pickle would make it anew from: operator.itemgetter
        except TypeError as error:
            raise ContractError(
                f"contract field {self._field}: a {type(thing).__name__} does not say what it holds ({error}); "
                "use a plain function"
            ) from error

    def _type(self, thing: type) -> Any:
        found = self._named(thing)
        if found is None and issubclass(thing, BaseModel):  # made at run time: there is no text
            return [thing.__qualname__, _without_words(thing.model_json_schema())]
        return found or thing.__qualname__

    def _function(self, function: FunctionType) -> Any:
        described: list[Any] = [self._named(function)]
        module = self._reach.module(public_name(function.__module__ or ""))
        if described[0] is None and module is not None:
            described = [[self._lambda(module, function_) for function_ in _lambdas(module.tree, function)]]
        if not described[0]:  # defined at a prompt: there is no file to read
            described = [_code(function.__code__)]
        if "<" in function.__qualname__:  # made by another function: what it was made with is part of it
            described.append(self._value([function.__defaults__, function.__kwdefaults__]))
            names = function.__code__.co_freevars
            cells = [_content(cell) for cell in function.__closure__ or ()]
            described.append({name: self._value(one) for name, one in zip(names, cells, strict=True)})
        return described

    def _named(self, thing: type | FunctionType) -> str | None:
        """Reach the statement that a function or type was defined by; gives its name, None without one."""
        module, name = public_name(thing.__module__ or ""), thing.__qualname__.partition(".")[0]
        if _is_ours(thing):
            key = our_key(thing)
            self._reach.ours[key] = version_of(key)
            return f"ours {key}"
        module_in_reach = self._reach.module(module)
        if module_in_reach is None:
            if module not in sys.modules:
                return None
            self._reach.foreign(module, name)
            return f"{module}.{thing.__qualname__}"
        if name not in module_in_reach.bound:
            return None
        self._reach.name(module, name)
        return f"{module}:{thing.__qualname__}"

    def _lambda(self, module: Module, node: ast.Lambda) -> str:
        self._reach.tree(module, node)
        return digest_of(shape(node))


def _lambdas(tree: ast.Module, function: FunctionType) -> list[ast.Lambda]:
    """The lambdas on the line that a function without a name stands on."""
    line = function.__code__.co_firstlineno
    return [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == line]


def _is_ours(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] in ("coordinator", "pydantic", "builtins")


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _without_words(schema: Any) -> Any:
    """A JSON schema without titles and descriptions: they say, and do nothing."""
    if isinstance(schema, dict):
        return {
            key: _without_words(value)
            for key, value in schema.items()
            if not (key in ("title", "description") and isinstance(value, str))
        }
    return [_without_words(value) for value in schema] if isinstance(schema, list) else schema


def _code(code: CodeType) -> list[Any]:
    """A code object as text: its own `repr`, and that of code inside it, holds an address; a set has no order."""
    constants = [
        _code(constant)
        if isinstance(constant, CodeType)
        else repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
        for constant in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, constants]
