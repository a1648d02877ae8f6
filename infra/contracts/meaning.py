"""A contract's hash, computed from what the contract says and does, and from nothing else.

What counts: the fields that it sets; the code in the operator's own packages that its functions and types depend on, as
trees (`code.py`); the values that functions hold (closures, partials, objects); the versions of installed packages that
this code imports; the version of each built-in default, strategy and type (`streams/contract/provided_versions.py`).
What does not count: comments, docstrings, layout, the order of imports, code that it does not depend on, fields that it
leaves unset, and fields that a later version of this package adds.
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

from coordinator.infra.contracts.code import Module, ReachedCode, Text, digest_of, shape
from coordinator.infra.contracts.sources import (
    Sources,
    distribution_of,
    place_of,
    public_name,
    sources_of,
    whose,
)
from coordinator.streams.contract import Aggregation, CrunchContract, ScheduledPrediction
from coordinator.streams.contract.provided_versions import CHANGED, our_key, version_of
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
    """What a contract means.

    `fields`: name -> value, as plain data. `code`: `module:name` -> digests of the statements that bind it. `data`:
    file -> sha256 (hex). `ours`: key of ours -> version. `installed`: distribution -> version. `modules` are the
    operator's modules in the order in which they were reached.
    """

    modules: list[str]
    fields: dict[str, Any]
    code: dict[str, list[str]]
    data: dict[str, str]
    ours: dict[str, int]
    installed: dict[str, str]

    @property
    def hash(self) -> str:
        """sha256 (hex), the same on every machine.

        The names of modules do not count: a renamed module does the same.
        """
        numbers = {name: f"module {i}" for i, name in enumerate(self.modules)}

        def numbered(value: Any) -> Any:
            """The value with each module's name replaced by its number."""
            if isinstance(value, str):
                sign = "= " if value.startswith("= ") else ""
                module, colon, name = value.removeprefix("= ").partition(":")
                return sign + numbers.get(module, module) + colon + name
            if isinstance(value, dict):
                return {numbered(key): numbered(inner) for key, inner in value.items()}
            return [numbered(inner) for inner in value] if isinstance(value, list) else value

        data = sorted([name.rpartition("/")[2], digest] for name, digest in self.data.items())
        return digest_of([numbered(self.fields), numbered(self.code), data, self.ours, self.installed])


def contract_hash(contract: CrunchContract) -> str:
    """The hash of what the contract says and does. Raises ContractError as `meaning_of` does."""
    return meaning_of(contract).hash


def scoring_hash(contract: CrunchContract) -> str:
    """The hash of what a score of this contract means. Scores with different hashes are never added."""
    fields = CrunchContract.model_fields
    field_values = {name: getattr(contract, name) for name in SCORING}
    fields_set = {name: value for name, value in field_values.items() if value is not fields[name].default}
    if with_params := [scheduled for scheduled in contract.scheduled_predictions if scheduled.params]:
        fields_set["scheduled_predictions"] = [
            ScheduledPrediction(scope_key=scheduled.scope_key, params=scheduled.params)
            for scheduled in with_params
        ]
    field = Aggregation(value_field=contract.aggregation.value_field)
    return contract_hash(CrunchContract(**fields_set, aggregation=field))


def meaning_of(contract: CrunchContract) -> Meaning:
    """What a contract says and does.

    Raises ContractError for a function that holds a value which is not plain data: the text of such a value may contain
    a memory address, and the same contract would have another hash after every restart.
    """
    return _Reader(contract).meaning()


def sources_of_contract(contract: CrunchContract) -> Sources | None:
    """The sources that a contract was loaded from, by the modules of its class and of its fields' values."""
    values = [type(contract), *(getattr(contract, name) for name in type(contract).model_fields)]
    for value in values:
        inner = value
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
        self._reach = ReachedCode(self._sources, self._text_of)
        self._field = ""
        self._within: list[int] = []

    def meaning(self) -> Meaning:
        contract, reach = self._contract, self._reach
        fields = self._set_fields(contract, top=True)
        metrics = contract.aggregation.metrics
        for name in metrics.names if metrics else ():
            key = f"metrics.{name}"  # a contract names a metric as text: no value of a field leads to its function
            reach.ours[key] = version_of(key)
        for ensemble in contract.ensembles:
            for rule in (ensemble.weights, "weighted_mean" if ensemble.combine is None else ""):
                if isinstance(rule, str) and rule:
                    key = f"ensemble_rules.{rule}"
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
        """The fields that an object or its subclass sets.

        Of unset fields only a default whose version changed counts.
        """
        kind = type(thing)
        described: dict[str, Any] = {}
        operators_classes = [parent for parent in kind.__mro__ if not _is_ours(parent)]
        declared = {name for parent in operators_classes for name in inspect.get_annotations(parent)}
        for name in sorted(kind.model_fields):
            value = getattr(thing, name)
            if top:
                self._field = name
            if name in thing.model_fields_set or name in declared:
                described[name] = self._value(value)
                continue
            default = value.func if isinstance(value, functools.partial) else value
            key = our_key(default) if isinstance(default, (FunctionType, type)) else f"{kind.__name__}.{name}"
            # A default that never changed is left out, so that a field which we add later changes no hash.
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
                f"contract field {self._field}: holds values that are not plain data ({error}); use a plain function"
            ) from error

    # --- functions and types -------------------------------------------------------------------------------------

    def _behaviour(self, thing: Callable[..., Any]) -> Any:
        if id(thing) in self._within:  # a function that refers to itself
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
            return ["method", thing.__name__, self._behaviour(type(owner)), self._held_by(owner)]
        if isinstance(thing, type):
            return self._type(thing)
        inner = inspect.unwrap(thing)
        if isinstance(inner, FunctionType):
            return self._function(inner)
        if inspect.isroutine(inner):
            return f"built in {getattr(inner, '__module__', '')}.{inner.__qualname__}"
        return ["object", self._behaviour(type(thing)), self._held_by(thing)]

    def _held_by(self, thing: Any) -> Any:
        if hasattr(thing, "__dict__"):
            return self._value(vars(thing))
        try:
            # What pickle would rebuild the object from, for example an `operator.itemgetter`.
            return self._value(thing.__reduce__()[1])
        except TypeError as error:
            raise ContractError(
                f"contract field {self._field}: the values of a {type(thing).__name__} cannot be read ({error}); "
                "use a plain function"
            ) from error

    def _type(self, thing: type) -> Any:
        name = self._named(thing)
        if name is None and issubclass(thing, BaseModel):  # made at run time: it has no statement
            return [thing.__qualname__, _without_words(thing.model_json_schema())]
        return name or thing.__qualname__

    def _function(self, function: FunctionType) -> Any:
        described: list[Any] = [self._named(function)]
        module = self._reach.module(public_name(function.__module__ or ""))
        if described[0] is None and module is not None:
            described = [[self._lambda(module, node) for node in _lambdas(module.tree, function)]]
        if not described[0]:  # defined at a prompt: there is no file to read
            described = [_code(function.__code__)]
        if "<" in function.__qualname__:  # made by another function: its defaults and closure are part of it
            described.append(self._value([function.__defaults__, function.__kwdefaults__]))
            names = function.__code__.co_freevars
            cells = [_content(cell) for cell in function.__closure__ or ()]
            described.append({name: self._value(cell) for name, cell in zip(names, cells, strict=True)})
        return described

    def _named(self, thing: type | FunctionType) -> str | None:
        """Follow the statement that defines a function or a type; returns its name, None if there is no statement."""
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
    """The lambdas on the line of a function without a name."""
    line = function.__code__.co_firstlineno
    return [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == line]


def _is_ours(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] in ("coordinator", "pydantic", "builtins")


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the cell is still empty
        return None


def _without_words(schema: Any) -> Any:
    """A JSON schema without titles and descriptions, which have no effect."""
    if isinstance(schema, dict):
        return {
            key: _without_words(value)
            for key, value in schema.items()
            if not (key in ("title", "description") and isinstance(value, str))
        }
    return [_without_words(value) for value in schema] if isinstance(schema, list) else schema


def _code(code: CodeType) -> list[Any]:
    """A code object as plain data. Its `repr` would hold a memory address, and a set's `repr` has no fixed order."""
    constants = [
        _code(constant)
        if isinstance(constant, CodeType)
        else repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
        for constant in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, constants]
