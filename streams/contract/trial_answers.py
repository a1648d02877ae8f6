"""Makes answers that a model could give, from a contract's output type: different ones, and very large ones.

Pure. The values of a field are made by its type, and those that the type refuses are left out. Numbers are of the
scale of an opinion (-1 to 1), of a return (0.001) and of a price of the sample market (20,000), because the scores of
many contracts differ only on one of these scales.
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
    """Valid answers, all different: the type's own examples; or each field varied alone, then all together.

    An author gives examples as in pydantic, with the names that the type reads. They are needed if a type is nested,
    or has rules beyond the types of its fields:
    `model_config = ConfigDict(json_schema_extra={"examples": [{"steps": [..]}, ..]})`. The result may be empty.
    `deep`: the number of types around this one, because a type may contain itself.
    """
    if examples := _examples(output_type):
        return examples
    choices = _choices_of(output_type, deep)
    usual = {name: values[0] for name, values in choices.items() if values}
    raw = [usual]
    for name, values in choices.items():
        raw += [usual | {name: value} for value in values[1:]]
    longest = max((len(values) for values in choices.values()), default=0)
    raw += [
        {name: values[i % len(values)] for name, values in choices.items() if values}
        for i in range(1, longest)
    ]
    return _valid(output_type, raw)


def more_answers(output_type: type[BaseModel], count: int = 16) -> list[BaseModel]:
    """Valid answers with unusual numbers between -1 and 1. All numeric fields of an answer have the same number."""
    choices = _choices_of(output_type)
    usual = {name: values[0] for name, values in choices.items() if values}
    numeric = [
        name for name in usual if _unwrapped(output_type.model_fields[name].annotation) in (float, Decimal)
    ]
    spread = [round(2 * (i * GOLDEN % 1) - 1, 6) for i in range(1, count + 1)]
    return _valid(output_type, [usual | dict.fromkeys(numeric, value) for value in spread]) if numeric else []


def usual_answer(output_type: type[BaseModel]) -> Any:
    """A plausible answer: a value for each field without a default, 0.5 if the field's type is not known here.

    If the type has examples, or refuses that answer, it is the first of `answers_to_try`.
    """
    choices = _choices_of(output_type)
    fields = {name: field for name, field in output_type.model_fields.items() if field.is_required()}
    usual = {field.alias or name: (choices[name] or [0.5])[0] for name, field in fields.items()}
    valid = _examples(output_type) or _valid_by_alias(output_type, [usual]) or answers_to_try(output_type)
    if valid:
        return valid[0].model_dump(by_alias=True)
    return usual.get(_ROOT) if issubclass(output_type, RootModel) else usual


def huge_answers(output_type: type[BaseModel]) -> list[list[BaseModel]]:
    """For each numeric field and sign, a list of valid answers from 1 to 1e9; none if the type limits the field."""
    choices = _choices_of(output_type)
    usual = {name: values[0] for name, values in choices.items() if values}
    ladders = []
    for name, field in output_type.model_fields.items():
        if _unwrapped(field.annotation) in _NUMERIC:
            for sign in (1, -1):
                rungs = _valid(output_type, [usual | {name: sign * size} for size in HUGE])
                if len(rungs) == len(HUGE):
                    ladders.append(rungs)
    return ladders


def recorded(answer: BaseModel) -> Any:
    """An answer as JSON values for the log, with the names that its type reads. For a RootModel: its root."""
    return answer.model_dump(mode="json", by_alias=True)


def read_back(answer: BaseModel) -> BaseModel:
    """The answer as scoring gets it: recorded, and read again. Raises ValidationError, or what the JSON encoder
    raises.
    """
    return type(answer).model_validate(msgspec.json.decode(msgspec.json.encode(recorded(answer))))


def shown(answer: BaseModel) -> str:
    """An answer as a short text for messages."""
    return str(answer.model_dump(mode="json", by_alias=True))[:200]


def _valid(output_type: type[BaseModel], raw: list[dict[str, Any]]) -> list[BaseModel]:
    aliases = {name: field.alias or name for name, field in output_type.model_fields.items()}
    return _valid_by_alias(output_type, [{aliases[name]: values[name] for name in values} for values in raw])


def _valid_by_alias(output_type: type[BaseModel], raw: list[dict[str, Any]]) -> list[BaseModel]:
    if issubclass(output_type, RootModel):
        return _taken(output_type, [values[_ROOT] for values in raw if _ROOT in values])
    return _taken(output_type, raw)


def _taken(output_type: type[BaseModel], raw: Iterable[Any]) -> list[BaseModel]:
    """The values that the type accepts, without duplicates. It would also refuse the others from a model."""
    accepted: list[BaseModel] = []
    for value in raw:
        try:
            accepted.append(output_type.model_validate(value))
        except ValidationError:
            continue
    return _distinct(accepted)


def _distinct(answers: Iterable[BaseModel]) -> list[BaseModel]:
    return list({repr(answer): answer for answer in answers}.values())


def _examples(output_type: type[BaseModel]) -> list[BaseModel]:
    """The author's examples: `model_config = ConfigDict(json_schema_extra={"examples": [..]})`."""
    extra = output_type.model_config.get("json_schema_extra")
    examples = extra.get("examples") if isinstance(extra, dict) else None
    return _taken(output_type, examples) if isinstance(examples, list) else []


def _choices_of(output_type: type[BaseModel], deep: int = 0) -> dict[str, list[Any]]:
    """Field -> values to try: first the author's examples, then values of its type."""
    return {
        name: [*(field.examples or ()), *_choices(field.annotation, deep)]
        for name, field in output_type.model_fields.items()
    }


def _choices(annotation: Any, deep: int = 0) -> list[Any]:
    """Values of a type, the most usual first; empty if the type is not known here, or nested too deep."""
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
        columns = [_choices(item_type, deep) for item_type in inner]
        longest = max(map(len, columns)) if all(columns) else 0
        return [[values[i % len(values)] for values in columns] for i in range(longest)]
    if origin in (list, tuple, set, frozenset) and inner:
        return [[value, value, value] for value in _choices(inner[0], deep)]
    if origin is dict and len(inner) > 1:
        return [dict.fromkeys(_choices(inner[0], deep)[:2], value) for value in _choices(inner[1], deep)]
    if isinstance(kind, type) and issubclass(kind, BaseModel) and deep < DEPTH_MAX:
        return [answer.model_dump(by_alias=True) for answer in answers_to_try(kind, deep + 1)]
    return []


def _unwrapped(annotation: Any) -> Any:
    """`T` of `T | None` and of `Annotated[T, ...]`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return next((_unwrapped(member) for member in _not_none(annotation)), annotation)
    return annotation


def _not_none(annotation: Any) -> Iterator[Any]:
    return (member for member in get_args(annotation) if member is not types.NoneType)
