"""Answers that a model could give, made from a contract's output type: different ones, and very large ones.

Pure. A field's type says what may stand in it; what the type refuses is left out. Numbers are tried on the scale of an
opinion (-1 to 1), of a return (0.001) and of a price of the sample market (20,000), because a score of one kind is
blind to the others.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel, RootModel, ValidationError

NUMBERS = (0.5, -1.0, -0.5, -0.1, -0.001, 0.0, 0.001, 0.1, 1.0, 16000.0, 19990.0, 20000.25, 20010.0, 24000.0)
WHOLE = (1, -1, 0, 2, 19990, 20010)
HUGE = (1.0, 1e3, 1e6, 1e9)
GOLDEN = 0.6180339887
DEPTH_MAX = 3
_ROOT = "root"
"""The one field of a RootModel."""
_NUMERIC = (float, int, Decimal)


def answers_to_try(output_type: type[BaseModel], deep: int = 0) -> list[BaseModel]:
    """Valid answers, no two alike: the type's own examples, else each field varied alone, then all together.

    An author gives examples as pydantic has them, by the names that the type reads; they are needed where a type is
    nested, or asks for more than the types of its fields say:
    `model_config = ConfigDict(json_schema_extra={"examples": [{"steps": [..]}, ..]})`. May be empty. `deep` is how many
    types it stands within: a type may hold itself.
    """
    if said := _examples(output_type):
        return said
    choices = _choices_of(output_type, deep)
    usual = {name: found[0] for name, found in choices.items() if found}
    raw = [usual]
    for name, found in choices.items():
        raw += [usual | {name: value} for value in found[1:]]
    longest = max((len(found) for found in choices.values()), default=0)
    raw += [
        {name: found[i % len(found)] for name, found in choices.items() if found} for i in range(1, longest)
    ]
    return _valid(output_type, raw)


def more_answers(output_type: type[BaseModel], count: int = 16) -> list[BaseModel]:
    """Valid answers with numbers between -1 and 1 that nobody would think of; all numeric fields vary together."""
    choices = _choices_of(output_type)
    usual = {name: found[0] for name, found in choices.items() if found}
    numeric = [
        name for name in usual if _unwrapped(output_type.model_fields[name].annotation) in (float, Decimal)
    ]
    spread = [round(2 * (i * GOLDEN % 1) - 1, 6) for i in range(1, count + 1)]
    return _valid(output_type, [usual | dict.fromkeys(numeric, value) for value in spread]) if numeric else []


def usual_answer(output_type: type[BaseModel]) -> Any:
    """A plausible answer: a value for each field that has no default, 0.5 where the type is not known here.

    The first one of `answers_to_try` where the type has examples, or refuses that.
    """
    choices = _choices_of(output_type)
    fields = {name: field for name, field in output_type.model_fields.items() if field.is_required()}
    usual = {field.alias or name: (choices[name] or [0.5])[0] for name, field in fields.items()}
    valid = _examples(output_type) or _valid_by_alias(output_type, [usual]) or answers_to_try(output_type)
    if valid:
        return valid[0].model_dump(by_alias=True)
    return usual.get(_ROOT) if issubclass(output_type, RootModel) else usual


def huge_answers(output_type: type[BaseModel]) -> list[list[BaseModel]]:
    """For each numeric field and sign a ladder of valid answers, 1 to 1e9; none where the type sets a bound."""
    choices = _choices_of(output_type)
    usual = {name: found[0] for name, found in choices.items() if found}
    ladders = []
    for name, field in output_type.model_fields.items():
        if _unwrapped(field.annotation) in _NUMERIC:
            for sign in (1, -1):
                rungs = _valid(output_type, [usual | {name: sign * size} for size in HUGE])
                if len(rungs) == len(HUGE):
                    ladders.append(rungs)
    return ladders


def recorded(answer: BaseModel) -> Any:
    """An answer as it stands in the log: plain JSON, under the names that its type reads. Of a RootModel its root."""
    return answer.model_dump(mode="json", by_alias=True)


def read_back(answer: BaseModel) -> BaseModel:
    """The answer as scoring gets it: recorded, and read again. Raises ValidationError, or what JSON cannot hold."""
    return type(answer).model_validate(msgspec.json.decode(msgspec.json.encode(recorded(answer))))


def shown(answer: BaseModel) -> str:
    """An answer for a message."""
    return str(answer.model_dump(mode="json", by_alias=True))[:200]


def _valid(output_type: type[BaseModel], raw: list[dict[str, Any]]) -> list[BaseModel]:
    aliases = {name: field.alias or name for name, field in output_type.model_fields.items()}
    return _valid_by_alias(output_type, [{aliases[name]: one[name] for name in one} for one in raw])


def _valid_by_alias(output_type: type[BaseModel], raw: list[dict[str, Any]]) -> list[BaseModel]:
    if issubclass(output_type, RootModel):
        return _taken(output_type, [one[_ROOT] for one in raw if _ROOT in one])
    return _taken(output_type, raw)


def _taken(output_type: type[BaseModel], raw: Iterable[Any]) -> list[BaseModel]:
    """Those that the type does not refuse, as it would refuse the others from a model."""
    found: list[BaseModel] = []
    for one in raw:
        try:
            found.append(output_type.model_validate(one))
        except ValidationError:
            continue
    return _distinct(found)


def _distinct(answers: Iterable[BaseModel]) -> list[BaseModel]:
    return list({repr(one): one for one in answers}.values())


def _examples(output_type: type[BaseModel]) -> list[BaseModel]:
    """The author's own: `model_config = ConfigDict(json_schema_extra={"examples": [..]})`."""
    extra = output_type.model_config.get("json_schema_extra")
    said = extra.get("examples") if isinstance(extra, dict) else None
    return _taken(output_type, said) if isinstance(said, list) else []


def _choices_of(output_type: type[BaseModel], deep: int = 0) -> dict[str, list[Any]]:
    """Field -> values to try: the author's examples of it before those of its type."""
    return {
        name: [*(field.examples or ()), *_choices(field.annotation, deep)]
        for name, field in output_type.model_fields.items()
    }


def _choices(annotation: Any, deep: int = 0) -> list[Any]:
    """Values of a type, the most usual first; empty for a type that is not known here, or nested too deep."""
    kind = _unwrapped(annotation)
    origin, inner = get_origin(kind), get_args(kind)
    if kind is bool:
        return [True, False]
    if kind is int:
        return list(WHOLE)
    if kind in (float, Decimal):
        return list(NUMBERS)
    if kind is str:
        return ["sample", "other", ""]
    if origin is Literal:
        return list(inner)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return list(kind)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        each = [_choices(one, deep) for one in inner]
        longest = max(map(len, each)) if all(each) else 0
        return [[found[i % len(found)] for found in each] for i in range(longest)]
    if origin in (list, tuple, set, frozenset) and inner:
        return [[value, value, value] for value in _choices(inner[0], deep)]
    if origin is dict and len(inner) > 1:
        return [dict.fromkeys(_choices(inner[0], deep)[:2], value) for value in _choices(inner[1], deep)]
    if isinstance(kind, type) and issubclass(kind, BaseModel) and deep < DEPTH_MAX:
        return [one.model_dump(by_alias=True) for one in answers_to_try(kind, deep + 1)]
    return []


def _unwrapped(annotation: Any) -> Any:
    """`T` of `T | None` and of `Annotated[T, ...]`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return next((_unwrapped(one) for one in _not_none(annotation)), annotation)
    return annotation


def _not_none(annotation: Any) -> Iterator[Any]:
    return (one for one in get_args(annotation) if one is not types.NoneType)
