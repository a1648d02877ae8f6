"""Finding the one model class in a submission folder.

Reads Python modules of the folder, emits a class. `main` decides alone if it holds a model, so that
a `train.py` beside it is not run. A class counts where it is defined: an intermediate base that was
merely imported is not taken for the model. Two models are an error that names both: taking the
first would run code that the participant did not mean.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from coordinator.infra.models.host.refusals import told

MAIN_MODULE = "main"
ModelFault = (Exception, SystemExit)
"""What a model's code may raise and live on: one that calls sys.exit() fails its call, and is asked again."""


class BadImplementationError(Exception):
    """The submission has no model, or more than one; the text says which and where."""


class UnknownBaseClassError(Exception):
    """The coordinator asked for a base class that cannot be imported here: not the model's fault."""


def import_base_class(dotted_name: str) -> type:
    """The class called `package.module.Class`. Raises UnknownBaseClassError."""
    module_name, _, class_name = dotted_name.rpartition(".")
    try:
        base_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownBaseClassError(f"base class {dotted_name!r} cannot be imported here: {error}") from error
    if not isinstance(base_class, type):
        raise UnknownBaseClassError(f"{dotted_name!r} is not a class")
    return base_class


def method_of(model: Any, name: str) -> Callable[..., Any]:
    """A public method of a model. Raises BadImplementationError."""
    method = None if name.startswith("_") else getattr(model, name, None)
    if not callable(method):
        raise BadImplementationError(f"the model has no method {name!r}")
    return method  # type: ignore[no-any-return]


def find_model_class(folder: Path, base: type) -> type:
    """The model class of `folder` (which must be on sys.path). Raises BadImplementationError."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(folder)]))
    broken: list[str] = []
    for group in ([MAIN_MODULE] if MAIN_MODULE in names else [], [n for n in names if n != MAIN_MODULE]):
        modules = [module for name in group if (module := _import(name, broken)) is not None]
        if group == [MAIN_MODULE] and broken:
            break
        seen = [value for module in modules for value in vars(module).values() if _is_model(value, base)]
        own = [candidate for candidate in seen if candidate.__module__ in group]
        classes = _leaves(own) or _leaves(seen)  # the second: a main.py that only imports its model
        if len(classes) > 1:
            listed = " and ".join(
                sorted(f"{candidate.__module__}.{candidate.__qualname__}" for candidate in classes)
            )
            count = {2: "two"}.get(len(classes), str(len(classes)))
            raise BadImplementationError(
                f"{count} models found: {listed}. Keep one subclass of {base.__qualname__}"
            )
        if classes:
            return classes[0]
    if broken:
        raise BadImplementationError("; ".join(broken))
    raise BadImplementationError(f"no subclass of {base.__module__}.{base.__qualname__} in {folder.name}")


def _import(name: str, broken: list[str]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (any code may stand at the top of a participant's module)
        traceback.print_exc()
        broken.append(f"{name} could not be imported: {told(error)}")
        return None


def _leaves(classes: list[type]) -> list[type]:
    """Without repeats, and without those that only serve as a base for another one here."""
    unique = list(dict.fromkeys(classes))
    return [
        candidate
        for candidate in unique
        if not any(other is not candidate and issubclass(other, candidate) for other in unique)
    ]


def _is_model(value: object, base: type) -> TypeGuard[type]:
    is_subclass = isinstance(value, type) and issubclass(value, base) and value is not base
    return is_subclass and not inspect.isabstract(value)
